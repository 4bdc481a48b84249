"""Rectified flow: a net learns the velocity of straight lines from images to noise.

Liu, Gong and Liu 2022, *Flow straight and fast*, arXiv:2209.03003, eq. 1; the same as flow matching with the
conditional optimal-transport path of Lipman et al. 2022, arXiv:2210.02747, eq. 23, with time reversed.

    repeat
        x ~ data;  ε ~ N(0, I);  t ~ U(0, 1)
        x_t = (1 − t) x + t ε
        descend  ‖F(x_t, t) − (ε − x)‖²
    draw    x_1 ~ N(0, I);  dx = F(x_t, t) dt  from t = 1 to 0

In the coordinate x_t / (1 − t) with σ = t / (1 − t) its denoiser is x_t − t F(x_t, t). Options beyond the papers'
boxes: t from a logit-normal distribution, which trains more on the middle of the way (Esser et al. 2024,
arXiv:2403.03206, eq. 19); noise that is assigned to the images of a batch by optimal transport, which makes the paths
straighter (Pooladian et al. 2023, arXiv:2304.14772; Tong et al. 2023, arXiv:2302.00482, algorithm 3).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from limner.core.model import Data, Logs, Update
from limner.losses.reconstruction import mse
from limner.nets.protocols import Denoiser
from limner.samplers.diffusion import DiffusionModel


class RectifiedFlow(DiffusionModel):
    """A net that gives the velocity from an image to noise.

    Args:
        F: net from x_t and t to a velocity (denoiser.UNet, or denoiser.MLP for points).
        times: distribution of t in training. logit-normal trains more on the middle of the way, where it is hardest.
        mean: mean of logit t, for logit-normal. Raise it to train more on the large forms; lower it for details.
        std: standard deviation of logit t, for logit-normal.
        coupling: which noise belongs to which image of a batch: independent, or ot for the assignment of the least
            total distance, which needs fewer steps for a sample and large batches. Leave it independent for conditional
            models.
        drop: share of the labels that are hidden in training, so that guidance has an unconditional velocity.
        sampling: options of `samplers.diffusion.Sampling` that replace its defaults, such as {steps: 10, shift: 3}.
        shape: (C,H,W) of an image; filled from the data.
        classes: number of classes; filled from the data.
        condition: names of the classes; filled from the data.
    """

    family = "flow matching"

    def __init__(
        self,
        F: Denoiser,
        times: Literal["uniform", "logit-normal"] = "logit-normal",
        mean: float = 0.0,
        std: float = 1.0,
        coupling: Literal["independent", "ot"] = "independent",
        drop: float = 0.1,
        sampling: dict[str, object] | None = None,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(F, F.classes, drop, sampling, shape, classes, condition)
        if not std > 0:
            raise ValueError(f"std={std:g} must be above 0; 1 is usual")
        if coupling == "ot" and self.null is not None:
            raise ValueError(
                "coupling: ot mixes the noise of the classes of a batch, which biases a conditional model; write"
                " coupling: independent, or F.conditional: false"
            )
        self.times, self.mean, self.std, self.coupling = times, mean, std, coupling
        self.static = coupling == "independent"  # the assignment is computed on the CPU

    def step(self, data: Data, update: Update) -> Logs:
        x, y = next(data)  # (B,C,H,W) in [-1,1], (B,)
        noise = self._coupled(x, data.randn(*x.shape))
        t = self._times(len(x), data)  # (B,)
        x_t = torch.lerp(x, noise, t.view(-1, 1, 1, 1))
        loss = mse(self.F(x_t, t, self.dropped(y, data)), noise - x)
        update("F", loss)
        return {"loss/F": loss}

    def denoise(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        """x_t − t F(x_t, t) (B,C,H,W) of x = x_t / (1 − t) (B,C,H,W) with sigma = t / (1 − t) (B,)."""
        t = sigma / (1 + sigma)
        x_t = x / (1 + sigma).view(-1, 1, 1, 1)
        return x_t - t.view(-1, 1, 1, 1) * self.F(x_t, t, y).float()

    def _times(self, n: int, data: Data) -> Tensor:
        if self.times == "uniform":
            return data.rand(n)
        return torch.sigmoid(self.mean + self.std * data.randn(n))

    def _coupled(self, x: Tensor, noise: Tensor) -> Tensor:
        """The noise (B,C,H,W) in the order of its images; only the noise is moved, so labels stay right."""
        if self.coupling == "independent":
            return noise
        from scipy.optimize import linear_sum_assignment

        _, order = linear_sum_assignment(torch.cdist(x.flatten(1), noise.flatten(1)).square().cpu().numpy())
        return noise[torch.as_tensor(order, device=noise.device)]
