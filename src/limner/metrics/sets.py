"""Sets of features that scores compare: their validation, and metrics of images that arrive in parts.

A score is a pure function of features, `score(*, real, fake)`. `TwoSets` turns it into a metric with the methods of
torchmetrics (`update`, `compute`, `reset`), which extracts features at once and keeps only those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from limner.core.errors import LimnerError
from limner.metrics.extractors.features import Extractor

Array = NDArray[np.float64]
Features = Tensor | ArrayLike
T = TypeVar("T")


def name(score: str, extractor: str, n: int) -> str:
    """The name of a score with its conditions; scores with different names cannot be compared.

    >>> name("kid", "lenet64-v1", 10_000)
    'kid@lenet64-v1[n=10000]'
    """
    return f"{score}@{extractor}[n={n}]"


def checked(least: int = 2, **sets: Features) -> tuple[Array, ...]:
    """Sets of features (N,d), each as float64 on the CPU, in the order of the keywords.

    >>> checked(real=[[0.0, 1.0], [2.0, 3.0]])[0].shape
    (2, 2)

    Args:
        least: number of images that each set must have.
        **sets: features; the keywords name the images in messages: real, fake, train, test.

    Raises:
        LimnerError: the shapes are not (N,d) with one d, there are too few images, or a feature is not finite.
    """
    arrays = {kind: _array(kind, features) for kind, features in sets.items()}
    for kind, x in arrays.items():
        if len(x) < least:
            raise LimnerError(f"this score needs at least {least} {kind} images, there are {len(x)}; give more")
        if not np.isfinite(x).all():
            raise LimnerError(f"some features of {kind} images are not finite; check the images and the extractor")
    dims = {kind: x.shape[1] for kind, x in arrays.items()}
    if len(set(dims.values())) > 1:
        counts = " and ".join(f"{d} features for {kind} images" for kind, d in dims.items())
        raise LimnerError(f"there are {counts}; use one extractor for all")
    return tuple(arrays.values())


def subsample(x: Array, limit: int) -> Array:
    """At most `limit` evenly spaced rows of x, the first and the last among them."""
    return x[np.linspace(0, len(x) - 1, min(len(x), limit)).astype(int)]


def _array(kind: str, features: Features) -> Array:
    if isinstance(features, Tensor):
        features = features.detach().cpu()
        features = (features.double() if features.is_floating_point() else features).numpy()
    x = np.asarray(features)
    if x.ndim != 2 or not x.shape[1]:
        raise LimnerError(f"features of {kind} images must have the shape (N,d), got {x.shape}; extract them first")
    if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.signedinteger)):
        raise LimnerError(f"features of {kind} images must be numbers, got {x.dtype}; extract them first")
    return np.ascontiguousarray(x, dtype=np.float64)


class TwoSets(Generic[T]):
    """A score of real and generated images that arrive in parts.

    Up to rounding, the result does not depend on the order of images or on how they are divided into parts.

    >>> from limner.metrics.extractors.features import lenet64
    >>> from limner.metrics.kernel import kid
    >>> metric = TwoSets(kid, lenet64())
    >>> metric.update(torch.rand(20, 1, 28, 28), real=True)
    >>> metric.update(-torch.rand(30, 1, 28, 28), real=False)
    >>> metric.key, metric.compute().value > 0
    ('kid@lenet64-v1[n=30]', True)

    Args:
        score: a function of the keywords `real` and `fake`, features (N,d) and (M,d).
        extractor: computes the features of images.
        called: name of the score; default the name of the function.
    """

    def __init__(self, score: Callable[..., T], extractor: Extractor, called: str | None = None) -> None:
        self.score, self.extractor = score, extractor
        self.called: str = called or getattr(score, "__name__", "") or type(score).__name__
        self._parts: dict[bool, list[Tensor]] = {True: [], False: []}

    def update(self, images: Tensor, *, real: bool) -> None:
        """Adds images (B,C,H,W), uint8 or in [-1,1]."""
        self._parts[real].append(self.extractor.features(images).cpu())

    def compute(self) -> T:
        """The score of all images so far.

        Raises:
            LimnerError: there are too few images for this score.
        """
        return self.score(real=self._concatenated(True), fake=self._concatenated(False))

    def reset(self, *, keep_real: bool = False) -> None:
        """Removes all images, or only the generated ones."""
        for kind in (False,) if keep_real else (False, True):
            self._parts[kind] = []

    @property
    def key(self) -> str:
        """Name of the score with its extractor and the number of generated images so far."""
        return name(self.called, self.extractor.key, sum(len(p) for p in self._parts[False]))

    def _concatenated(self, real: bool) -> Tensor:
        return torch.cat(self._parts[real]) if self._parts[real] else torch.empty(0, self.extractor.dims)
