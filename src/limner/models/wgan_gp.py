"""WGAN-GP: a critic whose gradient has norm 1 between real and generated images.

Gulrajani et al. 2017 (arXiv 1704.00028), Algorithm 1.

    repeat
        n_critic times
            x ~ data;  z ~ p_z;  eps ~ U[0,1], one per image
            x^ = eps x + (1 - eps) G(z)
            descend for D  D(G(z)) - D(x) + lambda (|| grad D(x^) ||_2 - 1)^2
        z ~ p_z
        descend for G  -D(G(z))

The penalty needs the gradient at each image separately, so D has no batch norm (section 4) but layer norm or none. For
such a critic it changes nothing that real and generated images go through D as one batch.
"""

from __future__ import annotations

import torch

from limner.core.adversarial import AdversarialModel, adversarial_logs
from limner.core.model import Data, Logs, Update
from limner.core.prior import Prior
from limner.losses.adversarial import wasserstein
from limner.losses.penalties import gradient_penalty
from limner.nets.protocols import Critic, Generator, mixes_images


class WGANGP(AdversarialModel):
    """Generator and critic with a gradient penalty.

    Args:
        G: net from noise (B,z) to images (B,C,H,W) in [-1,1].
        D: the critic, net from images to scores (B,), without batch norm.
        n_critic: steps of the critic for each step of G. Lower it for speed; raise it if the critic lags behind.
        gp_weight: lambda. Raise it if gradient norms grow; lower it if the critic hardly separates the two.
        drift: weight of E D(x)^2, which keeps scores near 0 (0.001 in Karras et al. 2018). Raise it if scores drift.
    """

    objective = wasserstein
    static = True

    def __init__(self, G: Generator, D: Critic, n_critic: int = 5, gp_weight: float = 10.0, drift: float = 0.0) -> None:
        super().__init__()
        if n_critic < 1:
            raise ValueError(f"n_critic must be at least 1, got {n_critic}")
        if gp_weight <= 0 or drift < 0:
            raise ValueError(f"gp_weight must be positive and drift not negative, got {gp_weight:g} and {drift:g}")
        if mixes_images(D):
            raise ValueError(
                "the penalty needs the gradient at each image, and this D mixes images (batch norm or features of the"
                " batch); use D.norm=layer D.minibatch=none"
            )
        self.G, self.D, self.n_critic, self.gp_weight, self.drift = G, D, n_critic, gp_weight, drift
        self.prior = Prior("normal", G.z)

    def step(self, data: Data, update: Update) -> Logs:
        for _ in range(self.n_critic):
            x = next(data).x  # (B,C,H,W) in [-1,1]
            with torch.no_grad():
                fake = self.G(self.prior.batch(len(x), data))
            real_logits, fake_logits = self.D(torch.cat([x, fake])).chunk(2)
            loss_D = wasserstein.d(real_logits, fake_logits)  # D(G(z)) - D(x)
            gp = gradient_penalty(self.D, x, fake, eps=data.rand(len(x)))  # eq. 3
            update("D", loss_D + self.gp_weight * gp + self.drift * real_logits.float().square().mean())
        loss_G = wasserstein.g(self.D(self.G(self.prior.batch(len(x), data))), None)
        update("G", loss_G)
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits, gp=gp)
