"""Age-cGAN: a conditional GAN, and an encoder that learns from generated pairs which noise a picture is of.

Antipov, Baccouche and Dugelay 2017, *Face aging with conditional generative adversarial networks*, arXiv:1702.01983.

    repeat
        x, y ~ data;  z ~ p_z
        ascend for D   log D(x,y) + log(1 - D(G(z,y),y))
        z ~ p_z
        ascend for G   log D(G(z,y),y)
        descend for E  || z - E(G(z,y)) ||^2            the noise of these pictures is known

A face of label y0 is then shown with y1: z0 = E(x), z* near z0 so that G(z*,y0) looks like x, and G(z*,y1); the search
for z* is `limner.apply.relabel`, for this model and for others. The authors train E when G is done, on 100,000
pictures. Here E takes a step for each of G's and so follows it to its end: one training, and E never learns from the
same picture twice.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from limner.core.adversarial import AdversarialModel, adversarial_logs, mean_sign, require_labels
from limner.core.condition import required
from limner.core.model import Data, Logs, Update
from limner.core.prior import Prior
from limner.losses.adversarial import nonsaturating
from limner.losses.reconstruction import mse
from limner.nets.augment import Identity, Transform
from limner.nets.protocols import Critic, Encoder, Generator


class AgeCGAN(AdversarialModel):
    """Generator and discriminator of images with labels, and an encoder of images as the generator's noise.

    Args:
        G: net from noise (B,z) and labels to images (B,C,H,W) in [-1,1] (conditional: true, or cbn).
        D: net from images and labels to logits (B,); high means real (conditional: true, or projection).
        encoder: E, net from images to noise (B,z); with conditional: true it is told the label too.
        prior: p_z, normal, or uniform on [-1,1].
        transform: applied to real and generated images before D, such as augment.DiffAugment, for small sets; none by
            default.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
        condition: names of the classes or attributes; filled from the data.
    """

    objective = nonsaturating
    static = True
    ema_groups = ("G", "E")

    def __init__(
        self,
        G: Generator,
        D: Critic,
        encoder: Encoder,
        prior: Literal["normal", "uniform"] = "normal",
        transform: Transform | None = None,
        *,
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.condition = required(condition, classes)
        require_labels(G=G, D=D)
        if encoder.code_shape != (G.z,) or encoder.heads != 1:
            raise ValueError(f"the encoder gives the noise of G; write encoder.z={G.z} and encoder.heads=1")
        self.G, self.D, self.encoder, self.prior = G, D, encoder, Prior(prior, G.z)
        self.transform = transform or Identity()

    def groups(self) -> dict[str, nn.Module]:
        return {"G": self.G, "D": self.D, "E": self.encoder}

    def step(self, data: Data, update: Update) -> Logs:
        x, y = next(data)  # (B,C,H,W) in [-1,1], labels (B,…)
        with torch.no_grad():
            fake = self.G(self.prior.batch(len(x), data), y)
        real_logits, fake_logits = self.real_and_fake(self.transform(x), self.transform(fake), y)
        loss_D = nonsaturating.d(real_logits, fake_logits)  # -log D(x,y) - log(1 - D(G(z,y),y))
        update("D", loss_D)
        self.transform.observe(mean_sign(real_logits), data.batch)
        z = self.prior.batch(len(x), data)
        fake = self.G(z, y)
        loss_G = nonsaturating.g(self.D(self.transform(fake), y), None)  # -log D(G(z,y),y)
        update("G", loss_G)
        loss_E = mse(self.encoder(fake.detach(), y), z)  # ||z - E(G(z,y))||^2 / dim z
        update("E", loss_E)
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits) | {"loss/E": loss_E}

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Noise (B,z) of images (B,C,H,W), which an encoder with conditional: true reads with their labels (B,…)."""
        noise: Tensor = self.encoder(x, y)
        return noise
