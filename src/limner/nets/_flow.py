"""Parts of normalising flows: maps with an inverse and a known log-determinant.

Each maps x to (z, log|det dz/dx|), the latter (B,) in nats, and has an `inverse`. Maps compute in float32 or wider also
under autocast, because a sum of thousands of logarithms loses too much in bfloat16; only the nets inside them run in
low precision then. They round their inputs, so an inverse under autocast is a few percent off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from math import log
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.nets import _labels as labels
from limner.nets import protocols

Mean = Callable[[Tensor], Tensor]
"""Averages a tensor over all ranks."""

PixelMap = Literal["linear", "logit", "marginal"]

_LEVELS = 256
_UNIT = 127.5 / _LEVELS  # from [-1-1/255, 1+1/255] to [0,1]
_EDGE = 2.0**-23  # of [0,1]: its ends have no finite normal quantile
_LEAST_STD = 1e-2
_RAREST = 1e-5  # is added to the share of each level, so that none is impossible


def exact(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the device of x."""
    return torch.autocast(x.device.type, enabled=False)


def flow_input(x: Tensor) -> Tensor:
    """Data in float32, or in float64 where they are."""
    return x if x.dtype == torch.float64 else x.float()


def squeeze(x: Tensor) -> Tensor:
    """Squares of 2×2 pixels as channels: (B,C,H,W) -> (B,4C,H/2,W/2). `F.pixel_shuffle` undoes it."""
    return F.pixel_unshuffle(x, 2)


def check_halvings(shape: tuple[int, int, int], halvings: int, name: str) -> None:
    """Checks that images of `shape` can be halved so many times.

    Raises:
        ValueError: they cannot, or they are points.
    """
    h, w = shape[1:]
    if h * w == 1:
        raise ValueError(
            f"these data are points, not images; use {name} with images, and real_nvp.PointFlow for points"
        )
    multiple = 2**halvings
    if h % multiple or w % multiple:
        size = -(-min(h, w) // multiple) * multiple
        raise ValueError(
            f"images of {h}×{w} cannot be halved {halvings} times; use sides that {multiple} divides, such as"
            f" size={size}, or fewer levels"
        )


class Bijection(nn.Module):
    """A map x -> (y, log|det|) with an inverse; y are the classes (B,) of a conditional one."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The x of which z is the image."""
        raise NotImplementedError

    def warm_up(self, x: Tensor, y: Tensor | None, mean: Mean) -> None:
        """Sets parameters that depend on the data from a batch of inputs, without gradients; most maps have none."""


class Chain(Bijection):
    """One map after the other.

    Args:
        maps: the maps, first to last.
    """

    def __init__(self, maps: Iterable[Bijection]) -> None:
        super().__init__()
        self.maps: Sequence[Bijection] = nn.ModuleList(maps)  # type: ignore[assignment]

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for m in self.maps:
            x, logdet = m(x, y)
            total = total + logdet
        return x, total

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        for m in reversed(self.maps):
            z = m.inverse(z, y)
        return z

    def warm_up(self, x: Tensor, y: Tensor | None, mean: Mean) -> None:
        for m in self.maps:
            m.warm_up(x, y, mean)
            x = m(x, y)[0]


# ---- pixels ---------------------------------------------------------------------------------------------------------


class Linear(Bijection):
    """Pixels as they are."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(len(x))

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return z


class Logit(Bijection):
    """The logit of a + (1-2a)u, u in [0,1] the pixel: no code gives a value beyond black and white.

    Dinh et al. 2017, section 4.1, with a = 0.05.
    """

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        p = (self.alpha + (1 - 2 * self.alpha) * unit(x)).clamp(_EDGE, 1 - _EDGE)
        z = p.log() - (-p).log1p()
        scale = log((1 - 2 * self.alpha) * _UNIT)
        return z, (F.softplus(z) + F.softplus(-z) + scale).flatten(1).sum(1)

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return from_unit((z.sigmoid() - self.alpha) / (1 - 2 * self.alpha))


class Marginal(Bijection):
    """Each pixel becomes standard normal by itself: the normal quantile of its distribution function.

    Chen and Gopinath 2000, *Gaussianization*, NeurIPS. The distribution function of a channel is linear within each of
    the 256 levels (Müller et al. 2019, arXiv:1808.03856, section 4.2); `warm_up` sets it to that of the first batch,
    and it is learnt on. Where most pixels are black, the even noise of their dequantisation so becomes nearly normal,
    which affine couplings alone cannot do: evenly spread noise is 0.25 bits per pixel from any normal density.

    Args:
        channels: C.
    """

    initialised: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(channels, _LEVELS))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u = _LEVELS * unit(x).clamp(0, 1).transpose(0, 1).flatten(1)  # (C,B·H·W) in [0,256]
        mass, below = self.distribution(u.dtype)
        level = u.detach().long().clamp(0, _LEVELS - 1)
        p = below.gather(1, level) + mass.gather(1, level) * (u - level)
        z = torch.special.ndtri(p.clamp(_EDGE, 1 - _EDGE))
        log_phi = -0.5 * (z.square() + log(2 * torch.pi))
        logdet = mass.log().gather(1, level) - log_phi + log(_LEVELS * _UNIT)
        shape = (x.shape[1], x.shape[0], *x.shape[2:])
        return z.view(shape).transpose(0, 1), logdet.view(shape).transpose(0, 1).flatten(1).sum(1)

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        p = torch.special.ndtr(z.transpose(0, 1).flatten(1).contiguous())  # (C,B·H·W)
        mass, below = self.distribution(p.dtype)
        level = torch.searchsorted(below, p, right=True).sub_(1).clamp_(0, _LEVELS - 1)
        within = ((p - below.gather(1, level)) / mass.gather(1, level)).clamp(0, 1)
        x = from_unit((level + within) / _LEVELS)
        return x.view(z.shape[1], z.shape[0], *z.shape[2:]).transpose(0, 1)

    def distribution(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The probability of each level (C,256), and of all levels below it (C,256)."""
        mass = self.logits.to(dtype).softmax(1)
        return mass, mass.cumsum(1) - mass

    def warm_up(self, x: Tensor, y: Tensor | None, mean: Mean) -> None:
        if bool(self.initialised):
            return
        level = (_LEVELS * unit(x)).long().clamp(0, _LEVELS - 1).transpose(0, 1).flatten(1)  # (C,B·H·W)
        share = torch.full_like(level, 1 / level.shape[1], dtype=torch.float64)
        mass = torch.zeros(self.logits.shape, dtype=torch.float64, device=x.device).scatter_add_(1, level, share)
        self.logits.copy_((mean(mass) + _RAREST).log())
        self.initialised.fill_(True)


def unit(x: Tensor) -> Tensor:
    """Dequantised pixels on [-1-1/255, 1+1/255] to [0,1]."""
    return _UNIT * (x + 1) + 0.5 / _LEVELS


def from_unit(u: Tensor) -> Tensor:
    """The inverse of `unit`."""
    return (u - 0.5 / _LEVELS) / _UNIT - 1


def pixel_map(name: PixelMap, channels: int) -> Bijection:
    """The first map of a flow of images."""
    match name:
        case "linear":
            return Linear()
        case "logit":
            return Logit()
        case "marginal":
            return Marginal(channels)
    raise ValueError(f"unknown map of pixels {name!r}; choose from: linear, logit, marginal")


# ---- layers ---------------------------------------------------------------------------------------------------------


class ActNorm(Bijection):
    """Scale and shift of each channel, which a first batch sets so that its outputs have mean 0 and variance 1.

    Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.1. After that they are parameters like any other. The first
    batch is the one that `warm_up` gets; `forward` and `inverse` never set anything, and a map that was set, also one
    loaded from a checkpoint, is not set again.

    Args:
        channels: C.
    """

    initialised: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pixels = x.shape[2] * x.shape[3]
        return x * self.log_scale.exp() + self.shift, (pixels * self.log_scale.sum()).expand(len(x))

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (z - self.shift) * (-self.log_scale).exp()

    def warm_up(self, x: Tensor, y: Tensor | None, mean: Mean) -> None:
        if bool(self.initialised):
            return
        x = x.double()
        first, second = mean(torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))]))  # (C,) each
        # A channel that hardly varies in the first batch may vary later, so its scale has a bound.
        std = (second - first.square()).clamp_min(0).sqrt().clamp_min(_LEAST_STD)[:, None, None]
        self.log_scale.copy_(-std.log())
        self.shift.copy_(-first[:, None, None] / std)
        self.initialised.fill_(True)


class InvertibleConv(Bijection):
    """A 1×1 convolution with the weight P L (U + diag(s)): a learnt permutation of channels.

    Kingma and Dhariwal 2018, section 3.2, eq. 10 and 11. It begins as a random rotation. P is fixed, L and U are
    triangular, so log|det| = H·W·Σ log|s|, and the inverse solves two triangular systems, which is more exact than the
    inverse of a matrix.

    Args:
        channels: C.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation, _ = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))
        p, lower, upper = torch.linalg.lu(rotation)
        self.register_buffer("permutation", p.argmax(1))  # row i of P has its 1 there
        self.lower = nn.Parameter(lower.tril(-1).float())
        self.upper = nn.Parameter(upper.triu(1).float())
        self.register_buffer("sign", upper.diagonal().sign().float())
        self.log_s = nn.Parameter(upper.diagonal().abs().log().float())

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper = self.factors()
        weight = (lower @ upper)[self.permutation].to(x.dtype)
        with exact(x):
            z = F.conv2d(x, weight[:, :, None, None])
        return z, (x.shape[2] * x.shape[3] * self.log_s.sum()).to(x.dtype).expand(len(x))

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        lower, upper = (m.to(z.dtype) for m in self.factors())
        b = z.transpose(0, 1).flatten(1)[self.permutation.argsort()]  # (C,B·H·W)
        with exact(z):
            b = torch.linalg.solve_triangular(lower, b, upper=False, unitriangular=True)
            x = torch.linalg.solve_triangular(upper, b, upper=True)
        return x.view(z.shape[1], len(z), *z.shape[2:]).transpose(0, 1)

    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U (C,C)."""
        eye = torch.eye(len(self.log_s), dtype=self.lower.dtype, device=self.lower.device)
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_s.exp())
        return self.lower.tril(-1) + eye, upper


class ClassBias(nn.Module):
    """A learnt vector for each class, 0 at first, that is added to the channels of a map.

    Args:
        classes: number of classes; with 0 the map passes unchanged.
        channels: channels of the map.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.classes = classes
        if classes:
            self.embed = labels.Embedding(classes, channels)
            nn.init.zeros_(self.embed.weight)

    def forward(self, h: Tensor, y: Tensor | None) -> Tensor:
        """Maps (B,C,H,W) of maps and classes (B,)."""
        if not self.classes:
            return h
        return h + self.embed(y)[:, :, None, None]


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with weights and biases of 0, so that the map around it begins as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class SplitPrior(nn.Module):
    """Subtracts the mean and divides by the deviation that a convolution expects of x, given the rest of the data.

    A flow of several scales takes half of the channels out after each scale (Dinh et al. 2017, section 3.6), with a
    normal density that depends on those that stay, as in the code of Kingma and Dhariwal 2018. As an affine map inside
    the flow it leaves N(0, I) as the base: codes, walks between them and temperatures need not know of scales.

    Args:
        inputs: channels of the part that is given.
        channels: channels of x.
        classes: number of classes; 0 without.
    """

    def __init__(self, inputs: int, channels: int, classes: int = 0) -> None:
        super().__init__()
        self.conv = zero(nn.Conv2d(inputs, 2 * channels, 3, padding=1))
        self.bias = ClassBias(classes, 2 * channels)

    def moments(self, given: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log deviation (B,C,H,W) of x."""
        mean, log_std = self.bias(self.conv(given), y).to(given.dtype).chunk(2, 1)
        return mean, bounded(log_std)

    def standardised(self, x: Tensor, given: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """The pixels x as noise, and log|det| (B,)."""
        mean, log_std = self.moments(given, y)
        return (x - mean) * (-log_std).exp(), -log_std.flatten(1).sum(1)

    def restored(self, z: Tensor, given: Tensor, y: Tensor | None) -> Tensor:
        """The inverse of `standardised`."""
        mean, log_std = self.moments(given, y)
        return z * log_std.exp() + mean


def bounded(h: Tensor, a: float = 4.0) -> Tensor:
    """a·tanh(h/a): about h near 0, within ±a, so that no exponential of it overflows."""
    return a * torch.tanh(h / a)


def without_ranks(mean: Mean | None) -> Mean:
    """The average over ranks, or none with a single one."""
    return mean if mean is not None else lambda x: x


def prepared(flow: protocols.Flow, x: Tensor) -> Tensor:
    """Data of a flow, checked to have its shape."""
    shape: tuple[int, int, int] = flow.shape  # type: ignore[assignment]
    if tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(f"this flow maps samples of the shape {tuple(shape)}, got {tuple(x.shape[1:])}")
    return flow_input(x)
