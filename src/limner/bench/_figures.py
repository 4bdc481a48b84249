"""Scatter plots of samples over their training data, from the last frames of runs."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from limner.core.frame import POINTS as SHOWN

__all__ = ["SHOWN", "scatter"]

_COLUMNS = 3


def scatter(clouds: Mapping[str, Path]) -> bytes:
    """A PNG with a panel for each frame of points in the plane, over the extent of the data.

    Args:
        clouds: ``frames/*.npz`` of a run by title of its panel.
    """
    columns = min(_COLUMNS, len(clouds))
    rows = -(-len(clouds) // columns)
    figure = Figure((2.7 * columns, 3 * rows), dpi=130, layout=ConstrainedLayoutEngine(h_pad=0.1))
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (title, file) in zip(panels, clouds.items(), strict=False):
        with np.load(file, allow_pickle=False) as frame:
            real, fake, extent = frame["real"], frame["fake"], frame["places"]
        axes.plot(*real.T, ".", color="0.6", markersize=3)
        axes.plot(*fake.T, ".", color="#c22", markersize=2)
        (left, low), (right, high) = extent.min(0), extent.max(0)
        axes.set(xlim=(left, right), ylim=(low, high), aspect="equal", xticks=[], yticks=[])
        axes.set_title(title, loc="left", fontsize=9)
    for axes in panels[len(clouds) :]:
        axes.set_axis_off()
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()
