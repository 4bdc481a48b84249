"""The variational bound of a diffusion model: nats that its ancestral chain certainly reaches.

Ho, Jain and Abbeel 2020, arXiv:2006.11239, eq. 5, in the coordinate x + σ ε. With noise levels σ_1 < … < σ_T,

    −log P(x) ≤  KL(q(x_T|x) ‖ p(x_T))  +  Σ_{t>1} KL(q(x_{t−1}|x_t, x) ‖ p(x_{t−1}|x_t))  −  E log P(x|x_1)

where the middle terms are ½ (σ_{t−1}^−2 − σ_t^−2) ‖x − D(x_t)‖² if p has the variance of q (Kingma et al. 2021,
arXiv:2107.00630, eq. 13 and 14), and the last one is a Gaussian of the width σ_1, cut into grey levels.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log

import torch
from torch import Tensor

from limner.losses.likelihood import discretised_gaussian


def prior_term(x: Tensor, sigma: float, sigma_data: float) -> Tensor:
    """KL(N(x, σ²) ‖ N(0, σ² + σ_data²)) (B,) in nats, of images x (B,…) at the highest noise level."""
    variance = sigma**2 + sigma_data**2
    nats = 0.5 * ((sigma**2 + x.double().square()) / variance - 1 + log(variance / sigma**2))
    return nats.flatten(1).sum(1)


def step_term(x: Tensor, x0: Tensor, lower: Tensor, sigma: Tensor) -> Tensor:
    """½ (1/σ'² − 1/σ²) ‖x − x0‖² (B,) in nats: a step from sigma (B,) to lower (B,) with the estimate x0 (B,…) of x."""
    return 0.5 * (lower**-2 - sigma**-2).double() * (x - x0).double().square().flatten(1).sum(1)


def decoder_term(x: Tensor, x0: Tensor, sigma: float) -> Tensor:
    """−log P(x) (B,) in nats of images x (B,…) of 256 levels under N(x0, σ²) cut into their bins."""
    return -discretised_gaussian(x0, x0.new_tensor(2 * log(sigma)), x).double()


def strata(n: int, draws: int, steps: int, noise: Callable[..., Tensor]) -> Tensor:
    """Indices (draws,n) of steps 0 … steps−1, one from each of `draws` equal parts: unbiased, with less variance."""
    u = torch.special.ndtr(noise(draws, n))
    part = torch.arange(draws, device=u.device)[:, None]
    return ((part + u) / draws * steps).long().clamp_max(steps - 1)
