"""Golden pictures: files of many formats, depths, layouts, profiles and orientations, and the pixels that they have.

The right pixels come from the arithmetic of the format where the file is written by hand, else from libvips; a format
without an agreed meaning is refused by name.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limner.data.files import decode

from .golden import (  # noqa: TID252 - tests are no package that could be imported by name
    D50,
    XY,
    Array,
    Case,
    H,
    W,
    bare_tiff,
    bmp,
    chunk,
    colorants,
    icc,
    packed,
    png,
    profile,
    save,
    scaled,
    smooth,
    tiff,
    to_srgb,
    vips,
    word_rows,
)  # fmt: skip
from .golden_tiff import drawn_tiff_cases, rare_tiff_cases, tiff_cases  # noqa: TID252 - as above


def png_cases() -> Iterator[Case]:
    """All kinds and depths, with and without a clear colour, interlaced."""
    for bits in (1, 2, 4, 8, 16):
        grey = smooth(1, bits)
        clear = grey[3, 5]
        keyed = np.concatenate([scaled(grey, bits), np.where(grey == clear, 0, 255)], axis=2)
        trns = struct.pack(">H", clear[0])
        for interlaced in (False, True):
            yield Case(f"png-grey{bits}-i{interlaced:d}", png(grey, 0, bits, interlaced=interlaced), scaled(grey, bits))
            raw = png(grey, 0, bits, interlaced=interlaced, tRNS=trns)
            yield Case(f"png-grey{bits}-clear-i{interlaced:d}", raw, keyed)
    for bits in (8, 16):
        for kind, c in ((2, 3), (4, 2), (6, 4)):
            values = smooth(c, bits)
            for interlaced in (False, True):
                raw = png(values, kind, bits, interlaced=interlaced)
                yield Case(f"png-kind{kind}-{bits}-i{interlaced:d}", raw, scaled(values, bits))
        values = smooth(3, bits)
        values[::3, ::2] = values[3, 4]
        alpha = np.where((values == values[3, 4]).all(axis=2, keepdims=True), 0, 255)
        raw = png(values, 2, bits, tRNS=struct.pack(">3H", *values[3, 4]))
        yield Case(f"png-colour{bits}-clear", raw, np.concatenate([scaled(values, bits), alpha], axis=2))
    raw = png(grey := smooth(1, 8), 0, 8)
    behind = chunk(b"tRNS", struct.pack(">H", grey[3, 5, 0]))
    yield Case("png-clear-behind-the-pixels", raw[:-12] + behind + raw[-12:], grey)
    near = smooth(3, 16)  # a clear colour that other colours share the upper bytes with
    near[::2] = near[2, 2] ^ np.array([0, 0, 1], np.uint16)
    near[2, 2, 2] ^= 1
    near[2, 2] = near[4, 4] ^ np.array([1, 0, 0], np.uint16)
    alpha = np.where((near == near[2, 2]).all(axis=2, keepdims=True), 0, 255)
    raw = png(near, 2, 16, tRNS=struct.pack(">3H", *near[2, 2]))
    yield Case("png-colour16-clear-by-lower-byte", raw, np.concatenate([scaled(near, 16), alpha], axis=2))
    rng = np.random.default_rng(1)
    for bits in (1, 2, 4, 8):
        indices = smooth(1, bits)
        palette = rng.integers(0, 256, (1 << bits, 3), dtype=np.uint8)
        colours = palette[indices[..., 0]]
        yield Case(f"png-palette{bits}", png(indices, 3, bits, PLTE=palette.tobytes()), colours)
        alpha = rng.integers(0, 256, 1 << bits, dtype=np.uint8)
        n = max(1, (1 << bits) * 3 // 4)
        alpha[n:] = 255
        raw = png(indices, 3, bits, interlaced=True, PLTE=palette.tobytes(), tRNS=alpha[:n].tobytes())
        yield Case(f"png-palette{bits}-alpha", raw, np.concatenate([colours, alpha[indices]], axis=2))


def colour_cases() -> Iterator[Case]:
    """Profiles and colour chunks."""
    grey_kinds = (
        "gamma 1.0",
        "identity",
        "gamma 1.8",
        "gamma 2.2",
        "para 2.2",
        "table 1.8",
        "dotgain",
        "srgb",
        "lightness",
    )
    for kind in grey_kinds:
        for bits, c in ((8, 1), (8, 2), (16, 1), (16, 2)):
            values = smooth(c, bits)
            raw = png(values, 0 if c == 1 else 4, bits, **icc(profile(kind, name="sRGB grey")))
            yield Case(f"icc-grey-{kind}-{bits}-{c}", raw, to_srgb(values, bits, kind, None))
    for primaries in XY:
        for kind in ("srgb", "gamma 2.2", "gamma 1.0", "table 1.8"):
            for bits, c in ((8, 3), (16, 3), (8, 4)):
                values = smooth(c, bits)
                raw = png(values, 2 if c == 3 else 6, bits, **icc(profile(kind, primaries, "sRGB IEC61966-2.1")))
                yield Case(f"icc-{primaries}-{kind}-{bits}-{c}", raw, to_srgb(values, bits, kind, primaries))
    grey, rgb = smooth(1, 8), smooth(3, 8)
    linear_icc = icc(profile("gamma 1.0", "srgb"))
    gama = {g: struct.pack(">I", g) for g in (45455, 100_000, 55_556)}
    yield Case("png-gama-of-srgb", png(rgb, 2, 8, gAMA=gama[45455]), rgb)
    yield Case("png-gama-linear", png(rgb, 2, 8, gAMA=gama[100_000]), to_srgb(rgb, 8, "gamma 1.0", "srgb"))
    yield Case("png-gama-1.8", png(grey, 0, 8, gAMA=gama[55_556]), to_srgb(grey, 8, "x 1.8", None))
    yield Case("png-srgb-before-gama", png(rgb, 2, 8, sRGB=b"\0", gAMA=gama[100_000]), rgb)
    yield Case("png-icc-before-srgb", png(rgb, 2, 8, sRGB=b"\0", **linear_icc), to_srgb(rgb, 8, "gamma 1.0", "srgb"))
    yield Case("png-cicp-before-icc", png(rgb, 2, 8, cICP=b"\x01\x0d\0\x01", **linear_icc), rgb)
    yield Case("png-cicp-p3", png(rgb, 2, 8, cICP=b"\x0c\x0d\0\x01"), to_srgb(rgb, 8, "srgb", "p3"))
    chrm = struct.pack(">8I", *(round(v * 1e5) for xy in XY["p3"] for v in xy))
    raw = png(rgb, 2, 8, gAMA=gama[45455], cHRM=chrm)
    yield Case("png-chrm-p3", raw, to_srgb(rgb, 8, "srgb", "p3"))
    yield Case("png-pq", png(rgb, 2, 8, cICP=b"\x09\x10\0\x01"), "PQ")
    yield Case("png-hlg", png(smooth(3, 16), 2, 16, cICP=b"\x09\x12\0\x01"), "HLG")
    yield Case("png-narrow", png(rgb, 2, 8, cICP=b"\x01\x0d\0\0"), "numbers of video")
    wide = profile("srgb", "p3")
    for cut in (0, 20, 130, len(wide) // 2):
        yield Case(f"icc-damaged-{cut}", png(rgb, 2, 8, **icc(wide[:cut])), rgb)
        yield Case(f"icc-damaged-{cut}-wide", png(smooth(3, 16), 2, 16, **icc(wide[:cut])), scaled(smooth(3, 16), 16))
    yield Case("icc-of-grey-on-colour", png(rgb, 2, 8, **icc(profile("gamma 1.0"))), rgb)
    yield Case("icc-of-colour-on-grey", png(grey, 0, 8, **icc(profile("gamma 1.0", "p3"))), grey)
    indices, palette = smooth(1, 8), smooth(3, 8).reshape(-1, 3)[:256]
    raw = png(indices, 3, 8, PLTE=palette.tobytes(), **icc(wide))
    yield Case("icc-on-a-palette", raw, to_srgb(palette[indices[..., 0]], 8, "srgb", "p3"))


def turned_cases() -> Iterator[Case]:
    """The eight orientations in each format that can say them."""
    from pillow_heif import register_heif_opener

    register_heif_opener()
    upright = np.kron(smooth(3, 8)[:12, :8] // 4 * 4, np.ones((4, 4, 1), np.uint8))
    turns: list[Callable[[Array], Array]] = [
        lambda x: x,
        lambda x: x[:, ::-1],
        lambda x: x[::-1, ::-1],
        lambda x: x[::-1],
        lambda x: x.swapaxes(0, 1),
        lambda x: np.rot90(x, 1),
        lambda x: x[::-1, ::-1].swapaxes(0, 1),
        lambda x: np.rot90(x, -1),
    ]
    options: dict[str, dict[str, Any]] = {
        "PNG": {},
        "TIFF": {"compression": "tiff_lzw"},
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
        "HEIF": {"quality": -1, "chroma": 444},
    }
    for format, how in options.items():
        for orientation, turn in enumerate(turns, start=1):
            exif = Image.Exif()
            exif[0x0112] = orientation
            stored = np.ascontiguousarray(turn(upright))
            raw = save(Image.fromarray(stored), format, exif=exif.tobytes(), **how)
            within = {"JPEG": 6, "AVIF": 6, "HEIF": 6}.get(format, 0)
            yield Case(f"turned-{format}-{orientation}", raw, upright, within)
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = png(turns[5](upright), 2, 8)
    end = raw.index(b"IEND") - 4
    yield Case("turned-PNG-behind", raw[:end] + chunk(b"eXIf", exif.tobytes()[6:]) + raw[end:], upright)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    for format in ("PNG", "WEBP"):  # an orientation in XMP is nobody's business
        stated = {"xmp": xmp} if format == "WEBP" else {}
        raw = png(upright, 2, 8, iTXt=b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
        raw = save(Image.fromarray(upright), format, lossless=True, **stated) if stated else raw
        yield Case(f"turned-{format}-xmp", raw, upright)
    for orientation, turn in enumerate(turns, start=1):
        stored = np.ascontiguousarray(turn(smooth(3, 16)))
        raw = tiff(stored, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
        yield Case(f"turned-tiff16-{orientation}", raw, scaled(smooth(3, 16), 16))


def other_cases() -> Iterator[Case]:
    """BMP, GIF, PPM, JPEG, WebP, AVIF, HEIC."""
    rgb, rgba, grey = smooth(3, 8), smooth(4, 8), smooth(1, 8)
    yield Case("bmp-24", bmp(word_rows(rgb[..., ::-1]), 24, 0), rgb)
    bgra = rgba[..., [2, 1, 0, 3]]
    yield Case("bmp-32-unused", bmp(bgra.tobytes(), 32, 0), rgba[..., :3])
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    yield Case("bmp-32-alpha", bmp(bgra.tobytes(), 32, 3, masks), rgba)
    bgra0 = bgra * np.array([1, 1, 1, 0], np.uint8)
    yield Case("bmp-32-empty-alpha", bmp(bgra0.tobytes(), 32, 3, masks), rgba[..., :3])
    for bits, name in (((5, 5, 5), "555"), ((5, 6, 5), "565")):
        parts = [rgb[..., k].astype(np.uint16) >> (8 - b) for k, b in enumerate(bits)]
        word = parts[0] << (bits[1] + bits[2]) | parts[1] << bits[2] | parts[2]
        expected = np.stack([scaled(p, b) for p, b in zip(parts, bits)], axis=-1)
        m = tuple(((1 << b) - 1) << s for b, s in zip(bits, (bits[1] + bits[2], bits[2], 0)))
        yield Case(f"bmp-{name}", bmp(word_rows(word[..., None]), 16, 3, (*m, 0)), expected)
    palette = np.random.default_rng(3).integers(0, 256, (256, 4), dtype=np.uint8)
    yield Case("bmp-8", bmp(word_rows(grey), 8, 0, palette=palette.tobytes()), palette[grey[..., 0]][..., 2::-1])
    runs = b""
    for row in grey[::-1, :, 0]:
        runs += b"".join(bytes([1, v]) for v in row) + b"\0\0"
    raw = bmp(runs + b"\0\1", 8, 1, palette=palette.tobytes())
    raw = raw[:22] + struct.pack("<i", H) + raw[26:]  # runs go upwards
    yield Case("bmp-runs", raw, palette[grey[..., 0]][..., 2::-1])
    quantised = Image.fromarray(rgb).quantize(16)
    yield Case("gif", save(quantised, "GIF"), np.asarray(quantised.convert("RGB")))
    raw = save(quantised, "GIF", transparency=3)
    yield Case("gif-clear", raw, vips(raw))
    raw = save(quantised, "GIF", save_all=True, append_images=[quantised.rotate(180)], interlace=1)
    yield Case("gif-frames", raw, np.asarray(quantised.convert("RGB")))
    yield Case("pgm", b"P5 22 19 255\n" + grey.tobytes(), grey)
    yield Case("ppm", b"P6\n# a remark\n22 19\n255\n" + rgb.tobytes(), rgb)
    wide = smooth(1, 16)
    yield Case("pgm-16", b"P5 22 19 65535\n" + wide.astype(">u2").tobytes(), scaled(wide, 16))
    wide3 = smooth(3, 16)
    yield Case("ppm-16", b"P6 22 19 65535\n" + wide3.astype(">u2").tobytes(), scaled(wide3, 16))
    values = smooth(1, 10)
    yield Case("pgm-1023", b"P5 22 19 1023\n" + values.astype(">u2").tobytes(), scaled(values, 10))
    text = " ".join(str(v) for v in grey.ravel()).encode()
    yield Case("pgm-text", b"P2 22 19 255\n" + text, grey)
    bits = smooth(1, 1)
    yield Case("pbm", b"P4 22 19\n" + packed(1 - bits, 1), scaled(bits, 1))
    yield Case("pfm", b"Pf\n22 19\n-1.0\n" + bytes(4 * W * H), "floating-point")
    for mode, values in (("L", grey[..., 0]), ("RGB", rgb)):
        for progressive in (False, True):
            for sampling in (0, 2):
                raw = save(Image.fromarray(values), "JPEG", quality=92, progressive=progressive, subsampling=sampling)
                yield Case(f"jpeg-{mode}-{progressive:d}-{sampling}", raw, vips(raw))
    raw = save(Image.fromarray(rgb), "JPEG", quality=95, subsampling=0, icc_profile=profile("srgb", "p3"))
    yield Case("jpeg-p3", raw, vips(raw))
    raw = save(Image.fromarray(grey[..., 0]), "JPEG", quality=95, icc_profile=profile("gamma 1.0"))
    yield Case("jpeg-grey-linear", raw, vips(raw))
    yield from _inks()
    for lossless in (False, True):
        for mode, values in (("RGB", rgb), ("RGBA", rgba)):
            raw = save(Image.fromarray(values), "WEBP", lossless=lossless, exact=True, quality=90)
            yield Case(f"webp-{mode}-{lossless:d}", raw, vips(raw))
    raw = save(Image.fromarray(rgb), "WEBP", lossless=True, icc_profile=profile("gamma 1.8", "adobe"))
    yield Case("webp-adobe", raw, to_srgb(rgb, 8, "gamma 1.8", "adobe"))
    for mode, values in (("RGB", rgb), ("RGBA", rgba), ("L", grey[..., 0])):
        raw = save(Image.fromarray(values), "AVIF", quality=100, subsampling="4:4:4")
        yield Case(f"avif-{mode}", raw, vips(raw), 2)
    raw = save(Image.fromarray(rgb), "AVIF", quality=100, subsampling="4:4:4", icc_profile=profile("srgb", "p3"))
    yield Case("avif-p3", raw, vips(raw), 3)
    plain = save(Image.fromarray(rgb), "AVIF", quality=100, subsampling="4:4:4")
    at = plain.index(b"nclx") + 4
    yield Case("avif-pq", plain[:at] + b"\0\x09\0\x10" + plain[at + 4 :], "PQ")
    expected = to_srgb(vips(plain)[..., :3], 8, "srgb", "p3")
    yield Case("avif-nclx-p3", plain[:at] + b"\0\x0c\0\x0d" + plain[at + 4 :], expected, 4)
    for mode, values in (("RGB", rgb), ("RGBA", rgba)):
        raw = save(Image.fromarray(values), "HEIF", quality=-1, chroma=444, matrix_coefficients=0)
        yield Case(f"heic-{mode}", raw, values, 1)


def _inks() -> Iterator[Case]:
    """CMYK with and without a profile, and JPEGs of rare kinds."""
    import imagecodecs
    import pyvips

    rgb = smooth(3, 8)
    inks = smooth(4, 8)
    naive = np.round((255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255).astype(np.uint8)
    yield Case("tiff-cmyk", save(Image.fromarray(inks, "CMYK"), "TIFF"), naive)
    wide = inks.astype(np.uint16) * 257
    yield Case("tiff-cmyk16", tiff(wide, photometric="separated"), naive)
    planes = np.ascontiguousarray(inks.transpose(2, 0, 1))
    yield Case("tiff-cmyk-planar", tiff(planes, photometric="separated", planarconfig="separate"), naive)
    source = pyvips.Image.new_from_array(rgb).copy(interpretation="srgb")
    cmyk = source.icc_transform("cmyk", input_profile="srgb")
    for name, raw in (("tiff", cmyk.tiffsave_buffer()), ("jpeg", cmyk.jpegsave_buffer(Q=95))):
        yield Case(f"{name}-cmyk-icc", raw, vips(raw))
    yield _lab()
    large = np.kron(inks, np.ones((4, 4, 1), np.uint8))
    for title in ("CMYK", "YCCK"):
        raw = imagecodecs.jpeg8_encode(large, level=98, colorspace="CMYK", outcolorspace=title)
        stored = pyvips.Image.new_from_buffer(raw, "").numpy().astype(np.float64)
        naive = np.round((255 - stored[..., :3]) * (255 - stored[..., 3:]) / 255).astype(np.uint8)
        yield Case(f"jpeg-{title}", raw, naive)
    wide = smooth(1, 12)[..., 0]
    yield Case("jpeg-12", imagecodecs.jpeg8_encode(wide, bitspersample=12), "12-bit JPEG")
    yield Case("jpeg-lossless", imagecodecs.ljpeg_encode(smooth(1, 8)[..., 0]), smooth(1, 8))
    raw = tiff(np.kron(rgb, np.ones((2, 2, 1), np.uint8)), photometric="ycbcr", compression="jpeg")
    yield Case("tiff-jpeg", raw, vips(raw)[..., :3])


def _lab() -> Case:
    """CIE L*a*b* of D50 in 8 bits."""
    rng = np.random.default_rng(4)
    lab = np.stack([rng.integers(80, 200, (H, W)), *rng.integers(-30, 30, (2, H, W))], axis=-1)
    raw = bare_tiff(lab.astype(np.uint8).tobytes(), {258: (8, 8, 8), 262: (8,), 277: (3,)})
    fy = (lab[..., 0] / 2.55 + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2) * D50
    light = np.clip(xyz @ np.linalg.inv(colorants("srgb")).T, 0, 1)
    return Case("tiff-lab", raw, to_srgb(light, 1, "identity", "srgb"))


PARTS = (png_cases, colour_cases, tiff_cases, rare_tiff_cases, drawn_tiff_cases, turned_cases, other_cases)


def with_alpha(values: Array) -> Array:
    """(H,W,4) of 1 to 4 channels."""
    c = values.shape[2]
    colours = values[..., : 3 if c > 2 else 1].repeat(1 if c > 2 else 3, axis=2)
    alpha = values[..., -1:] if c in (2, 4) else np.full_like(values[..., :1], 255)
    return np.concatenate([colours, alpha], axis=2).astype(np.int16)


def fault(case: Case) -> str | None:
    """What is wrong about the reading of a file; None if nothing is."""
    try:
        with decode.strict():
            header = decode.header(io.BytesIO(case.raw))
            image = decode.picture(io.BytesIO(case.raw))
    except Exception as error:
        why = decode.reason(error)
        return None if isinstance(case.expected, str) and case.expected in why else f"refused: {why} ({error!r})"
    if isinstance(case.expected, str):
        return "is not refused"
    values = np.asarray(image).reshape(image.height, image.width, -1)
    if values.shape[:2] != case.expected.shape[:2] or header.size != values.shape[:2]:
        return f"size {values.shape[:2]}, by its header {header.size}"
    if (header.grey, header.alpha) != (image.mode in ("L", "LA"), image.mode in ("LA", "RGBA")):
        return f"{image.mode}, by its header {header}"
    found, right = with_alpha(values), with_alpha(case.expected)
    seen = (found[..., 3:] > 0) | (right[..., 3:] > 0)
    off = (np.abs(found - right) * np.concatenate([seen] * 3 + [np.ones_like(seen)], axis=2)).max()
    return f"{off} levels off" if off > case.within else None


@pytest.mark.parametrize("part", PARTS)
def test_golden_pictures(part: Callable[[], Iterator[Case]]) -> None:
    for module in ("imagecodecs", "pillow_heif", "pyvips", "tifffile"):
        pytest.importorskip(module)
    made = list(part())
    assert {case.name: text for case in made if (text := fault(case))} == {}
    assert len(made) > 20
