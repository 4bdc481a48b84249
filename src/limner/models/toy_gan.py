"""A toy GAN of one parameter: the generator only shifts its noise, the discriminator is a logistic regression.

Prince 2023, *Understanding Deep Learning*, section 15.1.2 and figure 15.2.

    x* = z + theta,   z ~ N(0, 1)
    D(x) = sigmoid(phi_0 + phi_1 x)
    repeat
        x ~ data;  z ~ p_z
        descend for D  -log D(x) - log(1 - D(x*))
        descend for G  -log D(x*)

While samples and data differ, the sign of D's slope phi_1 tells theta the direction; once they agree, the best D is
flat and the gradient of theta is 0. Departure: points in n dimensions are shifted by a vector theta of n numbers.
"""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from limner.core.adversarial import AdversarialModel, adversarial_logs
from limner.core.model import Data, Logs, Update
from limner.core.prior import Prior
from limner.losses.adversarial import OBJECTIVES


class ToyGAN(AdversarialModel):
    """A shift as generator and a logistic regression as discriminator.

    Args:
        adversarial: the losses; the two differ in G's.
        start: initial value of theta.
        sigma: standard deviation of the noise. Samples and data can agree only if it is that of the data.
        shape: (C,H,W) of a sample; filled from the data.
    """

    static = True
    G: Shift
    D: nn.Linear

    def __init__(
        self,
        adversarial: Literal["nonsaturating", "saturating"] = "nonsaturating",
        start: float = 0.0,
        sigma: float = 1.0,
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        if prod(shape) > 16:
            raise ValueError(
                f"toy_gan takes points of at most 16 numbers, these have {prod(shape)}; use a toy set: data=line"
            )
        self.shape, self.sigma, self.objective = shape, sigma, OBJECTIVES[adversarial]
        self.G, self.D = Shift(prod(shape), start), nn.Linear(prod(shape), 1)
        self.prior = Prior("normal", prod(shape))
        nn.init.zeros_(self.D.weight)
        nn.init.zeros_(self.D.bias)

    def step(self, data: Data, update: Update) -> Logs:
        x = next(data).x  # (B,C,H,W)
        fake = self.decode(self.prior.batch(len(x), data))
        real_logits, fake_logits = self.critic(x), self.critic(fake.detach())
        loss_D = self.objective.d(real_logits, fake_logits)
        update("D", loss_D)
        loss_G = self.objective.g(self.critic(self.decode(self.prior.batch(len(x), data))), None)
        update("G", loss_G)
        theta, slope = self.G.theta.mean(), self.D.weight.norm()
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits, theta=theta, slope=slope)

    def critic(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits (B,) of samples (B,C,H,W)."""
        return self.D(x.flatten(1)).squeeze(1).float()

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Samples (B,C,H,W) of noise (B,C·H·W)."""
        return self.G(self.sigma * z).unflatten(1, self.shape)


class Shift(nn.Module):
    """x* = z + theta."""

    def __init__(self, n: int, start: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.full((n,), start))

    def forward(self, z: Tensor) -> Tensor:
        """Points (B,n) of noise (B,n)."""
        return z + self.theta
