"""Sparse autoencoder: a code of which few units are active at a time.

L1 penalty: Olshausen and Field 1996; KL penalty: Lee, Ekanadham and Ng 2008, Ng 2011 (CS294A notes, eq. for J_sparse).

    repeat
        x ~ data
        z = s(F(x));  x_hat = G(z)                  s: ReLU for L1, sigmoid for KL
        descend  L(x_hat, x) + weight * penalty(z)
                 L1:  sum_j |z_j|
                 KL:  sum_j KL(rho || mean over the batch of z_j)
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.prior import EmpiricalPrior
from limner.losses import reconstruction as losses
from limner.losses import sparsity
from limner.nets.protocols import Decoder, Encoder


class SparseAutoencoder(GenerativeModel):
    """Autoencoder whose code is penalised for activity.

    Args:
        encoder: net from images to codes, before the activation of the code.
        decoder: net from codes to images.
        z: size of the code; it may be larger than the image. Raise it for a richer dictionary.
        penalty: l1 on ReLU codes, or kl of the mean activity of sigmoid codes from `rho`.
        weight: weight of the penalty. Raise it for fewer active units; lower it if reconstructions fade.
        rho: target mean activity, for kl. Lower it for fewer active units; raise it if reconstructions fade.
        reduction: mean of the squared error over pixels, or its sum.
    """

    static = True
    family = "autoencoder"
    prior: EmpiricalPrior

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        z: int = 256,
        penalty: Literal["l1", "kl"] = "kl",
        weight: float = 1e-3,
        rho: float = 0.05,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        if weight < 0 or not 0 < rho < 1:
            raise ValueError(f"weight must not be negative and rho must be in (0,1), got {weight:g} and {rho:g}")
        self.encoder, self.decoder = encoder, decoder
        self.penalty, self.weight, self.rho, self.reduction = penalty, weight, rho, reduction
        self.prior = EmpiricalPrior(encoder.code_shape, least=0.0)

    def groups(self) -> dict[str, nn.Module]:
        return {"AE": self}

    def step(self, data: Data, update: Update) -> Logs:
        x = next(data).x  # (B,C,H,W) in [-1,1]
        z = self.encode(x)
        mse = losses.mse(self.decoder(z), x, self.reduction)
        penalty = sparsity.l1(z) if self.penalty == "l1" else sparsity.kl(z, self.rho)
        loss = mse + self.weight * penalty
        update("AE", loss)
        self.prior.update(z)
        return {"loss/AE": loss, "term/mse": mse, "term/sparsity": penalty, "term/active": self.active(z)}

    def active(self, z: Tensor) -> Tensor:
        """Share of code units that are active: above 0.01 for ReLU, above 0.5 for sigmoid codes."""
        return (z.detach() > (0.01 if self.penalty == "l1" else 0.5)).float().mean()

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Active codes (B,…): ReLU or sigmoid of the encoder's output."""
        h = self.encoder(x)
        return torch.relu(h) if self.penalty == "l1" else torch.sigmoid(h)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of codes."""
        images: Tensor = self.decoder(z)
        return images

    def score_samples(self, x: Tensor) -> Tensor:
        """Minus the mean squared error of each image's reconstruction, (B,)."""
        return -(self.decode(self.encode(x)) - x).square().flatten(1).mean(1)
