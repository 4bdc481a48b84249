"""CoGAN: a joint distribution of two domains, learnt from images of each without a single pair.

Liu and Tuzel 2016 (arXiv 1606.07536), eq. 3 and section 3: two GANs whose generators share their first layers, which
decide what an image shows, and whose discriminators share their last ones.

    repeat
        a ~ domain a;  b ~ domain b, drawn independently;  z ~ N(0, I)
        ascend for D1 and D2   log D1(a) + log(1 - D1(G1(z))) + log D2(b) + log(1 - D2(G2(z)))
        z ~ N(0, I)
        ascend for G1 and G2   log D1(G1(z)) + log D2(G2(z))

G1(z) and G2(z) of one z are a pair. Nothing in the losses asks them to correspond: only the shared layers do, and where
the domains differ in more than the layers of its own can express, pairs do not correspond. Shared layers get the sum of
both gradients. Layers of its own may be given to either end (`own`): with all of them these are two GANs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from limner.core.adversarial import adversarial_logs
from limner.core.batch import Unpaired
from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.previews import Grid, rows_of
from limner.core.prior import Prior
from limner.core.rng import Noise
from limner.losses.adversarial import nonsaturating
from limner.nets.cogan import Discriminator, Generator

Domain = Literal["a", "b", "both"]


class CoGAN(GenerativeModel):
    """Two generators and two discriminators with shared layers. Give both of a kind the same arguments.

    Args:
        G1: net from noise (B,z) to images of domain a, (B,C,H,W) in [-1,1].
        G2: net from noise to images of domain b; its shared layers become those of G1.
        D1: net from images of domain a to logits (B,).
        D2: net from images of domain b to logits; its shared layers become those of D1.
    """

    ema_groups = ("G",)
    static = True
    batch_type: type = Unpaired
    family = "GAN"
    domains = ("a", "b")
    preview_facts: Mapping[str, str] = {"details": "Each column is a pair, of one noise: domain a above domain b."}

    def __init__(self, G1: Generator, G2: Generator, D1: Discriminator, D2: Discriminator) -> None:
        super().__init__()
        G2.share(G1)
        D2.share(D1)
        self.G1, self.G2, self.D1, self.D2 = G1, G2, D1, D2
        self.prior = Prior("normal", G1.z)

    def groups(self) -> dict[str, nn.Module]:
        return {"G": nn.ModuleList([self.G1, self.G2]), "D": nn.ModuleList([self.D1, self.D2])}

    def step(self, data: Data, update: Update) -> Logs:
        a, b = next(data)  # (B,C,H,W) in [-1,1] each, no pairs
        with torch.no_grad():
            fake_a, fake_b = self.decode_pair(self.prior.batch(len(a), data))
        real = [self.D1(a), self.D2(b)]
        fake = [self.D1(fake_a), self.D2(fake_b)]
        losses_D = [nonsaturating.d(*logits) for logits in zip(real, fake, strict=True)]
        loss_D = losses_D[0] + losses_D[1]
        update("D", loss_D)
        fake_a, fake_b = self.decode_pair(self.prior.batch(len(a), data))
        loss_G = nonsaturating.g(self.D1(fake_a), None) + nonsaturating.g(self.D2(fake_b), None)
        update("G", loss_G)
        return adversarial_logs(loss_D, loss_G, torch.cat(real), torch.cat(fake), D1=losses_D[0], D2=losses_D[1])

    def decode_pair(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Corresponding images of both domains, (B,C,H,W) in [-1,1] each, of noise (B,z)."""
        h = self.G1.begin(z)  # the shared layers, once for both
        return self.G1.finish(h), self.G2.finish(h)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images of noise (B,z), of the domain that `at` has chosen, or of domain a."""
        return self._of(z, self.options.get("domain", "a"))

    def draw(self, n: int, y: Tensor | None, noise: Noise, *, domain: Domain = "a", **options: object) -> Tensor:
        """Images of a domain, or pairs side by side, (n,C,H,2W), with a on the left.

        Args:
            n: number of images.
            y: not used.
            noise: the source of all noise.
            domain: a or b, or both for corresponding images side by side.
            **options: none.
        """
        return self._of(noise(0, self.prior.z), domain)

    def _of(self, z: Tensor, domain: Domain) -> Tensor:
        a, b = self.decode_pair(z)
        return {"a": a, "b": b}[domain] if domain != "both" else torch.cat([a, b], 3)

    def preview(self, batch: object, n: int, seed: int) -> dict[str, Grid]:
        """Samples of domain a, and a row of them above the corresponding images of domain b."""
        pairs = self.sample(16, seed=seed, domain="both")
        return {"samples": self.sample_grid(n, seed), "details": rows_of(*pairs.chunk(2, 3), most=16)}
