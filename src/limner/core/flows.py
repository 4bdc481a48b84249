"""The common parts of normalising flows; each paper's file writes out its own step."""

from __future__ import annotations

from math import log, pi, prod
from typing import Any

import torch
from torch import Tensor, nn

from limner.core import dist
from limner.core.condition import Classes, Condition, from_header
from limner.core.errors import LimnerError
from limner.core.model import Data, GenerativeModel
from limner.core.prior import NormalPrior

_CLOSE = 1e-3  # of a grey level: rounding of a level in float32 is far below


class FlowModel(GenerativeModel):
    """An invertible net F between data x and a base z ~ N(0, I_D), D = C·H·W: exact densities, codes and samples.

    Attributes:
        F: the net, of `limner.nets.protocols.Flow`.
        shape: (C,H,W) of a sample. Samples of one pixel are points, whose coordinates are used as they are; all others
            are images of 8 bits, which training dequantises.
        measure: what `log_prob` is a density of: images on [-1,1], dequantised, or points.
    """

    family = "normalising flow"
    measure = "density"
    static = True
    prior: NormalPrior

    def __init__(self, F: nn.Module, shape: tuple[int, int, int], condition: dict[str, Any] | None) -> None:
        super().__init__()
        self.F: Any = F
        self.shape, self.prior = tuple(shape), NormalPrior((prod(shape),))
        classes: int = getattr(F, "classes", 0)
        if classes:
            self.condition: Condition = from_header(condition) if condition else Classes(classes)

    def groups(self) -> dict[str, nn.Module]:
        return {"F": self.F}

    @property
    def is_of_points(self) -> bool:
        """Whether the data are points, not images."""
        return self.shape[1:] == (1, 1)

    def dequantised(self, x: Tensor, data: Data) -> Tensor:
        """Continuous values (B,C,H,W) of a batch: images with noise from `data`, points as they are."""
        raise NotImplementedError

    @torch.no_grad()
    def warm_up(self, data: Data) -> None:
        """Sets the layers that depend on data from the first batch, alike on all ranks.

        Raises:
            LimnerError: the images have values between the 256 levels, so that they cannot be dequantised.
        """
        x, y = next(data)
        levels = 127.5 * (x + 1)
        if not self.is_of_points and bool(((levels - levels.round()).abs() > _CLOSE).any()):
            raise LimnerError(
                "a flow learns from images of 8 bits, and these have values between the 256 levels; save them as such"
            )
        self.F.warm_up(self.dequantised(x, data), y if self.is_conditional else None, _over_ranks)

    @property
    def is_conditional(self) -> bool:
        """Whether F takes classes."""
        return hasattr(self, "condition")

    def log_density(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log p(x|y) in nats (B,), and its part log|det dz/dx| (B,)."""
        z, logdet = self.F(x, y if self.is_conditional else None)
        return log_normal(z) + logdet, logdet

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Log p(x|y) in nats (B,) of points, or of dequantised images in [-1,1] with classes y (B,).

        Without y a conditional model gives log p(x), the mean of p(x|y) over all classes.
        """
        if y is not None or not self.is_conditional:
            return self.log_density(x, y)[0]
        classes = torch.arange(self.condition.size, device=x.device)
        log_p = torch.stack([self.log_density(x, k.expand(len(x)))[0] for k in classes])  # (K,B)
        return log_p.logsumexp(0) - log(len(classes))

    def score_samples(self, x: Tensor) -> Tensor:
        """Log p(x) in nats (B,): low for images unlike the training set."""
        return self.log_prob(x)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes z (B,D) of data (B,C,H,W)."""
        z: Tensor = self.F(x, y if self.is_conditional else None)[0]
        return z

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Points, or images (B,C,H,W) in [-1,1], of codes z (B,D)."""
        x: Tensor = self.F.inverse(z, y if self.is_conditional else None)
        return x if self.is_of_points else x.clamp(-1, 1)  # dequantised values reach 1/255 beyond


def log_normal(z: Tensor) -> Tensor:
    """Log N(z; 0, I) in nats (B,) of z (B,D)."""
    return -0.5 * (z.square() + log(2 * pi)).sum(1)


def _over_ranks(x: Tensor) -> Tensor:
    """The average of a tensor over ranks."""
    x = x.clone()
    dist.average_([x])
    return x
