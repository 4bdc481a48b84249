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
With DCGAN's nets this is DCGAN (Radford, Metz and Chintala 2016, arXiv 1511.06434).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.losses.adversarial import OBJECTIVES, Objective


class GAN(GenerativeModel):
    """Generator and discriminator of any architecture.

    Args:
        G: net from noise (B,z) to images (B,C,H,W) in [-1,1].
        D: net from images to logits (B,); high means real.
        adversarial: what G descends on; saturating gradients vanish while D wins.
        d_steps: k, steps of D for each step of G. Raise it if D is too weak; lower it if G's gradient vanishes.
        prior: p_z, normal or uniform on [-1,1].
    """

    averaged = ("G",)

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        adversarial: Objective = "nonsaturating",
        d_steps: int = 1,
        prior: Literal["normal", "uniform"] = "normal",
    ) -> None:
        super().__init__()
        if d_steps < 1:
            raise ValueError(f"d_steps must be at least 1, got {d_steps}")
        self.G, self.D = G, D
        self.adversarial, self.d_steps, self.uniform = OBJECTIVES[adversarial], d_steps, prior == "uniform"

    def groups(self) -> dict[str, nn.Module]:
        return {"G": self.G, "D": self.D}

    def step(self, data: Data, update: Update) -> Logs:
        for _ in range(self.d_steps):
            x = next(data).x  # (B,C,H,W) in [-1,1]
            with torch.no_grad():
                fake = self.G(self.z(len(x), data))
            real_logits, fake_logits = self.D(x).float(), self.D(fake).float()
            loss_D = self.adversarial.d(real_logits, fake_logits)
            update("D", loss_D)
        loss_G = self.adversarial.g(self.D(self.G(self.z(len(x), data))).float())
        update("G", loss_G)
        return {
            "loss/D": loss_D,
            "loss/G": loss_G,
            "logit/real": real_logits.mean(),
            "logit/fake": fake_logits.mean(),
        }

    def z(self, n: int, data: Data) -> Tensor:
        """Noise (n,z) from the prior."""
        return 2 * data.rand(n, self.G.z) - 1 if self.uniform else data.randn(n, self.G.z)

    def draw(self, n: int, y: Tensor | None, generator: torch.Generator) -> Tensor:
        size, device = (n, self.G.z), self.device
        if self.uniform:
            return self.G(2 * torch.rand(size, generator=generator, device=device) - 1)
        return self.G(torch.randn(size, generator=generator, device=device))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of noise (B,z)."""
        return self.G(z)
