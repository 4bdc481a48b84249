"""EDM: diffusion with a net whose inputs and targets have unit variance at every noise level.

Karras, Aittala, Aila and Laine 2022, *Elucidating the design space of diffusion-based generative models*,
arXiv:2206.00364, table 1 (last column) and eq. 7 and 8.

    D(x; σ) = c_skip x + c_out F(c_in x; c_noise)
    c_skip = σ_d² / (σ² + σ_d²)    c_out = σ σ_d / √(σ² + σ_d²)    c_in = 1 / √(σ² + σ_d²)    c_noise = ln(σ) / 4
    repeat
        x, y ~ data;  ln σ ~ N(P_mean, P_std²);  n ~ N(0, σ² I)
        descend  λ(σ) ‖D(x + n; σ) − x‖²,   λ = (σ² + σ_d²) / (σ σ_d)²

With σ_d = 1 this is the v-prediction of Salimans and Ho 2022 (arXiv:2202.00512) with F = −v. Departure: guidance by the
class (Ho and Salimans 2022, arXiv:2207.12598) drops a share of the labels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from limner.core.model import Data, Logs, Update
from limner.losses.reconstruction import weighted_mse
from limner.nets.protocols import Denoiser
from limner.samplers.diffusion import DiffusionModel


class EDM(DiffusionModel):
    """A denoiser of images with any amount of noise.

    Args:
        F: net from a noisy image and its noise level to an image (denoiser.UNet, or denoiser.MLP for points).
        sigma_data: σ_d, standard deviation of the data, in units of the images in [-1,1].
        p_mean: mean of ln σ in training. Raise it to train more on the large forms, lower it for details; larger images
            need a higher one.
        p_std: standard deviation of ln σ in training. Raise it if samples of some noise level are poor.
        drop: share of the labels that are hidden in training, so that guidance has an unconditional denoiser.
        sampling: options of `samplers.diffusion.Sampling` that replace its defaults, such as {steps: 32, sampler:
            heun}.
        shape: (C,H,W) of an image; filled from the data.
        classes: number of classes; filled from the data.
        condition: names of the classes; filled from the data.
    """

    def __init__(
        self,
        F: Denoiser,
        sigma_data: float = 0.5,
        p_mean: float = -1.2,
        p_std: float = 1.2,
        drop: float = 0.1,
        sampling: dict[str, object] | None = None,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(F, F.classes, drop, sampling, shape, classes, condition)
        if not sigma_data > 0 or not p_std > 0:
            raise ValueError(f"sigma_data={sigma_data:g} and p_std={p_std:g} must be above 0")
        self.sigma_data, self.p_mean, self.p_std = sigma_data, p_mean, p_std

    def step(self, data: Data, update: Update) -> Logs:
        x, y = next(data)  # (B,C,H,W) in [-1,1], (B,)
        sigma = (self.p_mean + self.p_std * data.randn(len(x))).exp()  # (B,)
        noisy = x + sigma.view(-1, 1, 1, 1) * data.randn(*x.shape)
        weight = (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2  # λ(σ)
        loss = weighted_mse(self.denoise(noisy, sigma, self.dropped(y, data)), x, weight)
        update("F", loss)
        return {"loss/F": loss}

    def denoise(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        """D(x; σ) (B,C,H,W) of noisy images x (B,C,H,W) with sigma (B,)."""
        s, total = sigma.view(-1, 1, 1, 1), (sigma**2 + self.sigma_data**2).view(-1, 1, 1, 1)
        c_skip, c_out, c_in = self.sigma_data**2 / total, s * self.sigma_data / total.sqrt(), total.rsqrt()
        return c_skip * x + c_out * self.F(c_in * x, sigma.log() / 4, y).float()
