"""Generative adversarial network: a generator and a critic of its work.

Goodfellow et al. 2014 (arXiv 1406.2661), Algorithm 1.

    repeat
        k times
            x ~ data;  z ~ p_z
            ascend for D   log D(x) + log(1 - D(G(z)))
        z ~ p_z
        descend for G  log(1 - D(G(z)))             saturating, the paper's box
        or ascend      log D(G(z))                  non-saturating, the default

D gives logits; its loss is the plain sum of both terms (log 4 where D knows nothing), as in the lecture's code.
With DCGAN's nets this is DCGAN (Radford, Metz and Chintala 2016, arXiv 1511.06434). What later papers changed about the
game is chosen here: the objective, soft and flipped labels, penalties on D's gradient, a transform of what D sees. What
they changed about the nets (spectral norm, minibatch features, packing) is chosen there.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from limner.core import dist
from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.prior import Prior
from limner.losses.adversarial import OBJECTIVES, Objective, labelled, pull
from limner.losses.penalties import PENALTIES, PenaltyName

_CROSS_ENTROPY = ("nonsaturating", "saturating")  # the games whose D is told labels
_LIPSCHITZ = ("gradient_penalty", "gradient_penalty_one_sided", "dragan")


class GAN(GenerativeModel):
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
        fake_labels: the same for generated images. [0, 0.3] is the lecture's; it moves D's optimum towards G, so
            prefer [0, 0].
        flip: share of images whose label is exchanged. Raise it (to 0.05, say) if D learns its images by heart.
        penalties: weight of each penalty on D's gradient, e.g. {r1: 1} or {gradient_penalty: 10}.
        penalty_every: D-steps from one penalty to the next; its weight grows in proportion. Raise it for speed.
        transform: what happens to every image before D sees it, such as augment.DiffAugment; none by default.
    """

    averaged = ("G",)
    static = True

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        adversarial: Objective = "nonsaturating",
        d_steps: int = 1,
        prior: Literal["normal", "uniform"] = "normal",
        real_labels: tuple[float, float] = (1.0, 1.0),
        fake_labels: tuple[float, float] = (0.0, 0.0),
        flip: float = 0.0,
        penalties: dict[PenaltyName, float] | None = None,
        penalty_every: int = 1,
        transform: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.G, self.D = G, D
        self.adversarial, self.d_steps, self.prior = OBJECTIVES[adversarial], d_steps, Prior(prior, G.z)
        self.real_labels, self.fake_labels, self.flip = real_labels, fake_labels, flip
        self.hard = (real_labels, fake_labels, flip) == ((1, 1), (0, 0), 0)
        self.penalties, self.penalty_every = dict(penalties or {}), penalty_every
        self.transform: nn.Module = transform or _Unchanged()
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
        lipschitz = [p for p in self.penalties if p in _LIPSCHITZ]
        if lipschitz and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.D.modules()):
            raise ValueError(
                f"{lipschitz[0]} bounds the gradient of each image and batch norm mixes images; use D.norm=layer"
            )
        spectral = any("parametrizations" in name for name, _ in self.D.named_parameters())
        if adversarial == "wasserstein" and not (self.penalties or spectral):
            raise ValueError(
                "wasserstein needs a critic of bounded slope; add penalties={gradient_penalty: 10} or D.spectral=true"
            )

    def groups(self) -> dict[str, nn.Module]:
        return {"G": self.G, "D": self.D}

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
            real_logits, fake_logits = self.D(real).float(), self.D(fake).float()
            loss_D = self.loss_D(real_logits, fake_logits, data)
            terms = {
                p: self.penalty_every * PENALTIES[p](self.D, real, fake) if due else 0 * loss_D for p in self.penalties
            }
            update("D", loss_D + sum(weight * terms[p] for p, weight in self.penalties.items()))
            self.transform.observe(self._sign(real_logits), data.batch)  # type: ignore[operator]
        fake_logits_G = self.D(self.transform(self.G(self.prior.batch(len(x), data)))).float()
        rivals = self.D(self.transform(x)).float() if self.adversarial.relativistic else None
        loss_G = self.adversarial.g(fake_logits_G, rivals)
        update("G", loss_G)
        return {
            "loss/D": loss_D,
            "loss/G": loss_G,
            "logit/real": real_logits.mean(),
            "logit/fake": fake_logits.mean(),
            **{
                f"term/{p}": value for p, value in terms.items()
            },  # of a lazy one only the mean over steps has a meaning
        }

    def loss_D(self, real_logits: Tensor, fake_logits: Tensor, data: Data) -> Tensor:
        """What D minimises: the objective as it stands, or with labels drawn anew for each image."""
        if self.hard:
            return self.adversarial.d(real_logits, fake_logits)
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

    def critic(self, x: Tensor) -> Tensor:
        """Logits (B,) of images (B,C,H,W); a D of packs sees copies."""
        return self.D(x.repeat_interleave(getattr(self.D, "pack", 1), 0)).float()

    def pull(self, fake: Tensor, real: Tensor) -> Tensor:
        """Where G's loss would move each sample, (B,C,H,W)."""
        return pull(self.adversarial, self.critic, fake, real)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of noise (B,z)."""
        return self.G(z)


class _Unchanged(nn.Module):
    """The transform that does nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def observe(self, sign: Tensor, images: int) -> None:
        """It has nothing to adapt."""
