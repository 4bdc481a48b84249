"""Dequantisation: noise that turns 8-bit images into continuous ones, so that a density of them is bounded.

A density model of values that come on 256 levels can put ever narrower peaks on the levels, and its likelihood grows
without bound. Noise u that fills the width of a level repairs this: by Jensen's inequality the log density of x + u,
averaged over u, is at most the log probability of the discrete image x (Uria et al. 2013, arXiv:1306.0186, section 3;
Theis et al. 2016, arXiv:1511.01844, section 3.1).

Images are in [-1,1], where a level is `LEVEL` = 2/255 wide. A density of them becomes bits per dimension of 8-bit
levels by adding log2(127.5); see `bits_per_dim`.
"""

from __future__ import annotations

from math import log

from torch import Tensor

from limner.losses._precision import in_float32

LEVEL = 2 / 255
"""Width of a grey level on [-1,1]."""


@in_float32
def uniform(x: Tensor, u: Tensor) -> Tensor:
    """Images (B,C,H,W) on [-1-1/255, 1+1/255], spread evenly over the width of their levels.

    Args:
        x: images (B,C,H,W) in [-1,1] whose values are levels, (2k − 255)/255 for k = 0…255.
        u: uniform noise (B,C,H,W) in [0,1).
    """
    return x + (u - 0.5) * LEVEL


@in_float32
def bits_per_dim(log_density: Tensor, dims: int) -> Tensor:
    """Bits per dimension of 8-bit levels from a log density on [-1,1] in nats; smaller is better.

    >>> import torch
    >>> bits_per_dim(torch.tensor([-784 * log(2 + LEVEL)]), 784)  # uniform over all levels
    tensor([8.])

    Args:
        log_density: log p(x) (…) of dequantised images in nats.
        dims: number of values of an image.
    """
    return -(log_density / dims + log(LEVEL)) / log(2)
