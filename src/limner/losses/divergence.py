"""Divergences with a closed form, in nats.

The lectures print the KL of a VAE as Σ(σ² + μ² − log σ − 1), which is not a KL: the half is missing and the logarithm
is of σ, not of σ². Its minimum is (1 + log 2)/2 − 1 = −0.153 per dimension, at σ = 0.7071, so it is negative and does
not draw the posterior to N(0, I). They also say "minimise −KL + E log p", which is the bound to *maximise*, and write
N(μ, σ) for N(μ, σ²). Here log σ² is the argument and the result is the KL of Kingma and Welling.
"""

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
    # expm1: near σ = 1 the difference of σ² and 1 keeps its digits.
    return 0.5 * (logvar.expm1() + mu.square() - logvar).flatten(1).sum(1)


def kl_bernoulli(rho: float, rho_hat: Tensor) -> Tensor:
    """KL(ρ ‖ ρ̂) of two coins, element by element: ρ log(ρ/ρ̂) + (1−ρ) log((1−ρ)/(1−ρ̂)).

    The sparsity penalty of Ng 2011, *Sparse autoencoder* (CS294A lecture notes), section 3.

    Args:
        rho: the wanted probability, in [0,1].
        rho_hat: the probabilities there are, in [0,1], any shape. The result is infinite where they exclude an outcome
            that ρ allows.
    """
    wanted = torch.full_like(rho_hat, rho)
    entropy = -(xlogy(wanted, wanted) + xlogy(1 - wanted, 1 - wanted))
    return -xlogy(wanted, rho_hat) - xlogy(1 - wanted, 1 - rho_hat) - entropy
