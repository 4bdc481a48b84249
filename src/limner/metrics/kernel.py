"""Kernel distances between sets: the maximum mean discrepancy (MMD), and KID, which is one in a space of features.

Gretton et al. 2012 (*A kernel two-sample test*), Lemma 6, for x (N) and y (M):

    MMD² = 1/(N(N-1)) Σ_{i≠j} k(x_i,x_j) + 1/(M(M-1)) Σ_{i≠j} k(y_i,y_j) - 2/(NM) Σ_ij k(x_i,y_j)

This is unbiased, so for two sets of one distribution it is negative about as often as positive; nothing is clamped.
KID (Bińkowski et al. 2018, arXiv:1801.01401) uses k(x,y) = (x·y/d + 1)³. The paper averages it over random subsets,
whose standard deviation is no standard error, because subsets overlap and are smaller. Here all images are used at
once.

The standard error is that of a U-statistic of two samples (Hoeffding 1948). With g the mean of k over one argument and
k~ what is left of k when both means are taken out,

    Var = 4/N Var h(x) + 4/M Var h(y)                                                first order,  h = g_same - g_other
        + 2/(N(N-1)) E k~(x,x')² + 2/(M(M-1)) E k~(y,y')² + 4/(NM) E k~(x,y)²        second order

The first order vanishes for equal distributions, so both are needed. Means over finite rows are noisy: the sample
variance of h over rows, an estimate of Var h, contains the second order twice, so one of them is subtracted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from limner.metrics.sets import Features, checked, subsample

Kernel = Callable[[Tensor, Tensor], Tensor]
"""`kernel(x, y) -> k`: x (A,d), y (B,d), float64; k (A,B), symmetric in x and y."""

_BLOCK = 1024


@dataclass(frozen=True)
class MMD:
    """An unbiased squared maximum mean discrepancy.

    Attributes:
        value: it may fall below 0.
        error: its standard error over both sets.
    """

    value: float
    error: float


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """KID's kernel (x·y/d + 1)³."""
    k = torch.addmm(torch.ones((), dtype=x.dtype), x, y.T, alpha=1 / x.shape[1])
    return k.square().mul_(k)


def gaussians(scale: float) -> Kernel:
    """Mean of the five kernels exp(-|x-y|²/(2 s²)) with s = scale · {½, √½, 1, √2, 2}.

    One scale may miss a difference that another detects (Gretton et al. 2012, *Optimal kernel choice*).

    >>> k = gaussians(1.0)(torch.zeros(1, 1).double(), torch.ones(1, 1).double())
    >>> bool(torch.isclose(k, torch.tensor([-2.0, -1, -0.5, -0.25, -0.125]).double().exp().mean()))
    True
    """

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        distances = torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist").square_()
        power = distances.mul_(-1 / (8 * scale**2)).exp_()  # the widest; each square halves s²
        total = power.clone()
        for _ in range(4):
            total.add_(power.square_())
        return total.mul_(1 / 5)

    return kernel


def median_distance(x: Features, y: Features) -> float:
    """Median distance of pairs in the union of both sets, from at most 1,000 evenly spaced points of each."""
    pooled = np.concatenate([subsample(a, 1000) for a in checked(x=x, y=y)])
    return float(torch.pdist(torch.from_numpy(pooled)).median())


def mmd(x: Features, y: Features, kernel: Kernel | None = None) -> MMD:
    """Unbiased MMD² of x (N,d) and y (M,d), such as codes of images and draws of the prior.

    >>> mmd([[0.0], [0.0]], [[3.0], [3.0]], kernel=lambda x, y: x @ y.T).value
    9.0

    Args:
        x: one set.
        y: the other set; the result is symmetric.
        kernel: default `gaussians` around the median distance, which makes the result independent of a common scale.

    Raises:
        LimnerError: a set has fewer than 2 points, dimensions differ, or a number is not finite.
    """
    x, y = checked(x=x, y=y)
    return _mmd(torch.from_numpy(x), torch.from_numpy(y), kernel or gaussians(median_distance(x, y) or 1.0))


def kid(*, real: Features, fake: Features) -> MMD:
    """KID of generated images, over all of them.

    Args:
        real: features (N,d).
        fake: features (M,d) of the same extractor.

    Raises:
        LimnerError: there are fewer than 2 of one kind, dimensions differ, or a feature is not finite.
    """
    x, y = checked(real=real, fake=fake)
    return _mmd(torch.from_numpy(x), torch.from_numpy(y), cubic)


@dataclass(frozen=True)
class _Sums:
    """Means over rows and columns of a kernel matrix, and mean and variance of its entries."""

    rows: Tensor
    columns: Tensor
    mean: float
    variance: float


def _mmd(x: Tensor, y: Tensor, kernel: Kernel) -> MMD:
    n, m = len(x), len(y)
    xx, yy, xy = _within(x, kernel), _within(y, kernel), _between(x, y, kernel)
    value = xx.mean + yy.mean - 2 * xy.mean
    # mean squares of the kernels without their means over rows and columns; an estimate, so it may fall below 0
    residual_xx = max(xx.variance - 2 * float(xx.rows.var()), 0.0)
    residual_yy = max(yy.variance - 2 * float(yy.rows.var()), 0.0)
    residual_xy = max(xy.variance - float(xy.rows.var()) - float(xy.columns.var()), 0.0)
    second = 2 * residual_xx / (n * (n - 1)) + 2 * residual_yy / (m * (m - 1)) + 4 * residual_xy / (n * m)
    first = 4 * float((xx.rows - xy.rows).var()) / n + 4 * float((yy.rows - xy.columns).var()) / m
    return MMD(value, max(first - second, second) ** 0.5)


def _within(x: Tensor, kernel: Kernel) -> _Sums:
    """Sums without the diagonal; only the blocks on and above it are computed."""
    n = len(x)
    rows = torch.zeros(n, dtype=torch.float64)
    squares = 0.0
    for i in range(0, n, _BLOCK):
        a = slice(i, min(i + _BLOCK, n))
        k = kernel(x[a], x[a]).fill_diagonal_(0)
        rows[a] += k.sum(1)
        squares += float(k.square().sum())
        for j in range(a.stop, n, _BLOCK):
            b = slice(j, min(j + _BLOCK, n))
            k = kernel(x[a], x[b])
            rows[a] += k.sum(1)
            rows[b] += k.sum(0)
            squares += 2 * float(k.square_().sum())
    mean = float(rows.sum()) / (n * (n - 1))
    rows /= n - 1
    return _Sums(rows, rows, mean, squares / (n * (n - 1)) - mean**2)


def _between(x: Tensor, y: Tensor, kernel: Kernel) -> _Sums:
    rows, columns = (torch.zeros(len(a), dtype=torch.float64) for a in (x, y))
    squares = 0.0
    for i in range(0, len(x), _BLOCK):
        for j in range(0, len(y), _BLOCK):
            k = kernel(x[i : i + _BLOCK], y[j : j + _BLOCK])
            rows[i : i + _BLOCK] += k.sum(1)
            columns[j : j + _BLOCK] += k.sum(0)
            squares += float(k.square_().sum())
    size = len(x) * len(y)
    mean = float(rows.sum()) / size
    return _Sums(rows / len(y), columns / len(x), mean, squares / size - mean**2)
