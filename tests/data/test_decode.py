"""Decoding: orientation, modes, colour profiles, resizing, and the reasons of unusable files."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from limner.data.files import decode, formats

from .golden import bare_tiff  # noqa: TID252 - tests are no package that could be imported by name

F = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]], np.uint8) * 255
"""The letter F, 6×4: no two of its eight turned and mirrored forms are the same."""


def picture(raw: bytes) -> Image.Image:
    with decode.strict():
        return decode.picture(io.BytesIO(raw))


def header(raw: bytes) -> decode.Header:
    with decode.strict():
        return decode.header(io.BytesIO(raw))


def reason_of(raw: bytes) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what Pillow raises differs from format to format
        picture(raw)
    return decode.reason(caught.value)


def stored(orientation: int) -> np.ndarray:
    """How a rotated camera stores an upright F (Exif 2.32, figure of tag 0x0112)."""
    return {
        1: F,
        2: F[:, ::-1],
        3: F[::-1, ::-1],
        4: F[::-1],
        5: F.T,
        6: np.rot90(F, 1),
        7: F[::-1, ::-1].T,
        8: np.rot90(F, -1),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_every_orientation_comes_out_upright(orientation, format, encode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    grey = Image.fromarray(np.ascontiguousarray(stored(orientation)))
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(format, {})
    raw = encode(grey.convert("RGB") if format == "WEBP" else grey, format, exif=exif, **options)
    upright = np.asarray(picture(raw).convert("L")).astype(int)
    assert upright.shape == F.shape
    assert np.abs(upright - F).max() <= (12 if format == "JPEG" else 0)
    assert header(raw).size == (6, 4)
    assert header(raw).rotated == (orientation != 1)


def test_a_broken_exif_block_does_not_lose_the_picture(encode):
    raw = encode(Image.fromarray(F), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken")
    np.testing.assert_array_equal(np.asarray(picture(raw)), F)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_divided_by_257(format, encode):
    wide = np.array([[0, 128, 129, 257], [32768, 65535, 65278, 513]], np.uint16)
    assert np.asarray(picture(encode(Image.fromarray(wide), format))).tolist() == [[0, 0, 1, 1], [128, 255, 254, 2]]
    assert header(encode(Image.fromarray(wide), format)).grey


def test_big_endian_16_bit_tiff_is_the_same(encode):
    wide = np.array([[0, 257, 65535]], np.uint16)
    raw = encode(Image.frombytes("I;16B", (3, 1), wide.astype(">u2").tobytes()), "TIFF")
    assert np.asarray(picture(raw)).tolist() == [[0, 1, 255]]


def test_16_bit_grey_with_a_clear_level_gets_alpha(encode):
    raw = encode(Image.fromarray(np.array([[0, 65535]], np.uint16)), "PNG")
    trns = b"tRNS" + struct.pack(">H", 65535)
    chunk = struct.pack(">I", 2) + trns + struct.pack(">I", zlib.crc32(trns))
    raw = raw[:33] + chunk + raw[33:]  # behind IHDR
    assert np.asarray(picture(raw)).tolist() == [[[0, 255], [255, 0]]]


def test_one_bit_is_black_and_white(encode):
    raw = encode(Image.fromarray(F).convert("1"), "PNG")
    assert picture(raw).mode == "L"
    np.testing.assert_array_equal(np.asarray(picture(raw)), F)


def test_cmyk_without_profile(encode):
    ink = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255]]], np.uint8)
    raw = encode(Image.fromarray(ink, "CMYK"), "TIFF")
    white, cyan, red, black = np.asarray(picture(raw))[0].tolist()
    assert (white, cyan, red, black) == ([255] * 3, [0, 255, 255], [255, 0, 0], [0] * 3)


def test_cmyk_jpeg_is_not_inverted(encode):
    paper = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    assert np.asarray(picture(encode(paper, "JPEG", quality=100))).min() >= 253


def test_palette_with_transparency(encode):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    raw = encode(image, "PNG", transparency=bytes([255, 128, 0]))
    rgba = picture(raw)
    assert np.asarray(rgba).tolist() == [[[255, 0, 0, 255], [0, 255, 0, 128], [0, 0, 255, 0]]]
    over_white = np.asarray(decode.channelled(rgba, 3))[0].tolist()
    assert over_white == [[255, 0, 0], [127, 255, 127], [255, 255, 255]]
    assert header(raw).alpha


def test_a_clear_colour_of_rgb_becomes_alpha(encode):
    image = Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8))
    assert np.asarray(picture(encode(image, "PNG", transparency=(1, 2, 3))))[0, :, 3].tolist() == [0, 255]


def test_grey_with_alpha_in_each_number_of_channels():
    la = Image.fromarray(np.array([[[0, 255], [0, 0], [100, 255]]], np.uint8))
    assert decode.pixels(decode.channelled(la, 1)).tolist() == [[[0, 255, 100]]]
    assert decode.pixels(decode.channelled(la, 2)).tolist() == [[[0, 0, 100]], [[255, 0, 255]]]
    assert decode.pixels(decode.channelled(la, 3))[:, 0].tolist() == [[0, 255, 100]] * 3
    assert decode.pixels(decode.channelled(la, 4))[:, 0].tolist() == [[0, 0, 100]] * 3 + [[255, 0, 255]]


def test_premultiplied_alpha_over_white_is_exact():
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 256, (19, 22, 1))
    over = rng.integers(0, 256, (19, 22, 3)) * alpha // 255
    stored = np.concatenate([over, alpha], axis=2).astype(np.uint8)
    raw = bare_tiff(stored.tobytes(), {258: (8,) * 4, 262: (2,), 277: (4,), 338: (1,)})
    found = np.asarray(decode.channelled(picture(raw), 3)).astype(int)
    assert np.abs(found - (over + 255 - alpha)).max() <= 1


def test_opaque_images_gain_an_opaque_alpha():
    grey = Image.fromarray(F)
    assert (decode.pixels(decode.channelled(grey, 2))[1] == 255).all()
    assert (decode.pixels(decode.channelled(grey, 4))[3] == 255).all()


def test_colours_of_a_wide_profile_come_out_as_srgb(encode):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    colour = Image.new("RGB", (2, 2), (200, 60, 30))
    same = picture(encode(colour, "PNG", icc_profile=srgb.tobytes()))
    assert np.asarray(same)[0, 0].tolist() == [200, 60, 30]
    # a profile of another colour space cannot describe RGB pixels: it is ignored
    assert np.asarray(picture(encode(colour, "PNG", icc_profile=lab.tobytes())))[0, 0].tolist() == [200, 60, 30]
    assert np.asarray(picture(encode(colour, "PNG", icc_profile=b"nonsense")))[0, 0].tolist() == [200, 60, 30]
    swapped = picture(encode(colour, "PNG", icc_profile=_red_for_blue()))
    red, _, blue = np.asarray(swapped)[0, 0].tolist()
    assert red < blue


def _red_for_blue() -> bytes:
    """An sRGB profile that exchanges the red and the blue primary."""
    raw = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for i in range(struct.unpack(">I", raw[128:132])[0]):
        at = 132 + 12 * i
        tag = bytes(raw[at : at + 4])
        raw[at : at + 4] = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ", b"desc": b"DESC"}.get(tag, tag)
    return bytes(raw)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Image.fromarray(np.zeros((2, 2), np.float32)), "floating-point pixels"),
        (lambda: Image.fromarray(np.zeros((2, 2), np.int32)), "32-bit pixels"),
    ],
)
def test_pixels_without_a_range_are_refused_with_the_reason(make, reason, encode):
    assert reason in reason_of(encode(make(), "TIFF"))


def test_reasons(encode, paint):
    png, jpeg = encode(paint(size=(64, 64))), encode(paint(size=(64, 64)), "JPEG")
    assert reason_of(b"") == "empty file"
    assert reason_of(b"just some text") == "not a PNG, JPEG, WebP, AVIF, HEIC, TIFF, BMP, GIF or PPM image"
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    assert reason_of(eps) == "not read (vector drawing: export it as PNG at the size that is needed)"
    assert reason_of(jpeg[: len(jpeg) // 2]) == "truncated"
    assert reason_of(png[: len(png) // 2]) in {"truncated", "damaged (SyntaxError)"}


def test_avif_and_heic_are_read_upright(encode, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(F, 1).repeat(8, 0).repeat(8, 1))).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    pillow_heif.register_heif_opener()
    for format in ("AVIF", "HEIF"):
        raw = encode(turned, format, exif=exif.tobytes(), quality=100 if format == "AVIF" else -1)
        assert header(raw).size == (48, 32)
        upright = np.asarray(picture(raw).convert("L")).astype(int)
        assert np.abs(upright - F.repeat(8, 0).repeat(8, 1)).max() <= 12
    assert "damaged HEIC" in reason_of(raw[:40] + bytes(100))
    monkeypatch.setattr(formats, "register_heif", lambda: False)
    assert 'pip install "limner[heic]"' in reason_of(raw)


def test_wide_pgm_is_divided_by_257():
    assert np.asarray(picture(b"P5 3 1 65535\n\0\0\1\1\xff\xff")).tolist() == [[0, 1, 255]]
    assert header(b"P5 3 1 65535\n\0\0\1\1\xff\xff").grey
    assert np.asarray(picture(b"P6 1 1 255\n\1\2\3")).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000: convert it to PNG"),
        (b"\xff\x0a\xfa", "JPEG XL"),
        (b"\0\0\0\x18ftypcrx isom", "camera raw"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "vector drawing"),
        (b"8BPS\0\1", "layered file"),
        (b"<!DOCTYPE html><html>", "a web page: download"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"%PDF-1.7", "PDF: export its pages"),
    ],
)
def test_a_format_that_is_not_read_is_named(start, what):
    assert what in reason_of(start + bytes(64))
    assert all(": " in text for text in decode.UNREAD.values())
    assert not decode.UNREAD.keys() & decode.SUFFIXES


def test_a_bomb_is_refused_from_its_header():
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    assert reason_of(bomb) == "larger than 200 megapixels"


def test_limits_of_pillow_are_put_back():
    before = Image.MAX_IMAGE_PIXELS
    with decode.strict():
        assert before != Image.MAX_IMAGE_PIXELS
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_crop_keeps_pixels_exactly():
    values = np.arange(5 * 8, dtype=np.uint8).reshape(5, 8)
    assert np.array_equal(np.asarray(decode.fitted(Image.fromarray(values), (5, 5))), values[:, 1:6])


def test_resizing_is_antialiased_and_keeps_the_mean():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    small = np.asarray(decode.fitted(Image.fromarray(stripes), (8, 8))).astype(int)
    assert np.abs(small - 127.5).max() < 8  # without antialiasing it would be all black or all white


def test_the_middle_of_a_wide_picture_is_kept():
    wide = np.zeros((10, 40), np.uint8)
    wide[:, 15:25] = 255
    assert np.asarray(decode.fitted(Image.fromarray(wide), (10, 10))).min() == 255
    small = np.asarray(decode.fitted(Image.fromarray(wide), (5, 5)))
    assert small[:, 1:4].min() > 240


def test_the_colour_of_transparent_pixels_does_not_bleed():
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, :4] = (255, 0, 0, 255)  # opaque red beside clear black
    small = decode.fitted(Image.fromarray(rgba), (2, 2))
    assert decode.pixels(decode.channelled(small, 3))[0].min() >= 250  # all white or red: no dark seam


def test_a_large_jpeg_decoded_at_a_smaller_scale_looks_the_same(encode):
    y, x = np.mgrid[0:512, 0:512]
    smooth = np.stack([x / 2, y / 2, (x + y) / 4], axis=-1).astype(np.uint8)
    raw = encode(Image.fromarray(smooth), "JPEG", quality=95)
    with decode.strict():
        quick = decode.picture(io.BytesIO(raw), 32)
        assert quick.width < 512
        a, b = (np.asarray(decode.fitted(i, (32, 32))).astype(int) for i in (quick, decode.picture(io.BytesIO(raw))))
    assert np.abs(a - b).max() <= 3


def test_limits_hold_until_the_last_thread_has_read():
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    first, second = decode.strict(), decode.strict()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert Image.MAX_IMAGE_PIXELS == decode.MAX_PIXELS, "the second one still reads"
    second.__exit__(None, None, None)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before
