"""Figures of benches: samples over their training data, from the last frames of runs, and lines with intervals."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from limner.core.frame import POINTS as SHOWN

__all__ = ["SHOWN", "lines", "scatter"]

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


def lines(named: Mapping[str, Sequence[tuple[float, float, float | None, float | None]]], x: str, y: str) -> bytes:
    """A PNG of lines with bars for intervals.

    Args:
        named: points (x, mean, low, high) by name of the line; low and high are None without an interval.
        x: what the horizontal axis shows.
        y: what the vertical axis shows.
    """
    figure = Figure((6.4, 4), dpi=130, layout=ConstrainedLayoutEngine())
    axes = figure.subplots()
    for i, (name, points) in enumerate(named.items()):
        places = [p[0] * (1 + 0.015 * (i - (len(named) - 1) / 2)) for p in points]  # bars beside each other
        bars = [[p[1] - p[2], p[3] - p[1]] if p[2] is not None and p[3] is not None else [0.0, 0.0] for p in points]
        axes.errorbar(places, [p[1] for p in points], np.array(bars).T, marker="o", markersize=4, capsize=3, label=name)
    axes.set(xlabel=x, ylabel=y, xscale="log")
    ticks = sorted({p[0] for points in named.values() for p in points})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()
