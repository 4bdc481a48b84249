"""Densities of toys in closed form: the log-density at a point, and the entropy.

The gap between a model and its data is KL(p || q) = E_p[log p(x) - log q(x)]: the cross-entropy of the model q less the
entropy of the data p. No model can have less than 0 nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_AT_ONCE = 1 << 20  # products of points and centres that are computed at once
_NODES = 12  # of the Gauss-Hermite quadrature, in each dimension
_CENTRES = 128  # centres that the entropy is averaged over


class Density(Protocol):
    """A probability density over points of D numbers."""

    def log_density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log p(x) in nats, (N,), of points (N,D)."""
        ...

    def entropy(self) -> float:
        """Differential entropy -E[log p(x)] in nats."""
        ...


@dataclass(frozen=True)
class Mixture:
    """A mixture of equal Gaussians with equal weights.

    Args:
        centres: (K,D) means.
        sigma: standard deviation of each, above 0.
    """

    centres: NDArray[np.float64]
    sigma: float

    def log_density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log p(x) in nats, (N,), of points (N,D)."""
        import numpy as np

        k, d = self.centres.shape
        rows = max(1, _AT_ONCE // k)
        centres, parts = self.centres / self.sigma, []
        for first in range(0, len(x), rows):
            some = x[first : first + rows] / self.sigma
            # -½|x - c|² = (x·c - ½|c|²) - ½|x|², whose last term all centres share
            score = some @ centres.T - np.square(centres).sum(1) / 2  # (rows,K)
            highest = score.max(1)
            score -= highest[:, None]
            parts.append(np.log(np.exp(score, out=score).sum(1)) + highest - np.square(some).sum(1) / 2)
        return np.concatenate(parts) - log(k) - d / 2 * log(2 * pi * self.sigma**2)

    def entropy(self) -> float:
        """Differential entropy in nats, by Gauss-Hermite quadrature around the centres.

        One Gaussian in the plane has 1 + ln(2 pi sigma²), and K of them that do not touch have ln K more.

        >>> import numpy as np
        >>> apart = Mixture(np.array([[-9.0], [9.0]]), 1.0)
        >>> abs(apart.entropy() - (log(2) + 0.5 * log(2 * pi) + 0.5)) < 1e-6
        True
        """
        import numpy as np

        d = self.centres.shape[1]
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        mesh = np.stack([m.ravel() for m in np.meshgrid(*[nodes] * d, indexing="ij")], 1)  # (_NODES^D,D)
        share = np.stack([m.ravel() for m in np.meshgrid(*[weights] * d, indexing="ij")], 1).prod(1)
        some = self.centres[:: max(1, len(self.centres) // _CENTRES)]
        points = (some[:, None] + self.sigma * mesh).reshape(-1, d)
        values = self.log_density(points).reshape(len(some), -1)
        return -float((values * share).sum(1).mean() / share.sum())


@dataclass(frozen=True)
class Checkerboard:
    """The uniform density on every other square of a board on [-1,1]².

    Args:
        side: squares along a side.
    """

    side: int

    def log_density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log p(x) in nats, (N,), of points (N,2); minus infinity on the other squares and beside the board."""
        import numpy as np

        square = np.floor((x + 1) / 2 * self.side).astype(np.int64)
        inside = ((square >= 0) & (square < self.side)).all(1) & (square.sum(1) % 2 == 0)
        return np.where(inside, -self.entropy(), -np.inf)

    def entropy(self) -> float:
        """The log of the area in nats.

        >>> Checkerboard(4).entropy() == log(2)
        True
        """
        squares = (self.side**2 + 1) // 2
        return log(4 * squares / self.side**2)
