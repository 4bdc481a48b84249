"""Divergences with a closed form, in nats."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.special import xlogy

from limner.losses._precision import in_float32


@in_float32
def kl_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, σ²) ‖ N(0, I)) (B,) of mu (B,…), logvar = log σ² (B,…): ½ Σ(σ² + μ² − 1 − log σ²).

    Kingma and Welling 2013, *Auto-encoding variational Bayes*, arXiv:1312.6114, appendix B.

    >>> kl_normal(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2))
    tensor([0.5000])
    """
    # `expm1` loses no digits of σ² − 1 near σ = 1.
    return 0.5 * (logvar.expm1() + mu.square() - logvar).flatten(1).sum(1)


@in_float32
def kl_normals(mu_q: Tensor, logvar_q: Tensor, mu_p: Tensor, logvar_p: Tensor) -> Tensor:
    """KL(N(mu_q, σ_q²) ‖ N(mu_p, σ_p²)) (B,) of tensors (B,…), summed over an image.

    ½ Σ(r + (mu_q − mu_p)²/σ_p² − 1 − log r) with r = σ_q²/σ_p². The log variances are broadcast to the means.

    >>> kl_normals(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2))
    tensor([0.5000])
    """
    ratio = logvar_q - logvar_p
    nats = 0.5 * (ratio.expm1() - ratio + (mu_q - mu_p).square() * (-logvar_p).exp())
    return nats.flatten(1).sum(1)


def kl_bernoulli(rho: float, rho_hat: Tensor) -> Tensor:
    """KL(ρ ‖ ρ̂) of Bernoulli distributions, element by element: ρ log(ρ/ρ̂) + (1−ρ) log((1−ρ)/(1−ρ̂)).

    The sparsity penalty of Ng 2011, *Sparse autoencoder* (CS294A lecture notes), section 3.

    Args:
        rho: probability ρ in [0,1].
        rho_hat: probabilities ρ̂ in [0,1], of any shape. The result is infinite where ρ̂ excludes an outcome that ρ
            allows.
    """
    p = torch.full_like(rho_hat, rho)
    entropy = -(xlogy(p, p) + xlogy(1 - p, 1 - p))
    return -xlogy(p, rho_hat) - xlogy(1 - p, 1 - rho_hat) - entropy
