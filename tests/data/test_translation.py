"""Pairs and domains: every layout, files of different kinds, missing partners, published sets."""

from __future__ import annotations

import io
import shutil
import tarfile
import typing
import zipfile
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import limner.data
from limner.core.batch import Dataset
from limner.core.errors import LimnerError
from limner.core.stream import Stream
from limner.data import degradations, load
from limner.data.files import decode, download
from limner.data.pairs import DomainSet, PairSet
from limner.data.registry import SOURCES
from limner.data.sources.translation import TaskName

SIDE = 16


def uniform(level: int, size: tuple[int, int] = (SIDE, SIDE), mode: str = "RGB") -> Image.Image:
    """An image of one grey level."""
    return Image.new(mode, size, level if mode == "L" else (level,) * len(mode))


def save(file: Path, image: Image.Image, **options: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, **options)


def save_pairs(root: Path, pattern_a: str, pattern_b: str, numbers: range, **options: object) -> None:
    """Source k has the level 100 + k, its target the level k."""
    for k in numbers:
        save(root / pattern_a.format(k=k), uniform(100 + k), **options)
        save(root / pattern_b.format(k=k), uniform(k), **options)


def levels(dataset) -> list[tuple[int, int]]:
    """The levels of all sources and targets."""
    a, b = dataset.pairs(range(len(dataset)))
    return [tuple(round((float(x.mean()) + 1) * 127.5) for x in pair) for pair in zip(a, b)]


def has_note(dataset, part: str) -> bool:
    return any(part in note for note in dataset.notes)


LAYOUTS = {
    "A/ B/": [("A/{k}.png", "B/{k}.png", range(12))],
    "a/ b/ with sub-folders": [("a/old/{k}.png", "b/old/{k}.png", range(12))],
    "A/train B/train A/test B/test": [
        ("A/train/{k}.png", "B/train/{k}.png", range(10)),
        ("A/test/{k}.png", "B/test/{k}.png", range(10, 12)),
    ],
    "A/train A/val": [
        ("A/train/{k}.png", "B/train/{k}.png", range(10)),
        ("A/val/{k}.png", "B/val/{k}.png", range(10, 12)),
    ],
    "any case, validation as the held-out part": [
        ("TrainA/{k}.png", "TrainB/{k}.png", range(10)),
        ("ValidA/{k}.png", "ValidB/{k}.png", range(10, 12)),
    ],
    "A/Train A/Validation": [
        ("A/Train/{k}.png", "B/Train/{k}.png", range(10)),
        ("A/Validation/{k}.png", "B/Validation/{k}.png", range(10, 12)),
    ],
    "train/A train/B test/A test/B": [
        ("train/A/{k}.png", "train/B/{k}.png", range(10)),
        ("test/A/{k}.png", "test/B/{k}.png", range(10, 12)),
    ],
    "trainA trainB testA testB": [
        ("trainA/{k}_A.png", "trainB/{k}_B.png", range(10)),
        ("testA/{k}_A.png", "testB/{k}_B.png", range(10, 12)),
    ],
    "all in one folder": [
        ("set/A/train/{k}.png", "set/B/train/{k}.png", range(10)),
        ("set/A/test/{k}.png", "set/B/test/{k}.png", range(10, 12)),
    ],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_layouts(tmp_path, layout, packed):
    root = tmp_path / "pairs"
    for each in LAYOUTS[layout]:
        save_pairs(root, *each)
    if packed:
        shutil.make_archive(str(root), "zip", root)
        root = root.with_suffix(".zip")
    train, test, whole = (load("pairs", path=str(root), split=s) for s in ("train", "test", "all"))
    assert isinstance(train, Dataset)
    assert isinstance(train, PairSet)
    assert (train.source, train.shape, train.pairing) == ((3, SIDE, SIDE), (3, SIDE, SIDE), None)
    assert all(a == b + 100 for a, b in levels(whole))
    assert sorted(levels(train) + levels(test)) == sorted(levels(whole))
    assert len(whole) == 12
    if len(LAYOUTS[layout]) == 2:
        assert sorted(b for _, b in levels(test)) == [10, 11]
    assert has_note(train, "found 12 pairs in A/ and B/")


@pytest.mark.parametrize("folders", [("",), ("train/", "test/"), ("train/", "val/"), ("Training/", "valid/")])
def test_joined_pictures(tmp_path, folders):
    for place, numbers in zip(folders, (range(10), range(10, 12))):
        for k in numbers:
            whole = Image.new("RGB", (2 * SIDE, SIDE))
            whole.paste(uniform(100 + k), (0, 0))
            whole.paste(uniform(k), (SIDE, 0))
            save(tmp_path / f"{place}{k}.png", whole)
    train, test = (load("pairs", path=str(tmp_path), split=s) for s in ("train", "test"))
    assert train.shape == train.source == (3, SIDE, SIDE)
    assert all(a == b + 100 for a, b in levels(train) + levels(test))
    assert has_note(train, "in the halves of pictures")
    if len(folders) == 2:
        assert sorted(b for _, b in levels(test)) == [10, 11]
    swapped = load("pairs", path=str(tmp_path), swap=True, cache=False)
    assert levels(swapped) == [(b, a) for a, b in levels(train)]


def test_joined_pictures_of_other_proportions_need_the_option(tmp_path):
    for k in range(4):
        save(tmp_path / f"{k}.png", uniform(k, (40, 30)))
    save(tmp_path / "odd.png", uniform(9, (41, 30)))
    with pytest.raises(LimnerError, match="no pairs: lay them out as A/ and B/"):
        load("pairs", path=str(tmp_path))
    joined = load("pairs", path=str(tmp_path), layout="joined")
    assert joined.shape == (3, 30, 20)
    assert joined.quarantine == [("odd.png", "an odd number of pixels wide")]
    with pytest.raises(LimnerError, match="has no folders A/ and B/"):
        load("pairs", path=str(tmp_path), layout="folders")


def test_pictures_alone_are_one_clear_line(folder_of):
    with pytest.raises(LimnerError) as caught:
        load("pairs", path=str(folder_of("1.png", "2.png", "3.png")))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in ("A/ and B/", "A|B", "layout=joined", "task=", *degradations.NAMES))


def asymmetric(k: int) -> np.ndarray:
    """A picture that differs from its mirror image, without the extremes."""
    return np.random.default_rng(k).integers(40, 60, (SIDE, SIDE, 3), dtype=np.uint8)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("cache", [False, True])
def test_sources_and_targets_are_mirrored_and_moved_together_and_never_exchanged(tmp_path, joined, cache):
    """Sources are dark, their targets the same 150 levels brighter."""
    for k in range(12):
        dark = asymmetric(k)
        if joined:
            save(tmp_path / f"{k}.png", Image.fromarray(np.concatenate([dark, dark + 150], 1)))
        else:
            save(tmp_path / f"A/{k}.png", Image.fromarray(dark))
            save(tmp_path / f"B/{k}.png", Image.fromarray(dark + 150))
    pairs = load("pairs", path=str(tmp_path), flip=True, shift=2, split="all", cache=cache)
    plain, stream = pairs.pairs(range(12)), Stream(pairs, 12, 0)
    turned = 0
    for _ in range(4):
        a, b = next(stream)
        assert a.max() < 0 < b.min()
        assert torch.allclose(b - a, torch.full_like(a, 150 / 127.5), atol=1e-5)
        middle = slice(4, -4)
        for x in a:
            crops = [y[:, middle, middle] for y in (*plain.a, *plain.a.flip(3))]
            spots = x.unfold(1, SIDE - 8, 1).unfold(2, SIDE - 8, 1)  # (3,9,9,8,8)
            near = [((spots - c[:, None, None]).abs().amax((0, 3, 4)).min()) < 1e-5 for c in crops]
            assert sum(near) == 1
            turned += near.index(True) >= 12
    assert 10 < turned < 38


def test_suffixes_may_differ_and_letters_at_the_end(tmp_path):
    for k in range(6):
        save(tmp_path / f"A/{k}_a.png", uniform(100 + k))
        save(tmp_path / f"B/{k}-B.jpg", uniform(k))
    assert len(load("pairs", path=str(tmp_path))) == 6
    for k in range(6):
        save(tmp_path / f"same/A/villa_{k}_a.png", uniform(100 + k))
        save(tmp_path / f"same/B/villa_{k}_a.png", uniform(k))
    assert all(a == b + 100 for a, b in levels(load("pairs", path=str(tmp_path / "same"))))


def test_names_without_a_partner(tmp_path):
    save_pairs(tmp_path, "A/{k}.png", "B/{k}.png", range(6))
    save(tmp_path / "A/more.png", uniform(0))
    save(tmp_path / "B/3.jpg", uniform(0))
    pairs = load("pairs", path=str(tmp_path))
    assert len(pairs) == 6
    assert dict(pairs.quarantine) == {
        "A/more.png": "no image of that name on the other side",
        "B/3.png": "a second image of that name",
    }
    assert has_note(pairs, "left out 2 bad files: 1 a second image of that name, 1 no image of that name")
    for k in range(20):
        save(tmp_path / f"A/x{k}.png", uniform(0))
        save(tmp_path / f"B/y{k}.png", uniform(0))
    with pytest.raises(LimnerError) as caught:
        load("pairs", path=str(tmp_path))
    assert "41 of 54 pictures have no partner of the same name (such as A/more.png)" in str(caught.value)
    assert "give source and target one name" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pairs_to_validate_on_are_neither_trained_nor_tested_on(tmp_path):
    for place, numbers in (("train", range(10)), ("valid", range(10, 13)), ("test", range(13, 15))):
        save_pairs(tmp_path, f"{place}/A/{{k}}.png", f"{place}/B/{{k}}.png", numbers)
    save(tmp_path / "preview.png", uniform(1))
    train, test, whole = (load("pairs", path=str(tmp_path), split=s) for s in ("train", "test", "all"))
    assert sorted(b for _, b in levels(train)) == list(range(10))
    assert sorted(b for _, b in levels(test)) == [13, 14]
    assert len(whole) == 15
    assert has_note(train, "3 pairs are in neither, but in valid/; only split=all takes them")
    assert has_note(train, "left out 1 images that are neither in A/ nor in B/ (such as preview.png)")


def test_no_name_in_common(tmp_path):
    for k in range(4):
        save(tmp_path / f"A/x{k}.png", uniform(0))
        save(tmp_path / f"B/y{k}.png", uniform(0))
    with pytest.raises(LimnerError, match="8 of 8 pictures have no partner"):
        load("pairs", path=str(tmp_path))


def test_files_of_different_kinds(tmp_path):
    """Grey sources and coloured targets of other sizes; 16 bits, CMYK, transparency."""
    for k in range(4):
        save(tmp_path / f"A/{k}.png", uniform(100, (32, 32), "L"))
        save(tmp_path / f"B/{k}.png", uniform(50))
    save(tmp_path / "A/deep.png", Image.fromarray(np.full((SIDE, SIDE), 200 * 257, dtype=np.uint16)))
    save(tmp_path / "B/deep.jpg", Image.new("CMYK", (SIDE, SIDE), (0, 0, 0, 0)))
    save(tmp_path / "A/clear.png", Image.new("LA", (SIDE, SIDE), (0, 0)))
    save(tmp_path / "B/clear.png", Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0)))
    pairs = load("pairs", path=str(tmp_path))
    assert (pairs.source, pairs.shape) == ((1, SIDE, SIDE), (3, SIDE, SIDE))
    a, b = pairs.pairs(range(6))
    assert [round(float(x.mean() + 1) * 127.5) for x in a] == [100] * 4 + [255, 200]  # clear and deep come last
    assert [round(float(x.mean() + 1) * 127.5) for x in b] == [50] * 4 + [255, 255]
    assert has_note(pairs, "targets: 1 of 6 images have transparency: laid over white")
    colour = load("pairs", path=str(tmp_path), source_channels=3, channels=1, size=8)
    assert (colour.source, colour.shape) == ((3, 8, 8), (1, 8, 8))


def test_mixed_channels_become_rgb(tmp_path):
    save_pairs(tmp_path, "A/{k}.png", "B/{k}.png", range(3))
    save(tmp_path / "A/grey.png", uniform(90, mode="L"))
    save(tmp_path / "B/grey.png", uniform(90))
    pairs = load("pairs", path=str(tmp_path))
    assert pairs.source == (3, SIDE, SIDE)
    assert has_note(pairs, "sources: 1 of 4 images are grey")


def test_different_proportions_are_noted(tmp_path):
    save_pairs(tmp_path, "A/{k}.png", "B/{k}.png", range(3))
    save(tmp_path / "A/wide.png", uniform(1, (32, 16)))
    save(tmp_path / "B/wide.png", uniform(1))
    assert has_note(load("pairs", path=str(tmp_path)), "1 pairs have images of unlike proportions")


@pytest.mark.parametrize("cache", [False, True])
def test_a_damaged_file_takes_its_partner_with_it(tmp_path, cache):
    save_pairs(tmp_path, "A/{k}.png", "B/{k}.png", range(8))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    save(tmp_path / "B/3.png", noise)
    whole = (tmp_path / "B/3.png").read_bytes()
    (tmp_path / "B/3.png").write_bytes(whole[: len(whole) // 2])  # the header is good
    (tmp_path / "A/5.png").write_bytes(b"no picture")
    pairs = load("pairs", path=str(tmp_path), cache=cache)
    assert len(pairs) == (6 if cache else 7)
    assert all(a == b + 100 for a, b in levels(pairs)), "both images of a pair are replaced"
    assert {p for p, _ in pairs.quarantine} == {"A/5.png", "B/5.png", "B/3.png"}


def test_pairs_from_files_are_those_in_memory(tmp_path, paint):
    for k in range(6):
        save(tmp_path / f"A/{k}.png", paint(k, (20, 30)))
        save(tmp_path / f"B/{k}.png", paint(50 + k, (20, 30)))
    in_memory, lazy = (load("pairs", path=str(tmp_path), size=16, cache=cache) for cache in (True, False))
    assert in_memory.stacked.pixels is not None
    assert lazy.stacked.pixels is None
    assert torch.equal(in_memory.stacked.fetch(range(6)), lazy.stacked.fetch(range(6)))
    sent = ForkingPickler.loads(ForkingPickler.dumps(lazy.stacked))
    assert torch.equal(sent.fetch([4]), in_memory.stacked.fetch([4]))
    assert has_note(lazy, "read from files while training")
    prints = [load("pairs", path=str(tmp_path), **o).fingerprint for o in ({}, {"swap": True}, {"size": 8})]
    assert len(set(prints)) == 3


@pytest.mark.parametrize("name", ["pairs", "domains"])
def test_both_splits_read_each_header_once(tmp_path, monkeypatch, name):
    reads, read = [], decode.header

    def counted(stream):
        reads.append(1)
        return read(stream)

    monkeypatch.setattr(decode, "header", counted)
    for k in range(20):
        save(tmp_path / f"A/{k}.png", uniform(k, mode="L"))
        save(tmp_path / f"B/{k}.png", uniform(k))
    train, test = (load(name, path=str(tmp_path), split=split) for split in ("train", "test"))
    assert train.shape == test.shape == (3, SIDE, SIDE)
    assert len(reads) == 40


def test_what_is_held_out_depends_on_the_name_alone(tmp_path):
    save_pairs(tmp_path, "A/{k}.png", "B/{k}.png", range(40))
    test = load("pairs", path=str(tmp_path), split="test")
    assert has_note(test, "of 40 pairs are held out by a hash of their path")
    again = load("pairs", path=str(tmp_path), split="test", swap=True)
    assert sorted(levels(again)) == sorted((b, a) for a, b in levels(test))
    limited = load("pairs", path=str(tmp_path), limit=5)
    assert len(limited) == 5


@pytest.mark.parametrize("path", ["folder", "digits"])
def test_a_task_makes_pairs_of_any_pictures(folder_of, path):
    where = str(folder_of(*(f"{k}.png" for k in range(6)))) if path == "folder" else path
    pairs = load("pairs", path=where, task="upscale", amount=2, size=16, limit=6)
    assert pairs.pairing == {"name": "upscale", "amount": 2}
    assert pairs.source == pairs.shape
    a, b = pairs.pairs(range(4))
    assert (a - b).abs().mean() > 0.01


def test_the_names_of_tasks_are_declared():
    assert typing.get_args(TaskName) == degradations.NAMES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "digits"}, "write task=colourise, upscale"),
        ({"path": "digits", "amount": 3}, "amount belongs to a task"),
        ({"path": "digits", "task": "upscale", "swap": True}, "leave swap, source_channels and layout out"),
        ({"path": "ring", "task": "upscale"}, "ring gives points"),
        ({"path": "facades128", "task": "upscale"}, "facades128 gives pairs"),
        ({"path": "digits", "task": "colourise"}, "colour pictures"),
        ({"path": "no/such/folder"}, "there is no folder"),
        ({"path": "A", "only": ["x"]}, "pairs have no classes"),
        ({"path": "A", "binarise": "static"}, "pairs are not binarised"),
    ],
)
def test_bad_requests_are_one_clear_line(options, message):
    with pytest.raises(LimnerError) as caught:
        load("pairs", **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- domains ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "folders", [("trainA", "trainB", "testA", "testB"), ("A", "B"), ("A/train", "B/train", "A/test", "B/test")]
)
def test_domains(tmp_path, folders):
    counts = (12, 15, 3, 4)
    for place, n in zip(folders, counts):
        for k in range(n):
            save(tmp_path / f"{place}/{k}.png", uniform(200 if "B" in place else 20))
    train, test = (load("domains", path=str(tmp_path), split=s) for s in ("train", "test"))
    assert isinstance(train, Dataset)
    assert isinstance(train, DomainSet)
    assert not train.known
    assert train.a.pixels.unique().tolist() == [20]
    assert train.b.pixels.unique().tolist() == [200]
    if len(folders) == 4:
        assert [len(x) for x in (train.a, train.b, test.a, test.b)] == list(counts)
    else:
        assert len(train.a) + len(test.a) == 12
    assert any(note.startswith("a: ") for note in train.notes)


def test_two_folders_get_one_shape(tmp_path):
    for k in range(4):
        save(tmp_path / f"sketches/{k}.png", uniform(20, (40, 40), "L"))
        save(tmp_path / f"photos/{k}.png", uniform(200, (24, 32)))
    two = load("domains", a=str(tmp_path / "sketches"), b=str(tmp_path / "photos"), flip=True)
    assert two.a.shape == two.b.shape == (3, 32, 24)
    assert two.name == "sketches and photos"
    assert has_note(two, "both domains at 32x24 with 3 channels")
    assert len(two.b.augment) == 1
    named = load("domains", a="digits", b=str(tmp_path / "sketches"), size=16)
    assert named.shape == (1, 16, 16)
    a, b = next(Stream(named, 4, 0))
    assert a.shape == b.shape == (4, 1, 16, 16)


def test_files_without_a_side_and_bad_files_of_domains(tmp_path):
    for k in range(12):
        save(tmp_path / f"trainA/{k}.png", uniform(20))
        save(tmp_path / f"trainB/{k}.png", uniform(20))
    save(tmp_path / "preview.png", uniform(1))
    (tmp_path / "trainB/bad.png").write_bytes(b"no picture")
    train = load("domains", path=str(tmp_path), split="all")
    assert (len(train.a), len(train.b)) == (12, 12)
    assert [p for p, _ in train.quarantine] == ["train/bad.png"]
    assert has_note(train, "neither in A/ nor in B/ (such as preview.png)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "domains needs two sets"),
        ({"a": "digits"}, "domains needs two sets"),
        ({"path": "x", "a": "digits"}, "path has both domains already"),
        ({"path": "digits"}, "digits is one domain"),
        ({"a": "digits", "b": "ring"}, "ring gives points"),
    ],
)
def test_bad_domains_are_one_clear_line(options, message):
    with pytest.raises(LimnerError, match=message):
        load("domains", **options)


def test_a_folder_with_one_domain(folder_of):
    with pytest.raises(LimnerError, match="no two domains: put them into A/ and B/"):
        load("domains", path=str(folder_of("cats/1.png", "cats/2.png")))


# --- named sets ------------------------------------------------------------------------------------


@pytest.fixture
def local_data(monkeypatch, tmp_path):
    """An empty LIMNER_DATA, an empty cache and no network."""
    monkeypatch.setenv("LIMNER_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own").mkdir()
    for name, remote in download.REMOTES.items():
        monkeypatch.setitem(download.REMOTES, name, replace(remote, mirrors=("http://127.0.0.1:9/",)))
    return tmp_path / "own"


def test_kinds_of_batch_of_each_source():
    kinds = {name: list(build.gives) for name, build in SOURCES.items()}
    assert kinds["folder"] == kinds["mnist-5k"] == ["images", "mismatched"]
    assert all(kinds[name] == ["pairs"] for name in ("pairs", "facades128", "facades", "maps"))
    assert all(kinds[name] == ["domains"] for name in ("domains", "emoji", "horse2zebra", "monet2photo"))
    assert kinds["openmoji"][:2] == ["pairs", "images"]
    assert kinds["ring"] == ["points"]


def test_facades128_says_which_folder_must_have_it(local_data):
    with pytest.raises(LimnerError) as caught:
        load("facades128")
    assert "set LIMNER_DATA to the folder that has facades128.zip, or take facades" in str(caught.value)
    save_pairs(local_data, "facades128/A/train/{k}.png", "facades128/B/train/{k}.png", range(4))
    save_pairs(local_data, "facades128/A/test/{k}.png", "facades128/B/test/{k}.png", range(4, 6))
    assert levels(load("facades128", split="test")) == [(104, 4), (105, 5)]
    description = limner.data.get("facades128")
    assert (description["gives"], description["images"], description["held_out"]) == ("pairs", 6, 2)


def test_facades_are_label_map_to_photograph_from_either_publication(local_data):
    """In both publications the photograph is A."""
    for k in range(3):
        for split in ("train", "test"):
            save(local_data / f"facades/{split}A/{k}_A.jpg", uniform(k))
            save(local_data / f"facades/{split}B/{k}_B.jpg", uniform(100 + k))
    assert levels(load("facades")) == [(100, 0), (101, 1), (102, 2)]
    assert levels(load("facades", swap=True)) == [(0, 100), (1, 101), (2, 102)]
    shutil.rmtree(local_data / "facades")
    tar_of(local_data / "facades.tar.gz", [f"facades/{s}/{k}.png" for s in ("train", "test", "val") for k in range(3)])
    assert levels(load("facades")) == [(100, 0), (101, 1), (102, 2)]
    assert len(list((local_data.parent / "cache/facades").iterdir())) == 1
    raw = (local_data / "facades.tar.gz").read_bytes()
    (local_data / "facades.tar.gz").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(LimnerError, match=r"facades\.tar\.gz is damaged"):
        load("facades")
    assert len(list((local_data.parent / "cache/facades").iterdir())) == 1, "no incomplete file remains"


def tar_of(path: Path, names: list[str], *more: tarfile.TarInfo) -> None:
    """Joined images, photograph k beside map 100 + k, and other members."""
    with tarfile.open(path, "w:gz") as archive:
        for k, name in enumerate(names):
            whole, raw = Image.new("RGB", (2 * SIDE, SIDE), (k % 3,) * 3), io.BytesIO()
            whole.paste(uniform(100 + k % 3), (SIDE, 0))
            whole.save(raw, "PNG")
            info = tarfile.TarInfo(name)
            info.size = len(raw.getvalue())
            archive.addfile(info, io.BytesIO(raw.getvalue()))
        for info in more:
            archive.addfile(info, io.BytesIO(bytes(info.size)))


def test_a_hostile_tar_writes_nothing_elsewhere(local_data, tmp_path):
    link = tarfile.TarInfo("maps/train/link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tar_of(local_data / "maps.tar.gz", [f"maps/train/{k}.png" for k in range(3)], link)
    assert len(load("maps")) == 3
    tar_of(local_data / "maps.tar.gz", [f"maps/train/{k}.png" for k in range(3)] + ["../../evil.png"])
    with pytest.raises(LimnerError, match="leads out of the archive"):
        load("maps")
    assert not list(tmp_path.rglob("evil*"))


def test_cyclegan_sets_are_read_in_place(local_data):
    (local_data / "horse2zebra").mkdir()
    with zipfile.ZipFile(local_data / "horse2zebra/horse2zebra.zip", "w") as z:
        for side, level in (("A", 20), ("B", 200)):
            for k in range(3):
                raw = io.BytesIO()
                uniform(level).save(raw, "JPEG", quality=100)
                z.writestr(f"horse2zebra/train{side}/{k}.jpg", raw.getvalue())
                z.writestr(f"horse2zebra/test{side}/{k}.jpg", raw.getvalue())
    two = load("horse2zebra", split="test")
    assert (two.name, len(two.a), len(two.b)) == ("horse2zebra", 3, 3)
    assert two.a.pixels.float().mean() < 30 < 190 < two.b.pixels.float().mean()


@pytest.mark.parametrize("name", ["facades", "maps", "horse2zebra", "summer2winter", "monet2photo"])
def test_without_a_network_the_message_says_what_to_do(local_data, name):
    with pytest.raises(LimnerError) as caught:
        load(name)
    file, sum_ = next(iter(download.REMOTES[name].sha256.items()))
    assert f"sha256 {sum_}" in str(caught.value)
    assert f"put it there as {name}/{file}" in str(caught.value)


def test_check_takes_a_folder_of_pairs(tmp_path, paint):
    for k in range(4):
        save(tmp_path / f"A/{k}.png", paint(k))
        save(tmp_path / f"B/{k}.png", paint(50 + k))
    report = limner.data.check(tmp_path)
    assert report.images == 8
    assert report.classes == {"A": 4, "B": 4}
    assert report.layout[-1] == "as pairs: 4 in A/ and B/, 0 images without a partner"
    save(tmp_path / "A/x.png", paint(99))
    save(tmp_path / "preview.png", paint(98))
    assert limner.data.check(tmp_path).layout[-1].endswith("1 images without a partner (such as A/x.png)")


def test_the_real_facades(shared, monkeypatch):
    monkeypatch.setenv("LIMNER_DATA", str(shared("facades128.zip").parent))
    train, test = load("facades128", flip=True), load("facades128", split="test")
    assert (len(train), len(test)) == (400, 100)
    assert (train.source, train.shape, train.name) == ((3, 128, 128), (3, 128, 128), "facades128")
    maps, photographs = (torch.cat([x.flatten(1) for x in side], 1).mean(1) for side in test.pairs(range(20)))
    assert maps[2] > maps[0] + 0.5, "label maps are mostly blue"
    assert photographs[2] < photographs[0]
