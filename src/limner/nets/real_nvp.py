"""The nets of RealNVP: affine couplings of masked images, at several scales, and of points.

Dinh, Sohl-Dickstein and Bengio 2017, *Density estimation using real NVP*, arXiv:1605.08803. A coupling keeps the
entries where a mask b is 1, and they give scale and shift of the others (eq. 9):

    y = b·x + (1-b)·(x·exp(s(b·x)) + t(b·x)),   log|det dy/dx| = Σ (1-b)·s(b·x)

Departures: the scale is bounded by a fixed ±a, s = a·tanh(h/a), where the paper learns a factor of tanh; no batch norm,
neither inside s and t nor between couplings, because densities then depend on the rest of a batch in training and on
running statistics in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.nets import protocols
from limner.nets._flow import (
    ActNorm,
    Bijection,
    Chain,
    ClassBias,
    Mean,
    PixelMap,
    bounded,
    check_halvings,
    pixel_map,
    prepared,
    squeeze,
    without_ranks,
    zero,
)
from limner.nets._labels import append_vectors, one_hot_size

_BOUND = 2.0  # a: one coupling scales by e^±2 at most


class Flow(protocols.Flow):
    """Images (B,C,H,W) <-> base z (B,C·H·W).

    Each scale has three couplings with checkerboard masks, then 2×2 squares become channels, three couplings with
    masks of channels follow, and half of the channels are done (section 3.6). The last scale has four checkerboard
    couplings.

    Args:
        width: channels inside a coupling at the first scale; they double at each scale. Raise it for a better
            likelihood; lower it for speed.
        blocks: residual blocks inside a coupling. Raise it for a better likelihood; lower it for speed.
        levels: scales; all but the last halve the sides, so 28 px allow 3, and 64 px 7. Raise it for large images.
        pixels: the first map. "logit" bends pixels so that no sample is beyond black and white, as in the paper;
            "linear" takes them as they are; "marginal" makes each pixel normal by its own distribution function, which
            is learnt: for images with much black or white, such as digits.
        conditional: whether the class of each image is an input too. Needs labelled data.
        shape: (C,H,W) of an image; filled from the data.
        classes: number of classes; filled from the data.
    """

    def __init__(
        self,
        width: int = 32,
        blocks: int = 2,
        levels: int = 2,
        pixels: PixelMap = "logit",
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__()
        if min(width, levels) < 1 or blocks < 0:
            raise ValueError(f"width and levels must be at least 1, blocks 0, got {width}, {levels} and {blocks}")
        check_halvings(shape, levels - 1, "real_nvp.Flow")
        self.shape, self.classes = tuple(shape), one_hot_size(conditional, classes)
        c, h, w = shape
        self.pixels = pixel_map(pixels, c)
        checkers, channels = [], []
        self.part_shapes: list[tuple[int, int, int]] = []
        for level in range(levels):
            last = level == levels - 1
            boards = [_checkerboard(h, w, k % 2) for k in range(4 if last else 3)]
            checkers.append(_couplings(boards, c, width, blocks, self.classes))
            if not last:
                c, h, w = 4 * c, h // 2, w // 2
                halves = [_channel_mask(c, k % 2) for k in range(3)]
                channels.append(_couplings(halves, c, 2 * width, blocks, self.classes))
                c, width = c // 2, 2 * width
            self.part_shapes.append((c, h, w))
        self.checkers: Sequence[Chain] = nn.ModuleList(checkers)  # type: ignore[assignment]
        self.channels: Sequence[Chain] = nn.ModuleList(channels)  # type: ignore[assignment]

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Base points z (B,D) of images (B,C,H,W), and log|det dz/dx| (B,) in nats."""
        x, logdet = self.pixels(prepared(self, x))
        parts = []
        for checkers, channels in zip(self.checkers, [*self.channels, None]):
            x, d = checkers(x, y)
            logdet = logdet + d
            if channels is not None:
                x, d = channels(squeeze(x), y)
                x, part = x.chunk(2, 1)
                parts.append(part.flatten(1))
                logdet = logdet + d
        return torch.cat([*parts, x.flatten(1)], 1), logdet

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        parts = z.split([prod(s) for s in self.part_shapes], 1)
        *rest, x = (part.unflatten(1, s) for part, s in zip(parts, self.part_shapes))
        for checkers, channels in zip(reversed(self.checkers), [None, *reversed(self.channels)]):
            if channels is not None:
                x = F.pixel_shuffle(channels.inverse(torch.cat([x, rest.pop()], 1), y), 2)
            x = checkers.inverse(x, y)
        return self.pixels.inverse(x)

    @torch.no_grad()
    def warm_up(self, x: Tensor, y: Tensor | None = None, mean: Mean | None = None) -> None:
        """Sets the map of pixels, if it depends on data, from a batch x (B,C,H,W)."""
        self.pixels.warm_up(prepared(self, x), y, without_ranks(mean))


class PointFlow(protocols.Flow):
    """Points (B,D,1,1) <-> base z (B,D), D at least 2: couplings whose masks keep every other coordinate.

    Args:
        couplings: number of couplings, of which every other one changes the same coordinates. Raise it for a sharper
            density; lower it for speed.
        widths: units of the hidden layers inside a coupling. Raise them for a sharper density; lower them for speed.
        conditional: whether the class of each point is an input too. Needs labelled data.
        shape: (D,1,1) of a point; filled from the data.
        classes: number of classes; filled from the data.
    """

    def __init__(
        self,
        couplings: int = 8,
        widths: tuple[int, ...] = (64, 64),
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__()
        if tuple(shape[1:]) != (1, 1):
            h, w = shape[1:]
            raise ValueError(f"these data are images of {h}×{w}, not points; use real_nvp.Flow or glow.Flow")
        if shape[0] < 2:
            raise ValueError("a coupling needs points of at least 2 numbers, and these have 1; use data=ring, say")
        if couplings < 1:
            raise ValueError(f"a flow needs at least 1 coupling, got {couplings}")
        d = shape[0]
        self.shape, self.classes = tuple(shape), one_hot_size(conditional, classes)
        masks = [_channel_mask(d, k % 2, alternate=True) for k in range(couplings)]
        self.maps = Chain([ActNorm(d), *(_Coupling(mask, _PointNet(d, widths, self.classes)) for mask in masks)])

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Base points z (B,D) of points (B,D,1,1), and log|det dz/dx| (B,) in nats."""
        z, logdet = self.maps(prepared(self, x), y)
        return z.flatten(1), logdet

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.maps.inverse(z[:, :, None, None], y)

    @torch.no_grad()
    def warm_up(self, x: Tensor, y: Tensor | None = None, mean: Mean | None = None) -> None:
        """Sets mean and scale of the coordinates from a batch x (B,D,1,1)."""
        self.maps.warm_up(prepared(self, x), y, without_ranks(mean))


class _Coupling(Bijection):
    """An affine coupling with a mask (1,C,H,W) of ones and zeros, or a shape that is broadcast to it (eq. 9).

    Args:
        mask: b; entries with 1 are kept.
        net: from masked data (B,C,H,W) and classes to 2C channels, scale and shift.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, net: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        self.net = net

    def scale_and_shift(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log scale and shift (B,C,H,W), 0 where the mask is 1."""
        h, t = self.net(self.mask * x, y).to(x.dtype).chunk(2, 1)
        return (1 - self.mask) * bounded(h, _BOUND), (1 - self.mask) * t

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s, t = self.scale_and_shift(x, y)
        return x * s.exp() + t, s.flatten(1).sum(1)

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        s, t = self.scale_and_shift(z, y)  # the masked entries of z are those of x
        return (z - t) * (-s).exp()


def _couplings(masks: list[Tensor], channels: int, width: int, blocks: int, classes: int) -> Chain:
    """One coupling for each mask."""
    return Chain(_Coupling(mask, _ResidualNet(channels, width, blocks, classes)) for mask in masks)


def _checkerboard(h: int, w: int, first: int) -> Tensor:
    """The mask (1,1,h,w) of a checkerboard, whose upper left entry is `first`."""
    return ((torch.arange(h)[:, None] + torch.arange(w) + first) % 2).float()[None, None]


def _channel_mask(channels: int, half: int, alternate: bool = False) -> Tensor:
    """The mask (1,channels,1,1) of the first (0) or second (1) half of the channels, or of every other channel."""
    k = torch.arange(channels)
    is_first = k % 2 == 0 if alternate else k < channels // 2
    return (is_first if half == 0 else ~is_first).float()[None, :, None, None]


class _ResidualNet(nn.Module):
    """s and t of a map: residual blocks between two 3×3 convolutions, the last of which begins with zeros."""

    def __init__(self, channels: int, width: int, blocks: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.bias = ClassBias(classes, width)
        self.blocks = nn.ModuleList(_ResidualBlock(width) for _ in range(blocks))
        self.last = zero(nn.Conv2d(width, 2 * channels, 3, padding=1))

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Maps (B,2C,H,W) of maps (B,C,H,W) and classes (B,)."""
        h = self.bias(self.first(x), y)
        for block in self.blocks:
            h = block(h)
        return self.last(F.relu(h))


class _ResidualBlock(nn.Module):
    """h + conv(relu(conv(relu(h)))) with kernels of 3×3 and 1×1 (He et al. 2016, arXiv:1603.05027)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.second(F.relu(self.first(F.relu(h))))


class _PointNet(nn.Module):
    """s and t of a point: a perceptron whose last layer begins with zeros."""

    def __init__(self, d: int, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.classes = classes
        sizes = (d + classes, *widths)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.last = nn.Linear(sizes[-1], 2 * d)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Numbers (B,2D,1,1) of points (B,D,1,1) and classes (B,)."""
        h = append_vectors(x.flatten(1), y, self.classes)
        for layer in self.hidden:
            h = F.silu(layer(h))
        return self.last(h)[:, :, None, None]
