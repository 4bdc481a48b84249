"""AC-GAN: a discriminator that also tells the class, which G has to make easy to tell.

Odena, Olah and Shlens 2017, *Conditional image synthesis with auxiliary classifier GANs*, arXiv:1610.09585, section 3.

    L_S = E log P(S = real | x)  +  E log P(S = fake | G(z,y))
    L_C = E log P(C = y | x)     +  E log P(C = y | G(z,y))
    repeat
        x, y ~ data;  z ~ p_z
        ascend for D   L_S + L_C
        z ~ p_z
        ascend for G   L_C - L_S

D does not see the label: it tells real from generated images and, with a second linear layer on the same features, the
class. The class logits go into the cross-entropy as they are; a softmax before it, as in several public versions, takes
away most of the gradient. G gains from images whose class is easy to tell, so where classes overlap it leaves out what
they share: `tac_gan` and `adc_gan` correct this bias.
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


class ACGAN(AdversarialModel):
    """Generator that is told the label, discriminator that tells it.

    Labels are classes, or attributes, each of which has a cross-entropy of its own.

    Args:
        G: net from noise (B,z) and labels to images (B,C,H,W) in [-1,1] (conditional: true, or cbn).
        D: net from images to logits (B,) and class logits (classifiers: 1).
        adversarial: the two losses of L_S.
        class_weight: weight of L_C. Raise it if images are of the wrong class; lower it if the images of a class are
            too alike.
        prior: p_z, normal or uniform on [-1,1].
        classify_fakes: whether the classifier learns from generated images too, as in the paper. False is the form of
            many later versions, in which G cannot agree with the classifier on signs that mean nothing in real images.
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
        classify_fakes: bool = True,
        *,
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if class_weight <= 0:
            raise ValueError(f"class_weight must be positive, got {class_weight:g}")
        self.condition = required(condition, classes)
        require_labels(G=G)
        self.sizes = require_classifiers(D, 1, self.condition)
        self.G, self.D, self.prior = G, D, Prior(prior, G.z)
        self.objective, self.class_weight = OBJECTIVES[adversarial], class_weight
        self.classify_fakes = classify_fakes

    def step(self, data: Data, update: Update) -> Logs:
        x, y = next(data)  # (B,C,H,W) in [-1,1], labels (B,…)
        with torch.no_grad():
            fake = self.G(self.prior.batch(len(x), data), y)
        real_logits, (C_real,) = self.D.classify(x)
        fake_logits, (C_fake,) = self.D.classify(fake)
        loss_D = self.objective.d(real_logits, fake_logits)  # -L_S
        class_real, class_fake = cross_entropy(C_real, y, self.sizes), cross_entropy(C_fake, y, self.sizes)
        class_D = class_real + class_fake if self.classify_fakes else class_real
        update("D", loss_D + self.class_weight * class_D)  # -(L_S + L_C)
        logits, (C,) = self.D.classify(self.G(self.prior.batch(len(x), data), y))
        loss_G = self.objective.g(logits, self.D(x) if self.objective.relativistic else None)
        class_G = cross_entropy(C, y, self.sizes)
        update("G", loss_G + self.class_weight * class_G)  # -(L_C - L_S)
        terms = {"class_real": class_real, "class_fake": class_fake, "class_G": class_G}
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits, terms)
