"""Pictures and the styles that they are to take on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import LimnerError
from limner.data.options import Options
from limner.data.registry import SOURCES, source
from limner.data.sources import photographs

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 512
"""The longer side of a content picture where nobody says otherwise."""
_LEAST = 16


@source("styled", gives={"styled": {}})
def styled(  # noqa: D417 - Options says it
    path: str,
    style: str | list[str],
    masks: list[str] | None = None,
    style_size: int | None = None,
    first: str | None = None,
    *,
    options: Options,
) -> Any:
    """A picture, or a folder of them, and the styles they are to take on, for style transfer and texture synthesis.

    Args:
        path: the content: one picture, whose longer side is then `size` (512 by default) and of which nothing is
            cropped; or a folder, a ZIP or a named set.
        style: a picture of the style, or several (a list, or with commas); like `path`, files or names that
            `limner explain photos` lists.
        masks: for each style a picture of any size, white where the style belongs; by default everywhere.
        first: a picture to begin with, for start=first.
        style_size: longer side of the styles; by default that of the content. Raise it for larger strokes.
    """
    import torch

    from limner.data.datasets import Pixels, StyledSet
    from limner.data.prepare import fingerprint

    if options.split == "test":
        raise LimnerError(f"{path}: nothing is held back from content and styles; leave split out")

    styles = _names(style)
    if not styles:
        raise LimnerError("style: name at least one picture")
    if masks is not None and len(masks) != len(styles):
        raise LimnerError(f"there are {len(masks)} masks for {len(styles)} styles; give one for each, or none")
    if not (Path(path).expanduser().is_file() or photographs.known(path)) or path.lower().endswith(".zip"):
        return _many(path, styles, style_size, options)
    content = _opened(path)
    h, w = _size(path, content, options)
    pixels = _pixels(content, (h, w), 3)
    found = []
    for name in styles:
        image = _opened(name)
        found.append(_pixels(image, _fitting(name, image, style_size or max(h, w)), 3)[None])
    where = [None if masks is None else _pixels(_opened(m), (h, w), 1)[None] for m in masks or styles]
    begun = None if first is None else _pixels(_opened(first), (h, w), 3)[None]
    prepared = fingerprint(*found, *("" if m is None else m for m in where), begun)
    name = Path(path).name
    note = f"{name} at {h}×{w}, and {len(found)} style{'s' * (len(found) > 1)}"
    return StyledSet(
        Pixels(name, torch.from_numpy(pixels)[None], notes=[note], prepared=prepared),
        tuple(torch.from_numpy(s) for s in found),
        tuple(None if m is None else torch.from_numpy(m) for m in where),
        None if begun is None else torch.from_numpy(begun),
    )


def _names(style: str | list[str]) -> list[str]:
    """The styles one by one; a file may have a comma in its name."""
    if not isinstance(style, str):
        return style
    return [style] if Path(style).expanduser().is_file() else [s for s in style.split(",") if s]


def _many(path: str, styles: list[str], style_size: int | None, options: Options) -> Any:
    """A set of pictures with styles."""
    from dataclasses import asdict

    import torch

    from limner.data.datasets import StyledSet
    from limner.data.prepare import fingerprint
    from limner.data.registry import load

    if path not in SOURCES and not Path(path).expanduser().exists():
        raise LimnerError(f"there is no picture {path!r}; check the path")
    pictures: Any = load(path, **(asdict(options) | {"channels": 3}))
    found = []
    side = style_size or max(pictures.shape[1:])
    for name in styles:
        image = _opened(name)
        found.append(torch.from_numpy(_pixels(image, _fitting(name, image, side), 3))[None])
    identity = fingerprint(pictures.fingerprint, *(s.numpy() for s in found))
    return StyledSet(pictures, tuple(found), (None,) * len(found), fingerprint=identity)


def _opened(name: str) -> Image:
    """A picture: upright, in sRGB, 8 bits.

    Raises:
        LimnerError: it is not there, or cannot be used.
    """
    from limner.data.files import decode

    place = Path(name).expanduser()
    if not place.is_file():
        if photographs.known(name):
            return photographs.opened(name)
        raise LimnerError(f"there is no picture {name!r}; check the path")
    try:
        with decode.strict(), place.open("rb") as stream:
            image = decode.picture(stream)
    except Exception as error:
        raise LimnerError(f"{place.name} cannot be used: {decode.reason(error)}") from None
    if min(image.size) < _LEAST:
        raise LimnerError(f"{place.name} is {image.height}×{image.width}; {_LEAST} pixels a side are the least")
    return image


def _size(name: str, image: Image, options: Options) -> tuple[int, int]:
    if isinstance(options.size, int) or options.size is None:
        return _fitting(name, image, options.size or SIDE)
    return options.height_width or (image.height, image.width)


def _fitting(name: str, image: Image, side: int) -> tuple[int, int]:
    """(H,W) with the longer side as asked.

    Raises:
        LimnerError: the shorter one would have too few pixels.
    """
    scale = side / max(image.size)
    h, w = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    if min(h, w) < _LEAST:
        least = math.ceil(_LEAST * max(image.size) / min(image.size))
        raise LimnerError(
            f"{Path(name).name} would be {h}×{w}; {_LEAST} pixels a side are the least: take size={least} or more, or"
            " crop it"
        )
    return h, w


def _pixels(image: Image, size: tuple[int, int], channels: int) -> Any:
    """(C,H,W) uint8 at a size."""
    from limner.data.files import decode

    return decode.pixels(decode.fitted(decode.channelled(image, channels), size)).copy()
