"""Nets for progressive growing.

Karras, Aila, Laine and Lehtinen 2018, *Progressive growing of GANs for improved quality, stability, and variation*,
arXiv:1710.10196, sections 2 to 4 and table 2. G starts with images of about 4×4 pixels and gains one block of two 3×3
convolutions at a time, each of which doubles the size; D mirrors G. A new block is faded in: G's output is interpolated
linearly from the upsampled image of the old output layer to the image of the new one, and so is D's input.

`level` says how far both have grown: its integral part is the number of finished doublings, its fraction is the α of
the next one. At level 1.25 of a net that starts at 4×4, images have 16×16 pixels and are 3/4 the upsampled 8×8 image
plus 1/4 the new one.

In both nets weights are N(0,1) and scaled in the forward pass by He's constant, so that Adam changes all layers at one
rate ("equalised learning rate"); LeakyReLU 0.2; maps are upsampled by repeating pixels and downsampled by averaging. G
normalises the vector of every pixel after each 3×3 convolution, and z; D has the mean standard deviation of the batch
as one more map in its last block. Outputs are linear. Departure: the first image need not be 4×4, see `sizes`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import ceil, floor, prod, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.nets import protocols
from limner.nets._critic import Minibatch, minibatch_features
from limner.nets._layers import PixelNorm, doubled_widths

_SLOPE = 0.2


def sizes(size: tuple[int, int], start: int | None = None) -> list[tuple[int, int]]:
    """Sizes of the images from the first to `size`, each double the one before.

    The first has `start` pixels on its shorter side; by default the smallest possible number of 4 or more.

    >>> sizes((28, 28)), sizes((48, 64)), sizes((32, 32), start=8)
    ([(7, 7), (14, 14), (28, 28)], [(6, 8), (12, 16), (24, 32), (48, 64)], [(8, 8), (16, 16), (32, 32)])

    Raises:
        ValueError: `size` is not `start` doubled a number of times.
    """
    all_sizes = [size]
    while not any(side % 2 for side in all_sizes[0]) and min(all_sizes[0]) >= 8:
        h, w = all_sizes[0]
        all_sizes.insert(0, (h // 2, w // 2))
    starts = [min(s) for s in all_sizes[:-1]]
    if start is None and starts:
        return all_sizes
    if start in starts:
        return all_sizes[starts.index(start) :]
    h, w = size
    first = max(4, start or 4)
    k = max(1, (min(size) // first).bit_length() - 1)
    remedies = [*(f"start={s}" for s in starts), *(f"data.size={first << j}" for j in (k, k + 1))]
    raise ValueError(f"images of {h}×{w} do not come from doubling {start or 4} pixels; use {' or '.join(remedies)}")


def upsample(x: Tensor, times: int = 1) -> Tensor:
    """Maps (B,C,H,W) with every pixel repeated: (B,C,H·2^times,W·2^times)."""
    return F.interpolate(x, scale_factor=float(1 << times)) if times else x


def _upsample_2x(x: Tensor) -> Tensor:
    """`upsample` by a transposed convolution with ones: on a CPU its backward pass is five times as fast."""
    return F.conv_transpose2d(x, x.new_ones(x.shape[1], 1, 2, 2), stride=2, groups=x.shape[1])


def downsample(x: Tensor, times: int = 1) -> Tensor:
    """Maps (B,C,H/2^times,W/2^times): means over squares of pixels of maps (B,C,H,W)."""
    return F.avg_pool2d(x, 1 << times) if times else x


def at_level(x: Tensor, level: float, levels: int) -> Tensor:
    """Real images (B,C,H,W) at `level`: downsampled, and interpolated as G's are while a block is faded in.

    >>> at_level(torch.rand(2, 1, 32, 32), 1.5, levels=3).shape
    torch.Size([2, 1, 16, 16])
    """
    alpha = level - floor(level)
    x = downsample(x, levels - ceil(level))
    return torch.lerp(upsample(downsample(x)), x, alpha) if alpha else x


def _check_level(level: float | None, levels: int) -> float:
    level = float(levels) if level is None else level
    if not 0 <= level <= levels:
        raise ValueError(f"level must lie between 0 and {levels}, got {level:g}")
    return level


class _Conv(nn.Conv2d):
    """Convolution with weights from N(0,1), scaled by gain / √(fan in) whenever it is used."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], padding: int = 0, gain: float = sqrt(2)
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=padding)
        self.gain = gain / sqrt(prod(self.weight.shape[1:]))
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B,outputs,H',W') of maps (B,inputs,H,W)."""
        return self._conv_forward(x, self.weight * self.gain, self.bias)


class Generator(protocols.GrowingGenerator):
    """Noise (B,z) -> images (B,C,h,w) of the current level, (B,C,H,W) at full size.

    Args:
        z: size of the noise vector, which is normalised first (512 in the paper).
        width: channels of the largest map; they double at each step towards the smallest. Raise it if images lack
            detail; lower it for speed and memory.
        widest: largest number of channels (512 in the paper). Lower it if memory is short.
        start: pixels on the shorter side of the first images; null is the smallest number of 4 or more that
            gives the data's size by doubling. Raise it to start with larger images.
        shape: (C,H,W) of an image; filled from the data.

    Attributes:
        levels: number of doublings from the first images to the data's size.
    """

    classes = 0

    def __init__(
        self,
        z: int = 128,
        width: int = 16,
        widest: int = 512,
        start: int | None = None,
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.z, self.code_shape = z, (z,)
        base, *larger = sizes(shape[1:], start)
        self.levels = len(larger)
        widths = doubled_widths(width, widest, self.levels)[::-1]
        h, w = base
        self.first = nn.Sequential(
            PixelNorm(),
            _Conv(z, widths[0] * h * w, 1),  # on maps of one pixel: the paper's 4×4 convolution of padded z
            nn.Flatten(),
            nn.Unflatten(1, (widths[0], h, w)),
            nn.LeakyReLU(_SLOPE),
            PixelNorm(),
            *self._layer(widths[0], widths[0]),
        )
        self.blocks = nn.ModuleList(nn.Sequential(*self._layer(a, b), *self._layer(b, b)) for a, b in pairwise(widths))
        self.to_rgb = nn.ModuleList(_Conv(c, shape[0], 1, gain=1.0) for c in widths)

    @staticmethod
    def _layer(inputs: int, outputs: int) -> list[nn.Module]:
        return [_Conv(inputs, outputs, 3, 1), nn.LeakyReLU(_SLOPE), PixelNorm()]

    def forward(self, z: Tensor, y: Tensor | None = None, *, level: float | None = None) -> Tensor:
        """Images (B,C,h,w) of noise (B,z) at `level`; at full size by default."""
        level = _check_level(level, self.levels)
        old, new, alpha = floor(level), ceil(level), level - floor(level)
        h = previous = self.first(z[:, :, None, None])
        for block in self.blocks[:new]:
            previous, h = h, block(_upsample_2x(h))
        x = self.to_rgb[new](h)
        return torch.lerp(upsample(self.to_rgb[old](previous)), x, alpha) if alpha else x


class Discriminator(protocols.GrowingCritic):
    """Images (B,C,h,w) of the current level -> scores (B/pack,).

    Args:
        width: channels of the largest map; they double at each step towards the smallest. Raise it if D cannot tell
            good samples from bad ones; lower it for speed and memory.
        widest: largest number of channels (512 in the paper). Lower it if memory is short.
        start: pixels on the shorter side of the first images, as in G.
        minibatch: features of the batch: "std" as in the paper, one number for how much images differ;
            "discrimination", how close each is to the others (Salimans et al. 2016); or "none".
        pack: images that get one logit (Lin et al. 2018). Raise it (to 2, 3 or 4) if modes are missing; lower it for
            more logits from the same images. It must divide the batch.
        shape: (C,H,W) of an image; filled from the data.

    Attributes:
        levels: number of doublings from the first images to the data's size.
    """

    def __init__(
        self,
        width: int = 16,
        widest: int = 512,
        start: int | None = None,
        minibatch: Minibatch = "std",
        pack: int = 1,
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__(pack)
        base, *larger = sizes(shape[1:], start)
        self.levels = len(larger)
        widths = doubled_widths(width, widest, self.levels)[::-1]
        c = widths[0]
        colours = pack * shape[0]
        self.from_rgb = nn.ModuleList(nn.Sequential(_Conv(colours, c, 1), nn.LeakyReLU(_SLOPE)) for c in widths)
        self.blocks = nn.ModuleList(
            nn.Sequential(*self._layer(b, b), *self._layer(b, a), nn.AvgPool2d(2)) for a, b in pairwise(widths)
        )
        features, extra = minibatch_features(minibatch, c * prod(base))
        self.last = nn.Sequential(
            *features,
            *self._layer(c + extra, c),
            _Conv(c, c, base),
            nn.LeakyReLU(_SLOPE),
            _Conv(c, 1, 1, gain=1.0),
            nn.Flatten(0),
        )

    @staticmethod
    def _layer(inputs: int, outputs: int) -> list[nn.Module]:
        return [_Conv(inputs, outputs, 3, 1), nn.LeakyReLU(_SLOPE)]

    def layers(self) -> Iterable[nn.Module]:
        """The layers at full size."""
        return [self.from_rgb[-1], *reversed(self.blocks), self.last]

    def forward(self, x: Tensor, y: Tensor | None = None, *, level: float | None = None) -> Tensor:
        """Scores (B/pack,) of images (B,C,h,w) of the size of `level`; of the data's size by default."""
        level = _check_level(level, self.levels)
        old, new, alpha = floor(level), ceil(level), level - floor(level)
        x = self.packed(x)
        h = self.from_rgb[new](x)
        if alpha:
            h = torch.lerp(self.from_rgb[old](downsample(x)), self.blocks[old](h), alpha)
        for block in reversed(self.blocks[:old]):
            h = block(h)
        return self.last(h)
