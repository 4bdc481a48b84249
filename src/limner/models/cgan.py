"""Conditional GAN: generator and discriminator are both told the label.

Mirza and Osindero 2014, *Conditional generative adversarial nets*, arXiv:1411.1784, eq. 2.

    repeat
        x, y ~ data;  z ~ p_z
        ascend for D   log D(x|y) + log(1 - D(G(z|y)|y))
        ascend for G   log D(G(z|y)|y)                  the non-saturating form of their eq. 2

D sees pairs of an image and a label, and rejects an image of another label as it rejects a bad image: so G has to obey.
Generated images have the labels of the real batch, and one batch of them serves both updates, which saves a pass of G.
The paper's nets are fully connected with maxout; here any nets that take labels (``conditional: true``) will do.
"""

from __future__ import annotations

from typing import Any, Literal

from limner.core.adversarial import AdversarialModel, adversarial_logs, mean_sign, require_labels
from limner.core.condition import required
from limner.core.model import Data, Logs, Update
from limner.core.prior import Prior
from limner.losses.adversarial import nonsaturating
from limner.nets.augment import Identity, Transform
from limner.nets.protocols import Critic, Generator


class CGAN(AdversarialModel):
    """Generator and discriminator of images with labels: classes, attributes or embedded texts.

    Args:
        G: net from noise (B,z) and labels to images (B,C,H,W) in [-1,1] (conditional: true, or cbn).
        D: net from images and labels to logits (B,); high means real (conditional: true, or projection).
        prior: p_z, normal, or uniform on [-1,1] as in the paper.
        transform: applied to real and generated images before D, such as augment.DiffAugment, for small sets; none by
            default.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
        condition: names of the classes or attributes; filled from the data.
    """

    objective = nonsaturating
    static = True

    def __init__(
        self,
        G: Generator,
        D: Critic,
        prior: Literal["normal", "uniform"] = "normal",
        transform: Transform | None = None,
        *,
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.condition = required(condition, classes)
        require_labels(G=G, D=D)
        self.G, self.D, self.prior, self.transform = G, D, Prior(prior, G.z), transform or Identity()

    def step(self, data: Data, update: Update) -> Logs:
        x, y = next(data)  # (B,C,H,W) in [-1,1], labels (B,…)
        fake = self.G(self.prior.batch(len(x), data), y)
        real_logits, fake_logits = self.real_and_fake(self.transform(x), self.transform(fake.detach()), y)
        loss_D = nonsaturating.d(real_logits, fake_logits)  # -log D(x|y) - log(1 - D(G(z|y)|y))
        update("D", loss_D)
        self.transform.observe(mean_sign(real_logits), data.batch)
        loss_G = nonsaturating.g(self.D(self.transform(fake), y), None)  # -log D(G(z|y)|y)
        update("G", loss_G)
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits)
