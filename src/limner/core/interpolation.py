"""Interpolation between codes: linear and spherical."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Interpolation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`between(a, b, t)`: codes (B,…) at the fraction t (B,) of the path from codes a (B,…) to codes b (B,…)."""


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Linear interpolation from codes a (B,…) to codes b (B,…) at t (B,).

    >>> lerp(torch.zeros(2, 1), torch.ones(2, 1), torch.tensor([0.25, 1.0])).flatten()
    tensor([0.2500, 1.0000])
    """
    t = t.view(-1, *[1] * (a.dim() - 1))
    return a + t * (b - a)


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation from codes a (B,…) to codes b (B,…) at t (B,).

    White 2016, *Sampling generative networks*, arXiv:1609.04468, section 2.1. Between samples of a normal prior the
    norm stays typical of that prior. If a and b are parallel, the arc is not defined and the path is linear.
    """
    shape = [-1] + [1] * (a.dim() - 1)
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    norms = flat_a.norm(dim=1) * flat_b.norm(dim=1)
    cosine = torch.where(norms > 0, (flat_a * flat_b).sum(1) / norms.clamp_min(1e-30), 1.0)
    omega = torch.arccos(cosine.clamp(-1, 1))
    sine = torch.sin(omega)
    straight = sine < 1e-4
    sine = torch.where(straight, 1.0, sine)
    arc = (torch.sin((1 - t) * omega) / sine).view(shape) * a + (torch.sin(t * omega) / sine).view(shape) * b
    return torch.where(straight.view(shape), lerp(a, b, t), arc)


def interpolation_for(prior: object) -> Interpolation:
    """The interpolation for samples of a prior: spherical if it is normal with mean 0, else linear."""
    return slerp if getattr(prior, "kind", None) == "normal" else lerp
