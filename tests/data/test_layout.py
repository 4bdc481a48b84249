"""Which images are trained on, which are held out, which are left out, and of which class they are."""

from __future__ import annotations

import doctest
import json
import random

import numpy as np
import pytest

from limner.core.errors import LimnerError
from limner.data.files import layout, splits
from limner.data.files.layout import natural_order, read_layout


def numbered(*places: str, n: int = 12) -> list[str]:
    """Paths of `n` images in each folder, sorted as a store sorts them."""
    return sorted(
        f"{place}{'/' if place else ''}{place.replace('/', '-')}{i:02}.png" for place in places for i in range(n)
    )


def parts(
    names: list[str], metadata: bytes | None = None, reading: int = 2
) -> tuple[set[str], set[str], layout.Layout]:
    """The folders of training images and of held-out images, and the layout."""
    found = read_layout("set", names, metadata, reading)

    def folders(mask):
        return {names[i].rpartition("/")[0] for i in np.flatnonzero(mask)}

    return folders(found.train), folders(found.test), found


CATS_DOGS = ["cats", "dogs"]
TABLE = {
    "roboflow": (
        ["train/cats", "train/dogs", "valid/cats", "valid/dogs", "test/cats", "test/dogs"],
        {"train/cats", "train/dogs"},
        {"test/cats", "test/dogs"},
        CATS_DOGS,
        "24 images are in neither, but in valid/",
    ),
    "any case": (
        ["Train/cats", "Train/dogs", "TEST/cats", "TEST/dogs"],
        {"Train/cats", "Train/dogs"},
        {"TEST/cats", "TEST/dogs"},
        CATS_DOGS,
        "folders Train/ and TEST/: 24 images to train on, 24 to test on",
    ),
    "a word in front": (
        ["seg_train/seg_train/a", "seg_train/seg_train/b", "seg_test/seg_test/a", "seg_test/seg_test/b", "seg_pred"],
        {"seg_train/seg_train/a", "seg_train/seg_train/b"},
        {"seg_test/seg_test/a", "seg_test/seg_test/b"},
        ["a", "b"],
        "left out 12 files that lie beside these folders (seg_pred/ 12)",
    ),
    "two words in front": (
        ["cats_train", "dogs_train", "cats-Test", "dogs-Test"],
        {"cats_train", "dogs_train"},
        {"cats-Test", "dogs-Test"},
        ["cats", "dogs"],
        "24 images to train on, 24 to test on",
    ),
    "short numbers behind": (
        ["train_1/a", "train_1/b", "train_2/a", "test_1/b"],
        {"train_1/a", "train_1/b", "train_2/a"},
        {"test_1/b"},
        ["a", "b"],
        "folders train_1/ and train_2/ and test_1/",
    ),
    "classes of that name": (
        ["bullet-train", "steam-train", "crash-test"],
        {"bullet-train", "steam-train", "crash-test"},
        {"bullet-train", "steam-train", "crash-test"},
        ["bullet-train", "crash-test", "steam-train"],
        "no test folder",
    ),
    "only valid": (
        ["train/a", "train/b", "valid/a", "valid/b"],
        {"train/a", "train/b"},
        {"valid/a", "valid/b"},
        ["a", "b"],
        "folders train/ and valid/",
    ),
    "long names": (
        ["training", "validation", "testing"],
        {"training"},
        {"testing"},
        None,
        "12 images are in neither, but in validation/",
    ),
    "dev": (["train", "dev"], {"train"}, {"dev"}, None, "folders train/ and dev/"),
    "COCO": (["train2017", "val2017", "test2017"], {"train2017"}, {"test2017"}, None, "val2017/"),
    "Kaggle, twice": (
        [
            "training_set/training_set/cats",
            "training_set/training_set/dogs",
            "test_set/test_set/cats",
            "test_set/test_set/dogs",
        ],
        {"training_set/training_set/cats", "training_set/training_set/dogs"},
        {"test_set/test_set/cats", "test_set/test_set/dogs"},
        CATS_DOGS,
        "folders training_set/ and test_set/",
    ),
    "a folder around everything": (
        ["my/set/train/a", "my/set/train/b", "my/set/val/a"],
        {"my/set/train/a", "my/set/train/b"},
        {"my/set/val/a"},
        ["a", "b"],
        "",
    ),
    "a folder around the classes of a split": (
        ["train/images/a", "train/images/b", "test/images/a"],
        {"train/images/a", "train/images/b"},
        {"test/images/a"},
        ["a", "b"],
        "",
    ),
    "split inside of the class": (
        ["cats/train", "cats/test", "dogs/train", "dogs/test"],
        {"cats/train", "dogs/train"},
        {"cats/test", "dogs/test"},
        CATS_DOGS,
        "",
    ),
    "split inside of some of the classes": (
        ["cats/train", "cats/test", "dogs"],
        {"cats/train"},
        {"cats/test"},
        None,
        "left out 12 files that lie beside these folders (dogs/ 12)",
    ),
    "a class that is called train": (
        ["bus", "car", "train"],
        {"bus", "car", "train"},
        {"bus", "car", "train"},
        ["bus", "car", "train"],
        "train/ lies among 3 folders without a test folder: taken as a class",
    ),
    "the same class in splits": (
        ["train/bus", "train/train", "test/bus", "test/train"],
        {"train/bus", "train/train"},
        {"test/bus", "test/train"},
        ["bus", "train"],
        "",
    ),
    "something beside the splits": (
        ["train/a", "train/b", "test/a", "masks/a"],
        {"train/a", "train/b"},
        {"test/a"},
        ["a", "b"],
        "left out 12 files that lie beside these folders (masks/ 12)",
    ),
    "unlabelled beside train": (
        ["train/a", "train/b", "unlabeled", "extra"],
        {"train/a", "train/b"},
        {"train/a", "train/b"},
        ["a", "b"],
        "left out 24 files",
    ),
    "one other folder": (
        ["train", "others"],
        {"train"},
        {"train"},
        None,
        "left out 12 files that lie beside these folders (others/ 12)",
    ),
    "classes alone": (["b", "a"], {"a", "b"}, {"a", "b"}, ["a", "b"], "numbers of the classes: 0 a, 1 b"),
    "MVTec": (
        ["bottle/train/good", "bottle/test/good", "bottle/test/broken", "bottle/ground_truth/broken"],
        {"bottle/train/good"},
        {"bottle/test/good", "bottle/test/broken"},
        ["broken", "good"],
        "(ground_truth/ 12)",
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_folders(case):
    folders, train, test, classes, note = TABLE[case]
    found_train, found_test, found = parts(numbered(*folders, n=120 if train == test else 12))
    assert (found_train, found_test, found.classes) == (train, test, classes)
    if train != test:
        assert not (found.train & found.test).any()
    note = note.replace("12", "120").replace("24", "240") if train == test else note
    assert any(note in n for n in found.notes), found.notes


@pytest.mark.parametrize("place", ["", "my/"])
def test_a_picture_at_the_top_destroys_neither_splits_nor_classes(place):
    splits_ = [place + p for p in numbered("train/a", "train/b", "test/a", "test/b")]
    train, test, found = parts(sorted([*splits_, "preview.png"]))
    assert train == {f"{place}train/a", f"{place}train/b"}
    assert test == {f"{place}test/a", f"{place}test/b"}
    assert found.classes == ["a", "b"]
    assert list(found.left_out.values()) == [splits.BESIDE_SPLITS]
    assert any("left out 1 files" in note and "preview.png" in note for note in found.notes)
    assert found.mask("all").sum() == 48


@pytest.mark.parametrize("place", ["", "train/"])
def test_a_picture_beside_the_classes_is_left_out(place):
    names = sorted([*(place + p for p in numbered("a", "b")), f"{place}overview.jpg"])
    _, _, found = parts(names)
    assert found.classes == ["a", "b"]
    (index,) = found.left_out
    assert names[index] == f"{place}overview.jpg"
    assert found.labels[index] == -1
    assert not found.train[index]
    assert not found.test[index]
    assert any(f"beside the class folders (such as {place}overview.jpg)" in note for note in found.notes)


def test_one_deeper_picture_is_of_the_class_of_its_first_folder():
    names = sorted([*numbered("a", "b"), "a/old/x.png"])
    _, _, found = parts(names)
    assert found.classes == ["a", "b"]
    assert found.labels[names.index("a/old/x.png")] == 0


def test_many_pictures_at_the_top_are_one_set():
    _, _, found = parts(numbered("", "a", "b"))
    assert found.classes is None
    assert not found.left_out


def test_held_out_images_without_a_class_are_left_out_and_others_held_out():
    """ImageNet's val/ is flat."""
    _, test, found = parts(numbered("train/a", "train/b") + numbered("val", n=3))
    assert found.classes == ["a", "b"]
    assert test <= {"train/a", "train/b"}
    assert test
    assert found.mask("all").sum() == 24


def test_no_part_to_test_on_is_trained_on():
    """Of 300 random trees of folders, with pictures beside them and with folders around."""
    rng = random.Random(0)
    tops = [*splits.WORDS, "TEST", "Train", "val2017", "cats", "10", "2", "masks", "a"]
    below = [
        [""],
        ["cats", "dogs"],
        ["train", "test"],
        ["images"],
        ["Training", "dev"],
        ["images/a", "images/b"],
        ["", "x"],
    ]
    for _ in range(300):
        style, around = rng.choice(below), rng.choice(["", "", "my/", "my/set/"])
        folders = [f"{top}/{sub}".strip("/") for top in rng.sample(tops, rng.randint(1, 5)) for sub in style]
        names = [f"{around}{name}" for name in numbered(*folders, n=rng.randint(3, 30))]
        names = sorted([*names, *(f"{around}stray{k}.png" for k in range(rng.choice([0, 0, 1, 2])))])
        found = read_layout("set", names, None)
        left_out = np.isin(np.arange(len(names)), list(found.left_out))
        assert not (left_out & (found.train | found.test)).any()
        assert not (found.train & found.test).any() or (found.train == found.test).all()
        if found.labels is not None:
            assert (found.labels[~left_out] >= 0).all()
        roles = [{splits.split_of(part) for part in name.split("/")[:-1]} for name in names]
        if any(splits.TRAIN in role for role in roles):
            held_out = [bool(role & {splits.VALID, splits.TEST}) and splits.TRAIN not in role for role in roles]
            assert not (found.train & held_out).any(), names


def test_nothing_to_train_on_is_said(folder_of):
    from limner.data import load

    photos = folder_of(*(f"{p}/{k}.png" for p in ("valid/a", "test/a") for k in range(4)))
    with pytest.raises(LimnerError, match=r"nothing to train on .* name a folder train/"):
        load(photos)
    assert len(load(photos, split="test")) == 4


def test_the_held_out_share_without_splits_is_what_it_was():
    """The first ten of 200 paths that limner 0.1 held out, by the SHA-256 of the path."""
    names = [f"{i:03}.png" for i in range(200)]
    new, old = (read_layout("set", names, None, reading) for reading in (2, 1))
    assert np.array_equal(new.test, old.test)
    assert np.array_equal(new.test, parts([f"photos/{n}" for n in names])[2].test)


def test_the_first_reading_is_kept():
    assert parts(numbered("Train", "Test"), reading=1)[2].classes == ["Test", "Train"]
    names = numbered("0", "1", "2", "10")
    assert parts(names, reading=1)[2].classes == ["0", "1", "10", "2"]
    assert parts(names)[2].classes == ["0", "1", "2", "10"]
    assert parts(sorted([*numbered("a", "b"), "x.png"]), reading=1)[2].classes is None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "2", "1"], ["1", "2", "10"]),
        (["-10", "-2", "0", "0.25", "0.5", "3"], ["-10", "-2", "0", "0.25", "0.5", "3"]),
        (["img10", "img9", "IMG1"], ["IMG1", "img9", "img10"]),
        (["v1.10", "v1.9"], ["v1.9", "v1.10"]),
        (["007", "7", "8"], ["007", "7", "8"]),
        (["b", "a", "1"], ["1", "a", "b"]),
        (["9" * 400, "8"], ["8", "9" * 400]),
        (["²", "2"], ["2", "²"]),
    ],
)
def test_natural_order(names, expected):
    assert natural_order(names) == expected


def test_labels_of_a_folder_around_everything():
    table = {"labels": [["00000/0.png", 2], ["./00000/1.png", 10], ["00000\\2.png", 2]]}
    names = [f"my/set/00000/{k}.png" for k in range(3)]
    found = read_layout("set", names, json.dumps(table).encode())
    assert found.classes == ["2", "10"]
    assert found.labels.tolist() == [0, 1, 0]
    with pytest.raises(LimnerError, match=r"no whole number for 'my/set/00000/3\.png'"):
        read_layout("set", [*names, "my/set/00000/3.png"], json.dumps(table).encode())


def test_a_picture_beside_a_folder_with_labels_is_left_out():
    table = {"labels": [[f"{k}.png", k % 2] for k in range(20)]}
    names = [*(f"my/{k}.png" for k in range(20)), "preview.png"]
    found = read_layout("set", names, json.dumps(table).encode())
    assert found.classes == ["0", "1"]
    assert found.left_out == {20: layout.BESIDE_CLASSES}
    assert "left out 1 images beside them (such as preview.png)" in found.notes[0]


def test_names_that_differ_only_in_case_are_said():
    _, _, found = parts(numbered("train/Cats", "train/dogs", "test/cats"))
    assert any("differ only in their case" in note for note in found.notes)


def test_two_forms_of_one_character_are_one_class():
    """macOS writes é as e and an accent."""
    _, _, found = parts(sorted([*numbered("train/caf\u00e9", "train/bar", "test/cafe\u0301")]))
    assert found.classes == ["bar", "caf\u00e9"]
    table = json.dumps({"labels": [["cafe\u0301/1.png", 4]]}).encode()
    assert read_layout("set", ["caf\u00e9/1.png"], table).classes == ["4"]


def test_classes_without_an_image_to_train_on_are_said():
    _, _, found = parts(numbered("train/good", "test/good", "test/broken"))
    assert found.classes == ["broken", "good"]
    assert "classes without an image to train on: broken" in found.notes


@pytest.mark.parametrize("module", [splits, layout])
def test_examples(module):
    assert doctest.testmod(module).failed == 0
