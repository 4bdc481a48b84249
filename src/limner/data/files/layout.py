"""Reads splits and classes from the paths of images."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from limner.core.errors import LimnerError
from limner.data.steps import listed

HELD_OUT = 0.05
_TRAIN, _TEST = ("train",), ("test", "val")  # test/ is preferred to val/
_FEWEST = 10  # a set with fewer images has no hold-out


@dataclass
class Layout:
    """Splits and classes of images, in the order of their paths.

    Args:
        train: (N,) bool, True for training images.
        test: (N,) bool, True for held-out images. Where there are too few images to hold any out, it equals `train`.
        labels: (N,) class indices, or None.
        classes: names of the classes, or None.
        notes: messages for the user.
    """

    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    labels: NDArray[np.int64] | None = None
    classes: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def read_layout(title: str, names: list[str], metadata: bytes | None) -> Layout:
    """Reads splits and classes from the paths, or classes from StyleGAN's ``dataset.json`` where there is one.

    Raises:
        LimnerError: ``dataset.json`` has another format.
    """
    train, test, inner, notes = read_splits(unwrapped(names))
    labels, classes, message = _classes(title, names, inner, metadata)
    return Layout(train, test, labels, classes, [message, *notes])


def read_splits(
    inner: list[str], what: str = "images"
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], list[str], list[str]]:
    """The masks (N,) of training and held-out items, the paths without split folders, and messages for the user.

    Args:
        inner: paths without the folders that all of them share.
        what: what the items are, for the messages.
    """
    train_folder, test_folder = _split_folders(inner)
    notes: list[str] = []
    if train_folder:
        tops = np.array([n.split("/", 1)[0] for n in inner])
        train, test = tops == train_folder, tops == test_folder
        inner = [n.split("/", 1)[1] if t in (train_folder, *_TEST) else n for n, t in zip(inner, tops)]
        folders = f"folders {train_folder}/ and {test_folder}/" if test_folder else f"folder {train_folder}/"
        ignored = len(inner) - int(train.sum() + test.sum())
        held_out = f", {test.sum()} to test on" if test_folder else ""
        notes.append(f"{folders}: {train.sum()} {what} to train on{held_out}")
        if ignored:
            notes.append(f"{ignored} {what} are in neither; only split=all takes them")
        if not test_folder:
            train, test = _held_out(inner, train, notes, what)
    else:
        train, test = _held_out(inner, np.ones(len(inner), dtype=bool), notes, what)
    return train, test, inner, notes


def unwrapped(names: list[str]) -> list[str]:
    """The paths without the folders that all of them share, as in a ZIP of one folder."""
    while names and "/" in names[0]:
        top = names[0].split("/", 1)[0]
        if top in _TRAIN + _TEST or not all(n.startswith(top + "/") for n in names):
            break
        names = [n[len(top) + 1 :] for n in names]
    return names


def _split_folders(names: list[str]) -> tuple[str | None, str | None]:
    tops = {n.split("/", 1)[0] for n in names if "/" in n}
    train = next((t for t in _TRAIN if t in tops), None)
    return train, next((t for t in _TEST if t in tops), None) if train else None


def _held_out(
    names: list[str], among: NDArray[np.bool_], notes: list[str], what: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Holds out 5 % by a hash of the path, so that adding or removing an image does not move another one."""
    candidates = np.flatnonzero(among)
    if len(candidates) < _FEWEST:
        notes.append(f"only {len(candidates)} {what}: none is held out, so the test split is the training split")
        return among, among.copy()
    uniforms = np.array([_uniform(names[i]) for i in candidates])
    selected = uniforms < HELD_OUT
    selected[uniforms.argmin()] = True
    test = np.zeros(len(names), dtype=bool)
    test[candidates[selected]] = True
    notes.append(
        f"no test folder: {int(selected.sum())} of {len(candidates)} {what} are held out by a hash of their path"
    )
    return among & ~test, test


def _uniform(name: str) -> float:
    return int.from_bytes(_digest(name)) / 2**64


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]


def sample_ids(names: list[str]) -> NDArray[np.int64]:
    """A 64-bit id (N,) for each path, which does not depend on the other images."""
    return np.array([int.from_bytes(_digest(n), signed=True) for n in names], dtype=np.int64)


def _classes(
    title: str, names: list[str], inner: list[str], metadata: bytes | None
) -> tuple[NDArray[np.int64] | None, list[str] | None, str]:
    """Labels, class names, and a message that describes the layout."""
    n = len(names)
    if metadata is not None:
        labels = _stylegan_labels(title, names, inner, metadata)
        if labels is None:
            return None, None, f"found {n} images; dataset.json gives them no classes"
        classes = sorted(set(labels))
        counts = Counter(labels)
        sizes = listed((str(c), counts[c]) for c in classes)
        indices = np.array([classes.index(c) for c in labels], dtype=np.int64)
        message = f"found {n} images in {len(classes)} classes of dataset.json ({sizes})"
        return indices, [str(c) for c in classes], message
    depths = {name.count("/") for name in inner}
    tops = [name.split("/", 1)[0] for name in inner]
    if depths == {1} and len(set(tops)) > 1:
        folders = sorted(set(tops))
        index = {folder: k for k, folder in enumerate(folders)}
        count = Counter(tops)
        sizes = listed((folder, count[folder]) for folder in folders)
        return (
            np.array([index[t] for t in tops]),
            folders,
            f"found {n} images in {len(folders)} class folders ({sizes})",
        )
    if depths == {0}:
        return None, None, f"found {n} images in one folder, without classes"
    return None, None, f"found {n} images in nested folders, taken as one set without classes"


def _stylegan_labels(title: str, names: list[str], inner: list[str], metadata: bytes) -> list[int] | None:
    """The label of each image from ``{"labels": [["00000/img.png", 3], ...]}``, or None when there are none."""
    try:
        entries = json.loads(metadata)["labels"]
        if entries is None:
            return None
        table = {str(name): label for name, label in entries}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise LimnerError(f'{title}: write dataset.json as {{"labels": [["PATH", CLASS], …]}}') from None
    labels = [table.get(name, table.get(short)) for name, short in zip(names, inner)]
    numbers = [label for label in labels if isinstance(label, int) and not isinstance(label, bool)]
    if len(numbers) < len(labels):
        missing = next(name for name, label in zip(names, labels) if not isinstance(label, int))
        raise LimnerError(f"{title}: dataset.json has no whole number for {missing!r}; add one, or remove the file")
    return numbers
