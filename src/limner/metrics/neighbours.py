"""Scores of neighbourhoods: how many samples could be real images, and how many real images could be samples.

Each real image X_i has a ball whose radius is the distance to its k-th nearest other real image; likewise each
generated image Y_j:

    precision        share of Y inside some ball of X; recall: share of X inside some ball of Y
                     Kynkäänniemi et al. 2019 (arXiv:1904.06991), k = 3
    density          1/(kM) Σ_ij [Y_j in the ball of X_i]: 1 for equal distributions, and more for samples among dense
                     real images; coverage: share of balls of X with some Y inside
                     Naeem et al. 2020 (arXiv:2002.09797), k = 5
    clipped density  balls of X no larger than their median, each Y counted as min(balls it is in, k) / k, the mean
                     divided by the same of real images among themselves, and 1 at most
    clipped coverage mean over X of min(Y inside its ball, k) / k, then read as the share m/M of good samples that would
                     give as much
                     Salvy et al. 2025 (arXiv:2507.01761), k = 5

Only the two clipped scores fall in proportion to the share of bad samples; an outlier among the real images, whose
ball is huge, spoils precision and density. The calibration uses that the mass of a ball is Beta(k, N-k) whatever the
distribution, so with m good samples its count J is beta-binomial and the mean is

    f(m) = 1/k Σ_j min(j,k) C(m,j) B(k+j, N+m-k-j) / B(k, N-k) = 1 - 1/k Σ_{j<k} (k-j) P(J=j)

which needs k terms instead of m. Departure: the paper's code sets f(m) = 0 for m < k, here it is computed there too.

Balls are open, as in the package `prdc` of Naeem et al. and, for clipped coverage, in `ClippedDensityCoverage`; those
of the clipped density are closed. In the code of Kynkäänniemi et al. the balls of precision and recall are closed. That
differs only where a distance equals a radius, as between exact copies: one image, repeated, has recall 0 with open
balls. For precision and recall of *equal* distributions expect less than 1: with 1,000 images a side in 16 dimensions
about 0.79 for k = 3, and 0.87 for k = 5.

Distances are float64, from matrix products in blocks. Where rounding could decide whether a sample is inside, the
distance is computed again by subtraction, so that exact copies of images are at the distance 0.
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
_ENTRIES = 2**22  # in a block of distances: 32 MiB
_ROUNDING = 1e-12  # of a squared distance from a product, relative to the largest squared norm; it is about d · 1e-16


@dataclass(frozen=True)
class Neighbourhoods:
    """Scores of two sets by their neighbourhoods.

    Attributes:
        precision: share of generated images inside a ball of a real one (`k_pr` neighbours).
        recall: share of real images inside a ball of a generated one (`k_pr` neighbours).
        density: number of balls of real images (`k` neighbours) that contain a generated one, over k; may exceed 1.
        coverage: share of balls of real images (`k` neighbours) that contain a generated one.
        clipped_density: equivalent share of generated images that are as good as real ones.
        clipped_coverage: equivalent share of generated images that a perfect generator needs to cover as much.
        intervals: 95 % intervals by the name of the score, over samples of the same generator and for the same real
            images. Precision: Wilson's; density and its clipped form: normal; coverage and its clipped form: jackknife,
            too wide by up to two thirds. Recall has none: removing one sample changes the balls of others.
        contributions: (M,) contribution of each generated image to the clipped density, min(balls, k) / k; 0 if it lies
            in no ball.
        real_contribution: mean contribution of real images, by which the clipped density was divided.
        n: number of real images.
        m: number of generated images.
        k: neighbours for density, coverage and their clipped forms.
        k_pr: neighbours for precision and recall.
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
        """Share of generated images that lie in no ball of a real image, and so add nothing to the clipped density."""
        return float((self.contributions == 0).mean())


def neighbourhoods(*, real: Features, fake: Features, k: int = 5, k_pr: int = 3) -> Neighbourhoods:
    """All scores of neighbourhoods, from one pass over the distances.

    >>> points = np.arange(100.0)[:, None]
    >>> neighbourhoods(real=points, fake=np.concatenate([points + 0.5, points + 500])).precision
    0.5

    Args:
        real: features (N,d).
        fake: features (M,d) of the same extractor.
        k: neighbours that define a ball, for density and coverage.
        k_pr: neighbours for precision and recall.

    Raises:
        LimnerError: a set has no more images than neighbours, dimensions differ, or a feature is not finite.
    """
    if k < 1 or k_pr < 1:
        raise LimnerError(f"a neighbourhood needs at least 1 neighbour, got k={k} and k_pr={k_pr}")
    x, y = (torch.from_numpy(a) for a in checked(max(k, k_pr) + 1, real=real, fake=fake))
    to_neighbours, neighbours = _nearest(x, x, max(k, k_pr), same=True)
    radius, radius_pr = to_neighbours[:, k - 1], to_neighbours[:, k_pr - 1]
    clipped = radius.clamp(max=_median(radius))
    real_counts = torch.bincount(neighbours[:, :k][to_neighbours[:, :k] <= clipped[:, None]], minlength=len(x))
    real_contribution = float((real_counts.clamp(max=k).double() / k).mean())

    balls = _Balls(x, y, k, radius, radius_pr, clipped, _nearest(y, y, k_pr, same=True)[0][:, -1])
    for start, distances in _blocks(x, y):
        balls.count(start, distances)

    contributions = balls.clipped_memberships.clamp(max=k).double() / k
    raw = float((balls.inside.clamp(max=k).double() / k).mean())
    f = calibration(len(x), len(y), k)
    scores = {
        "precision": float(balls.in_any_ball.double().mean()),
        "density": float(balls.memberships.double().mean() / k),
        "coverage": float((balls.inside > 0).double().mean()),
        "clipped_density": min(float(contributions.mean()) / real_contribution, 1.0),
        "clipped_coverage": _invert(f, raw),
    }
    low, high = _interval(raw, _jackknife(balls.needed_members / (k * len(x))))
    intervals = {
        "precision": wilson(int(balls.in_any_ball.sum()), len(y)),
        "density": _interval(scores["density"], _error(balls.memberships.double() / k)),
        "coverage": _interval(scores["coverage"], _jackknife(balls.sole_members / len(x)), top=1.0),
        "clipped_density": _interval(
            float(contributions.mean()) / real_contribution, _error(contributions) / real_contribution, top=1.0
        ),
        "clipped_coverage": (_invert(f, low), _invert(f, high)),
    }
    return Neighbourhoods(
        **scores,
        recall=float(balls.covered.double().mean()),
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
        x: points whose neighbours are searched.
        y: points among which they are searched.
        k: number of neighbours.
        same: x and y are the same set; no point is its own neighbour.

    Raises:
        LimnerError: y has too few points, dimensions differ, or a number is not finite.
    """
    x, y = checked(1, x=x, y=y)
    if not 1 <= k <= len(y) - same:
        raise LimnerError(f"{k} neighbours were asked for among {len(y) - same} images; ask for fewer, or give more")
    distances, indices = _nearest(torch.from_numpy(x), torch.from_numpy(y), k, same=same)
    return distances.sqrt().numpy(), indices.numpy()


def within(x: Features, radius: float) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Pairs (P,2) of x (N,d), i < j, at most `radius` apart, and their distances (P,), block by block.

    >>> [pairs.tolist() for pairs, _ in within([[0.0], [5.0], [0.5]], 1.0)]
    [[[0, 2]]]
    """
    (x,) = checked(1, x=x)
    points = torch.from_numpy(x)
    slack = _ROUNDING * float(_norms(points - points.mean(0)).max())
    for start, distances in _blocks(points, points):
        row, column = (distances <= radius**2 + slack).nonzero(as_tuple=True)
        row = row + start
        above = row < column
        row, column = row[above], column[above]
        exact = _pairwise(points, points, row, column).sqrt_()
        close = exact <= radius
        yield torch.stack([row[close], column[close]], 1).numpy(), exact[close].numpy()


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
    centre, half = share + z / 2, Z95 * math.sqrt(share * (1 - share) / n + z / (4 * n))
    low, high = (centre - half) / (1 + z), (centre + half) / (1 + z)
    return (0.0 if hits == 0 else low), (1.0 if hits == n else high)


class _Balls:
    """Counts the points in each ball, a block of rows at a time. Radii are squared."""

    def __init__(
        self, x: Tensor, y: Tensor, k: int, radius: Tensor, radius_pr: Tensor, clipped: Tensor, radius_fake: Tensor
    ) -> None:
        self.x, self.y, self.k = x, y, k
        self.radii = torch.stack([radius, radius_pr, clipped], 1)
        self.outer_radius, self.radius_fake = torch.maximum(radius, radius_pr), radius_fake
        self.slack = _ROUNDING * max(float(_norms(x - y.mean(0)).max()), float(_norms(y - y.mean(0)).max()))
        self.inside = torch.zeros(len(x), dtype=torch.int64)  # samples in the ball of each real image
        self.covered = torch.zeros(len(x), dtype=torch.bool)
        self.memberships = torch.zeros(len(y), dtype=torch.int64)  # balls that each sample is in
        self.clipped_memberships = torch.zeros_like(self.memberships)
        self.in_any_ball = torch.zeros(len(y), dtype=torch.bool)
        # Balls whose score would fall without this sample: those with one inside, and with k at most.
        self.sole_members, self.needed_members = torch.zeros(2, len(y), dtype=torch.float64)

    def count(self, start: int, distances: Tensor) -> None:
        """Counts for the real images from `start` on, from their squared distances (B,M), which are overwritten."""
        stop, m = start + len(distances), len(self.y)
        row, column = (distances <= self.outer_radius[start:stop, None] + self.slack).nonzero(as_tuple=True)
        within = self._exact(distances[row, column], row + start, column)
        radius, radius_pr, clipped = self.radii[row + start].unbind(1)
        self.in_any_ball[column[within < radius_pr]] = True
        self.clipped_memberships += torch.bincount(column[within <= clipped], minlength=m)
        inner = within < radius
        row, column = row[inner], column[inner]
        inside = torch.bincount(row, minlength=len(distances))
        self.inside[start:stop] = inside
        self.memberships += torch.bincount(column, minlength=m)
        self.sole_members += torch.bincount(column[inside[row] == 1], minlength=m)
        self.needed_members += torch.bincount(column[inside[row] <= self.k], minlength=m)

        nearest_margin = distances.sub_(self.radius_fake).amin(1)
        self.covered[start:stop] = nearest_margin < -self.slack
        unsure = (nearest_margin.abs() <= self.slack).nonzero().squeeze(1)
        row, column = (distances[unsure] <= self.slack).nonzero(as_tuple=True)
        row = unsure[row] + start
        self.covered[row[_pairwise(self.x, self.y, row, column) < self.radius_fake[column]]] = True

    def _exact(self, distances: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Distances, recomputed where rounding could put them on the wrong side of a radius."""
        close = ((distances[:, None] - self.radii[row]).abs() <= self.slack).any(1).nonzero().squeeze(1)
        distances[close] = _pairwise(self.x, self.y, row[close], column[close])
        return distances


def _nearest(x: Tensor, y: Tensor, k: int, *, same: bool = False) -> tuple[Tensor, Tensor]:
    """Squared distances (N,k) by subtraction, the smallest first, and indices (N,k)."""
    indices = torch.empty(len(x), k, dtype=torch.int64)
    for start, distances in _blocks(x, y):
        if same:
            distances.diagonal(start).fill_(math.inf)
        indices[start : start + len(distances)] = _smallest(distances, k)
    exact = torch.empty(indices.shape, dtype=torch.float64)
    all_rows = torch.arange(len(x))
    for i, column in enumerate(indices.T):
        exact[:, i] = _pairwise(x, y, all_rows, column)
    exact, order = exact.sort(dim=1, stable=True)
    return exact, indices.gather(1, order)


def _smallest(values: Tensor, k: int) -> Tensor:
    """Indices (B,k) of the k smallest of each row, in no order.

    They lie in the k groups with the smallest minima, and those groups are found much faster.
    """
    groups = values.shape[1] // _GROUP
    if groups <= 2 * k:
        return values.topk(k, largest=False).indices
    whole = groups * _GROUP
    grouped = values[:, :whole].unflatten(1, (_GROUP, groups))
    best_groups = grouped.amin(1).topk(k, largest=False).indices  # (B,k)
    columns = (best_groups[:, None, :] + groups * torch.arange(_GROUP)[:, None]).flatten(1)
    rest = torch.arange(whole, values.shape[1]).expand(len(values), -1)
    columns = torch.cat([columns, rest], 1)
    return columns.gather(1, values.gather(1, columns).topk(k, largest=False).indices)


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Squared distances of blocks of rows of x to all of y, in one buffer, with the index of the first row."""
    mean = y.mean(0)  # a common offset would cost digits
    x, y = x - mean, y - mean
    # |x|² + |y|² - 2 x·y is one matrix product of longer vectors.
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
    """Squared distances of pairs (P,d); that of a pair does not depend on the others."""
    return (x - y).square_().sum(1)


def _pairwise(x: Tensor, y: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Squared distances of the pairs x[row], y[column], in bounded memory."""
    result = torch.empty(len(row), dtype=x.dtype)
    for i in range(0, len(row), step := max(1, _ENTRIES // x.shape[1])):
        part = slice(i, i + step)
        result[part] = _squared(x[row[part]], y[column[part]])
    return result


def _median(values: Tensor) -> float:
    """The squared median of radii, from squared radii."""
    ordered = values.sort().values
    low, high = float(ordered[(len(values) - 1) // 2]), float(ordered[len(values) // 2])
    return low if low == high else ((math.sqrt(low) + math.sqrt(high)) / 2) ** 2


def _invert(f: Array, value: float) -> float:
    """The share m/M of good samples with f(m) = value."""
    return float(np.searchsorted(f, value) / len(f))


def _error(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values))


def _jackknife(losses: Tensor) -> float:
    """Standard error of a mean that falls by so much when one sample is left out (Efron and Stein 1981)."""
    m = len(losses)
    return math.sqrt((m - 1) / m * float((losses - losses.mean()).square().sum()))


def _interval(value: float, error: float, top: float = math.inf) -> tuple[float, float]:
    return min(max(value - Z95 * error, 0.0), top), min(value + Z95 * error, top)
