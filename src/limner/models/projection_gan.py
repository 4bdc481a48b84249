"""Projection discriminator: the label enters D as a product with the features of the image.

Miyato and Koyama 2018, *cGANs with projection discriminator*, arXiv:1802.05637, with the hinge loss and spectral norm
of Miyato et al. 2018 (arXiv:1802.05957), Algorithm 1 with f(x,y) = l(phi(x)) + <V_y, phi(x)> (eq. 3).

    repeat
        d_steps times
            x, y ~ data;  z ~ p_z
            descend for D   max(0, 1 - f(x,y)) + max(0, 1 + f(G(z,y),y))
        z ~ p_z
        descend for G  -f(G(z,y),y)

The best logit of a conditional GAN is log q(x,y)/p(x,y) = log q(y|x)/p(y|x) + log q(x)/p(x). For classes whose
log-odds are linear in phi, the first term is the product <V_y, phi(x)>, and the second one l(phi(x)). The paper's nets
are ResNets whose phi is a sum over positions; with dcgan nets phi is the whole last map.
"""

from __future__ import annotations

from typing import Any

import torch

from limner.core.adversarial import AdversarialModel, adversarial_logs, mean_sign, require_labels
from limner.core.condition import required
from limner.core.model import Data, Logs, Update
from limner.core.prior import Prior
from limner.losses.adversarial import hinge
from limner.nets.augment import Identity, Transform
from limner.nets.protocols import Critic, Generator


class ProjectionGAN(AdversarialModel):
    """Generator that is told the label, discriminator with a projection.

    Args:
        G: net from noise (B,z) and labels to images (B,C,H,W) in [-1,1] (conditional: cbn, conditional batch norm, as
            in the paper; or true, the label beside the noise, which shallow nets obey earlier).
        D: net from images and labels to logits (B,) (conditional: projection, spectral: true).
        d_steps: steps of D for each step of G (5 in the paper). Lower it for speed; raise it if D is too weak.
        transform: applied to real and generated images before D, such as augment.DiffAugment, for small sets; none by
            default.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
        condition: names of the classes or attributes; filled from the data.
    """

    objective = hinge
    static = True

    def __init__(
        self,
        G: Generator,
        D: Critic,
        d_steps: int = 5,
        transform: Transform | None = None,
        *,
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if d_steps < 1:
            raise ValueError(f"d_steps must be at least 1, got {d_steps}")
        self.condition = required(condition, classes)
        require_labels("projection", D=D)
        require_labels(G=G)
        self.G, self.D, self.d_steps, self.prior = G, D, d_steps, Prior("normal", G.z)
        self.transform = transform or Identity()

    def step(self, data: Data, update: Update) -> Logs:
        for _ in range(self.d_steps):
            x, y = next(data)  # (B,C,H,W) in [-1,1], labels (B,…)
            with torch.no_grad():
                fake = self.G(self.prior.batch(len(x), data), y)
            real_logits, fake_logits = self.real_and_fake(self.transform(x), self.transform(fake), y)
            loss_D = hinge.d(real_logits, fake_logits)  # max(0, 1 - f(x,y)) + max(0, 1 + f(G(z,y),y))
            update("D", loss_D)
            self.transform.observe(mean_sign(real_logits), data.batch)
        fake = self.G(self.prior.batch(len(x), data), y)
        loss_G = hinge.g(self.D(self.transform(fake), y), None)  # -f(G(z,y),y)
        update("G", loss_G)
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits)
