"""How limner 0.1 read splits and classes from paths: reading 1 of `limner.data.files.reading`.

Runs that were made with it go on with it. Nothing here changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
_TRAIN, _TEST = "train", ("test", "val")  # test/ is preferred to val/
SPLIT_AND_DOMAIN = re.compile(r"(train|test|val)[_-]?([ab])", re.IGNORECASE)
"""A folder that says both split and domain."""


def split_of(folder: str) -> str | None:
    """The name itself where it is one of a split, else None."""
    return folder if folder in (_TRAIN, *_TEST) else None


def unwrapped(names: Sequence[str]) -> list[str]:
    """The paths without the folders that all of them share."""
    names = list(names)
    while names and "/" in names[0]:
        top = names[0].split("/", 1)[0]
        if split_of(top) or not all(n.startswith(top + "/") for n in names):
            break
        names = [n[len(top) + 1 :] for n in names]
    return names


def find_splits(names: Sequence[str]) -> tuple[list[str], list[str], dict[str, list[str]]]:
    """The split of each path ("train", "test" or ""), the paths without its folder, and the folders by split."""
    tops = [n.split("/", 1)[0] for n in names]
    folders = {n.split("/", 1)[0] for n in names if "/" in n}
    if _TRAIN not in folders:
        return [""] * len(names), list(names), {}
    test = next((t for t in _TEST if t in folders), None)
    of = ["train" if t == _TRAIN else "test" if t == test else "" for t in tops]
    inner = [n.split("/", 1)[1] if "/" in n and split_of(t) else n for n, t in zip(names, tops)]
    return of, inner, {"train": [_TRAIN]} | ({"test": [test]} if test else {})


def class_labels(inner: Sequence[str]) -> tuple[NDArray[np.int64], list[str]] | None:
    """Class indices and names, in the order of their text; None where there are no class folders."""
    tops = [name.split("/", 1)[0] for name in inner]
    if {name.count("/") for name in inner} != {1} or len(set(tops)) < 2:
        return None
    index = {folder: k for k, folder in enumerate(sorted(set(tops)))}
    return np.array([index[t] for t in tops], dtype=np.int64), list(index)
