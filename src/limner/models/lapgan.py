"""LAPGAN: a picture drawn from coarse to fine, each step by a small GAN of its own.

Denton, Chintala, Szlam and Fergus 2015 (arXiv 1506.05751), section 3.2 and algorithm 1. Of images x = x_0 a Laplacian
pyramid is made: x_{k+1} = down(x_k), the low-pass image l_k = up(x_{k+1}), the details h_k = x_k - l_k.

    for each level k = 0 … K-1, on its own
        x_k, l_k of x ~ data;  z_k ~ U(-1, 1), a plane
        ascend for D_k   log D_k(l_k + h_k) + log(1 - D_k(l_k + G_k(z_k, l_k)))
        ascend for G_k   log D_k(l_k + G_k(z_k, l_k))
    for level K the same with x_K and G_K(z_K), an ordinary GAN
    to draw:  x_K = G_K(z_K);  l_k = up(x_{k+1}),  x_k = l_k + G_k(z_k, l_k)  from k = K-1 to 0

Levels learn from real low-pass images, so each can be trained without the others: a step at level k moves no other.
Here one step trains all of `train_levels`, with the same batch. D_k sees l_k + h_k alone, as in the paper, not l_k
beside it. Departure: G ascends log D and not -log(1 - D).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limner.core.condition import required
from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.previews import Grid
from limner.core.prior import Prior
from limner.losses.adversarial import nonsaturating
from limner.nets.lapgan import pyramid, up
from limner.nets.protocols import PyramidCritic, PyramidGenerator


class LAPGAN(GenerativeModel):
    """A generator and a discriminator for each level of a Laplacian pyramid. Level 0 is the finest.

    Args:
        G: net from noise (B,z) to images, level by level, such as lapgan.Generator; conditional or not.
        D: net with a discriminator for each level, such as lapgan.Discriminator, of as many levels.
        train_levels: the levels that are trained; null trains all. Give one of them to train it longer, from the
            weights of another run (train.init=RUN).
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
        condition: names of the classes or attributes; filled from the data.
    """

    static = True
    family = "GAN"
    prior: Prior
    preview_facts: Mapping[str, str] = {
        "details": "From the left, for each sample: the coarsest image; then for each level the low-pass image, the "
        "details, and their sum."
    }

    def __init__(
        self,
        G: PyramidGenerator,
        D: PyramidCritic,
        train_levels: tuple[int, ...] | None = None,
        *,
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if G.levels != D.levels or G.classes != D.classes:
            raise ValueError(
                f"G has {G.levels} levels and {G.classes} classes, D {D.levels} and {D.classes}; give both the same"
            )
        chosen = range(G.levels + 1) if train_levels is None else sorted(set(train_levels))
        if not chosen or min(chosen) < 0 or max(chosen) > G.levels:
            raise ValueError(
                f"train_levels must be some of 0 (the finest) to {G.levels} (the coarsest), got {train_levels}"
            )
        self.G, self.D, self.chosen = G, D, tuple(chosen)
        self.prior = Prior("uniform", G.z)
        if G.classes:
            self.condition = required(condition, classes)
        self.ema_groups = tuple(f"G{k}" for k in self.chosen)

    def groups(self) -> dict[str, nn.Module]:
        return {f"{name}{k}": net.net[k] for k in self.chosen for name, net in (("G", self.G), ("D", self.D))}

    def step(self, data: Data, update: Update) -> Logs:
        x, y = next(data)  # (B,C,H,W) in [-1,1]
        images = pyramid(x, self.G.levels)
        logs: Logs = {}
        for k in self.chosen:
            low = up(images[k + 1]) if k < self.G.levels else None  # (B,C,H_k,W_k)
            with torch.no_grad():
                fake = self.generated(k, self.noise(k, len(x), data), low, y)
            D_k = self.D.net[k]
            real_logits, fake_logits = D_k(images[k], y), D_k(fake, y)  # l + h of real images is x_k
            loss_D = nonsaturating.d(real_logits, fake_logits)
            update(f"D{k}", loss_D)
            loss_G = nonsaturating.g(D_k(self.generated(k, self.noise(k, len(x), data), low, y), y), None)
            update(f"G{k}", loss_G)
            right = ((real_logits > 0).float().mean() + (fake_logits < 0).float().mean()) / 2
            logs |= {f"loss/D{k}": loss_D, f"loss/G{k}": loss_G, f"term/accuracy_D{k}": right}
        return logs

    def noise(self, k: int, n: int, data: Data) -> Tensor:
        """The noise of level k for n images, uniform on [-1,1]."""
        return 2 * data.rand(n, *self.G.noise[k]) - 1

    def generated(self, k: int, z: Tensor, low: Tensor | None, y: Tensor | None) -> Tensor:
        """Images (B,C,H_k,W_k) of level k: l + G(z, l) with a low-pass image l, or those of the coarsest level."""
        if low is None:
            coarse: Tensor = self.G.net[k](z, y)
            return coarse
        details: Tensor = self.G.net[k](z, low, y)
        return low + details

    def parts(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The low-pass image l_k and the details h_k of images (B,C,H,W), from the finest; the coarsest has no details.

        So `G.images` has them of noise.
        """
        images = pyramid(x, self.G.levels)
        lows = [up(smaller) for smaller in images[1:]]
        finer = [(low, image - low) for low, image in zip(lows, images, strict=False)]
        return [*finer, (images[-1], torch.zeros_like(images[-1]))]

    def low_pass(self, x: Tensor) -> Tensor:
        """The low-pass images l_k (B,C,H_k,W_k) of images of level k+1, half as large: up(x)."""
        return up(x)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of noise (B,z), that of all levels from the finest; details are clamped."""
        images: Tensor = self.G(z, y)
        return images.clamp(-1, 1)

    @torch.inference_mode()
    def preview(self, batch: object, n: int, seed: int) -> dict[str, Grid]:
        """Samples, and the levels of eight of them: the coarsest image; l, h and l + h of each finer level."""
        z = self.prior.sample(8, torch.Generator(self.device).manual_seed(seed))
        y = self.condition.default(8).to(z.device) if self.G.classes else None
        *finer, (coarse, _) = self.G.images(z, y)
        strip = [coarse, *(x for low, h in reversed(finer) for x in (low, h, low + h))]
        same = [nn.functional.interpolate(x, size=finer[0][0].shape[2:]).float().clamp(-1, 1) for x in strip]
        return {"samples": self.sample_grid(n, seed), "details": Grid(torch.stack(same, 1).flatten(0, 1), len(same))}
