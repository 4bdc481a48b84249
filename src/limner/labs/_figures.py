"""Charts and grids of images in the style of the labs' pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from limner.core.grid import make_grid

INK, SOFT, RULE = "#231e19", "#655c51", "#ddd5c7"
COLOURS = ("#35509c", "#b2472f", "#2b7767", "#c18f22", "#8a3460", "#5f9bc4", "#6b7423", "#9a6b4a", "#d98aa8", "#4f5a63")
"""The colours of the reports and two more, for ten classes."""

SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#d3dbee", "#7f95cc", "#35509c", "#151f40"])
"""From nothing to much."""

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
    """An empty figure with a grid of axes in the labs' style.

    Args:
        columns: number of axes in a row.
        rows: number of rows.
        height: height of a row, in inches.
        width: width of the figure, in inches; on a page it fills the column.
        shared: whether all axes share their ranges of x and y.
    """
    figure = Figure(figsize=(width, height * rows))  # not pyplot's, which needs a display and has to be closed
    axes = figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared)
    return figure, list(axes.flat)


@mpl.rc_context(_STYLE)
def save(image: Figure | Image.Image, path: Path) -> None:
    """Saves a figure or an image as PNG."""
    if isinstance(image, Image.Image):
        image.save(path, optimize=True)
        return
    image.savefig(path, dpi=200, facecolor="white")


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
    """Draws lines with a legend.

    Args:
        ax: the axes to draw on.
        series: x and y by name of the line.
        xlabel: label of the x axis.
        title: title of the axes, which says what y is.
        ticks: positions of the ticks of x.
        log: whether x is logarithmic.
        marker: matplotlib's marker of the points.
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


def in_thousands(ax: Axes) -> None:
    """Writes the ticks of x as 100k, 200k."""
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")


@mpl.rc_context(_STYLE)
def scatter_classes(ax: Axes, points: NDArray[np.float32], y: Tensor, names: Sequence[str], title: str = "") -> None:
    """Draws points (N,2) coloured by class (N,), with the name of each class at its median."""
    labels = y.cpu().numpy()
    for c in np.unique(labels):
        colour = COLOURS[int(c) % len(COLOURS)]
        members = points[labels == c]
        ax.scatter(members[:, 0], members[:, 1], s=5, color=colour, alpha=0.55, linewidths=0)
    present = [int(c) for c in np.unique(labels)]
    medians = np.stack([np.median(points[labels == c], axis=0) for c in present])
    for c, (across, up) in zip(present, _separate(medians, np.ptp(points, axis=0))):
        box = {"boxstyle": "round,pad=0.18", "facecolor": "white", "edgecolor": COLOURS[c % len(COLOURS)]}
        ax.text(across, up, names[c], ha="center", va="center", fontsize=8, color=INK, bbox=box | {"linewidth": 0.9})
    ax.set_title(title)
    ax.grid(False)


@mpl.rc_context(_STYLE)
def bars(ax: Axes, values: Mapping[str, float], title: str = "", chance: float | None = None) -> None:
    """Draws a bar for each name with its value above, and a line at the value of guessing, `chance`."""
    ax.bar(list(values), list(values.values()), color=COLOURS[0], width=0.62)
    for i, value in enumerate(values.values()):
        ax.text(i, value + 0.01, f"{value:.2f}", ha="center", va="bottom", fontsize=8, color=SOFT)
    if chance is not None:
        ax.axhline(chance, color=COLOURS[1], linewidth=1)
    ax.grid(False, axis="x")
    ax.set_title(title)


@mpl.rc_context(_STYLE)
def strips(ax: Axes, values: Mapping[str, Sequence[float]], title: str = "") -> None:
    """Draws the values of each name as points above it, and a line at their mean."""
    for i, (group, colour) in enumerate(zip(values.values(), COLOURS)):
        ax.plot([i] * len(group), list(group), "o", color=colour, markersize=5, alpha=0.8)
        mean = sum(group) / len(group)
        ax.plot([i - 0.25, i + 0.25], [mean, mean], color=colour)
    ax.set_xticks(range(len(values)), list(values))
    ax.margins(x=0.2)
    ax.set_ylim(bottom=0)
    ax.grid(False, axis="x")
    ax.set_title(title)


@mpl.rc_context(_STYLE)
def family_bars(ax: Axes, values: Mapping[str, float | None], title: str, *, log: bool = False) -> None:
    """Draws a bar of its own colour for each name with its value above; "none" where there is no value."""
    known = [v for v in values.values() if v is not None]
    for i, (value, colour) in enumerate(zip(values.values(), COLOURS)):
        ax.bar(i, value or 0, color=colour, width=0.66, alpha=0.85)
        label = "none" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.{3 if value >= 1 else 2}g}"
        ax.annotate(label, (i, value or 0), (0, 2), textcoords="offset points", ha="center", fontsize=8, color=SOFT)
    if log:
        ax.set_yscale("log")
        ax.set_ylim(bottom=min([1.0, *(v / 2 for v in known)]))
    ax.margins(y=0.18)
    if not known:
        ax.set_ylim(0, 1)
    ax.set_xticks(range(len(values)), list(values), fontsize=8)
    ax.grid(False, axis="x")
    ax.set_title(title, fontsize=8.5)


@mpl.rc_context(_STYLE)
def densities(
    ax: Axes,
    x: NDArray[np.float64],
    filled: Sequence[NDArray[np.float64]],
    lines: Mapping[str, NDArray[np.float64]],
    dashed: tuple[str, NDArray[np.float64]],
    title: str,
) -> None:
    """Draws curves over filled densities, and a dashed reference curve.

    Args:
        ax: the axes to draw on.
        x: x of all curves (N,).
        filled: densities (N,), in the first colours.
        lines: y (N,) by name, in the next colours; nan where nothing is drawn.
        dashed: name and y (N,) of the reference.
        title: title of the axes.
    """
    for density, colour in zip(filled, COLOURS):
        ax.fill_between(x, density, color=colour, alpha=0.16, linewidth=0)
    for (name, y), colour in zip(lines.items(), COLOURS[len(filled) :]):
        ax.plot(x, y, color=colour, label=name)
    ax.plot(x, dashed[1], "--", color=INK, label=dashed[0], linewidth=0.9)
    ax.set_title(title)


@mpl.rc_context(_STYLE)
def class_densities(
    ax: Axes,
    x: NDArray[np.float64],
    filled: Sequence[NDArray[np.float64]],
    lines: Mapping[str, NDArray[np.float64]],
    title: str,
) -> None:
    """Draws a curve over a filled density for each class, both in its colour.

    Args:
        ax: the axes to draw on.
        x: x of all curves (N,).
        filled: densities (N,) of the classes.
        lines: y (N,) by name of the class, in the same order.
        title: title of the axes.
    """  # fmt: skip
    for density, (name, y), colour in zip(filled, lines.items(), COLOURS):
        ax.fill_between(x, density, color=colour, alpha=0.16, linewidth=0)
        ax.plot(x, y, color=colour, label=name)
    ax.set_title(title)


@mpl.rc_context(_STYLE)
def legend(ax: Axes) -> None:
    """Puts the legend of these axes below all axes of their figure."""
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, labelcolor=SOFT)


@mpl.rc_context(_STYLE)
def vector_field(
    ax: Axes,
    ticks: NDArray[np.float64],
    arrows: NDArray[np.float64],
    path: Sequence[tuple[float, float]],
    title: str,
    extent: float,
) -> None:
    """Draws a trajectory in the plane over a vector field.

    Args:
        ax: the axes to draw on.
        ticks: positions of the arrows along both axes (N,).
        arrows: vectors of the field (N,N,2), rows along y; all are drawn with one length.
        path: points of the trajectory; a dot marks its start, a cross the origin.
        title: title of the axes.
        extent: the axes show [-extent,extent] in x and y.
    """
    norms = np.linalg.norm(arrows, axis=2, keepdims=True)
    directions = arrows / np.maximum(norms, 1e-9)
    arrow_head: Any = {"headwidth": 4, "headlength": 4, "headaxislength": 3.5}
    ax.quiver(
        ticks,
        ticks,
        directions[..., 0],
        directions[..., 1],
        color="#bdb2a0",
        angles="xy",
        pivot="mid",
        scale=20,
        width=0.006,
        **arrow_head,
    )
    x, y = zip(*path, strict=True)
    ax.plot(x, y, color=COLOURS[0], linewidth=0.9)
    ax.plot(x[:1], y[:1], "o", color=COLOURS[0], markersize=4.5)
    ax.plot([0], [0], "+", color=COLOURS[1], markersize=9, markeredgewidth=1.6, zorder=3)
    ax.set_xlim(-extent, extent)
    ax.set_ylim(-extent, extent)
    ax.set_aspect("equal")
    ax.grid(False)
    ax.set_title(title)


@mpl.rc_context(_STYLE)
def heat_map(
    ax: Axes, values: NDArray[np.float64], extent: tuple[float, float, float, float], title: str = "", top: float = 1.0
) -> None:
    """Draws values (rows upwards, columns) as shades of blue, white for 0.

    Args:
        ax: the axes to draw on.
        values: values from 0 up.
        extent: left, right, lower and upper end of the map.
        title: title of the axes.
        top: share of the largest value that has the darkest shade; lower it to see small values.
    """
    ax.imshow(values, cmap=SHADES, origin="lower", extent=extent, aspect="auto", vmin=0, vmax=top * float(values.max()))
    ax.grid(False)
    ax.set_title(title)


@mpl.rc_context(_STYLE)
def histogram(
    ax: Axes, samples: NDArray[np.float64], curve: tuple[NDArray[np.float64], NDArray[np.float64]], title: str = ""
) -> None:
    """Draws a histogram of samples (N,) under the curve (x, density) that they should have."""
    x, density = curve
    ax.hist(samples, bins=np.linspace(x[0], x[-1], 101).tolist(), density=True, color=COLOURS[0], alpha=0.35)
    ax.plot(x, density, color=COLOURS[1], linewidth=1.1)
    ax.set_title(title)


def _separate(points: NDArray[np.float32], extent: NDArray[np.float32], minimum: float = 0.06) -> NDArray[np.float32]:
    """Points (N,2) moved apart until they are `minimum` of the extent away from each other, for legible names."""
    scaled = points / extent
    for _ in range(100):
        gaps = scaled[:, None] - scaled[None]  # (N,N,2)
        distances = np.linalg.norm(gaps, axis=2)
        too_close = (distances < minimum) & ~np.eye(len(scaled), dtype=bool)
        if not too_close.any():
            break
        steps = gaps / np.maximum(distances, 1e-6)[..., None] * ((minimum - distances) * too_close)[..., None] / 2
        scaled = scaled + steps.sum(1)
    separated: NDArray[np.float32] = scaled * extent
    return separated


def hide_axes(ax: Axes) -> None:
    """Removes ticks and frame, which mean nothing on a t-SNE map."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


# ---- grids of images -------------------------------------------------------------------------------------------------


def magnified(x: Tensor, scale: int) -> Tensor:
    """Images (N,C,H,W) with each pixel as scale×scale, so that headings fit above them.

    >>> import torch
    >>> magnified(torch.ones(1, 3, 2, 2), 4).shape
    torch.Size([1, 3, 8, 8])
    """
    return x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def image_grid(x: Tensor, columns: int, scale: int = 2, gap: int = 2) -> Image.Image:
    """A grid of images (N,C,H,W) in [-1,1], each pixel drawn as scale×scale."""
    return _enlarged(make_grid(x.cpu(), columns, gap), scale)


def open_grid(path: Path, scale: int = 2) -> Image.Image:
    """A saved grid, each pixel drawn as scale×scale."""
    with Image.open(path) as image:
        return _enlarged(image.convert("RGB"), scale)


def _enlarged(image: Image.Image, scale: int) -> Image.Image:
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def image_rows(named: Mapping[str, Tensor], scale: int = 2, headings: Sequence[str] = (), gap: int = 2) -> Image.Image:
    """Rows of images with a name to the left of each.

    Args:
        named: images (N,C,H,W) in [-1,1] by name of the row; N is the same in all rows.
        scale: each pixel is drawn as scale×scale.
        headings: text above each column.
        gap: pixels between images.
    """
    font = _font(15)
    strips = [_enlarged(make_grid(x.cpu(), len(x), gap), scale).convert("RGB") for x in named.values()]
    left = 14 + max(round(font.getlength(line)) for name in named for line in name.split("\n"))
    top, step = (26 if headings else 0), strips[0].height + gap * scale
    canvas = Image.new("RGB", (left + strips[0].width, top + step * len(strips) - gap * scale), "white")
    pen = ImageDraw.Draw(canvas)
    for i, (name, strip) in enumerate(zip(named, strips)):
        canvas.paste(strip, (left, top + i * step))
        middle = top + i * step + strip.height / 2
        pen.multiline_text((0, middle), name, fill=SOFT, font=font, anchor="lm")
    pitch = (strips[0].width + gap * scale) / max(len(next(iter(named.values()))), 1)
    for i, heading in enumerate(headings):
        pen.text((left + (i + 0.5) * pitch - gap * scale / 2, 2), heading, fill=SOFT, font=font, anchor="ma")
    return canvas


def side_by_side(images: Mapping[str, Image.Image], gap: int = 36) -> Image.Image:
    """Images of one height next to each other with a name above each, twice as large as a page shows them."""
    font, top = _font(28), 48
    rgb_images = [p.convert("RGB") for p in images.values()]
    canvas = Image.new(
        "RGB", (sum(p.width for p in rgb_images) + gap * (len(rgb_images) - 1), top + rgb_images[0].height), "white"
    )
    pen, x = ImageDraw.Draw(canvas), 0
    for name, image in zip(images, rgb_images):
        pen.text((x, 4), name, fill=SOFT, font=font)
        canvas.paste(image, (x, top))
        x += image.width + gap
    return canvas
