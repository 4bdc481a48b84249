"""The variational bound of a diffusion model in continuous time: a lower bound of log p(x) for any denoiser.

Kingma, Salimans, Poole and Ho 2021, *Variational diffusion models*, arXiv:2107.00630, eq. 11 to 18. With noisy images
x_σ = x + σ ε for σ between `low` and `high`, the bound is

    -log p(x) <= KL(q(x_high|x) || p(x_high))  +  E_ε ∫ |x - D(x_σ, σ)|² / σ² d ln σ  -  E_ε log p(x|x_low)
                 the prior                        diffusion                              reconstruction

for the prior N(0, (high² + sigma_data²) I). The integral is the limit of the sum of Ho et al. 2020 (arXiv:2006.11239,
eq. 5) over ever more steps; in terms of the noise it is E ∫ |ε - ε̂|² d ln σ, all noise levels weighted alike.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi
from typing import Literal

import torch
from torch import Tensor

_VALUES = 1 << 24  # of a table of pixels by grey values that are held at once


def elbo(
    denoise: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    low: float,
    high: float,
    sigma_data: float,
    noise: Callable[..., Tensor],
    *,
    draws: int = 16,
    measure: Literal["discrete", "density"] = "discrete",
) -> Tensor:
    """An estimate of the bound for each image, (B,) in nats, whose mean over noise is the bound.

    The noise levels of an image are spaced evenly in ln σ from a random offset, so the error falls faster than with
    independent ones (appendix I.1 of the paper).

    Args:
        denoise: D(x_σ (B,C,H,W), σ (B,)) -> (B,C,H,W).
        x: images (B,C,H,W) in [-1,1]; grey values, (2k - 255)/255, for the measure ``discrete``.
        low: noise level below which images are told apart without the net.
        high: noise level at which images are nearly pure noise.
        sigma_data: standard deviation of the data.
        noise: ``noise(k, *shape)`` gives standard normal numbers (B, *shape), other ones for each k.
        draws: noise levels for each image, of one evaluation each. Raise it for estimates that vary less.
        measure: ``discrete`` bounds the probability of the 256 grey values, ``density`` a density.
    """
    offset = torch.special.ndtr(noise(0, 1).flatten())  # (B,) uniform
    diffusion = x.new_zeros(len(x), dtype=torch.float64)
    for k in range(draws):
        sigma = low * (log(high / low) * (k + offset) / draws).exp()
        eps, spread = noise(k + 1, *x.shape[1:]), sigma.view(-1, *[1] * (x.dim() - 1))
        error = (x - denoise(x + spread * eps, sigma)) / spread
        diffusion += log(high / low) / draws * _sum(error.square())
    variance = high**2 + sigma_data**2
    prior = 0.5 * _sum((x.square() + high**2) / variance - 1 + log(variance / high**2))
    if measure == "density":  # of x_low given x, whose density is read as that of x
        return -(prior + diffusion + x[0].numel() * 0.5 * log(2 * pi * torch.e * low**2))
    return grey_values(x, x + low * noise(draws + 1, *x.shape[1:]), low) - prior - diffusion


def grey_values(x: Tensor, noisy: Tensor, sigma: float) -> Tensor:
    """Log P(x | noisy) (B,) of grey values in proportion to N(noisy; x, σ² I), which needs no net (eq. 8)."""
    levels = (2 * torch.arange(256, device=x.device) - 255) / 255
    parts, at_once = [], max(1, _VALUES // (256 * x[0].numel()))
    for clean, seen in zip(x.flatten(1).split(at_once), noisy.flatten(1).split(at_once), strict=True):
        fit = -0.5 * ((seen[..., None] - levels) / sigma).square()  # (b,D,256)
        parts.append(_sum(-0.5 * ((seen - clean) / sigma).square() - fit.logsumexp(2)))
    return torch.cat(parts)


def _sum(values: Tensor) -> Tensor:
    """Sums (B,) float64 over all but the first dimension."""
    return values.flatten(1).sum(1, dtype=torch.float64)
