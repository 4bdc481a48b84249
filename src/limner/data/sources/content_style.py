"""Content and style images for style transfer and texture synthesis."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from limner.core.errors import LimnerError
from limner.core.paths import BUILTIN, NameOrPath, exists, plain_name, user_path
from limner.data.files.reading import LATEST, Reading
from limner.data.options import Options
from limner.data.registry import SOURCES, source
from limner.data.sources import photographs

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 512
"""The default of the longer side of a content image."""
_SMALLEST = 16


PictureOrPath = Annotated[
    str, NameOrPath(lambda: [*SOURCES, *photographs.PHOTOGRAPHS, *photographs.TEXTURES], "photograph or data set")
]
PaintingOrPath = Annotated[
    str, NameOrPath(lambda: [*photographs.PHOTOGRAPHS, *photographs.TEXTURES], "photograph or texture")
]


@source("styled", gives={"styled": {}})
def styled(  # noqa: D417 - see Options
    path: PictureOrPath,
    style: PaintingOrPath | list[PaintingOrPath],
    masks: list[str] | None = None,
    style_size: int | None = None,
    first: str | None = None,
    reading: Reading = LATEST,
    *,
    options: Options,
) -> Any:
    """A picture, or a folder of pictures, and one or more styles, for style transfer and texture synthesis.

    Args:
        path: the content: one picture, whose longer side is resized to `size` (512 by default) without cropping; or a
            folder, a ZIP or a named set.
        style: one style picture, or several as a list or with commas: files, or names that `limner explain photos`
            lists.
        masks: for each style a picture of any size, white where the style applies (luminance times alpha); by default
            everywhere.
        first: the initial picture, for start=first.
        style_size: longer side of the styles; by default that of the content. Raise it for larger strokes.
        reading: as of the source folder, where `path` is one.
    """
    import torch

    from limner.data.datasets import Pixels, StyledSet
    from limner.data.steps import fingerprint

    if options.split == "test":
        raise LimnerError(f"{path}: content and styles have no test split; leave split out")

    styles = style_names(style)
    if not styles:
        raise LimnerError("style: name at least one picture")
    if masks is not None and len(masks) != len(styles):
        raise LimnerError(f"there are {len(masks)} masks for {len(styles)} styles; give one for each, or none")
    is_picture = photographs.known(plain_name(path)) or user_path(path).is_file()
    if not is_picture or path.lower().endswith(".zip"):
        return _content_set(path, styles, style_size, reading, options)
    content = _open(path)
    h, w = _size(path, content, options)
    pixels = _pixels(content, (h, w), 3)
    style_pixels = _style_pixels(styles, style_size or max(h, w))
    mask_pixels = [None if masks is None else _mask_pixels(_open(m), (h, w))[None] for m in masks or styles]
    initial = None if first is None else _pixels(_open(first), (h, w), 3)[None]
    prepared = fingerprint(*style_pixels, *("" if m is None else m for m in mask_pixels), initial)
    name = Path(plain_name(path)).name
    note = f"{name} at {h}×{w}, and {len(styles)} style{'s' * (len(styles) > 1)}"
    if content.mode in ("LA", "RGBA"):
        note += f"; what is transparent in {name} is laid over white"
    return StyledSet(
        Pixels(name, torch.from_numpy(pixels)[None], notes=[note], prepared=prepared),
        tuple(torch.from_numpy(s) for s in style_pixels),
        tuple(None if m is None else torch.from_numpy(m) for m in mask_pixels),
        None if initial is None else torch.from_numpy(initial),
    )


def style_names(style: str | list[str]) -> list[str]:
    """The list of styles, which may be one text with commas; the name of a file that exists may have a comma too."""
    if not isinstance(style, str):
        return style
    return [style] if exists(style) else [s for s in style.split(",") if s]


def _content_set(path: str, styles: list[str], style_size: int | None, reading: Reading, options: Options) -> Any:
    """A folder, a ZIP or a named set as content."""
    from dataclasses import asdict

    import torch

    from limner.data.datasets import StyledSet
    from limner.data.steps import fingerprint

    settings, build = asdict(options) | {"channels": 3}, SOURCES.get(plain_name(path))
    if build is None and not exists(path):
        raise LimnerError(f"there is no picture {path!r}; check the path")
    images: Any = build(**settings) if build else SOURCES["folder"](path, reading=reading, **settings)
    style_pixels = _style_pixels(styles, style_size or max(images.shape[1:]))
    tensors = tuple(torch.from_numpy(s) for s in style_pixels)
    identity = fingerprint(images.fingerprint, *style_pixels)
    return StyledSet(images, tensors, (None,) * len(tensors), fingerprint=identity)


def _style_pixels(styles: list[str], side: int) -> list[Any]:
    """Each style as (1,3,h,w) uint8, whose longer side is `side`."""
    images = {name: _open(name) for name in styles}
    return [_pixels(images[name], _fit_size(name, images[name], side), 3)[None] for name in styles]


def _open(name: str) -> Image:
    """Reads an image file or a named photograph.

    Raises:
        LimnerError: there is no such image, it cannot be decoded, or it is too small.
    """
    from limner.data.files import decode

    if name.startswith(BUILTIN):
        return photographs.opened(plain_name(name))
    file = user_path(name, "a picture")
    if not file.is_file():
        if photographs.known(name):
            return photographs.opened(name)
        raise LimnerError(f"there is no picture {name!r}; check the path")
    try:
        with decode.strict(), file.open("rb") as stream:
            image = decode.picture(stream)
    except Exception as error:
        raise LimnerError(f"{file.name} cannot be used: {decode.reason(error)}") from None
    if min(image.size) < _SMALLEST:
        raise LimnerError(f"{file.name} is {image.height}×{image.width}; {_SMALLEST} pixels a side are the least")
    return image


def _size(name: str, image: Image, options: Options) -> tuple[int, int]:
    if isinstance(options.size, int) or options.size is None:
        return _fit_size(name, image, options.size or SIDE)
    return options.height_width or (image.height, image.width)


def _fit_size(name: str, image: Image, side: int) -> tuple[int, int]:
    """(H,W) with the longer side `side`.

    Raises:
        LimnerError: the shorter side would have too few pixels.
    """
    scale = side / max(image.size)
    h, w = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    if min(h, w) < _SMALLEST:
        least = math.ceil(_SMALLEST * max(image.size) / min(image.size))
        raise LimnerError(
            f"{Path(name).name} would be {h}×{w}; {_SMALLEST} pixels a side are the least: take size={least} or more, "
            "or crop it"
        )
    return h, w


def _pixels(image: Image, size: tuple[int, int], channels: int) -> Any:
    from limner.data.files import decode

    return decode.pixels(decode.fitted(decode.channelled(image, channels), size)).copy()


def _mask_pixels(image: Image, size: tuple[int, int]) -> Any:
    from limner.data.files import decode
    from limner.data.files.masks import whiteness

    return decode.pixels(decode.fitted(whiteness(image), size)).copy()
