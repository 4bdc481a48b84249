"""Images from a folder or a ZIP, of any mode and size, with or without classes and splits.

`notes` tells the user what was found and decided; `quarantine` lists the files that were left out, with the reason.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.errors import LimnerError
from limner.data.files.formats import KNOWN
from limner.data.files.reading import LATEST, Reading
from limner.data.options import Options
from limner.data.registry import source

if TYPE_CHECKING:
    from limner.core.batch import Dataset
    from limner.data.files.decode import Header
    from limner.data.files.lazy import Files
    from limner.data.files.lazy_pairs import LazyStackedPairs
    from limner.data.files.store import Store

IN_MEMORY = 512 << 20
"""Sets whose decoded images take at most this many bytes are held in memory."""

_DEFAULT_SIDE = 64
_LARGE = 512 * 512
_FORMATS = f"{KNOWN} images"


@source("folder")
def folder(  # noqa: D417 - see Options
    path: str, cache: bool | None = None, reading: Reading = LATEST, *, options: Options
) -> Dataset:
    """Your own images: a folder or a ZIP; sub-folders are classes, train/ and test/ (or valid/) at the top are splits.

    Args:
        path: the folder or ZIP.
        cache: hold all images in memory; by default if they take at most 512 MiB. Set it to false if memory is short.
        reading: how splits and classes are found: 2, or 1 as limner 0.1 did it (classes in text order). Recipes of runs
            record it, and you need not write it.
    """
    from limner.data.files.store import open_store

    return read(open_store(path, reading), path, cache, options)


def read(store: Store, path: str, cache: bool | None, options: Options) -> Dataset:
    """The images of a store as a data set.

    Args:
        store: has the files.
        path: the path that the user gave, for messages.
        cache: as in `folder`.
        options: the shared options.

    Raises:
        LimnerError: there are too few usable images, or none in the split.
    """
    import numpy as np
    import torch

    from limner.core.batch import evenly_spaced
    from limner.data.files.layout import read_layout, sample_ids
    from limner.data.files.lazy import Files
    from limner.data.files.left_out import other_files
    from limner.data.steps import augmentations, choose_classes, identity

    survey = read_headers(store, path)
    if len(survey.names) < 2:
        raise LimnerError(f"{path!r} has one image and a model needs at least 2; add more")
    layout = read_layout(store.title, survey.names, store.metadata(), store.reading)
    notes = [*layout.notes, *other_files(store.ignored, store.hidden)]
    usable = survey.of([n for i, n in enumerate(survey.names) if i not in layout.left_out])
    shape = (channels_of(usable, options.channels, notes), *size_of(usable, options, notes))
    name = Path(path).name or store.title
    if options.split == "train" and not layout.train.any():
        raise LimnerError(f"{name} has nothing to train on ({notes[1]}); name a folder train/, or write split: all")
    labels, classes, of_class = choose_classes(name, layout.labels, layout.classes, options)
    keep = layout.mask(options.split)
    indices = np.flatnonzero(keep if of_class is None else keep & of_class)
    indices = indices[evenly_spaced(len(indices), options.limit or len(indices))]
    if not len(indices):
        raise LimnerError(f"{name}: no image is left in split {options.split!r}; loosen 'split', 'only' or 'without'")
    paths = [survey.names[i] for i in indices]
    files = Files(
        name,
        store,
        paths,
        shape,
        labels=None if labels is None else torch.from_numpy(labels[indices].astype(np.int64)),
        classes=classes,
        ids=torch.from_numpy(sample_ids(paths)) if options.binarise == "static" else None,
        augment=augmentations(options),
        notes=notes,
        quarantine=[*survey.quarantine, *((survey.names[i], reason) for i, reason in layout.left_out.items())],
        prepared=identity(classes, options),
    )
    return in_memory_if_small(path, files, cache)


@dataclass
class Survey:
    """The headers of images.

    Args:
        names: paths of the readable images.
        headers: their headers.
        quarantine: (path, reason) of the other images.
    """

    names: list[str]
    headers: list[Header]
    quarantine: list[tuple[str, str]]

    def of(self, names: list[str]) -> Survey:
        """The headers of some of the images, in the order of `names`."""
        headers = dict(zip(self.names, self.headers))
        return Survey(names, [headers[n] for n in names], self.quarantine)


_RECENT: dict[str, dict[str, Header]] = {}
"""The headers of the last two sets, by the state of their files, as training and held-out split need the same ones."""


def read_headers(store: Store, path: str) -> Survey:
    """Reads the headers of all images; those of the last two sets are remembered for as long as no file changes.

    Args:
        store: has the files.
        path: the path that the user gave, for error messages.

    Raises:
        LimnerError: there are no images, or more than half of them cannot be used.
    """
    from limner.data.files import decode
    from limner.data.files.threads import in_threads
    from limner.data.steps import fingerprint

    def read_header(name: str) -> Header | str:
        try:
            with store.open(name) as stream:
                return decode.header(stream)
        except Exception as error:  # a hostile file may raise anything, and must not affect the others
            return decode.reason(error)

    refuse_empty(path, store)
    state = fingerprint(store.state(), repr(store.names))
    headers = _RECENT.pop(state, {})
    unread = [name for name in store.names if name not in headers]
    bad = list(store.quarantine)
    with decode.strict():
        for name, result in zip(unread, in_threads(read_header, unread)):
            if isinstance(result, str):
                bad.append((name, result))
            else:
                headers[name] = result
    _RECENT[state] = headers
    if len(_RECENT) > 2:
        _RECENT.pop(next(iter(_RECENT)))
    _refuse_mostly_bad(path, bad, len(store.names) + len(store.quarantine))
    names = [name for name in store.names if name in headers]
    return Survey(names, [headers[name] for name in names], bad)


def refuse_empty(path: str, store: Store) -> None:
    """Raises a `LimnerError` where there are no images."""
    from limner.data.files.left_out import unread_pictures
    from limner.data.steps import listed

    if store.names or store.quarantine:
        return
    if unread := unread_pictures(store.ignored):
        raise LimnerError(f"{path!r} has no images that are read: {'; '.join(unread)}")
    if store.ignored:
        kinds = listed(store.ignored.most_common(), most=3)
        raise LimnerError(f"{path!r} has no images, only other files ({kinds}); put {_FORMATS} there")
    raise LimnerError(f"{path!r} is empty; put {_FORMATS} there")


def _refuse_mostly_bad(path: str, bad: list[tuple[str, str]], total: int) -> None:
    from limner.data.steps import by_reason

    if 2 * len(bad) > total:
        raise LimnerError(
            f"{path!r}: {len(bad)} of {total} images are unusable ({by_reason(bad)}); "
            f"'limner data check {path}' lists them: repair or remove them"
        )


def channels_of(survey: Survey, channels: int | None, notes: list[str]) -> int:
    """`channels`; where it is None, 1 if all images are grey and else 3. Adds notes on what is converted."""
    n = len(survey.headers)
    grey, alpha = sum(h.grey for h in survey.headers), sum(h.alpha for h in survey.headers)
    channels = channels or (1 if grey == n else 3)
    if 0 < grey < n:
        notes.append(f"{grey} of {n} images are grey, the others in colour: all taken with {channels} channels")
    if alpha and channels in (1, 3):
        notes.append(f"{alpha} of {n} images have transparency: laid over white (channels: {channels + 1} keeps it)")
    rotated = sum(h.rotated for h in survey.headers)
    if rotated:
        notes.append(f"{rotated} images are turned upright as their EXIF says")
    animated = sum(h.animated for h in survey.headers)
    if animated:
        notes.append(f"{animated} files are animated: only their first frame is used")
    return channels


def size_of(survey: Survey, options: Options, notes: list[str]) -> tuple[int, int]:
    """The size of the options; by default that of more than half of the images, else a square of at most 64."""
    sizes = Counter(h.size for h in survey.headers)
    (common, count), n = sizes.most_common(1)[0], len(survey.headers)
    if options.height_width:
        size, reason = options.height_width, "as asked"
    elif 2 * count > n:
        size, reason = common, "the size that most of them have"
    else:
        shorter = min(int(statistics.median(h.size[k] for h in survey.headers)) for k in (0, 1))
        size, reason = (min(shorter, _DEFAULT_SIDE),) * 2, "choose another with size"
    height, width = size
    if len(sizes) > 1:
        notes.append(f"mixed sizes ({len(sizes)} of them): resized and centre-cropped to {height}x{width}, {reason}")
    elif size != common:
        notes.append(f"{common[0]}x{common[1]} images: resized and centre-cropped to {height}x{width}, {reason}")
    small = sum(h.size[0] < height or h.size[1] < width for h in survey.headers)
    if small:
        notes.append(f"{small} of {n} images are smaller than {height}x{width} and are enlarged, which adds no detail")
    if height * width > _LARGE and not options.height_width:
        notes.append(f"{height}x{width} is large for most models: size: 64 or 128 trains much faster")
    return size


def in_memory_if_small(path: str, files: Files | LazyStackedPairs, cache: bool | None) -> Dataset:
    """The same set in memory where `cache` or, by default, its size allows it, else `files`; adds notes.

    Args:
        path: the path that the user gave, for error messages.
        files: the set.
        cache: as in `folder`.

    Raises:
        LimnerError: more than half of the files cannot be decoded.
    """
    from limner.data.files.left_out import bad_files

    result: Dataset = files
    size = len(files) * math.prod(files.shape)
    if cache or (cache is None and size <= IN_MEMORY):
        result = files.in_memory()
        _refuse_mostly_bad(path, result.quarantine[len(files.quarantine) :], len(files))
    else:
        result.notes.append(
            f"read from files while training: {size >> 20} MiB once decoded (cache: true keeps them there)"
        )
    result.notes += bad_files(result.quarantine)
    return result
