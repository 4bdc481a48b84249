"""TAC-GAN: AC-GAN with a twin classifier of generated images, which takes its bias away.

Gong, Xu, Li, Zhang and Batmanghelich 2019, *Twin auxiliary classifiers GAN*, arXiv:1907.02690, eq. 4.

    repeat
        x, y ~ data;  z ~ p_z
        ascend for D     log D(x) + log(1 - D(G(z,y)))
              for C      log P_C(y | x)                  C learns p(y|x) of the data,
              for C_mi   log P_mi(y | G(z,y))            its twin that of the generated images
        z ~ p_z
        ascend for G     log D(G(z,y)) + log P_C(y | G(z,y)) - log P_mi(y | G(z,y))

AC-GAN's G maximises log P_C(y|G) alone and so makes images whose class is easy to tell. With the twin G descends the
KL divergence of the two conditional distributions: where p_G = p the twins agree, and their gradients cancel. As in the
authors' code, C learns from real images only.
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


class TACGAN(AdversarialModel):
    """Generator that is told the label, discriminator with a classifier of real images and one of generated images.

    Labels are classes, or attributes, each of which has a cross-entropy of its own.

    Args:
        G: net from noise (B,z) and labels to images (B,C,H,W) in [-1,1] (conditional: true, or cbn).
        D: net from images to logits (B,) and two vectors of class logits (classifiers: 2), of C and C_mi.
        adversarial: the two losses of D and G without classes.
        class_weight: weight of the classifiers' terms. Raise it if images are of the wrong class; lower it if losses
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
        real_logits, (C, _) = self.D.classify(x)
        fake_logits, (_, C_mi) = self.D.classify(fake)
        loss_D = self.objective.d(real_logits, fake_logits)
        class_real, class_fake = cross_entropy(C, y, self.sizes), cross_entropy(C_mi, y, self.sizes)
        update("D", loss_D + self.class_weight * (class_real + class_fake))
        logits, (C, C_mi) = self.D.classify(self.G(self.prior.batch(len(x), data), y))
        loss_G = self.objective.g(logits, self.D(x) if self.objective.relativistic else None)
        class_G, twin_G = cross_entropy(C, y, self.sizes), cross_entropy(C_mi, y, self.sizes)
        update("G", loss_G + self.class_weight * (class_G - twin_G))
        terms = {"class_real": class_real, "class_fake": class_fake, "class_G": class_G, "twin_G": twin_G}
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits, terms)
