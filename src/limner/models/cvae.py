"""Conditional VAE: a VAE whose encoder and decoder are given the class.

Sohn, Lee and Yan 2015 (NeurIPS), eq. 4, with the prior p(z|y) = N(0, I) as in Kingma et al. 2014 (M2).

    repeat
        x, y ~ data;  eps ~ N(0, I)
        mu, log sigma^2 = F(x, y);  z = mu + sigma * eps
        ascend  log p(x | z, y) - beta * KL( N(mu, sigma^2) || N(0, I) )

Encoder and decoder take the label as a one-hot vector, so z carries what the label does not say, such as style.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from limner.core.condition import Classes, from_header
from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.prior import Prior
from limner.losses import likelihood as log_p
from limner.losses.divergence import kl_normal
from limner.nets.protocols import Decoder, Encoder


class ConditionalVAE(GenerativeModel):
    """Encoder q(z|x,y), decoder p(x|z,y) of Bernoulli pixels, prior N(0, I).

    Args:
        encoder: conditional net from images to mean and log variance (heads: 2, conditional: true).
        decoder: conditional net from codes to logits (out: linear, conditional: true).
        z: size of the code. Raise it if reconstructions lack detail; lower it if samples fall apart.
        beta: weight of the KL. Raise it for a tidier latent space; lower it for sharper reconstructions.
        classes: number of classes; filled from the data.
        condition: names of the classes; filled from the data.
    """

    measure = "bernoulli"
    static = True
    family = "VAE"
    prior: Prior

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        z: int = 20,
        beta: float = 1.0,
        *,
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError("a conditional VAE needs data with classes; use class sub-folders or a labelled set")
        if encoder.heads != 2:
            raise ValueError("the encoder of a VAE gives mean and log variance; write heads: 2")
        self.encoder, self.decoder, self.prior = encoder, decoder, Prior("normal", decoder.z)
        self.beta = beta
        self.condition = from_header(condition) if condition else Classes(classes)

    def groups(self) -> dict[str, nn.Module]:
        return {"VAE": self}

    def step(self, data: Data, update: Update) -> Logs:
        x, y = next(data)  # (B,C,H,W) in [-1,1], (B,)
        mu, logvar = self.posterior(x, y)  # (B,z) each
        z = mu + (0.5 * logvar).exp() * data.randn(*mu.shape)
        log_px = log_p.bernoulli(self.decoder(z, y), x).mean()
        kl = kl_normal(mu, logvar).mean()
        loss = self.beta * kl - log_px
        update("VAE", loss)
        return {"loss/VAE": loss, "term/log_likelihood": log_px, "term/kl": kl}

    def posterior(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B,z) of q(z|x,y)."""
        mu, logvar = self.encoder(x, y).float().chunk(2, 1)
        return mu, logvar

    def log_weights(self, x: Tensor, k: int, noise: Callable[..., Tensor], y: Tensor | None = None) -> Tensor:
        """Log p(x,z_k|y) - log q(z_k|x,y) in nats, (k,B)."""
        mu, logvar = self.posterior(x, y)  # (B,z)
        eps = noise(len(x), k, mu.shape[1]).transpose(0, 1)  # (k,B,z)
        z = mu + (0.5 * logvar).exp() * eps
        log_ratio = 0.5 * (eps.square() + logvar - z.square()).sum(2)
        labels = None if y is None else torch.cat([y] * k)
        log_px = log_p.bernoulli(self.decoder(z.flatten(0, 1), labels), x.repeat(k, 1, 1, 1))
        return log_px.view(k, len(x)) + log_ratio

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Posterior means (B,z) of images with their classes (B,)."""
        return self.posterior(x, y)[0]

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Mean images (B,C,H,W) in [-1,1] of codes with classes (B,)."""
        return torch.tanh(self.decoder(z, y) / 2)  # 2 sigmoid(x) - 1
