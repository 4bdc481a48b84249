"""The quality of images by their pixels alone: sharpness, grain and checkerboards, each beside that of real images.

* Sharpness: the variance of the Laplacian (Pech-Pacheco et al. 2000), mean over images. Below that of real images it
  shows the blur of autoencoders, above it too much detail or noise.
* Grain: 1 minus the correlation of neighbouring pixels. It is 1 for white noise and near 0 for smooth images.
* Checkerboard: the peak of the power where a pattern repeats every two pixels, along rows, columns or both, over the
  power at other high frequencies. White noise has no peak; transposed convolutions leave one (Odena, Dumoulin and Olah
  2016, *Deconvolution and checkerboard artifacts*).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.batch import at_once, to_float
from limner.core.errors import LimnerError
from limner.metrics.extractors.features import check_range

_BATCH = 500
_CORNERS = ((0.5, 0.0), (0.0, 0.5), (0.5, 0.5))  # cycles a pixel along columns and rows: patterns of two pixels
_NEAR, _HIGH = 0.09, 0.3  # a pattern over an image has its power around the corner, as the image has it around 0
_VALUES = 1 << 22  # of images filtered at once; a convolution copies each nine times


@torch.inference_mode()
def sharpness(x: Tensor) -> float:
    """Variance of the Laplacian, the mean over images.

    >>> sharpness(torch.zeros(2, 1, 8, 8))
    0.0

    Args:
        x: images (B,C,H,W), uint8 or in [-1,1], of 3×3 pixels at least.

    Raises:
        LimnerError: x has another shape, type or range.
    """
    _check(x)
    if min(x.shape[2:]) < 3:
        raise LimnerError(f"a Laplacian needs images of at least 3×3 pixels, these have {x.shape[2]}×{x.shape[3]}")
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], device=x.device)[None, None]
    total = 0.0
    for part in x.split(at_once(x, _VALUES, _BATCH)):
        edges = F.conv2d(to_float(part).float().flatten(0, 1)[:, None], kernel)
        total += float(edges.flatten(1).double().var(1, correction=0).sum())
    return total / (len(x) * x.shape[1])


@torch.inference_mode()
def grain(x: Tensor) -> float:
    """1 minus the correlation of a pixel with its right and its lower neighbour, over all images.

    Each image is taken relative to its own mean, so a set of equal images has the grain of one of them.

    >>> grain(torch.zeros(2, 1, 8, 8))
    0.0

    Args:
        x: images (B,C,H,W), uint8 or in [-1,1], of 2×2 pixels at least.

    Raises:
        LimnerError: x has another shape, type or range.
    """
    _check(x)
    if min(x.shape[2:]) < 2:
        raise LimnerError(f"neighbours need images of at least 2×2 pixels, these have {x.shape[2]}×{x.shape[3]}")
    own = across = 0.0
    for part in x.split(at_once(x, _VALUES, _BATCH)):
        z = to_float(part).float()
        z = z - z.mean((2, 3), keepdim=True)
        for a, b in ((z[..., 1:], z[..., :-1]), (z[..., 1:, :], z[..., :-1, :])):
            across += float((a * b).double().sum())
            own += float((a.double().square().sum() * b.double().square().sum()).sqrt())
    return 1 - across / own if own else 0.0


class Pattern(NamedTuple):
    """Power of images at high frequencies, a pixel.

    Attributes:
        peak: the largest mean power near one of three frequencies of two pixels.
        usual: the mean power at other frequencies from 0.3 cycles a pixel on.
    """

    peak: float
    usual: float

    def beside(self, usual: float) -> float:
        """The peak over the usual power, or over another one that is higher, such as that of real images.

        Images without any detail have little power at high frequencies, and whatever little is left makes a peak.
        """
        among = max(self.usual, usual)
        return self.peak / among if among else (math.inf if self.peak else 0.0)


def checkerboard(x: Tensor) -> float:
    """Largest mean power near one of three frequencies of two pixels, over that at other frequencies from 0.3 on.

    It is 1 for white noise, and about 1 to 3 for images, whose lines run along rows and columns.

    >>> checkerboard(torch.zeros(2, 1, 8, 8))
    0.0

    Args:
        x: images (B,C,H,W), uint8 or in [-1,1], of 8×8 pixels at least.

    Raises:
        LimnerError: x has another shape, type or range.
    """
    return pattern(x).beside(0.0)


@torch.inference_mode()
def pattern(x: Tensor) -> Pattern:
    """The power of images at high frequencies; the argument and the errors of `checkerboard`."""
    _check(x)
    height, width = x.shape[2:]
    if min(height, width) < 8:
        raise LimnerError(f"frequencies need images of at least 8×8 pixels, these have {height}×{width}")
    rows, columns = torch.fft.fftfreq(height).abs()[:, None], torch.fft.rfftfreq(width)[None]
    near = [torch.maximum((rows - r).abs(), (columns - c).abs()).to(x.device) <= _NEAR for r, c in _CORNERS]
    rest = (torch.maximum(rows, columns).to(x.device) >= _HIGH) & ~(near[0] | near[1] | near[2])
    power = torch.zeros(rest.shape, dtype=torch.float64, device=x.device)
    for part in x.split(at_once(x, _VALUES, _BATCH)):
        power += torch.fft.rfft2(to_float(part).float()).abs().square().sum((0, 1)).double()
    power /= len(x) * x.shape[1] * height * width
    return Pattern(max(float(power[corner].mean()) for corner in near), float(power[rest].mean()))


def _check(x: Tensor) -> None:
    """Raises where x are no images in the right range."""
    if x.ndim != 4 or not x.numel() or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise LimnerError(
            f"images are (B,C,H,W), uint8 or floating; this is a {str(x.dtype).removeprefix('torch.')} tensor of shape"
            f" {tuple(x.shape)}"
        )
    if x.dtype != torch.uint8:
        check_range(x)
