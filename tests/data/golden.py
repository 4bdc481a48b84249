"""Writes small files of many kinds by hand, and the arithmetic of what their pixels are."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

H, W = 19, 22
Array = NDArray[Any]


class Case(NamedTuple):
    """A file, its pixels (H,W,C) in 8 bits of sRGB, C in 1..4, or a word of the reason why it is refused."""

    name: str
    raw: bytes
    expected: Array | str
    within: int = 1


def scaled(values: Array, bits: int) -> Array:
    """Whole numbers over the range of `bits` to 0..255, rounded."""
    return np.floor(values.astype(np.float64) * 255 / ((1 << bits) - 1) + 0.5).astype(np.uint8)


def smooth(channels: int, bits: int, seed: int = 0) -> Array:
    """(H,W,C) over the whole range of `bits`: a slope and noise."""
    rng = np.random.default_rng(seed)
    most = (1 << bits) - 1
    y, x = np.mgrid[0:H, 0:W]
    slope = np.stack([(x + y * (1 + c)) / (W + H * (1 + c) - 2 - c) for c in range(channels)], axis=-1)
    noisy = np.clip(slope + rng.normal(0, 0.05, slope.shape), 0, 1)
    noisy.flat[:2] = 0, 1
    return np.round(noisy * most).astype(np.uint8 if bits <= 8 else np.uint16)


def save(image: Image.Image, format: str, **options: Any) -> bytes:
    """A file that Pillow writes."""
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    values: Array, kind: int, bits: int, *, interlaced: bool = False, filtered: bool = True, **before: bytes
) -> bytes:
    """A PNG of samples (H,W,C), written by hand; `before` are chunks in front of the pixels."""
    h, w, c = values.shape

    def rows(part: Array) -> bytes:
        out = b""
        width = max(1, c * bits // 8)
        above = None
        for y, row in enumerate(part):
            if bits == 16:
                line = np.frombuffer(row.astype(">u2").tobytes(), np.uint8)
            elif bits == 8:
                line = row.astype(np.uint8).ravel()
            else:
                wide = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, -bits:]
                line = np.packbits(wide.ravel())
            above = np.zeros_like(line) if above is None else above
            left = np.concatenate([np.zeros(width, np.uint8), line])[: len(line)]
            corner = np.concatenate([np.zeros(width, np.uint8), above])[: len(line)]
            which = y % 5
            a, b, cc = left.astype(int), above.astype(int), corner.astype(int)
            p = a + b - cc
            paeth = np.where(
                (abs(p - a) <= abs(p - b)) & (abs(p - a) <= abs(p - cc)), a, np.where(abs(p - b) <= abs(p - cc), b, cc)
            )
            guess = (0 * a, a, b, (a + b) // 2, paeth)[which]
            out += bytes([which]) + ((line - guess) % 256).astype(np.uint8).tobytes()
            above = line
        return out

    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        data = b"".join(rows(p) for y, x, dy, dx in passes if (p := values[y::dy, x::dx]).size)
    else:
        data = rows(values)
    ihdr = struct.pack(">IIBBBBB", w, h, bits, kind, 0, 0, int(interlaced))
    inner = b"".join(chunk(name.encode(), data) for name, data in before.items())
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + inner + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    )


XY = {
    "srgb": ((0.3127, 0.3290), (0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    "p3": ((0.3127, 0.3290), (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
    "adobe": ((0.3127, 0.3290), (0.64, 0.33), (0.21, 0.71), (0.15, 0.06)),
    "prophoto": ((0.3457, 0.3585), (0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)),
}


D50 = np.array([0.9642, 1.0, 0.8249])


_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def colorants(primaries: str) -> Array:
    """(3,3) linear RGB to XYZ of D50."""
    white, *colours = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in XY[primaries])
    matrix = np.array(colours).T
    matrix = matrix * np.linalg.solve(matrix, white)
    adapt = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ D50 / (_BRADFORD @ white)) @ _BRADFORD
    return np.asarray(adapt @ matrix)


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))


def curve(kind: str) -> bytes:
    """A curve: "gamma 2.2", "table 1.8", "srgb" (parametric), "dotgain" or "identity"."""
    name, _, value = kind.partition(" ")
    if name == "identity":
        return b"curv" + bytes(8)
    if name == "gamma":
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(float(value) * 256)) + bytes(2)
    if name == "para":
        return b"para" + bytes(4) + struct.pack(">HH", 0, 0) + _fixed(float(value))
    if name == "srgb":
        return b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    x = np.linspace(0, 1, 256)
    y = 1 - (1 - x) - 0.8 * x * (1 - x) * 0.9 if name == "dotgain" else x ** float(value)
    return b"curv" + bytes(4) + struct.pack(">I", 256) + (y * 65535).round().astype(">u2").tobytes()


def profile(kind: str, primaries: str | None = None, name: str = "made by hand") -> bytes:
    """An ICC profile (version 2): grey, or with primaries."""
    text = name.encode() + b"\0"
    desc = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {b"desc": desc, b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": b"XYZ " + bytes(4) + _fixed(*D50)}
    if kind == "lightness":
        tags[b"A2B0"] = _to_lightness()
    elif primaries is None:
        tags[b"kTRC"] = curve(kind)
    else:
        for letter, column in zip(b"rgb", colorants(primaries).T):
            tags[bytes([letter]) + b"XYZ"] = b"XYZ " + bytes(4) + _fixed(*column)
            tags[bytes([letter]) + b"TRC"] = curve(kind)
    table, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += struct.pack(">4sII", tag, 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    space = b"GRAY" if primaries is None else b"RGB "
    size, date = 132 + len(table) - 4 + len(body), struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    pcs = b"Lab " if kind == "lightness" else b"XYZ "
    head = struct.pack(">I4sI4s4s4s12s4s", size, b"none", 0x02400000, b"mntr", space, pcs, date, b"acsp")
    head += bytes(68 - len(head)) + _fixed(*D50)
    return head + bytes(128 - len(head)) + table + body


def _to_lightness() -> bytes:
    """A table (mft2) from grey to L*, which is 100 times the grey."""
    ends = struct.pack(">HH", 0, 65535)
    table = struct.pack(">6H", 0, 32768, 32768, 65280, 32768, 32768)
    return (
        b"mft2" + bytes(4) + bytes([1, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + struct.pack(">HH", 2, 2)
    ) + ends + table + 3 * ends  # fmt: skip


def linear(kind: str, x: Array) -> Array:
    """The light of numbers in [0,1] by a `curve`."""
    name, _, value = kind.partition(" ")
    if name == "srgb":
        return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    if name == "dotgain":
        return x - 0.72 * x * (1 - x)
    if name == "lightness":
        return np.where(x > 0.08, ((100 * x + 16) / 116) ** 3, 100 * x * 27 / 24389)
    if name == "gamma":
        return x ** (round(float(value) * 256) / 256)
    return x if name == "identity" else x ** float(value)


def to_srgb(values: Array, bits: int, kind: str, primaries: str | None) -> Array:
    """Samples (H,W,C) by curve and primaries to sRGB of 8 bits, in float64; a last channel of 2 or 4 is alpha."""
    x = values / ((1 << bits) - 1)
    n = 1 if x.shape[2] < 3 else 3
    light = linear(kind, x[..., :n])
    if n == 3:
        light = light @ (np.linalg.inv(colorants("srgb")) @ colorants(primaries or "srgb")).T
    light = np.clip(light, 0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.floor(np.concatenate([encoded, x[..., n:]], axis=2) * 255 + 0.5).astype(np.uint8)


def icc(raw: bytes) -> dict[str, bytes]:
    """The chunk that holds a profile."""
    return {"iCCP": b"x\0\0" + zlib.compress(raw)}


def tiff(values: Array, **options: Any) -> bytes:
    """A TIFF that tifffile writes."""
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **({"photometric": "minisblack"} | options))
    return stream.getvalue()


def bare_tiff(rows: bytes, tags: dict[int, tuple[int, ...]], order: str = "<") -> bytes:
    """A TIFF of one strip, written by hand: tags of the type LONG, or SHORT where all values are small."""
    tags = {256: (W,), 257: (H,), 259: (1,), 277: (1,), 278: (H,), 279: (len(rows),), 273: (0,)} | tags
    table, extra = b"", b""
    start = 8 + 2 + 12 * len(tags) + 4
    sizes = sum(4 * len(v) for v in tags.values() if len(v) > 1)
    for tag, values in sorted(tags.items()):
        values = (start + sizes,) if tag == 273 else values
        table += struct.pack(order + "HHI", tag, 4, len(values))
        table += struct.pack(order + "I", *values) if len(values) == 1 else struct.pack(order + "I", start + len(extra))
        extra += b"" if len(values) == 1 else struct.pack(f"{order}{len(values)}I", *values)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + struct.pack(order + "H", len(tags)) + table + bytes(4) + extra + rows


def packed(values: Array, bits: int) -> bytes:
    """Rows of samples (H,W,C) of any depth, the highest bit first."""
    wide = values.astype(">u2")[..., None].view(np.uint8).reshape(*values.shape, 2)
    return np.packbits(np.unpackbits(wide, axis=-1)[..., -bits:].reshape(len(values), -1), axis=1).tobytes()


def vips(raw: bytes) -> Array:
    """What libvips reads: upright, its profile applied (perceptual), 8 bits (H,W,C)."""
    import pyvips

    image = pyvips.Image.new_from_buffer(raw, "").autorot()
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", embedded=True, intent="perceptual")
    values = image.numpy()
    values = values if values.ndim == 3 else values[..., None]
    return scaled(values, 16) if values.dtype == np.uint16 else values


def bmp(values: bytes, bits: int, compression: int, masks: tuple[int, ...] = (), palette: bytes = b"") -> bytes:
    """A BMP written by hand, from the top down."""
    size = 108 if masks else 40
    head = struct.pack("<IiiHHIIiiII", size, W, -H, 1, bits, compression, len(values), 0, 0, len(palette) // 4, 0)
    head += struct.pack("<4I", *masks) + b"BGRs" + bytes(48) if masks else b""
    start = 14 + size + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(values), 0, 0, start) + head + palette + values


def word_rows(values: Array) -> bytes:
    flat = np.ascontiguousarray(values).view(np.uint8).reshape(H, -1)
    return np.pad(flat, ((0, 0), (0, -flat.shape[1] % 4))).tobytes()
