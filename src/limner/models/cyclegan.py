"""CycleGAN: translation between two domains without pairs.

Zhu, Park, Isola and Efros 2017, *Unpaired image-to-image translation using cycle-consistent adversarial networks*,
arXiv:1703.10593, eq. 1 to 4, section 4 and 5.2.

    repeat
        x ~ domain a;  y ~ domain b                 G: a -> b, F: b -> a
        descend for G and F
            (D_Y(G(x)) - 1)² + (D_X(F(y)) - 1)²                     least squares
            + λ (‖F(G(x)) - x‖₁ + ‖G(F(y)) - y‖₁)                   cycle consistency
            + λ ι (‖G(y) - y‖₁ + ‖F(x) - x‖₁)                       identity
        ŷ, x̂ ~ the last 50 translations
        descend for D_Y  ½ [(D_Y(y) - 1)² + D_Y(ŷ)²],  for D_X the same with x and x̂

Two batches for one net go through it as one batch, which is exact without batch norm. The pool stores images with 8
bits, as the data have them. With several processes each has its own pool, and a checkpoint holds that of the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limner.core.adversarial import adversarial_logs
from limner.core.batch import Unpaired, to_float, to_uint8
from limner.core.inference import forward_together, translated
from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.previews import Grid, rows_of
from limner.losses.adversarial import lsgan, lsgan_g_loss
from limner.losses.translation import l1


class CycleGAN(GenerativeModel):
    """Two generators and two discriminators for two domains of one shape.

    Args:
        G: net from images of domain a to images of domain b, (B,C,H,W) in [-1,1].
        F: net from domain b to domain a.
        D_X: net from images of domain a to logits of any shape.
        D_Y: net from images of domain b to logits.
        cycle: λ, weight of cycle consistency. Raise it if translations lose the content; lower it if little changes.
        identity: ι, weight of keeping images of the target domain as they are, as a share of λ; 0 leaves the term out,
            which is quicker. Raise it if colours change that should not; lower it if translations hardly change.
        pool: number of past translations, of which D is shown one in half of the cases. Raise it if training
            oscillates; lower it if D lags behind.
        shape: (C,H,W) of an image; filled from the data.
    """

    ema_groups = ("G",)
    static = True
    batch_type: type = Unpaired
    domains: tuple[str, ...] = ("b", "a")
    family = "GAN between images"
    preview_facts: Mapping[str, str] = {"rows": "images of a, as b, and back again; images of b, as a, and back again"}
    pairing: dict[str, Any] | None = None

    def __init__(
        self,
        G: nn.Module,
        F: nn.Module,
        D_X: nn.Module,
        D_Y: nn.Module,
        cycle: float = 10.0,
        identity: float = 0.5,
        pool: int = 50,
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        if cycle < 0 or identity < 0 or pool < 0:
            raise ValueError(f"cycle, identity and pool must not be negative, got {cycle:g}, {identity:g} and {pool}")
        self.G, self.F, self.D_X, self.D_Y = G, F, D_X, D_Y
        self.cycle, self.identity = cycle, identity
        self.pool_X, self.pool_Y = Pool(pool, shape), Pool(pool, shape)
        self.shape = self.source = shape

    def groups(self) -> dict[str, nn.Module]:
        return {"G": nn.ModuleList([self.G, self.F]), "D": nn.ModuleList([self.D_X, self.D_Y])}

    def phase(self, data: Data) -> tuple[()] | None:
        """Steps are the same operations once the pools are full."""
        return () if all(pool.filled == len(pool.held) for pool in (self.pool_X, self.pool_Y)) else None

    def step(self, data: Data, update: Update) -> Logs:
        x, y = next(data)  # (B,C,H,W) in [-1,1] each
        fake_y, *identity_y = forward_together(self.G, x, y) if self.identity else (self.G(x),)
        fake_x, *identity_x = forward_together(self.F, y, x) if self.identity else (self.F(y),)
        gan = lsgan_g_loss(self.D_Y(fake_y)) + lsgan_g_loss(self.D_X(fake_x))
        cycle = l1(self.F(fake_y), x) + l1(self.G(fake_x), y)
        identity = l1(identity_y[0], y) + l1(identity_x[0], x) if self.identity else 0 * cycle.detach()
        loss_G = gan + self.cycle * (cycle + self.identity * identity)
        update("G", loss_G)
        real_Y, fake_Y = forward_together(self.D_Y, y, self.pool_Y(fake_y.detach(), data))
        real_X, fake_X = forward_together(self.D_X, x, self.pool_X(fake_x.detach(), data))
        loss_D = lsgan.d(real_Y, fake_Y) + lsgan.d(real_X, fake_X)
        update("D", loss_D)
        real, fake = (torch.stack([Y.mean(), X.mean()]) for Y, X in ((real_Y, real_X), (fake_Y, fake_X)))
        return adversarial_logs(loss_D, loss_G, real, fake, gan=gan, cycle=cycle, identity=identity)

    def preview(self, batch: Unpaired, n: int, seed: int) -> dict[str, Grid]:
        """Images of a, their translations to b, and those back to a; then the same from b."""
        x, y = batch
        fake_y, fake_x = translated(self, x, "b", seed=seed), translated(self, y, "a", seed=seed)
        back_x, back_y = translated(self, fake_y, "a", seed=seed), translated(self, fake_x, "b", seed=seed)
        return {"samples": rows_of(x, fake_y, back_x, y, fake_x, back_y)}

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        """Images (B,C,H,W) in [-1,1] of domain `to` from images of the other domain, of any height and width."""
        images: Tensor = self.G(x) if to == "b" else self.F(x)
        return images


class Pool(nn.Module):
    """A buffer of past translations to train D on, half of the time (Shrivastava et al. 2017, arXiv:1612.07828).

    Args:
        size: how many images it holds; with 0 D is always shown the new ones.
        shape: (C,H,W) of an image.
    """

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.held: Tensor
        self.register_buffer("held", torch.zeros(size, *shape, dtype=torch.uint8))
        self.filled = 0  # images held; counted on the host, so that reading it never waits for the device

    def forward(self, x: Tensor, data: Data) -> Tensor:
        """Images (B,C,H,W) for D: each new one, or with probability ½ a held one, which the new one then replaces."""
        size = len(self.held)
        if not size:
            return x
        indices, swaps = (data.rand(len(x)) * size).long(), data.rand(len(x)) < 0.5
        shown = []
        for new, index, swap in zip(x.split(1), indices.split(1), swaps, strict=True):
            if self.filled < size:  # the pool fills up first
                self.held[self.filled] = to_uint8(new[0])
                self.filled += 1
                shown.append(new)
            else:
                old = self.held[index]
                shown.append(torch.where(swap, to_float(old), new))
                self.held[index] = torch.where(swap, to_uint8(new), old)
        return torch.cat(shown)

    def get_extra_state(self) -> Tensor:
        """How many images it holds, for the checkpoint."""
        return torch.tensor(self.filled)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores the number of images held."""
        self.filled = int(state)
