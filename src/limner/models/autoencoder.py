"""Autoencoder: a code from which the image can be reconstructed.

Rumelhart, Hinton and Williams 1986; deep and mirrored: Hinton and Salakhutdinov 2006 (*Science* 313:504);
convolutional: Masci et al. 2011.

    repeat
        x ~ data
        z = F(x);  x_hat = G(z)
        descend  L(x_hat, x)                        mean squared error, or binary cross-entropy

The injected nets decide which kind of autoencoder it is: undercomplete (code smaller than the image), overcomplete
(larger), deep (`tie_weights` makes G's matrices the transposes of F's), convolutional.

Departure: running moments of the codes are recorded, so that `sample` can draw every code dimension from its own
Gaussian and decode. The images are *not* realistic: an autoencoder has no prior.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.prior import EmpiricalPrior
from limner.losses import reconstruction as losses
from limner.nets.mlp import tie
from limner.nets.protocols import Decoder, Encoder


class Autoencoder(GenerativeModel):
    """Encoder and decoder trained to reconstruct their input.

    Args:
        encoder: net from images to codes.
        decoder: net from codes to images; with bce its output must be linear (logits).
        z: size of the code, for nets whose own z is not set. Raise it if details are lost; lower it to compress.
        reconstruction: mse, or bce of pixel intensities as probabilities.
        reduction: mean or sum over pixels, then the mean over the batch. Gradients of the sum are C·H·W times larger.
        tie_weights: the decoder's matrices are the transposes of the encoder's (mirrored MLPs only).
    """

    static = True
    family = "autoencoder"
    prior: EmpiricalPrior

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        z: int = 32,
        reconstruction: Literal["mse", "bce"] = "mse",
        reduction: Literal["mean", "sum"] = "mean",
        tie_weights: bool = False,
    ) -> None:
        super().__init__()
        if encoder.code_shape != decoder.code_shape or encoder.heads != 1:
            raise ValueError(
                f"the encoder gives {encoder.heads} codes of {encoder.code_shape} and the decoder takes one of"
                f" {decoder.code_shape}; give both one z, and the encoder heads: 1"
            )
        self.encoder, self.decoder = encoder, decoder
        self.bce = reconstruction == "bce"
        self.loss, self.reduction = getattr(losses, reconstruction), reduction
        self.prior = EmpiricalPrior(encoder.code_shape)
        if tie_weights:
            tie(encoder, decoder)

    def groups(self) -> dict[str, nn.Module]:
        return {"AE": self}

    def step(self, data: Data, update: Update) -> Logs:
        x = next(data).x  # (B,C,H,W) in [-1,1]
        z = self.encoder(x)
        loss = self.loss(self.decoder(z), x, self.reduction)
        update("AE", loss)
        self.prior.update(z)
        return {"loss/AE": loss}

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (B,…) of images (B,C,H,W)."""
        codes: Tensor = self.encoder(x)
        return codes

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of codes."""
        x = self.decoder(z)
        return torch.tanh(x / 2) if self.bce else x  # 2 sigmoid(x) - 1

    def score_samples(self, x: Tensor) -> Tensor:
        """Minus the mean squared error of each image's reconstruction, (B,): low for images unlike the training set."""
        return -(self.decode(self.encode(x)) - x).square().flatten(1).mean(1)
