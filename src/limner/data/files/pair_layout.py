"""Which picture is a source and which a target: two folders with the same names, or both in one picture.

==========================================  ================================================
``A/ B/``                                   pairs by name, or two domains
``A/train B/train A/test B/test``           the same, with splits below
``train/A train/B test/A test/B``           the same, with splits above
``trainA trainB testA testB``               as CycleGAN's authors publish their sets
``train/1.jpg``, twice as wide as high      A beside B in one picture, as pix2pix's authors do
==========================================  ================================================

``val`` stands beside ``train`` and ``test``. Suffixes of a pair may differ (png, jpg), and so may a last ``_A`` and
``_B`` of its names.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from limner.core.errors import LimnerError
from limner.data.files.layout import unwrapped
from limner.data.files.store import Store

NO_PARTNER = "no picture of that name on the other side"
_TWICE = "a second picture of that name"
_SPLITS = ("train", "test", "val")
_BOTH = re.compile(r"(train|test|val)[_-]?([ab])", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where one picture belongs.

    Args:
        side: "a" or "b".
        split: "train", "test", "val", or "" where no folder says so.
        rest: its path below side and split.
    """

    side: str
    split: str
    rest: str

    @property
    def path(self) -> str:
        """Its path with the split on top, as `limner.data.files.layout` reads it."""
        return f"{self.split}/{self.rest}" if self.split else self.rest

    def name(self, lettered: bool = False) -> str:
        """The same without suffix, and without the side's own letter at the end where names are `lettered`."""
        plain = str(PurePosixPath(self.path).with_suffix(""))
        ends = lettered and plain.lower().endswith((f"_{self.side}", f"-{self.side}"))
        return plain[:-2] if ends else plain


@dataclass
class Matched:
    """Pairs found by their names.

    Args:
        names: what both have in common, sorted, with the split on top.
        a: paths of the sources.
        b: paths of the targets.
        left_out: (path, reason) of what has no partner.
    """

    names: list[str] = field(default_factory=list)
    a: list[str] = field(default_factory=list)
    b: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def place_of(inner: str) -> Place | None:
    """Where a picture belongs by its folders; None where they do not say.

    >>> place_of("A/train/1.png")
    Place(side='a', split='train', rest='1.png')
    >>> place_of("testB/1_B.jpg").name(lettered=True)
    'test/1'
    """
    top, *below = inner.split("/")
    if not below:
        return None
    both = _BOTH.fullmatch(top)
    if both:
        return Place(both[2].lower(), both[1].lower(), "/".join(below))
    side, split = (top, below[0]) if top.lower() in ("a", "b") else (below[0], top)
    if split in _SPLITS and side.lower() in ("a", "b") and len(below) > 1:
        return Place(side.lower(), split, "/".join(below[1:]))
    return Place(side.lower(), "", "/".join(below)) if side == top else None


def places_of(names: list[str]) -> dict[str, Place] | None:
    """Where each path belongs, without those that belong nowhere; None unless there are both sides."""
    found = {name: place_of(inner) for name, inner in zip(names, unwrapped(names))}
    placed = {name: place for name, place in found.items() if place is not None}
    return placed if {p.side for p in placed.values()} == {"a", "b"} else None


def match(path: str, placed: dict[str, Place]) -> Matched:
    """Pairs of the pictures that have the same name.

    Raises:
        LimnerError: none has, or more than half have no partner.
    """
    found = matched(placed)
    alone = [file for file, why in found.left_out if why == NO_PARTNER]
    if 2 * len(alone) > len(placed):
        raise LimnerError(
            f"{path!r}: {len(alone)} of {len(placed)} pictures have no partner of the same name (such as {alone[0]}); "
            "give source and target one name, A/NAME and B/NAME"
        )
    return found


def matched(placed: dict[str, Place]) -> Matched:
    """Pairs of the pictures that have the same name, whether or not that ends in the side's letter."""
    return max((_matched(placed, lettered) for lettered in (False, True)), key=lambda found: len(found.names))


def _matched(placed: dict[str, Place], lettered: bool) -> Matched:
    sides: dict[str, dict[str, str]] = {"a": {}, "b": {}}
    found = Matched()
    for file in sorted(placed):
        side, name = sides[placed[file].side], placed[file].name(lettered)
        if name in side:
            found.left_out.append((file, _TWICE))
        else:
            side[name] = file
    found.names = sorted(sides["a"].keys() & sides["b"].keys())
    found.a = [sides["a"][name] for name in found.names]
    found.b = [sides["b"][name] for name in found.names]
    alone = {*sides["a"].values(), *sides["b"].values()} - {*found.a, *found.b}
    found.left_out += [(file, NO_PARTNER) for file in sorted(alone)]
    return found


class View:
    """Some pictures of a store under other paths. Satisfies `limner.data.files.store.Store`.

    Args:
        store: where they lie.
        places: new path -> path there.
    """

    def __init__(self, store: Store, places: dict[str, str]) -> None:
        self.store, self.places = store, places
        self.title, self.names = store.title, sorted(places)
        self.ignored: Counter[str] = Counter()
        self.quarantine: list[tuple[str, str]] = []

    def open(self, name: str) -> BinaryIO:
        """A picture for reading."""
        return self.store.open(self.places[name])

    def stamp(self, name: str) -> tuple[int, int]:
        """Size in bytes and CRC-32 of a picture's file."""
        return self.store.stamp(self.places[name])

    def metadata(self) -> bytes | None:
        """None: classes are not asked for."""
        return None
