"""Points of known densities, on which a model's modes and likelihood can be judged exactly.

The ring and the grid are those of VEEGAN (Srivastava et al. 2017, arXiv:1705.07761) and unrolled GAN (Metz et
al. 2017, arXiv:1611.02163), on which mode collapse is usually counted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from limner.core.errors import LimnerError
from limner.core.units import Count
from limner.data.arrays import Cloud
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
    """A mixture of Gaussians on a line, with means evenly spaced from -1 to 1, or that far about another centre.

    Args:
        modes: number of Gaussians. Raise it if mode collapse shall show.
        std: standard deviation of each. Lower it if the modes shall be far apart.
        n: number of training points; the test split has a tenth of them.
        seed: decides the draw.
        split: "train", "test" (fresh draws of the same density) or "all".
        centre: where the middle of the means lies; null means 0. Set it if a model shall have to find the place.
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
        modes: number of Gaussians. Raise it if mode collapse shall show.
        radius: radius of the circle.
        sigma: standard deviation of each Gaussian. Lower it if the modes shall be harder to hit.
        n: number of training points; the test split has a tenth of them.
        seed: decides the draw.
        split: "train", "test" (fresh draws of the same density) or "all".
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
        side: Gaussians along a side. Raise it if mode collapse shall show.
        step: distance between neighbours.
        sigma: standard deviation of each Gaussian. Lower it if the modes shall be harder to hit.
        n: number of training points; the test split has a tenth of them.
        seed: decides the draw.
        split: "train", "test" (fresh draws of the same density) or "all".
    """
    import numpy as np

    if side < 1:
        raise LimnerError(f"grid: side is {side}; write 1 or more")
    axis = step * (np.arange(side) - (side - 1) / 2)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    return _mixture(np.stack([x.ravel(), y.ravel()], axis=1), sigma, n, seed, split)


@source("swiss-roll", images=False)
def swiss_roll(sigma: float = 0.02, n: Count = 10_000, seed: int = 0, split: Split = "train") -> Cloud:
    """A spiral in the plane, one and a half turns, within [-1,1]²: one connected curve and no modes.

    Args:
        sigma: standard deviation of the noise around the curve. Raise it if the density shall be smooth.
        n: number of training points; the test split has a tenth of them.
        seed: decides the draw.
        split: "train", "test" (fresh draws of the same density) or "all".
    """
    import numpy as np

    def draw(rng: np.random.Generator, count: int) -> Cloud:
        t = 1.5 * np.pi * (1 + 2 * rng.random(count))
        curve = np.stack([t * np.cos(t), t * np.sin(t)], axis=1) / (4.5 * np.pi)
        return Cloud((curve + sigma * rng.standard_normal((count, 2))).astype(np.float32), sigma)

    check(sigma, n, split)
    parts = [draw(rng, count) for rng, count in draws(n, seed, split)]
    return Cloud(np.concatenate([p.points for p in parts]), sigma)


def _mixture(centres: NDArray[np.float64], sigma: float, n: int, seed: int, split: Split) -> Cloud:
    """Equal parts of Gaussians around `centres` (K,D)."""
    import numpy as np

    check(sigma, n, split)
    points, labels = [], []
    for rng, count in draws(n, seed, split):
        which = rng.integers(len(centres), size=count)
        points.append(centres[which] + sigma * rng.standard_normal((count, centres.shape[1])))
        labels.append(which)
    cloud = np.concatenate(points).astype(np.float32)
    return Cloud(cloud, sigma, centres.astype(np.float32), np.concatenate(labels).astype(np.int64))


def draws(n: int, seed: int, split: Split) -> list[tuple[np.random.Generator, int]]:
    """A generator and a count for each half that is wanted; the halves never share a draw."""
    import numpy as np

    halves = {"train": [0], "test": [1], "all": [0, 1]}[split]
    return [(np.random.default_rng([seed, half]), max(1, n // 10) if half else n) for half in halves]


def check(sigma: float, n: int, split: str) -> None:
    """Refuses numbers that mean nothing to a set of points."""
    if n < 1:
        raise LimnerError(f"n: {n} leaves no point; write 1 or more")
    if sigma < 0:
        raise LimnerError(f"sigma: {sigma} is negative; write 0 or more")
    if split not in ("train", "test", "all"):
        raise LimnerError(f"split: {split!r} is not possible; choose from: train, test, all")
