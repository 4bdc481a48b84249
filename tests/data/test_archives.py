"""ZIP files: honest ones are read in place, hostile ones are refused."""

from __future__ import annotations

import json
import stat
import zipfile
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch

from limner.core.errors import LimnerError
from limner.data import load
from limner.data.files import archive


@pytest.fixture
def packed(tmp_path, paint, encode):
    """A ZIP with an image at each path, and other members."""

    def make(*paths: str, name: str = "set.zip", **others: bytes) -> Path:
        file = tmp_path / name
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z:
            for seed, path in enumerate(paths):
                z.writestr(path, encode(paint(seed)))
            for path, raw in others.items():
                z.writestr(path.replace("__", "."), raw)
        return file

    return make


def pickled(dataset):
    """A copy as a data loader worker receives it."""
    return ForkingPickler.loads(ForkingPickler.dumps(dataset))


def numbered(n: int, prefix: str = "") -> list[str]:
    return [f"{prefix}{i:03}.png" for i in range(n)]


@pytest.mark.parametrize("prefix", ["", "photos/"])
def test_a_zip_is_the_same_set_as_its_folder(packed, folder_of, prefix):
    paths = [*numbered(12, "cat/"), *numbered(12, "dog/")]
    zipped, folder = load(packed(*(prefix + p for p in paths))), load(folder_of(*paths))
    assert zipped.classes == folder.classes == ["cat", "dog"]
    assert torch.equal(zipped.pixels, folder.pixels)
    assert torch.equal(zipped.labels, folder.labels)


def test_nothing_is_unpacked(packed, tmp_path):
    load(packed(*numbered(4)), cache=False).fetch([0, 1])
    assert [p.name for p in tmp_path.iterdir()] == ["set.zip"]


def test_an_open_zip_can_be_sent_to_workers(packed):
    streamed = load(packed(*numbered(4)), cache=False)
    x = streamed.fetch([0, 1, 2])
    assert torch.equal(pickled(streamed).fetch([0, 1, 2]), x)


def test_stylegan_labels(packed):
    paths = numbered(12, "00000/img")
    labels = {"labels": [[p, 7 if i % 3 else 2] for i, p in enumerate(paths)]}
    dataset = load(packed(*paths, dataset__json=json.dumps(labels).encode()), split="all")
    assert dataset.classes == ["2", "7"]
    assert dataset.labels.tolist() == [0, 1, 1] * 4
    assert dataset.notes[0] == "found 12 images in 2 classes of dataset.json (2 4, 7 8)"


def test_stylegan_without_labels(packed):
    paths = [*numbered(6, "00000/img"), *numbered(6, "00001/img")]
    dataset = load(packed(*paths, dataset__json=b'{"labels": null}'))
    assert dataset.classes is None


@pytest.mark.parametrize(
    "metadata",
    [b"{", b"[]", b'{"labels": 3}', b'{"labels": [["000.png"]]}', b'{"labels": [["000.png", [1, 2]]]}', b"[" * 99999],
)
def test_broken_labels_are_one_clear_line(packed, metadata):
    with pytest.raises(LimnerError, match=r"dataset\.json"):
        load(packed(*numbered(2), dataset__json=metadata))


@pytest.mark.parametrize(
    "path",
    ["../evil.png", "a/../../evil.png", "/evil.png", "C:/evil.png", "..\\evil.png", "\\evil.png", "a/b\\..\\..\\c.png"],
)
def test_a_member_that_leads_outside_is_refused(packed, path):
    with pytest.raises(LimnerError, match="leads out of the archive"):
        load(packed(*numbered(3), path))


def test_a_name_cut_short_by_nul_is_refused(packed):
    file = packed(*numbered(3), "good.png#.png")
    file.write_bytes(file.read_bytes().replace(b"good.png#", b"good.png\0"))
    with pytest.raises(LimnerError, match="leads out of the archive"):
        load(file)


def test_links_are_refused(packed):
    file = packed(*numbered(3))
    info = zipfile.ZipInfo("link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(file, "a") as z:
        z.writestr(info, "/etc/passwd")
    with pytest.raises(LimnerError, match=r"contains the link 'link\.png'"):
        load(file)


def test_bombs_are_refused(packed):
    with pytest.raises(LimnerError, match="as a ZIP bomb does"):
        load(packed(*numbered(3), zeros__bmp=bytes(30_000_000)))


def test_too_many_members_are_refused(packed, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    assert len(load(packed(*numbered(3)))) == 3
    with pytest.raises(LimnerError, match="more than 3 members"):
        load(packed(*numbered(4)))


def test_the_same_member_twice_is_refused(packed):
    file = packed(*numbered(3))
    with zipfile.ZipFile(file, "a") as z, pytest.warns(UserWarning, match="Duplicate"):
        z.writestr("000.png", b"another")
    with pytest.raises(LimnerError, match="twice"):
        load(file)


def test_encrypted_archives_are_refused(packed):
    file = packed(*numbered(3))
    raw = bytearray(file.read_bytes())
    at = raw.index(b"PK\x01\x02")
    raw[at + 8] |= 1
    file.write_bytes(raw)
    with pytest.raises(LimnerError, match="is encrypted"):
        load(file)


def test_a_damaged_member_is_left_out(packed):
    file = packed(*numbered(12))
    raw = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as z:
        at = z.getinfo("003.png").header_offset + 60
    raw[at : at + 20] = bytes(20)
    file.write_bytes(raw)
    dataset = load(file, split="all")
    assert len(dataset) == 11
    assert dataset.quarantine == [("003.png", "damaged inside the ZIP")]


def test_a_member_that_lies_about_its_size_gives_no_more_than_it_declared(packed):
    file = packed(*numbered(12))
    raw = bytearray(file.read_bytes())
    at = raw.index(b"PK\x01\x02")
    raw[at + 24 : at + 28] = (50).to_bytes(4, "little")
    file.write_bytes(raw)
    assert load(file, split="all").quarantine == [("000.png", "damaged inside the ZIP")]


def test_no_zip_and_empty_zips_are_one_clear_line(tmp_path, packed):
    (tmp_path / "fake.zip").write_bytes(b"PK\x03\x04 but no archive")
    with pytest.raises(LimnerError, match="is not a complete ZIP"):
        load(tmp_path / "fake.zip")
    with pytest.raises(LimnerError, match="is empty"):
        load(packed())
    with pytest.raises(LimnerError, match="there is no folder or ZIP"):
        load("nowhere.zip")
    cut = packed(*numbered(5), name="cut.zip")
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(LimnerError, match=r"cut\.zip"):
        load(cut)
