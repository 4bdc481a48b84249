"""Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from limner.samplers.steps import Denoiser


def guided(
    denoise: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    y: Tensor | None = None,
    scale: float = 1.0,
    *,
    null: int | None = None,
    interval: tuple[float, float] | None = None,
    rescale: float = 0.0,
) -> Denoiser:
    """The denoiser D_u + g · (D_c − D_u) of classes y, with g = `scale`.

    g = 1 is the plain conditional denoiser and g = 0 the unconditional one; Ho and Salimans write w = g − 1. The two
    denoisers are one batch of 2B; where g = 1 or σ is outside the interval there is no second pass.

    Args:
        denoise: `denoise(x, sigma, y)` of a model, with x (B,…), sigma (B,) and y (B,…) or None.
        y: labels (B,…), or None for a model without a condition.
        scale: g. Raise it for samples that show their class more clearly; lower it for more diverse ones.
        null: the class that means "none": the number of classes. Where labels are vectors, zeros mean it.
        interval: (low, high) noise levels between which there is guidance (Kynkäänniemi et al. 2024,
            arXiv:2404.07724); everywhere if None. Narrow it if guided samples are alike or their colours too strong.
        rescale: φ in [0,1], how far the standard deviation of each guided prediction is brought back to that of D_c
            (Lin et al. 2023, arXiv:2305.08891, eq. 14 to 16, there for the net's output, here for D). Raise it if
            guided images are too bright.

    Raises:
        ValueError: there is a scale, and no class or no `null`.
    """
    if scale != 1 and (y is None or null is None):
        raise ValueError("guidance needs labels y and the null label; leave scale at 1")
    low, high = interval or (0.0, float("inf"))

    def D(x: Tensor, sigma: float) -> Tensor:
        if y is None or null is None or scale == 1 or not low <= sigma <= high:
            # a clone, because labels made under inference mode could not be kept for a gradient
            return denoise(x, x.new_full((len(x),), sigma), None if y is None else y.clone())
        labels = torch.cat([y, unlabelled(y, null)])
        D_c, D_u = denoise(torch.cat([x, x]), x.new_full((2 * len(x),), sigma), labels).chunk(2)
        x0 = torch.lerp(D_u, D_c, scale)
        return _with_deviation(x0, D_c, rescale) if rescale else x0

    return D


def unlabelled(y: Tensor, null: int) -> Tensor:
    """Labels of the shape of y (B,…) that mean "none": the index `null` for classes, zeros for vectors."""
    return torch.full_like(y, null if y.dim() == 1 else 0)


def _with_deviation(x0: Tensor, D_c: Tensor, phi: float) -> Tensor:
    """x0 (B,…), its standard deviation per image moved towards that of D_c by a share φ."""
    ratio = D_c.flatten(1).std(1) / x0.flatten(1).std(1)  # (B,)
    return x0 * (1 + phi * (ratio - 1)).view(-1, *[1] * (x0.ndim - 1))
