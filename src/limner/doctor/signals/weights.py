"""Signals of weights: the largest singular values, which grow before a GAN breaks down (Brock et al. 2019).

* ``weights/G``, ``weights/D`` …: the largest singular value among the weight matrices of a group; a convolution counts
  as a matrix with a row for each channel of its output. By a few steps of the power method, so slightly too small.
* ``nets/uneven``: transposed convolutions whose kernel is no multiple of their stride, which paint checkerboards.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limner.core.capabilities import HasCritic
from limner.core.model import GenerativeModel
from limner.doctor.ground import Ground
from limner.doctor.signals.examination import Examination

_ITERATIONS = 4


def applies(model: GenerativeModel) -> bool:
    """Whether a model learns from a critic."""
    return isinstance(model, HasCritic)


@torch.no_grad()
def measure(model: GenerativeModel, ground: Ground) -> Examination:
    """The signals of the weights."""
    signals = {"nets/uneven": float(sum(map(_is_uneven, model.modules())))}
    for group, net in model.groups().items():
        matrices = [p.detach().flatten(1) for p in net.parameters() if p.dim() > 1]
        if matrices:
            signals[f"weights/{group}"] = max(map(_singular_value, matrices))
    return Examination(signals)


def _singular_value(matrix: Tensor) -> float:
    """Nearly the largest singular value of a matrix (N,M)."""
    if not bool(torch.isfinite(matrix).all()):
        return float("nan")
    v = torch.ones(matrix.shape[1], device=matrix.device, dtype=matrix.dtype)
    v[1::2] = -0.5  # no mean of a row is 0 by design, and no row alternates
    for _ in range(_ITERATIONS):
        u = matrix @ (v / v.norm().clamp(min=1e-30))
        v = matrix.T @ u / u.norm().clamp(min=1e-30)
    return float(v.norm())


def _is_uneven(module: nn.Module) -> bool:
    if not isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return False
    return any(k % s for k, s in zip(module.kernel_size, module.stride, strict=True))
