"""RealNVP: a flow of affine couplings, of images at several scales or of points.

Dinh, Sohl-Dickstein and Bengio 2017, *Density estimation using real NVP*, arXiv:1605.08803.

    repeat
        x ~ data;  u ~ U[0,1);  x = x + (u - 1/2) · 2/255                     dequantise; not for points
        z = F(x)
        ascend  log p(x) = log N(z; 0, I) + log|det dF/dx|                    change of variables (eq. 2 and 3)

    sample: z ~ N(0, I);  x = F⁻¹(z)

With a dequantiser, u ~ q(u|x) and the step ascends log p(x) - log q(u|x) (Ho et al. 2019, arXiv:1902.00275, eq. 12).
The loss is in nats per dimension. The couplings are in `limner.nets.real_nvp`, with the map of pixels of section 4.1.
"""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor

from limner.core.flows import FlowModel, log_normal
from limner.core.model import Data, Logs, Update
from limner.losses import dequantise
from limner.nets.protocols import Dequantiser, Flow


class RealNVP(FlowModel):
    """A flow F between images or points and N(0, I), trained by maximum likelihood.

    Args:
        F: the flow: real_nvp.Flow of images, real_nvp.PointFlow of points; of the classes too with
            ``conditional: true``.
        dequantiser: net that chooses the noise of dequantisation by what the image is (dequantiser.Coupling). Use it
            for a closer bound on the likelihood of images; null spreads the noise evenly.
        shape: (C,H,W) of an image, or (D,1,1) of a point; filled from the data.
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
        x, y = next(data)  # (B,C,H,W), images in [-1,1]; (B,)
        x, log_q = self.dequantised(x, data)
        z, logdet = self.F(x, y)  # (B,D), (B,)
        log_p = log_normal(z) + logdet - log_q  # (B,) nats
        dims = prod(self.shape)
        loss = -log_p.mean() / dims
        update("F", loss)
        logs = {"loss/F": loss, "term/log_det": logdet.mean() / dims}
        return logs if self.is_of_points else logs | {"term/bits_per_dim": dequantise.bits_per_dim(log_p, dims).mean()}

    def spread(self, x: Tensor, u: Tensor) -> Tensor:
        return dequantise.uniform(x, u)
