"""The metadata that a result takes over from its picture: what says who made it, when, where and with what camera.

A list of what is safe decides, never a list of what is not: description, artist, copyright and times, make and model of
camera and lens, exposure, and the GPS position. Everything that says how the old file was laid out stays behind
(size, strips, tiles, bits, compression, orientation, thumbnails), and so do maker notes, colour profiles (results are
sRGB), XMP, and the name of the software that wrote the old file.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, BinaryIO

from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from limner.data.files import decode, png

DESCRIPTION = 0x010E
"""The EXIF tag ImageDescription."""

_CAMERA, _GPS = 0x8769, 0x8825  # the tags that lead to the two blocks inside the first one
_MAIN_TAGS = (
    *(DESCRIPTION, 0x010F, 0x0110),  # ImageDescription, Make, Model
    *(0x0132, 0x013B, 0x8298),  # DateTime, Artist, Copyright
)
_CAMERA_TAGS = (
    *(0x829A, 0x829D, 0x8822, 0x8827, 0x8830, 0x8831, 0x8832),  # exposure time, F number, programme, sensitivity
    *(0x9003, 0x9004, 0x9010, 0x9011, 0x9012, 0x9290, 0x9291, 0x9292),  # times, their zones, fractions of seconds
    *range(0x9201, 0x920B),  # shutter, aperture, brightness, bias, distance, metering, light, flash, focal length
    *(0x9286, 0xA402, 0xA403, 0xA404, 0xA405, 0xA406),  # UserComment, modes, zoom, focal length in 35 mm, kind of scene
    *range(0xA430, 0xA436),  # owner and number of the camera; range, make, model and number of the lens
)
_ORIENTATION = 0x0112
_GPS_TAGS = tuple(range(0x20))
_MOST_BYTES = 16_384  # of one value; a JPEG has room for 65,533 in all
_LAYOUTS = (
    '{"shape"',
    "shape=(",
    "ImageJ=",
    "<?xml",
    "<OME",
)  # descriptions that readers of TIFF follow


@dataclass(frozen=True)
class Metadata:
    """What a result takes over.

    Attributes:
        tags: values by tag; the block of the camera and that of GPS are dicts by tag.
        damaged: whether a part was left out because it could not be read.
    """

    tags: dict[int, Any] = field(default_factory=dict)
    damaged: bool = False

    def described(self, text: str) -> Metadata:
        """The same with a description, unless there is one already."""
        return replace(self, tags={DESCRIPTION: text.encode("utf-8", "replace").decode("latin-1")} | self.tags)

    def options(self, form: str) -> dict[str, Any]:
        """Pillow's options for writing a file of this format, so that text keeps its encoding."""
        if not self.tags or form == "BMP":
            return {}
        if form == "TIFF":  # from an EXIF block Pillow would write ASCII alone
            return {"tiffinfo": _raw(self.tags)}
        tags = self.tags if form != "AVIF" else {k: v for k, v in self.tags.items() if k != _ORIENTATION}
        return {"exif": _encoded(tags)}


NONE = Metadata()
"""Nothing to take over."""


def read(stream: BinaryIO) -> Metadata:
    """The metadata of an image file. What is damaged is left out; the rest stays. Call it under `decode.strict`."""
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        found = _read(stream)
    return replace(found, damaged=found.damaged or bool(complaints))


def _read(stream: BinaryIO) -> Metadata:
    try:
        exif = _exif(stream)
    except Exception:  # a hostile block may raise anything
        return Metadata(damaged=True)
    tags, damaged = _kept(exif, _MAIN_TAGS)
    if _describes_layout(tags.get(DESCRIPTION)):
        del tags[DESCRIPTION]
    if _ORIENTATION in exif:
        tags[_ORIENTATION] = 1  # the pixels have been turned upright
    for tag, known in ((_CAMERA, _CAMERA_TAGS), (_GPS, _GPS_TAGS)):
        if tag in exif:
            try:
                block, broken = _kept(exif.get_ifd(tag), known, tag)
            except Exception:
                block, broken = {}, True
            damaged |= broken
            tags |= {tag: block} if block else {}
    return Metadata(tags, damaged)


def _exif(stream: BinaryIO) -> Image.Exif:
    exif = Image.Exif()
    stream.seek(0)
    start = stream.read(8)
    if start[:4] in (b"II*\0", b"MM\0*"):  # read also where Pillow does not read the pixels of this TIFF
        stream.seek(0)
        exif.load_from_fp(stream)
        return exif
    image = decode.opened(stream)
    if image.format != "PNG" or "exif" in image.info or "Raw profile type exif" in image.info:
        return image.getexif()
    block = png.chunks(stream).data.get(b"eXIf")  # behind the pixels, where Pillow would decode them all
    if block is not None:
        exif.load(b"Exif\0\0" + block.removeprefix(b"Exif\0\0"))
    return exif


def _kept(block: Any, known: Iterable[int], inside: int | None = None) -> tuple[dict[int, Any], bool]:
    """The values that can be written again, in the first block or `inside` another, and whether there are others."""
    kept, damaged = {}, False
    for tag in known:
        try:
            if tag in block:
                kept[tag] = _plain(block[tag])
                _encoded({tag: kept[tag]} if inside is None else {inside: {tag: kept[tag]}})
        except Exception:
            kept.pop(tag, None)
            damaged = True
    return kept, damaged


def _plain(value: Any) -> Any:
    """A value that does not depend on the file.

    Raises:
        ValueError: it is none of the kinds that EXIF has, or too long.
    """
    if isinstance(value, tuple) and len(value) <= 64:
        return tuple(_plain(v) for v in value)
    if isinstance(value, IFDRational):
        return IFDRational(Fraction(int(value.numerator), int(value.denominator)))
    if not isinstance(value, (str, bytes, int, float)) or len(str(value)) > _MOST_BYTES:
        raise ValueError(value)
    return value.rstrip("\0") if isinstance(value, str) else value


def _describes_layout(text: object) -> bool:
    return isinstance(text, str) and text.lstrip().startswith(_LAYOUTS)


def _encoded(tags: dict[int, Any]) -> bytes:
    exif = Image.Exif()
    exif.update(_raw(tags))
    return exif.tobytes()


def _raw(value: Any) -> Any:
    """Pillow reads text as Latin-1 and writes ASCII alone; bytes keep whatever the text was encoded in."""
    if isinstance(value, dict):
        return {k: _raw(v) for k, v in value.items()}
    return value.encode("latin-1", "replace") if isinstance(value, str) and not value.isascii() else value
