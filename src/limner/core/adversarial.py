"""The common parts of models with a generator and a critic; each paper's file writes out its own step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from limner.core import dist
from limner.core.condition import Condition
from limner.core.model import GenerativeModel, Logs
from limner.core.prior import Prior


class Objective(Protocol):
    """The two losses of an adversarial model; `limner.losses.adversarial` defines them."""

    @property
    def d(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss of D, a function of the logits of real and of generated images."""
        ...

    @property
    def g(self) -> Callable[[Tensor, Tensor | None], Tensor]:
        """The loss of G, a function of the logits of generated and of real images."""
        ...

    @property
    def relativistic(self) -> bool:
        """Whether `g` needs the logits of real images."""
        ...


class AdversarialModel(GenerativeModel):
    """A generator G and a critic D.

    Attributes:
        G: net from noise to images.
        D: net from images to logits; high means real.
        prior: distribution of the noise.
        objective: the losses of G and D.
    """

    ema_groups: tuple[str, ...] | None = ("G",)
    family = "GAN"

    G: nn.Module
    D: nn.Module
    prior: Prior
    objective: Objective

    def groups(self) -> dict[str, nn.Module]:
        return {"G": self.G, "D": self.D}

    def critic(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits (B,) of images (B,C,H,W), and of their labels (B,…) if D takes labels.

        A D that takes packs of images gets packs of copies.
        """
        pack: Any = getattr(self.D, "pack", 1)
        copies = x.repeat_interleave(pack, 0)
        logits: Tensor = self.D(copies) if y is None else self.D(copies, y.repeat_interleave(pack, 0))
        return logits.float()

    def real_and_fake(self, x: Tensor, fake: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,) of real and of generated images, both with labels y (B,…); in one pass if D does not mix images.

        One pass is faster, and with spectral norm both halves see the same weights.
        """
        if getattr(self.D, "mixes", True):
            return self.D(x, y), self.D(fake, y)
        real_logits, fake_logits = self.D(torch.cat([x, fake]), torch.cat([y, y])).chunk(2)
        return real_logits, fake_logits

    def sample_gradient(self, fake: Tensor, real: Tensor, y: Tensor | None = None) -> Tensor:
        """The direction in which G's loss moves each sample, of the shape of `fake` (B,C,H,W).

        `y` (B,…) are the labels of both, if D takes labels.
        """
        return sample_gradient(self.objective, lambda x: self.critic(x, y), fake, real)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of noise (B,z), and of labels (B,…) if G takes labels."""
        images: Tensor = self.G(z) if y is None else self.G(z, y)
        return images


def sample_gradient(objective: Objective, critic: Callable[[Tensor], Tensor], fake: Tensor, real: Tensor) -> Tensor:
    """The direction in which a generator's loss moves each sample: −∂(B·loss_G)/∂fake, of the shape of `fake` (B,…).

    G learns from D through this gradient only. Real images (B,…) are used by relativistic objectives only.
    """
    with torch.enable_grad():
        fake = fake.detach().requires_grad_()
        loss = objective.g(critic(fake), critic(real) if objective.relativistic else None)
        (grad,) = torch.autograd.grad(loss * len(fake), fake)
    return -grad


def mean_sign(real_logits: Tensor) -> Tensor:
    """The mean sign () of D's logits of real images over all ranks: near 1 when D overfits."""
    sign = real_logits.detach().sign().mean()
    dist.average_([sign])
    return sign


def require_labels(way: str = "true", **nets: nn.Module) -> None:
    """Checks that nets take labels.

    Args:
        way: the word for `conditional` that the message recommends.
        **nets: the nets by the names of their arguments.

    Raises:
        ValueError: a net does not take labels.
    """
    for name, net in nets.items():
        if not getattr(net, "classes", 0):
            raise ValueError(f"{name} is not told the label; write {name}.conditional={way}")


def require_classifiers(D: nn.Module, number: int, condition: Condition) -> list[int]:
    """Checks that D gives `number` vectors of class logits, and that the labels are what a classifier can tell.

    Returns:
        the number of values of each feature of the labels.

    Raises:
        ValueError: D gives another number of vectors or is told the label, or the labels are neither classes nor
            attributes.
    """
    if getattr(D, "classes", 0):
        raise ValueError("D is to tell the label and must not be told it; write D.conditional=false")
    if getattr(D, "classifiers", 0) != number:
        vectors = "a vector" if number == 1 else f"{number} vectors"
        raise ValueError(f"D must give {vectors} of class logits; write D.classifiers={number}")
    sizes = [len(known) for known in condition.values.values()]
    if not sizes:
        raise ValueError("a classifier tells classes or attributes, not texts; use cgan or projection_gan for captions")
    return sizes


def adversarial_logs(
    loss_D: Tensor,
    loss_G: Tensor,
    real: Tensor,
    fake: Tensor,
    terms: Mapping[Any, Tensor] | None = None,
    **more: Tensor,
) -> Logs:
    """The logs of a step, under the names that the report uses.

    Args:
        loss_D: loss of D without penalties.
        loss_G: loss of G.
        real: logits of real images, of any shape.
        fake: logits of generated images, of any shape.
        terms: unweighted terms of a loss by name.
        **more: further terms.
    """
    logs = {"loss/D": loss_D, "loss/G": loss_G, "logit/real": real.float().mean(), "logit/fake": fake.float().mean()}
    return logs | {f"term/{name}": value for name, value in {**(terms or {}), **more}.items()}
