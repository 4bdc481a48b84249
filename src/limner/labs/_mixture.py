"""Distributions whose best denoiser is known: normal mixtures on a line, and a finite set of images.

With noise of standard deviation σ a component N(m, s²) becomes N(m, s² + σ²). So the density of x̄ = x0 + σε and the
denoiser D(x̄, σ) = E[x0 | x̄] are sums over components. On a line the probability-flow ODE keeps the order of points, and
with it every quantile: its exact solution is F_σ'⁻¹(F_σ(x̄)), where F_σ is the distribution function at σ. So the error
of a sampler can be measured without a fine solution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_BISECTIONS = 60


@dataclass(frozen=True)
class Mixture:
    """A mixture of normal distributions on a line, in float64.

    Attributes:
        weights: shares of the components, which add up to 1.
        means: their means.
        stds: their standard deviations.
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]

    @property
    def variance(self) -> float:
        """The variance of the data."""
        w, m, s = self._parts()
        return float((w * (s.square() + m.square())).sum() - (w * m).sum().square())

    @property
    def mean(self) -> float:
        """The mean of the data."""
        w, m, _ = self._parts()
        return float((w * m).sum())

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        w, m, s = (torch.tensor(v, dtype=torch.float64) for v in (self.weights, self.means, self.stds))
        return w, m, s

    def density(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """The density at x (N,) of the data with noise of standard deviation sigma."""
        w, m, s = self._parts()
        v = s.square() + sigma**2
        return (w / (2 * math.pi * v).sqrt() * (-(x[:, None] - m).square() / (2 * v)).exp()).sum(1)

    def cdf(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """The share of the data with noise of standard deviation sigma below x (N,)."""
        w, m, s = self._parts()
        return (w * torch.special.ndtr((x[:, None] - m) / (s.square() + sigma**2).sqrt())).sum(1)

    def quantile(self, u: Tensor, sigma: float = 0.0) -> Tensor:
        """The x (N,) of which a share u (N,) lies below, by bisection to the last bit."""
        _, m, s = self._parts()
        reach = float(m.abs().max() + 12 * (s.square().max() + sigma**2).sqrt())
        low, high = torch.full_like(u, -reach), torch.full_like(u, reach)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            below = self.cdf(middle, sigma) < u
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """D(x̄, σ) = E[x0 | x̄] for x̄ (N,)."""
        w, m, s = self._parts()
        v = s.square() + sigma**2
        responsibility = (w.log() - v.log() / 2 - (x[:, None] - m).square() / (2 * v)).softmax(1)
        return (responsibility * (m + s.square() / v * (x[:, None] - m))).sum(1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Points (n,)."""
        w, m, s = self._parts()
        which = torch.multinomial(w, n, replacement=True, generator=generator)
        return m[which] + s[which] * torch.randn(n, generator=generator, dtype=torch.float64)


UDL = Mixture((0.2, 0.3, 0.35, 0.15), (1.5, -0.216, 0.45, -1.875), (0.3, 0.15, 0.525, 0.075))
"""The data of chapter 18's figures in Prince 2023, *Understanding Deep Learning*, which a lecture follows."""


def denoise_images(data: Tensor, x: Tensor, sigma: float) -> Tensor:
    """The best denoiser of a finite set: the mean of its images, weighted by how likely each became x.

    Args:
        data: all images (N,C,H,W).
        x: images with noise (B,C,H,W).
        sigma: standard deviation of the noise.
    """
    flat, noisy = data.flatten(1), x.flatten(1)
    squares = flat.square().sum(1) - 2 * noisy @ flat.T  # (B,N), without what is equal for all images
    return ((-squares / (2 * sigma**2)).softmax(1) @ flat).view_as(x)
