"""Penalties on the activity of codes, summed over the units of a code; the mean over the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from limner.losses.divergence import kl_bernoulli


def l1(code: Tensor) -> Tensor:
    """Σ|code| over the units of a code (B,…), mean over the batch; drives activations to zero.

    >>> l1(torch.tensor([[1.0, -2.0], [0.0, 1.0]]))
    tensor(2.)
    """
    return code.abs().flatten(1).sum(1).mean()


def kl(activations: Tensor, rho: float = 0.05) -> Tensor:
    """Σ KL(ρ ‖ ρ̂) over the units, where ρ̂ is a unit's mean activation over the batch.

    Ng 2011, *Sparse autoencoder* (CS294A lecture notes), section 3. The penalty is smallest if every
    unit is active in a share ρ of the images, so no unit dies.

    Args:
        activations: sigmoid activations (B,…) in [0,1].
        rho: target mean activation, in (0,1). Lower it for a sparser code; raise it for a denser one.
    """
    tiny = torch.finfo(activations.dtype).eps  # keeps the penalty of a unit that is always 0 or 1 finite
    return kl_bernoulli(rho, activations.flatten(1).mean(0).clamp(tiny, 1 - tiny)).sum()
