"""Nets that predict from a noisy image and its noise level: a U-Net for images, an MLP for points.

Ho, Jain and Abbeel 2020, *Denoising diffusion probabilistic models*, arXiv:2006.11239, appendix B: a U-Net of residual
blocks with group norm and self-attention on its small maps. From Dhariwal and Nichol 2021, *Diffusion models beat GANs
on image synthesis*, arXiv:2105.05233, section 3, it has FiLM: the noise level and the class scale and shift the maps
after the second norm of each block. The last convolution of each branch and that of the net begin at zero.

Departures, each for speed on a CPU: channels in groups of eight at least, which halves the cost of the norm; one
product gives the scales and shifts of all blocks; maps are doubled by transposed 4×4 convolutions, with 16 products for
four pixels where "nearest", then 3×3, needs 36.

| images | width, mults | parameters | GFLOP an image |
|---|---|---|---|
| 28×28×1 | 16, (1,2,4) | 0.753 M | 0.131 |
| 28×28×1 | 32, (1,2,2) | 1.251 M | 0.340 |
| 28×28×1 | 32, (1,2,4) | 3.000 M | 0.518 |
| 28×28×1 | 48, (1,2,2) | 2.810 M | 0.763 |
| 28×28×1 | 64, (1,2,2) | 4.991 M | 1.354 |
| 32×32×3 | 32, (1,2,4) | 3.001 M | 0.680 |
| 64×64×3 | 32, (1,2,2,4) | 3.466 M | 1.980 |

A training step costs about three times the forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.nn import functional as F

from limner.nets import _labels as labels
from limner.nets import protocols

_GROUP = 8  # channels that are normalised together, at least: fewer are slow on a CPU


class _Level(nn.Module):
    """Noise levels c and classes y -> features (B,features) that are shared by the whole net.

    Sines and cosines of c at frequencies from 1 to `finest` radians per unit, two linear layers, and an embedding of
    the class that is added between them. Class number `classes` is "none": it stands for images whose class is not
    told.

    Args:
        waves: number of frequencies.
        features: size of the result.
        times: numbers in c.
        classes: number of classes; 0 if the net is not conditional.
        finest: frequency of the fastest wave.
    """

    frequencies: Tensor

    def __init__(self, waves: int, features: int, times: int, classes: int, finest: float) -> None:
        super().__init__()
        self.times = times
        self.register_buffer("frequencies", finest ** torch.linspace(0, 1, waves), persistent=False)
        self.first = nn.Linear(2 * times * waves, features)
        self.label = labels.Embedding(classes, features, null=True) if classes else None
        self.second = nn.Linear(features, features)

    def forward(self, c: Tensor, y: Tensor | None) -> Tensor:
        """Features (B,features), or (1,features) where neither c nor y tells the images apart."""
        c = c.reshape(len(c), -1).to(self.frequencies.dtype)
        if c.shape[1] != self.times:
            raise ValueError(f"this net takes {self.times} numbers c for each image, not {c.shape[1]}; set times")
        angles = (c[:, :, None] * self.frequencies).flatten(1)  # (B,times·waves)
        h = self.first(torch.cat([angles.sin(), angles.cos()], 1))
        if self.label is not None:
            h = h + (self.label.weight[-1] if y is None else self.label(y))
        return F.silu(self.second(F.silu(h)))


class _GroupNorm(nn.GroupNorm):
    """Group norm that has forward derivatives in any memory format and precision.

    PyTorch's has them in the usual format alone, and under autocast gives them another precision than the values.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling() and unpack_dual(x).tangent is not None:
            x = x.contiguous().to(torch.promote_types(x.dtype, torch.float32))
        return super().forward(x)


class _Attention(nn.Module):
    """x + what each pixel gathers from all pixels of the map (B,channels,H,W), with one head."""

    def __init__(self, channels: int, group: int) -> None:
        super().__init__()
        self.norm = _GroupNorm(channels // group, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, 2)  # (B,H·W,channels)
        # Written out, since PyTorch's fused kernels have no forward derivatives, which mean flow needs. The maps are
        # so small that they gain nothing.
        share = (q @ k.transpose(1, 2) * q.shape[2] ** -0.5).softmax(2)
        h = (share.to(v.dtype) @ v).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.out(h)


class _Block(nn.Module):
    """A residual block whose maps are scaled and shifted by what the noise level says, then attention if asked for.

    Args:
        inputs: channels in.
        outputs: channels out.
        group: channels that are normalised together.
        dropout: probability of dropping an activation.
        attention: whether self-attention follows.
    """

    def __init__(self, inputs: int, outputs: int, group: int, dropout: float, attention: bool) -> None:
        super().__init__()
        self.outputs = outputs
        self.norm = _GroupNorm(inputs // group, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _GroupNorm(outputs // group, outputs, affine=False)  # `film` scales and shifts
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = _Attention(outputs, group) if attention else nn.Identity()

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """Maps (B,outputs,H,W) of maps x (B,inputs,H,W); `film` (B,2·outputs) are scales less one, and shifts."""
        scale, shift = film[:, :, None, None].chunk(2, 1)
        h = self.norm2(self.conv1(F.silu(self.norm(x))))
        h = torch.addcmul(shift, h, 1 + scale)
        return self.attention(self.skip(x) + self.conv2(self.dropout(F.silu(h))))


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    """A convolution that begins at zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class UNet(protocols.Denoiser):
    """Noisy images (B,C,H,W) and their noise levels c -> (B,heads·C,H,W), such as the noise or the velocity.

    Every map of the way down is concatenated to one of the way up. c (B,) or (B,times) is of order 1, such as t in
    [0,1] or ln(σ)/4; c (1,) or (1,times) is one noise level for all images, whose features are computed once.

    Args:
        width: channels of the largest maps, a multiple of 8. Raise it if samples are poor after a long training; lower
            it for speed: the cost grows with its square.
        mults: channels of each level in units of `width`; a level has half the side of the one before. Raise the last
            ones if samples lack a global form; leave some out for images whose sides cannot be halved so often.
        blocks: residual blocks of each level on the way down; the way up has one more. Raise it for better samples;
            lower it for speed.
        attention: levels whose longer side is at most this have self-attention. Raise it if distant parts of samples do
            not match; lower it for speed, since the cost grows with its fourth power.
        heads: numbers for each entry of an image in the output: 2 for a mean and a variance.
        times: numbers in c: 1, or 2 for a net of two times (mean flow).
        dropout: probability of dropping an activation in training. Raise it (to 0.1, say) if a small set is learnt by
            heart; lower it if the training loss stays high.
        conditional: whether the class of each image is an input too. A batch without classes is of the null class,
            which has the index `classes`. Needs labelled data.
        finest: the highest frequency at which the net sees c, in radians per unit. Lower it (to 10) for a mean flow,
            which learns from its derivative by c; raise it if samples of neighbouring noise levels should differ more.
        shape: (C,H,W) of an image; filled from the data.
        classes: number of classes; filled from the data.

    Raises:
        ValueError: the levels cannot halve the sides of an image, or an argument is out of its range.
    """

    def __init__(
        self,
        width: int = 32,
        mults: tuple[int, ...] = (1, 2, 2),
        blocks: int = 1,
        attention: int = 8,
        heads: int = 1,
        times: int = 1,
        dropout: float = 0.0,
        conditional: bool = False,
        finest: float = 1000.0,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__(heads, times, conditional, shape=shape, classes=classes)
        if not 1 <= finest <= 1e6:
            raise ValueError(f"finest is a frequency from 1 to 1e6, got {finest:g}; 1000 is usual, 10 for a mean flow")
        _check(width, mults, blocks, dropout, shape)
        group, longest = max(_GROUP, width // 8), max(shape[1:])

        def block(inputs: int, level: int, inside: bool = True) -> _Block:
            near = inside and longest >> level <= attention
            return _Block(inputs, width * mults[level], group, dropout, near)

        c, last = width, len(mults) - 1
        self.level = _Level(width, 4 * width, times, self.classes, finest)
        self.first = nn.Conv2d(shape[0], c, 3, padding=1)
        skips = [c]
        self.down = nn.ModuleList()
        for i in range(len(mults)):
            if i:
                self.down.append(nn.Conv2d(c, c, 3, 2, 1))
                skips.append(c)
            for _ in range(blocks):
                self.down.append(block(c, i))
                c = width * mults[i]
                skips.append(c)
        self.middle = nn.ModuleList([block(c, last), block(c, last, inside=False)])
        self.up = nn.ModuleList()
        for i in reversed(range(len(mults))):
            for _ in range(blocks + 1):
                self.up.append(block(c + skips.pop(), i))
                c = width * mults[i]
            if i:
                self.up.append(nn.ConvTranspose2d(c, c, 4, 2, 1))
        self.norm = _GroupNorm(c // group, c)
        self.last = _zero(nn.Conv2d(c, heads * shape[0], 3, padding=1))
        self.sizes = [2 * m.outputs for m in self.modules() if isinstance(m, _Block)]  # in the order of their use
        self.film = nn.Linear(4 * width, sum(self.sizes))

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """The prediction (B,heads·C,H,W) for images x with noise levels c (B,) or (B,times) and classes y (B,)."""
        films = iter(self.film(self.level(c, y)).split(self.sizes, 1))
        h = self.first(x)
        if x.device.type == "cpu":  # all maps follow the format of the first; with this one CPUs are a sixth faster
            h = h.contiguous(memory_format=torch.channels_last)
        skips = [h]
        for layer in self.down:
            h = layer(h, next(films)) if isinstance(layer, _Block) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, next(films))
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], 1), next(films)) if isinstance(layer, _Block) else layer(h)
        return self.last(F.silu(self.norm(h))).to(x.dtype)


def _check(width: int, mults: Sequence[int], blocks: int, dropout: float, shape: tuple[int, int, int]) -> None:
    """Raises ValueError for arguments that make no U-Net."""
    if width < 1 or width % _GROUP:
        raise ValueError(f"channels form groups of {_GROUP}, so width is a multiple of {_GROUP}; got {width}")
    if not mults or min(mults) < 1 or blocks < 1:
        raise ValueError(f"a UNet has levels of 1 or more blocks and channels; got mults={list(mults)} blocks={blocks}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is a probability of at least 0 and below 1, got {dropout:g}")
    halvings, sides = len(mults) - 1, tuple(shape[1:])
    multiple = 2**halvings
    if sides == (1, 1):
        raise ValueError("a UNet is for images, and these data are points; use denoiser.MLP, as the toy recipes do")
    if any(side % multiple for side in sides):
        below, above = ([max(1, side // multiple + k) * multiple for side in sides] for k in (0, 1))
        good = " or ".join(dict.fromkeys("×".join(map(str, size)) for size in (below, above)))
        most = next(n for n in range(halvings, 0, -1) if not any(side % 2 ** (n - 1) for side in sides))
        raise ValueError(
            f"a UNet of {len(mults)} levels halves images {halvings} times, which {sides[0]}×{sides[1]} pixels do not"
            f" allow; use images of {good}, or at most {most} mults"
        )


class MLP(protocols.Denoiser):
    """Noisy points (B,C,1,1) and their noise levels c -> (B,heads·C,1,1): residual layers with FiLM.

    Args:
        width: units of a layer. Raise it if samples do not follow fine parts of a density; lower it for speed.
        depth: number of residual layers. Raise it if samples do not follow fine parts of a density; lower it for speed.
        heads: numbers for each coordinate in the output: 2 for a mean and a variance.
        times: numbers in c: 1, or 2 for a net of two times (mean flow).
        conditional: whether the class of each point is an input too. A batch without classes is of the null class,
            which has the index `classes`. Needs labelled data.
        finest: the highest frequency at which the net sees c, in radians per unit. Lower it (to 10) for a mean flow,
            which learns from its derivative by c; raise it if samples of neighbouring noise levels should differ more.
        shape: (C,1,1) of a point; filled from the data.
        classes: number of classes; filled from the data.

    Raises:
        ValueError: the data are images, or an argument is out of its range.
    """

    def __init__(
        self,
        width: int = 128,
        depth: int = 2,
        heads: int = 1,
        times: int = 1,
        conditional: bool = False,
        finest: float = 1000.0,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__(heads, times, conditional, shape=shape, classes=classes)
        if prod(shape) > 16:
            raise ValueError(f"denoiser.MLP is for points of 16 numbers at most, not {prod(shape)}; use denoiser.UNet")
        if width < 1 or depth < 1:
            raise ValueError(f"an MLP has 1 or more layers and units; got width={width} depth={depth}")
        self.level = _Level(16, width, times, self.classes, finest)
        self.widths = [prod(shape)] + depth * [width]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(self.widths))
        self.film = nn.Linear(width, 2 * sum(self.widths[1:]))
        self.last = nn.Linear(width, heads * prod(shape))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """The prediction (B,heads·C,1,1) for points x with noise levels c (B,) or (B,times) and classes y (B,)."""
        films = self.film(self.level(c, y)).chunk(2 * len(self.hidden), 1)
        h = x.flatten(1)
        for i, layer in enumerate(self.hidden):
            scale, shift = films[2 * i : 2 * i + 2]
            g = F.silu(torch.addcmul(shift, layer(h), 1 + scale))
            h = h + g if i else g
        return self.last(h).to(x.dtype).unflatten(1, (self.heads * self.shape[0], *self.shape[1:]))
