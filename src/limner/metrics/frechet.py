"""Fréchet distance between sets of images, whose features are taken as Gaussian.

Heusel et al. 2017 (arXiv:1706.08500), eq. 6, after Dowson and Landau 1982:

    FD = |mu1 - mu2|² + Tr(S1 + S2 - 2 (S1 S2)^½)

S1 S2 has the eigenvalues of the symmetric matrix Lᵀ S2 L, where S1 = L Lᵀ, which are real and fast to compute: no
matrix root is needed. Moments are float64 and computed in one pass over any number of images.

Two finite sets of one distribution have a positive distance; `floor` gives it to first order in 1/N.
`frechet_infinity` removes this bias by extrapolation (Chong and Forsyth 2020, arXiv:1911.07023). The bias differs
between models, so even rankings at a fixed N may be wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg.blas import dtrmm
from torch import Tensor

from limner.core.errors import LimnerError
from limner.metrics.sets import Array

_SIZES = 15  # numbers of images for the extrapolation, as in dgm-eval


class Moments:
    """Mean and covariance of features that arrive in parts.

    Sums are relative to the mean of the first part, so that a large common offset costs no precision.

    >>> Moments().update([[0.0], [1.0]]).update([[5.0]]).mean
    array([2.])
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Removes all features."""
        self.n = 0
        self._pivot: Array = np.zeros(0)
        self._sum: Array = np.zeros(0)
        self._scatter: Array = np.zeros((0, 0))

    def update(self, features: Tensor | ArrayLike) -> Moments:
        """Adds features (B,d); returns itself.

        Raises:
            LimnerError: the dimension differs from that of earlier features, or some are not finite.
        """
        x = _array(features)
        if x.ndim != 2 or (self.n and x.shape[1] != len(self._pivot)):
            expected = f"(B,{len(self._pivot)})" if self.n else "(B,d)"
            raise LimnerError(f"features must have the shape {expected}, got {x.shape}; use one extractor")
        if not np.isfinite(x).all():
            raise LimnerError("some features are not finite; check the images and the model that drew them")
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
        """Adds the features of another, for example of another worker; returns itself."""
        if not other.n:
            return self
        if not self.n:
            self.n = other.n
            self._pivot, self._sum, self._scatter = other._pivot, other._sum.copy(), other._scatter.copy()
            return self
        if len(self._pivot) != len(other._pivot):
            sizes = f"{len(self._pivot)} and {len(other._pivot)}"
            raise LimnerError(f"moments of {sizes} features cannot be merged; use one extractor")
        shift = other._pivot - self._pivot
        cross = np.outer(shift, other._sum)
        self._scatter += other._scatter + cross + cross.T + other.n * np.outer(shift, shift)
        self._sum += other._sum + other.n * shift
        self.n += other.n
        return self

    @property
    def mean(self) -> Array:
        """Mean (d,).

        Raises:
            LimnerError: there are no features yet.
        """
        if not self.n:
            raise LimnerError("there are no features yet; give some images first")
        return self._pivot + self._sum / self.n

    @property
    def covariance(self) -> Array:
        """Covariance (d,d) with N - 1 in the denominator.

        Raises:
            LimnerError: there are fewer than two images.
        """
        if self.n < 2:
            raise LimnerError(f"a covariance needs at least 2 images, there are {self.n}; give more")
        return (self._scatter - np.outer(self._sum, self._sum / self.n)) / (self.n - 1)

    def compute(self) -> tuple[Array, Array]:
        """Mean (d,) and covariance (d,d)."""
        return self.mean, self.covariance


def frechet_distance(
    mu1: Tensor | ArrayLike, s1: Tensor | ArrayLike, mu2: Tensor | ArrayLike, s2: Tensor | ArrayLike
) -> float:
    """Fréchet distance of two Gaussians from their moments; symmetric, never negative, and 0 for equal Gaussians.

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
            f"means {mu1.shape} and {mu2.shape} do not fit covariances {s1.shape} and {s2.shape}; use one extractor"
        )
    if not all(np.isfinite(a).all() for a in (mu1, s1, mu2, s2)):
        raise LimnerError("a mean or a covariance is not finite; check the images and the model that drew them")
    eigenvalues = np.linalg.eigvalsh(_congruence(s1, s2))
    overlap = np.sqrt(eigenvalues.clip(0)).sum()
    return max(float(((mu1 - mu2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * overlap), 0.0)


def _congruence(s1: Array, s2: Array) -> Array:
    """Rᵀ s2 R for some R with R Rᵀ = s1: the Cholesky factor, or from eigenvectors where s1 is singular.

    The latter takes twice the time, because BLAS multiplies triangular matrices in half the time.
    """
    try:
        lower = np.linalg.cholesky(s1)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(s1)
        root = vectors * np.sqrt(values.clip(0))
        return np.asarray(root.T @ s2 @ root, dtype=np.float64)
    # first s2 L, then Lᵀ (s2 L); transposes avoid copies, because BLAS reads arrays in Fortran's order
    right = dtrmm(1.0, lower.T, s2.T, side=0, lower=0)
    return np.asarray(dtrmm(1.0, lower.T, right, side=1, lower=0, trans_a=1), dtype=np.float64)


def frechet(x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> float:
    """Fréchet distance between features x (N,d) and y (M,d)."""
    return frechet_distance(*Moments().update(x).compute(), *Moments().update(y).compute())


def floor(s: Tensor | ArrayLike, n: float, m: float = math.inf) -> float:
    """Expected distance of two sets of n and m images from the same Gaussian: the distance of a perfect generator.

    To first order, with the eigenvalues l of the covariance, it is

        (1/n + 1/m) [5/4 Σ l_i + 1/2 Σ_ij l_i l_j / (l_i + l_j)]

    The means contribute Tr S. An error D of the covariance contributes 1/2 Σ D_ij² / (l_i + l_j) in the axes of its
    eigenvectors, and sampling gives E D_ij² = (1 + δ_ij) l_i l_j (1/n + 1/m). For S = I this is
    (1/n + 1/m) (d + (d² + d) / 4). It is approximate for features of images, which are only nearly Gaussian, and for n
    below a few times d.

    >>> round(floor(np.eye(64), 10_000, 10_000), 4)
    0.2208

    Args:
        s: covariance (d,d) of the features.
        n: number of images in one set.
        m: number of images in the other; infinite for moments that are known exactly.
    """
    l = np.linalg.eigvalsh(_array(s)).clip(0)
    total = l[:, None] + l
    pairs = np.divide(np.outer(l, l), total, out=np.zeros_like(total), where=total > 0)
    return float((1 / n + 1 / m) * (1.25 * l.sum() + 0.5 * pairs.sum()))


@dataclass(frozen=True)
class Infinity:
    """A distance extrapolated to infinitely many generated images.

    Attributes:
        value: the intercept a of FD(n) = a + b/n, which may be slightly negative.
        slope: the slope b.
        sizes: the numbers n of images.
        distances: FD at each n.
    """

    value: float
    slope: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]


def frechet_infinity(x: Tensor | ArrayLike, mu: Tensor | ArrayLike, s: Tensor | ArrayLike, seed: int = 0) -> Infinity:
    """The distance of x (N,d) from a reference, extrapolated to N = ∞ by a line in 1/n through random subsets.

    Subsets have 15 sizes from min(5000, N/10) to N. This removes the bias due to N; that due to the size M of the
    reference, at most `floor(s, M)`, remains.

    Args:
        x: features of generated images.
        mu: mean (d,) of the reference.
        s: covariance (d,d) of the reference.
        seed: seed of the subsets.

    Raises:
        LimnerError: there are fewer than 20 images.
    """
    x = _array(x)
    if len(x) < 20:
        raise LimnerError(f"extrapolation needs at least 20 images, there are {len(x)}; draw more")
    generator = np.random.default_rng(seed)
    sizes = np.linspace(min(5000, len(x) // 10), len(x), _SIZES).astype(int)
    distances = [
        frechet_distance(*Moments().update(x[generator.choice(len(x), n, replace=False)]).compute(), mu, s)
        for n in sizes
    ]
    slope, value = np.polyfit(1 / sizes, distances, 1)
    return Infinity(float(value), float(slope), tuple(int(n) for n in sizes), tuple(distances))


def _array(values: Any) -> Array:
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)
