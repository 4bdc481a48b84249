"""Images from a folder or a ZIP, of any mode and size, with or without classes and splits.

`notes` tells the user what was found and decided; `quarantine` lists the files that were left out, with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import LimnerError
from limner.core.paths import user_path
from limner.data.files.formats import KNOWN
from limner.data.files.reading import LATEST, Reading
from limner.data.options import Options
from limner.data.registry import source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from limner.core.batch import Dataset
    from limner.data.files.columns import Asked
    from limner.data.files.headers import Headers
    from limner.data.files.layout import Layout
    from limner.data.files.lazy import Files
    from limner.data.files.lazy_pairs import LazyStackedPairs
    from limner.data.files.prepared import Prepared
    from limner.data.files.store import Store

IN_MEMORY = 512 << 20
"""Sets whose decoded images take at most this many bytes are held in memory."""

_DEFAULT_SIDE = 64
_LARGE = 512 * 512
_FORMATS = f"{KNOWN} images"


@source("folder")
def folder(  # noqa: D417 - see Options
    path: str,
    cache: bool | None = None,
    reading: Reading = LATEST,
    attributes: list[str] | None = None,
    bins: dict[str, list[float]] | None = None,
    *,
    options: Options,
) -> Dataset:
    """Your own images: a folder or a ZIP; sub-folders are classes, train/ and test/ (or valid/) at the top are splits.

    A table metadata.csv or metadata.jsonl beside the images, CelebA's table, or UTKFace's file names give them
    attributes and captions; they come before classes.

    Args:
        path: the folder or ZIP.
        cache: hold all images in memory; by default if they take at most 512 MiB. Set it to false if memory is short.
        reading: how splits and classes are found: 3; or 2, without tables; or 1 as limner 0.1 did it (classes in text
            order). Recipes of runs record it, and you need not write it.
        attributes: columns of the table to take as attributes, such as `[glasses, hair]`; by default all that can be;
            `[]` for none, so that sub-folders are classes.
        bins: borders of intervals for columns of numbers, such as `{age: [20, 40, 60]}`.
    """
    from limner.data.files.store import open_store

    asked = asked_of(attributes, bins)
    if (store := prepared_store(path)) is not None:
        return read_prepared(store, path, cache, options, asked)
    return read(open_store(path, reading), path, cache, options, asked)


def asked_of(attributes: list[str] | None, bins: dict[str, list[float]] | None) -> Asked:
    """The options `attributes` and `bins` as one value.

    Raises:
        LimnerError: the borders of an interval do not ascend.
    """
    from limner.data.files.columns import Asked, plain_name

    borders = {plain_name(column): tuple(values) for column, values in (bins or {}).items()}
    return Asked(None if attributes is None else tuple(attributes), borders)


def read(store: Store, path: str, cache: bool | None, options: Options, asked: Asked | None = None) -> Dataset:
    """The images of a store as a data set.

    Args:
        store: has the files.
        path: the path that the user gave, for messages.
        cache: as in `folder`.
        options: the shared options.
        asked: what is asked of tables.

    Raises:
        LimnerError: there are too few usable images, or none in the split.
    """
    from limner.data.files.lazy import Files

    found = find(store, path, options, asked)
    indices, facts = select(found, options)
    files = Files(store=store, paths=[found.names[i] for i in indices], rows=found.rows[indices], **facts)
    return in_memory_if_small(path, files, cache)


def prepared_store(path: str) -> Prepared | None:
    """The prepared store at a path, or None where there is none."""
    from limner.data.files import prepared

    place = user_path(path)
    return prepared.Prepared(place) if prepared.is_prepared(place) else None


def read_prepared(
    store: Prepared, path: str, cache: bool | None, options: Options, asked: Asked | None = None
) -> Dataset:
    """The images of a prepared store, as `read` would give them from the folder that it was made from.

    Raises:
        LimnerError: another size, other channels or attributes that it has not are asked for, or no image is in the
            split.
    """
    import numpy as np

    from limner.data.files.layout import Layout
    from limner.data.files.prepared import PreparedFiles

    header, (c, h, w) = store.header, store.header.shape
    if options.height_width not in (None, (h, w)) or options.channels not in (None, c):
        raise LimnerError(
            f"{path!r} holds images of {h}x{w} with {c} channels; leave size and channels out, or prepare it again"
        )
    channels: Any = options.channels or header.channels
    options = replace(options, size=options.size or header.size, channels=channels)
    layout = Layout(store.train, store.test, store.labels, header.classes)
    layout.attributes, layout.texts = header.attributes, header.texts
    if asked is not None:
        _choose_attributes(path, layout, asked)
    rows = np.arange(len(header.names))
    found = Found(Path(path).name, header.names, rows, layout, header.shape, header.notes, header.quarantine)
    rows, facts = select(found, options)
    return in_memory_if_small(path, PreparedFiles(store, rows, **facts), cache)


def _choose_attributes(path: str, layout: Layout, asked: Asked) -> None:
    """Takes some of the attributes of a prepared store.

    Raises:
        LimnerError: it has not those that are asked for, or intervals are asked for.
    """
    from limner.core.errors import unknown
    from limner.data.files.columns import plain_name

    if asked.bins:
        raise LimnerError(f"{path!r}: its intervals are those of its preparation; leave bins out, or prepare it again")
    if asked.attributes and layout.attributes is None:
        raise LimnerError(f"{path!r} was prepared without attributes; leave them out, or prepare it again")
    if asked.attributes is None or layout.attributes is None or layout.labels is None:
        return
    has = layout.attributes
    names = list(dict.fromkeys(plain_name(name) for name in asked.attributes))
    for name in names:
        if name not in has:
            raise unknown(f"attribute of {path}", name, has)
    layout.labels = layout.labels[:, [list(has).index(name) for name in names]] if names else None
    layout.attributes = {name: has[name] for name in names} or None


@dataclass
class Found:
    """The images of a store, and how they are read.

    Args:
        name: the name of the set.
        names: their paths.
        rows: (N,) where they are among the names of the store.
        layout: their splits and classes.
        shape: (C,H,W) at which they are read.
        notes: messages for the user.
        quarantine: (path, reason) of the images that are left out.
    """

    name: str
    names: list[str]
    rows: NDArray[np.int64]
    layout: Layout
    shape: tuple[int, int, int]
    notes: list[str]
    quarantine: list[tuple[str, str]]


def find(store: Store, path: str, options: Options, asked: Asked | None = None) -> Found:
    """Reads headers and layout of a store.

    Raises:
        LimnerError: there are too few usable images, or a table cannot be used.
    """
    from limner.data.files.looks import seen

    key = ("found", store, path, str(options.size), options.channels, repr(asked))
    return seen(key, lambda: _find(store, path, options, asked))


def _find(store: Store, path: str, options: Options, asked: Asked | None) -> Found:
    import numpy as np

    from limner.data.files.layout import ALL
    from limner.data.files.layout_cache import known_layout
    from limner.data.files.left_out import other_files

    survey = read_headers(store, path)
    if len(survey.names) < 2:
        raise LimnerError(f"{path!r} has one image and a model needs at least 2; add more")
    layout = known_layout(store, survey.names, ALL if asked is None else asked)
    notes = [*layout.notes, *other_files(store.ignored, store.hidden)]
    usable = survey.rows(np.flatnonzero(layout.mask("all"))) if layout.left_out else survey
    shape = (channels_of(usable, options.channels, notes), *size_of(usable, options, notes))
    quarantine = [*survey.quarantine, *((survey.names[i], reason) for i, reason in layout.left_out.items())]
    return Found(Path(path).name or store.title, survey.names, survey.index, layout, shape, notes, quarantine)


def select(found: Found, options: Options) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """The rows of the images that the options take, and what `limner.data.files.lazy.Files` is told about them.

    Raises:
        LimnerError: there are none.
    """
    import numpy as np
    import torch

    from limner.core.batch import evenly_spaced
    from limner.data.files.layout import sample_ids
    from limner.data.steps import augmentations, choose, conditioned, identity

    name, layout = found.name, found.layout
    if options.split == "train" and not layout.train.any():
        raise LimnerError(
            f"{name} has nothing to train on ({found.notes[1]}); name a folder train/, or write split: all"
        )
    labels, known, chosen = choose(name, layout.labels, layout.known, options)
    keep = layout.mask(options.split)
    indices = np.flatnonzero(keep if chosen is None else keep & chosen)
    if options.limit is not None and options.limit < len(indices):
        indices = indices[evenly_spaced(len(indices), options.limit)]
    if not len(indices):
        raise LimnerError(f"{name}: no image is left in split {options.split!r}; loosen 'split', 'only' or 'without'")
    y, condition = conditioned(None if labels is None else labels[indices], known)
    ids = sample_ids([found.names[i] for i in indices]) if options.binarise == "static" else None
    return indices, {
        "name": name,
        "shape": found.shape,
        "labels": y,
        "condition": condition,
        "texts": None if layout.texts is None else [layout.texts[i] for i in indices.tolist()],
        "ids": None if ids is None else torch.from_numpy(ids),
        "augment": augmentations(options),
        "notes": list(found.notes),
        "quarantine": found.quarantine,
        "prepared": identity(known, options),
    }


@dataclass
class Survey:
    """The headers of images.

    Args:
        names: paths of the readable images.
        headers: their headers.
        quarantine: (path, reason) of the other images.
        index: (N,) where they are among the names of the store.
    """

    names: list[str]
    headers: Headers
    quarantine: list[tuple[str, str]]
    index: NDArray[np.int64]

    def rows(self, rows: NDArray[np.int64]) -> Survey:
        """The headers of some of the images, in that order."""
        return Survey([self.names[i] for i in rows], self.headers.take(rows), self.quarantine, self.index[rows])

    def of(self, names: list[str]) -> Survey:
        """The headers of some of the images, in the order of `names`."""
        import numpy as np

        number = {name: i for i, name in enumerate(self.names)}
        return self.rows(np.array([number[n] for n in names], np.int64))


def read_headers(store: Store, path: str) -> Survey:
    """Reads the headers of all images that `limner.data.files.index` does not know yet.

    Args:
        store: has the files.
        path: the path that the user gave, for error messages.

    Raises:
        LimnerError: there are no images, or more than half of them cannot be used.
    """
    from limner.data.files.index import index_of

    refuse_empty(path, store)
    rows, headers, unreadable = index_of(store).headers()
    bad = [*store.quarantine, *unreadable]
    _refuse_mostly_bad(path, bad, len(store.names) + len(store.quarantine))
    names = store.names if len(rows) == len(store.names) else [store.names[i] for i in rows]
    return Survey(names, headers, bad, rows)


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
    grey, alpha = survey.headers.count("grey"), survey.headers.count("alpha")
    channels = channels or (1 if grey == n else 3)
    if 0 < grey < n:
        notes.append(f"{grey} of {n} images are grey, the others in colour: all taken with {channels} channels")
    if alpha and channels in (1, 3):
        notes.append(f"{alpha} of {n} images have transparency: laid over white (channels: {channels + 1} keeps it)")
    rotated = survey.headers.count("rotated")
    if rotated:
        notes.append(f"{rotated} images are turned upright as their EXIF says")
    animated = survey.headers.count("animated")
    if animated:
        notes.append(f"{animated} files are animated: only their first frame is used")
    return channels


def size_of(survey: Survey, options: Options, notes: list[str]) -> tuple[int, int]:
    """The size of the options; by default that of more than half of the images, else a square of at most 64."""
    import numpy as np

    sizes, n = survey.headers.distinct_sizes(), len(survey.headers)
    common, count = sizes[0]
    if options.height_width:
        size, reason = options.height_width, "as asked"
    elif 2 * count > n:
        size, reason = common, "the size that most of them have"
    else:
        shorter = min(int(np.median(survey.headers.sizes[:, k])) for k in (0, 1))
        size, reason = (min(shorter, _DEFAULT_SIDE),) * 2, "choose another with size"
    height, width = size
    if len(sizes) > 1:
        notes.append(f"mixed sizes ({len(sizes)} of them): resized and centre-cropped to {height}x{width}, {reason}")
    elif size != common:
        notes.append(f"{common[0]}x{common[1]} images: resized and centre-cropped to {height}x{width}, {reason}")
    small = int((survey.headers.sizes < (height, width)).any(1).sum())
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
