"""What a source function hands over: plain arrays, before they are chosen from and prepared.

Sources return these, not tensors, so that listing and explaining them needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass
class Arrays:
    """A whole set of images as it came.

    Args:
        images: (N,H,W) or (N,H,W,C) uint8, C in 1..4 (grey, grey+alpha, RGB, RGBA).
        labels: (N,) class indices.
        classes: names of the classes.
        test: (N,) bool, True for what is held out of training.
        factors: (N,F) the generative factors, where they are known.
        factor_sizes: how many values each factor takes.
        factor_names: what the factors are.
        notes: sentences for the user.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None
    classes: list[str] | None = None
    test: NDArray[np.bool_] | None = None
    factors: NDArray[np.int64] | None = None
    factor_sizes: tuple[int, ...] | None = None
    factor_names: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Cloud:
    """Points of a known density.

    Args:
        points: (N,D) float32.
        sigma: standard deviation of the noise around a centre, or around the curve.
        centres: (K,D) float32 modes of the density, or None for a curve.
        labels: (N,) which mode a point was drawn from.
    """

    points: NDArray[np.float32]
    sigma: float
    centres: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None


def last_tenth(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Marks the last 10 % of each class, (N,) bool: the hold-out of a set that came without one."""
    import numpy as np

    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        test[places[len(places) - round(len(places) / 10) :]] = True
    return test
