"""The common parts of normalising flows; each paper's file writes out its own step."""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi, prod
from typing import Any

import torch
from torch import Tensor, nn

from limner.core import dist
from limner.core.batch import LEVEL
from limner.core.condition import Classes, Condition, from_header
from limner.core.errors import LimnerError
from limner.core.model import Data, GenerativeModel
from limner.core.prior import NormalPrior
from limner.core.rng import keys_of, normal

_STREAM = 4  # of the random numbers that dequantise
_LABELS = 32  # over which p(x) is a mean where labels are no classes
_CLOSE = 1e-3  # of a grey level: rounding of a level in float32 is far below


class FlowModel(GenerativeModel):
    """An invertible net F between data x and a base z ~ N(0, I_D), D = C·H·W: exact densities, codes and samples.

    Images of 8 bits become continuous by noise u within the width of a level: x + u. Without a `dequantiser` the noise
    is even, and likelihoods are exact densities of images that already have it. With one, q(u|x), they are a bound on
    the probability of the image itself, log P(x) >= E_q[log p(x + u) - log q(u|x)] with p in units of a level (Ho et
    al. 2019, arXiv:1902.00275, eq. 12).

    Attributes:
        F: the net, of `limner.nets.protocols.Flow`.
        dequantiser: the net of `limner.nets.protocols.Dequantiser`, or None.
        shape: (C,H,W) of a sample. Samples of one pixel are points, whose coordinates are used as they are; all others
            are images of 8 bits.
        measure: what `log_prob` is about: a density of points or of dequantised images on [-1,1], or discrete levels.
        likelihood_kind: ``exact``, or ``ELBO`` with a dequantiser.
    """

    family = "normalising flow"
    measure = "density"
    likelihood_kind = "exact"
    static = True
    prior: NormalPrior

    def __init__(
        self,
        F: nn.Module,
        shape: tuple[int, int, int],
        condition: dict[str, Any] | None,
        dequantiser: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.F: Any = F
        self.dequantiser: Any = dequantiser
        if dequantiser is not None:
            self.measure, self.likelihood_kind = "discrete", "ELBO"
        self.shape, self.prior = tuple(shape), NormalPrior((prod(shape),))
        classes: int = getattr(F, "classes", 0)
        if classes:
            self.condition: Condition = from_header(condition) if condition else Classes(classes)

    def groups(self) -> dict[str, nn.Module]:
        return {"F": self.F if self.dequantiser is None else self}

    @property
    def is_of_points(self) -> bool:
        """Whether the data are points, not images."""
        return self.shape[1:] == (1, 1)

    def spread(self, x: Tensor, u: Tensor) -> Tensor:
        """Images (B,C,H,W) in [-1,1] with noise u (B,C,H,W) in [0,1) over the width of their levels."""
        raise NotImplementedError

    def dequantised(self, x: Tensor, data: Data) -> tuple[Tensor, Tensor]:
        """Continuous values (B,C,H,W) of a batch, and log q(u|x) (B,) of the noise from `data`; points stay."""
        if self.is_of_points:
            return x, x.new_zeros(len(x))
        if self.dequantiser is None:
            return self.spread(x, data.rand(*x.shape)), x.new_zeros(len(x))
        u, log_q = self.dequantiser(data.randn(*x.shape), x)
        return self.spread(x, u), log_q

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
        self.F.warm_up(self.dequantised(x, data)[0], y if self.is_conditional else None, _over_ranks)

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

        With a dequantiser it is a bound on the log P(x|y) of images with 256 levels, whose noise is a function of x.
        Without y a conditional model gives log p(x), the mean of p(x|y) over all classes.
        """
        if self.dequantiser is None:
            return self._over_classes(x, y)
        return self.log_weights(x, 1, lambda *size: normal(keys_of(x), _STREAM, prod(size[1:])).view(size), y)[0]

    def log_weights(self, x: Tensor, k: int, noise: Callable[..., Tensor], y: Tensor | None = None) -> Tensor:
        """Log P(x + u_k) - log q(u_k|x) in nats (k,B) of images x (B,C,H,W); the exact log p(x) without dequantiser."""
        if self.dequantiser is None:
            return self._over_classes(x, y).expand(k, -1)
        eps = noise(len(x), k, *x.shape[1:]).transpose(0, 1).flatten(0, 1)  # (k·B,C,H,W)
        repeated = x.repeat(k, 1, 1, 1)
        u, log_q = self.dequantiser(eps, repeated)
        log_p = self._over_classes(self.spread(repeated, u), None if y is None else torch.cat([y] * k))
        return (log_p + prod(self.shape) * log(LEVEL) - log_q).view(k, len(x))

    def _over_classes(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Log p(x|y) in nats (B,) of continuous x; without y the mean of p over classes, or over labels of the data."""
        if y is not None or not self.is_conditional:
            return self.log_density(x, y)[0]
        count = _LABELS if self.condition.names is None else self.condition.size
        labels = self.condition.default(count).to(x.device)
        log_p = torch.stack([self.log_density(x, y.expand(len(x), *y.shape))[0] for y in labels])  # (K,B)
        return log_p.logsumexp(0) - log(count)

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
