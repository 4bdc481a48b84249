"""Reads splits and classes from the paths of images.

Where there is a folder to train on, its siblings are the held-out part: test/, or else valid/. Where both exist, valid/
is neither trained on nor tested on, and a note says so. Without a folder to train on, 5 % are held out by a hash of the
path. Classes are the folders below, in natural order (2 before 10), unless a table gives the images attributes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from limner.core.errors import LimnerError
from limner.data.files import first_reading, image_tables, splits
from limner.data.files.columns import Asked
from limner.data.files.distributions import described, distribution
from limner.data.files.image_tables import Annotations
from limner.data.files.natural import composed, differ_in_case, natural_order
from limner.data.files.reading import LATEST
from limner.data.files.splits import TEST, TRAIN, VALID, Splits
from limner.data.steps import listed

if TYPE_CHECKING:
    from limner.data.files.store import Store

HELD_OUT = 0.05
BESIDE_CLASSES = "beside the class folders"
_FEWEST = 10  # a set with fewer images has no hold-out
_FEW = 0.1  # at most this share of the images may lie beside the class folders


@dataclass
class Layout:
    """Splits, classes or attributes, and captions of images, in the order of their paths.

    Args:
        train: (N,) bool, True for training images.
        test: (N,) bool, True for held-out images. Where there are too few images to hold any out, it equals `train`.
        labels: (N,) class indices, -1 for images that are left out; or (N,F) the index of the value of each attribute,
            -1 where it is not known; or None.
        classes: names of the classes, or None.
        notes: messages for the user.
        left_out: index and reason of each image that belongs to no split or class.
        attributes: instead of classes, the names of the values of each attribute.
        texts: the captions of each image, none or several; or None.
        faults: those of the notes that say what to mend.
    """

    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    labels: NDArray[np.int64] | None = None
    classes: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)
    attributes: dict[str, list[str]] | None = None
    texts: list[list[str]] | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def known(self) -> list[str] | dict[str, list[str]] | None:
        """The names of the classes, or of the values of each attribute."""
        return self.classes or self.attributes

    def mask(self, split: str) -> NDArray[np.bool_]:
        """(N,) bool, True for the images of the split "train", "test" or "all"."""
        if split != "all":
            return self.train if split == "train" else self.test
        mask = np.ones(len(self.train), dtype=bool)
        mask[list(self.left_out)] = False
        return mask


@runtime_checkable
class HasLayout(Protocol):
    """A store that knows splits and classes otherwise than by paths."""

    def layout(self, names: list[str]) -> Layout:
        """Splits and classes of some of its images."""
        ...


ALL = Asked()
"""All columns of a table that can be attributes."""


def layout_of(store: Store, names: list[str], asked: Asked = ALL) -> Layout:
    """Splits and classes of some images of a store: as the store knows them, or as tables and their paths say.

    Raises:
        LimnerError: ``dataset.json`` has another format, a table cannot be used, or it has not what is asked for.
    """
    if asked.names_columns and (isinstance(store, HasLayout) or store.reading < 3):
        why = (
            "has no table of attributes"
            if isinstance(store, HasLayout)
            else f"is read without (reading={store.reading})"
        )
        raise LimnerError(f"attributes: {store.title} {why}; leave attributes and bins out")
    if isinstance(store, HasLayout):
        return store.layout(names)
    table = image_tables.read(store, names, asked) if store.reading > 2 else None
    return read_layout(store.title, names, store.metadata(), store.reading, table)


def read_layout(
    title: str, names: list[str], metadata: bytes | None, reading: int = LATEST, table: Annotations | None = None
) -> Layout:
    """Reads splits and classes from the paths, or classes from StyleGAN's ``dataset.json`` where there is one.

    Args:
        title: the name of the set, for messages.
        names: the paths.
        metadata: the content of ``dataset.json``, or None.
        reading: as in `limner.data.files.reading`.
        table: what a table says of the images. Its attributes come before classes.

    Raises:
        LimnerError: ``dataset.json`` has another format.
    """
    found = find_splits(unwrapped(names, reading), reading)
    if table is not None and table.attributes:
        return _attributed(names, found, metadata, table)
    labels, classes, messages, beside = _classes(title, names, found, metadata, reading)
    found.left_out |= beside
    train, test, notes = parts_of(found, "images")
    if labels is not None and classes is not None and reading > 1:
        untrained = [name for name, n in zip(classes, np.bincount(labels[train], minlength=len(classes))) if not n]
        notes += [f"classes without an image to train on: {', '.join(untrained[:12])}"] if untrained else []
    layout = Layout(train, test, labels, classes, [*messages, *notes], found.left_out)
    if table is not None:
        layout.notes += [*table.notes, *table.faults]
        layout.texts, layout.faults = table.texts, table.faults
    return layout


def _attributed(names: list[str], found: Splits, metadata: bytes | None, table: Annotations) -> Layout:
    """The layout of images of which a table gives attributes."""
    train, test, notes = parts_of(found, "images")
    used = np.setdiff1d(np.arange(len(names)), list(found.left_out))
    counts = distribution(table.attributes, table.features[used])
    n = len(table.attributes)
    what = f"{n} attribute{'s' * (n > 1)} from {table.source}: {described(counts)}"
    notes.insert(0, f"found {len(used)} images with {what}")
    known = _class_folders(found)
    if metadata is not None or known is not None:
        other = "dataset.json" if metadata is not None else f"the {len(known[1]) if known else 0} class folders"
        notes.append(f"attributes come before {other}: attributes=[] takes those instead")
    trained = distribution(table.attributes, table.features[train])
    unseen = [f"{a}={v}" for a, of in trained.items() for v, count in of.items() if v and not count]
    notes += [f"values without an image to train on: {', '.join(unseen[:12])}"] if unseen else []
    for attribute, values in table.attributes.items():
        if twins := differ_in_case(values):
            notes.append(
                f"{attribute}: {' and '.join(twins)} differ only in their case: write one if they are the same"
            )
    return Layout(
        train, test, table.features, None, [*notes, *table.notes, *table.faults], found.left_out,
        table.attributes, table.texts, table.faults,
    )  # fmt: skip


def unwrapped(names: Sequence[str], reading: int = LATEST) -> list[str]:
    """The paths without the folders that all of them share, as in a ZIP of one folder."""
    return first_reading.unwrapped(names) if reading == 1 else splits.unwrapped(names)


def find_splits(inner: Sequence[str], reading: int = LATEST) -> Splits:
    """The split of each path, of which `unwrapped` has removed what all share."""
    if reading > 1:
        return splits.find_splits(inner)
    of, below, folders = first_reading.find_splits(inner)
    return Splits(of, below, bool(folders), folders)


def parts_of(found: Splits, what: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_], list[str]]:
    """The masks (N,) of training and of held-out items, and messages for the user.

    Args:
        found: the splits.
        what: what the items are, for the messages.
    """
    usable = np.ones(len(found.of), dtype=bool)
    usable[list(found.left_out)] = False
    notes: list[str] = []
    if not found.found:
        train, test = _held_out(found.inner, usable, notes, what)
        return train, test, [*found.notes, *notes]
    masks = {split: found.mask(split) & usable for split in (TRAIN, VALID, TEST)}
    held_out = next((split for split in (TEST, VALID) if masks[split].any()), None)
    chosen = [split for split in (TRAIN, held_out) if split in found.folders]
    names = " and ".join(f"{name}/" for split in chosen for name in found.folders[split])
    tested = f", {masks[held_out].sum()} to test on" if held_out else ""
    folders = "folders" if " and " in names else "folder"
    notes.append(f"{folders} {names}: {masks[TRAIN].sum()} {what} to train on{tested}")
    train, test = masks[TRAIN], masks[held_out or TEST]
    if held_out == TEST and masks[VALID].any():
        names = " and ".join(f"{name}/" for name in found.folders[VALID])
        notes.append(f"{masks[VALID].sum()} {what} are in neither, but in {names}; only split=all takes them")
    rest = int(usable.sum() - sum(m.sum() for m in masks.values()))
    if rest:
        notes.append(f"{rest} {what} are in neither; only split=all takes them")
    if held_out is None:
        train, test = _held_out(found.inner, masks[TRAIN], notes, what)
    return train, test, [*notes, *found.notes]


def _held_out(
    names: Sequence[str], among: NDArray[np.bool_], notes: list[str], what: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Holds out 5 % by a hash of the path, so that adding or removing an image does not move another one."""
    candidates = np.flatnonzero(among)
    if len(candidates) < _FEWEST:
        notes.append(f"only {len(candidates)} {what}: none is held out, so the test split is the training split")
        return among, among.copy()
    uniforms = _uniforms([names[i] for i in candidates.tolist()])
    selected = uniforms < HELD_OUT
    selected[uniforms.argmin()] = True
    test = np.zeros(len(names), dtype=bool)
    test[candidates[selected]] = True
    notes.append(
        f"no test folder: {int(selected.sum())} of {len(candidates)} {what} are held out by a hash of their path"
    )
    return among & ~test, test


def _uniforms(names: Sequence[str]) -> NDArray[np.float64]:
    """A number (N,) in [0,1) for each path, by its hash."""
    return _digests(names).view(">u8").astype(np.float64) / 2**64


def _digests(names: Sequence[str]) -> NDArray[np.int64]:
    """The first 64 bits (N,) of the SHA-256 of each path, most significant byte first."""
    digest = hashlib.sha256
    raw = b"".join([digest(name.encode("utf-8", "surrogateescape")).digest()[:8] for name in names])
    return np.frombuffer(raw, ">i8")


def sample_ids(names: list[str]) -> NDArray[np.int64]:
    """A 64-bit id (N,) for each path, which does not depend on the other images."""
    return _digests(names).astype(np.int64)


# --- classes ---------------------------------------------------------------------------------------


_Classes = tuple[NDArray[np.int64] | None, list[str] | None, list[str], dict[int, str]]


def _classes(title: str, names: list[str], found: Splits, metadata: bytes | None, reading: int) -> _Classes:
    """Labels, class names, messages that describe them, and the images that are left out for want of a class."""
    n = len(names)
    if metadata is not None:
        table = _stylegan_labels(title, metadata)
        if table is None:
            return None, None, [f"found {n} images; dataset.json gives them no classes"], {}
        values = _looked_up(title, names, found, table)
        classes = sorted({value for value in values if value is not None})
        counts = Counter(values)
        sizes = listed((str(c), counts[c]) for c in classes)
        index = {c: k for k, c in enumerate(classes)}
        message = f"found {n} images in {len(classes)} classes of dataset.json ({sizes})"
        texts = [str(c) for c in classes]
        labels = np.array([-1 if c is None else index[c] for c in values], dtype=np.int64)
        beside = {i: BESIDE_CLASSES for i, c in enumerate(values) if c is None and i not in found.left_out}
        if beside:
            message += f"; left out {len(beside)} images beside them (such as {names[next(iter(beside))]})"
        return labels, texts, [message, *_numbers(texts, reading)], beside
    known = first_reading.class_labels(found.inner) if reading == 1 else _class_folders(found)
    if known is not None:
        labels, classes_ = known
        usable = np.bincount(labels[labels >= 0], minlength=len(classes_))
        sizes = listed((folder, int(count)) for folder, count in zip(classes_, usable))
        beside = {i: BESIDE_CLASSES for i in np.flatnonzero(labels < 0).tolist() if i not in found.left_out}
        messages = [f"found {usable.sum()} images in {len(classes_)} class folders ({sizes})"]
        if beside:
            example = names[next(iter(beside))]
            messages.append(f"left out {len(beside)} images that lie beside the class folders (such as {example})")
        return labels, classes_, [*messages, *_numbers(classes_, reading)], beside
    if all("/" not in name for i, name in enumerate(found.inner) if i not in found.left_out):
        return None, None, [f"found {n - len(found.left_out)} images in one folder, without classes"], {}
    count = n - len(found.left_out)
    return None, None, [f"found {count} images in nested folders, taken as one set without classes"], {}


def _class_folders(found: Splits) -> tuple[NDArray[np.int64], list[str]] | None:
    """Class indices, -1 for an image without a class, and class names; None where there are no class folders."""
    used = [i for i in range(len(found.inner)) if i not in found.left_out]
    inner = splits.unwrapped([found.inner[i] for i in used]) if found.found else [found.inner[i] for i in used]
    folders = [composed(folder) for folder in splits.first_folders(inner)]
    counts = Counter(folders)
    counts.pop("", None)
    direct = sum([name.count("/") == 1 for name in inner])
    below = counts.total()
    beside = len(inner) - below
    if len(counts) < 2 or 10 * direct < 9 * below or not (beside <= _FEW * len(inner) or beside < min(counts.values())):
        return None
    classes = natural_order(counts)
    index = {folder: k for k, folder in enumerate(classes)}
    labels = np.full(len(found.inner), -1, dtype=np.int64)
    labels[used] = [index.get(folder, -1) for folder in folders]
    return labels, classes


def _numbers(classes: list[str], reading: int) -> list[str]:
    """Which number stands for which class, where they differ, and classes that may be one."""
    notes = []
    if reading > 1 and classes != [str(k) for k in range(len(classes))]:
        shown = ", ".join(f"{k} {name}" for k, name in enumerate(classes[:12]))
        more = f", and {len(classes) - 12} more" if len(classes) > 12 else ""
        notes.append(f"numbers of the classes: {shown}{more}")
    if twins := differ_in_case(classes):
        notes.append(f"the classes {' and '.join(twins)} differ only in their case: rename one if they are the same")
    return notes


def _stylegan_labels(title: str, metadata: bytes) -> dict[str, object] | None:
    """The table of ``{"labels": [["00000/img.png", 3], ...]}``, or None when there are none."""
    try:
        entries = json.loads(metadata)["labels"]
        plain = ((str(n).replace("\\", "/").removeprefix("./"), y) for n, y in entries or ())
        return None if entries is None else {composed(n): y for n, y in plain}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise LimnerError(f'{title}: write dataset.json as {{"labels": [["PATH", CLASS], …]}}') from None


def _looked_up(title: str, names: list[str], found: Splits, table: dict[str, object]) -> list[int | None]:
    """The label of each image; its path in the table may lack folders that all images share."""
    labels: list[int | None] = []
    beside = {i for i, name in enumerate(names) if "/" not in name}
    beside = beside if len(beside) <= _FEW * len(names) else set()
    deep = [name for name in names if "/" in name]
    shared = len(deep[0]) - len(splits.unwrapped(deep)[0]) if beside and deep else 0
    for i, name in enumerate(names):
        ends = [0, *(m.end() for m in re.finditer("/", name))]
        places = (composed(name[at:]) for at in ends if at <= max(shared, len(name) - len(found.inner[i])))
        label = next((table[place] for place in places if place in table), None)
        if isinstance(label, int) and not isinstance(label, bool):
            labels.append(label)
        elif i in found.left_out or (i in beside and name not in table):
            labels.append(None)
        else:
            raise LimnerError(f"{title}: dataset.json has no whole number for {name!r}; add one, or remove the file")
    return labels
