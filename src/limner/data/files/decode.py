"""Decodes image files, or gives the reason why a file cannot be used.

Everything that reads images uses this module. It handles EXIF orientation, palettes and clear colours, 1 to 16 bits of
grey and colour, CMYK, embedded profiles and colour chunks (to sRGB), alpha over white and antialiased resizing.
`BadImage` refuses what has no agreed meaning, and what would cost too much (`limits`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from limner.data.files import bmff, colour, formats, limits, png, tiff
from limner.data.files.colour import as_image as from_array
from limner.data.files.formats import SUFFIXES, UNREAD
from limner.data.files.limits import MAX_BYTES, MAX_PIXELS, BadImage, strict

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "SUFFIXES",
    "UNREAD",
    "BadImage",
    "Header",
    "channelled",
    "fitted",
    "from_array",
    "header",
    "picture",
    "pixels",
    "reason",
    "strict",
]

_GREY = frozenset(("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"))
_ALPHA = frozenset(("LA", "La", "PA", "RGBA", "RGBa"))
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_TOO_MUCH_TEXT = ("Decompressed data too large", "Too much memory used in text chunks")  # in Pillow's words
_REDUCED_FROM = 50_000_000
"""Pixels from which a picture is reduced to twice the wanted size before anything else is done to it."""

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


def reason(error: Exception) -> str:
    """The reason why a file cannot be used, in the same words for all files with the same fault."""
    if isinstance(error, BadImage):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return f"not a {formats.KNOWN} image"
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return limits.TOO_LARGE
    if isinstance(error, MemoryError):
        return "needs too much memory"
    if isinstance(error, OSError) and str(error).lower().startswith("unsupported"):
        return f"of a kind that is not read ({str(error)[:80]})"
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read ({error.strerror})"
    if any(words in str(error) for words in _TOO_MUCH_TEXT):
        return "text or a profile of more than 1 MiB beside the pixels; save it again without"
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
    page = _tiff(stream)
    if page is not None and not page.by_pillow:
        size = (page.width, page.height) if page.orientation >= 5 else (page.height, page.width)
        turned = page.orientation != 1
        return Header(size, page.mode, "TIFF", page.grey, page.alpha is not None, turned, page.pages)
    image = _open(stream)
    mode, chunks = image.mode, png.chunks(stream) if image.format == "PNG" else None
    if chunks is not None:
        mode = "LA" if chunks.kind == 4 else mode  # Pillow opens one of 16 bits as RGBA
    elif mode == "RGBA" and image.format == "BMP":
        mode = _to_8_bits(image).mode  # whether anybody filled its fourth byte
    _colours(image, stream, chunks)  # refuses high dynamic range
    # Of a PNG without an EXIF block at its start, Pillow would decode all pixels to look for one behind them.
    at_start = chunks is None or "exif" in image.info or "Raw profile type exif" in image.info
    orientation = _orientation(image) if at_start or chunks is None else chunks.orientation
    width, height = image.size
    if orientation >= 5 and page is None:  # Pillow exchanges them itself for a TIFF
        width, height = height, width
    alpha = mode in _ALPHA or "transparency" in image.info
    # A JPEG from a phone may contain a second, smaller image; Pillow then calls the format MPO.
    name = {"MPO": "JPEG", "HEIF": "HEIC"}.get(image.format or "", image.format or "")
    animated = page.pages if page is not None else bool(getattr(image, "is_animated", False))
    animated = animated and name not in ("JPEG", "HEIC")
    return Header((height, width), mode, name, mode in _GREY, alpha, orientation != 1, animated)


def opened(stream: BinaryIO) -> Image.Image:
    """An image of which only the header has been read, as Pillow stores it. Call it under `strict`.

    Raises:
        Exception: anything Pillow raises on a bad file; `reason` puts it into words.
    """
    return _open(stream)


def picture(stream: BinaryIO, side: int | None = None) -> Image.Image:
    """Decodes an image: upright, in sRGB, 8 bits, mode L, LA, RGB or RGBA. Call it under `strict`.

    Args:
        stream: the file.
        side: the longer side that is needed in the end. A JPEG is then decoded at the smallest scale (1, 1/2, 1/4,
            1/8) that has at least twice this many pixels along both sides, which is much faster. Another picture of
            more than 50 megapixels is reduced in the same way when it has been decoded.

    Raises:
        Exception: anything Pillow raises on a bad file; `reason` puts it into words.
    """
    page = _tiff(stream)
    if page is not None and not page.by_pillow:
        limits.take(2 * page.width * page.height)
        return _upright(_of_samples(tiff.read(stream, page), page), page.orientation)
    image = _open(stream)
    pixels_decoded = image.width * image.height
    if image.format in ("JPEG", "MPO"):
        limits.check_jpeg(stream, pixels_decoded)
        stream.seek(0)
        if side is not None:
            image.draft(None, (2 * side, 2 * side))
        if "progressive" not in image.info:  # of a progressive one, libjpeg holds the coefficients of all pixels
            pixels_decoded = image.width * image.height
    limits.check_runs(image, stream)
    limits.take(pixels_decoded)
    if page is not None and page.palette is not None:
        image.load()
        image.putpalette(page.palette)
    image, orientation = _in_srgb(image, stream, side)
    return _upright(image, orientation)


def _of_samples(values: NDArray[Any], page: tiff.Layout) -> Image.Image:
    """Samples of a TIFF (H,W,C) to sRGB of 8 bits."""
    if values.dtype == np.uint16 and page.photometric != 5:
        return colour.narrowed(values, page.profile)
    narrow = values if values.dtype == np.uint8 else colour.DIVIDED_BY_257[values]
    if page.photometric != 5:
        return _to_8_bits(colour.profiled(from_array(narrow), page.profile))
    image = Image.fromarray(np.ascontiguousarray(narrow[..., :4]), "CMYK")
    image = _to_8_bits(colour.profiled(image, page.profile))
    if page.alpha is not None:
        image.putalpha(Image.fromarray(np.ascontiguousarray(narrow[..., 4])))
    return image


def _in_srgb(image: Image.Image, stream: BinaryIO, side: int | None) -> tuple[Image.Image, int]:
    """The decoded image in sRGB of 8 bits, and how it has to be turned."""
    profile = image.info.get("icc_profile")
    chunks = png.chunks(stream) if image.format == "PNG" else None
    by_profile, encoding = _colours(image, stream, chunks)
    profile = profile if by_profile else None
    if chunks is not None and png.is_wide(chunks) and 2 * image.width * image.height <= limits.MAX_PIXELS:
        orientation = _orientation(image)
        return colour.narrowed(png.wide(stream, chunks), profile, encoding), orientation
    stream.seek(0)
    image.load()
    if chunks is not None and b"tRNS" not in chunks.data:
        image.info.pop("transparency", None)  # one behind the pixels does not count
    orientation = _orientation(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.uint16)[..., None]  # a PGM has them in 32 bits
        if chunks is not None and chunks.clear is not None:
            values = png.keyed(values, chunks.clear)
        return colour.narrowed(values, profile, encoding), orientation
    if chunks is not None and chunks.kind == 0 and chunks.depth < 8:
        image = png.with_clear_level(image, chunks)
    elif image.mode == "LAB":
        image = _of_lab(image)
    elif image.mode != "CMYK":
        image = _to_8_bits(image)
    image = _reduced(image, side)
    image = colour.profiled(image, profile) if encoding is None else colour.from_encoding(image, encoding)
    return _to_8_bits(image), orientation


def _colours(image: Image.Image, stream: BinaryIO, chunks: png.Chunks | None) -> tuple[bool, colour.Encoding | None]:
    """Whether the embedded profile says what the colours mean, and else their encoding; None is sRGB.

    Raises:
        BadImage: high dynamic range.
    """
    if chunks is not None:
        return chunks.encoding()
    if image.format in ("AVIF", "HEIF"):
        numbers = bmff.numbers(stream)
        if numbers is not None and not image.info.get("icc_profile"):
            return False, colour.of_numbers(*numbers)
    return True, None


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def _reduced(image: Image.Image, side: int | None) -> Image.Image:
    """A very large picture at the smallest scale that has at least twice `side` pixels along both sides."""
    if side is None or image.width * image.height <= _REDUCED_FROM or image.mode == "CMYK":
        return image
    return image.reduce(max(1, min(image.size) // (2 * side)))


def _tiff(stream: BinaryIO) -> tiff.Layout | None:
    """The layout of a TIFF; None for another format.

    Raises:
        BadImage: the file is empty, or a TIFF that is refused.
    """
    stream.seek(0)
    start = stream.read(4)
    if not start:
        raise BadImage("empty file")
    if start not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    layout = tiff.layout(stream)
    layout.refuse()
    return layout


def _open(stream: BinaryIO) -> Image.Image:
    image = _identified(stream)
    _without_xmp(image)
    limits.check_size(*image.size)
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
    start = stream.read(64)
    heic = formats.is_heic(start)
    if (start[4:8] == b"ftyp" or start[8:12] == b"WEBP") and stream.seek(0, 2) > limits.MAX_HELD:
        raise BadImage(f"larger than {limits.MAX_HELD >> 20} MiB")
    if heic and not formats.register_heif():
        raise BadImage(formats.NEEDS_HEIF)
    if start[:3] == b"GIF":
        limits.check_gif(stream)
    if start[:1] == b"P" and start[1:2] in b"123456" and start[2:3].isspace():
        limits.check_ppm(stream)
    try:
        stream.seek(0)
        return Image.open(stream, formats=("HEIF",) if heic else formats.FORMATS)
    except UnidentifiedImageError:
        what = formats.unread(stream) or limits.jpeg_kind(stream)
        if start[:2] in (b"II", b"MM"):
            what = what or "a rare kind of TIFF: save it as PNG"
        if heic:
            what = "a damaged HEIC, or one of a kind that its reader does not know"
        if what is None:
            raise
        raise BadImage(f"not read ({what})") from None


def _without_xmp(image: Image.Image) -> None:
    """Drops the block from which Pillow would take an orientation too, as nobody else does."""
    for key in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(key, None)


def _orientation(image: Image.Image) -> int:
    _without_xmp(image)
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # a broken EXIF block does not make the image unusable
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Converts any mode of 8 bits that Pillow reads to L, LA, RGB or RGBA."""
    mode = image.mode
    transparent = mode in _ALPHA or "transparency" in image.info
    if mode == "P" and image.palette is not None and image.palette.mode == "RGBA":
        transparent = True
    mode_out = ("LA" if transparent else "L") if mode in _GREY else ("RGBA" if transparent else "RGB")
    if mode == "RGBA" and image.format == "BMP" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")  # nobody filled its fourth byte
    return image if mode == mode_out else image.convert(mode_out)


def _of_lab(image: Image.Image) -> Image.Image:
    """CIE L*a*b* of D50 to sRGB."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    exact = ImageCms.buildTransform(lab, srgb, "LAB", "RGB", flags=ImageCms.Flags.NOOPTIMIZE)  # else by a coarse table
    return exact.apply(image)


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
