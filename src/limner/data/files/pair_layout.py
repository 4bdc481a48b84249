"""Reads from paths which image is a source (A) and which is a target (B).

==========================================  ================================================
``A/ B/``                                   pairs by name, or two domains
``A/train B/train A/test B/test``           the same with splits
``train/A train/B test/A test/B``           the same with splits
``trainA trainB testA testB``               the layout of CycleGAN's authors
``train/1.jpg``, twice as wide as high      A beside B in one image, the layout of pix2pix's authors
==========================================  ================================================

Splits have the names of `limner.data.files.splits`, in any case. The two names of a pair may have different suffixes
(png, jpg) and may end in ``_A`` and ``_B``.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from limner.data.files import first_reading
from limner.data.files.layout import unwrapped
from limner.data.files.reading import LATEST
from limner.data.files.splits import WORDS, split_of
from limner.data.files.store import Store

NO_PARTNER = "no image of that name on the other side"
_DUPLICATE = "a second image of that name"
_SPLIT_AND_DOMAIN = re.compile(rf"({'|'.join(WORDS)})[_-]?([ab])", re.IGNORECASE)


@dataclass(frozen=True)
class DomainPath:
    """The path of an image, with its domain and split.

    Args:
        domain: "a" or "b".
        split: "train", "valid", "test", or "" where no folder says it.
        inner: the path below the folders of domain and split.
    """

    domain: str
    split: str
    inner: str

    @property
    def path(self) -> str:
        """The path without the domain's folder, with the split first, as `limner.data.files.layout` reads it."""
        return f"{self.split}/{self.inner}" if self.split else self.inner

    def name(self, drop_letter: bool = False) -> str:
        """`path` without its suffix; `drop_letter` also removes a final ``_A`` or ``_B`` of its own domain."""
        stem = str(PurePosixPath(self.path).with_suffix(""))
        has_letter = stem.lower().endswith((f"_{self.domain}", f"-{self.domain}"))
        return stem[:-2] if drop_letter and has_letter else stem


@dataclass
class MatchedPairs:
    """Images that are pairs because they have the same name.

    Args:
        names: the common names, sorted, with the split first.
        a: paths of the sources.
        b: paths of the targets.
        left_out: (path, reason) of each other image.
    """

    names: list[str] = field(default_factory=list)
    a: list[str] = field(default_factory=list)
    b: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def domain_path(inner: str, reading: int = LATEST) -> DomainPath | None:
    """Reads domain and split from a path; None where it names no domain.

    Args:
        inner: a path, without the folders that all images share.
        reading: as in `limner.data.files.reading`.

    >>> domain_path("A/train/1.png")
    DomainPath(domain='a', split='train', inner='1.png')
    >>> domain_path("testB/1_B.jpg").name(drop_letter=True)
    'test/1'
    """
    top, *below = inner.split("/")
    if not below:
        return None
    both = (first_reading.SPLIT_AND_DOMAIN if reading == 1 else _SPLIT_AND_DOMAIN).fullmatch(top)
    if both:
        split = both[1].lower()
        return DomainPath(both[2].lower(), split if reading == 1 else WORDS[split], "/".join(below))
    domain, folder = (top, below[0]) if top.lower() in ("a", "b") else (below[0], top)
    said = first_reading.split_of(folder) if reading == 1 else split_of(folder)
    if said and domain.lower() in ("a", "b") and len(below) > 1:
        return DomainPath(domain.lower(), said, "/".join(below[1:]))
    return DomainPath(domain.lower(), "", "/".join(below)) if domain == top else None


def domain_paths(names: list[str], reading: int = LATEST) -> dict[str, DomainPath] | None:
    """The `DomainPath` of each image that has a domain; None unless both domains occur."""
    if reading > 1:
        names = [name for name in names if "/" in name]  # a picture beside the folders does not hide them
    parsed = {name: domain_path(inner, reading) for name, inner in zip(names, unwrapped(names, reading))}
    paths = {name: path for name, path in parsed.items() if path is not None}
    return paths if {p.domain for p in paths.values()} == {"a", "b"} else None


def on_no_side(names: list[str], paths: dict[str, DomainPath]) -> list[str]:
    """A sentence on the images that are in neither of two domains, if there are any."""
    others = [name for name in names if name not in paths]
    return [f"left out {len(others)} images that are neither in A/ nor in B/ (such as {others[0]})"] if others else []


def match_names(paths: dict[str, DomainPath]) -> MatchedPairs:
    """Pairs images of the same name, with or without the final letter of the domain, whichever gives more pairs."""
    return max((_match(paths, drop_letter) for drop_letter in (False, True)), key=lambda pairs: len(pairs.names))


def _match(paths: dict[str, DomainPath], drop_letter: bool) -> MatchedPairs:
    domains: dict[str, dict[str, str]] = {"a": {}, "b": {}}
    pairs = MatchedPairs()
    for file in sorted(paths):
        domain, name = domains[paths[file].domain], paths[file].name(drop_letter)
        if name in domain:
            pairs.left_out.append((file, _DUPLICATE))
        else:
            domain[name] = file
    pairs.names = sorted(domains["a"].keys() & domains["b"].keys())
    pairs.a = [domains["a"][name] for name in pairs.names]
    pairs.b = [domains["b"][name] for name in pairs.names]
    single = {*domains["a"].values(), *domains["b"].values()} - {*pairs.a, *pairs.b}
    pairs.left_out += [(file, NO_PARTNER) for file in sorted(single)]
    return pairs


class View:
    """Some images of a store under other paths. Satisfies `limner.data.files.store.Store`.

    Args:
        store: has the files.
        paths: new path -> path in the store.
        part: a name of these images, unlike that of other views of the store.
    """

    def __init__(self, store: Store, paths: dict[str, str], part: str) -> None:
        self.store, self.paths = store, paths
        self.key, self.looked = f"{store.key}\0{part}", store.looked
        self.title, self.names, self.reading = store.title, sorted(paths), store.reading
        self.ignored: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.hidden: set[str] = set()
        self.quarantine: list[tuple[str, str]] = []
        self.tables: list[str] = []

    def open(self, name: str) -> BinaryIO:
        """Opens an image for reading."""
        return self.store.open(self.paths[name])

    def stamps(self) -> NDArray[np.int64]:
        """(N,4): those of the store."""
        return self.store.stamps()[[bisect_left(self.store.names, self.paths[name]) for name in self.names]]

    def stamp(self, name: str) -> tuple[int, int]:
        """Size in bytes and CRC-32 of an image file."""
        return self.store.stamp(self.paths[name])

    def metadata(self) -> bytes | None:
        """None, because domains have no classes."""
        return None

    def table(self, path: str) -> bytes:
        """The content of a table of the store."""
        return self.store.table(path)
