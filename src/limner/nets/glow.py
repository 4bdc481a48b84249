"""The net of Glow: steps of activation norm, invertible 1×1 convolution and affine coupling, at several scales.

Kingma and Dhariwal 2018, *Glow: generative flow with invertible 1×1 convolutions*, arXiv:1807.03039, figure 2 and
table 1.

    x -> pixels -> [ squeeze, K steps, split ] x (L-1) -> squeeze, K steps -> z

Departures: the normal densities of the parts that are split off are affine maps inside the flow, so that the base is
N(0, I); pixels may first be made normal one by one (``pixels: marginal``); the scale of a coupling is bounded from
below, too; the hidden layers of a coupling have no activation norm.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    InvertibleConv,
    Mean,
    PixelMap,
    SplitPrior,
    bounded,
    check_halvings,
    pixel_map,
    prepared,
    squeeze,
    without_ranks,
    zero,
)
from limner.nets._labels import one_hot_size


class Flow(protocols.Flow):
    """Images (B,C,H,W) <-> base z (B,C·H·W).

    Args:
        width: channels inside a coupling; 512 in the paper. Raise it for a better likelihood; lower it for speed.
        steps: K, steps of flow at each scale; 32 in the paper. Raise it for a better likelihood; lower it for speed and
            memory.
        levels: L, scales; each halves the sides, so 28 px allow 2, and 64 px 6. Raise it for large images.
        pixels: the first map. "linear" takes pixels as they are, as in the paper; "logit" bends them so that no sample
            is beyond black and white; "marginal" makes each pixel normal by its own distribution function, which is
            learnt: for images with much black or white, such as digits.
        conditional: whether the class of each image is an input too. Needs labelled data.
        shape: (C,H,W) of an image; filled from the data.
        classes: number of classes; filled from the data.
    """

    def __init__(
        self,
        width: int = 128,
        steps: int = 8,
        levels: int = 2,
        pixels: PixelMap = "linear",
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__()
        if min(width, steps, levels) < 1:
            raise ValueError(f"width, steps and levels must be at least 1, got {width}, {steps} and {levels}")
        check_halvings(shape, levels, "glow.Flow")
        self.shape, self.classes = tuple(shape), one_hot_size(conditional, classes)
        c, h, w = shape
        self.pixels = pixel_map(pixels, c)
        scales, priors = [], []
        self.part_shapes: list[tuple[int, int, int]] = []
        for level in range(levels):
            c, h, w = 4 * c, h // 2, w // 2
            scales.append(Chain(self.step(c, width) for _ in range(steps)))
            if level < levels - 1:
                c //= 2
                priors.append(SplitPrior(c, c, self.classes))
            self.part_shapes.append((c, h, w))
        self.scales: Sequence[Chain] = nn.ModuleList(scales)  # type: ignore[assignment]
        self.priors: Sequence[SplitPrior] = nn.ModuleList(priors)  # type: ignore[assignment]
        self.top = _ClassAffine(c, self.classes)

    def step(self, channels: int, width: int) -> Chain:
        """One step of flow (figure 2a)."""
        return Chain([ActNorm(channels), InvertibleConv(channels), self.coupling(channels, width)])

    def coupling(self, channels: int, width: int) -> Bijection:
        """The coupling of a step."""
        return _AffineCoupling(channels, width, self.classes)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Base points z (B,D) of images (B,C,H,W), and log|det dz/dx| (B,) in nats."""
        x, logdet = self.pixels(prepared(self, x))
        parts = []
        for scale, prior in zip(self.scales, [*self.priors, None]):
            x, d = scale(squeeze(x), y)
            logdet = logdet + d
            if prior is not None:
                x, part = x.chunk(2, 1)
                part, d = prior.standardised(part, x, y)
                parts.append(part.flatten(1))
                logdet = logdet + d
        x, d = self.top(x, y)
        return torch.cat([*parts, x.flatten(1)], 1), logdet + d

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        parts = z.split([prod(s) for s in self.part_shapes], 1)
        *rest, x = (part.unflatten(1, s) for part, s in zip(parts, self.part_shapes))
        x = self.top.inverse(x, y)
        for scale, prior in zip(reversed(self.scales), [None, *reversed(self.priors)]):
            if prior is not None:
                x = torch.cat([x, prior.restored(rest.pop(), x, y)], 1)
            x = F.pixel_shuffle(scale.inverse(x, y), 2)
        return self.pixels.inverse(x)

    @torch.no_grad()
    def warm_up(self, x: Tensor, y: Tensor | None = None, mean: Mean | None = None) -> None:
        """Sets each activation norm, and the map of pixels, from a batch x (B,C,H,W), one after the other."""
        mean, x = without_ranks(mean), prepared(self, x)
        self.pixels.warm_up(x, y, mean)
        x = self.pixels(x)[0]
        for scale in self.scales:
            x = squeeze(x)
            scale.warm_up(x, y, mean)
            x = scale(x, y)[0].chunk(2, 1)[0]  # the half that stays; of no matter after the last scale


class _AffineCoupling(Bijection):
    """Half of the channels give scale and shift of the others: (b + t) · sigmoid(h + 2) (table 1).

    The scale is below 1, so that no product of many grows without bound, and by the bound of h above 0.1, so that none
    of their inverses does. The last convolution begins with zeros.
    """

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels // 2, width, 3, padding=1)
        self.bias = ClassBias(classes, width)
        self.second = nn.Conv2d(width, width, 1)
        self.last = zero(nn.Conv2d(width, channels, 3, padding=1))
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.constant_(layer.get_parameter("bias"), 0.0)

    def scale_and_shift(self, a: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log scale and shift (B,C/2,H,W) of the other half."""
        h = F.relu(self.bias(self.first(a), y), inplace=True)
        h, t = self.last(F.relu(self.second(h), inplace=True)).to(a.dtype).chunk(2, 1)
        return F.logsigmoid(bounded(h) + 2), t

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, 1)
        log_s, t = self.scale_and_shift(a, y)
        return torch.cat([a, (b + t) * log_s.exp()], 1), log_s.flatten(1).sum(1)

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        a, b = z.chunk(2, 1)
        log_s, t = self.scale_and_shift(a, y)
        return torch.cat([a, b * (-log_s).exp() - t], 1)


class _ClassAffine(Bijection):
    """Scale and shift of each channel, with a part for each class: the learnt density of the last scale."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.bias = ClassBias(classes, 2 * channels)

    def parameters_of(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log scale and shift (B,C,1,1)."""
        both = torch.cat([self.log_scale, self.shift]).expand(len(x), -1, 1, 1)
        log_scale, shift = self.bias(both, y).chunk(2, 1)
        return log_scale, shift

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self.parameters_of(x, y)
        pixels = x.shape[2] * x.shape[3]
        return x * log_scale.exp() + shift, pixels * log_scale.flatten(1).sum(1)

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        log_scale, shift = self.parameters_of(z, y)
        return (z - shift) * (-log_scale).exp()
