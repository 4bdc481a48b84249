"""Folders and ZIP files of images: layouts, sizes, channels, unusable files."""

from __future__ import annotations

import errno
import os
import shutil
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from limner.config.spec import Spec
from limner.core.batch import Dataset
from limner.core.errors import LimnerError
from limner.core.stream import Stream
from limner.data import Files, Pixels, load
from limner.data.files import decode, index
from limner.evaluation.subjects import heldout_of


def pickled(dataset):
    """A copy as a data loader worker receives it."""
    return ForkingPickler.loads(ForkingPickler.dumps(dataset))


def has_note(dataset, part: str) -> bool:
    return any(part in note for note in dataset.notes)


def numbered(n: int, prefix: str = "") -> list[str]:
    return [f"{prefix}{i:03}.png" for i in range(n)]


def test_class_folders(folder_of):
    photos = folder_of(*numbered(30, "cat/"), *numbered(12, "dog/"))
    whole = load(photos, split="all")
    assert isinstance(whole, Pixels)
    assert isinstance(whole, Dataset)
    assert whole.shape == (3, 12, 12)
    assert whole.classes == ["cat", "dog"]
    assert whole.labels.bincount().tolist() == [30, 12]
    assert whole.notes[0] == "found 42 images in 2 class folders (cat 30, dog 12)"
    assert whole.paths[0] == "cat/000.png"
    with Image.open(photos / "dog/003.png") as image:
        expected = np.asarray(image).transpose(2, 0, 1)
    assert np.array_equal(whole.fetch([33])[0].numpy(), expected)


def test_a_flat_folder_has_no_classes(folder_of):
    flat = load(folder_of(*numbered(12)))
    assert flat.labels is None
    assert flat.classes is None
    assert has_note(flat, "without classes")


def test_nested_folders_are_one_set(folder_of):
    nested = load(folder_of("2024/may/1.png", "2024/june/2.png", "2025/3.png", "2025/a/b/c/4.png"))
    assert nested.classes is None
    assert has_note(nested, "nested folders, taken as one set")


def test_folders_that_all_images_share_are_skipped(folder_of):
    assert load(folder_of(*numbered(6, "photos/a/"), *numbered(6, "photos/b/"))).classes == ["a", "b"]


def test_train_and_test_folders_are_splits(folder_of):
    photos = folder_of(*numbered(6, "train/a/"), *numbered(5, "train/b/"), *numbered(2, "test/a/"), "test/b/1.png")
    train, test, whole = (load(photos, split=s) for s in ("train", "test", "all"))
    assert [len(d) for d in (train, test, whole)] == [11, 3, 14]
    assert train.classes == test.classes == ["a", "b"]
    assert test.labels.tolist() == [0, 0, 1]
    assert has_note(train, "folders train/ and test/: 11 images to train on, 3 to test on")


def test_val_is_the_test_split_unless_there_is_a_test_folder(folder_of):
    photos = folder_of(*numbered(6, "train/"), *numbered(3, "val/"))
    assert len(load(photos, split="test")) == 3
    both = folder_of(*numbered(6, "train/"), *numbered(3, "val/"), *numbered(2, "test/"), root="both")
    assert len(load(both, split="test")) == 2
    assert len(load(both, split="all")) == 11
    assert has_note(load(both), "3 images are in neither")


def test_the_hold_out_is_stable_and_disjoint(folder_of):
    photos = folder_of(*numbered(200))
    train, test = load(photos), load(photos, split="test")
    assert len(train) + len(test) == 200
    assert 2 <= len(test) <= 22
    assert not set(train.paths) & set(test.paths)
    for gone in train.paths[:20]:
        (photos / gone).unlink()
    assert load(photos, split="test").paths == test.paths


@pytest.mark.parametrize(("n", "train", "test"), [(10, 9, 1), (9, 9, 9)])
def test_small_sets_hold_out_one_or_say_that_they_cannot(folder_of, n, train, test):
    photos = folder_of(*numbered(n))
    assert (len(load(photos)), len(load(photos, split="test"))) == (train, test)
    assert has_note(load(photos), "the test split is the training split") == (n < 10)


def test_mixed_sizes_take_the_common_one(folder_of):
    folder_of(*numbered(7), size=(10, 14))
    mixed = load(folder_of(*numbered(4, "x"), size=(30, 20)), split="all")
    assert mixed.shape == (3, 10, 14)
    assert has_note(
        mixed, "mixed sizes (2 of them): resized and centre-cropped to 10x14, the size that most of them have"
    )


def test_mixed_sizes_without_a_common_one_become_a_square(folder_of, paint):
    photos = folder_of("0.png")
    for i in range(1, 9):
        paint(i, (100 + i, 200 + i)).save(photos / f"{i}.png")
    mixed = load(photos, split="all")
    assert mixed.shape == (3, 64, 64)
    assert has_note(mixed, "mixed sizes (9 of them)")
    assert has_note(mixed, "1 of 9 images are smaller than 64x64 and are enlarged")
    assert load(photos, split="all", size=(16, 24)).shape == (3, 16, 24)


def test_channels_follow_the_images(folder_of, paint):
    grey = folder_of(*numbered(4), mode="L")
    assert load(grey).shape == (1, 12, 12)
    paint(9).save(grey / "colour.png")
    assert load(grey).shape == (3, 12, 12)
    assert has_note(load(grey), "4 of 5 images are grey")
    clear = folder_of(*numbered(4), mode="RGBA", root="clear")
    assert load(clear).shape == (3, 12, 12)
    assert has_note(load(clear), "4 of 4 images have transparency: laid over white (channels: 4 keeps it)")
    assert [load(clear, channels=c).shape[0] for c in (1, 2, 3, 4)] == [1, 2, 3, 4]


def test_unusable_files_are_left_out_and_listed(folder_of):
    photos = folder_of(*numbered(12))
    (photos / "empty.png").write_bytes(b"")
    (photos / "text.jpg").write_text("not a picture")
    (photos / "half.png").write_bytes((photos / "000.png").read_bytes()[:100])
    (photos / "notes.txt").write_text("hello")
    (photos / ".hidden.png").write_bytes(b"")
    found = load(photos, split="all")
    assert len(found) == 12
    reasons = dict(found.quarantine)
    assert reasons["empty.png"] == "empty file"
    assert reasons["text.jpg"] == "not a PNG, JPEG, WebP, AVIF, HEIC, TIFF, BMP, GIF or PPM image"
    assert set(reasons) == {"empty.png", "text.jpg", "half.png"}
    assert has_note(found, "left out 3 bad files: ")
    assert has_note(found, "ignored 1 other files")


def test_too_deep_is_left_out(folder_of):
    deep = load(folder_of(*numbered(12), "/".join("abcdefghijklmnopqrs") + "/x.png"), split="all")
    assert len(deep) == 12
    assert deep.quarantine[0][1] == "more than 16 folders deep"


def test_a_loop_of_links_ends(folder_of):
    photos = folder_of(*numbered(6, "a/"), *numbered(6, "b/"))
    (photos / "a" / "again").symlink_to(photos, target_is_directory=True)
    assert len(load(photos, split="all")) == 12


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_image(folder_of):
    photos = folder_of(*numbered(3))
    os.mkfifo(photos / "pipe.png")
    assert load(photos).quarantine == [("pipe.png", "not a regular file")]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: shutil.rmtree(p), "there is no folder or ZIP"),
        (lambda p: [f.unlink() for f in p.iterdir()], "is empty; put PNG"),
        (lambda p: [f.rename(f.with_suffix(".txt")) for f in p.iterdir()], "has no images, only other files (.txt 4)"),
        (lambda p: [f.unlink() for f in sorted(p.iterdir())[1:]], "has one image and a model needs at least 2"),
        (lambda p: [f.write_bytes(b"") for f in sorted(p.iterdir())[1:]], "3 of 4 images are unusable (3 empty file)"),
    ],
)
def test_unusable_folders_are_one_clear_line(folder_of, spoil, message):
    photos = folder_of(*numbered(4))
    spoil(photos)
    with pytest.raises(LimnerError) as caught:
        load("folder", path=str(photos))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_file_is_no_set(folder_of):
    photos = folder_of("a.png")
    with pytest.raises(LimnerError, match="is one image and a model needs many"):
        load(photos / "a.png")
    (photos / "a.txt").write_text("x")
    with pytest.raises(LimnerError, match="neither a folder nor a ZIP"):
        load(photos / "a.txt")


def test_mostly_damaged_pixels_are_an_error_too(folder_of):
    photos = folder_of(*numbered(10), size=(64, 64))
    for i in range(6):
        file = photos / f"{i:03}.png"
        file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(LimnerError, match="images are unusable"):
        load(photos, split="all")


def test_classes_can_be_selected(folder_of):
    photos = folder_of(*numbered(4, "a/"), *numbered(5, "b/"), *numbered(6, "c/"))
    some = load(photos, split="all", only=["c", "a"])
    assert some.classes == ["a", "c"]
    assert some.labels.bincount().tolist() == [4, 6]
    assert load(photos, split="all", without=["a"]).classes == ["b", "c"]
    assert load(photos, split="all", limit=5).labels.tolist() == [0, 0, 1, 2, 2]
    with pytest.raises(LimnerError, match="unknown class of photos 'd'"):
        load(photos, only=["d"])
    with pytest.raises(LimnerError, match="leave no class"):
        load(photos, without=["a", "b", "c"])


def test_streaming_gives_the_same_images(folder_of):
    photos = folder_of(*numbered(8, "a/"), *numbered(8, "b/"))
    in_memory, streamed = load(photos, split="all"), load(photos, split="all", cache=False)
    assert isinstance(streamed, Files)
    assert isinstance(streamed, Dataset)
    assert streamed.pixels is None
    assert torch.equal(streamed.fetch(range(16)), in_memory.fetch(range(16)))
    assert torch.equal(streamed.labels, in_memory.labels)
    assert has_note(streamed, "read from files while training")
    static = [load(photos, split="all", cache=c, binarise="static").fetch(range(16)) for c in (True, False)]
    assert torch.equal(*static)


def test_large_sets_stream(folder_of, monkeypatch):
    monkeypatch.setattr("limner.data.sources.folder.IN_MEMORY", 12 * 12 * 3 * 10)
    assert isinstance(load(folder_of(*numbered(10)), split="all"), Pixels)
    assert isinstance(load(folder_of(*numbered(11)), split="all"), Files)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_do_not_change_a_batch(folder_of, workers):
    streamed = load(folder_of(*numbered(12)), split="all", cache=False, flip=True, shift=1)
    assert torch.equal(pickled(streamed).fetch([3, 1]), streamed.fetch([3, 1]))
    loader = DataLoader(_Indexed(streamed), batch_size=4, num_workers=workers)
    assert torch.equal(torch.cat(list(loader)), streamed.fetch(range(12)))
    in_memory = load(streamed.store.root, split="all", flip=True, shift=1)
    batches = [next(Stream(d, 8, seed=3, workers=workers)).x for d in (streamed, in_memory)]
    assert torch.equal(*batches)


class _Indexed(torch.utils.data.Dataset):
    def __init__(self, files: Files) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.files.fetch([index])[0]


def test_a_file_damaged_later_is_replaced_by_one_of_its_class(folder_of):
    photos = folder_of(*numbered(3, "a/"), *numbered(3, "b/"))
    streamed = load(photos, split="all", cache=False)
    (photos / "a/002.png").write_bytes(b"")
    x = streamed.fetch([2, 0])
    assert torch.equal(x[0], x[1])  # the next of class a, around the end
    assert streamed.quarantine == [("a/002.png", "empty file")]


@pytest.mark.parametrize("cache", [True, False])
def test_the_fingerprint_follows_content_and_options(folder_of, cache):
    photos = folder_of(*numbered(12))
    first = load(photos, cache=cache).fingerprint
    assert first == load(photos, cache=cache).fingerprint
    assert first != load(photos, cache=cache, flip=True).fingerprint
    (photos / "000.png").write_bytes((photos / "001.png").read_bytes())
    assert first != load(photos, cache=cache).fingerprint


def test_augmentation_is_for_training_only(folder_of):
    photos = folder_of(*numbered(12))
    options = {"flip": True, "shift": 2, "binarise": "dynamic"}
    assert len(load(photos, **options).augment) == 3
    assert len(load(photos, split="test", **options).augment) == 1


@pytest.fixture
def header_reads(monkeypatch):
    """A list that gets an entry whenever the header of an image is read."""
    reads, read = [], decode.header

    def counted(stream):
        reads.append(1)
        return read(stream)

    monkeypatch.setattr(decode, "header", counted)
    return reads


def test_training_and_its_held_out_images_read_each_header_once(folder_of, header_reads):
    photos = folder_of(*(f"{k:02}.jpg" for k in range(40)))
    data = Spec("data", "folder", {"path": str(photos), "split": "train"})
    train, heldout = data.build(), heldout_of(data)
    assert len(train) + len(heldout) == 40
    assert len(header_reads) == 40


@pytest.mark.parametrize("packed", [False, True])
def test_headers_are_read_again_when_a_file_changes(folder_of, paint, header_reads, packed):
    photos = folder_of(*numbered(4), mode="L")
    modified = (photos / "000.png").stat().st_mtime_ns

    def shape_after_saving(mode: str, name: str) -> tuple[int, ...]:
        paint(9, mode=mode).save(photos / name)
        os.utime(photos / name, ns=(modified, modified))
        header_reads.clear()
        return load(shutil.make_archive(str(photos), "zip", photos) if packed else photos, split="all").shape

    assert shape_after_saving("L", "000.png") == (1, 12, 12)
    assert shape_after_saving("RGB", "000.png") == (3, 12, 12)
    assert len(header_reads) == (4 if packed else 1), "of a folder, only the file that has changed"
    assert shape_after_saving("RGBA", "new.png") == (3, 12, 12)
    assert len(header_reads) == (5 if packed else 1)
    (photos / "new.png").unlink()
    assert shape_after_saving("L", "000.png") == (1, 12, 12)
    assert len(header_reads) == (4 if packed else 1)


def test_a_header_that_could_not_be_read_is_tried_again(folder_of, monkeypatch):
    photos, read = folder_of(*numbered(4)), decode.header

    def failing(stream):
        if stream.name.endswith("003.png"):
            raise OSError(errno.EIO, "Input/output error")
        return read(stream)

    monkeypatch.setattr(decode, "header", failing)
    assert load(photos, split="all").quarantine == [("003.png", "cannot be read (Input/output error)")]
    monkeypatch.undo()
    again = load(photos, split="all")
    assert (len(again), again.quarantine) == (4, [])


def test_the_headers_of_two_sets_are_remembered_and_no_more(folder_of, header_reads):
    folders = [folder_of(*numbered(3), root=root) for root in ("a", "b", "c")]
    for photos in (folders[0], folders[1], folders[0], folders[1]):
        load(photos)
    assert len(header_reads) == 6
    for photos in (folders[2], folders[0]):
        load(photos)
    assert len(header_reads) == 12
    assert len(index._RECENT) == 2


def test_folders_of_the_same_name_and_files_are_not_confused(tmp_path, paint, header_reads):
    for parent, mode in (("one", "L"), ("two", "RGB")):
        (tmp_path / parent / "photos").mkdir(parents=True)
        for k in range(3):
            paint(k, mode=mode).save(tmp_path / parent / "photos" / f"{k}.png")
    assert load(tmp_path / "one/photos").shape == (1, 12, 12)
    assert load(tmp_path / "two/photos").shape == (3, 12, 12)
    assert len(header_reads) == 6


def test_flowers(shared):
    flowers = load(shared("flowers64.zip"), split="all", limit=200)
    assert flowers.shape == (3, 64, 64)
    assert flowers.classes == ["daisy", "dandelion", "rose", "sunflower", "tulip"]
    assert flowers.notes[0].startswith("found 4064 images in 5 class folders (daisy 742")
    assert flowers.quarantine == []
    assert flowers.labels.bincount().min() > 20
