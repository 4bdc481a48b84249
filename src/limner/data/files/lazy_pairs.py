"""Pairs of image files. Both files of a pair are read together, so that a damaged file removes its partner too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from limner.core.batch import evenly_spaced
from limner.core.errors import LimnerError
from limner.data.datasets import Pixels
from limner.data.degradations import NAMES
from limner.data.files import decode, limits
from limner.data.files.layout import find_splits, parts_of, unwrapped
from limner.data.files.lazy import BadFile, Files, decode_all, first_readable
from limner.data.files.left_out import other_files
from limner.data.files.pair_layout import NO_PARTNER, DomainPath, MatchedPairs, domain_paths, match_names, on_no_side
from limner.data.files.reading import LATEST
from limner.data.files.store import open_store
from limner.data.files.table_names import by_suffix
from limner.data.options import Options
from limner.data.pairs import PairSet, StackedPairs
from limner.data.sources import folder
from limner.data.sources.folder import Survey
from limner.data.steps import augmentations, identity

_LAYOUTS = "A/ and B/ with the same names, or A|B side by side in one picture"


class Halves(Files):
    """The left or right half of each image, for pairs that are joined in one image.

    Args:
        *args: as for `Files`.
        right: take the right half, else the left one.
        **kwargs: as for `Files`.
    """

    def __init__(self, *args: Any, right: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.right = right

    def read(self, path: str) -> NDArray[np.uint8]:
        """Reads one half (C,H,W)."""
        return self.fit_half(self.open_joined(path))

    def open_joined(self, path: str) -> Image.Image:
        """Both halves at full size, because a JPEG at a smaller scale could have an odd width."""
        with self.store.open(path) as stream:
            return decode.picture(stream)

    def fit_half(self, joined: Image.Image) -> NDArray[np.uint8]:
        """This half (C,H,W) of a joined image."""
        width = joined.width // 2
        return self.fit(joined.crop((width * self.right, 0, width * (1 + self.right), joined.height)))


class LazyStackedPairs(StackedPairs):
    """Pairs that are read from files while training. Picklable for data loader workers.

    A pair whose pixels cannot be decoded stays in the set: its damaged file is added to `quarantine`, and the next
    readable pair replaces it.

    Args:
        a: sources.
        b: their targets, in the same order.
    """

    a: Files
    b: Files

    def __init__(self, a: Files, b: Files) -> None:
        super().__init__(a, b)

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Items as (B,Ca+Cb,H,W) uint8."""
        with decode.strict():
            return torch.from_numpy(np.stack([self._pair(int(i)) for i in indices]))

    def _pair(self, index: int) -> NDArray[np.uint8]:
        following = ((index + step) % len(self) for step in range(len(self)))
        pair = first_readable(self._read_or_reason, following, self.quarantine)
        if pair is None:
            raise LimnerError(f"{self.name}: no pair is readable any more; restore the files")
        return pair

    def _read_or_reason(self, i: int) -> NDArray[np.uint8] | BadFile:
        """One pair (Ca+Cb,H,W), or the path of the bad file and the reason."""
        a, b, path = self.a, self.b, self.a.paths[i]
        try:
            with limits.share():
                if isinstance(a, Halves) and isinstance(b, Halves):
                    joined = a.open_joined(path)
                    return np.concatenate([a.fit_half(joined), b.fit_half(joined)])
                source = a.read(path)
                path = b.paths[i]
                return np.concatenate([source, b.read(path)])
        except Exception as error:  # a hostile file may raise anything, and must not stop a training
            return path, decode.reason(error)

    def in_memory(self) -> StackedPairs:
        """Decodes all pairs into memory, without those of which a file cannot be decoded.

        Raises:
            LimnerError: no pair is readable.
        """
        pixels, indices, bad = decode_all(self._read_or_reason, len(self), self.shape)
        if not indices:
            raise LimnerError(f"{self.name}: no pair is readable; run 'limner data check' on it to see why")
        c = self.a.shape[0]
        pairs = StackedPairs(_in_memory(self.a, pixels[:, :c], indices), _in_memory(self.b, pixels[:, c:], indices))
        pairs.pixels = pixels  # the pixels of sources and targets are views of it
        pairs.notes, pairs.quarantine = self.notes, [*self.quarantine, *bad]
        return pairs


def _in_memory(files: Files, pixels: Tensor, indices: list[int]) -> Pixels:
    paths = [files.paths[i] for i in indices]
    return Pixels(files.name, pixels, augment=files.augment, paths=paths, prepared=files.prepared)


def read_pairs(
    path: str,
    options: Options,
    *,
    swap: bool = False,
    source_channels: int | None = None,
    layout: str = "auto",
    cache: bool | None = None,
    reading: int = LATEST,
    name: str | None = None,
) -> PairSet:
    """Finds and reads the pairs of a folder or ZIP.

    Args:
        path: the folder or ZIP.
        options: the shared options; `channels` is that of the targets.
        swap: make A of B.
        source_channels: channels of the sources; by default those of the files.
        layout: "folders", "joined", or "auto" for either.
        cache: hold all pairs in memory; by default if they take at most 512 MiB.
        reading: as in `limner.data.files.reading`.
        name: the name of the set; by default the last part of the path.

    Raises:
        LimnerError: there are no pairs, or too many images have no partner or cannot be read.
    """
    if options.only is not None or options.without is not None:
        raise LimnerError("pairs have no classes; leave 'only' and 'without' out")
    if options.binarise != "none":
        raise LimnerError("pairs are not binarised; leave 'binarise' out")
    store = open_store(path, reading)
    survey = folder.read_headers(store, path)
    pairs, joined = _find_pairs(path, survey, layout, reading)
    notes = [f"found {len(pairs.names)} pairs in {'the halves of pictures' if joined else 'A/ and B/'}"]
    if swap:
        pairs.a, pairs.b = pairs.b, pairs.a
        notes.append("exchanged: A is made of B")
    selected = _select(pairs, options, notes, reading)
    notes += [] if joined else on_no_side(survey.names, domain_paths(survey.names, reading) or {})
    notes += other_files(store.ignored + by_suffix(store.tables), store.hidden)
    shapes = _shapes(_surveys(survey, pairs, joined), options, source_channels, notes)
    title, quarantine = name or Path(path).name or store.title, [*survey.quarantine, *pairs.left_out]

    def files(paths: list[str], k: int) -> Files:
        right = k != swap
        facts: dict[str, Any] = {"augment": augmentations(options), "prepared": identity(None, options)}
        facts |= {"notes": notes, "quarantine": quarantine} if k else {}
        if not joined:
            return Files(title, store, paths, shapes[k], **facts)
        facts["prepared"] += "right" if right else "left"
        return Halves(title, store, paths, shapes[k], right=right, **facts)

    return PairSet(folder.in_memory_if_small(path, LazyStackedPairs(files(selected.a, 0), files(selected.b, 1)), cache))


def _find_pairs(path: str, survey: Survey, layout: str, reading: int) -> tuple[MatchedPairs, bool]:
    """The pairs, and whether they are halves of images.

    Raises:
        LimnerError: there are no pairs, or too many images have no partner.
    """
    paths = None if layout == "joined" else domain_paths(survey.names, reading)
    if paths is None and layout == "folders":
        raise LimnerError(f"{path!r} has no folders A/ and B/; lay the pairs out as {_LAYOUTS}")
    pairs = _find_halves(path, survey, layout, reading) if paths is None else _find_partners(path, paths)
    if len(pairs.names) < 2:
        raise LimnerError(f"{path!r} has {len(pairs.names)} pairs and a model needs at least 2; add more")
    return pairs, paths is None


def _find_partners(path: str, paths: dict[str, DomainPath]) -> MatchedPairs:
    pairs = match_names(paths)
    single = [file for file, reason in pairs.left_out if reason == NO_PARTNER]
    if 2 * len(single) > len(paths):
        raise LimnerError(
            f"{path!r}: {len(single)} of {len(paths)} pictures have no partner of the same name (such as {single[0]}); "
            "give source and target one name, A/NAME and B/NAME"
        )
    return pairs


def _find_halves(path: str, survey: Survey, layout: str, reading: int) -> MatchedPairs:
    """The images whose halves are pairs; with the layout "auto", those that are exactly twice as wide as high."""
    pairs, n = MatchedPairs(), len(survey.names)
    for file, inner, header in zip(survey.names, unwrapped(survey.names, reading), survey.headers):
        height, width = header.size
        if layout == "auto" and width != 2 * height:
            pairs.left_out.append((file, "not twice as wide as high"))
        elif width % 2:
            pairs.left_out.append((file, "an odd number of pixels wide"))
        else:
            pairs.names.append(inner)
            pairs.a.append(file)
    pairs.b = list(pairs.a)
    if 2 * len(pairs.left_out) <= n:
        return pairs
    if layout == "auto":
        raise LimnerError(
            f"{path!r} has pictures, but no pairs: lay them out as {_LAYOUTS} (layout=joined where that is not twice "
            f"as wide as high), or write task={', '.join(NAMES[:-1])} or {NAMES[-1]} to make pairs of any pictures"
        )
    raise LimnerError(
        f"{path!r}: {len(pairs.left_out)} of {n} pictures are an odd number of pixels wide, so they have no halves; "
        f"lay the pairs out as {_LAYOUTS}"
    )


def _select(pairs: MatchedPairs, options: Options, notes: list[str], reading: int) -> MatchedPairs:
    """The pairs of the split, at most `limit` of them."""
    found = find_splits(pairs.names, reading)
    train, test, messages = parts_of(found, "pairs")
    notes += messages
    every = np.ones_like(train)
    every[list(found.left_out)] = False
    pairs.left_out += [(pairs.a[i], reason) for i, reason in found.left_out.items()]
    indices = np.flatnonzero({"train": train, "test": test, "all": every}[options.split])
    indices = indices[evenly_spaced(len(indices), options.limit or len(indices))]
    if not len(indices):
        raise LimnerError(f"no pair is in split {options.split!r}; put some there, or write another split")
    names, a, b = ([values[i] for i in indices] for values in (pairs.names, pairs.a, pairs.b))
    return MatchedPairs(names, a, b)


def _surveys(survey: Survey, pairs: MatchedPairs, joined: bool) -> tuple[Survey, Survey]:
    """The headers of sources and of targets."""
    sources, targets = survey.of(pairs.a), survey.of(pairs.b)
    if joined:
        sources.headers = sources.headers.halved()
        targets.headers = sources.headers
    return sources, targets


def _shapes(
    surveys: tuple[Survey, Survey], options: Options, source_channels: int | None, notes: list[str]
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(C,H,W) of sources and of targets, with the same height and width."""
    messages: tuple[list[str], list[str]] = ([], [])
    channels = [folder.channels_of(*each) for each in zip(surveys, (source_channels, options.channels), messages)]
    height, width = folder.size_of(surveys[1], options, messages[1])
    notes += [f"{role}: {message}" for role, part in zip(("sources", "targets"), messages) for message in part]
    a, b = (survey.headers.sizes.astype(np.int64) for survey in surveys)
    unlike = int((a[:, 0] * b[:, 1] != a[:, 1] * b[:, 0]).sum())
    if unlike:
        notes.append(f"{unlike} pairs have images of unlike proportions: each is cropped at its own centre")
    return (channels[0], height, width), (channels[1], height, width)
