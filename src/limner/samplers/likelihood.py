"""The likelihood of images under the probability-flow ODE of a denoiser.

Song et al. 2021, *Score-based generative modeling through stochastic differential equations*, arXiv:2011.13456,
appendix D.2, with the trace estimator of Hutchinson 1989 as in FFJORD (Grathwohl et al. 2019, arXiv:1810.01367).

The ODE dx/dσ = (x − D)/σ is solved for z = x/√(σ² + σ_d²) in the angle θ = atan(σ/σ_d), the coordinates in which EDM's
net works:

    dz/dθ = (cos θ · z − D/σ_d) / sin θ

For data of the standard deviation σ_d in all directions the right side is 0. So Heun's method has a tenth of the error
that it has in σ: on a mixture in 16 dimensions .015, .0018 and .0008 nats per dimension at 20, 50 and 100 steps, and
.16, .024 and .0057 in σ (tests/samplers/test_likelihood.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import atan, cos, log, pi, sin, sqrt, tan

import torch
from torch import Tensor

from limner.samplers._gradient import with_gradient
from limner.samplers.steps import Denoiser

EXACT = 16  # dimensions up to which the trace is summed and not estimated


def log_prob(
    D: Denoiser, x: Tensor, sigmas: Sequence[float], probes: Tensor | None, sigma_data: float
) -> tuple[Tensor, Tensor]:
    """Codes z (B,…), which are N(0, I) for images of the model, and log p(x) (B,) in nats.

    p is the density at the lowest noise level above 0. It is the density of the ODE, not of its steps: too few steps
    give any number. Double them until the value stays, and name them and the probes with it. It may be called under
    `inference_mode`.

    Args:
        D: the denoiser, without guidance, whose density would belong to no model.
        x: (B,…). Its distribution at the lowest level is that of the data with a little noise.
        sigmas: noise levels as samplers have them, descending; a 0 at their end is left out. `karras` has the range
            that is needed.
        probes: (K,B,…), independent numbers of mean 0 and variance 1, the same at all steps: more of them, less
            variance. None sums the trace exactly, for at most 16 dimensions.
        sigma_data: standard deviation σ_d of the data.

    Raises:
        ValueError: there are no probes and more than 16 dimensions.
    """
    d = x[0].numel()
    if probes is None:
        probes = _axes(x)

    def slope(z: Tensor, theta: float) -> tuple[Tensor, Tensor]:
        """dz/dθ (B,…) and its divergence (B,)."""
        x0, pulled_back = with_gradient(D, z * (sigma_data / cos(theta)), sigma_data * tan(theta))
        # vᵀ(cos²θ·I − ∂D/∂x)v has less variance than d·cos²θ − vᵀ ∂D/∂x v
        traces = torch.stack([((cos(theta) ** 2 * v - pulled_back(v)) * v).flatten(1).sum(1) for v in probes])
        return (cos(theta) * z - x0 / sigma_data) / sin(theta), traces.mean(0) / (sin(theta) * cos(theta))

    angles = [atan(sigma / sigma_data) for sigma in reversed(sigmas) if sigma > 0]
    z, nats = x * (cos(angles[0]) / sigma_data), x.new_full((len(x),), d * log(cos(angles[0]) / sigma_data))
    for theta, above in pairwise(angles):
        dz, divergence = slope(z, theta)
        dz_above, divergence_above = slope(z + (above - theta) * dz, above)
        z = z + (above - theta) / 2 * (dz + dz_above)
        nats = nats + (above - theta) / 2 * (divergence + divergence_above)
    return z, nats - (z.flatten(1).square().sum(1) + d * log(2 * pi)) / 2


def _axes(x: Tensor) -> Tensor:
    """√d times the d unit vectors, (d,B,…): with them the mean over probes is the trace itself."""
    d = x[0].numel()
    if d > EXACT:
        raise ValueError(f"the exact trace of {d} dimensions costs {d} backward passes a step; give probes")
    return sqrt(d) * torch.eye(d, dtype=x.dtype, device=x.device).view(d, 1, *x.shape[1:]).expand(d, *x.shape)
