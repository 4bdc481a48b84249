"""VGG-19 as a perceptual net: the feature maps of its 16 convolutions.

Simonyan and Zisserman 2015, *Very deep convolutional networks for large-scale image recognition*, arXiv:1409.1556,
configuration E, without its three fully connected layers: 3×3 convolutions, ReLU, and pooling that halves after each of
five blocks. Layers have the names of the literature: ``conv4_2`` is the second convolution of the fourth block before
its ReLU, ``relu4_2`` after it. Gatys et al. 2016 (arXiv:1508.06576) replace max by average pooling, and scale the
weights so that every map has a mean activation of one; with such weights (`normalised`) all layers have losses of the
same scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.nets._vgg_files import BLOCKS, CONVOLUTIONS, arrange

__all__ = ["BLOCKS", "CONVOLUTIONS", "VGG19", "Tile", "radius", "stride", "tiles"]


class VGG19(nn.Module):
    """Images (B,3,H,W) in [-1,1] -> feature maps by name; its weights are buffers.

    Args:
        weights: tensors by name, in any layout in which they are published (`_vgg_files`): torchvision's, Caffe's, or
            normalised ones with a 1×1 convolution before them. They may end early: the net then ends with them.
        pooling: "max" as trained, or "average" for smoother results (Gatys et al. 2016).
        padding: "zeros" as trained, or "reflect", which avoids a border in synthesised images.
        odd_sizes: "cut" leaves out the last row or column of a map of odd size when it is halved; "keep" pools it by
            itself, as the nets of published decoders do.

    Raises:
        ValueError: the weights are not VGG-19's.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        pooling: Literal["max", "average"] = "max",
        padding: Literal["zeros", "reflect"] = "zeros",
        odd_sizes: Literal["cut", "keep"] = "cut",
    ) -> None:
        super().__init__()
        self.pooling, self.padding, self.odd_sizes = pooling, padding, odd_sizes
        self.first: Tensor
        self.shift: Tensor
        weights, first, shift, self.normalised = arrange(weights)
        self.convolutions = [n for n in CONVOLUTIONS if f"conv{n}.weight" in weights and f"conv{n}.bias" in weights]
        if self.convolutions != list(CONVOLUTIONS[: len(self.convolutions)]):
            raise ValueError("these weights of VGG-19 lack a convolution in between; give the whole file")
        widths = [3, *(w for block in BLOCKS for w in block)]
        for i, n in enumerate(self.convolutions):
            weight, bias = weights[f"conv{n}.weight"], weights[f"conv{n}.bias"]
            if weight.shape != (widths[i + 1], widths[i], 3, 3) or bias.shape != (widths[i + 1],):
                raise ValueError(f"conv{n} of these weights is {tuple(weight.shape)}; they are not VGG-19's")
            fast = weight.float().contiguous(memory_format=torch.channels_last).clone()  # a fifth faster on CPUs
            self.register_buffer(f"weight{n}", fast, persistent=False)
            self.register_buffer(f"bias{n}", bias.float().clone(), persistent=False)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    @property
    def layers(self) -> list[str]:
        """Names of all layers, in the order of the forward pass."""
        return [f"{kind}{n}" for n in self.convolutions for kind in ("conv", "relu")]

    @torch.no_grad()
    def normalise(self, images: Iterable[Tensor]) -> None:
        """Scales the weights so that every map's mean activation over these images (1,3,H,W) is one.

        Gatys et al. 2016, section 2: otherwise a few maps with large activations dominate a loss. ReLU is positively
        homogeneous, so maps change by factors only. A mean activation below a hundredth of the layer's mean counts as
        that hundredth.
        """
        inputs = [F.conv2d(x, self.first, self.shift) for x in images]
        previous = torch.ones(3, device=self.first.device)
        for i, n in enumerate(self.convolutions):
            if i and n[0] != self.convolutions[i - 1][0]:
                inputs = [self._pool(h) for h in inputs]
            getattr(self, f"weight{n}").mul_(previous[None, :, None, None])
            maps = [F.relu(self._convolve(h, n)) for h in inputs]
            means = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
            previous = means.clamp_min(0.01 * float(means.mean()) + 1e-8)
            getattr(self, f"weight{n}").div_(previous[:, None, None, None])
            getattr(self, f"bias{n}").div_(previous)
            inputs = [m / previous[None, :, None, None] for m in maps]

    def smallest_side(self, names: Iterable[str]) -> int:
        """The smallest side of an image whose map at the deepest of these layers has two pixels a side."""
        return 2 * max(stride(n) for n in names)

    def check(self, names: Iterable[str], size: Sequence[int]) -> None:
        """Checks that `forward` can give these layers for images of size (H,W).

        Raises:
            ValueError: a layer does not exist, or the images are too small for it.
        """
        unknown = [n for n in names if n not in self.layers]
        if unknown:
            raise ValueError(
                f"these weights have no layer {unknown[0]!r}; choose from {self.layers[1]} … {self.layers[-1]}"
            )
        if min(size) < self.smallest_side(names):
            raise ValueError(
                f"images of {size[0]}×{size[1]} are too small; use images of {self.smallest_side(names)} pixels or more"
            )

    def forward(self, x: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """The maps (B,C,h,w) of the named layers; deeper layers are not computed.

        Raises:
            ValueError: a layer does not exist, or the images are too small for it.
        """
        names = list(dict.fromkeys(names))
        self.check(names, x.shape[2:])
        maps: dict[str, Tensor] = {}
        h = F.conv2d(x, self.first, self.shift)
        for i, n in enumerate(self.convolutions):
            if i and n[0] != self.convolutions[i - 1][0]:
                h = self._pool(h)
            h = self._convolve(h, n)  # only named maps are kept: each is a GB for large images
            maps |= {f"conv{n}": h} if f"conv{n}" in names else {}
            h = F.relu(h)
            maps |= {f"relu{n}": h} if f"relu{n}" in names else {}
            if len(maps) == len(names):
                break
        return {n: maps[n] for n in names}

    def _pool(self, h: Tensor) -> Tensor:
        pool = F.max_pool2d if self.pooling == "max" else F.avg_pool2d
        return pool(h, 2, ceil_mode=self.odd_sizes == "keep")

    def _convolve(self, h: Tensor, n: str) -> Tensor:
        weight, bias = getattr(self, f"weight{n}"), getattr(self, f"bias{n}")
        if self.padding == "zeros":
            return F.conv2d(h, weight, bias, padding=1)
        return F.conv2d(F.pad(h, (1, 1, 1, 1), mode="reflect"), weight, bias)


def stride(name: str) -> int:
    """Pixels of the image between two neighbouring positions of a layer's maps.

    >>> stride("relu1_2"), stride("conv4_1")
    (1, 8)
    """
    return 2 ** (int(name[4]) - 1)


def radius(name: str) -> int:
    """Radius in pixels of the receptive field of a layer.

    >>> radius("relu1_1"), radius("relu3_1"), radius("relu5_1")
    (1, 10, 70)
    """
    end = CONVOLUTIONS.index(name[4:]) + 1
    return sum(2 ** (int(n[0]) - 1) for n in CONVOLUTIONS[:end])


@dataclass(frozen=True)
class Tile:
    """A part of an image, with a margin as wide as the receptive field.

    Up to the rounding of sums `net(x[..., tile.crop])[name][tile.inner(name)]` equals `net(x)[name][tile.outer(name)]`.

    Attributes:
        top: first row of the part; `bottom` is the row after its last one, `left` and `right` are its columns.
        halo: width of the margin in pixels, cut off at the edges of the image.
        size: (H,W) of the image.
    """

    top: int
    bottom: int
    left: int
    right: int
    halo: int
    size: tuple[int, int]

    @property
    def crop(self) -> tuple[Any, slice, slice]:
        """Index of the part and its margin in the image (B,C,H,W)."""
        (top, bottom), (left, right) = self._corners()
        return ..., slice(top, bottom), slice(left, right)

    def inner(self, name: str) -> Any:
        """Index of the part, without its margin, in a layer's maps of the crop."""
        if not self.halo:
            return ...
        (top, _), (left, _) = self._corners()
        return self._index(name, top, left)

    def outer(self, name: str) -> tuple[Any, slice, slice]:
        """Index of the part in a layer's maps of the whole image."""
        return self._index(name, 0, 0)

    def _corners(self) -> tuple[tuple[int, int], tuple[int, int]]:
        h, w = self.size
        rows = max(0, self.top - self.halo), min(h, self.bottom + self.halo)
        return rows, (max(0, self.left - self.halo), min(w, self.right + self.halo))

    def _index(self, name: str, top: int, left: int) -> tuple[Any, slice, slice]:
        s = stride(name)
        rows = slice((self.top - top) // s, (self.bottom - top) // s)
        return ..., rows, slice((self.left - left) // s, (self.right - left) // s)


def tiles(size: tuple[int, int], side: int, names: Iterable[str]) -> list[Tile]:
    """Tiles that cover an image of size (H,W) once, for maps of these layers; a small image is one tile.

    Args:
        size: (H,W).
        side: approximate side of a tile in pixels; images of up to side² pixels are one tile.
        names: names of layers.

    >>> [(t.top, t.bottom, t.left, t.right) for t in tiles((100, 300), 128, ["relu2_1"])]
    [(0, 100, 0, 100), (0, 100, 100, 200), (0, 100, 200, 300)]
    """
    h, w = size
    if h * w <= side * side:
        return [Tile(0, h, 0, w, 0, size)]
    step = max(stride(n) for n in names)  # parts begin at positions of the deepest maps
    halo = -(-max(radius(n) for n in names) // step) * step

    def cuts(n: int) -> list[int]:
        count = -(-n // side)
        return [i * n // count // step * step for i in range(count)] + [n]

    return [Tile(*rows, *columns, halo, size) for rows in pairwise(cuts(h)) for columns in pairwise(cuts(w))]
