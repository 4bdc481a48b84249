"""Neural spline flows: monotone rational-quadratic splines whose knots are the output of a net.

Durkan, Bekasov, Murray and Papamakarios 2019 (arXiv 1906.04032). A spline with K bins maps [-B,B] onto itself, and is
the identity outside (linear tails). Between two knots it is a quotient of quadratics, which is inverted in closed form.

`Coupling` is the paper's RQ-NSF (C), where one half of the numbers decides on the knots of the other; `Autoregressive`
is RQ-NSF (AR), where the numbers before it decide on the knots of each. The steps of both are: a linear map with an LU
decomposition, after a reversal of the order, and then a layer of splines. Both standardise the data first, as the paper
does, by the moments of the batch that `warm_up` gets. `Images` is RQ-NSF (C) of images, which is Glow with other
couplings.

Departures: the conditioners are plain nets instead of residual ones, and the last step is followed by no linear map.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import expm1, log, prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.nets import _labels as labels
from limner.nets import glow, protocols
from limner.nets._flow import Bijection, ClassBias, PixelMap, check_halvings, zero
from limner.nets._layers import Activation, activation

_LEAST_BIN = 1e-3  # smallest width and height of a bin, as a share of [-B,B]
_LEAST_SLOPE = 1e-3


class Knots(NamedTuple):
    """The knots of a spline: positions x and values y, both ascending, and slopes at them, each (…,K+1)."""

    x: Tensor
    y: Tensor
    slopes: Tensor


def knots(raw: Tensor, bound: float) -> Knots:
    """Knots of K bins on [-bound,bound] from any numbers (…,3K-1); zeros give the identity (section 3.1).

    The first K numbers are widths and the next K heights, through a softmax; the others are the inner slopes, through a
    softplus. The slopes at both ends are 1, so that the tails join smoothly.
    """
    raw = raw if raw.dtype == torch.float64 else raw.float()
    k = (raw.shape[-1] + 1) // 3
    widths, heights, slopes = raw.split([k, k, k - 1], -1)
    x, y = (F.pad(_ascending(part), (1, 0)) for part in (widths, heights))
    at_zero = log(expm1(1 - _LEAST_SLOPE))  # softplus(at_zero) = 1 - least slope
    inner = _LEAST_SLOPE + F.softplus(slopes + at_zero)
    return Knots(bound * (2 * x - 1), bound * (2 * y - 1), F.pad(inner, (1, 1), value=1.0))


def _ascending(raw: Tensor) -> Tensor:
    """Right ends (…,K) of K bins that fill [0,1]; the last is 1 exactly."""
    k = raw.shape[-1]
    ends = (_LEAST_BIN + (1 - _LEAST_BIN * k) * raw.softmax(-1)).cumsum(-1)
    return torch.cat([ends[..., :-1], torch.ones_like(ends[..., :1])], -1)


def rational_quadratic(x: Tensor, knots: Knots, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Values of the spline, or of its inverse, at x (…), and the log of their derivatives, both (…).

    Gregory and Delbourgo 1982; eq. 4 and 5 of the paper, and eq. 6 to 8 for the inverse. Outside the knots the spline
    is the identity.
    """
    ends = knots.y if inverse else knots.x
    inside = (x >= ends[..., 0]) & (x <= ends[..., -1])
    u = torch.where(inside, x, ends[..., 0])  # elsewhere any point will do, whose gradients are finite
    bin_ = (u[..., None] >= ends[..., 1:-1]).sum(-1, keepdim=True)
    left, right = (Knots(*(part.gather(-1, bin_ + i).squeeze(-1) for part in knots)) for i in (0, 1))
    width, height = right.x - left.x, right.y - left.y
    s = height / width
    bend = right.slopes + left.slopes - 2 * s
    if inverse:
        rise = u - left.y
        a = height * (s - left.slopes) + rise * bend
        b = height * left.slopes - rise * bend
        c = -s * rise
        root = (b.square() - 4 * a * c).clamp_min(0).sqrt()  # rounding makes it negative near the knots
        xi = (2 * c / (-b - root)).clamp(0, 1)
    else:
        xi = (u - left.x) / width
    both = xi * (1 - xi)
    below = s + bend * both
    value = xi * width + left.x if inverse else left.y + height * (s * xi.square() + left.slopes * both) / below
    slope = s.square() * (right.slopes * xi.square() + 2 * s * both + left.slopes * (1 - xi).square())
    log_slope = slope.log() - 2 * below.log()
    log_slope = -log_slope if inverse else log_slope
    return torch.where(inside, value, x), torch.where(inside, log_slope, 0.0)


class _SplineFlow(protocols.Flow):
    """Standardisation, and then steps of a linear map and a layer of splines."""

    mean: Tensor
    std: Tensor
    initialised: Tensor

    def __init__(self, shape: tuple[int, int, int], classes: int, layers: list[nn.Module]) -> None:
        super().__init__()
        self.shape, self.classes, d = tuple(shape), classes, prod(shape)
        self.linear = nn.ModuleList(_LULinear(d) for _ in layers)
        self.splines = nn.ModuleList(layers)
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("std", torch.ones(d))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Base points (B,D) of data x (B,C,H,W), and log|det| (B,)."""
        h = (x.flatten(1) - self.mean) / self.std
        h = h if h.dtype == torch.float64 else h.float()
        log_det = -self.std.to(h.dtype).log().sum().expand(len(h))
        for linear, spline in zip(self.linear, self.splines, strict=True):
            h, change = linear(h)
            log_det = log_det + change
            h, change = spline(h, y)
            log_det = log_det + change
        return h, log_det

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Data (B,C,H,W) of base points z (B,D)."""
        for linear, spline in zip(reversed(self.linear), reversed(self.splines), strict=True):
            z = linear.inverse(spline.inverse(z, y))  # type: ignore[operator]
        return (z * self.std + self.mean).unflatten(1, self.shape)

    @torch.no_grad()
    def warm_up(self, x: Tensor, y: Tensor | None = None, mean: Callable[[Tensor], Tensor] | None = None) -> None:
        """Takes mean and standard deviation of every number from a batch (B,C,H,W), once.

        A number that hardly varies, such as a pixel of the border, counts as varying by a twentieth of the largest
        standard deviation.
        """
        if bool(self.initialised):
            return
        flat = x.flatten(1).double()
        moments = torch.stack([flat.mean(0), flat.square().mean(0)])  # (2,D)
        moments = moments if mean is None else mean(moments)
        std = (moments[1] - moments[0].square()).clamp_min(0).sqrt()
        self.mean.copy_(moments[0])
        self.std.copy_(std.clamp_min(std.max().clamp_min(1e-6) / 20))
        self.initialised.fill_(True)


class Coupling(_SplineFlow):
    """Points or small images with coupling layers of splines, RQ-NSF (C).

    A layer passes the first half of the numbers on, and a net of them gives the knots of the second half.

    Args:
        steps: steps of a linear map and a layer of splines. Raise it if the density has bridges between modes; lower it
            for speed.
        bins: K, bins of a spline. Raise it for sharper edges; lower it if held-out data are much less likely than
            training data.
        bound: B, half the side of the box in which splines act, in standard deviations of the data. Raise it if the
            data have far outliers.
        widths: units of the hidden layers of each conditioner. Raise them if the training loss stays high; lower them
            for speed.
        activation: activation of each hidden layer.
        conditional: whether the class of each image decides on the knots too. Needs labelled data.
        shape: (C,H,W) of an image; filled from the data.
        classes: number of classes; filled from the data.
    """

    def __init__(
        self,
        steps: int = 4,
        bins: int = 8,
        bound: float = 3.0,
        widths: tuple[int, ...] = (64, 64),
        activation: Activation = "relu",
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        _check(steps, bins, bound, widths)
        d, size = prod(shape), labels.one_hot_size(conditional, classes)
        super().__init__(shape, size, [_Coupling(d, bins, bound, widths, activation, size) for _ in range(steps)])


class _Coupling(nn.Module):
    """Splines on the second half of the numbers, with knots from the first half."""

    def __init__(self, d: int, bins: int, bound: float, widths: tuple[int, ...], act: Activation, classes: int) -> None:
        super().__init__()
        self.kept, self.bins, self.bound, self.classes = d // 2, bins, bound, classes
        inputs = max(1, self.kept + classes)  # a net of a single number gets a constant
        self.net = nn.Sequential()
        for a, b in pairwise((inputs, *widths)):
            self.net.extend([nn.Linear(a, b), activation(act)])
        head = nn.Linear((inputs, *widths)[-1], (d - self.kept) * (3 * bins - 1))
        self.net.append(_start_at_zero(head))

    def forward(self, x: Tensor, y: Tensor | None, inverse: bool = False) -> tuple[Tensor, Tensor]:
        kept, changed = x[:, : self.kept], x[:, self.kept :]
        inputs = labels.append_vectors(kept, y, self.classes)
        raw = self.net(inputs if inputs.shape[1] else changed.new_zeros(len(x), 1))
        changed, log_slopes = rational_quadratic(
            changed, knots(raw.unflatten(1, (-1, 3 * self.bins - 1)), self.bound), inverse
        )
        return torch.cat([kept, changed], 1), log_slopes.sum(1)

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        return self(z, y, inverse=True)[0]


class Images(glow.Flow):
    """Images (B,C,H,W) <-> base z (B,C·H·W): the scales and steps of Glow, with splines as couplings (section 5.3).

    Args:
        width: channels inside a coupling. Raise it for a better likelihood; lower it for speed.
        steps: steps of flow at each scale. Raise it for a better likelihood; lower it for speed and memory.
        levels: scales; each halves the sides, so 28 px allow 2, and 64 px 6. Raise it for large images.
        bins: K, bins of a spline. Raise it for sharper edges; lower it for speed and memory.
        bound: B, half the side of the box in which splines act; what a coupling changes has a standard deviation of
            about 1. Raise it if the likelihood stays poor with pixels: linear.
        pixels: the first map. "linear" takes pixels as they are; "logit" bends them so that no sample is beyond black
            and white; "marginal" makes each pixel normal by its own distribution function, which is learnt:
            for images with much black or white, such as digits.
        conditional: whether the class of each image is an input too. Needs labelled data.
        shape: (C,H,W) of an image; filled from the data.
        classes: number of classes; filled from the data.
    """

    def __init__(
        self,
        width: int = 64,
        steps: int = 6,
        levels: int = 2,
        bins: int = 4,
        bound: float = 3.0,
        pixels: PixelMap = "linear",
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        _check(steps, bins, bound, (width,))
        check_halvings(shape, levels, "spline.Images")
        self.bins, self.bound = bins, bound  # before the couplings, which need them
        super().__init__(width, steps, levels, pixels, conditional, shape=shape, classes=classes)

    def coupling(self, channels: int, width: int) -> Bijection:
        return _MapCoupling(channels, width, self.bins, self.bound, self.classes)


class _MapCoupling(Bijection):
    """Half of the channels of a map give the knots of the splines that change the others."""

    def __init__(self, channels: int, width: int, bins: int, bound: float, classes: int) -> None:
        super().__init__()
        self.raw, self.bound = 3 * bins - 1, bound
        self.first = nn.Conv2d(channels // 2, width, 3, padding=1)
        self.bias = ClassBias(classes, width)
        self.second = nn.Conv2d(width, width, 1)
        self.last = zero(nn.Conv2d(width, (channels - channels // 2) * self.raw, 3, padding=1))

    def _knots(self, a: Tensor, y: Tensor | None) -> Knots:
        h = F.relu(self.bias(self.first(a), y))
        raw = self.last(F.relu(self.second(h))).unflatten(1, (-1, self.raw))  # (B,C/2,3K-1,H,W)
        return knots(raw.movedim(2, -1).to(a.dtype), self.bound)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, 1)
        b, log_slopes = rational_quadratic(b, self._knots(a, y))
        return torch.cat([a, b], 1), log_slopes.flatten(1).sum(1)

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        a, b = z.chunk(2, 1)
        return torch.cat([a, rational_quadratic(b, self._knots(a, y), inverse=True)[0]], 1)


class Autoregressive(_SplineFlow):
    """Points or small images with autoregressive layers of splines, RQ-NSF (AR).

    In a layer the numbers before it give the knots of each number, in one pass through a masked net (MADE; Germain et
    al. 2015, arXiv:1502.03509). All numbers change in each layer, so fewer steps suffice. Sampling needs a pass for
    each number: it is fast for points and slow for images.

    Args:
        steps: steps of a linear map and a layer of splines. Raise it if the density has bridges between modes; lower it
            for speed.
        bins: K, bins of a spline. Raise it for sharper edges; lower it if held-out data are much less likely than
            training data.
        bound: B, half the side of the box in which splines act, in standard deviations of the data. Raise it if the
            data have far outliers.
        widths: units of the hidden layers of each masked net. Raise them if the training loss stays high; lower them
            for speed.
        activation: activation of each hidden layer.
        conditional: whether the class of each image decides on the knots too. Needs labelled data.
        shape: (C,H,W) of an image; filled from the data.
        classes: number of classes; filled from the data.
    """

    def __init__(
        self,
        steps: int = 3,
        bins: int = 8,
        bound: float = 3.0,
        widths: tuple[int, ...] = (64, 64),
        activation: Activation = "relu",
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        _check(steps, bins, bound, widths)
        d, size = prod(shape), labels.one_hot_size(conditional, classes)
        super().__init__(shape, size, [_Autoregressive(d, bins, bound, widths, activation, size) for _ in range(steps)])


class _Autoregressive(nn.Module):
    """Splines on all numbers, with knots from the numbers before."""

    def __init__(self, d: int, bins: int, bound: float, widths: tuple[int, ...], act: Activation, classes: int) -> None:
        super().__init__()
        self.d, self.bins, self.bound, self.classes = d, bins, bound, classes
        # A unit of rank r sees the first r numbers; the class has rank 0, and the knots of number i see rank i.
        ranks = torch.cat([torch.arange(1, d + 1), torch.zeros(classes, dtype=torch.int64)])
        self.net = nn.Sequential()
        for width in widths:
            next_ranks = torch.arange(width) * d // width
            self.net.extend([_MaskedLinear(next_ranks[:, None] >= ranks), activation(act)])
            ranks = next_ranks
        outputs = torch.arange(d).repeat_interleave(3 * bins - 1)
        self.net.append(_start_at_zero(_MaskedLinear(outputs[:, None] >= ranks)))

    def forward(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_slopes = rational_quadratic(x, self._knots(x, y))
        return z, log_slopes.sum(1)

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        x = z
        for _ in range(self.d):  # after i passes the first i numbers are right
            x, _ = rational_quadratic(z, self._knots(x, y), inverse=True)
        return x

    def _knots(self, x: Tensor, y: Tensor | None) -> Knots:
        raw = self.net(labels.append_vectors(x, y, self.classes))
        return knots(raw.unflatten(1, (self.d, -1)), self.bound)


class _MaskedLinear(nn.Linear):
    """A linear layer some of whose weights are 0: those where `mask` (outputs,inputs) is False."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class _LULinear(nn.Module):
    """A reversal of the order and then an invertible linear map x -> L U x + b (B,D), at first the reversal alone.

    L is lower triangular with ones on its diagonal, and U upper triangular with a positive one, so that the log of the
    determinant is the sum of the logs on U's diagonal (Oliva et al. 2018, arXiv:1801.09819; section 4.1 of the paper).
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        self.off_diagonal = nn.Parameter(torch.zeros(d, d))  # below it those of L, above it those of U
        self.log_diagonal = nn.Parameter(torch.zeros(d))
        self.bias = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mapped points (B,D), and log|det| ()."""
        lower, upper = self._factors()
        with torch.autocast(x.device.type, enabled=False):
            return x.flip(1) @ (lower @ upper).T + self.bias, self.log_diagonal.sum()

    def inverse(self, z: Tensor) -> Tensor:
        """The inverse of `forward`, (B,D), by substitution."""
        lower, upper = self._factors()
        x = torch.linalg.solve_triangular(lower, (z - self.bias).T, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, x, upper=True).T.flip(1)

    def _factors(self) -> tuple[Tensor, Tensor]:
        identity = torch.eye(len(self.bias), dtype=self.bias.dtype, device=self.bias.device)
        return identity + self.off_diagonal.tril(-1), self.log_diagonal.exp().diag() + self.off_diagonal.triu(1)


def _start_at_zero(layer: nn.Linear) -> nn.Linear:
    """The layer with weights and biases of zero, with which a layer of splines begins as the identity."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _check(steps: int, bins: int, bound: float, widths: tuple[int, ...]) -> None:
    """Raises a `ValueError` for numbers with which there is no spline flow."""
    if steps < 1 or bins < 2 or bins * _LEAST_BIN >= 1 or bound <= 0 or min(widths, default=1) < 1:
        raise ValueError(
            f"a spline flow needs steps of 1 or more, bins from 2 to {round(1 / _LEAST_BIN) - 1}, a positive bound and"
            f" positive widths; got steps={steps}, bins={bins}, bound={bound:g}, widths={list(widths)}"
        )
