"""What a step receives, and what a set of images has to offer.

A data set makes the batches (`Dataset.collate`) and a model says which type of batch it takes (`batch_type`). Nothing
between the two knows what is in a batch, so a new type of batch is added here, with its line in `KINDS`, and nowhere
else in `core`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from limner.core.condition import Condition
from limner.core.rng import keys

Augment = Callable[[Tensor, Tensor], Tensor]
"""`augment(x, keys) -> x`: x (B,C,H,W) in [-1,1], keys (B,) int64 of `limner.core.rng`."""


class Images(NamedTuple):
    """A batch: `x` (B,C,H,W) float32 in [-1,1]; `y` is what `Dataset.condition` knows of each, or None."""

    x: Tensor
    y: Tensor | None = None


class Paired(NamedTuple):
    """A batch of pairs: `b` (B,C,H,W) is what `a` (B,C',H,W) is to become, both float32 in [-1,1]."""

    a: Tensor
    b: Tensor


class Unpaired(NamedTuple):
    """A batch of two domains without pairs, `a` (B,C,H,W) and `b` (B,C,H,W), both float32 in [-1,1]."""

    a: Tensor
    b: Tensor


class Styled(NamedTuple):
    """Images `x` (B,3,H,W) and the styles they are to take on, each (1,3,h,w) of its own size, float32 in [-1,1].

    `masks` says where each style belongs, (1,1,H,W) in [0,1], or None for everywhere; `first` is an image to begin
    with, (1,3,h,w), or None.
    """

    x: Tensor
    styles: tuple[Tensor, ...]
    masks: tuple[Tensor | None, ...]
    first: Tensor | None = None


@dataclass(frozen=True)
class Kind:
    """What a recipe and a message need to know of a type of batch.

    Attributes:
        name: what a data source calls it in `gives`.
        source: the data source that reads a path when a model takes this type.
        contents: what a set of this type has, for people.
        example: how a user gives such a set.
    """

    name: str
    source: str
    contents: str
    example: str


KINDS: dict[type, Kind] = {
    Images: Kind("images", "folder", "images alone", "images alone, such as data=photos/"),
    Paired: Kind("pairs", "pairs", "pairs", "pairs, such as data=photos/ task=colourise, or a folder with A/ and B/"),
    Unpaired: Kind(
        "domains",
        "domains",
        "two domains",
        "two domains, such as a folder with trainA and trainB, or data.name=domains data.a=… data.b=…",
    ),
    Styled: Kind(
        "styled",
        "styled",
        "styles",
        "a picture and styles: data.name=styled data.path=… style=…, or limner stylise",
    ),
}


@dataclass(frozen=True)
class Part:
    """Some images of one set, as a batch is made of them.

    Attributes:
        x: (B,C,H,W) in [-1,1], augmented.
        y: what the set's condition knows of each, or None.
        seed: of the training.
        epochs: (B,) int64, the epoch in which each is seen.
        ids: (B,) int64, its place in the set.
    """

    x: Tensor
    y: Tensor | None
    seed: int
    epochs: Tensor
    ids: Tensor

    @cached_property
    def keys(self) -> Tensor:
        """Keys (B,) int64, which decide everything random about each image."""
        return keys(self.seed, self.epochs, self.ids)


@runtime_checkable
class Dataset(Protocol):
    """A set of images with a fixed shape.

    Attributes:
        name: how a user calls it, e.g. ``"mnist-5k"``.
        shape: (C,H,W) of every item.
        condition: what is known of each image and can be asked of a model, or None.
        labels: (N,…) on the CPU, what is known of each image in the form of `condition`, or None.
        pixels: the whole set as one (N,C,H,W) uint8 (or float32) tensor when it is held in memory, else None.
        augment: pure functions applied in order to each training batch.
        fingerprint: sha256 of what the set contains and how it was prepared.
        notes: sentences that say what was found and done.
        quarantine: (path, reason) of each file that was left out.
    """

    name: str
    shape: tuple[int, int, int]
    condition: Condition | None
    labels: Tensor | None
    pixels: Tensor | None
    augment: tuple[Augment, ...]
    notes: list[str]
    quarantine: list[tuple[str, str]]

    def __len__(self) -> int: ...

    @property
    def batch_type(self) -> type:
        """What `collate` returns; one of `KINDS`."""
        ...

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes when `condition` is one of classes, else None."""
        ...

    @property
    def fingerprint(self) -> str:
        """What identifies the set: other contents have another fingerprint."""
        ...

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Items as (B,C,H,W): uint8 for images, float32 for points and other ready-made values."""
        ...

    def parts(self) -> tuple[Dataset, ...]:
        """The sets that a batch is drawn from, each in an order of its own; of most sets the set itself."""
        ...

    def collate(self, parts: Sequence[Part]) -> Any:
        """A batch of type `batch_type`, on the device of the parts, one part for each set of `parts`."""
        ...

    def facts(self) -> dict[str, Any]:
        """What constructors of models and nets may ask for by name: ``shape``, ``classes`` and the like."""
        ...


class ImageSet:
    """What most data sets do when a batch is made: they give their images, each with its label."""

    shape: tuple[int, int, int]
    batch_type: type = Images
    condition: Condition | None = None

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, or None."""
        return None if self.condition is None else self.condition.names

    def parts(self) -> tuple[Any, ...]:
        """The set itself."""
        return (self,)

    def collate(self, parts: Sequence[Part]) -> Any:
        """`Images` of the one part."""
        (part,) = parts
        return Images(part.x, part.y)

    def facts(self) -> dict[str, Any]:
        """Shape and condition."""
        known = {"shape": tuple(self.shape), "classes": 0 if self.condition is None else self.condition.size}
        return known if self.condition is None else known | {"condition": self.condition.header()}


def examples(dataset: Dataset, n: int, device: torch.device | str = "cpu") -> Any:
    """A batch of at most n items, evenly spaced over the set, not augmented, the same each time."""
    parts = dataset.parts()
    n = min(n, *(len(part) for part in parts))
    return batch_of(dataset, [evenly_spaced(len(part), n) for part in parts], device)


def batch_of(dataset: Dataset, indices: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Any:
    """A batch of chosen items, not augmented, the same each time.

    Args:
        dataset: where they come from.
        indices: for each set of `Dataset.parts` the items of it.
        device: where the batch is wanted.
    """
    parts = []
    for part, chosen in zip(dataset.parts(), indices, strict=True):
        ids = torch.tensor(chosen, dtype=torch.int64)
        y = None if part.labels is None else part.labels[ids].to(device)
        x = to_float(part.fetch(chosen)).to(device)
        parts.append(Part(x, y, 0, torch.zeros_like(ids, device=device), ids.to(device)))
    return dataset.collate(parts)


def evenly_spaced(n: int, wanted: int) -> list[int]:
    """At most `wanted` of the indices 0 … n-1, evenly spaced from the first on.

    >>> evenly_spaced(10, 4)
    [0, 2, 5, 7]
    """
    wanted = min(n, wanted)
    return [i * n // wanted for i in range(wanted)]


def to_float(x: Tensor) -> Tensor:
    """uint8 [0,255] -> float32 [-1,1]; floats pass unchanged. The one place where this is done.

    >>> to_float(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([-1.,  1.])
    """
    return x.float().div_(127.5).sub_(1.0) if x.dtype == torch.uint8 else x


def to_uint8(x: Tensor) -> Tensor:
    """Float [-1,1] -> uint8 [0,255], rounded and clamped. The inverse of `to_float`.

    >>> to_uint8(torch.tensor([-1.0, 0.0, 1.0, 3.0]))
    tensor([  0, 128, 255, 255], dtype=torch.uint8)
    """
    return x.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
