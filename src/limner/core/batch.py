"""Batches, and the protocol of the data sets that make them.

A data set makes batches (`Dataset.collate`), and a model declares the type of batch that it takes (`batch_type`). The
code between them does not depend on the content of a batch. So a new type of batch is added here, with an entry in
`KINDS`, and nowhere else in `core`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from limner.core.condition import Condition
from limner.core.labelling import Captions, Mismatches
from limner.core.rng import keys, seed_of

Augment = Callable[[Tensor, Tensor], Tensor]
"""`augment(x, keys) -> x`: x (B,C,H,W) in [-1,1], keys (B,) int64 of `limner.core.rng`."""


class Images(NamedTuple):
    """A batch of images `x` (B,C,H,W) float32 in [-1,1], with labels `y` of `Dataset.condition`, or None."""

    x: Tensor
    y: Tensor | None = None


class Mismatched(NamedTuple):
    """Images `x` (B,C,H,W) float32 in [-1,1] with their labels `y`, and labels `wrong` that do not describe them.

    Both are labels of `Dataset.condition`. Wrong labels are those of other images, all of which are equally likely.
    """

    x: Tensor
    y: Tensor
    wrong: Tensor


class Paired(NamedTuple):
    """A batch of pairs: sources `a` (B,C',H,W) and targets `b` (B,C,H,W), both float32 in [-1,1]."""

    a: Tensor
    b: Tensor


class Unpaired(NamedTuple):
    """A batch of two domains without pairs: `a` (B,C,H,W) and `b` (B,C,H,W), both float32 in [-1,1]."""

    a: Tensor
    b: Tensor


class Styled(NamedTuple):
    """Images `x` (B,3,H,W) and style images, each (1,3,h,w) of its own size, float32 in [-1,1].

    `masks` holds for each style the area where it applies, (1,1,H,W) in [0,1], or None for the whole image. `first` is
    the initial image of the optimisation, (1,3,h,w), or None.
    """

    x: Tensor
    styles: tuple[Tensor, ...]
    masks: tuple[Tensor | None, ...]
    first: Tensor | None = None


@dataclass(frozen=True)
class Kind:
    """A type of batch, as recipes and messages describe it.

    Attributes:
        name: name of the type in the attribute `gives` of data sources.
        source: the data source that reads a path for models that take this type.
        contents: the content of a data set of this type, for messages.
        example: how to choose such a data set, for messages.
    """

    name: str
    source: str
    contents: str
    example: str


KINDS: dict[type, Kind] = {
    Images: Kind("images", "folder", "images alone", "images alone, such as data=photos/"),
    Mismatched: Kind(
        "mismatched",
        "folder",
        "wrong labels too",
        "images with labels, such as data=photos/ with a folder for each class",
    ),
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
    """The images of a batch that come from one data set.

    Attributes:
        x: images (B,C,H,W) in [-1,1], augmented.
        y: their labels, or None.
        seed: seed of the training.
        epochs: (B,) int64, epoch of each image.
        ids: (B,) int64, index of each image in its data set.
    """

    x: Tensor
    y: Tensor | None
    seed: int
    epochs: Tensor
    ids: Tensor

    @cached_property
    def keys(self) -> Tensor:
        """Keys (B,) int64, which determine all random choices for each image."""
        return keys(self.seed, self.epochs, self.ids)


@runtime_checkable
class Dataset(Protocol):
    """A set of images of one shape.

    Attributes:
        name: its name for users, e.g. ``"mnist-5k"``.
        shape: (C,H,W) of every item.
        condition: the kind of labels, which a conditional model takes too, or None.
        labels: (N,…) on the CPU, the labels as `condition` reads them, or None.
        texts: the captions of each image, none or several; None if the set has no captions.
        pixels: all items as one (N,C,H,W) uint8 (or float32) tensor if they are in memory, else None.
        augment: pure functions that are applied in order to each training batch.
        fingerprint: sha256 of the content and of how it was prepared.
        notes: sentences for the user about how the data were read.
        quarantine: (path, reason) of each file that was left out.
    """

    name: str
    shape: tuple[int, int, int]
    condition: Condition | None
    labels: Tensor | None
    texts: Sequence[Sequence[str]] | None
    pixels: Tensor | None
    augment: tuple[Augment, ...]
    notes: list[str]
    quarantine: list[tuple[str, str]]

    def __len__(self) -> int: ...

    @property
    def batch_type(self) -> type:
        """The type that `collate` returns; one of `KINDS`."""
        ...

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes when `condition` is one of classes, else None."""
        ...

    @property
    def attributes(self) -> dict[str, list[str]] | None:
        """Names of the values of each attribute when `condition` is one of attributes, else None."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash that changes with the content of the set."""
        ...

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Items as (B,C,H,W): uint8 for images, float32 for points and other values that are not pixels."""
        ...

    def parts(self) -> tuple[Dataset, ...]:
        """The data sets that a batch is drawn from, each in its own order; for most data sets only the set itself."""
        ...

    def collate(self, parts: Sequence[Part]) -> Any:
        """A batch of type `batch_type`, on the device of the parts; there is one part for each set of `parts()`."""
        ...

    def facts(self) -> dict[str, Any]:
        """Values that constructors of models and nets take from the data by name, such as ``shape`` and ``classes``."""
        ...


@runtime_checkable
class HasDensity(Protocol):
    """A data set whose density may be known: a toy.

    Attributes:
        entropy: differential entropy in nats, or None.
    """

    @property
    def entropy(self) -> float | None: ...

    def log_density(self, x: Tensor) -> Tensor | None:
        """Log p(x) in nats, (B,) float64 on the CPU, of x (B,C,H,W); None if it is not known."""
        ...


class ImageSet:
    """Base of data sets whose batches are images with their labels.

    Attributes:
        captions: the captions as vectors, if they are the labels.
        described: the classes or attributes that images have beside their captions, and their labels (N,…), or None.
        groups: (N,) int64; a caption of an image describes the images of its group and no others.
        mismatches: the wrong labels of a batch, if it has any.
    """

    shape: tuple[int, int, int]
    batch_type: type = Images
    condition: Condition | None = None
    texts: Sequence[Sequence[str]] | None = None
    captions: Captions | None = None
    described: tuple[Condition, Tensor] | None = None
    groups: Tensor | None = None
    mismatches: Mismatches | None = None

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, or None."""
        return None if self.condition is None else self.condition.names

    @property
    def attributes(self) -> dict[str, list[str]] | None:
        """Names of the values of each attribute, or None."""
        if self.condition is None or self.condition.names is not None:
            return None
        return {attribute: list(values) for attribute, values in self.condition.values.items()} or None

    def parts(self) -> tuple[Any, ...]:
        """The set itself."""
        return (self,)

    def collate(self, parts: Sequence[Part]) -> Any:
        """The images and labels of the only part; of several captions of an image, one that its key draws."""
        (part,) = parts
        y = part.y if self.captions is None else self.captions.draw(part.ids, part.keys)
        if self.mismatches is None or y is None:
            return Images(part.x, y)
        return Mismatched(part.x, y, self.mismatches.draw(part.ids, part.keys))

    def facts(self) -> dict[str, Any]:
        """Shape, number of classes and condition."""
        values = {"shape": tuple(self.shape), "classes": 0 if self.condition is None else self.condition.size}
        return values if self.condition is None else values | {"condition": self.condition.header()}


def examples(dataset: Dataset, n: int, device: torch.device | str = "cpu") -> Any:
    """A batch of at most n items, evenly spaced over the set and not augmented; always the same."""
    parts = dataset.parts()
    n = min(n, *(len(part) for part in parts))
    return batch_of(dataset, [evenly_spaced(len(part), n) for part in parts], device)


def batch_of(dataset: Dataset, indices: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Any:
    """A batch of selected items, not augmented; always the same.

    Args:
        dataset: the data set.
        indices: the indices of the items, for each set of `Dataset.parts`.
        device: device of the batch.
    """
    parts = []
    for part, selected in zip(dataset.parts(), indices, strict=True):
        ids = torch.tensor(selected, dtype=torch.int64)
        y = None if part.labels is None else part.labels[ids].to(device)
        x = to_float(part.fetch(selected)).to(device)
        parts.append(Part(x, y, 0, torch.zeros_like(ids, device=device), ids.to(device)))
    return dataset.collate(parts)


def evenly_spaced(n: int, count: int) -> list[int]:
    """At most `count` of the indices 0 … n-1, evenly spaced and starting at 0.

    >>> evenly_spaced(10, 4)
    [0, 2, 5, 7]
    """
    count = min(n, count)
    return [i * n // count for i in range(count)]


def shuffled(n: int, seed: int = 0) -> list[int]:
    """The indices 0 … n-1 in a random order, a function of n and seed alone."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed_of(seed, n))).tolist()


def drawn(n: int, count: int, seed: int = 0) -> list[int]:
    """At most `count` of the indices 0 … n-1, drawn at random without repetition, in ascending order.

    Every item is equally likely, whatever the order of the set: the first items of a folder are those of its first
    class, and evenly spaced ones may all belong to one class where classes alternate. A smaller draw is a part of a
    larger one of the same seed.

    >>> drawn(4, 9)
    [0, 1, 2, 3]
    """
    return list(range(n)) if count >= n else sorted(shuffled(n, seed)[:count])


def at_once(x: Tensor, values: int, most: int) -> int:
    """How many images of x (N,C,H,W) have at most so many values together: from 1 to `most`.

    >>> at_once(torch.empty(9, 3, 1000, 1000), 1 << 25, 256), at_once(torch.empty(9, 1, 28, 28), 1 << 25, 256)
    (11, 256)
    """
    return max(1, min(most, values // max(1, prod(x.shape[1:]))))


LEVEL = 2 / 255
"""Distance of two grey levels of `to_float`."""


def to_float(x: Tensor) -> Tensor:
    """Converts uint8 [0,255] to float32 [-1,1]; floats pass unchanged. No other function converts pixels.

    >>> to_float(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([-1.,  1.])
    """
    return x.float().div_(127.5).sub_(1.0) if x.dtype == torch.uint8 else x


def to_uint8(x: Tensor) -> Tensor:
    """Converts float [-1,1] to uint8 [0,255], rounded and clamped; the inverse of `to_float`.

    >>> to_uint8(torch.tensor([-1.0, 0.0, 1.0, 3.0]))
    tensor([  0, 128, 255, 255], dtype=torch.uint8)
    """
    return x.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
