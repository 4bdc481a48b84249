"""The sharpness of images: the variance of the Laplacian (Pech-Pacheco et al. 2000), mean over images.

Relative to that of real images it shows the blur of autoencoders. Values above 1 mean too much detail or too much
noise.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.batch import at_once, to_float
from limner.core.errors import LimnerError
from limner.metrics.extractors.features import check_range

_BATCH = 500
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


def _check(x: Tensor) -> None:
    """Raises where x are no images in the right range."""
    if x.ndim != 4 or not x.numel() or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise LimnerError(
            f"images are (B,C,H,W), uint8 or floating; this is a {str(x.dtype).removeprefix('torch.')} tensor of shape"
            f" {tuple(x.shape)}"
        )
    if x.dtype != torch.uint8:
        check_range(x)
