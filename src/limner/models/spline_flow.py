"""Neural spline flow: a flow whose couplings are monotone rational-quadratic splines, of points or of images.

Durkan, Bekasov, Murray and Papamakarios 2019, *Neural spline flows*, arXiv:1906.04032.

    repeat
        x ~ data;  u ~ U[0,1);  x = x + (u - 1/2) · 2/255                     dequantise; not for points
        z = F(x)                                                              splines of eq. 4, knots from nets
        ascend  log p(x) = log N(z; 0, I) + log|det dF/dx|                    eq. 1 and 5

    sample: z ~ N(0, I);  x = F⁻¹(z)                                          eq. 6 to 8

With a dequantiser, u ~ q(u|x) and the step ascends log p(x) - log q(u|x) (Ho et al. 2019, arXiv:1902.00275, eq. 12).
The loss is in nats per dimension. The splines and the nets are in `limner.nets.spline`.
"""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor

from limner.core.flows import FlowModel, log_normal
from limner.core.model import Data, Logs, Update
from limner.losses import dequantise
from limner.nets.protocols import Dequantiser, Flow


class SplineFlow(FlowModel):
    """A flow F of splines between points or images and N(0, I), trained by maximum likelihood.

    Args:
        F: the flow: spline.Coupling or spline.Autoregressive of points, spline.Images of images; of the classes too
            with ``conditional: true``.
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
