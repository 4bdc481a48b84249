"""What results take over from their pictures, and that they open in readers other than Pillow."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from limner.apply import files, metadata, outputs
from limner.apply.tasks import apply
from limner.data.files import decode

Save = Callable[..., Path]
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (24, 36, 3)).astype(np.uint8)
DATE, NOTE = "2020:01:02 03:04:05", b"\0secret of the maker" * 40


def exif() -> Image.Exif:
    """A block as a camera writes it, with a thumbnail's worth of what must not be copied."""
    block = Image.Exif()
    block[0x0112], block[0x010E], block[0x8298], block[0x0131] = 6, "a café".encode(), "the author", "editor 1.0"
    block[0x0111], block[0x0117], block[0x0103] = 8, 12, 6  # strips and compression of an old layout
    block[0x8769] = {0x9003: DATE, 0x927C: NOTE, 0x829A: 0.01, 0xA002: 999, 0xA001: 65535}
    block[0x8825] = {1: "N", 2: (48.0, 51.0, 29.0), 3: "E", 4: (2.0, 17.0, 40.0)}
    return block


def check(path: Path, size: tuple[int, int]) -> Image.Exif:
    """Opens a file with Pillow and libvips, and a TIFF with tifffile; returns its EXIF."""
    with Image.open(path) as image:
        image.load()
        assert image.size == size
        block = image.getexif()
        block.get_ifd(0x8769)
        block.get_ifd(0x8825)
    vips = pyvips.Image.new_from_file(str(path))
    assert (vips.width, vips.height) == size
    assert vips.autorot().width == size[0]
    vips.avg()
    if path.suffix in (".tif", ".tiff"):
        assert tifffile.imread(path).shape[:2] == size[::-1]
    return block


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, save_model: Save) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "m.safetensors")


def tiffs(folder: Path) -> None:
    """TIFF files of many layouts, written by tifffile and Pillow."""
    grey, wide = RGB[..., 0], RNG.integers(0, 65536, (24, 36)).astype(np.uint16)
    tifffile.imwrite(folder / "tiled.tif", np.tile(RGB, (6, 4, 1)), tile=(64, 64), compression="zlib")
    tifffile.imwrite(folder / "jpeg.tif", RGB, compression="jpeg", photometric="ycbcr")
    tifffile.imwrite(folder / "sixteen.tif", wide)
    tifffile.imwrite(folder / "imagej.tif", grey, imagej=True)
    tifffile.imwrite(folder / "white.tif", grey, photometric="miniswhite", compression="lzw")
    tifffile.imwrite(folder / "big.tif", RGB, bigtiff=True)
    tifffile.imwrite(folder / "pages.tif", np.stack([grey, grey]), photometric="minisblack")
    tifffile.imwrite(folder / "author.tif", RGB, extratags=[(33432, 2, 0, "the author", True)], description="a pagoda")
    Image.fromarray(RGB).convert("CMYK").save(folder / "cmyk.tif", compression="tiff_lzw")
    Image.fromarray(RGB).convert("1").save(folder / "fax.tif", compression="group4")
    Image.fromarray(RGB).save(folder / "exif.tiff", exif=exif().tobytes())


def test_every_layout_of_tiff_gives_a_file_that_opens(tmp_path: Path, model: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    tiffs(source)
    result = apply(model, source, tmp_path / "out", device="cpu")
    assert (result["skipped"], result["n"]) == ([], len(list(source.iterdir())))
    for path in sorted((tmp_path / "out").iterdir()):
        size = (144, 144) if path.stem == "tiled" else (24, 36) if path.stem == "exif" else (36, 24)
        block = check(path, size)
        assert block[0x0103] == 1  # not compressed, whatever the source was
        assert tifffile.imread(path).shape == (*size[::-1], 3)
    assert check(tmp_path / "out" / "author.tif", (36, 24))[33432] == "the author"
    assert check(tmp_path / "out" / "author.tif", (36, 24))[270] == "a pagoda"
    assert 270 not in check(tmp_path / "out" / "imagej.tif", (36, 24))
    assert "CMYK becomes RGB (1 picture)" in result["notes"]
    assert any("only the first is used" in note for note in result["notes"])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_what_says_who_when_and_where_is_kept_and_the_old_layout_is_not(
    tmp_path: Path, model: Path, suffix: str
) -> None:
    source = tmp_path / f"a{suffix}"
    Image.fromarray(RGB).save(source, exif=exif().tobytes())
    apply(model, source, tmp_path / "out/", device="cpu")
    block = check(tmp_path / "out" / f"a{suffix}", (24, 36))
    camera, place = block.get_ifd(0x8769), block.get_ifd(0x8825)
    assert (block.get(0x0112, 1), block[0x8298], camera[0x9003]) == (1, "the author", DATE)
    assert (camera[0x829A], place[1], place[4]) == (0.01, "N", (2.0, 17.0, 40.0))
    assert {0x0131} & set(block) == set()
    assert {0x927C, 0xA001, 0xA002} & set(camera) == set()
    content = (tmp_path / "out" / f"a{suffix}").read_bytes()
    assert ("a café".encode() in content) == ("a café".encode() in source.read_bytes())
    assert b"secret of the maker" not in content


def damaged() -> dict[str, bytes]:
    """EXIF blocks that break in different places."""
    whole = exif().tobytes()
    return {
        "cut": whole[: len(whole) // 2],
        "noise": b"Exif\0\0II*\0" + bytes(RNG.integers(0, 256, 200, np.uint8)),
        "no tiff": b"Exif\0\0nonsense",
        "far": b"Exif\0\0II*\0\xff\xff\xff\x7f",
        "loop": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
        "empty": b"Exif\0\0",
    }


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_damaged_exif_costs_neither_the_picture_nor_the_batch(tmp_path: Path, model: Path, suffix: str) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name, block in damaged().items():
        Image.fromarray(RGB).save(source / f"{name}{suffix}", exif=block)
    result = apply(model, source, tmp_path / "out", device="cpu")
    assert (result["n"], result["skipped"]) == (len(damaged()), [])
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as image:
            image.load()
            assert image.size in ((36, 24), (24, 36))
    assert any("EXIF is damaged" in note for note in result["notes"])


def test_no_mutant_of_an_exif_block_spoils_a_result(tmp_path: Path) -> None:
    """Whatever is left of a damaged block can be written, and every result opens."""
    rng, whole, image = random.Random(0), exif().tobytes(), Image.fromarray(RGB)
    for _ in range(150):
        block = bytearray(whole)
        for _ in range(rng.choice((1, 2, 4, 10, 30))):
            block[rng.randrange(6, len(block))] = rng.randrange(256)
        stream = BytesIO()
        image.save(stream, "JPEG", exif=bytes(block))
        with decode.strict():
            kept = metadata.read(stream)
        for suffix in (".jpg", ".tif", ".png"):
            assert check(outputs.write(image, tmp_path / f"a{suffix}", kept), (36, 24)).get(0x0112, 1) == 1


def test_the_exif_block_of_a_png_may_lie_behind_its_pixels(tmp_path: Path) -> None:
    stream = BytesIO()
    Image.fromarray(RGB).save(stream, "PNG")
    body = stream.getvalue()
    chunk = b"eXIf" + exif().tobytes().removeprefix(b"Exif\0\0")
    late = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(body[:-12] + late + body[-12:])
    (tmp_path / "b.png").write_bytes(body)
    kept = files.read_file(tmp_path / "a.png")
    assert (kept.metadata.tags[0x8298], kept.size) == ("the author", (36, 24))
    assert files.read_file(tmp_path / "b.png").metadata.tags == {}


def test_values_that_cannot_be_written_are_left_out_one_by_one(tmp_path: Path) -> None:
    block = Image.Exif()
    block[0x8298], block[0x010E] = "the author", "x" * 60_000
    path = tmp_path / "a.jpg"
    Image.fromarray(RGB).save(path, exif=block.tobytes())
    kept = files.read_file(path).metadata
    assert (kept.damaged, kept.tags) == (True, {0x8298: "the author"})


def test_heic_and_gif_become_png_and_that_is_said(tmp_path: Path, model: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    source = tmp_path / "in"
    source.mkdir()
    stream = BytesIO()
    heif.from_pillow(Image.fromarray(RGB)).save(stream, exif=exif().tobytes())
    (source / "a.heic").write_bytes(stream.getvalue())
    Image.fromarray(RGB).quantize(8).save(source / "b.gif")
    result: dict[str, Any] = apply(model, source, tmp_path / "out", device="cpu")
    assert sorted(Path(w).name for w in result["written"]) == ["a.png", "b.png"]
    assert result["notes"][0] == "written as PNG: 1 .heic, 1 .gif"
    assert check(tmp_path / "out" / "a.png", files.read_file(source / "a.heic").image.size)[0x8298] == "the author"
