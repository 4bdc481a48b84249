"""Golden pictures of TIFF: depths, byte orders, planes, compressions, extra samples, and what is refused by name."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from .golden import (  # noqa: TID252 - tests are no package that could be imported by name
    Array,
    Case,
    H,
    W,
    bare_tiff,
    packed,
    profile,
    scaled,
    smooth,
    tiff,
    to_srgb,
    vips,
)  # fmt: skip


def tiff_cases() -> Iterator[Case]:
    """Depths, byte orders, planes, compressions, extra samples."""
    for bits in (2, 4, 6, 8, 10, 12, 14, 16):
        for photometric in (0, 1):
            values = smooth(1, bits)
            expected = scaled(values if photometric else (1 << bits) - 1 - values, bits)
            for order in "<>":
                rows = values.astype(order + "u2").tobytes() if bits == 16 else packed(values, bits)
                raw = bare_tiff(rows, {258: (bits,), 262: (photometric,)}, order)
                yield Case(f"tiff-grey{bits}-p{photometric}-{order}", raw, expected)
                flipped = np.packbits(np.unpackbits(np.frombuffer(rows, np.uint8)[:, None], axis=1)[:, ::-1], axis=1)
                raw = bare_tiff(flipped.tobytes(), {258: (bits,), 262: (photometric,), 266: (2,)}, order)
                yield Case(f"tiff-grey{bits}-p{photometric}-{order}-reversed", raw, expected)
    values = smooth(1, 1)
    yield Case("tiff-bits-white", bare_tiff(packed(values, 1), {258: (1,), 262: (0,)}), 255 - scaled(values, 1))
    yield Case("tiff-bits-black", bare_tiff(packed(values, 1), {258: (1,), 262: (1,)}), scaled(values, 1))
    for bits in (4, 12):
        values = smooth(3, bits)
        raw = bare_tiff(packed(values, bits), {258: (bits,) * 3, 262: (2,), 277: (3,)})
        yield Case(f"tiff-colour{bits}", raw, scaled(values, bits))
    for dtype, bits in (("u1", 8), ("u2", 16)):
        rgb, rgba, la = (smooth(c, bits) for c in (3, 4, 2))
        for order in "<>":
            for compression in (None, "lzw", "deflate", "packbits", "zstd", "lzma"):
                how: dict[str, Any] = {"photometric": "rgb", "compression": compression, "byteorder": order}
                title = f"tiff-{dtype}{order}{compression}"
                yield Case(f"{title}-chunky", tiff(rgb, **how), scaled(rgb, bits))
                planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))
                yield Case(f"{title}-planar", tiff(planes, planarconfig="separate", **how), scaled(rgb, bits))
                if compression != "packbits" and compression:
                    yield Case(
                        f"{title}-predictor", tiff(rgb, predictor=True, rowsperstrip=5, **how), scaled(rgb, bits)
                    )
                yield Case(f"{title}-tiled", tiff(rgb, tile=(16, 16), **how), scaled(rgb, bits))
        planes = np.ascontiguousarray(rgba.transpose(2, 0, 1))
        how = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
        yield Case(f"tiff-{dtype}-alpha", tiff(rgba, **how), scaled(rgba, bits))
        raw = tiff(planes, planarconfig="separate", tile=(16, 32), compression="lzw", **how)
        yield Case(f"tiff-{dtype}-alpha-planar", raw, scaled(rgba, bits))
        raw = tiff(rgba, photometric="rgb", extrasamples=["unspecified"])
        yield Case(f"tiff-{dtype}-unknown", raw, scaled(rgba[..., :3], bits))
        yield Case(f"tiff-{dtype}-grey-alpha", tiff(la, extrasamples=["unassalpha"]), scaled(la, bits))
        most = (1 << bits) - 1
        for values, name in ((rgba, "rgb"), (la, "minisblack")):
            alpha = values[..., -1:].astype(np.float64)
            straight = values[..., :-1].astype(np.float64)
            over = np.round(straight * alpha / most)
            back = np.where(alpha > 0, np.minimum(over / np.maximum(alpha, 1), 1), 0) * 255
            expected = np.concatenate([np.round(back), np.round(alpha * 255 / most)], axis=2).astype(np.uint8)
            stored = np.concatenate([over, alpha], axis=2).astype(values.dtype)
            raw = tiff(stored, photometric=name, extrasamples=["assocalpha"])
            yield Case(f"tiff-{dtype}-{name}-premultiplied", raw, expected)
        raw = tiff(smooth(1, bits)[..., 0], bigtiff=True, compression="deflate", predictor=True)
        yield Case(f"tiff-{dtype}-big", raw, scaled(smooth(1, bits), bits))
        raw = tiff(rgb, photometric="rgb", bigtiff=True, byteorder=">", compression="lzw", predictor=True)
        yield Case(f"tiff-{dtype}-big-endian", raw, scaled(rgb, bits))
        inverted = tiff(smooth(1, bits)[..., 0], photometric="miniswhite", compression="lzw")
        yield Case(f"tiff-{dtype}-inverted", inverted, 255 - scaled(smooth(1, bits), bits))
        pages = tiff(np.stack([smooth(1, bits)[..., 0], smooth(1, bits, 1)[..., 0]]))
        yield Case(f"tiff-{dtype}-pages", pages, scaled(smooth(1, bits), bits))
        wide = profile("gamma 1.8", "adobe")
        yield Case(
            f"tiff-{dtype}-icc", tiff(rgb, photometric="rgb", iccprofile=wide), to_srgb(rgb, bits, "gamma 1.8", "adobe")
        )
    palette = np.random.default_rng(2).integers(0, 256, (3, 256)).astype(np.uint16)
    indices = smooth(1, 8)[..., 0]
    raw = tiff(indices, photometric="palette", colormap=palette * 257)
    yield Case("tiff-palette", raw, palette.T[indices].astype(np.uint8))
    grey = smooth(1, 8)[..., 0]
    yield Case("tiff-float32", tiff(grey / np.float32(255)), "floating-point")
    yield Case("tiff-float16", tiff((grey / 255).astype(np.float16)), "floating-point")
    yield Case("tiff-float64-colour", tiff(smooth(3, 8) / 255, photometric="rgb"), "floating-point")
    yield Case("tiff-int8", tiff(grey.astype(np.int8)), "signed")
    yield Case("tiff-int16", tiff(grey.astype(np.int16)), "signed")
    yield Case("tiff-int16-colour", tiff(smooth(3, 8).astype(np.int16), photometric="rgb"), "signed")
    yield Case("tiff-int32", tiff(grey.astype(np.int32)), "32-bit")
    yield Case("tiff-uint32", tiff(grey.astype(np.uint32)), "32-bit")
    yield Case("tiff-uint64", tiff(grey.astype(np.uint64)), "64-bit")
    yield Case("tiff-complex", tiff(grey.astype(np.complex64)), "64-bit")
    yield Case("tiff-565", bare_tiff(bytes(2 * W * H), {258: (5, 6, 5), 262: (2,), 277: (3,)}), "different depths")
    yield Case("tiff-cfa", bare_tiff(packed(smooth(1, 12), 12), {258: (12,), 262: (32803,)}), "camera raw")
    yield Case("tiff-logluv", bare_tiff(bytes(W * H * 6), {258: (16,) * 3, 262: (32845,), 277: (3,)}), "LogLuv")
    yield Case("tiff-ycbcr", bare_tiff(bytes(W * H * 3), {258: (8,) * 3, 262: (6,), 277: (3,)}), "YCbCr")
    yield Case("tiff-inks", bare_tiff(bytes(W * H * 4), {258: (8,) * 4, 262: (5,), 277: (4,), 332: (2,)}), "inks")
    yield Case("tiff-truncated", bare_tiff(packed(smooth(1, 12), 12), {258: (12,), 262: (1,)})[:-9], "truncated")


def rare_tiff_cases() -> Iterator[Case]:
    """Kinds that tifffile writes and few others."""
    rgb, inks = smooth(3, 8), smooth(5, 8)
    twice = np.kron(rgb, np.ones((2, 2, 1), np.uint8))
    for title, values in (("grey", twice[..., 0]), ("rgb", twice)):
        raw = tiff(values, compression="jpeg", tile=(16, 16), **({} if values.ndim == 2 else {"photometric": "rgb"}))
        yield Case(f"tiff-jpeg-{title}", raw, vips(raw))
    for order in "<>":
        raw = tiff(smooth(1, 16)[..., 0], byteorder=order, compression="lzw", predictor=True, tile=(16, 16))
        yield Case(f"tiff-grey16-predictor{order}", raw, scaled(smooth(1, 16), 16))
    naive = np.round((255.0 - inks[..., :3]) * (255.0 - inks[..., 3:4]) / 255).astype(np.uint8)
    raw = tiff(inks, photometric="separated", extrasamples=["unassalpha"])
    yield Case("tiff-cmyk-alpha", raw, np.concatenate([naive, inks[..., 4:]], axis=2))
    ycbcr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    raw = bare_tiff(ycbcr.tobytes(), {258: (8,) * 3, 262: (6,), 277: (3,), 530: (1, 1)})
    y, cb, cr = (ycbcr[..., k] - np.array([0.0, 128.0, 128.0])[k] for k in range(3))
    back = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    yield Case("tiff-ycbcr-raw", raw, np.clip(np.round(back), 0, 255).astype(np.uint8))
    for bits in (1, 2, 4, 8):
        indices, colours = smooth(1, bits), np.random.default_rng(bits).integers(0, 256, (3, 1 << bits))
        for factor in (1, 257):  # some write a palette of 8 bits, where 16 are meant
            colours[:, 0] = 250
            tags = {258: (bits,), 262: (3,), 320: tuple(int(v) * factor for v in colours.ravel())}
            right = colours.T[indices[..., 0]].astype(np.uint8)
            yield Case(f"tiff-palette{bits}-{factor}", bare_tiff(packed(indices, bits), tags), right)
    for compression, word in (("jpeg2000", "34712"), ("jpegxl", "50002"), ("webp", "50001"), ("png", "34933")):
        yield Case(f"tiff-{compression}", tiff(rgb, photometric="rgb", compression=compression), f"compression {word}")
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    raw = tiff(planes, photometric="cielab", planarconfig="separate")
    yield Case("tiff-lab-planes", raw, "L*a*b* colours in planes")
    raw = bare_tiff(ycbcr.tobytes(), {258: (8,) * 3, 262: (6,), 266: (2,), 277: (3,), 530: (1, 1)})
    yield Case("tiff-ycbcr-reversed", raw, "YCbCr colours of reversed bits")
    tags = {258: (4,), 262: (3,), 266: (2,), 320: (0,) * 48}
    yield Case("tiff-palette4-reversed", bare_tiff(packed(smooth(1, 4), 4), tags), "a palette of 4 bits reversed")
    yield Case("tiff-palette-missing", bare_tiff(bytes(H * W), {258: (8,), 262: (3,)}), "its palette")
    yield Case("tiff-palette-short", bare_tiff(bytes(H * W), {258: (8,), 262: (3,), 320: (9,) * 96}), "its palette")
    yield from _preview_cases(rgb)
    for n, dtype in ((3, "u2"), (5, "u1")):
        raw = tiff(smooth(n, 8).astype(dtype), planarconfig="contig")
        yield Case(f"tiff-{n}-channels", raw, f"{n} channels of which nothing is said")
    raw = tiff(smooth(5, 16), photometric="rgb", planarconfig="contig")
    yield Case("tiff-rgb-and-two", raw, scaled(smooth(5, 16)[..., :3], 16))


def _preview_cases(rgb: Array) -> Iterator[Case]:
    """Files whose first page is not the picture, as cameras and scanners write them."""
    import tifffile

    preview: dict[str, Any] = {"photometric": "rgb", "subfiletype": 1}
    raw = tiff(rgb[:8, :8], **preview, extratags=[(50706, "B", 4, (1, 4, 0, 0), True)])
    yield Case("tiff-dng", raw, "camera raw")
    for name, below in (("page", 0), ("sub-page", 1)):
        stream = io.BytesIO()
        with tifffile.TiffWriter(stream) as file:
            file.write(rgb[:8, :8], subifds=below, **preview)
            file.write(rgb, photometric="rgb")
        yield Case(f"tiff-preview-before-a-{name}", stream.getvalue(), "a small preview of another one")
    yield Case("tiff-preview-alone", tiff(rgb, **preview), rgb)


def drawn_tiff_cases() -> Iterator[Case]:
    """A hundred and fifty layouts by chance."""
    for seed in range(150):
        rng = np.random.default_rng(seed)
        h, w = rng.integers(1, 60, 2)
        kind = str(rng.choice(["minisblack", "miniswhite", "rgb", "separated"]))
        extra = str(rng.choice(["", "", "unassalpha", "assocalpha", "unspecified"]))
        bits = int(rng.choice([8, 8, 16, 16, 2, 4, 10, 12, 14]))
        base = {"rgb": 3, "separated": 4}.get(kind, 1)
        values = rng.integers(0, 1 << bits, (h, w, base + bool(extra))).astype(np.uint8 if bits <= 8 else np.uint16)
        how: dict[str, Any] = {"photometric": kind, "bigtiff": rng.random() < 0.2}
        if bits in (8, 16):
            how["compression"] = rng.choice([None, "lzw", "deflate", "packbits", "zstd", "lzma"])
            how["predictor"] = how["compression"] in ("lzw", "deflate", "zstd") and rng.random() < 0.5
            how["byteorder"] = str(rng.choice(["<", ">"]))
        else:
            how |= {
                "bitspersample": bits,
                "byteorder": "<",
            }  # what tifffile packs in another order it cannot read
        if rng.random() < 0.4:
            how["tile"] = tuple(int(n) for n in rng.choice([16, 32, 48], 2))
        elif rng.random() < 0.7:
            how["rowsperstrip"] = int(rng.integers(1, h + 1))
        if extra:
            how["extrasamples"] = [extra]
        stored = values if values.shape[2] > 1 else values[..., 0]
        if stored.ndim == 3:
            separate = rng.random() < 0.4
            how["planarconfig"] = "separate" if separate else "contig"
            stored = np.ascontiguousarray(values.transpose(2, 0, 1)) if separate else values
        name, within = f"drawn-{seed}-{kind}-{bits}-{extra}", 2 if kind == "separated" else 1  # inks are rounded twice
        yield Case(name, tiff(stored, **how), _meaning(values, kind, bits, extra), within)


def _meaning(values: Array, kind: str, bits: int, extra: str) -> Array:
    """The pixels of samples, in float64: straight alpha, black is zero, no inks."""
    top, base = (1 << bits) - 1, {"rgb": 3, "separated": 4}.get(kind, 1)
    colours, alpha = values[..., :base].astype(np.float64), values[..., base:].astype(np.float64)
    if kind == "miniswhite":
        colours = top - colours
    if extra == "assocalpha":
        colours = np.minimum(colours / np.maximum(alpha, 1), 1) * top
    colours = colours * 255 / top
    if kind == "separated":
        colours = (255 - colours[..., :3]) * (255 - colours[..., 3:]) / 255
    parts = [colours, alpha * 255 / top] if extra.endswith("alpha") else [colours]
    return np.floor(np.concatenate(parts, axis=2) + 0.5).astype(np.uint8)
