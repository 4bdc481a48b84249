"""A solid head, turned, tilted, lit and widened by known amounts: the sliders that InfoGAN finds in pictures of faces.

Chen et al. (2016, arXiv:1606.03657, figures 3 and 4) show codes for azimuth, elevation, lighting and width that were
found in rendered faces, which cannot be shared. This set has the same four factors, and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from limner.data.arrays import Arrays
from limner.data.files.download import computed
from limner.data.registry import source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VALUES: dict[str, list[str]] = {
    "azimuth": [str(a) for a in range(-60, 61, 10)],
    "elevation": [str(a) for a in range(-30, 31, 10)],
    "light": [str(a) for a in range(-80, 81, 20)],
    "width": [f"{w / 10:g}" for w in range(7, 14)],
}
"""The factors and their values: degrees, and times the usual width."""
SIZES = tuple(len(values) for values in VALUES.values())

_SIDE, _SUPERSAMPLING = 48, 2  # pixels; samples per pixel and axis
_EXTENT = 1.05  # of the picture to each side of its middle
_RADII = (0.62, 0.8, 0.7)  # of a head of usual width: half its width, height and depth
_AMBIENT = 0.2
_DARK = 0.25  # of eyes and mouth: share of the light that they throw back


@source("solids")
def solids() -> Arrays:
    """5,733 views of a shaded head at 48×48 with known factors: azimuth 13, elevation 7, light 9, width 7.

    Azimuth and elevation turn the head, in degrees; the light comes from `light` degrees to the right. A tenth of the
    combinations is held out, at random.
    """
    import numpy as np

    table = np.indices(SIZES).reshape(len(SIZES), -1).T.astype(np.int64)  # (5733, 4), width runs fastest
    return Arrays(
        images=computed("solids", "1", lambda: {"images": render()})["images"],
        labels=table,
        attributes=VALUES,
        test=np.random.RandomState(0).permutation(len(table)) < len(table) // 10,
        factors=table.copy(),
        factor_sizes=SIZES,
        factor_names=tuple(VALUES),
    )


def render() -> NDArray[np.uint8]:
    """All images (5733,48,48) uint8, in the order of `numpy.indices(SIZES)`.

    What is seen depends on azimuth, elevation and width; the light is put on it afterwards (Lambert's law).
    """
    import numpy as np

    azimuths, elevations, lights, widths = ([float(v) for v in values] for values in VALUES.values())
    out = np.empty((*SIZES, _SIDE, _SIDE), dtype=np.uint8)
    for i, azimuth in enumerate(azimuths):
        for j, elevation in enumerate(elevations):
            for k, width in enumerate(widths):
                out[i, j, :, k] = views(azimuth, elevation, lights, width)
    return out.reshape(-1, _SIDE, _SIDE)


def views(azimuth: float, elevation: float, lights: Sequence[float], width: float) -> NDArray[np.uint8]:
    """One head under several lights, (len(lights),48,48) uint8.

    Args:
        azimuth: degrees to the right.
        elevation: degrees upwards.
        lights: degrees to the right from which each light comes.
        width: times the usual width.
    """
    import numpy as np

    directions = np.stack([_unit((np.sin(a), 0.35, np.cos(a))) for a in np.radians(lights)])  # (L,3)
    normals, albedo = _seen(_turn(*np.radians([azimuth, elevation])), width, _SIDE * _SUPERSAMPLING)
    shade = _AMBIENT + (1 - _AMBIENT) * np.maximum(normals @ directions.T, 0)  # (fine²,L)
    level = 255 * albedo[:, None] * shade
    blocks = level.reshape(_SIDE, _SUPERSAMPLING, _SIDE, _SUPERSAMPLING, -1).mean(axis=(1, 3))
    seen: NDArray[np.uint8] = np.rint(blocks).transpose(2, 0, 1).astype(np.uint8)
    return seen


def _turn(azimuth: float, elevation: float) -> NDArray[np.float64]:
    """The rotation (3,3) from the head to the camera: to the right by the azimuth, then up by the elevation."""
    import numpy as np

    ca, sa, ce, se = np.cos(azimuth), np.sin(azimuth), np.cos(elevation), np.sin(elevation)
    about_y = np.array([[ca, 0, sa], [0, 1, 0], [-sa, 0, ca]])
    about_x = np.array([[1, 0, 0], [0, ce, se], [0, -se, ce]])
    turn: NDArray[np.float64] = about_x @ about_y
    return turn


def _seen(turn: NDArray[np.float64], width: float, side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Normals (side²,3) towards the camera, and albedo (side²), 0 beside the head, of what each ray meets first.

    x points to the right, y up and z to the camera, whose rays are parallel.
    """
    import numpy as np

    axis = ((np.arange(side) + 0.5) / side * 2 - 1) * _EXTENT
    u, v = (a.ravel() for a in np.meshgrid(axis, -axis, indexing="xy"))
    start = np.stack([u, v, np.zeros_like(u)], 1) @ turn  # in the frame of the head
    along = turn[2]  # towards the camera, in the frame of the head
    rx, ry, rz = _RADII[0] * width, *_RADII[1:]
    parts = [  # middle and radii of ellipsoids: head, nose, ears
        ((0, 0, 0), (rx, ry, rz)),
        ((0, -0.06, rz), (0.1, 0.17, 0.16)),
        ((rx, 0, 0), (0.09, 0.2, 0.14)),
        ((-rx, 0, 0), (0.09, 0.2, 0.14)),
    ]
    depth = np.full(len(start), -np.inf)
    normals, albedo = np.zeros((len(start), 3)), np.zeros(len(start))
    for number, (middle, radii) in enumerate(parts):
        o, d = (start - middle) / radii, along / radii
        a, b, c = d @ d, o @ d, (o * o).sum(1) - 1
        root = b * b - a * c
        t = (-b + np.sqrt(np.maximum(root, 0))) / a
        nearest = (root > 0) & (t > depth)
        depth[nearest] = t[nearest]
        point = o[nearest] + t[nearest, None] * d  # on the unit sphere
        normal = point / radii
        normals[nearest] = normal / np.linalg.norm(normal, axis=1, keepdims=True) @ turn.T
        albedo[nearest] = np.where(_painted(point), _DARK, 1.0) if number == 0 else 1.0
    return normals, albedo


def _painted(point: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points (N,3) of the head, made a unit sphere, belong to an eye or to the mouth."""
    import numpy as np

    x, y, z = np.abs(point[:, 0]), point[:, 1], point[:, 2]
    eye = ((x - 0.4) / 0.16) ** 2 + ((y - 0.25) / 0.1) ** 2 <= 1
    mouth = (x / 0.34) ** 2 + ((y + 0.5) / 0.07) ** 2 <= 1
    painted: NDArray[np.bool_] = (eye | mouth) & (z > 0)
    return painted


def _unit(direction: tuple[float, float, float]) -> NDArray[np.float64]:
    import numpy as np

    vector = np.array(direction)
    unit: NDArray[np.float64] = vector / np.linalg.norm(vector)
    return unit
