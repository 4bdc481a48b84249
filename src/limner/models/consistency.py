"""Consistency tuning: a diffusion model learns to reach the image from any noise level in one step.

Geng, Pokle, Luo, Lin and Kolter 2024, *Consistency models made easy*, arXiv:2406.14548, section 3: ECT. It tunes a
trained EDM: `limner train consistency-mnist init=runs/0007-edm-mnist`.

    f(x; σ) = c_skip x + c_out F(c_in x; c_noise)        as in EDM; f(x; 0) = x
    repeat
        x, y ~ data;  ln t ~ N(P_mean, P_std²);  ε ~ N(0, I)
        r = t (1 − n(t) / q^stage),  n(t) = 1 + k / (1 + e^(b t))
        descend  1/(t − r) · d( f(x + t ε; t), stop f(x + r ε; r) ),   d(a, b) = √(‖a − b‖² + c²) − c
    draw    x = f(σ_max ε; σ_max);  for each further σ:  x = f(x + σ ε'; σ)

The stage rises with the images seen, so that r comes closer to t: at first the target is near that of a diffusion
model, at the end it is the model's own answer a little nearer to the image. Both noisy images have the same ε. The
distance d is that of Song and Dhariwal 2023, arXiv:2310.14189, eq. 8, with its c = 0.00054 √D of images with D numbers.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from limner.core.condition import Classes, from_header
from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.prior import NormalPrior
from limner.core.rng import Noise
from limner.losses.reconstruction import pseudo_huber
from limner.nets.protocols import Denoiser
from limner.samplers import grids


class Consistency(GenerativeModel):
    """A net that maps images with any amount of noise to clean ones in one step.

    Args:
        F: the net of the EDM that is tuned.
        sigma_data: σ_d of that EDM.
        mean: mean of ln t in training. Lower it if details are poor; raise it if the forms are.
        std: standard deviation of ln t in training.
        q: factor by which r comes closer to t from stage to stage. Raise it for faster progress, lower it if the loss
            jumps.
        stage_images: images of a stage. Raise it if samples get worse when a stage begins.
        shape: (C,H,W) of an image; filled from the data.
        classes: number of classes; filled from the data.
        condition: names of the classes; filled from the data.
    """

    family = "consistency model"
    static = True
    sigma_max = 80.0

    def __init__(
        self,
        F: Denoiser,
        sigma_data: float = 0.5,
        mean: float = -1.1,
        std: float = 2.0,
        q: float = 2.0,
        stage_images: int = 20_000,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not sigma_data > 0 or not std > 0 or not q > 1 or stage_images < 1:
            raise ValueError(
                f"sigma_data={sigma_data:g} and std={std:g} must be above 0, q={q:g} above 1 and"
                f" stage_images={stage_images} at least 1"
            )
        self.F, self.shape, self.sigma_data, self.mean, self.std = F, tuple(shape), sigma_data, mean, std
        self.q, self.stage_images, self.prior = q, stage_images, NormalPrior(shape)
        if F.classes:
            self.condition = from_header(condition) if condition else Classes(classes)

    def groups(self) -> dict[str, nn.Module]:
        return {"F": self.F}

    def step(self, data: Data, update: Update) -> Logs:
        gap = data.scalar(self._gap)  # 1 / q^stage
        x, y = next(data)  # (B,C,H,W) in [-1,1], (B,)
        y = y if self.F.classes else None
        t, noise = (self.mean + self.std * data.randn(len(x))).exp(), data.randn(*x.shape)
        r = (t * (1 - gap * (1 + 8 * torch.sigmoid(-t)))).clamp_min(0)
        with torch.no_grad():
            target = self.f(x + r.view(-1, 1, 1, 1) * noise, r, y)
        predicted = self.f(x + t.view(-1, 1, 1, 1) * noise, t, y)
        distance = pseudo_huber(predicted, target, 0.00054 * prod(self.shape) ** 0.5)  # (B,)
        loss = (distance / (t - r)).mean()
        update("F", loss)
        return {"loss/F": loss, "term/distance": distance.mean()}

    def f(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        """The image (B,C,H,W) that belongs to the noisy images x (B,C,H,W) with sigma (B,); x itself at 0."""
        s, total = sigma.view(-1, 1, 1, 1), (sigma**2 + self.sigma_data**2).view(-1, 1, 1, 1)
        c_skip, c_out, c_in = self.sigma_data**2 / total, s * self.sigma_data / total.sqrt(), total.rsqrt()
        return c_skip * x + c_out * self.F(c_in * x, sigma.clamp_min(1e-4).log() / 4, y).float()

    def draw(
        self, n: int, y: Tensor | None, noise: Noise, *, steps: Annotated[int, Field(ge=1, le=100)] = 1, **options: Any
    ) -> Tensor:
        """Samples (n,C,H,W) in one step, or in a few: each further one adds noise and takes it away again.

        Args:
            n: number of images.
            y: classes (n,) of a conditional model.
            noise: gives the noise of each step.
            steps: number of evaluations of the net. 2 are often clearly better than 1, and more hardly better than 2.
            **options: none.
        """
        x = torch.zeros(n, *self.shape, device=noise.keys.device)
        for step, sigma in enumerate(grids.flow(steps, self.sigma_max)[:-1]):
            x = self.f(x + sigma * noise(step, *self.shape), x.new_full((n,), sigma), y)
            x = x.clamp(-1, 1)
        return x

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The images (B,C,H,W) of standard normal noise z (B,C,H,W), in one step."""
        return self.f(self.sigma_max * z, z.new_full((len(z),), self.sigma_max), y).clamp(-1, 1)

    def _gap(self, images: int) -> float:
        return float(self.q ** -(1 + images // self.stage_images))
