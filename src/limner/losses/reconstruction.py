"""Distances between reconstructions and images.

"sum", as `reduction`, sums over the pixels of an image and takes the mean over the batch, on the scale of a
log-likelihood to which a KL term can be added. "mean" also divides by the number of pixels C·H·W, so that a KL or
sparsity term weighs C·H·W times as much.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.losses._precision import in_float32

Reduction = Literal["mean", "sum"]


def _reduce(errors: Tensor, reduction: Reduction) -> Tensor:
    return errors.mean() if reduction == "mean" else errors.flatten(1).sum(1).mean()


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"shapes {tuple(a.shape)} and {tuple(b.shape)} differ; use images of one shape")


@in_float32
def weighted_mse(x_hat: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error of x_hat (B,…) against x (B,…), each image multiplied by its weight (B,).

    >>> weighted_mse(torch.ones(2, 3), torch.zeros(2, 3), torch.tensor([1.0, 3.0])).item()
    2.0
    """
    _same_shape(x_hat, x)
    return (weight * (x_hat - x).square().flatten(1).mean(1)).mean()


@in_float32
def pseudo_huber(x_hat: Tensor, x: Tensor, c: float) -> Tensor:
    """The distance √(‖x_hat − x‖² + c²) − c (B,) of images (B,…): squared for near ones, the norm for far ones.

    Charbonnier et al. 1997; for consistency models Song and Dhariwal 2023, arXiv:2310.14189, eq. 8.

    >>> pseudo_huber(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2), 1e-6).item()
    4.999999046325684
    """
    _same_shape(x_hat, x)
    return ((x_hat - x).square().flatten(1).sum(1) + c**2).sqrt() - c


@in_float32
def mse(x_hat: Tensor, x: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Squared error of x_hat (B,…) against x (B,…).

    >>> x = torch.zeros(2, 1, 2, 2)
    >>> mse(x + 1, x).item(), mse(x + 1, x, reduction="sum").item()
    (1.0, 4.0)
    """
    _same_shape(x_hat, x)
    return _reduce((x_hat - x).square(), reduction)


@in_float32
def bce(logits: Tensor, x: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Binary cross-entropy of logits (B,…) against x (B,…) in [-1,1], which is first mapped to [0,1].

    A grey x counts as a probability, so the smallest value is not 0 but the entropy of x.

    >>> bce(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item()  # log 2
    0.6931471824645996
    """
    _same_shape(logits, x)
    errors = F.binary_cross_entropy_with_logits(logits, (x + 1) / 2, reduction="none")
    return _reduce(errors, reduction)


@in_float32
def psnr(x_hat: Tensor, x: Tensor, peak: float = 2.0) -> Tensor:
    """Peak signal-to-noise ratio (B,) in dB of x_hat (B,…) against x (B,…): 10 log10(peak² / MSE) of each image.

    `peak` is the range of pixel values: 2 for [-1,1]. Equal images have an infinite PSNR.
    """
    _same_shape(x_hat, x)
    return 10 * torch.log10(peak**2 / (x_hat - x).square().flatten(1).mean(1))
