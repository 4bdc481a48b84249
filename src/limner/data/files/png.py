"""What Pillow loses of a PNG: 16 bits of colour, a clear colour of other depths than 8, and what its colours mean.

W3C, Portable Network Graphics (Third Edition), 2025.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from limner.data.files import colour
from limner.data.files.limits import BadImage

_MAX_CHUNKS = 100_000
_KEPT = (b"tRNS", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
_ANYWHERE = (b"IHDR", b"eXIf")
_MAX_KEPT, _MAX_EXIF = 768, 1 << 20  # of the chunks that are looked into, the longest is the tRNS of a palette
_RAWMODES = {2: ("RGB", "RGB;16B", "RGB;16L"), 6: ("RGBA", "RGBA;16B", "RGBA;16L")}


@dataclass(frozen=True)
class Chunks:
    """Chunks before the pixels.

    Args:
        depth: bits of a sample.
        kind: 0 grey, 2 colour, 3 palette, 4 grey with alpha, 6 colour with alpha.
        data: the first bytes of some chunks, and the EXIF block, by name.
    """

    depth: int = 8
    kind: int = 0
    data: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def clear(self) -> tuple[int, ...] | None:
        """The one value that is transparent, grey or RGB, in the depth of the file."""
        raw, n = self.data.get(b"tRNS", b""), {0: 1, 2: 3}.get(self.kind, 0)
        if not n or len(raw) < 2 * n:
            return None
        return tuple(v & ((1 << self.depth) - 1) for v in struct.unpack(f">{n}H", raw[: 2 * n]))

    @property
    def orientation(self) -> int:
        """1 to 8, by its EXIF block; 1 where it has none or a broken one."""
        if b"eXIf" not in self.data:
            return 1
        exif = Image.Exif()
        try:
            exif.load(b"Exif\0\0" + self.data[b"eXIf"].removeprefix(b"Exif\0\0"))
            orientation = exif.get(0x0112, 1)
        except Exception:  # a broken EXIF block does not make the image unusable
            return 1
        return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1

    def encoding(self) -> tuple[bool, colour.Encoding | None]:
        """Whether the embedded profile counts, else the encoding: cICP before iCCP before sRGB before gAMA and cHRM.

        Raises:
            BadImage: high dynamic range, or numbers of another range.
        """
        cicp = self.data.get(b"cICP", b"")
        if len(cicp) == 4:
            if cicp[2:] != b"\0\1":
                raise BadImage("a PNG with the numbers of video (16 to 235, or YCbCr); save it as sRGB")
            return False, colour.of_numbers(cicp[0], cicp[1])
        if b"iCCP" in self.data:
            return True, None
        if b"sRGB" in self.data:
            return False, None
        gama, chrm = self.data.get(b"gAMA", b""), self.data.get(b"cHRM", b"")
        gamma = int.from_bytes(gama) if len(gama) == 4 else None
        return False, colour.of_gamma(gamma, struct.unpack(">8I", chrm) if len(chrm) == 32 else None)


def chunks(stream: BinaryIO) -> Chunks:
    """Some chunks: those before the pixels, and the EXIF block also behind them.

    Raises:
        BadImage: more than 100,000 chunks, which Pillow would walk for minutes.
    """
    stream.seek(8)
    data: dict[bytes, bytes] = {}
    depth = kind = 0
    before = True
    for _ in range(_MAX_CHUNKS):
        start = stream.read(8)
        if len(start) < 8 or start[4:] == b"IEND":
            break
        length, name = int.from_bytes(start[:4]), start[4:]
        before = before and name not in (b"IDAT", b"fdAT")
        if name in _ANYWHERE or (before and name in _KEPT):
            kept = stream.read(min(length, _MAX_EXIF if name == b"eXIf" else _MAX_KEPT))
            if name == b"IHDR" and len(kept) >= 10:
                depth, kind = kept[8], kept[9]
            data.setdefault(name, kept)
            length -= len(kept)
        stream.seek(length + 4, 1)
    else:
        raise BadImage("a PNG of too many chunks; save it again")
    return Chunks(depth, kind, data)


def is_wide(chunks: Chunks) -> bool:
    """Whether Pillow would keep only the upper 8 of 16 bits."""
    return chunks.depth == 16 and chunks.kind in (2, 4, 6)


def wide(stream: BinaryIO, chunks: Chunks) -> NDArray[np.uint16]:
    """The pixels (H,W,C) of a PNG with 16 bits, C in 2..4; a clear colour becomes alpha.

    Pillow decodes them twice: to the upper bytes, and, told that they are little endian, to the lower ones.
    """
    if chunks.kind == 4:  # four bytes of a pixel, read as if they were RGBA
        values = np.ascontiguousarray(_decoded(stream, "RGBA", "RGBA")).view(">u2").astype(np.uint16)
    else:
        mode, upper, lower = _RAWMODES[chunks.kind]
        values = _decoded(stream, mode, upper).astype(np.uint16)
        values <<= 8
        values |= _decoded(stream, mode, lower)
    return values if chunks.clear is None else keyed(values, chunks.clear)


def _decoded(stream: BinaryIO, mode: str, rawmode: str) -> NDArray[np.uint8]:
    stream.seek(0)
    image = Image.open(stream, formats=("PNG",))
    image._mode = mode
    image.tile = [tile._replace(args=rawmode) for tile in image.tile]
    image.info.pop("transparency", None)
    return np.asarray(image)


def keyed(values: NDArray[np.uint16], clear: tuple[int, ...]) -> NDArray[np.uint16]:
    """Pixels (H,W,C) with an alpha of 0 where they have the clear colour, else of 65535."""
    alpha = np.where((values == np.array(clear, dtype=np.uint16)).all(axis=2), 0, 65535).astype(np.uint16)
    return np.concatenate([values, alpha[..., None]], axis=2)


def with_clear_level(image: Image.Image, chunks: Chunks) -> Image.Image:
    """A grey image of 1, 2 or 4 bits, whose clear level Pillow compares with values that it has scaled to 8 bits."""
    image.info.pop("transparency", None)
    grey = image.convert("L")
    if chunks.clear is None:
        return grey
    level = chunks.clear[0] * 255 // ((1 << chunks.depth) - 1)
    return Image.merge("LA", (grey, grey.point([0 if v == level else 255 for v in range(256)])))
