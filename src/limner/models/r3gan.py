"""R3GAN: a relativistic game between pairs, and a flat critic wherever there are images.

Huang, Gokaslan, Kuleshov and Tompkin 2024, *The GAN is dead; long live the GAN! A modern baseline GAN* (arXiv
2501.05441): eq. 2 with both penalties, R1 and R2.

    repeat
        x ~ data;  z ~ p_z
        descend for D  f(D(x) - D(G(z)))  +  gamma/2 ||grad D(x)||^2  +  gamma/2 ||grad D(G(z))||^2
        z ~ p_z
        descend for G  f(D(G(z)) - D(x))                                f(t) = log(1 + exp(-t))

Each real image is judged against one generated image, so no mode can be given up: it would lose its pairs. With R1
alone the paper sees every game diverge; R2 keeps D flat where the samples are, too. gamma falls along half a cosine
while the game settles ("burn-in").

Departures: here, as in the authors' code, high means real and G's loss is the non-saturating one; eq. 2 has the other
sign and G minimises what D maximises. Learning rate, Adam's second beta and the average's half-life stay where the
recipe puts them; the paper moves them along the same cosine as gamma. No ADA.
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
    """Generator and critic, relativistic, with both zero-centred gradient penalties at each step.

    Args:
        G: net from noise (B,z) to images (B,C,H,W) in [-1,1].
        D: net from images to logits (B,), without batch norm; high means real.
        gamma: weight of both penalties. Raise it if losses swing or samples collapse; lower it if images stay blurred.
        gamma_final: its value from `burn_in` images on; null keeps `gamma`. The paper ends at a tenth. Lower it if
            images stay blurred late in training; raise it if they get worse again.
        burn_in: images over which gamma falls to `gamma_final`, along half a cosine. Raise it if losses swing early.
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
            raise ValueError("gamma and gamma_final must be positive: without both penalties the game diverges")
        if (gamma_final is None) != (burn_in < 1):
            raise ValueError("gamma_final and burn_in belong together; give both, e.g. gamma_final=0.1 burn_in=200k")
        if mixes_images(D):
            raise ValueError(
                "the penalties look at the gradient of each image, and this D mixes images (batch norm or features of the"
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
            rivals = self.D(x)
        loss_G = relativistic.g(self.D(self.G(self.prior.batch(len(x), data))), rivals)  # f(D(G(z)) - D(x))
        update("G", loss_G)
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits, r1=R1, r2=R2)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of noise (B,z): what G exceeds them by is cut off. Points are left as they are."""
        x = self.G(z)
        return x if x.shape[2:] == (1, 1) else x.clamp(-1, 1)
