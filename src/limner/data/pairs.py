"""Data sets for translation: pairs, and two domains without pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from limner.core.batch import Augment, Dataset, ImageSet, Paired, Part, Unpaired, batch_of
from limner.core.errors import LimnerError
from limner.data.degradations import Degradation
from limner.data.steps import fingerprint


class StackedPairs(ImageSet):
    """Two sets that are read and augmented as one, with items (Ca+Cb,H,W): source channels first. Satisfies `Dataset`.

    Args:
        a: sources.
        b: their targets, in the same order and of the same height and width.
    """

    labels: Tensor | None = None

    def __init__(self, a: Dataset, b: Dataset) -> None:
        if len(a) != len(b) or a.shape[1:] != b.shape[1:]:
            raise LimnerError(
                f"{a.name}: {len(a)} sources {a.shape} cannot pair with {len(b)} targets {b.shape}; "
                "give one source per target, of the same height and width"
            )
        self.a, self.b, self.name = a, b, b.name
        self.shape = (a.shape[0] + b.shape[0], *b.shape[1:])
        self.augment: tuple[Augment, ...] = b.augment
        self.pixels = None if a.pixels is None or b.pixels is None else torch.cat([a.pixels, b.pixels], 1)
        self.notes, self.quarantine = list(b.notes), [*a.quarantine, *b.quarantine]

    def __len__(self) -> int:
        return len(self.b)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of both fingerprints."""
        return fingerprint(self.a.fingerprint, self.b.fingerprint)

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Items as (B,Ca+Cb,H,W) uint8."""
        return torch.cat([self.a.fetch(indices), self.b.fetch(indices)], 1)


class PairSet(ImageSet):
    """Pairs of a source and a target. Satisfies `Dataset` (of targets).

    Args:
        stacked: the set that is read and augmented: a `StackedPairs`, or images alone where `task` makes their sources.
        task: makes sources of targets; None for a `StackedPairs`.
        name: the name of the set; that of `stacked` by default.
    """

    batch_type: type = Paired
    labels: Tensor | None = None
    pixels: Tensor | None = None  # `stacked` has them; the targets alone would be a second copy

    def __init__(self, stacked: Dataset, task: Degradation | None = None, name: str | None = None) -> None:
        self.stacked, self.task, self.name = stacked, task, name or stacked.name
        if task is None:
            if not isinstance(stacked, StackedPairs):
                raise LimnerError(f"{stacked.name} has images without sources; set task to make them")
            self.source, self.shape = stacked.a.shape, stacked.b.shape
        else:
            self.shape = stacked.shape
            self.source = task.source(self.shape)
        self.pairing: dict[str, Any] | None = None if task is None else task.to_dict()
        self.augment = stacked.augment
        self.notes, self.quarantine = stacked.notes, stacked.quarantine

    def __len__(self) -> int:
        return len(self.stacked)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self)} × {self.source} -> {self.shape})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the images' fingerprint and the task."""
        return fingerprint(self.stacked.fingerprint, repr(self.pairing))

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Targets as (B,C,H,W) uint8."""
        return self.stacked.fetch(indices)[:, -self.shape[0] :]

    def parts(self) -> tuple[Any, ...]:
        """`stacked`, so that a source is mirrored with its target."""
        return (self.stacked,)

    def collate(self, parts: Sequence[Part]) -> Paired:
        """Sources and targets, in [-1,1]."""
        (part,) = parts
        if self.task is not None:
            return Paired(self.task(part.x, part.keys), part.x)
        c = self.source[0]
        return Paired(part.x[:, :c], part.x[:, c:])

    def facts(self) -> dict[str, Any]:
        """Shapes of targets and of sources, and the degradation that makes sources of targets."""
        return super().facts() | {"source": tuple(self.source), "pairing": self.pairing}

    def pairs(self, indices: Sequence[int]) -> Paired:
        """Sources (B,C',H,W) and targets (B,C,H,W) in [-1,1], without augmentation and the same each time."""
        batch: Paired = batch_of(self, [indices])
        return batch


class DomainSet(ImageSet):
    """Two domains without pairs. Satisfies `Dataset` (of the second).

    Args:
        a: images to translate from.
        b: images to translate to, of the same shape.
        name: the name of the set.
        known: whether the i-th images of both are in fact a pair. Scores use that; training never does.
        notes: messages for the user, besides those of `a` and `b`.
    """

    batch_type: type = Unpaired
    labels: Tensor | None = None
    pixels: Tensor | None = None

    def __init__(
        self, a: Dataset, b: Dataset, name: str | None = None, *, known: bool = False, notes: Sequence[str] = ()
    ) -> None:
        if a.shape != b.shape:
            raise LimnerError(
                f"{a.name} has images {a.shape} and {b.name} has {b.shape}; set size and channels to make them the same"
            )
        if known and len(a) != len(b):
            raise LimnerError(
                f"{a.name} has {len(a)} images and {b.name} has {len(b)}; known pairs need as many of each"
            )
        self.a, self.b, self.known = a, b, known
        self.name, self.shape, self.source = name or f"{a.name} and {b.name}", b.shape, a.shape
        self.augment = b.augment
        self.notes, self.quarantine = [*notes, *a.notes, *b.notes], [*a.quarantine, *b.quarantine]

    def __len__(self) -> int:
        return max(len(self.a), len(self.b))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self.a)} and {len(self.b)} × {self.shape})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of both fingerprints."""
        return fingerprint(self.a.fingerprint, self.b.fingerprint)

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Images of the second domain as (B,C,H,W) uint8; indices beyond its end start again at 0."""
        return self.b.fetch([i % len(self.b) for i in indices])

    def parts(self) -> tuple[Any, ...]:
        """The second domain and the first; each is shuffled independently."""
        return self.b, self.a

    def facts(self) -> dict[str, Any]:
        """The shapes of both domains."""
        return super().facts() | {"source": tuple(self.source)}

    def collate(self, parts: Sequence[Part]) -> Unpaired:
        """Images of the first and of the second domain."""
        b, a = parts
        return Unpaired(a.x, b.x)
