"""Denoising autoencoder: the clean image from a noisy one.

Vincent, Larochelle, Bengio and Manzagol 2008 (ICML); Vincent et al. 2010 (JMLR 11:3371).

    repeat
        x ~ data
        x_noisy ~ q(. | x)                          Gaussian noise, or a share of pixels set to black
        descend  L(G(F(x_noisy)), x)

Pixels are in [-1,1], so sigma 0.5 is a quarter of the range of grey values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.prior import EmpiricalPrior
from limner.losses import reconstruction as losses
from limner.nets.protocols import Decoder, Encoder


class DenoisingAutoencoder(GenerativeModel):
    """Autoencoder trained to remove noise.

    Args:
        encoder: net from images to codes.
        decoder: net from codes to images.
        z: size of the code, for nets whose own z is not set. Raise it if details are lost; lower it if noise stays.
        noise: gaussian, or masking (pixels set to black).
        sigma: standard deviation of the Gaussian noise on the [-1,1] scale. Raise it if noise stays; lower it if
            details are lost.
        share: share of pixels masked.
        reduction: mean of the squared error over pixels, or its sum.
    """

    static = True
    family = "autoencoder"
    prior: EmpiricalPrior

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        z: int = 64,
        noise: Literal["gaussian", "masking"] = "gaussian",
        sigma: float = 0.5,
        share: float = 0.3,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        if sigma < 0 or not 0 <= share < 1:
            raise ValueError(f"sigma must not be negative and share must lie in [0,1), got {sigma:g} and {share:g}")
        self.encoder, self.decoder = encoder, decoder
        self.noise, self.sigma, self.share, self.reduction = noise, sigma, share, reduction
        self.prior = EmpiricalPrior(encoder.code_shape)

    def groups(self) -> dict[str, nn.Module]:
        return {"AE": self}

    def step(self, data: Data, update: Update) -> Logs:
        x = next(data).x  # (B,C,H,W) in [-1,1]
        z = self.encoder(self.corrupt(x, data.randn))
        loss = losses.mse(self.decoder(z), x, self.reduction)
        update("AE", loss)
        self.prior.update(z)
        return {"loss/AE": loss}

    def corrupt(self, x: Tensor, noise: Callable[..., Tensor]) -> Tensor:
        """Corrupted images (B,C,H,W) in [-1,1]; `noise(*size)` gives standard normal numbers."""
        eps = noise(*x.shape)
        if self.noise == "gaussian":
            return (x + self.sigma * eps).clamp(-1, 1)
        quantile = torch.special.ndtri(torch.full((), self.share, device=x.device))  # P(eps < quantile) = share
        return torch.where(eps < quantile, -1.0, x)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (B,…) of (noisy) images (B,C,H,W)."""
        codes: Tensor = self.encoder(x)
        return codes

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Clean images (B,C,H,W) in [-1,1] of codes."""
        images: Tensor = self.decoder(z)
        return images

    def score_samples(self, x: Tensor) -> Tensor:
        """Minus the mean squared error of each image's reconstruction, (B,)."""
        return -(self.decode(self.encode(x)) - x).square().flatten(1).mean(1)
