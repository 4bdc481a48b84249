"""Generative adversarial network: a generator and a critic of its work.

Goodfellow et al. 2014 (arXiv 1406.2661), Algorithm 1.

    repeat
        k times
            x ~ data;  z ~ p_z
            ascend for D   log D(x) + log(1 - D(G(z)))
        z ~ p_z
        descend for G  log(1 - D(G(z)))             saturating, the paper's box
        or ascend      log D(G(z))                  non-saturating, the default

D gives logits; its loss is the plain sum of both terms (log 4 where D knows nothing), as most code has it.
With DCGAN's nets this is DCGAN (Radford, Metz and Chintala 2016, arXiv 1511.06434). What later papers changed about the
game is chosen here: the objective, soft and flipped labels, penalties on D's gradient, a transform of what D sees. What
they changed about the nets (spectral norm, minibatch features, packing) is chosen there.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from limner.core import dist
from limner.core.adversarial import AdversarialModel, adversarial_logs
from limner.core.model import Data, Logs, Update
from limner.core.prior import Prior
from limner.losses.adversarial import OBJECTIVES, Objective, labelled
from limner.losses.penalties import PENALTIES, PER_IMAGE, PenaltyName
from limner.nets.augment import Identity, Transform
from limner.nets.protocols import Critic, Generator, mixes_images

_CROSS_ENTROPY = ("nonsaturating", "saturating")  # the games whose D is told labels


class GAN(AdversarialModel):
    """Generator and discriminator of any architecture.

    Args:
        G: net from noise (B,z) to images (B,C,H,W) in [-1,1].
        D: net from images to logits (B,); high means real.
        adversarial: the two losses. Saturating gradients vanish while D wins; wasserstein needs a Lipschitz D;
            the relativistic ones judge G's images against real ones, which leaves G no forgotten mode to hide in.
        d_steps: k, steps of D for each step of G. Raise it if D is too weak; lower it if G's gradient vanishes.
        prior: p_z, normal or uniform on [-1,1].
        real_labels: D is told that a real image is real to a degree drawn from this interval. [0.9, 0.9] is one-sided
            smoothing, [0.7, 1.0] noisy labels. Lower it if D grows too sure.
        fake_labels: the same for generated images. A value above 0 moves D's optimum towards G,
            so prefer [0, 0].
        flip: share of images whose label is exchanged. Raise it (to 0.05, say) if D learns its images by heart.
        penalties: weight of each penalty on D's gradient, e.g. {r1: 1} or {gradient_penalty: 10}.
        penalty_every: D-steps from one penalty to the next; its weight grows in proportion. Raise it for speed.
        transform: what happens to every image before D sees it, such as augment.DiffAugment; none by default.
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
        self._refuse_nonsense(adversarial)

    def _refuse_nonsense(self, adversarial: Objective) -> None:
        for name, value in (("d_steps", self.d_steps), ("penalty_every", self.penalty_every)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, (low, high) in (("real_labels", self.real_labels), ("fake_labels", self.fake_labels)):
            if not 0 <= low <= high <= 1:
                raise ValueError(f"{name} is an interval in [0,1], such as [0.7, 1.0]; got [{low:g}, {high:g}]")
        if not 0 <= self.flip <= 0.5:
            raise ValueError(f"flip is a share from 0 to 0.5, got {self.flip:g}")
        if not self.hard and adversarial not in _CROSS_ENTROPY:
            raise ValueError(f"soft or flipped labels mean nothing to {adversarial}; use adversarial=nonsaturating")
        if any(weight <= 0 for weight in self.penalties.values()):
            raise ValueError("the weight of a penalty must be positive; leave the penalty out instead")
        per_image = [p for p in self.penalties if p in PER_IMAGE]
        if per_image and mixes_images(self.D):
            raise ValueError(
                f"{per_image[0]} bounds the gradient at each image, and this D mixes images (batch norm or features of"
                " the batch); use D.norm=layer D.minibatch=none"
            )
        spectral = any("parametrizations" in name for name, _ in self.D.named_parameters())
        if adversarial == "wasserstein" and not (self.penalties or spectral):
            raise ValueError(
                "wasserstein needs a critic of bounded slope; add penalties={gradient_penalty: 10} or D.spectral=true"
            )

    def phase(self, data: Data) -> tuple[bool, ...]:
        """Which of the coming steps of D have a penalty."""
        steps = range(self.d_steps) if self.penalties else ()
        return tuple((data.position // data.batch + k) % self.penalty_every == 0 for k in steps)

    def step(self, data: Data, update: Update) -> Logs:
        for _ in range(self.d_steps):
            due = data.position // data.batch % self.penalty_every == 0
            x = next(data).x  # (B,C,H,W) in [-1,1]
            with torch.no_grad():
                fake = self.G(self.prior.batch(len(x), data))
                real, fake = self.transform(x), self.transform(fake)
            real_logits, fake_logits = self.D(real), self.D(fake)
            loss_D = self.loss_D(real_logits, fake_logits, data)
            terms = self.penalty_terms(real, fake) if due else dict.fromkeys(self.penalties, 0 * loss_D)
            update("D", loss_D + sum(weight * terms[p] for p, weight in self.penalties.items()))
            self.transform.observe(self._sign(real_logits), data.batch)
        fake_logits_G = self.D(self.transform(self.G(self.prior.batch(len(x), data))))
        rivals = self.D(self.transform(x)) if self.objective.relativistic else None
        loss_G = self.objective.g(fake_logits_G, rivals)
        update("G", loss_G)
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits, terms)

    def penalty_terms(self, real: Tensor, fake: Tensor) -> dict[PenaltyName, Tensor]:
        """The penalties by name. One that is taken every k steps counts k times: only its mean over steps has a meaning."""
        return {p: self.penalty_every * PENALTIES[p](self.D, real, fake) for p in self.penalties}

    def loss_D(self, real_logits: Tensor, fake_logits: Tensor, data: Data) -> Tensor:
        """What D minimises: the objective as it stands, or with labels drawn anew for each image."""
        if self.hard:
            return self.objective.d(real_logits, fake_logits)
        return labelled(real_logits, self._labels_of(len(real_logits), self.real_labels, self.fake_labels, data)) + (
            labelled(fake_logits, self._labels_of(len(fake_logits), self.fake_labels, self.real_labels, data))
        )

    def _labels_of(self, n: int, own: tuple[float, float], other: tuple[float, float], data: Data) -> Tensor:
        """Labels (n,) from the interval `own`, a share `flip` of them from `other`."""
        flipped, place = data.rand(n) < self.flip, data.rand(n)
        low, high = (torch.where(flipped, o, mine) for mine, o in zip(own, other, strict=True))
        return low + (high - low) * place

    def _sign(self, real_logits: Tensor) -> Tensor:
        """The mean sign of D on real images over all ranks: near 1 when D knows them by heart."""
        sign = real_logits.detach().sign().mean()
        dist.average_([sign])
        return sign
