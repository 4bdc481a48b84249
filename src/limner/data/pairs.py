"""Sets for translation: pairs that were found or are made, and two domains without pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from limner.core.batch import Augment, Dataset, ImageSet, Paired, Part, Unpaired, batch_of
from limner.core.errors import LimnerError
from limner.data.degradations import Degradation
from limner.data.prepare import fingerprint


class StackedPairs(ImageSet):
    """Two sets read and augmented as one: items (Ca+Cb,H,W), source above target. Satisfies `Dataset`.

    Args:
        a: sources.
        b: their targets, in the same order and of the same height and width.
    """

    labels: Tensor | None = None

    def __init__(self, a: Dataset, b: Dataset) -> None:
        if len(a) != len(b) or a.shape[1:] != b.shape[1:]:
            raise LimnerError(
                f"{a.name}: {len(a)} sources {a.shape} do not go with {len(b)} targets {b.shape}; give as many of each"
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
        """SHA-256 of both."""
        return fingerprint(self.a.fingerprint, self.b.fingerprint)

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Items as (B,Ca+Cb,H,W) uint8."""
        return torch.cat([self.a.fetch(indices), self.b.fetch(indices)], 1)


class PairSet(ImageSet):
    """Targets, each with a source. Satisfies `Dataset` (of targets).

    Args:
        stacked: what is read and augmented as one: pictures alone where a task makes their sources, or a `StackedPairs`.
        task: makes sources of targets; None for a `StackedPairs`.
        name: how a user calls it; that of `stacked` by default.
    """

    batch_type: type = Paired
    labels: Tensor | None = None
    pixels: Tensor | None = None  # targets alone would be a second copy; `stacked` holds them

    def __init__(self, stacked: Dataset, task: Degradation | None = None, name: str | None = None) -> None:
        self.stacked, self.task, self.name = stacked, task, name or stacked.name
        if task is None:
            if not isinstance(stacked, StackedPairs):
                raise LimnerError(f"{stacked.name} holds pictures without sources; choose a task that makes them")
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
        """SHA-256 of pictures and task."""
        return fingerprint(self.stacked.fingerprint, repr(self.pairing))

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Targets as (B,C,H,W) uint8."""
        return self.stacked.fetch(indices)[:, -self.shape[0] :]

    def parts(self) -> tuple[Any, ...]:
        """Sources and targets as one, so that both are mirrored alike; where a task makes the sources, the targets."""
        return (self.stacked,)

    def collate(self, parts: Sequence[Part]) -> Paired:
        """Sources and targets, in [-1,1]."""
        (part,) = parts
        if self.task is not None:
            return Paired(self.task(part.x, part.keys), part.x)
        c = self.source[0]
        return Paired(part.x[:, :c], part.x[:, c:])

    def facts(self) -> dict[str, Any]:
        """Shape of targets and of sources, and what makes sources of targets."""
        return super().facts() | {"source": tuple(self.source), "pairing": self.pairing}

    def pairs(self, indices: Sequence[int]) -> Paired:
        """Sources (B,C',H,W) and targets (B,C,H,W) in [-1,1], not augmented, the same each time."""
        found: Paired = batch_of(self, [indices])
        return found


class DomainSet(ImageSet):
    """Two domains. Satisfies `Dataset` (of the second).

    Args:
        a: images to translate from.
        b: images to translate to, of the same shape.
        name: how a user calls it.
        known: whether the i-th images of both are a pair all the same; then scores may use it, training never does.
        notes: sentences that say what was found and done, besides those of `a` and `b`.
    """

    batch_type: type = Unpaired
    labels: Tensor | None = None
    pixels: Tensor | None = None

    def __init__(
        self, a: Dataset, b: Dataset, name: str | None = None, *, known: bool = False, notes: Sequence[str] = ()
    ) -> None:
        if a.shape != b.shape:
            raise LimnerError(
                f"{a.name} has images {a.shape} and {b.name} {b.shape}; set size and channels, so that both are alike"
            )
        if known and len(a) != len(b):
            raise LimnerError(f"{len(a)} images of {a.name} are no pairs with {len(b)} of {b.name}")
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
        """SHA-256 of both."""
        return fingerprint(self.a.fingerprint, self.b.fingerprint)

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Images of the second domain as (B,C,H,W) uint8, around again where it is the smaller one."""
        return self.b.fetch([i % len(self.b) for i in indices])

    def parts(self) -> tuple[Any, ...]:
        """The second domain, which is the set itself, and the first: each is drawn in an order of its own."""
        return self.b, self.a

    def facts(self) -> dict[str, Any]:
        """Shape of both domains."""
        return super().facts() | {"source": tuple(self.source)}

    def collate(self, parts: Sequence[Part]) -> Unpaired:
        """Images of the first and of the second domain."""
        b, a = parts
        return Unpaired(a.x, b.x)
