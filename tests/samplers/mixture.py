"""A mixture of Gaussians with the exact denoiser and the exact density at every noise level."""

from __future__ import annotations

import torch
from torch import Tensor


class Mixture:
    """Σ_k w_k N(m_k, s²I) in d dimensions, in float64.

    Args:
        means: (K,d).
        s: standard deviation of each component.
    """

    def __init__(self, means: Tensor, s: float) -> None:
        self.means, self.s = means.double(), s
        self.log_weights = torch.log_softmax(torch.linspace(0, 1, len(means), dtype=torch.float64), 0)

    def log_terms(self, x: Tensor, sigma: float) -> Tensor:
        """log w_k N(x; m_k, (s² + σ²)I), (B,K), of x (B,…)."""
        x, variance = x.flatten(1), self.s**2 + sigma**2
        squares = (x[:, None] - self.means.to(x)).square().sum(2)
        norm = x.shape[1] * torch.log(torch.tensor(2 * torch.pi * variance, dtype=torch.float64))
        return self.log_weights.to(x) - (squares / variance + norm.to(x)) / 2

    def log_prob(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """Log-density (B,) in nats at noise level σ."""
        return self.log_terms(x, sigma).logsumexp(1)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x], of x's shape: Σ_k p(k|x) (m_k + s²/(s²+σ²)(x − m_k))."""
        p = self.log_terms(x, sigma).softmax(1)
        mean = (p @ self.means.to(x)).view_as(x)
        return mean + self.s**2 / (self.s**2 + sigma**2) * (x - mean)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Samples (n,d)."""
        g = torch.Generator().manual_seed(seed)
        k = torch.multinomial(self.log_weights.exp(), n, True, generator=g)
        return self.means[k] + self.s * torch.randn(n, self.means.shape[1], generator=g, dtype=torch.float64)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def mixture(d: int = 16, components: int = 6, s: float = 0.2) -> Mixture:
    """The mixture that most tests use: its components are a few standard deviations apart."""
    return Mixture(0.7 * randn(components, d, seed=7), s)
