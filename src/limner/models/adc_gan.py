"""ADC-GAN: a classifier with two outcomes for each class, one for its real and one for its generated images.

Hou, Cao, Shen, Pan, Li and Cheng 2022, *Conditional GANs with auxiliary discriminative classifier*, arXiv:2107.10060,
section 4.

    repeat
        x, y ~ data;  z ~ p_z
        ascend for D    log D(x) + log(1 - D(G(z,y)))
              for C_d   log P(y+ | x) + log P(y- | G(z,y))      one softmax over the 2K classes 1+ … K+, 1- … K-
        z ~ p_z
        ascend for G    log D(G(z,y)) + log P(y+ | G(z,y)) - log P(y- | G(z,y))

The best ``P(y+|x) / P(y-|x)`` is the ratio ``p(x,y) / p_G(x,y)`` of the joint densities, so what G gains from the
classifier is minus ``KL(p_G(x,y) || p(x,y))``: classes that overlap are no reason to leave images out, as they are for
AC-GAN.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from limner.core.adversarial import AdversarialModel, adversarial_logs, require_classifiers, require_labels
from limner.core.condition import required
from limner.core.model import Data, Logs, Update
from limner.core.prior import Prior
from limner.losses.adversarial import OBJECTIVES, Objective
from limner.losses.classification import cross_entropy
from limner.nets.protocols import Critic, Generator


class ADCGAN(AdversarialModel):
    """Generator that is told the label, discriminator that tells real from generated images of each class.

    Labels are classes, or attributes, each of which has a softmax of its own.

    Args:
        G: net from noise (B,z) and labels to images (B,C,H,W) in [-1,1] (conditional: true, or cbn).
        D: net from images to logits (B,) and two vectors of class logits (classifiers: 2), of y+ and y-.
        adversarial: the two losses of D and G without classes.
        class_weight: weight of the classifier's terms. Raise it if images are of the wrong class; lower it if losses
            swing.
        prior: p_z, normal or uniform on [-1,1].
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
        condition: names of the classes or attributes; filled from the data.
    """

    static = True
    D: Critic

    def __init__(
        self,
        G: Generator,
        D: Critic,
        adversarial: Objective = "nonsaturating",
        class_weight: float = 1.0,
        prior: Literal["normal", "uniform"] = "normal",
        *,
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if class_weight <= 0:
            raise ValueError(f"class_weight must be positive, got {class_weight:g}")
        self.condition = required(condition, classes)
        require_labels(G=G)
        self.sizes = require_classifiers(D, 2, self.condition)
        self.G, self.D, self.prior = G, D, Prior(prior, G.z)
        self.objective, self.class_weight = OBJECTIVES[adversarial], class_weight

    def step(self, data: Data, update: Update) -> Logs:
        x, y = next(data)  # (B,C,H,W) in [-1,1], labels (B,…)
        with torch.no_grad():
            fake = self.G(self.prior.batch(len(x), data), y)
        real_logits, (plus, minus) = self.D.classify(x)
        loss_real = cross_entropy(plus, y, self.sizes, others=minus)  # -log P(y+ | x)
        fake_logits, (plus, minus) = self.D.classify(fake)
        loss_fake = cross_entropy(minus, y, self.sizes, others=plus)  # -log P(y- | G(z,y))
        loss_D = self.objective.d(real_logits, fake_logits)
        update("D", loss_D + self.class_weight * (loss_real + loss_fake))
        logits, (plus, minus) = self.D.classify(self.G(self.prior.batch(len(x), data), y))
        loss_G = self.objective.g(logits, self.D(x) if self.objective.relativistic else None)
        log_plus = -cross_entropy(plus, y, self.sizes, others=minus)
        log_minus = -cross_entropy(minus, y, self.sizes, others=plus)
        update("G", loss_G - self.class_weight * (log_plus - log_minus))
        terms = {"class_real": loss_real, "class_fake": loss_fake, "class_G": log_minus - log_plus}
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits, terms)
