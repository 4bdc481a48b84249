"""Grids of images, and plots of points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from limner.core.batch import to_uint8
from limner.core.errors import LimnerError

_TEXT = 12  # pixels, of headings and names of rows


def make_grid(
    x: Tensor,
    columns: int,
    gap: int = 2,
    extent: float | None = None,
    headings: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Image.Image:
    """Images (N,C,H,W) in [-1,1] in a grid with `columns` columns on white.

    There may be a heading above each column, and a name on the left of each row.

    Two channels are grey with alpha. Points (H = W = 1, one or two coordinates) are plotted as dots in the square
    [-extent,extent]²; by default it contains all points.
    """
    n, c, h, w = x.shape
    if h * w == 1 and c <= 2:
        return plot_points(x.flatten(1), extent)
    rows = -(-n // columns)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.get(c)
    if mode is None:
        raise LimnerError(f"cannot draw images with {c} channels; give images with 1 to 4")
    grid = Image.new(mode, (columns * (w + gap) - gap, rows * (h + gap) - gap), (255,) * c if c > 1 else 255)
    for i, pixels in enumerate(to_uint8(x).permute(0, 2, 3, 1).cpu().numpy()):
        tile = Image.fromarray(pixels[..., 0] if c == 1 else pixels, mode if c != 1 else None)
        grid.paste(tile, (i % columns * (w + gap), i // columns * (h + gap)))
    grid = grid if c in (1, 3) else grid.convert("RGBA")
    sheet = grid if headings is None else _with_headings(grid, headings, w + gap, gap)
    return sheet if names is None else _with_names(sheet, names, h + gap, sheet.height - grid.height, gap)


def _with_names(sheet: Image.Image, names: Sequence[str], step: int, top: int, gap: int) -> Image.Image:
    """The sheet on the right of the names of its rows, which begin every `step` pixels from `top` on."""
    font = ImageFont.load_default(min(_TEXT, step))
    left = round(max(map(font.getlength, names))) + 3 * gap
    result = Image.new(sheet.mode, (left + sheet.width, sheet.height), _every(sheet, 255))
    result.paste(sheet, (left, 0))
    pen = ImageDraw.Draw(result)
    for i, name in enumerate(names):
        place = (gap, top + i * step + (step - gap) / 2)
        pen.text(place, name, fill=_every(sheet, 0), font=font, anchor="lm")
    return result


def _every(image: Image.Image, level: int) -> int | tuple[int, ...]:
    """Black or white of an image's mode, opaque."""
    return level if image.mode == "L" else (level, level, level, 255)[: len(image.getbands())]


def _with_headings(grid: Image.Image, headings: Sequence[str], step: int, gap: int) -> Image.Image:
    """The grid below the headings of its columns, which begin every `step` pixels.

    Long ones are wrapped; where a word is wider than a column, or that takes less room, they are turned upwards.
    """
    font, line = ImageFont.load_default(_TEXT), round(1.25 * _TEXT)

    def wrapped(width: float) -> list[list[str]]:
        return [_lines(text, width, font.getlength) for text in headings]

    upright = wrapped(step)
    fits = all(font.getlength(part) <= step for lines in upright for part in lines)
    height = line * max(map(len, upright)) + 2 * gap
    longest = max(font.getlength(text) for text in headings)
    widths = [longest * share / 10 for share in range(10, 0, -1)]
    sideways = next(w for w in map(wrapped, reversed(widths)) if max(map(len, w)) <= max(1, step // line))
    tall = round(max(font.getlength(part) for lines in sideways for part in lines)) + 2 * gap
    turned = not fits or (height > line + 2 * gap and tall < height)
    height, shown = (tall, sideways) if turned else (height, upright)
    size = grid.width + gap, height + grid.height  # half a gap on either side
    sheet = Image.new(grid.mode, size, _every(grid, 255))
    sheet.paste(grid, (gap // 2, height))
    for k, lines in enumerate(shown):
        label = Image.new("L", (height, step) if turned else (step, height), 0)
        for i, part in enumerate(lines):
            place = (gap if turned else label.width / 2, label.height / 2 + line * (i - (len(lines) - 1) / 2))
            ImageDraw.Draw(label).text(place, part, fill=255, font=font, anchor="lm" if turned else "mm")
        mask = label.transpose(Image.Transpose.ROTATE_90) if turned else label
        sheet.paste(_every(grid, 0), (k * step, 0), mask)
    return sheet


def _lines(text: str, width: float, length: Callable[[str], float]) -> list[str]:
    """A text in lines that are no longer than `width`, unless a word is."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and length(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def save_grid(image: Image.Image, path: Path) -> None:
    """Writes an image in the format of its suffix; WebP is lossless."""
    if path.suffix.lower() == ".webp":
        image.save(path, lossless=True, exact=True)
    else:
        image.save(path)


def plot_points(points: Tensor, extent: float | None = None, side: int = 256) -> Image.Image:
    """Points (N,1) or (N,2) as dots on white in [-extent,extent]²; by default the square contains all points."""
    xy = torch.cat([points, torch.zeros_like(points)], 1)[:, :2].float().cpu()
    if extent is None:
        extent = max(1.2, 1.1 * float(xy.abs().max()))
    pixels = ((xy[(xy.abs() <= extent).all(1)] / extent + 1) * (side - 1) / 2).round().long()
    canvas = torch.full((side, side), 255, dtype=torch.uint8)
    for dx in (0, 1):
        for dy in (0, 1):
            canvas[(side - 1 - pixels[:, 1] + dy).clamp(0, side - 1), (pixels[:, 0] + dx).clamp(0, side - 1)] = 40
    return Image.fromarray(canvas.numpy())
