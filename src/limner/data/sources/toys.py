"""Points of known densities, for which a model's modes and likelihood can be measured exactly.

The ring and the grid are those of VEEGAN (Srivastava et al. 2017, arXiv:1705.07761) and unrolled GAN (Metz et
al. 2017, arXiv:1611.02163), which are common tests of mode collapse. Densities are learnt on wider modes: the 8
Gaussians of FFJORD (Grathwohl et al. 2019, arXiv:1810.01367) are a ring with sigma = radius/8.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from limner.core.errors import LimnerError
from limner.core.units import Count
from limner.data.arrays import Cloud
from limner.data.densities import Checkerboard, Density, Mixture
from limner.data.options import Split
from limner.data.registry import source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@source("line", images=False)
def line(
    modes: int = 3,
    std: float = 0.1,
    n: Count = 10_000,
    seed: int = 0,
    split: Split = "train",
    centre: float | None = None,
) -> Cloud:
    """A mixture of Gaussians on a line, with means evenly spaced from -1 to 1, or moved to another centre.

    Args:
        modes: number of Gaussians. Raise it to make mode collapse more likely.
        std: standard deviation of each. Lower it for better separated modes.
        n: number of training points; the test split has a tenth of them.
        seed: seed of the random numbers.
        split: "train", "test" (new points of the same density) or "all".
        centre: the middle of the means; null means 0. Set it to test whether a model finds it.
    """
    import numpy as np

    if modes < 1:
        raise LimnerError(f"line: modes is {modes}; write 1 or more")
    if centre is not None and not math.isfinite(centre):
        raise LimnerError(f"line: centre is {centre}; write a finite number")
    centres = np.linspace(-1, 1, modes)[:, None] if modes > 1 else np.zeros((1, 1))
    return _mixture(centres + (centre or 0.0), std, n, seed, split)


@source("ring", images=False)
def ring(
    modes: int = 8,
    radius: float = 1.0,
    sigma: float = 0.01,
    n: Count = 10_000,
    seed: int = 0,
    split: Split = "train",
) -> Cloud:
    """Gaussians on a circle in the plane.

    Args:
        modes: number of Gaussians. Raise it to make mode collapse more likely.
        radius: radius of the circle.
        sigma: standard deviation of each Gaussian. Lower it to make the modes harder to hit.
        n: number of training points; the test split has a tenth of them.
        seed: seed of the random numbers.
        split: "train", "test" (new points of the same density) or "all".
    """
    import numpy as np

    if modes < 1:
        raise LimnerError(f"ring: modes is {modes}; write 1 or more")
    angle = 2 * np.pi * np.arange(modes) / modes
    return _mixture(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), sigma, n, seed, split)


@source("grid", images=False)
def grid(
    side: int = 5,
    step: float = 2.0,
    sigma: float = 0.05,
    n: Count = 10_000,
    seed: int = 0,
    split: Split = "train",
) -> Cloud:
    """Gaussians on a square grid around the origin: 25 of them at {-4, -2, 0, 2, 4}² by default.

    Args:
        side: Gaussians along a side. Raise it to make mode collapse more likely.
        step: distance between neighbours.
        sigma: standard deviation of each Gaussian. Lower it to make the modes harder to hit.
        n: number of training points; the test split has a tenth of them.
        seed: seed of the random numbers.
        split: "train", "test" (new points of the same density) or "all".
    """
    import numpy as np

    if side < 1:
        raise LimnerError(f"grid: side is {side}; write 1 or more")
    axis = step * (np.arange(side) - (side - 1) / 2)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    return _mixture(np.stack([x.ravel(), y.ravel()], axis=1), sigma, n, seed, split)


@source("swiss-roll", images=False)
def swiss_roll(sigma: float = 0.02, n: Count = 10_000, seed: int = 0, split: Split = "train") -> Cloud:
    """A spiral of one and a half turns in [-1,1]²: one connected curve without modes.

    Args:
        sigma: standard deviation of the noise around the curve. Raise it for a smoother density.
        n: number of training points; the test split has a tenth of them.
        seed: seed of the random numbers.
        split: "train", "test" (new points of the same density) or "all".
    """
    import numpy as np

    check(sigma, n, split)
    points = []
    for rng, count in generators(n, seed, split):
        t = 1.5 * np.pi * (1 + 2 * rng.random(count))
        points.append(_spiral(t) + sigma * rng.standard_normal((count, 2)))
    return Cloud(np.concatenate(points).astype(np.float32), sigma, density=_around_spiral(sigma))


@source("checkerboard", images=False)
def checkerboard(side: int = 4, n: Count = 10_000, seed: int = 0, split: Split = "train") -> Cloud:
    """Every other square of a board on [-1,1]²: a density with hard edges, which flows find hard (FFJORD has it too).

    Args:
        side: squares along a side. Raise it for a finer pattern.
        n: number of training points; the test split has a tenth of them.
        seed: seed of the random numbers.
        split: "train", "test" (new points of the same density) or "all".
    """
    import numpy as np

    check(0.0, n, split)
    if not 2 <= side <= 64:
        raise LimnerError(f"checkerboard: side is {side}; write 2 to 64")
    squares = np.argwhere(np.indices((side, side)).sum(0) % 2 == 0)  # (K,2)
    points = [
        2 / side * (squares[rng.integers(len(squares), size=count)] + rng.uniform(1e-6, 1 - 1e-6, (count, 2))) - 1
        for rng, count in generators(n, seed, split)
    ]
    return Cloud(np.concatenate(points).astype(np.float32), 0.0, density=Checkerboard(side))


def _spiral(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N,2) of the swiss roll at angles t (N,)."""
    import numpy as np

    return np.stack([t * np.cos(t), t * np.sin(t)], axis=1) / (4.5 * np.pi)


def _around_spiral(sigma: float) -> Density | None:
    """The density of the noisy swiss roll, as a mixture of Gaussians less than sigma apart; None for a thin line."""
    import numpy as np

    if sigma < 1e-3:
        return None
    k = math.ceil(2 * 2 * math.pi / sigma)  # two for each sigma of the curve, which is 2 pi long
    return Mixture(_spiral(1.5 * np.pi * (1 + (2 * np.arange(k) + 1) / k)), sigma)


def _mixture(centres: NDArray[np.float64], sigma: float, n: int, seed: int, split: Split) -> Cloud:
    """A mixture of Gaussians with equal weights around `centres` (K,D)."""
    import numpy as np

    check(sigma, n, split)
    points, labels = [], []
    for rng, count in generators(n, seed, split):
        components = rng.integers(len(centres), size=count)
        points.append(centres[components] + sigma * rng.standard_normal((count, centres.shape[1])))
        labels.append(components)
    return Cloud(
        np.concatenate(points).astype(np.float32),
        sigma,
        centres.astype(np.float32),
        np.concatenate(labels).astype(np.int64),
        Mixture(centres, sigma) if sigma > 0 else None,
    )


def generators(n: int, seed: int, split: Split) -> list[tuple[np.random.Generator, int]]:
    """For the training points, the test points or both, a generator of its own and the number of points."""
    import numpy as np

    parts = {"train": [0], "test": [1], "all": [0, 1]}[split]
    return [(np.random.default_rng([seed, part]), max(1, n // 10) if part else n) for part in parts]


def check(sigma: float, n: int, split: str) -> None:
    """Raises a `LimnerError` for options that are impossible for a set of points."""
    if n < 1:
        raise LimnerError(f"n: {n} leaves no point; write 1 or more")
    if sigma < 0:
        raise LimnerError(f"sigma: {sigma} is negative; write 0 or more")
    if split not in ("train", "test", "all"):
        raise LimnerError(f"split: {split!r} is not possible; choose from: train, test, all")
