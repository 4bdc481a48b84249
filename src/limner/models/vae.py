"""Variational autoencoder: an autoencoder whose codes follow a known prior.

Kingma and Welling 2013 (arXiv 1312.6114), Algorithm 1 with L = 1; the importance-weighted bound with K > 1 is
Burda, Grosse and Salakhutdinov 2015 (arXiv 1509.00519), eq. 8; beta is Higgins et al. 2017.

    repeat
        x ~ data;  eps ~ N(0, I)
        mu, log sigma^2 = F(x);  z = mu + sigma * eps
        ascend  log p(x|z) - beta * KL( N(mu, sigma^2) || N(0, I) )                        K = 1
        ascend  log 1/K sum_k p(x, z_k) / q(z_k | x)                                       K > 1

All bounds are in nats per image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.prior import Prior
from limner.losses import likelihood as log_p
from limner.losses.divergence import kl_normal
from limner.nets.protocols import Decoder, Encoder


class VAE(GenerativeModel):
    """Encoder q(z|x), decoder p(x|z), prior N(0, I).

    Args:
        encoder: net from images to 2z numbers, mean and log variance (heads: 2).
        decoder: net from codes to images; linear output (logits) for bernoulli, tanh for the others.
        z: size of the code. Raise it if details are lost; lower it if samples fall apart. 2 can be plotted as a map.
        likelihood: p(x|z): bernoulli (binary or grey pixels); gaussian or discretised logistic with one learnt scale.
        beta: weight of the KL. Raise it for a tidier latent space; lower it for sharper reconstructions.
        importance: K, samples of z in the importance-weighted bound; 1 is the ELBO with the KL in closed form. Raise it
            for a tighter bound; lower it for speed.
    """

    static = True
    family = "VAE"
    prior: Prior

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        z: int = 20,
        likelihood: Literal["bernoulli", "gaussian", "logistic"] = "bernoulli",
        beta: float = 1.0,
        importance: int = 1,
    ) -> None:
        super().__init__()
        if importance < 1:
            raise ValueError(f"importance must be at least 1, got {importance}")
        if importance > 1 and beta != 1:
            raise ValueError("beta has no place in the importance-weighted bound; set beta: 1 or importance: 1")
        if encoder.heads != 2:
            raise ValueError("the encoder of a VAE gives mean and log variance; write heads: 2")
        self.encoder, self.decoder, self.prior = encoder, decoder, Prior("normal", decoder.z)
        self.likelihood, self.beta, self.importance = likelihood, beta, importance
        self.measure = {"bernoulli": "bernoulli", "gaussian": "density", "logistic": "discrete"}[likelihood]
        self.log_scale = nn.Parameter(torch.tensor(-1.0)) if likelihood != "bernoulli" else None

    def groups(self) -> dict[str, nn.Module]:
        return {"VAE": self}

    def step(self, data: Data, update: Update) -> Logs:
        x = next(data).x  # (B,C,H,W) in [-1,1]
        if self.importance > 1:
            bound = log_p.log_mean_exp(self.log_weights(x, self.importance, data.randn), 0)  # (B,)
            update("VAE", -bound.mean())
            return {"loss/VAE": -bound.mean()}
        mu, logvar = self.posterior(x)  # (B,z) each
        z = mu + (0.5 * logvar).exp() * data.randn(*mu.shape)
        log_px = self.log_likelihood(x, self.decoder(z)).mean()
        kl = kl_normal(mu, logvar).mean()
        loss = self.beta * kl - log_px
        update("VAE", loss)
        return {"loss/VAE": loss, "term/log_likelihood": log_px, "term/kl": kl}

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B,z) of q(z|x)."""
        mu, logvar = self.encoder(x).float().chunk(2, 1)
        return mu, logvar

    def log_likelihood(self, x: Tensor, out: Tensor) -> Tensor:
        """Log p(x|z) in nats per image, (B,), of the decoder's output (B,C,H,W)."""
        if self.log_scale is None:
            return log_p.bernoulli(out, x)
        if self.likelihood == "gaussian":
            return log_p.gaussian(out, 2 * self.log_scale.expand_as(out), x)
        return log_p.discretised_logistic(out, self.log_scale.expand_as(out), x)

    def log_weights(self, x: Tensor, k: int, noise: Callable[..., Tensor], y: Tensor | None = None) -> Tensor:
        """Log p(x,z_k) - log q(z_k|x) in nats, (k,B)."""
        mu, logvar = self.posterior(x)  # (B,z)
        eps = noise(len(x), k, mu.shape[1]).transpose(0, 1)  # (k,B,z)
        z = mu + (0.5 * logvar).exp() * eps
        log_ratio = 0.5 * (eps.square() + logvar - z.square()).sum(2)  # log p(z) - log q(z|x)
        log_px = self.log_likelihood(x.repeat(k, 1, 1, 1), self.decoder(z.flatten(0, 1)))
        return log_px.view(k, len(x)) + log_ratio

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Posterior means (B,z)."""
        return self.posterior(x)[0]

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Mean images (B,C,H,W) in [-1,1] of p(x|z)."""
        x = self.decoder(z)
        return torch.tanh(x / 2) if self.log_scale is None else x.clamp(-1, 1)  # 2 sigmoid(x) - 1

    def score_samples(self, x: Tensor) -> Tensor:
        """The ELBO in nats at the posterior mean, (B,): low for images unlike the training set."""
        mu, logvar = self.posterior(x)
        return self.log_likelihood(x, self.decoder(mu)) - kl_normal(mu, logvar)
