"""What a folder or a ZIP lists, and ZIPs of every make, honest and hostile."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from limner.core.errors import LimnerError
from limner.data.files import zip_directory
from limner.data.files.archive import Archive
from limner.data.files.decode import BadImage
from limner.data.files.store import open_store

SYSTEM = [
    "@eaDir/cat.png/SYNOPHOTO_THUMB_M.jpg",
    "__MACOSX/a/._cat.png",
    "a/._dog.png",
    "a/.DS_Store",
    "a/Thumbs.db",
    "desktop.ini",
    ".thumbnails/x.png",
    "lost+found/x.png",
    "$RECYCLE.BIN/S-1-5/x.png",
    "a/@eaDir/y.jpg",
]


@pytest.fixture(params=["folder", "zip", "zip of Windows"])
def stored(request, tmp_path):
    """A folder, a ZIP, or a ZIP with backslashes, with a file of one byte at each path."""

    def make(*paths: str):
        if request.param == "folder":
            for path in paths:
                file = tmp_path / "set" / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(b"x")
            return open_store(tmp_path / "set")
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as z:
            for path in paths:
                z.writestr(path.replace("/", "\\") if "Windows" in request.param else path, b"x")
        return open_store(tmp_path / "set.zip")

    return make


def test_files_of_the_system_are_no_pictures(stored):
    store = stored("a/cat.png", "b/dog.jpg", "notes.txt", *SYSTEM)
    assert store.names == ["a/cat.png", "b/dog.jpg"]
    assert dict(store.ignored) == {".txt": 1}
    assert store.quarantine == []
    assert {"@eaDir", "Thumbs.db", "desktop.ini", "lost+found", "$RECYCLE.BIN", ".DS_Store", "._*"} <= store.hidden


def test_the_labels_of_a_folder_around_everything_are_found(stored):
    store = stored("my/set/00000/1.png", "my/set/00001/2.png", "my/set/dataset.json", "stray.png", "my/other.json")
    assert store.metadata() == b"x"
    assert dict(store.ignored) == {".json": 1}
    assert store.stamp("my/set/00000/1.png") == (1, 0x8CDC1683)


def test_labels_of_one_of_several_folders_are_not_those_of_all(stored):
    store = stored("train/1.png", "train/dataset.json", "test/2.png")
    assert store.metadata() is None
    assert dict(store.ignored) == {".json": 1}


# --- ZIPs ------------------------------------------------------------------------------------------


def zipped(tmp_path, *names: str | zipfile.ZipInfo, content: bytes = b"x", method: int = zipfile.ZIP_STORED):
    with zipfile.ZipFile(tmp_path / "set.zip", "w", method) as z:
        for name in names:
            z.writestr(name, content, method)
    return tmp_path / "set.zip"


def test_names_are_plain(tmp_path):
    folder = zipfile.ZipInfo("train\\cats\\")
    file = zipped(tmp_path, folder, "train\\cats\\1.png", "./a.png", "b//./c.png", "A.png")
    assert open_store(file).names == ["A.png", "a.png", "b/c.png", "train/cats/1.png"]


def test_two_spellings_of_one_name_are_refused(tmp_path):
    with pytest.raises(LimnerError, match=r"contains 'a/b\.png' twice"):
        open_store(zipped(tmp_path, "a/b.png", "a\\b.png"))


@pytest.mark.parametrize(
    ("raw", "flags", "extra", "name"),
    [
        ("Kätzchen/1.png".encode(), 0x800, b"", "Kätzchen/1.png"),
        ("Kätzchen/1.png".encode(), 0, b"", "Kätzchen/1.png"),  # macOS sets no flag
        ("Kätzchen/1.png".encode("cp437"), 0, b"", "Kätzchen/1.png"),
        ("Kätzchen/1.png".encode("cp1252"), 0, "Kätzchen/1.png", "Kätzchen/1.png"),  # Info-ZIP's Unicode path
    ],
)
def test_names_that_are_not_ascii(raw, flags, extra, name):
    if extra:
        field = b"\1" + struct.pack("<L", zlib.crc32(raw)) + extra.encode()
        extra = struct.pack("<HH", 0x7075, len(field)) + field
    assert zip_directory._name(raw, flags, extra, False) == name


def test_honest_masks_are_no_bomb(tmp_path):
    """One colour: each file has some 400 times the bytes that it takes in the ZIP."""
    file = zipped(tmp_path, *(f"{k}.bmp" for k in range(300)), content=bytes(66_000), method=zipfile.ZIP_DEFLATED)
    assert len(open_store(file).names) == 300


def test_a_large_member_of_one_colour_is_a_bomb(tmp_path):
    file = zipped(tmp_path, "a.bmp", content=bytes(17 << 20), method=zipfile.ZIP_DEFLATED)
    with pytest.raises(
        LimnerError, match=r"contains 'a\.bmp', which unpacks to 17 MiB, .* as a ZIP bomb does; refused"
    ):
        open_store(file)


def test_a_large_mask_of_one_colour_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr("limner.data.files.archive.BOMB_TOTAL", 10 << 20)
    mask = io.BytesIO()
    Image.new("L", (4200, 4200)).save(mask, "BMP")
    file = zipped(tmp_path, "mask.bmp", content=mask.getvalue(), method=zipfile.ZIP_DEFLATED)
    assert len(open_store(file).open("mask.bmp").read()) == len(mask.getvalue()) > 16 << 20
    padded = mask.getvalue()[:100] + bytes(30 << 20)
    with pytest.raises(LimnerError, match="as a ZIP bomb does"):
        open_store(zipped(tmp_path, "mask.bmp", content=padded, method=zipfile.ZIP_DEFLATED))


def test_many_small_members_are_a_bomb_too(tmp_path, monkeypatch):
    monkeypatch.setattr("limner.data.files.archive.BOMB_TOTAL", 1 << 20)
    file = zipped(tmp_path, *(f"{k}.bmp" for k in range(20)), content=bytes(66_000), method=zipfile.ZIP_DEFLATED)
    with pytest.raises(LimnerError, match=r"unpacks to 1 MiB, .* as a ZIP bomb does"):
        open_store(file)


def test_members_that_share_their_bytes_are_refused(tmp_path):
    file = zipped(tmp_path, "a.png", "b.png", content=b"x" * 500)
    raw = bytearray(file.read_bytes())
    second = raw.rindex(b"PK\x01\x02")
    raw[second + 42 : second + 46] = bytes(4)  # the header of b.png is that of a.png
    file.write_bytes(raw)
    with pytest.raises(LimnerError, match="share their bytes"):
        open_store(file)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("before", [b"", b"#!/bin/sh of a self-extracting archive"])
def test_every_method_reads_what_zipfile_reads(tmp_path, method, before):
    content = np.random.default_rng(0).integers(0, 9, 50_000, dtype=np.uint8).tobytes()
    file = zipped(tmp_path, "b.png", "a.png", content=content, method=method)
    file.write_bytes(before + file.read_bytes())
    store = open_store(file)
    with zipfile.ZipFile(file) as z:
        assert [store.open(n).read() for n in store.names] == [z.read(n) for n in store.names] == [content] * 2
        assert store.stamp("a.png") == (z.getinfo("a.png").file_size, z.getinfo("a.png").CRC)


def test_zip64(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as z, z.open("a.png", "w", force_zip64=True) as member:
        member.write(b"hello")
    assert open_store(tmp_path / "set.zip").open("a.png").read() == b"hello"
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as z:
        for k in range(65_600):  # more than the end record can count
            z.writestr(f"{k}.png", b"")
    assert len(open_store(tmp_path / "many.zip").names) == 65_600


def test_cut_and_spoilt_zips_are_one_clear_line(tmp_path):
    raw = zipped(tmp_path, *(f"{k}.png" for k in range(9))).read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(400):
        bad = bytearray(raw)
        for at in rng.integers(0, len(raw), 3):
            bad[at] = rng.integers(256)
        (tmp_path / "bad.zip").write_bytes(
            bad[: rng.integers(len(raw) // 2, len(raw) + 1)] if rng.random() < 0.3 else bad
        )
        try:
            store = Archive(tmp_path / "bad.zip")
            for name in store.names:
                with contextlib.suppress(BadImage):
                    store.open(name).read()
        except LimnerError as error:
            refused += "\n" not in str(error)
    assert refused > 50
