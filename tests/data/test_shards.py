"""Hugging Face data sets on the disk, Parquet files and WebDataset tars: images and classes as they were written."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limner.core.errors import LimnerError
from limner.core.stream import Stream
from limner.data import check, load
from limner.data.files import shards

NAMES = ["cat", "ant", "10"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pictures(n: int = 24) -> list[np.ndarray]:
    return list(np.random.default_rng(3).integers(0, 256, (n, 9, 7, 3), dtype=np.uint8))


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def hugging_face(images: list[np.ndarray], names: list[str] | None = NAMES):
    """A data set of the library `datasets`, which is the independent reader of these tests."""
    datasets = pytest.importorskip("datasets")
    kind = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    rows = [{"image": {"bytes": png(x), "path": f"{i}.png"}, "label": i % 3} for i, x in enumerate(images)]
    return datasets.Dataset.from_list(rows, features=features)


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def web_data(images: list[np.ndarray], first: int = 0) -> dict[str, bytes]:
    """The members of a WebDataset shard."""
    members = {}
    for i, x in enumerate(images, first):
        members |= {f"{i:04}.png": png(x), f"{i:04}.cls": str(i % 12).encode(), f"{i:04}.txt": b"a caption"}
    return members


def assert_holds(dataset, images, labels) -> None:
    assert np.array_equal(dataset.fetch(range(len(dataset))).numpy(), np.stack(images).transpose(0, 3, 1, 2))
    assert dataset.labels.tolist() == labels


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_hugging_face_set_on_the_disk(tmp_path, parts, in_memory):
    theirs = hugging_face(pictures())
    theirs.save_to_disk(tmp_path / "set", num_shards=parts)
    ours = load(tmp_path / "set", split="all", cache=in_memory)
    assert ours.classes == NAMES, "in the order of the features"
    assert_holds(ours, [np.asarray(row["image"]) for row in theirs], theirs["label"])


def test_the_splits_of_a_hugging_face_set(tmp_path):
    datasets = pytest.importorskip("datasets")
    images = pictures()
    theirs = hugging_face(images)
    parts = {"train": theirs.select(range(16)), "validation": theirs.select(range(16, 24))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    for split, name in (("train", "train"), ("test", "validation")):
        assert_holds(
            load(tmp_path / "set", split=split), [np.asarray(r["image"]) for r in parts[name]], parts[name]["label"]
        )
    assert len(load(tmp_path / "set", split="all")) == 24


def test_parquet_shards_with_splits_in_their_names(tmp_path):
    images = pictures()
    theirs = hugging_face(images)
    (tmp_path / "set/data").mkdir(parents=True)
    for name, rows in {
        "train-00000-of-00002": range(8),
        "train-00001-of-00002": range(8, 16),
        "test-00000-of-00001": range(16, 24),
    }.items():
        theirs.select(rows).to_parquet(tmp_path / f"set/data/{name}.parquet")
    train, test = (load(tmp_path / "set", split=s, cache=False) for s in ("train", "test"))
    assert_holds(train, images[:16], theirs["label"][:16])
    assert_holds(test, images[16:], theirs["label"][16:])
    assert load(tmp_path / "set/data/train-00000-of-00002.parquet", split="all").classes == NAMES


def test_classes_without_names_are_in_the_order_of_their_numbers(tmp_path):
    images = pictures()
    theirs = hugging_face(images, names=None)
    theirs.to_parquet(tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet", split="all").classes == ["0", "1", "2"]
    tars = write_tar(tmp_path / "b.tar", web_data(images))
    assert load(tars, split="all").classes == [str(k) for k in range(12)], "10 and 11 come last"


def test_webdataset_tars(tmp_path):
    images = pictures()
    write_tar(tmp_path / "set/train-000.tar", web_data(images[:10]))
    write_tar(tmp_path / "set/train-001.tar", web_data(images[10:20], 10))
    write_tar(tmp_path / "set/val-000.tar", web_data(images[20:], 20))
    train = load(tmp_path / "set", cache=False)
    assert_holds(train, images[:20], [i % 12 for i in range(20)])
    assert len(load(tmp_path / "set", split="test")) == 4
    assert any(".txt 24" in note for note in train.notes), "what is left out is said"
    report = check(tmp_path / "set")
    assert (report.images, report.bad, len(report.classes or {})) == (24, [], 12)


def test_labels_in_json_and_text(tmp_path):
    members = {}
    for i, x in enumerate(pictures(12)):
        members |= {f"a/{i:02}.png": png(x), f"a/{i:02}.json": json.dumps({"label": ["dog", "ant"][i % 2]}).encode()}
    assert load(write_tar(tmp_path / "x.tar", members), split="all").labels.tolist() == [1, 0] * 6
    members.pop("a/03.json")
    assert load(write_tar(tmp_path / "y.tar", members), split="all").classes is None, "one image has no class"


def test_batches_are_those_of_the_same_images_in_memory(tmp_path):
    path = write_tar(tmp_path / "x.tar", web_data(pictures()))
    streams = [Stream(load(path, cache=cache, flip=True, shift=1), 6, seed=4) for cache in (True, False)]
    for _ in range(9):
        a, b = map(next, streams)
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)


def test_a_shard_is_listed_once_and_again_after_it_has_changed(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "x.tar", web_data(pictures()))
    first = load(path, split="all", cache=False)
    monkeypatch.setitem(shards.FORMATS, ".tar", "a module that does not exist")
    assert load(path, split="all", cache=False).fingerprint == first.fingerprint
    monkeypatch.undo()
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    write_tar(path, web_data(pictures(23)))
    assert len(load(path, split="all")) == 23


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "file"))
    assert len(load(write_tar(tmp_path / "x.tar", web_data(pictures())), split="all")) == 24
    hugging_face(pictures()).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(LimnerError, match=r"a\.parquet cannot be unpacked into limner's cache .*; set LIMNER_CACHE"):
        load(tmp_path / "a.parquet")


def special(kind: bytes, name: str = "0001.png", target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (special(tarfile.SYMTYPE, target="/etc/passwd"), "contains the link '0001.png'"),
        (special(tarfile.LNKTYPE, target="x.png"), "contains the link"),
        (special(tarfile.FIFOTYPE), "a device or a sparse file"),
        (special(tarfile.REGTYPE, "../0001.png"), "leads out of the archive"),
        (special(tarfile.REGTYPE, "/tmp/0001.png"), "leads out of the archive"),
    ],
)
def test_hostile_tars_are_refused(tmp_path, member, reason):
    path = write_tar(tmp_path / "x.tar", web_data(pictures(4)))
    with tarfile.open(path, "a") as tar:
        tar.addfile(member)
    with pytest.raises(LimnerError, match=reason):
        load(path)


def test_a_tar_that_is_cut_off_gives_what_is_whole(tmp_path):
    path = write_tar(tmp_path / "x.tar", web_data(pictures()))
    raw = path.read_bytes()
    for end in (len(raw) // 2 // 512 * 512, len(raw) // 2 - 700, len(raw) // 2 + 300):
        path.write_bytes(raw[:end])
        dataset = load(path, split="all")
        assert 8 < len(dataset) < 16
        assert any("truncated" in r or "cut off" in r or "damaged" in r for _, r in dataset.quarantine), end


def test_compressed_and_empty_shards_say_what_to_do(tmp_path):
    import gzip

    path = write_tar(tmp_path / "x.tar", web_data(pictures(4)))
    (tmp_path / "y.tar").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(LimnerError, match="it is compressed: unpack it"):
        load(tmp_path / "y.tar")
    (tmp_path / "z.tar").write_bytes(b"no tar" * 300)
    with pytest.raises(LimnerError, match="is not a readable tar"):
        load(tmp_path / "z.tar")


def test_damaged_tables_are_refused_in_one_line(tmp_path):
    theirs = hugging_face(pictures())
    theirs.save_to_disk(tmp_path / "set")
    theirs.to_parquet(tmp_path / "a.parquet")
    (arrow,) = (tmp_path / "set").glob("*.arrow")
    for file in (arrow, tmp_path / "a.parquet"):
        raw = file.read_bytes()
        rng = np.random.default_rng(0)
        for k in range(30):
            damaged = bytearray(raw[: len(raw) // 2] if k == 0 else raw)
            for place in rng.integers(0, len(damaged), 8):
                damaged[place] ^= 0xFF
            file.write_bytes(damaged)
            with contextlib.suppress(LimnerError):  # anything else is a fault
                load(file.parent if file is arrow else file, split="all")
        file.write_bytes(raw)


def test_a_table_without_images_names_its_columns(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a", "b"], "n": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(LimnerError, match=r"has no column of image files \(its columns: text, n\)"):
        load(tmp_path / "a.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    hugging_face(pictures()).to_parquet(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(LimnerError, match=r"need pyarrow.*pip install 'limner\[datasets\]'"):
        load(tmp_path / "a.parquet")


def test_pictures_beside_shards_come_first(tmp_path, folder_of):
    photos = folder_of(*[f"{i}.png" for i in range(4)])
    write_tar(photos / "x.tar", web_data(pictures()))
    dataset = load(photos, split="all")
    assert len(dataset) == 4
    assert any(".tar" in note for note in dataset.notes)


def test_headers_of_a_tar_that_ask_for_memory_are_refused(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"0001.png": png(pictures(1)[0])})
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    path.write_bytes(path.read_bytes()[:1024] + info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    dataset = shards.Shards(path, [path])
    assert len(dataset.names) == 1
    assert "damaged" in dataset.quarantine[0][1]


def test_a_small_parquet_file_cannot_become_a_large_one(tmp_path, monkeypatch):
    """A value that is repeated in the file is written once for each few rows."""
    from limner.data.files import parquet

    monkeypatch.setattr(parquet, "_FLOOR", 1 << 20)
    monkeypatch.setattr(parquet, "_RATIO", 10)
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"image": [png(noise)] * 5000})  # 150 MB of images
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 17
    with pytest.raises(LimnerError, match="unpacks to more than 10 times its size"):
        load(tmp_path / "a.parquet")
    assert not list((tmp_path / "cache").rglob("*.bin"))


def test_rows_without_bytes_are_left_out_and_those_without_a_class_are_said(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    images = [png(x) for x in pictures(12)]

    def written(images: list[bytes | None], labels: list[str | None]) -> Path:
        table = pyarrow.table({"image": pyarrow.array(images, pyarrow.binary()), "label": labels})
        with pyarrow.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
        return tmp_path / "a.arrow"

    names = ["b10", "b9"] * 6
    whole = load(written([None, *images[1:]], [None, *names[1:]]), split="all")
    assert (len(whole), whole.classes) == (11, ["b9", "b10"])
    assert whole.labels.tolist() == [int(n == "b10") for n in names[1:]]
    assert whole.quarantine == [("a.arrow/000000000", "its bytes are not in the file")]
    part = load(written(images, [None, *names[1:]]), split="all")
    assert part.classes is None
    assert part.notes[0] == "found 12 images in 1 shard, without classes: 1 of them have none"


def test_an_arrow_file_that_is_compressed_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"image": [png(x) for x in pictures(4)]})
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
    with pyarrow.ipc.new_stream(tmp_path / "a.arrow", table.schema, options=options) as writer:
        writer.write_table(table)
    with pytest.raises(LimnerError, match="is compressed and cannot be read in place"):
        load(tmp_path / "a.arrow")


def test_unpacked_rows_that_are_lost_are_unpacked_again(tmp_path, cache):
    images = pictures()
    hugging_face(images).to_parquet(tmp_path / "a.parquet")
    for damage in (lambda file: None, lambda file: file.unlink(), lambda file: os.truncate(file, 100)):
        assert_holds(load(tmp_path / "a.parquet", split="all"), images, [i % 3 for i in range(len(images))])
        damage(next((cache / "shards").glob("*.bin")))
    assert_holds(load(tmp_path / "a.parquet", split="all"), images, [i % 3 for i in range(len(images))])
