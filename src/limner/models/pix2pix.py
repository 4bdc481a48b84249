"""pix2pix: image-to-image translation, learnt from pairs.

Isola, Zhu, Zhou and Efros 2017, *Image-to-image translation with conditional adversarial networks*, arXiv:1611.07004,
eq. 1 to 4 and section 3.3.

    repeat
        a, b ~ pairs
        y = G(a)                                    noise is dropout in G alone
        descend for D  -½ [log D(a, b) + log(1 - D(a, y))]
        descend for G  -log D(a, y) + λ ‖b - y‖₁

D scores patches of (source, image): the L1 term is for what is coarse, D for what is fine. One source gives nearly the
same image each time, because dropout is little noise (section 3.1). One forward pass of G serves both updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from limner.core.adversarial import adversarial_logs
from limner.core.batch import Paired
from limner.core.inference import forward_together, translated
from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.previews import Grid, rows_of
from limner.losses.adversarial import OBJECTIVES
from limner.losses.translation import l1


class Pix2Pix(GenerativeModel):
    """Generator and patch discriminator for pairs.

    Args:
        G: net from sources (B,C',H,W) to images (B,C,H,W) in [-1,1].
        D: net from sources and images, concatenated to (B,C'+C,H,W), to logits of any shape.
        l1_weight: λ. Raise it if colours or shapes are wrong; lower it if images are blurred.
        adversarial: the two losses: nonsaturating as in the paper; lsgan or hinge if training is unstable.
        shape: (C,H,W) of a target; filled from the data.
        source: (C',H,W) of a source; filled from the data.
        pairing: how sources are made of targets; filled from the data. `limner apply` does the same to its input.
    """

    ema_groups = ("G",)
    static = True
    batch_type: type = Paired
    domains: tuple[str, ...] = ("b",)
    family = "GAN between images"
    preview_facts: Mapping[str, str] = {"rows": "sources, translations, targets"}

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        l1_weight: float = 100.0,
        adversarial: Literal["nonsaturating", "lsgan", "hinge"] = "nonsaturating",
        *,
        shape: tuple[int, int, int],
        source: tuple[int, int, int],
        pairing: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if l1_weight < 0:
            raise ValueError(f"l1_weight must not be negative, got {l1_weight:g}")
        self.G, self.D = G, D
        self.l1_weight, self.objective = l1_weight, OBJECTIVES[adversarial]
        self.shape, self.source, self.pairing = shape, source, pairing

    def groups(self) -> dict[str, nn.Module]:
        return {"G": self.G, "D": self.D}

    def step(self, data: Data, update: Update) -> Logs:
        a, b = next(data)  # (B,C',H,W), (B,C,H,W) in [-1,1]
        y = self.G(a)
        real, fake = forward_together(self.D, torch.cat([a, b], 1), torch.cat([a, y.detach()], 1))
        loss_D = self.objective.d(real, fake) / 2  # section 3.3: D learns half as fast
        update("D", loss_D)
        gan = self.objective.g(self.D(torch.cat([a, y], 1)), None)
        error = l1(y, b)
        loss_G = gan + self.l1_weight * error
        update("G", loss_G)
        return adversarial_logs(loss_D, loss_G, real, fake, gan=gan, l1=error)

    def preview(self, batch: Paired, n: int, seed: int) -> dict[str, Grid]:
        """Rows of sources, translations and targets."""
        return {"samples": rows_of(batch.a, translated(self, batch.a, "b", seed=seed), batch.b)}

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        """Images (B,C,H,W) in [-1,1] of sources (B,C',H,W), of any height and width."""
        images: Tensor = self.G(x)
        return images
