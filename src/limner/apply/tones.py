"""Frames of high dynamic range as a usual screen shows them.

A phone records HLG or PQ in the wide colours of BT.2020. Taken for usual video they look washed out. Here the light of
a frame is found (ITU-R BT.2100), expressed in the colours of BT.709 with paper white (203 cd/m², ITU-R BT.2408) as 1,
and its highlights are rolled off: light up to 0.6 stays as it is, and more approaches 1 with a slope that begins at 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TRANSFERS = {16: "PQ", 18: "HLG"}
"""The transfer functions of high dynamic range, by their number in ITU-T H.273."""

_PAPER_WHITE, _HLG_PEAK, _HLG_GAMMA, _KNEE = 203.0, 1000.0, 1.2, 0.6
_MOST = 65280  # what FFmpeg makes of 1 in 16 bits, 255/256 of the range
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020
_TO_BT709 = np.array(  # ITU-R BT.2087, linear light
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def _pq() -> NDArray[np.float32]:
    """Light in cd/m² of each 16-bit value."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    x = np.minimum(np.arange(65536) / _MOST, 1) ** (1 / m2)
    return (10_000 * (np.maximum(x - c1, 0) / (c2 - c3 * x)) ** (1 / m1)).astype(np.float32)


def _hlg() -> NDArray[np.float32]:
    """Light of the scene in [0,1] of each 16-bit value."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    x = np.minimum(np.arange(65536) / _MOST, 1)
    return np.where(x <= 0.5, x * x / 3, (np.exp((x - c) / a) + b) / 12).astype(np.float32)


_PQ, _HLG = _pq(), _hlg()
_LEVELS = np.linspace(0, 1, 65536)
_ENCODED = np.where(_LEVELS <= 0.0031308, 12.92 * _LEVELS, 1.055 * _LEVELS ** (1 / 2.4) - 0.055)
_SRGB = (255 * _ENCODED + 0.5).astype(np.uint8)


def mapped(frame: NDArray[np.uint16], transfer: int) -> NDArray[np.uint8]:
    """A frame (H,W,3) of BT.2020 in 16 bits to sRGB of 8 bits.

    Args:
        frame: the numbers of the signal, red, green and blue.
        transfer: a key of `TRANSFERS`.
    """
    if transfer == 16:
        light = _PQ[frame] / _PAPER_WHITE
    else:
        scene = _HLG[frame]
        luminance = (scene @ _LUMINANCE)[..., None]
        light = scene * np.maximum(luminance, 1e-6) ** (_HLG_GAMMA - 1) * (_HLG_PEAK / _PAPER_WHITE)
    light = np.maximum(light @ _TO_BT709.T, 0)
    brightest = light.max(axis=-1, keepdims=True)
    rolled = 1 - (1 - _KNEE) * np.exp((_KNEE - np.maximum(brightest, _KNEE)) / (1 - _KNEE))
    light *= np.where(brightest > _KNEE, rolled / np.maximum(brightest, _KNEE), 1)
    return _SRGB[(np.clip(light, 0, 1) * 65535 + 0.5).astype(np.uint16)]
