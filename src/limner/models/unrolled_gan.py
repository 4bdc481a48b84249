"""Unrolled GAN: G descends against the D that its move will meet a few steps later.

Metz, Poole, Pfau and Sohl-Dickstein 2017 (arXiv 1611.02163), eq. 6 to 9.

    repeat
        x ~ data;  z ~ p_z
        descend for D  f(D, G)                                  one step, the usual one
        D_0 = D;  D_{k+1} = D_k - eta grad_D f(D_k, G)          K steps, remembered by autograd
        descend for G  -log D_K(G(z))                           through all K steps

A G that drops modes gains against the present D and loses against D_K, which has already noticed. D itself forgets the
K steps. f is D's plain cross-entropy. Departures: the surrogate's steps are plain gradient descent where the paper's
experiments use Adam, and they meet fresh batches of noise and the same reals.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from limner.core.adversarial import AdversarialModel, adversarial_logs
from limner.core.model import Data, Logs, Update
from limner.core.prior import Prior
from limner.losses.adversarial import nonsaturating
from limner.nets.protocols import Critic, Generator


class UnrolledGAN(AdversarialModel):
    """Generator and a discriminator looked at K steps ahead.

    Args:
        G: net from noise (B,z) to images (B,C,H,W) in [-1,1].
        D: net from images to logits (B,), without batch norm.
        unroll: K. Raise it against dropped modes; each costs about a D-step more, and memory.
        eta: learning rate of the steps ahead. Raise it if unrolling changes nothing; lower it if losses jump.
    """

    objective = nonsaturating
    static = True

    def __init__(self, G: Generator, D: Critic, unroll: int = 5, eta: float = 0.1) -> None:
        super().__init__()
        if unroll < 0 or eta <= 0:
            raise ValueError(f"unroll must be 0 or more and eta positive, got {unroll} and {eta:g}")
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in D.modules()):
            raise ValueError("steps ahead must leave no trace in D and batch norm keeps statistics; use D.norm=none")
        self.G, self.D, self.unroll, self.eta = G, D, unroll, eta
        self.prior = Prior("normal", G.z)

    def step(self, data: Data, update: Update) -> Logs:
        x = next(data).x  # (B,C,H,W) in [-1,1]
        with torch.no_grad():
            fake = self.G(self.prior.batch(len(x), data))
        real_logits, fake_logits = self.D(x), self.D(fake)
        loss_D = nonsaturating.d(real_logits, fake_logits)
        update("D", loss_D)
        ahead: dict[str, Tensor] = dict(self.D.named_parameters())  # D_0
        for _ in range(self.unroll):
            fake = self.G(self.prior.batch(len(x), data))
            f = nonsaturating.d(self._D(ahead, x), self._D(ahead, fake))
            slopes = torch.autograd.grad(f, [*ahead.values()], create_graph=True)
            ahead = {name: w - self.eta * g for (name, w), g in zip(ahead.items(), slopes, strict=True)}
        loss_G = nonsaturating.g(self._D(ahead, self.G(self.prior.batch(len(x), data))), None)
        update("G", loss_G)
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits)

    def _D(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        """Logits (B,) of a discriminator with other weights."""
        logits: Tensor = functional_call(self.D, weights, (x,))
        return logits
