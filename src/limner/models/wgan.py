"""Wasserstein GAN with weight clipping: a critic that estimates the Wasserstein distance.

Arjovsky, Chintala and Bottou 2017 (arXiv 1701.07875), Algorithm 1.

    repeat
        n_critic times
            x ~ data;  z ~ p_z
            ascend for f   f(x) - f(G(z))
            clip every weight of f to [-c, c]
        z ~ p_z
        descend for G  -f(G(z))

Clipping makes f K-Lipschitz for an unknown K, not 1-Lipschitz: `loss/D` is minus the distance up to that factor.
Momentum hurts (section 4.3). Departure: the recipes use Adam with a first beta of 0 where the paper uses RMSProp.
"""

from __future__ import annotations

import torch

from limner.core.adversarial import AdversarialModel, adversarial_logs
from limner.core.model import Data, Logs, Update
from limner.core.prior import Prior
from limner.losses.adversarial import wasserstein
from limner.nets.protocols import Critic, Generator


class WGAN(AdversarialModel):
    """Generator and clipped critic.

    Args:
        G: net from noise (B,z) to images (B,C,H,W) in [-1,1].
        D: the critic f, net from images to scores (B,).
        n_critic: steps of the critic for each step of G. Raise it if the distance falls and samples do not
            improve; lower it for speed.
        clip: c, the largest absolute weight of the critic. Lower it if losses explode; raise it if G
            does not learn.
    """

    objective = wasserstein
    static = True

    def __init__(self, G: Generator, D: Critic, n_critic: int = 5, clip: float = 0.01) -> None:
        super().__init__()
        if n_critic < 1:
            raise ValueError(f"n_critic must be at least 1, got {n_critic}")
        if clip <= 0:
            raise ValueError(f"clip must be positive, got {clip:g}")
        if any("parametrizations" in name for name, _ in D.named_parameters()):
            raise ValueError("clipping and spectral norm both bound the critic; use D.spectral=false")
        self.G, self.D, self.n_critic, self.clip = G, D, n_critic, clip
        self.prior = Prior("normal", G.z)

    def step(self, data: Data, update: Update) -> Logs:
        for _ in range(self.n_critic):
            x = next(data).x  # (B,C,H,W) in [-1,1]
            with torch.no_grad():
                fake = self.G(self.prior.batch(len(x), data))
            real_logits, fake_logits = self.D(x), self.D(fake)
            loss_D = wasserstein.d(real_logits, fake_logits)  # f(G(z)) - f(x)
            update("D", loss_D)
            with torch.no_grad():
                torch._foreach_clamp_min_([*self.D.parameters()], -self.clip)
                torch._foreach_clamp_max_([*self.D.parameters()], self.clip)
        loss_G = wasserstein.g(self.D(self.G(self.prior.batch(len(x), data))), None)
        update("G", loss_G)
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits)
