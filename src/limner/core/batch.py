"""What a step receives, and what a set of images has to offer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

Augment = Callable[[Tensor, Tensor], Tensor]
"""`augment(x, keys) -> x`: x (B,C,H,W) in [-1,1], keys (B,) int64 of `limner.core.chance`."""


class Images(NamedTuple):
    """A batch: `x` (B,C,H,W) float32 in [-1,1], `y` (B,) int64 class indices or None."""

    x: Tensor
    y: Tensor | None = None


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
    fingerprint: str
    notes: list[str]
    quarantine: list[tuple[str, str]]

    def __len__(self) -> int: ...

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Items as (B,C,H,W): uint8 for images, float32 for points and other ready-made values."""
        ...


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
