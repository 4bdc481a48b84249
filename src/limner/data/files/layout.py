"""What the paths of images say: splits, classes, and which images are held out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from limner.core.errors import LimnerError
from limner.data.prepare import listed

HELD_OUT = 0.05
_TRAIN, _TEST = ("train",), ("test", "val")  # of test/ and val/, test/ is preferred
_FEWEST = 10  # with fewer images than this nothing is held out


@dataclass
class Layout:
    """What was found, image by image in the order of the paths.

    Args:
        train: (N,) bool, the training images.
        test: (N,) bool, the held-out images; both are True everywhere when there are too few to hold any out.
        labels: (N,) class indices, or None.
        classes: names of the classes, or None.
        notes: sentences for the user.
    """

    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    labels: NDArray[np.int64] | None = None
    classes: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def read_layout(title: str, names: list[str], metadata: bytes | None) -> Layout:
    """Reads splits and classes off the paths, and classes from StyleGAN's ``dataset.json`` where there is one.

    Raises:
        LimnerError: ``dataset.json`` is no such file.
    """
    inner = unwrapped(names)
    train, test, inner, notes = read_splits(inner)
    labels, classes, said = _classes(title, names, inner, metadata)
    return Layout(train, test, labels, classes, [said, *notes])


def read_splits(
    inner: list[str], what: str = "images"
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], list[str], list[str]]:
    """What to train on (N,), what is held out (N,), the paths without their split folders, and sentences on it.

    Args:
        inner: paths without folders that all of them share.
        what: what they are, for the sentences.
    """
    train_folder, test_folder = _split_folders(inner)
    notes: list[str] = []
    if train_folder:
        tops = np.array([n.split("/", 1)[0] for n in inner])
        train, test = tops == train_folder, tops == test_folder
        inner = [n.split("/", 1)[1] if t in (train_folder, *_TEST) else n for n, t in zip(inner, tops)]
        found = f"folders {train_folder}/ and {test_folder}/" if test_folder else f"folder {train_folder}/"
        other = len(inner) - int(train.sum() + test.sum())
        held_out = f", {test.sum()} to test on" if test_folder else ""
        notes.append(f"{found}: {train.sum()} {what} to train on{held_out}")
        if other:
            notes.append(f"{other} {what} lie in neither; only split=all takes them")
        if not test_folder:
            train, test = _held_out(inner, train, notes, what)
    else:
        train, test = _held_out(inner, np.ones(len(inner), dtype=bool), notes, what)
    return train, test, inner, notes


def unwrapped(names: list[str]) -> list[str]:
    """The paths without folders that all of them share, as when a ZIP holds one folder with everything in it."""
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
    """Holds out 5 % by a hash of the path: adding or removing an image never moves another one."""
    places = np.flatnonzero(among)
    if len(places) < _FEWEST:
        notes.append(f"only {len(places)} {what}: none is held out, so the test split is the training split")
        return among, among.copy()
    draws = np.array([_draw(names[i]) for i in places])
    chosen = draws < HELD_OUT
    chosen[draws.argmin()] = True
    test = np.zeros(len(names), dtype=bool)
    test[places[chosen]] = True
    notes.append(f"no test folder: {int(chosen.sum())} of {len(places)} {what} are held out by a hash of their path")
    return among & ~test, test


def _draw(name: str) -> float:
    return int.from_bytes(_digest(name)) / 2**64


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]


def sample_ids(names: list[str]) -> NDArray[np.int64]:
    """A 64-bit id (N,) for each path, the same whatever other images there are."""
    return np.array([int.from_bytes(_digest(n), signed=True) for n in names], dtype=np.int64)


def _classes(
    title: str, names: list[str], inner: list[str], metadata: bytes | None
) -> tuple[NDArray[np.int64] | None, list[str] | None, str]:
    """Labels, class names, and a sentence on how the images lie."""
    n = len(names)
    if metadata is not None:
        labels = _stylegan_labels(title, names, inner, metadata)
        if labels is None:
            return None, None, f"found {n} images; dataset.json gives them no classes"
        classes = sorted(set(labels))
        counts = Counter(labels)
        said = listed((str(c), counts[c]) for c in classes)
        indices = np.array([classes.index(c) for c in labels], dtype=np.int64)
        said = f"found {n} images in {len(classes)} classes of dataset.json ({said})"
        return indices, [str(c) for c in classes], said
    depths = {name.count("/") for name in inner}
    tops = [name.split("/", 1)[0] for name in inner]
    if depths == {1} and len(set(tops)) > 1:
        named = sorted(set(tops))
        place = {c: k for k, c in enumerate(named)}
        count = Counter(tops)
        said = listed((c, count[c]) for c in named)
        return np.array([place[t] for t in tops]), named, f"found {n} images in {len(named)} class folders ({said})"
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
        raise LimnerError(f'{title}: dataset.json must be {{"labels": [["PATH", CLASS], …]}}; write it so') from None
    labels = [table.get(name, table.get(short)) for name, short in zip(names, inner)]
    found = [label for label in labels if isinstance(label, int) and not isinstance(label, bool)]
    if len(found) < len(labels):
        missing = next(name for name, label in zip(names, labels) if not isinstance(label, int))
        raise LimnerError(f"{title}: dataset.json gives {missing!r} no whole-number class; add it, or remove the file")
    return found
