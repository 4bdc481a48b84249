"""The nets of R3GAN: a ResNeXt without normalisation as generator, and its mirror as discriminator.

Huang, Gokaslan, Kuleshov and Tompkin 2024, *The GAN is dead; long live the GAN! A modern baseline GAN*,
arXiv:2501.05441, config E of table 1. Residual blocks of an inverted bottleneck: 1×1 convolution that doubles the
channels, 3×3 convolution in groups of 16 channels, 1×1 convolution back, LeakyReLU 0.2 after the first two, no
normalisation. Weights are initialised as in Fixup (Zhang et al. 2019, arXiv:1901.09321): the last convolution of each
branch is zero, the other two are smaller by L^(−1/(2m−2)) with L blocks in the net and m = 3 layers in a branch. So
each block is the identity at first, and D is a linear function.

Maps are resized by interpolation, not by learned strides: bilinear upsampling, and its transpose (over 4) downwards.
G's first map is learned, with each channel scaled by a linear function of z; D ends likewise with a depthwise
convolution over the whole smallest map and a linear layer.

Departures: images may have any shape of 8 pixels or more, so the smallest map has 4 to 8 pixels on its shorter side,
rounded up: G crops its output and D pads its input with zeros. Channels double from `width` towards the smallest map,
up to `widest`; the paper lists them (768 everywhere at 32 pixels, 384 and 768 at 64).
"""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.nets import protocols
from limner.nets._critic import RULES, VJP, Critic, compose, rules
from limner.nets._layers import Binomial, Output, doubled_widths, doublings, output

_SLOPE = 0.2
_GAIN = sqrt(2 / (1 + _SLOPE**2))  # keeps the variance through a LeakyReLU
_LAYERS = 3  # m, of a residual branch


def _scaled(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Conv2d | nn.Linear:
    """Initialises a layer: weights from N(0, gain² / fan in), biases zero."""
    nn.init.normal_(layer.weight, 0.0, gain / sqrt(layer.weight[0].numel())) if gain else nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class _Block(nn.Module):
    """x + branch(x) of maps (B,width,H,W).

    Args:
        width: channels in and out.
        group: channels of a group of the 3×3 convolution.
        expansion: channels inside, in units of `width`.
        blocks: L, residual blocks of the whole net.
    """

    def __init__(self, width: int, group: int, expansion: int, blocks: int) -> None:
        super().__init__()
        inner = expansion * width
        if inner % group:
            raise ValueError(
                f"{inner} channels ({expansion} times {width}) cannot form groups of {group};"
                f" use a group that divides {inner}"
            )
        gain = _GAIN * blocks ** (-1 / (2 * _LAYERS - 2))
        self.branch = nn.Sequential(
            _scaled(nn.Conv2d(width, inner, 1), gain),
            nn.LeakyReLU(_SLOPE),
            _scaled(nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group), gain),
            nn.LeakyReLU(_SLOPE),
            _scaled(nn.Conv2d(inner, width, 1, bias=False), 0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class _Resample(Binomial):
    """Upsampling or downsampling by 2, and a 1×1 convolution (at the smaller size) if the channels change.

    Upsampling is bilinear interpolation of a map padded with zeros; downsampling is its transpose over 4, a 4×4 filter
    with the weights 1, 3, 3, 1.

    Args:
        inputs: channels in.
        outputs: channels out.
        up: whether to upsample.
    """

    def __init__(self, inputs: int, outputs: int, up: bool) -> None:
        super().__init__()
        self.up = up
        change = inputs != outputs
        self.project = _scaled(nn.Conv2d(inputs, outputs, 1, bias=False)) if change else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B,inputs,H,W) -> (B,outputs,2H,2W) or (B,outputs,H/2,W/2)."""
        return self.upsample(self.project(x)) if self.up else self.project(self.downsample(x))


def _block(layer: _Block, x: Tensor) -> tuple[Tensor, VJP]:
    h, vjp = compose(rules(layer.branch) or [], x)
    return x + h, lambda g: g + vjp(g)


def _resample(layer: _Resample, x: Tensor) -> tuple[Tensor, VJP]:
    """The rule of a layer that downsamples."""
    if isinstance(layer.project, nn.Identity):
        return layer(x), lambda g: layer.upsample(g) / 4
    w = layer.project.weight
    return layer(x), lambda g: layer.upsample(F.conv_transpose2d(g, w)) / 4


def _pad(layer: nn.ZeroPad2d, x: Tensor) -> tuple[Tensor, VJP]:
    return layer(x), lambda g: F.pad(g, [-p for p in layer.padding])


# With rules for all layers of D, autograd need not take the second derivative of a grouped convolution, which it
# computes one group at a time.
RULES[_Block], RULES[_Resample], RULES[nn.ZeroPad2d] = _block, _resample, _pad


class Generator(protocols.Generator):
    """Noise (B,z) -> images (B,C,H,W): a learned map scaled by z, then residual blocks at each size.

    Args:
        z: size of the noise vector (64 in the paper).
        width: channels of the largest map; they double at each step towards the smallest. Raise it if images lack
            detail; lower it for speed and memory.
        blocks: residual blocks at each size (2 in the paper). Raise it for better images; lower it for speed.
        group: channels of a group of the 3×3 convolutions. Lower it for speed; raise it if images lack detail.
        expansion: channels inside a block, in units of those outside.
        widest: largest number of channels (768 in the paper). Lower it if memory is short.
        out: "linear" as in the paper, whose images may exceed [-1,1] a little; with "tanh" they cannot.
        shape: (C,H,W) of an image; filled from the data.
    """

    classes = 0

    def __init__(
        self,
        z: int = 64,
        width: int = 32,
        blocks: int = 2,
        group: int = 16,
        expansion: int = 2,
        widest: int = 768,
        out: Output = "linear",
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.z, self.code_shape = z, (z,)
        self.size = shape[1:]
        n, base = doublings(shape, "r3gan")
        widths = doubled_widths(width, widest, n)[::-1]
        total = blocks * len(widths)
        self.basis = nn.Parameter(torch.randn(widths[0], *base))
        self.scale = _scaled(nn.Linear(z, widths[0], bias=False))
        self.net = nn.Sequential(*(_Block(widths[0], group, expansion, total) for _ in range(blocks)))
        for a, b in pairwise(widths):
            self.net.extend([_Resample(a, b, up=True), *(_Block(b, group, expansion, total) for _ in range(blocks))])
        self.net.extend([_scaled(nn.Conv2d(widths[-1], shape[0], 1, bias=False)), output(out, shape[0], 1)])

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of noise (B,z)."""
        h, w = self.size
        return self.net(self.basis * self.scale(z)[:, :, None, None])[..., :h, :w]


class Discriminator(Critic):
    """Images (B,C,H,W) -> logits (B/pack,): residual blocks at each size, then a convolution over the whole map.

    Args:
        width: channels of the largest map; they double at each step towards the smallest. Raise it if D cannot tell
            good samples from bad ones; lower it for speed and memory.
        blocks: residual blocks at each size (2 in the paper). Raise it for a better D; lower it for speed.
        group: channels of a group of the 3×3 convolutions. Lower it for speed; raise it for a better D.
        expansion: channels inside a block, in units of those outside.
        widest: largest number of channels (768 in the paper). Lower it if memory is short.
        pack: images that get one logit (Lin et al. 2018). Raise it (to 2, 3 or 4) if modes are missing; lower it for
            more logits from the same images. It must divide the batch.
        shape: (C,H,W) of an image; filled from the data.
    """

    def __init__(
        self,
        width: int = 32,
        blocks: int = 2,
        group: int = 16,
        expansion: int = 2,
        widest: int = 768,
        pack: int = 1,
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__(pack)
        n, (h, w) = doublings(shape, "r3gan")
        widths = doubled_widths(width, widest, n)
        total = blocks * len(widths)
        excess = (0, (w << n) - shape[2], 0, (h << n) - shape[1])
        self.net = nn.Sequential(
            *([nn.ZeroPad2d(excess)] if any(excess) else []),
            _scaled(nn.Conv2d(pack * shape[0], width, 1, bias=False)),
            *(_Block(width, group, expansion, total) for _ in range(blocks)),
        )
        for a, b in pairwise(widths):
            self.net.extend([_Resample(a, b, up=False), *(_Block(b, group, expansion, total) for _ in range(blocks))])
        c = widths[-1]
        self.net.extend([_scaled(nn.Conv2d(c, c, (h, w), groups=c, bias=False)), nn.Flatten()])
        self.net.append(_scaled(nn.Linear(c, 1, bias=False)))
