"""The plain arrays that source functions return, before images are selected and prepared.

They are not tensors, so that listing and explaining sources does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from limner.data.densities import Density


@dataclass
class Arrays:
    """All images of a source.

    Args:
        images: (N,H,W) or (N,H,W,C) uint8, C in 1..4 (grey, grey+alpha, RGB, RGBA).
        labels: (N,) class indices, or (N,F) the index of the value of each attribute, -1 where it is not known.
        classes: names of the classes.
        test: (N,) bool, True for held-out images.
        factors: (N,F) the generative factors, where they are known.
        factor_sizes: the number of values of each factor.
        factor_names: the names of the factors.
        notes: messages for the user.
        attributes: instead of classes, the names of the values of each attribute.
        texts: the captions of each image; none or several.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None
    classes: list[str] | None = None
    test: NDArray[np.bool_] | None = None
    factors: NDArray[np.int64] | None = None
    factor_sizes: tuple[int, ...] | None = None
    factor_names: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)
    attributes: dict[str, list[str]] | None = None
    texts: list[list[str]] | None = None


@dataclass
class Cloud:
    """Points of a line or of the plane.

    Args:
        points: (N,D) float32.
        sigma: standard deviation of the noise around a centre, or around the curve.
        centres: (K,D) float32 modes of the density, or None for a curve.
        labels: (N,) the index of the mode of each point.
        density: the density of the points, or None where it is not known.
    """

    points: NDArray[np.float32]
    sigma: float
    centres: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    density: Density | None = None


def last_tenth(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Marks the last 10 % of each class, (N,) bool, as the hold-out of a set that has no official one."""
    import numpy as np

    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        indices = np.flatnonzero(labels == label)
        test[indices[len(indices) - round(len(indices) / 10) :]] = True
    return test
