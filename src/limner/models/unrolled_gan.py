"""Unrolled GAN: G descends against D as it will be K steps later.

Metz, Poole, Pfau and Sohl-Dickstein 2017 (arXiv 1611.02163), eq. 6 to 9.

    repeat
        x ~ data;  z ~ p_z
        descend for D  f(D, G)                                  one step, the usual one
        D_0 = D;  D_{k+1} = D_k - eta grad_D f(D_k, G)          K steps, recorded by autograd
        descend for G  -log D_K(G(z))                           through all K steps

A G that drops modes gains against the present D and loses against D_K, which has adapted to it. D itself does not take
the K steps. f is D's cross-entropy. Departures: the unrolled steps are plain gradient descent where the paper's
experiments use Adam; each has a fresh batch of noise and the same real images.
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
    """Generator and discriminator; G descends against a D unrolled by K steps.

    Args:
        G: net from noise (B,z) to images (B,C,H,W) in [-1,1].
        D: net from images to logits (B,), without batch norm.
        unroll: K. Raise it if modes are missing; lower it for speed and memory: each costs about a step of D.
        eta: learning rate of the unrolled steps. Raise it if unrolling changes nothing; lower it if losses jump.
    """

    objective = nonsaturating
    static = True

    def __init__(self, G: Generator, D: Critic, unroll: int = 5, eta: float = 0.1) -> None:
        super().__init__()
        if unroll < 0 or eta <= 0:
            raise ValueError(f"unroll must be 0 or more and eta positive, got {unroll} and {eta:g}")
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in D.modules()):
            raise ValueError("unrolled steps must not change D and batch norm updates its statistics; use D.norm=none")
        self.G, self.D, self.unroll, self.eta = G, D, unroll, eta
        self.prior = Prior("normal", G.z)

    def step(self, data: Data, update: Update) -> Logs:
        x = next(data).x  # (B,C,H,W) in [-1,1]
        with torch.no_grad():
            fake = self.G(self.prior.batch(len(x), data))
        real_logits, fake_logits = self.D(x), self.D(fake)
        loss_D = nonsaturating.d(real_logits, fake_logits)
        update("D", loss_D)
        weights: dict[str, Tensor] = dict(self.D.named_parameters())  # D_0
        for _ in range(self.unroll):
            fake = self.G(self.prior.batch(len(x), data))
            f = nonsaturating.d(self._D(weights, x), self._D(weights, fake))
            gradients = torch.autograd.grad(f, [*weights.values()], create_graph=True)
            weights = {name: w - self.eta * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
        loss_G = nonsaturating.g(self._D(weights, self.G(self.prior.batch(len(x), data))), None)
        update("G", loss_G)
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits)

    def _D(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        """Logits (B,) of D with these weights in place of its own."""
        logits: Tensor = functional_call(self.D, weights, (x,))
        return logits
