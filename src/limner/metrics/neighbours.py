"""Scores of neighbourhoods: how many samples could be real images, and how many real images could be samples.

Around each real image X_i lies the ball that reaches to its k-th nearest other real image, and alike for generated Y_j:

    precision        share of Y inside some ball of X; recall: share of X inside some ball of Y
                     Kynkäänniemi et al. 2019 (arXiv:1904.06991), k = 3
    density          1/(kM) Σ_ij [Y_j in the ball of X_i]: 1 for equal distributions, and above it for samples in the
                     midst of real ones; coverage: share of balls of X with some Y inside
                     Naeem et al. 2020 (arXiv:2002.09797), k = 5
    clipped density  balls of X no larger than their median, each Y counted as min(balls it is in, k) / k, the mean
                     divided by the same of real images among themselves, and 1 at most
    clipped coverage mean over X of min(Y inside its ball, k) / k, then read as the share m/M of good samples that would
                     give as much
                     Salvy et al. 2025 (arXiv:2507.01761), k = 5

Only the clipped two fall in proportion to the share of bad samples; an outlier among the real images, whose ball is
huge, spoils precision and density. For a calibration, the mass of a ball is Beta(k, N-k) whatever the distribution, so
with m good samples its count J is beta-binomial and the mean is

    f(m) = 1/k Σ_j min(j,k) C(m,j) B(k+j, N+m-k-j) / B(k, N-k) = 1 - 1/k Σ_{j<k} (k-j) P(J=j)

which needs k terms instead of m. Departure: the paper's code sets f(m) = 0 for m < k, here it is computed there too.

Balls are open, as in the authors' packages `prdc` and, for coverage, `ClippedDensityCoverage`; those of the clipped
density are closed. For precision and recall of *equal* distributions expect less than 1: about 0.87 in 16 dimensions.

Distances are float64, from matrix products in blocks. Where rounding could decide whether a sample is inside, the
distance is computed once more by subtraction, so that exact copies of images count as what they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limner.core.errors import LimnerError
from limner.metrics.sets import Array, Features, checked

Z95 = 1.959963984540054  # a normal deviate lies within ± this with 95 %
_GROUP = 16
_ENTRIES = 2**22  # of a block of distances: 32 MiB
_ROUNDING = 1e-12  # of a squared distance from a product, relative to the largest squared norm; it is about d · 1e-16


@dataclass(frozen=True)
class Neighbourhoods:
    """How two sets lie in each other's neighbourhoods.

    Attributes:
        precision: share of generated images inside a ball of `k_pr` real ones.
        recall: share of real images inside a ball of `k_pr` generated ones.
        density: balls of `k` real images that a generated one lies in, over k; not limited to 1.
        coverage: share of balls of `k` real images with a generated one inside.
        clipped_density: equivalent share of generated images that are as good as real ones.
        clipped_coverage: equivalent share of generated images that a perfect generator needs to cover as much.
        intervals: of 95 %, by the name of the score: what other samples of the same generator would give while the
            real images stay. Precision: Wilson's; density and its clipped form: normal, over samples; coverage and its
            clipped form: jackknife over samples, too wide by up to two thirds. Recall has none: removing one sample
            moves the balls of others.
        contributions: (M,) of each generated image to the clipped density, min(balls, k) / k; 0 lies in a hole.
        real_contribution: mean contribution of real images, by which the clipped density was divided.
        n: real images.
        m: generated images.
        k: of density, coverage and their clipped forms.
        k_pr: of precision and recall.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    clipped_density: float
    clipped_coverage: float
    intervals: Mapping[str, tuple[float, float]]
    contributions: Array = field(repr=False, compare=False)
    real_contribution: float
    n: int
    m: int
    k: int
    k_pr: int

    @property
    def hole_rate(self) -> float:
        """Share of generated images that contribute nothing to the clipped density: they lie where no real ones do."""
        return float((self.contributions == 0).mean())


def neighbourhoods(*, real: Features, fake: Features, k: int = 5, k_pr: int = 3) -> Neighbourhoods:
    """All scores of neighbourhoods, from one pass over the distances.

    >>> points = np.arange(100.0)[:, None]
    >>> neighbourhoods(real=points, fake=np.concatenate([points + 0.5, points + 500])).precision
    0.5

    Args:
        real: features (N,d).
        fake: features (M,d) of the same extractor.
        k: neighbours that make a ball, for density and coverage.
        k_pr: the same for precision and recall.

    Raises:
        LimnerError: a set has no more images than neighbours, dimensions differ, or a feature is not finite.
    """
    if k < 1 or k_pr < 1:
        raise LimnerError(f"a neighbourhood has at least 1 neighbour, got k={k} and k_pr={k_pr}")
    x, y = (torch.from_numpy(a) for a in checked(max(k, k_pr) + 1, real=real, fake=fake))
    apart, who = _nearest(x, x, max(k, k_pr), same=True)
    radius, radius_pr = apart[:, k - 1], apart[:, k_pr - 1]
    clipped = radius.clamp(max=_median(radius))
    real_counts = torch.bincount(who[:, :k][apart[:, :k] <= clipped[:, None]], minlength=len(x))
    real_contribution = float((real_counts.clamp(max=k).double() / k).mean())

    balls = _Balls(x, y, k, radius, radius_pr, clipped, _nearest(y, y, k_pr, same=True)[0][:, -1])
    for start, distances in _blocks(x, y):
        balls.count(start, distances)

    contributions = balls.near_clipped.clamp(max=k).double() / k
    raw = float((balls.inside.clamp(max=k).double() / k).mean())
    f = calibration(len(x), len(y), k)
    scores = {
        "precision": float(balls.precise.double().mean()),
        "density": float(balls.near.double().mean() / k),
        "coverage": float((balls.inside > 0).double().mean()),
        "clipped_density": min(float(contributions.mean()) / real_contribution, 1.0),
        "clipped_coverage": _read(f, raw),
    }
    low, high = _around(raw, _jackknife(balls.needed_k / (k * len(x))))
    intervals = {
        "precision": wilson(int(balls.precise.sum()), len(y)),
        "density": _around(scores["density"], _error(balls.near.double() / k)),
        "coverage": _around(scores["coverage"], _jackknife(balls.needed_1 / len(x)), top=1.0),
        "clipped_density": _around(
            float(contributions.mean()) / real_contribution, _error(contributions) / real_contribution, top=1.0
        ),
        "clipped_coverage": (_read(f, low), _read(f, high)),
    }
    return Neighbourhoods(
        **scores,
        recall=float(balls.recalled.double().mean()),
        intervals=intervals,
        contributions=contributions.numpy(),
        real_contribution=real_contribution,
        n=len(x),
        m=len(y),
        k=k,
        k_pr=k_pr,
    )


def nearest(x: Features, y: Features, k: int, *, same: bool = False) -> tuple[Array, NDArray[np.int64]]:
    """The k nearest of y (M,d) to each of x (N,d): distances (N,k), the smallest first, and their indices (N,k).

    >>> nearest([[0.0], [9.0]], [[2.0], [1.0], [8.0]], 2)[1].tolist()
    [[1, 0], [2, 0]]

    Args:
        x: whose neighbours are wanted.
        y: where they are looked for.
        k: how many.
        same: x and y are one set: none is its own neighbour.

    Raises:
        LimnerError: y has too few points, dimensions differ, or a number is not finite.
    """
    x, y = checked(1, x=x, y=y)
    if not 1 <= k <= len(y) - same:
        raise LimnerError(f"{k} neighbours were asked for among {len(y) - same} images; ask for fewer, or give more")
    apart, who = _nearest(torch.from_numpy(x), torch.from_numpy(y), k, same=same)
    return apart.sqrt().numpy(), who.numpy()


def within(x: Features, reach: float) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Pairs (P,2) of x (N,d), i < j, that lie no farther apart than `reach`, and their distances (P,), some at a time.

    >>> [pairs.tolist() for pairs, _ in within([[0.0], [5.0], [0.5]], 1.0)]
    [[[0, 2]]]
    """
    (x,) = checked(1, x=x)
    points = torch.from_numpy(x)
    slack = _ROUNDING * float(_norms(points - points.mean(0)).max())
    for start, distances in _blocks(points, points):
        row, column = (distances <= reach**2 + slack).nonzero(as_tuple=True)
        row = row + start
        above = row < column
        row, column = row[above], column[above]
        apart = _pairwise(points, points, row, column).sqrt_()
        close = apart <= reach
        yield torch.stack([row[close], column[close]], 1).numpy(), apart[close].numpy()


def calibration(n: int, m: int, k: int) -> Array:
    """Table f (m+1,): mean over n real images of min(J, k) / k, in expectation, with 0…m good samples.

    >>> calibration(100, 100, 1)[:2].round(12).tolist()  # a ball of one neighbour holds 1/n of the mass
    [0.0, 0.01]
    """
    good = np.arange(m + 1, dtype=np.float64)
    # P(J=0) = Π (n-k+t)/(n+t) over t < m; its ratios for j follow from those of binomials and Beta functions.
    steps = np.arange(m, dtype=np.float64)
    p = np.concatenate([[1.0], np.cumprod((n - k + steps) / (n + steps))])
    short = k * p
    for j in range(1, k):
        left = n + good - k - j
        p = p * np.maximum(good - j + 1, 0) / j * (k + j - 1) / np.where(left > 0, left, 1)
        short += (k - j) * p
    return 1 - short / k


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Interval of 95 % of a share (Wilson 1927).

    >>> tuple(round(v, 3) for v in wilson(0, 10))
    (0.0, 0.278)
    """
    share, z = hits / n, Z95**2 / n
    middle, half = share + z / 2, Z95 * math.sqrt(share * (1 - share) / n + z / (4 * n))
    low, high = (middle - half) / (1 + z), (middle + half) / (1 + z)
    return (0.0 if hits == 0 else low), (1.0 if hits == n else high)


class _Balls:
    """Counts who is in whose ball, a block of rows at a time. Radii are squared."""

    def __init__(
        self, x: Tensor, y: Tensor, k: int, radius: Tensor, radius_pr: Tensor, clipped: Tensor, radius_fake: Tensor
    ) -> None:
        self.x, self.y, self.k = x, y, k
        self.radii = torch.stack([radius, radius_pr, clipped], 1)
        self.reach, self.radius_fake = torch.maximum(radius, radius_pr), radius_fake
        self.slack = _ROUNDING * max(float(_norms(x - y.mean(0)).max()), float(_norms(y - y.mean(0)).max()))
        self.inside = torch.zeros(len(x), dtype=torch.int64)  # samples in the ball of each real image
        self.recalled = torch.zeros(len(x), dtype=torch.bool)
        self.near = torch.zeros(len(y), dtype=torch.int64)  # balls that each sample is in
        self.near_clipped = torch.zeros_like(self.near)
        self.precise = torch.zeros(len(y), dtype=torch.bool)
        # Balls that would lose by the removal of this sample: those with one inside, and with k at most.
        self.needed_1, self.needed_k = torch.zeros(2, len(y), dtype=torch.float64)

    def count(self, start: int, distances: Tensor) -> None:
        """Takes in squared distances (B,M) of the real images from `start` on; destroys them."""
        stop, m = start + len(distances), len(self.y)
        row, column = (distances <= self.reach[start:stop, None] + self.slack).nonzero(as_tuple=True)
        within = self._exact(distances[row, column], row + start, column)
        radius, radius_pr, clipped = self.radii[row + start].unbind(1)
        self.precise[column[within < radius_pr]] = True
        self.near_clipped += torch.bincount(column[within <= clipped], minlength=m)
        inner = within < radius
        row, column = row[inner], column[inner]
        inside = torch.bincount(row, minlength=len(distances))
        self.inside[start:stop] = inside
        self.near += torch.bincount(column, minlength=m)
        self.needed_1 += torch.bincount(column[inside[row] == 1], minlength=m)
        self.needed_k += torch.bincount(column[inside[row] <= self.k], minlength=m)

        least = distances.sub_(self.radius_fake).amin(1)
        self.recalled[start:stop] = least < -self.slack
        unsure = (least.abs() <= self.slack).nonzero().squeeze(1)
        row, column = (distances[unsure] <= self.slack).nonzero(as_tuple=True)
        row = unsure[row] + start
        self.recalled[row[_pairwise(self.x, self.y, row, column) < self.radius_fake[column]]] = True

    def _exact(self, distances: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Those that rounding could put on the wrong side of a radius, anew."""
        close = ((distances[:, None] - self.radii[row]).abs() <= self.slack).any(1).nonzero().squeeze(1)
        distances[close] = _pairwise(self.x, self.y, row[close], column[close])
        return distances


def _nearest(x: Tensor, y: Tensor, k: int, *, same: bool = False) -> tuple[Tensor, Tensor]:
    """Squared distances (N,k) by subtraction, the smallest first, and indices (N,k)."""
    found = torch.empty(len(x), k, dtype=torch.int64)
    for start, distances in _blocks(x, y):
        if same:
            distances.diagonal(start).fill_(math.inf)
        found[start : start + len(distances)] = _smallest(distances, k)
    apart = torch.empty(found.shape, dtype=torch.float64)
    everyone = torch.arange(len(x))
    for i, column in enumerate(found.T):
        apart[:, i] = _pairwise(x, y, everyone, column)
    apart, order = apart.sort(dim=1, stable=True)
    return apart, found.gather(1, order)


def _smallest(values: Tensor, k: int) -> Tensor:
    """Indices (B,k) of the k smallest of each row, in no order.

    They lie in the k groups with the smallest minima, which are found much faster than they are.
    """
    groups = values.shape[1] // _GROUP
    if groups <= 2 * k:
        return values.topk(k, largest=False).indices
    whole = groups * _GROUP
    grouped = values[:, :whole].unflatten(1, (_GROUP, groups))
    chosen = grouped.amin(1).topk(k, largest=False).indices  # (B,k)
    columns = (chosen[:, None, :] + groups * torch.arange(_GROUP)[:, None]).flatten(1)
    rest = torch.arange(whole, values.shape[1]).expand(len(values), -1)
    columns = torch.cat([columns, rest], 1)
    return columns.gather(1, values.gather(1, columns).topk(k, largest=False).indices)


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Squared distances of some rows of x to all of y, with the first row's number. Each block overwrites the last."""
    middle = y.mean(0)  # a common offset would cost digits
    x, y = x - middle, y - middle
    # |x|² + |y|² - 2 x·y is itself one product, of longer vectors.
    left = torch.cat([x, _norms(x), torch.ones(len(x), 1, dtype=x.dtype)], 1)
    right = torch.cat([-2 * y, torch.ones(len(y), 1, dtype=y.dtype), _norms(y)], 1).T
    size = max(1, min(_ENTRIES // len(y), len(x)))
    buffer = torch.empty(size, len(y), dtype=x.dtype)
    for start in range(0, len(x), size):
        part = left[start : start + size]
        yield start, torch.mm(part, right, out=buffer[: len(part)])


def _norms(x: Tensor) -> Tensor:
    return x.square().sum(1, keepdim=True)


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances of pairs (P,d); the same for the same pair, whatever the others are."""
    return (x - y).square_().sum(1)


def _pairwise(x: Tensor, y: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """The same for the pairs that the indices name, in bounded memory."""
    found = torch.empty(len(row), dtype=x.dtype)
    for i in range(0, len(row), step := max(1, _ENTRIES // x.shape[1])):
        some = slice(i, i + step)
        found[some] = _squared(x[row[some]], y[column[some]])
    return found


def _median(values: Tensor) -> float:
    """Of squared radii: the square of the radii's median."""
    ordered = values.sort().values
    low, high = float(ordered[(len(values) - 1) // 2]), float(ordered[len(values) // 2])
    return low if low == high else ((math.sqrt(low) + math.sqrt(high)) / 2) ** 2


def _read(f: Array, value: float) -> float:
    return float(np.searchsorted(f, value) / len(f))


def _error(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values))


def _jackknife(losses: Tensor) -> float:
    """Standard error of a mean that falls by so much when one sample is left out (Efron and Stein 1981)."""
    m = len(losses)
    return math.sqrt((m - 1) / m * float((losses - losses.mean()).square().sum()))


def _around(value: float, error: float, top: float = math.inf) -> tuple[float, float]:
    return min(max(value - Z95 * error, 0.0), top), min(value + Z95 * error, top)
