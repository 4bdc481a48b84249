"""A small version of dSprites: white shapes on black with five known factors of variation.

dSprites (Matthey et al. 2017) has 737,280 images of 64×64; this set has 11,520 images of 32×32: shape 3 (square,
ellipse, heart) × scale 6 × angle 10 × x 8 × y 8. As in the original, the angles cover a full turn, so symmetric shapes
repeat: a square or an ellipse looks the same after half a turn.
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

_SIDE, _STEP, _SUPERSAMPLING = 32, 2, 8  # image, pixels between positions, samples per pixel and axis
_EXTENT = _STEP * (SIZES[3] - 1)  # in pixels, of the positions of a shape's centre
_RADIUS = 8.0  # the largest radius of a shape, so that no shape leaves the image


@source("mini-dsprites")
def mini_dsprites() -> Arrays:
    """Rendered sprites with known factors: shape 3, scale 6, angle 10, x 8, y 8 at 32×32, for disentanglement."""
    import numpy as np

    table = np.indices(SIZES).reshape(len(SIZES), -1).T.astype(np.int64)  # (11520, 5), y runs fastest
    # a random tenth, because the last tenth of each class has the largest scale only
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

    Each shape, scale and angle is rendered once, antialiased, on a larger canvas. The images of its 64 positions are
    crops of this canvas, because positions are whole pixels apart.
    """
    import numpy as np

    canvas = _SIDE + _EXTENT
    axis = (np.arange(canvas * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING - canvas / 2
    u, v = np.meshgrid(axis, axis, indexing="xy")
    inside_radius = u * u + v * v <= _RADIUS * _RADIUS
    out = np.empty((*SIZES, _SIDE, _SIDE), dtype=np.uint8)
    for shape, scale, angle in np.ndindex(SIZES[:3]):
        r, a = _RADIUS * (0.5 + 0.1 * scale), 2 * np.pi * angle / SIZES[2]
        x = (np.cos(a) * u[inside_radius] + np.sin(a) * v[inside_radius]) / r
        y = (np.cos(a) * v[inside_radius] - np.sin(a) * u[inside_radius]) / r
        mask = np.zeros(u.shape, dtype=np.float32)
        mask[inside_radius] = _inside(shape, x, y)
        coverage = mask.reshape(canvas, _SUPERSAMPLING, canvas, _SUPERSAMPLING).mean(axis=(1, 3))
        sprite = np.rint(255 * coverage).astype(np.uint8)
        for i, j in np.ndindex(SIZES[3:]):
            left, top = _EXTENT - _STEP * i, _EXTENT - _STEP * j
            out[shape, scale, angle, i, j] = sprite[top : top + _SIDE, left : left + _SIDE]
    return out.reshape(-1, _SIDE, _SIDE)


def _inside(shape: int, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points lie inside a shape that fits into the unit circle; y points down."""
    import numpy as np

    if shape == 0:
        return np.maximum(np.abs(x), np.abs(y)) <= np.sqrt(0.5)
    if shape == 1:
        return x**2 + (y / 0.6) ** 2 <= 1
    p, q = 1.45 * x, -1.45 * y  # the heart (p² + q² - 1)³ = p² q³
    return (p**2 + q**2 - 1) ** 3 <= p**2 * q**3
