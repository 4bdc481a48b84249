"""The derivative of a denoiser by its image, whatever mode the caller is in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from limner.samplers.steps import Denoiser


def with_gradient(D: Denoiser, x: Tensor, sigma: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """D(x, σ) (B,…), and the function v -> vᵀ ∂D/∂x, both of x's shape. The weights get no gradient."""
    # Samplers run under inference mode, and autograd keeps only tensors that were made outside of it: hence the clones.
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        x0 = D(x, sigma)

    def pulled_back(v: Tensor) -> Tensor:
        with torch.inference_mode(False):
            return torch.autograd.grad(x0, x, v.clone(), retain_graph=True)[0]

    return x0.detach(), pulled_back
