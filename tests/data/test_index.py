"""The index of a folder: read once, right after every change, and done without where it cannot be used."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from limner.data import load
from limner.data.files import decode, index, layout_cache
from limner.data.files.index import Index, index_of
from limner.data.files.store import open_store

N = 12


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch) -> Path:
    """Indices also of small sets, of files that were written just now; and a process that remembers none."""
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "FEWEST", 1)
    monkeypatch.setattr(layout_cache, "FEWEST", 1)
    monkeypatch.setattr(index, "FRESH", -1_000_000_000_000)
    monkeypatch.setattr(index, "_RECENT", {})
    return tmp_path / "cache"


@pytest.fixture
def photos(folder_of) -> Path:
    return folder_of(*(f"{'ab'[i % 2]}/{i:03}.png" for i in range(N)))


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The files whose header or checksum is read."""
    names, read = [], decode.header

    def counted(stream):
        names.append(Path(getattr(stream, "name", "")).name)
        return read(stream)

    monkeypatch.setattr(decode, "header", counted)
    return names


def again(path: Path, **options):
    """The same set as a new process finds it."""
    index._RECENT.clear()
    return load(path, split="all", cache=False, **options)


def test_a_second_start_reads_nothing(photos, reads):
    first = again(photos)
    fingerprint = first.fingerprint
    assert len(reads) == N
    reads.clear()
    second = again(photos)
    second.store.open = second.store.stamp = None  # no file is opened, for its checksum neither
    assert second.fingerprint == fingerprint
    assert (second.notes, second.paths, second.shape) == (first.notes, first.paths, first.shape)
    assert reads == []


def test_the_fingerprint_is_that_of_the_files(photos, small, monkeypatch):
    """As limner 0.1 computed it, by reading everything: runs record it."""
    from limner.data.options import Options
    from limner.data.steps import fingerprint, identity

    dataset = again(photos)
    lines = ""
    for path in sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.png")):
        content = (photos / path).read_bytes()
        lines += f"{path}\0{len(content)}\0{zlib.crc32(content):08x}\n"
    prepared = identity(["a", "b"], Options(split="all"))
    assert dataset.fingerprint == fingerprint(prepared, "(3, 12, 12)", lines, dataset.labels.numpy())
    assert again(photos).fingerprint == dataset.fingerprint


def test_only_what_has_changed_is_read_again(photos, reads, paint):
    before = again(photos).fingerprint
    reads.clear()
    paint(70).save(photos / "a/004.png")
    paint(71).save(photos / "b/new.png")
    (photos / "b/005.png").unlink()
    changed = again(photos)
    assert sorted(reads) == ["004.png", "new.png"]
    assert changed.fingerprint != before
    assert changed.fingerprint == _without_index(photos)


def _without_index(photos: Path) -> str:
    for file in (Path(os.environ["LIMNER_CACHE"]) / "index").glob("*"):
        file.unlink()
    return again(photos).fingerprint


def test_a_file_of_the_same_size_and_time_is_another_one(photos):
    before = again(photos).fingerprint
    file = photos / "a/000.png"
    status, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1  # in the checksum of the last chunk
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_mtime_ns == status.st_mtime_ns
    assert again(photos).fingerprint != before


def test_what_was_written_just_now_is_not_trusted_the_next_time(photos, reads, monkeypatch):
    """Within the clock tick of the file system a file may change without another time."""
    monkeypatch.setattr(index, "FRESH", 2_000_000_000)
    again(photos)
    again(photos)
    assert len(reads) == 2 * N


def test_bad_files_are_remembered_but_not_passing_faults(photos, reads, monkeypatch):
    (photos / "a/bad.png").write_bytes(b"no picture")
    assert again(photos).quarantine == again(photos).quarantine
    assert reads.count("bad.png") == 1
    (photos / "a/000.png").chmod(0)
    store = open_store(photos)
    with monkeypatch.context() as patch:
        patch.setattr(type(store), "open", lambda self, name: (_ for _ in ()).throw(PermissionError(13, "denied")))
        assert len(Index(store).headers()[0]) == N - 1, "one has another time now"
    assert len(Index(open_store(photos)).headers()[0]) == N


@pytest.mark.parametrize("damage", ["nothing", "half", "byte", "columns", "text"])
def test_a_damaged_index_is_built_again(photos, small, reads, damage):
    fingerprint = again(photos).fingerprint
    (file,) = (f for f in (small / "index").glob("*.npz") if not f.name.startswith("layout"))
    raw = file.read_bytes()
    if damage == "columns":
        with np.load(file) as columns:
            np.savez(file, **{k: v[:-1] if k == "kind" else v for k, v in columns.items()})
    else:
        middle = len(raw) // 2
        flipped = raw[:middle] + bytes([raw[middle] ^ 255]) + raw[middle + 1 :]
        file.write_bytes({"nothing": b"", "half": raw[:middle], "byte": flipped, "text": b"hello"}[damage])
    reads.clear()
    assert again(photos).fingerprint == fingerprint
    assert len(reads) == N
    assert len(file.read_bytes()) == len(raw)


def test_an_index_of_other_code_is_not_used(photos, reads, monkeypatch):
    again(photos)
    monkeypatch.setattr(index, "reader", lambda: "of another version")
    again(photos)
    assert len(reads) == 2 * N


def test_without_a_cache_that_can_be_written_everything_is_read(photos, tmp_path, monkeypatch, reads):
    fingerprint = again(photos).fingerprint
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "file"))
    assert again(photos).fingerprint == again(photos).fingerprint == fingerprint
    assert len(reads) == 3 * N


def test_nothing_is_written_where_the_pictures_are(photos):
    before = sorted(p for p in photos.rglob("*"))
    _ = again(photos).fingerprint
    assert sorted(p for p in photos.rglob("*")) == before


def test_an_index_that_nobody_needs_any_more_is_removed(photos, small):
    again(photos)
    old = small / "index/old.npz"
    old.write_bytes(b"")
    os.utime(old, (0, time.time() - 200 * 86400))
    (photos / "a/000.png").touch()
    again(photos)
    assert not old.exists()


def _load(path: str, barrier) -> None:
    barrier.wait(60)
    assert len(again(Path(path)).fingerprint) == 64


def test_processes_may_write_at_once(photos, reads):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [context.Process(target=_load, args=(str(photos), barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [p.exitcode for p in processes] == [0] * 4
    again(photos)
    assert reads == [], "one of them has written it, whole"


def test_a_zip_has_an_index_too(photos, tmp_path, reads):
    packed = shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    assert again(Path(packed)).fingerprint == again(Path(packed)).fingerprint
    assert len(reads) == N


def test_the_index_is_shared_by_training_and_held_out_images(photos):
    store = open_store(photos)
    assert index_of(store) is index_of(store)


def test_splits_and_classes_are_kept_too(photos, small, monkeypatch):
    first = [again(photos), load(photos, split="test", cache=False)]
    monkeypatch.setattr(layout_cache, "layout_of", lambda *_: pytest.fail("found out again"))
    second = [again(photos), load(photos, split="test", cache=False)]
    for a, b in zip(first, second):
        assert (a.paths, a.classes, a.notes, a.fingerprint) == (b.paths, b.classes, b.notes, b.fingerprint)
    monkeypatch.undo()
    monkeypatch.setenv("LIMNER_CACHE", str(small))
    monkeypatch.setattr(index, "FEWEST", 1)
    (file,) = (small / "index").glob("layout*.npz")
    file.write_bytes(file.read_bytes()[:50])
    assert again(photos).classes == ["a", "b"]
    (photos / "c").mkdir()
    (photos / "a/000.png").rename(photos / "c/000.png")
    assert again(photos).classes == ["a", "b", "c"]
