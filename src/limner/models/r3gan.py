"""R3GAN: the relativistic pairing GAN, with gradient penalties on real and on generated images.

Huang, Gokaslan, Kuleshov and Tompkin 2024, *The GAN is dead; long live the GAN! A modern baseline GAN* (arXiv
2501.05441): eq. 2 with both penalties, R1 and R2.

    repeat
        x ~ data;  z ~ p_z
        descend for D  f(D(x) - D(G(z)))  +  gamma/2 ||grad D(x)||^2  +  gamma/2 ||grad D(G(z))||^2
        z ~ p_z
        descend for G  f(D(G(z)) - D(x))                                f(t) = log(1 + exp(-t))

D compares each real image with one generated image, so a dropped mode costs G the pairs of that mode. With R1 alone
training diverges in the paper; R2 keeps D flat at the samples as well. gamma falls along half a cosine at the start
("burn-in").

Departures: here, as in the authors' code, high means real and G's loss is the non-saturating one; eq. 2 has the other
sign and G minimises what D maximises. Learning rate, Adam's second beta and the half-life of the moving average are
constants of the recipe; the paper changes them along the same cosine as gamma. There is no ADA.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core.adversarial import AdversarialModel, adversarial_logs
from limner.core.model import Data, Logs, Update
from limner.core.prior import Prior
from limner.core.schedule import Cosine
from limner.core.units import Count
from limner.losses.adversarial import relativistic
from limner.losses.penalties import r1, r2
from limner.nets.protocols import Critic, Generator, mixes_images


class R3GAN(AdversarialModel):
    """Generator and relativistic critic with both zero-centred gradient penalties.

    Args:
        G: net from noise (B,z) to images (B,C,H,W) in [-1,1].
        D: net from images to logits (B,), without batch norm; high means real.
        gamma: weight of both penalties. Raise it if losses swing or samples collapse; lower it if images stay blurred.
        gamma_final: its value from `burn_in` images on; null keeps `gamma`. The paper ends at a tenth. Lower it if
            images stay blurred late in training; raise it if they get worse again.
        burn_in: images over which gamma falls to `gamma_final`, along half a cosine. Raise it if losses swing early;
            lower it if images stay blurred.
    """

    objective = relativistic
    static = True

    def __init__(
        self,
        G: Generator,
        D: Critic,
        gamma: float = 1.0,
        gamma_final: float | None = None,
        burn_in: Count = 0,
    ) -> None:
        super().__init__()
        if gamma <= 0 or (gamma_final is not None and gamma_final <= 0):
            raise ValueError("gamma and gamma_final must be positive: without both penalties training diverges")
        if (gamma_final is None) != (burn_in < 1):
            raise ValueError("gamma_final and burn_in belong together; give both, e.g. gamma_final=0.1 burn_in=200k")
        if mixes_images(D):
            raise ValueError(
                "the penalties need the gradient at each image, and this D mixes images (batch norm or features of the"
                " batch); use D.norm=none D.minibatch=none"
            )
        self.G, self.D, self.prior = G, D, Prior("normal", G.z)
        self.gamma = Cosine(gamma, gamma if gamma_final is None else gamma_final, length=burn_in)

    def step(self, data: Data, update: Update) -> Logs:
        gamma = data.scalar(self.gamma)
        x = next(data).x  # (B,C,H,W) in [-1,1]
        with torch.no_grad():
            fake = self.G(self.prior.batch(len(x), data))
        real_logits, fake_logits = self.D(x), self.D(fake)
        loss_D = relativistic.d(real_logits, fake_logits)  # f(D(x) - D(G(z)))
        R1, R2 = r1(self.D, x), r2(self.D, None, fake)  # with the 1/2
        update("D", loss_D + gamma * R1 + gamma * R2)
        with torch.no_grad():
            real_logits_G = self.D(x)
        loss_G = relativistic.g(self.D(self.G(self.prior.batch(len(x), data))), real_logits_G)  # f(D(G(z)) - D(x))
        update("G", loss_G)
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits, r1=R1, r2=R2)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of noise (B,z), clamped because G's output is linear; points are not clamped."""
        x = self.G(z)
        return x if x.shape[2:] == (1, 1) else x.clamp(-1, 1)
