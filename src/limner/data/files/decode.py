"""Decodes image files, or gives the reason why a file cannot be used.

Everything that reads images uses this module. It handles EXIF orientation, palettes with transparency, 1-bit images,
16-bit grey (divided by 257, not clipped at 255), CMYK, embedded colour profiles (to sRGB), alpha over white and
antialiased resizing. `BadImage` refuses what has no agreed meaning.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from limner.data.files import formats
from limner.data.files.formats import SUFFIXES as SUFFIXES
from limner.data.files.formats import UNREAD as UNREAD

MAX_PIXELS = 50_000_000
MAX_BYTES = 256 << 20
_MAX_PROFILE = 4 << 20

_GREY = frozenset(("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"))
_ALPHA = frozenset(("LA", "La", "PA", "RGBA", "RGBa"))
_DIVIDED_BY_257 = ((np.arange(65536) + 128) // 257).astype(np.uint8)
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

# EXIF orientation (Exif 2.32, tag 0x0112) -> the operation that makes the image upright
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(Exception):
    """A file that cannot be used; the message is the reason."""


_LOCK = threading.Lock()
_LIMITS: list[ExitStack] = []  # of each `strict` that is being executed; the first one set the limits


@contextmanager
def strict() -> Iterator[None]:
    """Sets hard limits in Pillow while files of unknown origin are read.

    A decompression bomb is an error, not a warning, and a truncated file is not padded with grey. Pillow has these
    limits in module variables, which all threads share. They are restored when the last thread no longer needs them.
    """
    with _LOCK:
        _LIMITS.append(_LIMITS[0] if _LIMITS else _limited())
    try:
        yield
    finally:
        with _LOCK:
            limits = _LIMITS.pop()
            if not _LIMITS:
                limits.close()


def _limited() -> ExitStack:
    """Sets the limits; closing the result restores what was before."""
    before, limits = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES), ExitStack()

    def restore() -> None:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before

    limits.callback(restore)
    limits.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = MAX_PIXELS, False
    return limits


def reason(error: Exception) -> str:
    """The reason why a file cannot be used, in the same words for all files with the same fault."""
    if isinstance(error, BadImage):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return f"not a {formats.KNOWN} image"
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return f"larger than {MAX_PIXELS // 1_000_000} megapixels"
    if isinstance(error, MemoryError):
        return "needs too much memory"
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read ({error.strerror})"
    if "truncated" in str(error).lower():
        return "truncated"
    return f"damaged ({type(error).__name__})"


@dataclass(frozen=True)
class Header:
    """Properties of an image that are known before its pixels are decoded.

    Args:
        size: (H,W) when upright.
        mode: Pillow's name of the pixel format.
        format: file format.
        grey: whether it has no colour channels.
        alpha: whether it has transparency.
        rotated: whether EXIF turns or mirrors it.
        animated: whether it has more than one frame; only the first is used.
    """

    size: tuple[int, int]
    mode: str
    format: str
    grey: bool
    alpha: bool
    rotated: bool
    animated: bool


def header(stream: BinaryIO) -> Header:
    """Reads the header of an image. Call it under `strict`.

    Raises:
        Exception: anything Pillow raises on a bad file; `reason` puts it into words.
    """
    image = _open(stream)
    # For a PNG without EXIF before its pixels, Pillow would decode all pixels to look for it after them.
    orientation = _orientation(image) if image.format != "PNG" or "exif" in image.info else 1
    width, height = image.size
    if orientation >= 5 and image.format != "TIFF":  # Pillow exchanges them itself for a TIFF
        width, height = height, width
    alpha = image.mode in _ALPHA or "transparency" in image.info
    # A JPEG from a phone may contain a second, smaller image; Pillow then calls the format MPO.
    name = "JPEG" if image.format == "MPO" else image.format or ""
    animated = name != "JPEG" and bool(getattr(image, "is_animated", False))
    return Header((height, width), image.mode, name, image.mode in _GREY, alpha, orientation != 1, animated)


def picture(stream: BinaryIO, side: int | None = None) -> Image.Image:
    """Decodes an image: upright, in sRGB, 8 bits, mode L, LA, RGB or RGBA. Call it under `strict`.

    Args:
        stream: the file.
        side: the longer side that is needed in the end. A JPEG is then decoded at the smallest scale (1, 1/2, 1/4,
            1/8) that has at least twice this many pixels along both sides, which is much faster.

    Raises:
        Exception: anything Pillow raises on a bad file; `reason` puts it into words.
    """
    image = _open(stream)
    if side is not None and image.format in ("JPEG", "MPO"):  # a HEIC would give its thumbnail, another picture
        image.draft(None, (2 * side, 2 * side))
    image.load()
    orientation = _orientation(image)
    upright = image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image
    return _to_8_bits(_to_srgb(upright))


def _open(stream: BinaryIO) -> Image.Image:
    if not stream.read(1):
        raise BadImage("empty file")
    image = _identified(stream)
    if min(image.size) < 1:
        raise BadImage("has no pixels")
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"larger than {MAX_PIXELS // 1_000_000} megapixels")
    if image.mode == "F":
        raise BadImage("floating-point pixels have no agreed range; save it with 8 or 16 bits")
    if image.mode == "I" and image.format != "PPM":
        raise BadImage("32-bit pixels have no agreed range; save it with 8 or 16 bits")
    return image


def _identified(stream: BinaryIO) -> Image.Image:
    """The opened image, by the first bytes of its file.

    Raises:
        BadImage: the format is known and not read.
    """
    stream.seek(0)
    heic = formats.is_heic(stream.read(64))
    if heic and not formats.register_heif():
        raise BadImage(formats.NEEDS_HEIF)
    try:
        stream.seek(0)
        return Image.open(stream, formats=("HEIF",) if heic else formats.FORMATS)
    except UnidentifiedImageError:
        what = formats.unread(stream)
        if what is None:
            raise
        raise BadImage(f"not read ({what})") from None


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # a broken EXIF block does not make the image unusable
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Converts any mode that Pillow reads to L, LA, RGB or RGBA."""
    mode = image.mode
    if mode.startswith("I"):
        return _from_16_bits(image)
    transparent = mode in _ALPHA or "transparency" in image.info
    if mode == "P" and image.palette is not None and image.palette.mode == "RGBA":
        transparent = True
    mode_out = ("LA" if transparent else "L") if mode in _GREY else ("RGBA" if transparent else "RGB")
    return image if mode == mode_out else image.convert(mode_out)


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Divides by 257, as 65535 / 257 = 255; Pillow's own conversion would clip at 255."""
    values16 = np.asarray(image).astype(np.uint16)  # a PGM has them in 32 bits
    grey = Image.fromarray(_DIVIDED_BY_257[values16])
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    alpha = Image.fromarray(np.where(values16 == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, alpha))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Converts from an embedded profile (Adobe RGB, Display P3, CMYK) to sRGB; grey profiles are ignored."""
    profile = image.info.get("icc_profile")
    if image.mode != "CMYK":
        image = _to_8_bits(image)
    if not profile or len(profile) > _MAX_PROFILE or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    transform = _srgb_transform(profile, image.mode)
    return image if transform is None else transform.apply(image)


@lru_cache(maxsize=16)
def _srgb_transform(profile: bytes, mode: str) -> Any:
    """The transform from a profile to sRGB, or None when the profile is sRGB or broken."""
    try:
        embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(embedded).lower():
            return None
        return ImageCms.buildTransform(
            embedded, ImageCms.createProfile("sRGB"), mode, "RGBA" if mode == "RGBA" else "RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def channelled(image: Image.Image, channels: int) -> Image.Image:
    """Converts mode L, LA, RGB or RGBA to 1, 2, 3 or 4 channels; alpha that is dropped is composited over white."""
    if image.mode in ("LA", "RGBA") and channels in (1, 3):
        colour = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour).convert("RGB")
    mode_out = _MODES[channels]
    return image if image.mode == mode_out else image.convert(mode_out)


def fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resizes the shorter side (bicubic, antialiased, alpha premultiplied) and crops the centre to (H,W)."""
    height, width = size
    if (image.height, image.width) == size:
        return image
    scale = max(height / image.height, width / image.width)
    if scale == 1:  # resizing with a box would blur by half a pixel
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))
    w, h = min(width / scale, image.width), min(height / scale, image.height)
    x, y = (image.width - w) / 2, (image.height - h) / 2
    return image.resize((width, height), Image.Resampling.BICUBIC, box=(x, y, x + w, y + h))


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an image as (C,H,W) uint8."""
    values = np.asarray(image)
    return np.ascontiguousarray(values[None] if values.ndim == 2 else values.transpose(2, 0, 1))


def from_array(values: NDArray[np.uint8]) -> Image.Image:
    """An image from (H,W,C) uint8, C in 1..4."""
    return Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
