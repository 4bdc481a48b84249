"""Hostile files are read or refused with a reason."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from limner.data import check, load
from limner.data.files import decode

from .golden import bare_tiff, icc, packed, png, profile, smooth  # noqa: TID252 - tests are no package


def _corpus() -> list[bytes]:
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    saved = [
        (rgb, "PNG", {"exif": exif}),
        (rgb.quantize(16), "PNG", {"transparency": bytes([0, 128, 255])}),
        (rgb, "JPEG", {"exif": exif, "progressive": True}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb.convert("RGBA"), "WEBP", {"lossless": True}),
        (rgb, "BMP", {}),
        (rgb.quantize(8), "GIF", {"save_all": True, "append_images": [rgb.rotate(90).quantize(8)]}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (Image.fromarray(rng.integers(0, 65536, (9, 9), dtype=np.uint16)), "TIFF", {}),
        (rgb, "AVIF", {"speed": 10}),
        (rgb, "PPM", {}),
    ]
    corpus = []
    for image, format, options in saved:
        stream = io.BytesIO()
        image.save(stream, format, **options)
        corpus.append(stream.getvalue())
    wide = smooth(3, 16)
    corpus.append(png(wide, 2, 16, tRNS=bytes(6), **icc(profile("table 1.8", "p3"))))
    corpus.append(bare_tiff(packed(smooth(1, 12), 12), {258: (12,), 262: (0,)}))
    inks = np.ascontiguousarray(wide.transpose(2, 0, 1)).astype("<u2").tobytes()
    tags = {258: (16,) * 3, 262: (2,), 277: (3,), 284: (2,), 273: (0, 836, 1672), 279: (836,) * 3}
    corpus.append(bare_tiff(inks, tags))
    return corpus


CORPUS = _corpus()


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A real file, cut short, with bytes changed or with part of another file spliced in."""
    raw = bytearray(draw(st.sampled_from(CORPUS)))
    for _ in range(draw(st.integers(0, 4))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    if draw(st.booleans()):
        other = draw(st.sampled_from(CORPUS))
        at = draw(st.integers(0, len(raw)))
        raw[at : at + 40] = other[at : at + 40]
    return bytes(raw[: draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])


@settings(max_examples=400, derandomize=True, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(mutants())
def test_a_mutant_is_read_or_refused(raw):
    with decode.strict():
        try:
            image = decode.picture(io.BytesIO(raw), 16)
        except Exception as error:
            why = decode.reason(error)
            assert why
            assert "\n" not in why
            return
        assert image.mode in {"L", "LA", "RGB", "RGBA"}
        assert decode.pixels(decode.channelled(decode.fitted(image, (8, 8)), 3)).shape == (3, 8, 8)


def test_a_folder_of_mutants_is_loaded_and_checked(folder_of):
    photos = folder_of(*(f"{i:03}.png" for i in range(40)))
    rng = np.random.default_rng(1)
    suffix = {b"\x89P": ".png", b"\xff\xd8": ".jpg", b"RI": ".webp", b"BM": ".bmp", b"GI": ".gif", b"II": ".tiff"}
    suffix |= {b"\0\0": ".avif", b"P6": ".ppm"}
    for i in range(30):
        raw = bytearray(CORPUS[i % len(CORPUS)])
        end = suffix[bytes(raw[:2])]
        for at in rng.integers(0, len(raw), 5):
            raw[at] = rng.integers(256)
        (photos / f"mutant{i}{end}").write_bytes(raw)
    dataset = load(photos, split="all", size=12, channels=3)
    assert 40 <= len(dataset) == 70 - len(dataset.quarantine)
    report = check(photos)
    assert report.images == len(dataset)
    assert {p for p, _ in report.bad} == {p for p, _ in dataset.quarantine}
