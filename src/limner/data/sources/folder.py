"""Images from a folder or a ZIP: any mode, any sizes, with or without classes and splits.

What was found and decided is said in `notes`; what was left out stands in `quarantine` with the reason.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.errors import LimnerError
from limner.data.options import Options
from limner.data.registry import source

if TYPE_CHECKING:
    from limner.core.batch import Dataset
    from limner.data.datasets import Pixels
    from limner.data.files.decode import Header
    from limner.data.files.layout import Layout
    from limner.data.files.lazy import Files
    from limner.data.files.store import Store

IN_MEMORY = 512 << 20
"""Sets that take no more bytes than this once decoded are held in memory."""

_DEFAULT_SIDE = 64
_LARGE = 512 * 512
_KINDS = "PNG, JPEG, WebP, BMP, GIF or TIFF images"


@source("folder")
def folder(path: str, cache: bool | None = None, *, options: Options) -> Dataset:  # noqa: D417 - Options says it
    """Your own images: a folder or a ZIP; sub-folders are classes, train/ and test/ (or val/) at the top are splits.

    Args:
        path: the folder or ZIP.
        cache: hold all images in memory; by default if they take at most 512 MiB. Set it to false if memory is short.
    """
    from limner.data.files.store import open_store

    return read(open_store(path), path, cache, options)


def read(store: Store, path: str, cache: bool | None, options: Options) -> Dataset:
    """The images of a store, prepared as `folder` says.

    Args:
        store: where the files lie.
        path: what the user calls it, for messages.
        cache: as in `folder`.
        options: the shared ones.

    Raises:
        LimnerError: there are too few usable images, or none in the part that was asked for.
    """
    from limner.data.files.layout import read_layout

    refuse_empty(path, store)
    survey = look_over(store)
    refuse_mostly_bad(path, survey.quarantine, len(store.names) + len(store.quarantine))
    if len(survey.names) < 2:
        raise LimnerError(f"{path!r} has one image and a model needs at least 2; add more")
    layout = read_layout(store.title, survey.names, store.metadata())
    notes = list(layout.notes)
    if store.ignored:
        notes.append(f"ignored {sum(store.ignored.values())} other files")
    shape = (channels_of(survey, options.channels, notes), *size_of(survey, options, notes))
    return _dataset(path, store, survey, layout, shape, notes, cache, options)


@dataclass
class Survey:
    """The files whose headers can be read, and the others with the reason."""

    names: list[str]
    headers: list[Header]
    quarantine: list[tuple[str, str]]

    def of(self, names: list[str]) -> Survey:
        """The same of some of the files, in their order."""
        header = dict(zip(self.names, self.headers))
        return Survey(names, [header[n] for n in names], self.quarantine)


def look_over(store: Store) -> Survey:
    """Reads the headers of all files."""
    from limner.data.files import decode
    from limner.data.files.lazy import in_threads

    def look(name: str) -> Header | str:
        try:
            with store.open(name) as stream:
                return decode.header(stream)
        except Exception as error:  # whatever a hostile file provokes is that file's fault alone
            return decode.reason(error)

    found = Survey([], [], list(store.quarantine))
    with decode.strict():
        for name, result in zip(store.names, in_threads(look, store.names)):
            if isinstance(result, str):
                found.quarantine.append((name, result))
            else:
                found.names.append(name)
                found.headers.append(result)
    return found


def refuse_empty(path: str, store: Store) -> None:
    """Raises a `LimnerError` where there are no images."""
    from limner.data.prepare import listed

    if store.names or store.quarantine:
        return
    if store.ignored:
        kinds = listed(store.ignored.most_common(), most=3)
        raise LimnerError(f"{path!r} has no images, only other files ({kinds}); put {_KINDS} there")
    raise LimnerError(f"{path!r} is empty; put {_KINDS} there")


def refuse_mostly_bad(path: str, bad: list[tuple[str, str]], total: int) -> None:
    """Raises a `LimnerError` where more than half of the images cannot be used."""
    from limner.data.prepare import by_reason

    if 2 * len(bad) > total:
        raise LimnerError(
            f"{path!r}: {len(bad)} of {total} images are unusable ({by_reason(bad)}); "
            f"'limner data check {path}' lists them: repair or remove them"
        )


def channels_of(survey: Survey, wanted: int | None, notes: list[str]) -> int:
    """What was asked for; else grey if all are, else RGB: colour is never thrown away, alpha is laid over white."""
    n = len(survey.headers)
    grey, alpha = sum(h.grey for h in survey.headers), sum(h.alpha for h in survey.headers)
    channels = wanted or (1 if grey == n else 3)
    if 0 < grey < n:
        notes.append(f"{grey} of {n} images are grey, the others in colour: all taken with {channels} channels")
    if alpha and channels in (1, 3):
        notes.append(f"{alpha} of {n} images have transparency: laid over white (channels: {channels + 1} keeps it)")
    rotated = sum(h.rotated for h in survey.headers)
    if rotated:
        notes.append(f"{rotated} images are turned upright as their EXIF says")
    moving = sum(h.animated for h in survey.headers)
    if moving:
        notes.append(f"{moving} files are animated: only their first frame is used")
    return channels


def size_of(survey: Survey, options: Options, notes: list[str]) -> tuple[int, int]:
    """What was asked for; else the size of more than half of the images, else a square of at most 64."""
    sizes = Counter(h.size for h in survey.headers)
    (common, count), n = sizes.most_common(1)[0], len(survey.headers)
    if options.height_width:
        size, why = options.height_width, "as asked"
    elif 2 * count > n:
        size, why = common, "the size that most of them have"
    else:
        shorter = min(int(statistics.median(h.size[k] for h in survey.headers)) for k in (0, 1))
        size, why = (min(shorter, _DEFAULT_SIDE),) * 2, "choose another with size"
    height, width = size
    if len(sizes) > 1:
        notes.append(f"mixed sizes ({len(sizes)} of them): resized and centre-cropped to {height}x{width}, {why}")
    elif size != common:
        notes.append(f"{common[0]}x{common[1]} images: resized and centre-cropped to {height}x{width}, {why}")
    small = sum(h.size[0] < height or h.size[1] < width for h in survey.headers)
    if small:
        notes.append(f"{small} of {n} images are smaller than {height}x{width} and are enlarged, which adds no detail")
    if height * width > _LARGE and not options.height_width:
        notes.append(f"{height}x{width} is large for most models: size: 64 or 128 trains much quicker")
    return size


def _dataset(
    path: str,
    store: Store,
    survey: Survey,
    layout: Layout,
    shape: tuple[int, int, int],
    notes: list[str],
    cache: bool | None,
    options: Options,
) -> Dataset:
    """The images that were asked for, in memory or from files."""
    import numpy as np
    import torch

    from limner.data.files.layout import sample_ids
    from limner.data.files.lazy import Files
    from limner.data.prepare import augmentations, choose_classes, identity, spread

    name = Path(path).name or store.title
    labels, classes, of_class = choose_classes(name, layout.labels, layout.classes, options)
    keep = {"train": layout.train, "test": layout.test, "all": np.ones(len(survey.names), dtype=bool)}[options.split]
    places = np.flatnonzero(keep if of_class is None else keep & of_class)
    places = places[spread(len(places), options.limit)]
    if not len(places):
        raise LimnerError(f"{name}: no image is left in split {options.split!r}; loosen 'split', 'only' or 'without'")
    chosen = [survey.names[i] for i in places]
    files = Files(
        name,
        store,
        chosen,
        shape,
        labels=None if labels is None else torch.from_numpy(labels[places].astype(np.int64)),
        classes=classes,
        ids=torch.from_numpy(sample_ids(chosen)) if options.binarise == "static" else None,
        augment=augmentations(options),
        notes=notes,
        quarantine=survey.quarantine,
        prepared=identity(classes, options),
    )
    size = len(files) * shape[0] * shape[1] * shape[2]
    if cache or (cache is None and size <= IN_MEMORY):
        return _in_memory(path, files)
    files.notes.append(f"read from files while training: {size >> 20} MiB once decoded (cache: true keeps them there)")
    say_bad(files)
    return files


def _in_memory(path: str, files: Files) -> Pixels:
    held = files.in_memory()
    bad = held.quarantine[len(files.quarantine) :]
    refuse_mostly_bad(path, bad, len(files))
    say_bad(held)
    return held


def say_bad(dataset: Dataset) -> None:
    """Adds a note on what was left out."""
    from limner.data.prepare import by_reason

    if dataset.quarantine:
        dataset.notes.append(f"left out {len(dataset.quarantine)} bad files: {by_reason(dataset.quarantine)}")
