"""A page of pictures that were made in advance and are chosen by sliders, or by a pad of two axes: one file, no server.

The pictures of a panel lie in one sheet, of which the page shows a part, so a hundred small pictures are as small as
one of their size.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Any

from PIL import Image

from limner.core.errors import LimnerError
from limner.report.images import inline
from limner.report.page import render, save

_SMALL = 128  # pixels; narrower pictures are enlarged with square pixels
_SHEET_BYTES = 20_000_000
_SIDE = 16_383  # of a WebP


@dataclass(frozen=True)
class Axis:
    """What one slider moves.

    Attributes:
        title: what it is called.
        labels: what is written beside it at each of its positions.
        start: the position at first.
    """

    title: str
    labels: Sequence[str]
    start: int = 0


@dataclass(frozen=True)
class Panel:
    """Pictures with one slider, or with a pad and two.

    Attributes:
        title: the heading.
        axes: one or two.
        frames: pictures of one size, a picture for each position; the first axis moves fastest.
        text: what is said of it.
    """

    title: str
    axes: Sequence[Axis]
    frames: Sequence[Image.Image]
    text: str = ""


def write_explorer(path: Path, title: str, panels: Sequence[Panel], text: str = "") -> Path:
    """Writes a page with a panel for each slider or pad.

    Raises:
        LimnerError: the numbers of pictures and positions differ, the pictures are too large, or the page cannot be
            written.
    """
    return save(path, render("explorer.html", title=title, text=text, panels=[_rendered(panel) for panel in panels]))


def _rendered(panel: Panel) -> dict[str, Any]:
    lengths = [len(axis.labels) for axis in panel.axes]
    if not 1 <= len(lengths) <= 2 or math.prod(lengths) != len(panel.frames):
        raise LimnerError(f"{panel.title}: there are {len(panel.frames)} pictures for {lengths} positions")
    width, height = panel.frames[0].size
    columns = min(len(panel.frames), math.ceil(math.sqrt(len(panel.frames) * height / width)))
    rows = math.ceil(len(panel.frames) / columns)
    if max(columns * width, rows * height) > _SIDE:
        raise LimnerError(f"{len(panel.frames)} pictures of {width}×{height} are too many for a page; ask for fewer")
    sheet = Image.new(panel.frames[0].mode, (columns * width, rows * height))
    for i, frame in enumerate(panel.frames):
        sheet.paste(frame, (i % columns * width, i // columns * height))
    file = io.BytesIO()
    small = width < _SMALL
    sheet.save(file, "WEBP", lossless=small, quality=80)
    image = inline(file.getvalue(), _SHEET_BYTES)
    if image is None or image.lossy:
        raise LimnerError(f"{panel.title}: the pictures are too large for a page; ask for fewer")
    strides = list(accumulate(lengths[:-1], mul, initial=1))
    axes = [
        {"title": a.title, "labels": list(a.labels), "start": a.start, "stride": stride}
        for a, stride in zip(panel.axes, strides, strict=True)
    ]
    return {
        "title": panel.title, "text": panel.text, "axes": axes, "uri": image.uri, "small": small,
        "columns": columns, "rows": rows, "width": width, "height": height,
    }  # fmt: skip
