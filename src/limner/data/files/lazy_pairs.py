"""Pairs that lie in files: found, prepared, and read as one, so that a damaged file takes its partner with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from limner.core.errors import LimnerError
from limner.data.datasets import Pixels
from limner.data.degradations import NAMES
from limner.data.files import decode
from limner.data.files.layout import read_splits, unwrapped
from limner.data.files.lazy import Files, in_threads
from limner.data.files.pair_layout import Matched, match, places_of
from limner.data.files.store import open_store
from limner.data.options import Options
from limner.data.pairs import PairSet, StackedPairs
from limner.data.prepare import augmentations, identity, spread
from limner.data.sources import folder
from limner.data.sources.folder import Survey

_LAYOUTS = "A/ and B/ with the same names, or A|B side by side in one picture"


class Halves(Files):
    """One half of each picture: what a pair looks like when it lies in one file.

    Args:
        *args: as for `Files`.
        right: take the right half, else the left one.
        **kwargs: as for `Files`.
    """

    def __init__(self, *args: Any, right: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.right = right

    def decoded(self, path: str) -> NDArray[np.uint8]:
        """One half (C,H,W)."""
        return self.laid(self.half(self.whole(path)))

    def whole(self, path: str) -> Image.Image:
        """Both halves, at full size: a JPEG decoded at a smaller scale could be an odd number of pixels wide."""
        with self.store.open(path) as stream:
            return decode.picture(stream)

    def half(self, whole: Image.Image) -> Image.Image:
        """This half of a picture."""
        width = whole.width // 2
        return whole.crop((width * self.right, 0, width * (1 + self.right), whole.height))


class LazyStackedPairs(StackedPairs):
    """Pairs read from files while training. Picklable for data loader workers.

    A pair with a damaged file is entered in `quarantine`, and another pair stands in for it, always the same one.

    Args:
        a: sources.
        b: their targets, in the same order.
    """

    def __init__(self, a: Files, b: Files) -> None:
        super().__init__(a, b)
        self.sources, self.targets = a, b

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Items as (B,Ca+Cb,H,W) uint8."""
        with decode.strict():
            return torch.from_numpy(np.stack([self._pair(int(i)) for i in indices]))

    def _pair(self, index: int) -> NDArray[np.uint8]:
        for i in ((index + step) % len(self) for step in range(len(self))):
            found = self._decoded(i)
            if not isinstance(found, tuple):
                return found
            if found not in self.quarantine:
                self.quarantine.append(found)
        raise LimnerError(f"{self.name}: {self.targets.paths[index]} and all that could stand in for it are unreadable")

    def _decoded(self, i: int) -> NDArray[np.uint8] | tuple[str, str]:
        """One pair (Ca+Cb,H,W), or the path of the file that is bad and the reason."""
        a, b = self.sources, self.targets
        path = a.paths[i]
        try:
            if isinstance(a, Halves) and isinstance(b, Halves):
                whole = a.whole(path)
                return np.concatenate([a.laid(a.half(whole)), b.laid(b.half(whole))])
            first = a.decoded(path)
            path = b.paths[i]
            return np.concatenate([first, b.decoded(path)])
        except Exception as error:  # whatever a hostile file provokes is that file's fault alone
            return path, decode.reason(error)

    def in_memory(self) -> StackedPairs:
        """The same pairs decoded once, without those of which a file turns out to be bad.

        Raises:
            LimnerError: none is left.
        """
        whole = torch.empty((len(self), *self.shape), dtype=torch.uint8)
        good: list[int] = []
        bad: list[tuple[str, str]] = []
        with decode.strict():
            for i, found in enumerate(in_threads(self._decoded, range(len(self)))):
                if isinstance(found, tuple):
                    bad.append(found)
                else:
                    whole[len(good)] = torch.from_numpy(found)
                    good.append(i)
        if not good:
            raise LimnerError(f"{self.name}: no pair is readable; run 'limner data check' on it to see why")
        whole, c = whole[: len(good)], self.sources.shape[0]
        held = StackedPairs(_held(self.sources, whole[:, :c], good), _held(self.targets, whole[:, c:], good))
        held.pixels = whole  # of which both sides are views
        held.notes, held.quarantine = self.notes, [*self.quarantine, *bad]
        return held


def _held(files: Files, pixels: Tensor, good: list[int]) -> Pixels:
    """One side of pairs in memory."""
    paths = [files.paths[i] for i in good]
    return Pixels(files.name, pixels, augment=files.augment, paths=paths, prepared=files.prepared)


def read_pairs(
    path: str,
    options: Options,
    *,
    swap: bool = False,
    source_channels: int | None = None,
    layout: str = "auto",
    cache: bool | None = None,
    name: str | None = None,
) -> PairSet:
    """The pairs of a folder or ZIP.

    Args:
        path: the folder or ZIP.
        options: the shared ones; `channels` is that of the targets.
        swap: make A of B.
        source_channels: of the sources; by default what they have.
        layout: "folders", "joined", or "auto" for either.
        cache: hold all pairs in memory; by default if they take at most 512 MiB.
        name: how a user calls it; the path's last part by default.

    Raises:
        LimnerError: there are no pairs, or too few of the pictures have a partner or can be read.
    """
    if options.only is not None or options.without is not None:
        raise LimnerError("pairs have no classes; leave 'only' and 'without' out")
    if options.binarise != "none":
        raise LimnerError("pairs are not binarised; leave 'binarise' out")
    store = open_store(path)
    folder.refuse_empty(path, store)
    survey = folder.look_over(store)
    folder.refuse_mostly_bad(path, survey.quarantine, len(store.names) + len(store.quarantine))
    found, halved = _located(path, survey, layout)
    notes = [f"found {len(found.names)} pairs in {'the halves of pictures' if halved else 'A/ and B/'}"]
    if swap:
        found.a, found.b = found.b, found.a
        notes.append("exchanged: A is made of B")
    chosen = _chosen(found, options, notes)
    shapes = _shapes(_looks(survey, found, halved), options, source_channels, notes)
    title, quarantine = name or Path(path).name or store.title, [*survey.quarantine, *found.left_out]

    def side(paths: list[str], k: int) -> Files:
        right = k != swap
        facts: dict[str, Any] = {"augment": augmentations(options), "prepared": identity(None, options)}
        facts |= {"notes": notes, "quarantine": quarantine} if k else {}
        if not halved:
            return Files(title, store, paths, shapes[k], **facts)
        facts["prepared"] += "right" if right else "left"
        return Halves(title, store, paths, shapes[k], right=right, **facts)

    return PairSet(_kept(path, LazyStackedPairs(side(chosen.a, 0), side(chosen.b, 1)), cache))


def _located(path: str, survey: Survey, layout: str) -> tuple[Matched, bool]:
    """The pairs, and whether they are halves of pictures.

    Raises:
        LimnerError: there are none, or too many pictures without a partner.
    """
    placed = None if layout == "joined" else places_of(survey.names)
    if placed is not None:
        found, halved = match(path, placed), False
    elif layout != "folders":
        found, halved = _halves(path, survey, layout), True
    else:
        raise LimnerError(f"{path!r} has no folders A/ and B/; lay the pairs out as {_LAYOUTS}")
    if len(found.names) < 2:
        raise LimnerError(f"{path!r} has {len(found.names)} pairs and a model needs at least 2; add more")
    return found, halved


def _halves(path: str, survey: Survey, layout: str) -> Matched:
    """Pictures of which the halves are pairs: where nobody says so, all that are exactly twice as wide as high."""
    found, n = Matched(), len(survey.names)
    for file, inner, look in zip(survey.names, unwrapped(survey.names), survey.headers):
        height, width = look.size
        if layout == "auto" and width != 2 * height:
            found.left_out.append((file, "not twice as wide as high"))
        elif width % 2:
            found.left_out.append((file, "an odd number of pixels wide"))
        else:
            found.names.append(inner)
            found.a.append(file)
    found.b = list(found.a)
    if 2 * len(found.left_out) <= n:
        return found
    if layout == "auto":
        raise LimnerError(
            f"{path!r} has pictures, but no pairs: lay them out as {_LAYOUTS} (layout=joined where that is not twice "
            f"as wide as high), or write task={', '.join(NAMES[:-1])} or {NAMES[-1]} to make pairs of any pictures"
        )
    raise LimnerError(
        f"{path!r}: {len(found.left_out)} of {n} pictures are an odd number of pixels wide, so they have no halves; "
        f"lay the pairs out as {_LAYOUTS}"
    )


def _chosen(found: Matched, options: Options, notes: list[str]) -> Matched:
    """The pairs of the part that was asked for."""
    train, test, _, said = read_splits(found.names, "pairs")
    notes += said
    keep = {"train": train, "test": test, "all": np.ones_like(train)}[options.split]
    places = np.flatnonzero(keep)
    places = places[spread(len(places), options.limit)]
    if not len(places):
        raise LimnerError(f"no pair is in split {options.split!r}; put some there, or write another split")
    names, a, b = ([side[i] for i in places] for side in (found.names, found.a, found.b))
    return Matched(names, a, b)


def _looks(survey: Survey, found: Matched, halved: bool) -> tuple[Survey, Survey]:
    """What sources and targets look like."""
    first, second = survey.of(found.a), survey.of(found.b)
    if halved:
        first.headers = [replace(h, size=(h.size[0], h.size[1] // 2)) for h in first.headers]
        second.headers = first.headers
    return first, second


def _shapes(
    looks: tuple[Survey, Survey], options: Options, source_channels: int | None, notes: list[str]
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(C,H,W) of sources and targets: one size for both, channels for each."""
    said: tuple[list[str], list[str]] = ([], [])
    channels = [folder.channels_of(*each) for each in zip(looks, (source_channels, options.channels), said)]
    height, width = folder.size_of(looks[1], options, said[1])
    notes += [f"{who}: {note}" for who, some in zip(("sources", "targets"), said) for note in some]
    unlike = sum(a.size[0] * b.size[1] != a.size[1] * b.size[0] for a, b in zip(looks[0].headers, looks[1].headers))
    if unlike:
        notes.append(f"{unlike} pairs have sides of unlike proportions: each is cropped at its own centre")
    return (channels[0], height, width), (channels[1], height, width)


def _kept(path: str, files: LazyStackedPairs, cache: bool | None) -> StackedPairs:
    """The pairs in memory where they fit or were asked to, else from files."""
    size = len(files) * math.prod(files.shape)
    if not (cache or (cache is None and size <= folder.IN_MEMORY)):
        files.notes.append(
            f"read from files while training: {size >> 20} MiB once decoded (cache: true keeps them there)"
        )
        folder.say_bad(files)
        return files
    held = files.in_memory()
    folder.refuse_mostly_bad(path, held.quarantine[len(files.quarantine) :], len(files))
    folder.say_bad(held)
    return held
