"""Fréchet distance between sets of images, each taken for a Gaussian in a space of features.

Heusel et al. 2017 (arXiv:1706.08500), eq. 6, after Dowson and Landau 1982:

    FD = |mu1 - mu2|² + Tr(S1 + S2 - 2 (S1 S2)^½)

S1 S2 has the eigenvalues of Lᵀ S2 L, where S1 = L Lᵀ, and those of a symmetric matrix are found fast and without
imaginary parts: no matrix root is taken. Moments are float64 throughout, and of any number of images in one pass.

Two finite sets of one distribution are a positive distance apart; `floor` says how far, to first order in 1/N.
`frechet_infinity` extrapolates that bias away (Chong and Forsyth 2020, arXiv:1911.07023): it differs between models,
so not even a fixed N makes rankings of them fair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.blas import dtrmm
from torch import Tensor

from limner.core.errors import LimnerError

Array = NDArray[np.float64]
_SIZES = 15  # of subsets for the extrapolation, as in dgm-eval


def name(extractor: str, n: int) -> str:
    """What this distance is called with so many generated images: scores of other names are not comparable.

    >>> name("lenet64-v1", 10_000)
    'fd@lenet64-v1[n=10000]'
    """
    return f"fd@{extractor}[n={n}]"


class Moments:
    """Mean and covariance of features that arrive in parts.

    Sums are kept relative to the mean of the first part, so a common offset, however large, costs no digits.

    >>> Moments().update([[0.0], [1.0]]).update([[5.0]]).mean
    array([2.])
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.n = 0
        self._pivot: Array = np.zeros(0)
        self._sum: Array = np.zeros(0)
        self._scatter: Array = np.zeros((0, 0))

    def update(self, features: Tensor | ArrayLike) -> Moments:
        """Takes in features (B,d); returns itself.

        Raises:
            LimnerError: they have another dimension than those before, or some are not finite.
        """
        x = _array(features)
        if x.ndim != 2 or (self.n and x.shape[1] != len(self._pivot)):
            wanted = f"(B,{len(self._pivot)})" if self.n else "(B,d)"
            raise LimnerError(f"moments are of features {wanted}, these have the shape {x.shape}; use one extractor")
        if not np.isfinite(x).all():
            raise LimnerError("some features are not finite; look at the images, or at the net that drew them")
        if not len(x):
            return self
        if not self.n:
            d = x.shape[1]
            self._pivot, self._sum, self._scatter = x.mean(0), np.zeros(d), np.zeros((d, d))
        x = x - self._pivot
        self.n += len(x)
        self._sum += x.sum(0)
        self._scatter += x.T @ x
        return self

    def merge(self, other: Moments) -> Moments:
        """Takes in what another has seen, on another worker say; returns itself."""
        if not other.n:
            return self
        if not self.n:
            self.n = other.n
            self._pivot, self._sum, self._scatter = other._pivot, other._sum.copy(), other._scatter.copy()
            return self
        if len(self._pivot) != len(other._pivot):
            sizes = f"{len(self._pivot)} and {len(other._pivot)}"
            raise LimnerError(f"moments of {sizes} features cannot be merged; use one extractor")
        shift = other._pivot - self._pivot  # to this one's pivot
        cross = np.outer(shift, other._sum)
        self._scatter += other._scatter + cross + cross.T + other.n * np.outer(shift, shift)
        self._sum += other._sum + other.n * shift
        self.n += other.n
        return self

    @property
    def mean(self) -> Array:
        """Mean (d,).

        Raises:
            LimnerError: nothing was seen yet.
        """
        if not self.n:
            raise LimnerError("there are no features yet; give some images first")
        return self._pivot + self._sum / self.n

    @property
    def covariance(self) -> Array:
        """Covariance (d,d) with N - 1 in the denominator.

        Raises:
            LimnerError: fewer than two features were seen.
        """
        if self.n < 2:
            raise LimnerError(f"a covariance needs at least 2 images, there are {self.n}")
        return (self._scatter - np.outer(self._sum, self._sum / self.n)) / (self.n - 1)

    def compute(self) -> tuple[Array, Array]:
        """Mean (d,) and covariance (d,d)."""
        return self.mean, self.covariance


def frechet_distance(
    mu1: Tensor | ArrayLike, s1: Tensor | ArrayLike, mu2: Tensor | ArrayLike, s2: Tensor | ArrayLike
) -> float:
    """Fréchet distance of two Gaussians from their moments; symmetric, 0 for equal ones, never negative.

    >>> frechet_distance([0.0, 0.0], np.eye(2), [3.0, 0.0], 4 * np.eye(2))
    11.0

    Args:
        mu1: mean (d,).
        s1: covariance (d,d), symmetric positive semidefinite; it may be singular.
        mu2: mean of the other.
        s2: covariance of the other.

    Raises:
        LimnerError: shapes do not fit, or a number is not finite.
    """
    mu1, s1, mu2, s2 = (_array(a) for a in (mu1, s1, mu2, s2))
    d = len(mu1) if mu1.ndim else 0
    if not (mu1.shape == mu2.shape == (d,) and s1.shape == s2.shape == (d, d)):
        raise LimnerError(
            f"means {mu1.shape} and {mu2.shape} with covariances {s1.shape} and {s2.shape} are not of one feature space"
        )
    if not all(np.isfinite(a).all() for a in (mu1, s1, mu2, s2)):
        raise LimnerError("a mean or a covariance is not finite; look at the images, or at the net that drew them")
    eigenvalues = np.linalg.eigvalsh(_seen_from(s1, s2))
    overlap = np.sqrt(eigenvalues.clip(0)).sum()
    apart = float(((mu1 - mu2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * overlap)
    return max(apart, 0.0)


def _seen_from(s1: Array, s2: Array) -> Array:
    """Rᵀ s2 R for some R with R Rᵀ = s1: Cholesky's, or where s1 is singular that of its eigenvectors.

    The latter costs twice as much. Cholesky's R is triangular, and BLAS multiplies those in half the time.
    """
    try:
        lower = np.linalg.cholesky(s1)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(s1)
        root = vectors * np.sqrt(values.clip(0))
        return np.asarray(root.T @ s2 @ root, dtype=np.float64)
    # in Fortran's order the transpose of an array costs no copy: first s2 L, then Lᵀ (s2 L)
    right = dtrmm(1.0, lower.T, s2.T, side=0, lower=0)
    return np.asarray(dtrmm(1.0, lower.T, right, side=1, lower=0, trans_a=1), dtype=np.float64)


def frechet(x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> float:
    """Fréchet distance between features x (N,d) and y (M,d)."""
    return frechet_distance(*Moments().update(x).compute(), *Moments().update(y).compute())


def floor(s: Tensor | ArrayLike, n: float, m: float = math.inf) -> float:
    """Expected distance of two sets of n and m images of one and the same Gaussian: what a perfect generator reaches.

    To first order, with the eigenvalues l of the covariance, it is

        (1/n + 1/m) [5/4 Σ l_i + 1/2 Σ_ij l_i l_j / (l_i + l_j)]

    The means give Tr S. A change D of the covariance gives 1/2 Σ D_ij² / (l_i + l_j) in its eigenvectors' axes, and
    sampling makes E D_ij² = (1 + δ_ij) l_i l_j (1/n + 1/m). For S = I this is (1/n + 1/m) (d + (d² + d) / 4). Features
    of images are only nearly Gaussian, so it is near the truth there, not exact; nor is it for n below a few d.

    >>> round(floor(np.eye(64), 10_000, 10_000), 4)
    0.2208

    Args:
        s: covariance (d,d) of the features.
        n: images in one set.
        m: images in the other; infinite for moments that are known exactly.
    """
    l = np.linalg.eigvalsh(_array(s)).clip(0)
    total = l[:, None] + l
    pairs = np.divide(np.outer(l, l), total, out=np.zeros_like(total), where=total > 0)
    return float((1 / n + 1 / m) * (1.25 * l.sum() + 0.5 * pairs.sum()))


@dataclass(frozen=True)
class Infinity:
    """A distance extrapolated to infinitely many generated images.

    Attributes:
        value: the intercept a of FD(n) = a + b/n. It may fall a little below 0.
        slope: b.
        sizes: the numbers n of images.
        distances: FD at each.
    """

    value: float
    slope: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]


def frechet_infinity(x: Tensor | ArrayLike, mu: Tensor | ArrayLike, s: Tensor | ArrayLike, seed: int = 0) -> Infinity:
    """The distance of x (N,d) from a reference, extrapolated to N = ∞ by a line in 1/n through random subsets.

    Subsets have 15 sizes from min(5000, N/10) to N. Only the bias of x goes; what the reference owes to its own size,
    at most `floor(s, M)`, stays.

    Args:
        x: features of generated images.
        mu: mean (d,) of the reference.
        s: covariance (d,d) of the reference.
        seed: of the subsets.

    Raises:
        LimnerError: there are fewer than 20 images.
    """
    x = _array(x)
    if len(x) < 20:
        raise LimnerError(f"an extrapolation needs at least 20 images, there are {len(x)}; draw more")
    generator = np.random.default_rng(seed)
    sizes = np.linspace(min(5000, len(x) // 10), len(x), _SIZES).astype(int)
    found = [
        frechet_distance(*Moments().update(x[generator.choice(len(x), n, replace=False)]).compute(), mu, s)
        for n in sizes
    ]
    slope, value = np.polyfit(1 / sizes, found, 1)
    return Infinity(float(value), float(slope), tuple(int(n) for n in sizes), tuple(found))


def _array(values: Any) -> Array:
    """Float64 on the CPU."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)
