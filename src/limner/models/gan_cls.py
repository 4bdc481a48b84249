"""Text to image: a GAN whose discriminator also rejects real images with a wrong text.

Reed, Akata, Yan, Logeswaran, Schiele and Lee 2016, *Generative adversarial text to image synthesis*, arXiv:1605.05396:
GAN-CLS, Algorithm 1, and GAN-INT, eq. 5.

    repeat
        x, t ~ data;  t^ ~ texts that do not describe x;  z ~ p_z
        ascend for D   log D(x, t) + 1/2 ( log(1 - D(x, t^)) + log(1 - D(G(z, t), t)) )
        ascend for G   log D(G(z, t), t)  +  lambda log D(G(z, t'), t'),   t' = t/2 + t^/2

The second term of G is GAN-INT: texts between two texts, for which no image exists, so it is G's alone. With real pairs
and generated ones only, D learns that an image has to be real before it learns that it has to fit the text; pairs of a
real image and a wrong text tell it so from the start. The paper's box subtracts gradients of what is to grow; both
nets have to ascend.

The paper takes an image of another class as the wrong one. Here the data say which labels do not describe an image, so
that a wrong label is never right by chance (`limner.core.labelling.Mismatches`). The labels are what the data have:
texts, attributes or classes.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from limner.core.adversarial import AdversarialModel, adversarial_logs, require_labels
from limner.core.batch import Mismatched
from limner.core.condition import required
from limner.core.model import Data, Logs, Update
from limner.core.prior import Prior
from limner.losses.adversarial import labelled, nonsaturating
from limner.nets._labels import vectors
from limner.nets.protocols import Critic, Generator


class GANCLS(AdversarialModel):
    """Generator, and discriminator of pairs of an image and a label.

    Args:
        G: net from noise (B,z) and labels to images (B,C,H,W) in [-1,1] (conditional: text, or true).
        D: net from images and labels to logits (B,); high means real and described by the label.
        wrong: share of real images with a wrong label in D's loss of bad pairs; ½ in the paper, and 0 is a cGAN. Raise
            it if images are good and do not fit; lower it if they fit and look bad.
        interpolation: lambda, weight of the texts between two texts in G's loss: 0 in GAN-CLS, 1 in GAN-INT-CLS. Lower
            it if images between two texts are mixed into those of texts.
        prior: p_z, normal, or uniform on [-1,1].
        classes: length of the labels' vectors; filled from the data.
        condition: what the labels are; filled from the data.
    """

    batch_type = Mismatched
    objective = nonsaturating
    static = True

    def __init__(
        self,
        G: Generator,
        D: Critic,
        wrong: float = 0.5,
        interpolation: float = 0.0,
        prior: Literal["normal", "uniform"] = "normal",
        *,
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= wrong < 1:
            raise ValueError(f"wrong is a share, at least 0 and less than 1; got {wrong:g}")
        if interpolation < 0:
            raise ValueError(f"interpolation is a weight, 0 or more; got {interpolation:g}")
        self.condition = required(condition, classes)
        require_labels("text", G=G, D=D)
        self.G, self.D, self.prior = G, D, Prior(prior, G.z)
        self.wrong, self.interpolation = wrong, interpolation

    def step(self, data: Data, update: Update) -> Logs:
        x, t, wrong = next(data)  # (B,C,H,W) in [-1,1], labels (B,…) each
        fake = self.G(self.prior.batch(len(x), data), t)
        s_r, s_f = self.D(x, t), self.D(fake.detach(), t)  # the paper's names of the logits
        terms = {"wrong": labelled(self.D(x, wrong), 0)} if self.wrong else {}
        loss_D = labelled(s_r, 1) + (1 - self.wrong) * labelled(s_f, 0) + self.wrong * terms.get("wrong", 0)
        update("D", loss_D)
        loss_G = labelled(self.D(fake, t), 1)
        if self.interpolation:
            terms["between"] = self.loss_between(t, wrong, data)
            loss_G = loss_G + self.interpolation * terms["between"]
        update("G", loss_G)
        return adversarial_logs(loss_D, loss_G, s_r, s_f, terms)

    def loss_between(self, t: Tensor, other: Tensor, data: Data) -> Tensor:
        """GAN-INT's term of G's loss, ``-log D(G(z, t'), t')`` for t' in the middle of two labels, eq. 5."""
        between = (vectors(t, self.condition.size) + vectors(other, self.condition.size)) / 2
        return labelled(self.D(self.G(self.prior.batch(len(t), data), between), between), 1)
