"""How the labs draw: one palette, quiet axes, and pictures of images whose pixels stay square."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from limner.core.grid import make_grid

if TYPE_CHECKING:
    from matplotlib.ticker import Formatter

INK, SOFT, RULE = "#231e19", "#655c51", "#ddd5c7"
COLOURS = (
    "#35509c",
    "#b2472f",
    "#2b7767",
    "#c18f22",
    "#8a3460",
    "#5f9bc4",
    "#6b7423",
    "#9a6b4a",
    "#d98aa8",
    "#4f5a63",
)
"""The colours of the reports, and two more: enough for ten classes."""

_STYLE: Any = {
    "figure.dpi": 200,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.7,
    "axes.labelcolor": SOFT,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "lines.linewidth": 1.6,
    "text.color": INK,
    "legend.frameon": False,
}

Curve = tuple[Sequence[float], Sequence[float]]


@mpl.rc_context(_STYLE)
def plots(
    columns: int = 1, *, rows: int = 1, height: float = 3.2, width: float = 8.0, shared: bool = False
) -> tuple[Figure, list[Axes]]:
    """An empty figure with axes side by side, row after row, in the labs' style.

    Args:
        columns: axes in a row.
        rows: rows of axes.
        height: of a row, in inches.
        width: of all, in inches; on a page it fills the column.
        shared: whether all axes have one range of x and one of y.
    """
    figure = Figure(figsize=(width, height * rows))  # not pyplot's: it needs no display and no closing
    axes = figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared)
    return figure, list(axes.flat)


@mpl.rc_context(_STYLE)
def save(drawn: Figure | Image.Image, path: Path) -> None:
    """Writes a PNG."""
    if isinstance(drawn, Image.Image):
        drawn.save(path, optimize=True)
        return
    drawn.savefig(path, dpi=200, facecolor="white")


# ---- curves and maps -------------------------------------------------------------------------------------------------


@mpl.rc_context(_STYLE)
def curves(
    ax: Axes,
    series: Mapping[str, Curve],
    *,
    xlabel: str = "",
    title: str = "",
    ticks: Sequence[float] | None = None,
    log: bool = False,
    marker: str = "",
) -> None:
    """Lines with their names in the colour of the line above the axes, so that no legend covers them.

    Args:
        ax: where.
        series: name to (x, y).
        xlabel: what x is.
        title: what y is.
        ticks: the x to mark, each as its number.
        log: logarithmic x.
        marker: of every point.
    """
    for colour, (x, y) in zip(COLOURS, series.values()):
        ax.plot(x, y, color=colour, marker=marker, markersize=4)
    if log:
        ax.set_xscale("log")
    if ticks is not None:
        ax.set_xticks(list(ticks), [f"{t:g}" for t in ticks])
        ax.minorticks_off()
    ax.set_xlabel(xlabel)
    ax.set_title(title)
    if len(series) > 1:
        handles = [ax.plot([], [], color=c, linewidth=3, label=n)[0] for c, n in zip(COLOURS, series)]
        ax.legend(handles=handles, fontsize=8, labelcolor=SOFT, handlelength=1.1, loc="best")


def thousands(ax: Axes) -> None:
    """Images seen as 100k, 200k."""
    ax.xaxis.set_major_formatter(_in_thousands())


def _in_thousands() -> Formatter:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{value / 1000:g}k" if value else "0")


@mpl.rc_context(_STYLE)
def classes(ax: Axes, points: NDArray[np.float32], y: Tensor, names: Sequence[str], title: str = "") -> None:
    """Points (N,2) coloured by class (N,), each class named at the middle of its points."""
    labels = y.cpu().numpy()
    for c in np.unique(labels):
        colour = COLOURS[int(c) % len(COLOURS)]
        own = points[labels == c]
        ax.scatter(own[:, 0], own[:, 1], s=5, color=colour, alpha=0.55, linewidths=0)
    found = [int(c) for c in np.unique(labels)]
    middles = np.stack([np.median(points[labels == c], axis=0) for c in found])
    for c, (across, up) in zip(found, _apart(middles, np.ptp(points, axis=0))):
        box = {"boxstyle": "round,pad=0.18", "facecolor": "white", "edgecolor": COLOURS[c % len(COLOURS)]}
        ax.text(across, up, names[c], ha="center", va="center", fontsize=8, color=INK, bbox=box | {"linewidth": 0.9})
    ax.set_title(title)
    ax.grid(False)


@mpl.rc_context(_STYLE)
def bars(ax: Axes, values: Mapping[str, float], title: str = "", chance: float | None = None) -> None:
    """A bar for each name with its value above, and a line where chance is."""
    ax.bar(list(values), list(values.values()), color=COLOURS[0], width=0.62)
    for i, value in enumerate(values.values()):
        ax.text(i, value + 0.01, f"{value:.2f}", ha="center", va="bottom", fontsize=8, color=SOFT)
    if chance is not None:
        ax.axhline(chance, color=COLOURS[1], linewidth=1)
    ax.grid(False, axis="x")
    ax.set_title(title)


@mpl.rc_context(_STYLE)
def over(
    ax: Axes,
    x: NDArray[np.float64],
    shaded: Sequence[NDArray[np.float64]],
    lines: Mapping[str, NDArray[np.float64]],
    dashed: tuple[str, NDArray[np.float64]],
    title: str,
) -> None:
    """Curves over shaded densities, and one dashed curve over them all.

    Args:
        ax: where.
        x: of everything (N,).
        shaded: densities (N,), in the first colours.
        lines: name to y (N,), in the next; nan where there is nothing to draw.
        dashed: name and y (N,) of what the lines should be.
        title: of the axes.
    """
    for density, colour in zip(shaded, COLOURS):
        ax.fill_between(x, density, color=colour, alpha=0.16, linewidth=0)
    for (name, y), colour in zip(lines.items(), COLOURS[len(shaded) :]):
        ax.plot(x, y, color=colour, label=name)
    ax.plot(x, dashed[1], "--", color=INK, label=dashed[0], linewidth=0.9)
    ax.set_title(title)


@mpl.rc_context(_STYLE)
def key(ax: Axes) -> None:
    """Names of the lines of these axes, below all axes of their figure."""
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, labelcolor=SOFT)


@mpl.rc_context(_STYLE)
def flow(
    ax: Axes,
    ticks: NDArray[np.float64],
    arrows: NDArray[np.float64],
    path: Sequence[tuple[float, float]],
    title: str,
    reach: float,
) -> None:
    """A way through the plane over the directions that lead it.

    Args:
        ax: where.
        ticks: where arrows stand, across as well as upwards (N,).
        arrows: their directions (N,N,2), rows upwards; drawn with one length.
        path: points of the way; a dot marks its start, a cross the origin.
        title: of the axes.
        reach: they show [-reach,reach] both ways.
    """
    size = np.linalg.norm(arrows, axis=2, keepdims=True)
    one = arrows / np.maximum(size, 1e-9)
    head: Any = {"headwidth": 4, "headlength": 4, "headaxislength": 3.5}
    ax.quiver(
        ticks, ticks, one[..., 0], one[..., 1], color="#bdb2a0", angles="xy", pivot="mid", scale=20, width=0.006, **head
    )
    across, up = zip(*path, strict=True)
    ax.plot(across, up, color=COLOURS[0], linewidth=0.9)
    ax.plot(across[:1], up[:1], "o", color=COLOURS[0], markersize=4.5)
    ax.plot([0], [0], "+", color=COLOURS[1], markersize=9, markeredgewidth=1.6, zorder=3)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    ax.set_aspect("equal")
    ax.grid(False)
    ax.set_title(title)


def _apart(places: NDArray[np.float32], extent: NDArray[np.float32], least: float = 0.06) -> NDArray[np.float32]:
    """Places (N,2) pushed from each other until they are `least` of the extent apart, so that names can be read."""
    at = places / extent
    for _ in range(100):
        gaps = at[:, None] - at[None]  # (N,N,2)
        far = np.linalg.norm(gaps, axis=2)
        close = (far < least) & ~np.eye(len(at), dtype=bool)
        if not close.any():
            break
        steps = gaps / np.maximum(far, 1e-6)[..., None] * ((least - far) * close)[..., None] / 2
        at = at + steps.sum(1)
    moved: NDArray[np.float32] = at * extent
    return moved


def unmarked(ax: Axes) -> None:
    """Takes away numbers that mean nothing, as on a t-SNE map."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


# ---- pictures of images ----------------------------------------------------------------------------------------------


def tiles(x: Tensor, columns: int, scale: int = 2, gap: int = 2) -> Image.Image:
    """Images (N,C,H,W) in [-1,1] as a grid, each pixel drawn as scale×scale."""
    return _enlarged(make_grid(x.cpu(), columns, gap), scale)


def opened(path: Path, scale: int = 2) -> Image.Image:
    """A grid that a run saved, each pixel drawn as scale×scale."""
    with Image.open(path) as image:
        return _enlarged(image.convert("RGB"), scale)


def _enlarged(image: Image.Image, scale: int) -> Image.Image:
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def rows(named: Mapping[str, Tensor], scale: int = 2, heads: Sequence[str] = (), gap: int = 2) -> Image.Image:
    """Strips of images, one row for each name, the name to its left.

    Args:
        named: name to images (N,C,H,W) in [-1,1]; all rows of one N.
        scale: screen pixels for a pixel.
        heads: a word above each column.
        gap: pixels between images.
    """
    font = _font(15)
    strips = [_enlarged(make_grid(x.cpu(), len(x), gap), scale).convert("RGB") for x in named.values()]
    left = 14 + max(round(font.getlength(line)) for name in named for line in name.split("\n"))
    top, step = (26 if heads else 0), strips[0].height + gap * scale
    whole = Image.new("RGB", (left + strips[0].width, top + step * len(strips) - gap * scale), "white")
    pen = ImageDraw.Draw(whole)
    for i, (name, strip) in enumerate(zip(named, strips)):
        whole.paste(strip, (left, top + i * step))
        middle = top + i * step + strip.height / 2
        pen.multiline_text((0, middle), name, fill=SOFT, font=font, anchor="lm")
    pitch = (strips[0].width + gap * scale) / max(len(next(iter(named.values()))), 1)
    for i, head in enumerate(heads):
        pen.text((left + (i + 0.5) * pitch - gap * scale / 2, 2), head, fill=SOFT, font=font, anchor="ma")
    return whole


def beside(pictures: Mapping[str, Image.Image], gap: int = 36) -> Image.Image:
    """Pictures of one height next to each other, the name of each above it; twice as large as a page shows them."""
    font, top = _font(28), 48
    parts = [p.convert("RGB") for p in pictures.values()]
    whole = Image.new("RGB", (sum(p.width for p in parts) + gap * (len(parts) - 1), top + parts[0].height), "white")
    pen, x = ImageDraw.Draw(whole), 0
    for name, part in zip(pictures, parts):
        pen.text((x, 4), name, fill=SOFT, font=font)
        whole.paste(part, (x, top))
        x += part.width + gap
    return whole
