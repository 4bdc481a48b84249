"""How well two domains' images of one noise correspond, where the second domain is a known change of the first.

Liu and Tuzel 2016, arXiv:1606.07536, section 4: the image of the first domain is changed into one of the second, and
compared with the generated one by the share of pixels that agree. Most pixels of a digit are black, so that any two
agree in most; the floor is the same over pairs that are shuffled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from limner.core.errors import LimnerError


@dataclass(frozen=True)
class Agreement:
    """Means over pairs.

    Attributes:
        pixels: share of pixels that are on the same side of the middle grey.
        iou: bright pixels of both over bright pixels of either; 1 where neither has any.
        correlation: Pearson's correlation over the pixels of a pair; 0 where one image is constant.
        shuffled: the same with each image compared with that of the next pair; None in this one itself.
    """

    pixels: float
    iou: float
    correlation: float
    shuffled: Agreement | None = None


def agreement(changed: Tensor, other: Tensor) -> Agreement:
    """The agreement of images (N,C,H,W) in [-1,1] with their partners, and its floor.

    Raises:
        LimnerError: there are no images, or the shapes differ.
    """
    if changed.shape != other.shape or not len(other):
        raise LimnerError(
            f"images {tuple(changed.shape)} and {tuple(other.shape)} are no pairs; give as many of one shape"
        )
    floor = _agreement(changed, other.roll(1, 0))
    return Agreement(*_agreement(changed, other), Agreement(*floor))


def _agreement(x: Tensor, y: Tensor) -> tuple[float, float, float]:
    x, y = x.flatten(1).double(), y.flatten(1).double()
    bright_x, bright_y = x > 0, y > 0
    both, either = (bright_x & bright_y).sum(1), (bright_x | bright_y).sum(1)
    iou = torch.where(either > 0, both / either.clamp_min(1), 1.0)
    cx, cy = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    norms = cx.norm(dim=1) * cy.norm(dim=1)
    r = torch.where(norms > 1e-9, (cx * cy).sum(1) / norms.clamp_min(1e-9), 0.0)
    return float((bright_x == bright_y).double().mean()), float(iou.mean()), float(r.mean())
