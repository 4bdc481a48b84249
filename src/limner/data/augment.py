"""Augmentations as pure functions of an image and its key.

A key (`limner.core.rng`) is made of seed, epoch and sample. The batch, the rank and the worker therefore do not change
the augmentation of an image, and there is no state to save.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core.rng import uniform

_FLIP, _SHIFT, _BINARISE = 101, 102, 103  # stream ids: no two augmentations share random numbers


def flip(x: Tensor, keys: Tensor) -> Tensor:
    """Mirrors each image left to right with probability 1/2.

    Args:
        x: (B,C,H,W).
        keys: (B,) int64.
    """
    mirrored = uniform(keys, _FLIP) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(3), x)


def shift(x: Tensor, keys: Tensor, pixels: int) -> Tensor:
    """Moves each image by a whole number of pixels in [-pixels, pixels] along both axes and repeats its edge.

    Args:
        x: (B,C,H,W).
        keys: (B,) int64.
        pixels: largest move.
    """
    b, c, h, w = x.shape
    u = uniform(keys, _SHIFT, 2) * (2 * pixels + 1)
    dy, dx = u.long().clamp_(max=2 * pixels).sub_(pixels).unbind(1)  # float32 may round u up to 2·pixels + 1
    rows = (torch.arange(h, device=x.device) - dy[:, None]).clamp_(0, h - 1)  # (B,H)
    columns = (torch.arange(w, device=x.device) - dx[:, None]).clamp_(0, w - 1)  # (B,W)
    moved = x.gather(2, rows[:, None, :, None].expand(b, c, h, w))
    return moved.gather(3, columns[:, None, None, :].expand(b, c, h, w))


def binarise(x: Tensor, keys: Tensor) -> Tensor:
    """Draws each pixel black (-1) or white (1), with its intensity as the probability of white.

    The usual preparation of MNIST for Bernoulli likelihoods (Salakhutdinov and Murray 2008).

    Args:
        x: (B,C,H,W) in [-1,1].
        keys: (B,) int64.
    """
    u = uniform(keys, _BINARISE, x[0].numel()).view_as(x)
    return torch.where(u < (x + 1) / 2, 1.0, -1.0).to(x.dtype)
