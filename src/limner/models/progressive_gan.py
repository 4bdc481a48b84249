"""Progressive growing: a GAN that starts with small images and doubles their size, one new block at a time.

Karras, Aila, Laine and Lehtinen 2018 (arXiv 1710.10196), with the WGAN-GP loss of its appendix A.1.

    level = 0
    until the images have full size, and from then on
        for stable_images images               train both nets at this level
        for fade_images images                 the same while level rises by 1
    where to train is
        n_critic times
            x ~ data, shrunk to the level;  z ~ p_z;  eps ~ U[0,1], one per image;  x^ = eps x + (1 - eps) G(z)
            descend for D  D(G(z)) - D(x) + lambda (|| grad D(x^) ||_2 - 1)^2 + 0.001 D(x)^2
        z ~ p_z
        descend for G  -D(G(z))

Departures: the batch is the same at all sizes, and Adam keeps its moments when a block is added (the new block starts
with fresh ones). Samples always have the data's size: while the nets grow, pixels are repeated.
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from limner.core.adversarial import AdversarialModel, adversarial_logs
from limner.core.model import Data, Logs, Update
from limner.core.prior import Prior
from limner.core.schedule import Linear
from limner.core.units import Count
from limner.losses.adversarial import wasserstein
from limner.losses.penalties import gradient_penalty
from limner.nets.progressive import at_level, downsample, upsample
from limner.nets.protocols import GrowingCritic, GrowingGenerator


class ProgressiveGAN(AdversarialModel):
    """Generator and critic that grow together.

    Args:
        G: net from noise (B,z) to the images of a level, such as progressive.Generator.
        D: net from the images of a level to scores (B,), such as progressive.Discriminator; its `start` is G's.
        stable_images: images trained on at each size before the next one. Raise it if images are still bad when they
            grow; lower it to reach the full size sooner.
        fade_images: images over which a new block is faded in; 0 adds it at once. Raise it if losses jump at
            a new block; lower it to reach the full size sooner: that is after (stable_images + fade_images) times the
            number of doublings.
        n_critic: steps of the critic for each step of G. Raise it if the critic lags behind; lower it for speed.
        gp_weight: lambda. Raise it if gradient norms grow; lower it if the critic hardly separates the two.
        drift: weight of E D(x)^2, which keeps scores near 0. Raise it if scores drift.
    """

    objective = wasserstein
    G: GrowingGenerator
    D: GrowingCritic

    def __init__(
        self,
        G: GrowingGenerator,
        D: GrowingCritic,
        stable_images: Count = 800_000,
        fade_images: Count = 800_000,
        n_critic: int = 1,
        gp_weight: float = 10.0,
        drift: float = 1e-3,
    ) -> None:
        super().__init__()
        if G.levels != D.levels:
            raise ValueError(f"G doubles {G.levels} times and D {D.levels} times; give both the same start")
        if stable_images < 1 or fade_images < 0:
            raise ValueError(
                f"stable_images must be positive and fade_images not negative, got {stable_images} and {fade_images}"
            )
        if n_critic < 1:
            raise ValueError(f"n_critic must be at least 1, got {n_critic}")
        if gp_weight <= 0 or drift < 0:
            raise ValueError(f"gp_weight must be positive and drift not negative, got {gp_weight:g} and {drift:g}")
        self.G, self.D, self.prior = G, D, Prior("normal", G.z)
        self.levels = G.levels
        self.stable_images, self.fade_images = stable_images, fade_images
        self.n_critic, self.gp_weight, self.drift = n_critic, gp_weight, drift
        self.images = 0  # real images up to the end of the last step, over all ranks

    def step(self, data: Data, update: Update) -> Logs:
        level = self.level_at(data.position)
        D = self.D.bind(level=level)
        for _ in range(self.n_critic):
            x = at_level(next(data).x, level, self.levels)  # (B,C,h,w) in [-1,1]
            with torch.no_grad():
                fake = self.G(self.prior.batch(len(x), data), level=level)
            real_logits, fake_logits = D(x), D(fake)
            loss_D = wasserstein.d(real_logits, fake_logits)  # D(G(z)) - D(x)
            gp = gradient_penalty(D, x, fake, eps=data.rand(len(x)))
            update("D", loss_D + self.gp_weight * gp + self.drift * real_logits.float().square().mean())
        loss_G = wasserstein.g(D(self.G(self.prior.batch(len(x), data), level=level)), None)
        update("G", loss_G)
        self.images = data.position
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits, gp=gp)

    def level_at(self, images: int) -> float:
        """Number of finished doublings, plus the share of the next one, after so many images."""
        whole, rest = divmod(images, self.stable_images + self.fade_images)
        fade = Linear(0.0, 1.0, begin=self.stable_images, length=self.fade_images)
        return min(whole + fade(rest), float(self.levels))

    @property
    def level(self) -> float:
        """The current level of the nets."""
        return self.level_at(self.images)

    def get_extra_state(self) -> Tensor:
        """The number of images, which decides the level; the checkpoint holds it."""
        return torch.tensor(self.images, dtype=torch.int64)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores the number of images."""
        self.images = int(state)

    def critic(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Scores (B,) of images (B,C,H,W), downsampled to the current level."""
        logits: Tensor = self.D(downsample(x, self._missing_doublings), level=self.level)
        return logits.float()

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of noise (B,z), clamped because G's output is linear."""
        return upsample(self.G(z, level=self.level), self._missing_doublings).clamp(-1, 1)

    @property
    def _missing_doublings(self) -> int:
        """Doublings between the current images and the data's."""
        return self.levels - ceil(self.level)
