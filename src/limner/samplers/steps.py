"""Samplers: how to go down a list of noise levels.

Each takes a denoiser D(x, σ), x (B,…) at the first noise level, and `sigmas`, a list of floats: descending and ending
in 0 to draw images. Without the 0 the result is x at the last level, and upwards (without noise) an image becomes its
code. With σ → σ' for one step,

    x' = D + σ'/σ · (x − D)

is Euler's method on dx/dσ = (x − D)/σ (Karras et al. 2022, arXiv:2206.00364, eq. 3 and 4), and DDIM (Song, Meng and
Ermon 2021, arXiv:2010.02502, eq. 12 with σ_t = 0) in this coordinate. Every other sampler changes D or adds noise.

`noise(i)` gives standard normal numbers of x's shape for step i, where the first step is 1: noise(0) is left for the
start, x = σ0 · noise(0). To record a path, wrap D: it sees each x once, or twice per step of Heun's method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import log, sqrt

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, float], Tensor]
"""D(x, σ) = E[x0 | x], of x's shape and dtype, of x (B,…) with noise of the standard deviation σ > 0."""

StepNoise = Callable[[int], Tensor]
"""Standard normal numbers of x's shape for a step; 0 is the start."""

Sampler = Callable[[Denoiser, Tensor, Sequence[float]], Tensor]
"""x at the last noise level, of x at the first."""


def euler(D: Denoiser, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Euler's method, which is DDIM. Karras et al. 2022, arXiv:2206.00364, Algorithm 1 without line 6.

    Order 1; one evaluation per step.
    """
    for sigma, lower in pairwise(sigmas):
        x = torch.lerp(D(x, sigma), x, lower / sigma)
    return x


def heun(
    D: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise | None = None, *, churn: float = 0.0
) -> Tensor:
    """Heun's method, with noise added before each step if `churn` > 0. Karras et al. 2022, Algorithms 1 and 2.

    Order 2 without churn; two evaluations per step, one in the step to 0. S_noise is 1, and all steps have churn.

    Args:
        D: the denoiser.
        x: (B,…) at sigmas[0].
        sigmas: noise levels.
        noise: standard normal numbers for each step; only needed with churn.
        churn: S_churn, to be compared with the number of steps. Raise it if samples of few kinds or with left-over
            noise come out of a net that is not exact; lower it for fewer steps, and to 0 for a path that can be
            retraced.
    """
    gamma = min(churn / (len(sigmas) - 1), sqrt(2) - 1) if churn else 0.0
    for i, (sigma, lower) in enumerate(pairwise(sigmas), 1):
        if noise is not None and gamma > 0:
            x = x + sigma * sqrt(gamma * (2 + gamma)) * noise(i)  # √(σ̂² − σ²)
            sigma *= 1 + gamma  # σ̂
        x0 = D(x, sigma)
        ahead = torch.lerp(x0, x, lower / sigma)
        if lower > 0:
            slope = (x - x0) / sigma + (ahead - D(ahead, lower)) / lower
            ahead = x + (lower - sigma) / 2 * slope
        x = ahead
    return x


def ancestral(D: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, *, eta: float = 1.0) -> Tensor:
    """Draws each x' from q(x' | x, x0 = D): ancestral sampling. Ho et al. 2020, arXiv:2006.11239, Algorithm 2.

    That is DDPM with the smaller variance β̃ on any list of noise levels, and with `eta` DDIM's σ_t(η): Song, Meng and
    Ermon 2021, arXiv:2010.02502, eq. 12 and 16.

    Args:
        D: the denoiser.
        x: (B,…) at sigmas[0].
        sigmas: noise levels, descending.
        noise: standard normal numbers for each step.
        eta: share η in [0,1] of the noise that is drawn anew; 0 is `euler`. Raise it with many steps, since new noise
            covers errors of earlier steps; lower it with few.
    """
    for i, (sigma, lower) in enumerate(pairwise(sigmas), 1):
        up = eta * lower * sqrt(1 - (lower / sigma) ** 2)
        x = torch.lerp(D(x, sigma), x, sqrt(lower**2 - up**2) / sigma)
        if up > 0:
            x = x + up * noise(i)
    return x


def dpm2m(D: Denoiser, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """DPM-Solver++(2M). Lu et al. 2022, arXiv:2211.01095, Algorithm 2.

    Order 2 with one evaluation per step: the line through the last two D, in λ = −log σ, is read at the middle of the
    step. The first step and a step to 0, where λ ends, are Euler's.
    """
    before, h_before = x, 0.0
    for sigma, lower in pairwise(sigmas):
        x0 = D(x, sigma)
        h = log(sigma / lower) if lower > 0 else 0.0
        middle = torch.lerp(before, x0, 1 + h / (2 * h_before)) if h and h_before else x0  # 1/2r = h/2h_before
        x = torch.lerp(middle, x, lower / sigma)
        before, h_before = x0, h
    return x
