"""What a step receives, and what a set of images has to offer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

Augment = Callable[[Tensor, Tensor], Tensor]
"""`augment(x, keys) -> x`: x (B,C,H,W) in [-1,1], keys (B,) int64 of `limner.core.chance`."""


class Images(NamedTuple):
    """A batch: `x` (B,C,H,W) float32 in [-1,1], `y` (B,) int64 class indices or None."""

    x: Tensor
    y: Tensor | None = None


class Paired(NamedTuple):
    """A batch of pairs: `b` (B,C,H,W) is what `a` (B,C',H,W) is to become, both float32 in [-1,1]."""

    a: Tensor
    b: Tensor


class Unpaired(NamedTuple):
    """A batch of two domains, `a` (B,C,H,W) and `b` (B,C,H,W), that belong to each other as domains only."""

    a: Tensor
    b: Tensor


class Styled(NamedTuple):
    """Pictures `x` (B,3,H,W) and the styles they are to take on, each (1,3,h,w) of its own size, float32 in [-1,1].

    `masks` says where each style belongs, (1,1,H,W) in [0,1], or None for everywhere; `first` is a picture to begin
    with, (1,3,h,w), or None.
    """

    x: Tensor
    styles: tuple[Tensor, ...]
    masks: tuple[Tensor | None, ...]
    first: Tensor | None = None


@runtime_checkable
class Dataset(Protocol):
    """A set of images with a fixed shape.

    Attributes:
        name: how a user calls it, e.g. ``"mnist-5k"``.
        shape: (C,H,W) of every item.
        classes: names of the classes, or None when there are no labels.
        labels: (N,) int64 class indices on the CPU, or None.
        pixels: the whole set as one (N,C,H,W) uint8 (or float32) tensor when it is held in memory, else None.
        augment: pure functions applied in order to each training batch.
        fingerprint: sha256 of what the set contains and how it was prepared.
        notes: sentences that say what was found and done.
        quarantine: (path, reason) of each file that was left out.
    """

    name: str
    shape: tuple[int, int, int]
    classes: list[str] | None
    labels: Tensor | None
    pixels: Tensor | None
    augment: tuple[Augment, ...]
    notes: list[str]
    quarantine: list[tuple[str, str]]

    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """What it is known by: sets of other contents have another."""
        ...

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Items as (B,C,H,W): uint8 for images, float32 for points and other ready-made values."""
        ...


@runtime_checkable
class Pairs(Protocol):
    """What a `Dataset` of targets has besides, when each comes with a source that it is to be made from.

    Attributes:
        source: (C',H,W) of every source; H and W are those of the targets.
        pairing: what makes sources of targets, as a model keeps it (name and amount); None where both were given.
        joined: what is read and augmented as one, so that a source is mirrored with its target.
    """

    source: tuple[int, int, int]
    pairing: dict[str, Any] | None
    joined: Dataset

    def part(self, x: Tensor, keys: Tensor) -> Paired:
        """Sources and targets of items (B,…,H,W) of `joined`, in [-1,1]; keys (B,) int64 decide what is random."""
        ...


@runtime_checkable
class Domains(Protocol):
    """What a `Dataset` has besides, when it is the second of two sets of one shape without pairs.

    Attributes:
        a: images to translate from.
        b: images to translate to.
        known: whether the i-th of `a` and the i-th of `b` are a pair all the same, for judging.
    """

    a: Dataset
    b: Dataset
    known: bool


@runtime_checkable
class Styles(Protocol):
    """What a `Dataset` of pictures has besides, when they are to take on styles.

    Attributes:
        styles: each (1,3,h,w) uint8 of its own size.
        masks: for each style (1,1,H,W) uint8, where it belongs, or None for everywhere.
        first: (1,3,h,w) uint8, a picture to begin with, or None.
    """

    styles: tuple[Tensor, ...]
    masks: tuple[Tensor | None, ...]
    first: Tensor | None


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
