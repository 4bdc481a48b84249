"""Reads the layouts of TIFF that Pillow reads wrongly or not at all, and refuses by name what has no agreed meaning.

Pillow reads the usual ones: 8 bits, 1 bit, palettes, 16-bit grey, JPEG. The others (2 to 16 bits, planes, inverted
greys, 16-bit colour, premultiplied alpha) are taken apart here. Data of LZW, PackBits, LZMA and Zstandard are unpacked
by Pillow's libtiff: each strip is handed over as a grey TIFF of its own, so that no other library is needed.

Adobe, TIFF Revision 6.0, 1992; Aldus/Adobe Technical Note 2 (1995); BigTIFF (2007).
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from limner.data.files import limits
from limner.data.files.formats import UNREAD
from limner.data.files.limits import BadImage

_MAX_TAGS, _MAX_SEGMENTS, _MAX_HELD = 4096, 1 << 16, 1 << 29
_BAND = 1 << 21  # samples that are taken apart at a time
_TYPES = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 18: "u8"}
_BASE = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}  # samples by photometric interpretation, without extra ones
_UNREAD = {
    9: "ICC L*a*b* colours",
    10: "ITU L*a*b* colours",
    32803: "a camera raw picture",
    32844: "LogL colours of high dynamic range",
    32845: "LogLuv colours of high dynamic range",
    34892: "a camera raw picture",
    4: "a transparency mask",
}
_NONE, _LZW, _DEFLATE, _PACKBITS = 1, 5, (8, 32946), 32773
_UNPACKED = (_NONE, _LZW, *_DEFLATE, _PACKBITS, 34925, 50000)
_BY_LIBTIFF = (2, 3, 4, 6, 7, 32771)  # fax and JPEG
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]
_SHAPE = (256, 257, 273, 278, 279, 284, 320, 322, 323, 324, 325)
_MEANING = (254, 258, 259, 262, 266, 274, 277, 317, 330, 332, 338, 339, 530, 34675, 50706)
_WANTED = frozenset(_SHAPE + _MEANING)
_SAVE = "save it with 8 or 16 bits"


@dataclass(frozen=True)
class Layout:
    """The first page of a TIFF, by its tags.

    Args:
        tags: values of the tags that matter, by number.
        order: "<" or ">".
        length: bytes of the file.
        pages: whether another page follows.
        big: whether it is a BigTIFF.
    """

    tags: dict[int, NDArray[Any]]
    order: str
    length: int
    pages: bool
    big: bool

    def _one(self, tag: int, default: int) -> int:
        values = self.tags.get(tag)
        return default if values is None or not len(values) else int(values[0])

    @property
    def width(self) -> int:
        return self._one(256, 0)

    @property
    def height(self) -> int:
        return self._one(257, 0)

    @property
    def compression(self) -> int:
        return self._one(259, _NONE)

    @property
    def photometric(self) -> int:
        return self._one(262, 0)

    @property
    def samples(self) -> int:
        return self._one(277, 3 if self.photometric in (2, 6) and self.compression == 6 else 1)

    @property
    def bits(self) -> int:
        return self._one(258, 1)

    @property
    def planes(self) -> bool:
        return self._one(284, 1) == 2 and self.samples > 1

    @property
    def reversed(self) -> bool:
        return self._one(266, 1) == 2

    @property
    def orientation(self) -> int:
        value = self._one(274, 1)
        return value if 1 <= value <= 8 else 1

    @property
    def profile(self) -> bytes | None:
        values = self.tags.get(34675)
        return None if values is None else values.astype(np.uint8).tobytes()

    @property
    def tiled(self) -> bool:
        return 322 in self.tags

    @property
    def segment(self) -> tuple[int, int]:
        """Rows and columns of a strip or tile."""
        if self.tiled:
            return self._one(323, 0), self._one(322, 0)
        return min(self._one(278, self.height), self.height), self.width

    @property
    def extra(self) -> tuple[int, ...]:
        """What the samples behind the colours are: 0 unknown, 1 premultiplied alpha, 2 alpha."""
        n = self.samples - _BASE.get(self.photometric, self.samples)
        if n <= 0:
            return ()
        stated = [int(v) for v in self.tags.get(338, ())][-n:]
        # A fourth sample of RGB of which nothing is said is alpha, as other readers have it.
        return tuple(stated + [2 if self.photometric == 2 and n == 1 and not stated else 0] * (n - len(stated)))

    @property
    def alpha(self) -> int | None:
        """The index of the sample that is alpha."""
        at = next((i for i, kind in enumerate(self.extra) if kind in (1, 2, 999)), None)
        return None if at is None else _BASE[self.photometric] + at

    @property
    def palette(self) -> bytes | None:
        """The palette as RGB triples, where its writer took it for one of 8 bits; else None."""
        values = self.tags.get(320)
        if self.photometric != 3 or values is None or not values.size or values.max() > 255 or values.size % 3:
            return None
        return values.reshape(3, -1).T.astype(np.uint8).tobytes()

    @property
    def mode(self) -> str:
        """The pixel format, in the way of Pillow's names."""
        name = {0: "L", 1: "L", 2: "RGB", 5: "CMYK"}[self.photometric] + ("A" if self.alpha is not None else "")
        return name if self.bits <= 8 else {"L": "I;16"}.get(name, f"{name};16")

    @property
    def grey(self) -> bool:
        return self.photometric in (0, 1)

    @cached_property
    def by_pillow(self) -> bool:
        """Whether Pillow reads this layout rightly."""
        if self.compression not in _UNPACKED:
            return True
        p, bits, extra = self.photometric, self.bits, self.extra
        if self.big and self.order == ">" and p in (0, 1, 2, 5):
            return False
        if self.planes:
            return p in (6, 8)
        if p == 3 or p in (6, 8):
            return True
        if p == 1 and bits == 16 and not extra:
            return not self.reversed
        if bits == 1 and p in (0, 1):
            return not extra
        return (
            bits == 8
            and not self.reversed
            and ((p in (0, 1, 5) and not extra) or (p == 2 and extra in ((), (1,), (2,), (0,))))
        )

    def refuse(self) -> None:
        """Raises `BadImage` where the pixels have no agreed meaning, or cost too much."""
        limits.check_size(self.width, self.height)
        self._refuse_preview()
        if not 1 <= self.samples <= 64:
            raise BadImage("damaged (its number of channels)")
        depths = {int(b) for b in self.tags.get(258, (1,))[: self.samples]}
        formats = {int(f) for f in self.tags.get(339, (1,))} - {1, 4}
        if 3 in formats:
            raise BadImage(f"floating-point pixels have no agreed range; {_SAVE}")
        if max(depths) > 16:
            raise BadImage(f"{max(depths)}-bit pixels have no agreed range; {_SAVE}")
        if 2 in formats and self.photometric != 8:
            raise BadImage(f"signed pixels have no agreed range; {_SAVE} without a sign")
        if formats - {2}:
            raise BadImage(f"complex pixels; {_SAVE}")
        if len(depths) > 1 or min(depths) < 1:
            raise BadImage(f"samples of different depths; {_SAVE}")
        self._refuse_kind()
        offsets = self.tags.get(324 if self.tiled else 273, ())
        held = self.width * self.height * self.samples * (1 if self.bits <= 8 else 2)
        if not self.by_pillow and held > _MAX_HELD:
            raise BadImage("needs too much memory")
        if len(offsets) > _MAX_SEGMENTS:
            raise BadImage("a TIFF of too many strips; save it again")
        rows, columns = self.segment
        if min(rows, columns) < 1:
            raise BadImage("damaged (its strips)")
        needed = -(-self.height // rows) * -(-self.width // columns) * (self.samples if self.planes else 1)
        size = self.width * self.height * self.samples * self.bits // 8
        missing = len(offsets) < needed and self.compression != 6  # an old JPEG has its own offsets
        if missing or (self.compression == _NONE and size > self.length):
            raise BadImage("truncated")

    def _refuse_preview(self) -> None:
        if 50706 in self.tags:
            raise BadImage(f"not read ({UNREAD['.dng']})")
        if self._one(254, 0) & 1 and (self.pages or 330 in self.tags):
            raise BadImage("a TIFF whose first page is a small preview of another one; save that page alone")

    def _refuse_kind(self) -> None:
        p, packed = self.photometric, self.compression in _UNPACKED
        if not packed and self.compression not in _BY_LIBTIFF:
            raise BadImage(f"a TIFF of the rare compression {self.compression}; save it with Deflate or LZW")
        if p in _UNREAD or p not in _BASE:
            raise BadImage(f"a TIFF with {_UNREAD.get(p, 'unknown colours')}; save it as sRGB")
        if p == 5 and self._one(332, 1) != 1:
            raise BadImage("a TIFF of other inks than CMYK; save it as sRGB")
        if not packed and self.bits > 8:
            raise BadImage(f"a {self.bits}-bit JPEG in a TIFF; save it without compression")
        if self.grey and len(self.extra) > 1 and self.alpha is None:
            raise BadImage(f"{self.samples} channels of which nothing is said; save those to use as grey or RGB")
        if p == 6 and packed and [int(v) for v in self.tags.get(530, (2, 2))] != [1, 1]:
            raise BadImage("a TIFF with YCbCr colours that are not JPEG; save it as RGB")
        if p in (6, 8) and self.bits != 8:
            raise BadImage(f"a TIFF with {self.bits}-bit {'YCbCr' if p == 6 else 'L*a*b*'} colours; save it as RGB")
        if p in (6, 8) and (self.planes or (self.reversed and packed)):
            how = "in planes" if self.planes else "of reversed bits"
            raise BadImage(f"a TIFF with {'YCbCr' if p == 6 else 'L*a*b*'} colours {how}; save it as RGB")
        if p == 3 and (self.bits > 8 or self.planes or (self.reversed and self.bits < 8)):
            raise BadImage(
                f"a TIFF with a palette of {self.bits} bits{' reversed' if self.reversed else ''}; save it as RGB"
            )
        if p == 3 and len(self.tags.get(320, ())) != 3 << self.bits:
            raise BadImage("damaged (its palette)")
        if self._one(317, 1) not in (1, 2) or (self._one(317, 1) == 2 and packed and self.bits not in (8, 16)):
            raise BadImage("a TIFF with an unusual predictor; save it again")


def layout(stream: BinaryIO) -> Layout:
    """The layout of the first page.

    Raises:
        BadImage: the tags are damaged.
    """
    stream.seek(0)
    start = stream.read(16)
    order = "<" if start[:2] == b"II" else ">"
    big = start[2:4] in (b"\x2b\0", b"\0\x2b")
    size = stream.seek(0, 2)
    try:
        (at,) = struct.unpack(order + ("Q" if big else "I"), start[8:16] if big else start[4:8])
        entry, count, word = (20, "Q", 8) if big else (12, "H", 4)
        stream.seek(at)
        (n,) = struct.unpack(order + count, stream.read(8 if big else 2))
        if n > _MAX_TAGS:
            raise BadImage("damaged (too many tags)")
        table = stream.read(n * entry)
        following = stream.read(word)
        tags = {}
        for i in range(n):
            raw = table[i * entry : (i + 1) * entry]
            tag, kind = struct.unpack(order + "HH", raw[:4])
            if tag in _WANTED and kind in _TYPES:
                tags[tag] = _values(stream, raw[4:], order, word, np.dtype(order + _TYPES[kind]), size)
    except (struct.error, OverflowError, ValueError) as error:
        raise BadImage("damaged (its tags)") from error
    return Layout(tags, order, size, any(following), big)


def _values(stream: BinaryIO, raw: bytes, order: str, word: int, kind: np.dtype[Any], size: int) -> NDArray[Any]:
    (n,) = struct.unpack(order + ("Q" if word == 8 else "I"), raw[:word])
    length = n * kind.itemsize
    if length > size:
        raise ValueError("longer than the file")
    if length <= word:
        return np.frombuffer(raw[word : word + length], kind)
    (at,) = struct.unpack(order + ("Q" if word == 8 else "I"), raw[word : 2 * word])
    stream.seek(at)
    return np.frombuffer(stream.read(length), kind, count=n)


def read(stream: BinaryIO, layout: Layout) -> NDArray[Any]:
    """Decodes the pixels (H,W,C), uint8 up to 8 bits and else uint16, over their whole range.

    C is 1 for grey, 3 for colour and 4 for the inks of CMYK, and one more where there is alpha, which is not
    premultiplied. The orientation is not applied.

    Raises:
        BadImage: the data are damaged.
    """
    rows, columns = layout.segment
    base = _BASE[layout.photometric]
    wanted = [*range(base)] + ([] if layout.alpha is None else [layout.alpha])
    dtype = np.uint8 if layout.bits <= 8 else np.uint16
    out = np.zeros((layout.height, layout.width, len(wanted)), dtype)
    down, across = -(-layout.height // rows), -(-layout.width // columns)
    for plane in range(layout.samples if layout.planes else 1):
        if layout.planes and plane not in wanted:
            continue
        channels = slice(wanted.index(plane), wanted.index(plane) + 1) if layout.planes else slice(None)
        for y in range(down):
            for x in range(across):
                top, left = y * rows, x * columns
                h, w = min(rows, layout.height - top), min(columns, layout.width - left)
                index = (plane * down + y) * across + x
                target = out[top : top + h, left : left + w, channels]
                _unpack(layout, _segment(stream, layout, index, rows if layout.tiled else h), columns, wanted, target)
    return _meant(layout, out)


def _segment(stream: BinaryIO, layout: Layout, index: int, rows: int) -> bytes:
    """The bytes of a strip or tile, unpacked."""
    offsets, counts = (layout.tags.get(t, ()) for t in ((324, 325) if layout.tiled else (273, 279)))
    if index >= len(offsets):
        raise BadImage("truncated")
    length = _row_bytes(layout) * rows
    count = int(counts[index]) if index < len(counts) and int(counts[index]) else layout.length
    stream.seek(int(offsets[index]))
    # Packed data are rarely longer than what they hold; without this, strips could share a long piece of the file.
    raw = stream.read(min(count, length if layout.compression == _NONE else 2 * length + 1024))
    if layout.reversed:
        raw = _REVERSED[np.frombuffer(raw, np.uint8)].tobytes()
    if layout.compression in _DEFLATE:
        try:
            raw = zlib.decompressobj().decompress(raw, length)
        except zlib.error:
            raise BadImage("damaged (its compressed data)") from None
    elif layout.compression != _NONE:
        raw = _by_libtiff(raw, layout.compression, _row_bytes(layout), rows)
    if len(raw) < length:
        raise BadImage("truncated")
    return raw


def _row_bytes(layout: Layout) -> int:
    samples = 1 if layout.planes else layout.samples
    return (layout.segment[1] * samples * layout.bits + 7) // 8


def _by_libtiff(raw: bytes, compression: int, width: int, height: int) -> bytes:
    """Unpacks a strip as a grey TIFF of 8 bits."""
    limits.check_size(width, height)
    entries = [(256, width), (257, height), (258, 8), (259, compression), (262, 1), (273, 0), (277, 1)]
    entries += [(278, height), (279, len(raw))]
    at = 8 + 2 + 12 * len(entries) + 4
    ifd = b"".join(struct.pack("<HHII", tag, 4, 1, at if tag == 273 else value) for tag, value in entries)
    file = io.BytesIO(b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + ifd + bytes(4) + raw)
    return Image.open(file, formats=("TIFF",)).tobytes()


def _unpack(layout: Layout, raw: bytes, columns: int, wanted: list[int], target: NDArray[Any]) -> None:
    """Writes the samples of a segment, in the depth of the file, into its place (H,W,C)."""
    samples = 1 if layout.planes else layout.samples
    per_row = columns * samples
    lines = np.frombuffer(raw, np.uint8, count=_row_bytes(layout) * (len(raw) // _row_bytes(layout)))
    lines = lines.reshape(-1, _row_bytes(layout))
    step = max(1, _BAND // per_row)
    for top in range(0, len(target), step):
        band = lines[top : top + step][: len(target) - top]
        if layout.bits == 8:
            values: NDArray[Any] = band
        elif layout.bits == 16:
            values = band.view(layout.order + "u2")
        else:
            bits = np.unpackbits(band, axis=1)[:, : per_row * layout.bits].reshape(len(band), per_row, layout.bits)
            values = bits @ (1 << np.arange(layout.bits - 1, -1, -1)).astype(np.uint16)
        values = values.reshape(len(band), columns, samples)
        if layout._one(317, 1) == 2 and layout.compression in _UNPACKED[1:]:
            values = np.cumsum(values, axis=1, dtype=target.dtype)
        chosen = values if layout.planes else values[..., wanted]
        target[top : top + step] = chosen[:, : target.shape[1]]


def _meant(layout: Layout, out: NDArray[Any]) -> NDArray[Any]:
    """Scales samples to the range of their type, turns white-is-zero around and divides by premultiplied alpha."""
    top, most = (1 << layout.bits) - 1, np.iinfo(out.dtype).max
    if top != most:
        table = (np.arange(top + 1) * int(most) + top // 2) // top
        out = table.astype(out.dtype)[out]
    base = _BASE[layout.photometric]
    if layout.photometric == 0:
        out[..., 0] = most - out[..., 0]
    if out.shape[2] > base and layout.extra[layout.alpha - base if layout.alpha else 0] == 1:
        rows = max(1, _BAND // max(1, out.shape[1]))
        for y in range(0, len(out), rows):
            colours, alpha = out[y : y + rows, :, :base], out[y : y + rows, :, base:].astype(np.uint64)
            plain = (colours.astype(np.uint64) * most + alpha // 2) // np.maximum(alpha, 1)
            colours[...] = np.minimum(plain, most)
    return out
