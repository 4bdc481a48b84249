"""Generative adversarial network: a generator, and a discriminator that it learns to deceive.

Goodfellow et al. 2014 (arXiv 1406.2661), Algorithm 1.

    repeat
        k times
            x ~ data;  z ~ p_z
            ascend for D   log D(x) + log(1 - D(G(z)))
        z ~ p_z
        descend for G  log(1 - D(G(z)))             saturating, the paper's box
        or ascend      log D(G(z))                  non-saturating, the default

D gives logits; its loss is the sum of both terms (log 4 for a D that cannot tell real from generated images). With
DCGAN's nets this is DCGAN (Radford, Metz and Chintala 2016, arXiv 1511.06434). Later variants of the training are
arguments of `GAN`: the objective, soft and flipped labels, penalties on D's gradient, a transform of D's input. Later
variants of the nets (spectral norm, minibatch features, packing) are arguments of the nets.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from limner.core.adversarial import AdversarialModel, adversarial_logs, mean_sign
from limner.core.model import Data, Logs, Update
from limner.core.prior import Prior
from limner.losses.adversarial import OBJECTIVES, Objective, labelled
from limner.losses.penalties import PENALTIES, PER_IMAGE, PenaltyName, Through
from limner.nets.augment import Identity, Transform
from limner.nets.protocols import Critic, Generator, mixes_images

_CROSS_ENTROPY = ("nonsaturating", "saturating")  # the objectives whose D is trained on labels


class GAN(AdversarialModel):
    """Generator and discriminator of any architecture.

    Args:
        G: net from noise (B,z) to images (B,C,H,W) in [-1,1].
        D: net from images to logits (B,); high means real.
        adversarial: the two losses. Saturating gradients vanish while D wins; wasserstein needs a Lipschitz D;
            the relativistic ones compare G's images with real ones, so that a dropped mode costs G.
        d_steps: k, steps of D for each step of G. Raise it if D is too weak; lower it if G's gradient vanishes.
        prior: p_z, normal or uniform on [-1,1].
        real_labels: interval from which the label of each real image is drawn. [0.9, 0.9] is one-sided smoothing,
            [0.7, 1.0] are noisy labels. Lower it if D's logits of real images keep growing.
        fake_labels: the same for generated images. A value above 0 moves D's optimum towards G, so prefer [0, 0].
        flip: share of images whose label is swapped. Raise it (to 0.05, say) if D memorises its
            images; lower it if D does not learn.
        penalties: weight of each penalty on D's gradient, e.g. {r1: 1} or {gradient_penalty: 10}.
        penalty_every: steps of D from one penalty to the next; its weight grows in proportion. Raise it for speed;
            lower it if losses jump.
        transform: applied to real and generated images before D, such as augment.DiffAugment; none by default.
            Penalties are taken at the images before it.
    """

    static = True

    def __init__(
        self,
        G: Generator,
        D: Critic,
        adversarial: Objective = "nonsaturating",
        d_steps: int = 1,
        prior: Literal["normal", "uniform"] = "normal",
        real_labels: tuple[float, float] = (1.0, 1.0),
        fake_labels: tuple[float, float] = (0.0, 0.0),
        flip: float = 0.0,
        penalties: dict[PenaltyName, float] | None = None,
        penalty_every: int = 1,
        transform: Transform | None = None,
    ) -> None:
        super().__init__()
        self.G, self.D = G, D
        self.objective, self.d_steps, self.prior = OBJECTIVES[adversarial], d_steps, Prior(prior, G.z)
        self.real_labels, self.fake_labels, self.flip = real_labels, fake_labels, flip
        self.hard = (real_labels, fake_labels, flip) == ((1, 1), (0, 0), 0)
        self.penalties, self.penalty_every = dict(penalties or {}), penalty_every
        self.transform = transform or Identity()
        self._check_arguments(adversarial)

    def _check_arguments(self, adversarial: Objective) -> None:
        for name, value in (("d_steps", self.d_steps), ("penalty_every", self.penalty_every)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, (low, high) in (("real_labels", self.real_labels), ("fake_labels", self.fake_labels)):
            if not 0 <= low <= high <= 1:
                raise ValueError(f"{name} must be an interval in [0,1], such as [0.7, 1.0]; got [{low:g}, {high:g}]")
        if not 0 <= self.flip <= 0.5:
            raise ValueError(f"flip must be a share from 0 to 0.5, got {self.flip:g}")
        if not self.hard and adversarial not in _CROSS_ENTROPY:
            raise ValueError(f"soft or flipped labels mean nothing to {adversarial}; use adversarial=nonsaturating")
        if any(weight <= 0 for weight in self.penalties.values()):
            raise ValueError("the weight of a penalty must be positive; leave the penalty out instead")
        per_image = [p for p in self.penalties if p in PER_IMAGE]
        if per_image and mixes_images(self.D):
            raise ValueError(
                f"{per_image[0]} needs the gradient at each image, and this D mixes images (batch norm or features of"
                " the batch); use D.norm=layer D.minibatch=none"
            )
        spectral = any("parametrizations" in name for name, _ in self.D.named_parameters())
        if adversarial == "wasserstein" and not (self.penalties or spectral):
            raise ValueError(
                "wasserstein needs a critic of bounded slope; add penalties={gradient_penalty: 10} or D.spectral=true"
            )

    def phase(self, data: Data) -> tuple[bool, ...]:
        """Which of the next `d_steps` steps of D have a penalty."""
        steps = range(self.d_steps) if self.penalties else ()
        return tuple((data.position // data.batch + k) % self.penalty_every == 0 for k in steps)

    def step(self, data: Data, update: Update) -> Logs:
        for _ in range(self.d_steps):
            penalise = data.position // data.batch % self.penalty_every == 0
            x = next(data).x  # (B,C,H,W) in [-1,1]
            with torch.no_grad():
                fake = self.G(self.prior.batch(len(x), data))
                seen = self.transform(x), self.transform(fake)
            real_logits, fake_logits = map(self.D, seen)
            loss_D = self.loss_D(real_logits, fake_logits, data)
            terms = self.penalty_terms((x, fake), seen) if penalise else dict.fromkeys(self.penalties, 0 * loss_D)
            update("D", loss_D + sum(weight * terms[p] for p, weight in self.penalties.items()))
            self.transform.observe(mean_sign(real_logits), data.batch)
        loss_G = self.loss_G(self.G(self.prior.batch(len(x), data)), x)
        update("G", loss_G)
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits, terms)

    def penalty_terms(self, images: tuple[Tensor, Tensor], seen: tuple[Tensor, Tensor]) -> dict[PenaltyName, Tensor]:
        """The penalties by name, times `penalty_every`, so that the mean over all steps is right.

        They are taken at real and generated `images`, through a new draw of the transform; in runs that began before
        rule 2 at the transformed images that D has `seen`.
        """
        if self.rules < 2 or isinstance(self.transform, Identity):
            return {p: self.penalty_every * PENALTIES[p](self.D, *seen) for p in self.penalties}
        critic = Through(self.transform, self.D)
        return {p: self.penalty_every * PENALTIES[p](critic, *images) for p in self.penalties}

    def loss_D(self, real_logits: Tensor, fake_logits: Tensor, data: Data) -> Tensor:
        """What D minimises: the objective, or the cross-entropy with a label drawn for each image."""
        if self.hard:
            return self.objective.d(real_logits, fake_logits)
        real_targets = self._draw_labels(len(real_logits), self.real_labels, self.fake_labels, data)
        fake_targets = self._draw_labels(len(fake_logits), self.fake_labels, self.real_labels, data)
        return labelled(real_logits, real_targets) + labelled(fake_logits, fake_targets)

    def loss_G(self, fake: Tensor, x: Tensor) -> Tensor:
        """What G minimises with images `fake`; only a relativistic objective uses the real images x."""
        fake_logits = self.D(self.transform(fake))
        return self.objective.g(fake_logits, self.D(self.transform(x)) if self.objective.relativistic else None)

    def _draw_labels(
        self, n: int, interval: tuple[float, float], flipped_interval: tuple[float, float], data: Data
    ) -> Tensor:
        """Labels (n,), uniform on `interval`; a share `flip` of them is uniform on `flipped_interval` instead."""
        flip, u = data.rand(n) < self.flip, data.rand(n)
        low, high = (torch.where(flip, b, a) for a, b in zip(interval, flipped_interval, strict=True))
        return low + (high - low) * u
