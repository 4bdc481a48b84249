"""How well discrete codes stand for classes that the model was never told.

With unlabelled training the k-th value of a code may be any class, so values and classes are first matched one to one
such that as many images as possible agree (the Hungarian method, Kuhn 1955): *clustering accuracy*, Xie et al. 2016,
arXiv:1511.06335, eq. 10.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from limner.core.errors import LimnerError


@dataclass(frozen=True)
class Matching:
    """The best one-to-one matching of values and classes.

    Attributes:
        accuracy: share of images whose value is matched to their class.
        pairs: (value, class) of each match, in order of the values; where one side has more, some of it stay alone.
        counts: (values, classes) numbers of images.
        floor: mean accuracy of values that are shuffled over the images, which is above 1/K because they are matched
            too.
    """

    accuracy: float
    pairs: tuple[tuple[int, int], ...]
    counts: NDArray[np.int64]
    floor: float


def match(values: Tensor, labels: Tensor, n_values: int, n_classes: int, *, seed: int = 0) -> Matching:
    """Matches values (N,) in [0,n_values) with classes (N,) in [0,n_classes).

    >>> import torch
    >>> match(torch.tensor([2, 2, 0, 1]), torch.tensor([0, 0, 1, 1]), 3, 2).accuracy
    0.75

    Raises:
        LimnerError: there are no images, or not as many values as labels.
    """
    if not len(values) or len(values) != len(labels):
        raise LimnerError(
            f"{len(values)} values and {len(labels)} labels cannot be matched; give one each for an image"
        )
    v, c = values.cpu().numpy().astype(np.int64), labels.cpu().numpy().astype(np.int64)
    counts = np.bincount(v * n_classes + c, minlength=n_values * n_classes).reshape(n_values, n_classes)
    accuracy, pairs = _best(counts)
    rng = np.random.default_rng(seed)
    shuffles = [np.bincount(rng.permutation(v) * n_classes + c, minlength=counts.size) for _ in range(10)]
    floor = float(np.mean([_best(s.reshape(counts.shape))[0] for s in shuffles]))
    return Matching(accuracy, pairs, counts, floor)


def _best(counts: NDArray[np.int64]) -> tuple[float, tuple[tuple[int, int], ...]]:
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(counts, maximize=True)
    pairs = tuple((int(r), int(k)) for r, k in zip(rows, columns, strict=True))
    return float(counts[rows, columns].sum() / counts.sum()), pairs
