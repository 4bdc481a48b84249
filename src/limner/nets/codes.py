"""Running moments of an autoencoder's codes: the lectures' attempt to sample from one."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn


class Codes(nn.Module):
    """Per-dimension mean and variance of the codes seen in training, forgetting old ones.

    The lecture (Lab 2) draws ``sigma * randn + mu`` per dimension of the latent vectors and shows that it cannot
    generate realistic images: codes of real images are neither Gaussian nor independent.

    Args:
        code: shape of one code.
        momentum: share of the newest batch.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, code: tuple[int, ...], momentum: float = 0.02) -> None:
        super().__init__()
        self.code, self.momentum = tuple(code), momentum
        self.register_buffer("mean", torch.zeros(prod(code)))
        self.register_buffer("var", torch.ones(prod(code)))

    @torch.no_grad()
    def see(self, z: Tensor) -> None:
        """Moves the moments towards those of codes (B,…)."""
        z = z.detach().flatten(1).float()
        self.mean.lerp_(z.mean(0), self.momentum)
        self.var.lerp_(z.var(0, unbiased=False), self.momentum)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, *code) independent Gaussian codes with these moments."""
        eps = torch.randn(n, len(self.mean), generator=generator, device=self.mean.device)
        return (self.mean + self.var.sqrt() * eps).view(n, *self.code)
