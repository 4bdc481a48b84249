"""Glow: a flow of activation norms, invertible 1×1 convolutions and affine couplings.

Kingma and Dhariwal 2018, *Glow: generative flow with invertible 1×1 convolutions*, arXiv:1807.03039.

    repeat
        x ~ data;  u ~ U[0,1);  x = x + (u - 1/2) · 2/255                     dequantise (eq. 2)
        z = F(x)
        ascend  log p(x) = log N(z; 0, I) + log|det dF/dx|                    change of variables (eq. 6)

    sample: z ~ N(0, T² I);  x = F⁻¹(z), at a temperature T of 0.7, say (section 6)

With a dequantiser, u ~ q(u|x) and the step ascends log p(x) - log q(u|x) (Ho et al. 2019, arXiv:1902.00275, eq. 12).
The loss is in nats per dimension. The net (`limner.nets.glow`) sets its activation norms from the first batch. With
classes it is a density p(x|y): a class moves the base, as in the paper's code, and each coupling as well.
"""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor

from limner.core.flows import FlowModel, log_normal
from limner.core.model import Data, Logs, Update
from limner.losses import dequantise
from limner.nets.protocols import Dequantiser, Flow


class Glow(FlowModel):
    """A flow F between images and N(0, I), trained by maximum likelihood.

    Args:
        F: the flow: glow.Flow, of the classes too with ``conditional: true``.
        dequantiser: net that chooses the noise of dequantisation by what the image is (dequantiser.Coupling). Use it
            for a closer bound on the likelihood of images; null spreads the noise evenly.
        shape: (C,H,W) of an image; filled from the data.
        condition: names of the classes; filled from the data.
    """

    def __init__(
        self,
        F: Flow,
        dequantiser: Dequantiser | None = None,
        *,
        shape: tuple[int, int, int],
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(F, shape, condition, dequantiser)

    def step(self, data: Data, update: Update) -> Logs:
        x, y = next(data)  # (B,C,H,W) in [-1,1], (B,)
        x, log_q = self.dequantised(x, data)
        z, logdet = self.F(x, y)  # (B,D), (B,)
        log_p = log_normal(z) + logdet - log_q  # (B,) nats
        dims = prod(self.shape)
        loss = -log_p.mean() / dims
        update("F", loss)
        return {
            "loss/F": loss,
            "term/bits_per_dim": dequantise.bits_per_dim(log_p, dims).mean(),
            "term/log_det": logdet.mean() / dims,
        }

    def spread(self, x: Tensor, u: Tensor) -> Tensor:
        return dequantise.uniform(x, u)
