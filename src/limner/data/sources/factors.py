"""A small dSprites: white shapes on black whose five factors of variation are known.

After dSprites (Matthey et al. 2017), with 11,520 images of 32×32 in place of 737,280 of 64×64: shape 3
(square, ellipse, heart) × scale 6 × angle 10 × x 8 × y 8. As in the original, angles go once around, so
shapes with a symmetry repeat: a square or an ellipse looks the same half a turn on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from limner.data.arrays import Arrays
from limner.data.registry import source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAMES = ("shape", "scale", "angle", "x", "y")
SIZES = (3, 6, 10, 8, 8)
SHAPES = ["square", "ellipse", "heart"]

_SIDE, _STEP, _FINE = 32, 2, 8  # image, pixels between positions, samples per pixel and axis
_REACH = _STEP * (SIZES[3] - 1)  # a shape's centre moves over this many pixels
_RADIUS = 8.0  # no shape reaches further from its centre, so none ever leaves the image


@source("mini-dsprites")
def mini_dsprites() -> Arrays:
    """Rendered sprites with known factors: shape 3, scale 6, angle 10, x 8, y 8 at 32×32, for disentanglement."""
    import numpy as np

    table = np.indices(SIZES).reshape(len(SIZES), -1).T.astype(np.int64)  # (11520, 5), y runs fastest
    # one in ten at random: the last tenth of each class would be all the largest scale
    test = np.random.default_rng(0).permutation(len(table)) < len(table) // 10
    return Arrays(
        images=render(),
        labels=table[:, 0].copy(),
        classes=SHAPES,
        test=test,
        factors=table,
        factor_sizes=SIZES,
        factor_names=NAMES,
        notes=["factors of variation: " + ", ".join(f"{n} {k}" for n, k in zip(NAMES, SIZES))],
    )


def render() -> NDArray[np.uint8]:
    """All images, (11520,32,32) uint8, in the order of `numpy.indices(SIZES)`.

    Each shape, scale and angle is drawn once, antialiased, on a canvas wide enough to cut all 64 positions
    from it: they lie whole pixels apart.
    """
    import numpy as np

    canvas = _SIDE + _REACH
    axis = (np.arange(canvas * _FINE) + 0.5) / _FINE - canvas / 2
    u, v = np.meshgrid(axis, axis, indexing="xy")
    near = u * u + v * v <= _RADIUS * _RADIUS
    out = np.empty((*SIZES, _SIDE, _SIDE), dtype=np.uint8)
    for shape, scale, angle in np.ndindex(SIZES[:3]):
        r, a = _RADIUS * (0.5 + 0.1 * scale), 2 * np.pi * angle / SIZES[2]
        x = (np.cos(a) * u[near] + np.sin(a) * v[near]) / r
        y = (np.cos(a) * v[near] - np.sin(a) * u[near]) / r
        drawn = np.zeros(u.shape, dtype=np.float32)
        drawn[near] = _inside(shape, x, y)
        covered = drawn.reshape(canvas, _FINE, canvas, _FINE).mean(axis=(1, 3))
        sprite = np.rint(255 * covered).astype(np.uint8)
        for i, j in np.ndindex(SIZES[3:]):
            left, top = _REACH - _STEP * i, _REACH - _STEP * j
            out[shape, scale, angle, i, j] = sprite[top : top + _SIDE, left : left + _SIDE]
    return out.reshape(-1, _SIDE, _SIDE)


def _inside(shape: int, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points lie in a shape that fits in the unit circle; y points down."""
    import numpy as np

    if shape == 0:
        return np.maximum(np.abs(x), np.abs(y)) <= np.sqrt(0.5)
    if shape == 1:
        return x**2 + (y / 0.6) ** 2 <= 1
    p, q = 1.45 * x, -1.45 * y  # the heart (p² + q² - 1)³ = p² q³
    return (p**2 + q**2 - 1) ** 3 <= p**2 * q**3
