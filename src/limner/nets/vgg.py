"""VGG-19 as a perceptual net: the maps that its 16 convolutions make of a picture.

Simonyan and Zisserman 2015, *Very deep convolutional networks for large-scale image recognition*, arXiv:1409.1556,
configuration E, without its three fully connected layers: 3×3 convolutions, ReLU, and pooling that halves after each of
five blocks. Layers have the names of the literature: ``conv4_2`` is the second convolution of the fourth block before
its ReLU, ``relu4_2`` after it. Gatys et al. 2016 (arXiv:1508.06576) replace max by average pooling, and scale the
weights so that every map has a mean activation of one; with such weights (`normalised`) losses of all layers weigh
alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512))
CONVOLUTIONS = tuple(f"{b}_{i}" for b, widths in enumerate(BLOCKS, 1) for i in range(1, len(widths) + 1))
"""``1_1`` to ``5_4``, in the order of a pass."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet in RGB on [0,1], as torchvision has them
_TORCHVISION = tuple(2 * k + int(n[0]) - 1 for k, n in enumerate(CONVOLUTIONS))
"""Where torchvision's ``features`` have the convolutions: every one is followed by a ReLU, every block by a pooling."""


class VGG19(nn.Module):
    """Pictures (B,3,H,W) in [-1,1] -> maps by name; its weights never change.

    Args:
        weights: tensors by name, in one of three layouts: torchvision's (``features.0.weight`` …), that of normalised
            weights with a 1×1 ``preprocess`` (``conv1_1.weight`` …), or this class's own. They may end early: then the
            deeper layers do not exist.
        pooling: "max" as trained, "average" as Gatys et al. prefer it: smoother results.
        padding: "zeros" as trained, or "reflect", which leaves no border in synthesised pictures.

    Raises:
        ValueError: these are no weights of VGG-19.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        pooling: Literal["max", "average"] = "max",
        padding: Literal["zeros", "reflect"] = "zeros",
    ) -> None:
        super().__init__()
        self.pooling, self.padding = pooling, padding
        self.normalised = "preprocess.weight" in weights
        self.first: Tensor
        self.shift: Tensor
        found = _named(weights)
        self.convolutions = [n for n in CONVOLUTIONS if f"conv{n}.weight" in found]
        if not self.convolutions or self.convolutions != list(CONVOLUTIONS[: len(self.convolutions)]):
            raise ValueError(
                "these are no weights of VGG-19; give torchvision's vgg19-dcbb9e9d.pth, or normalised ones"
            )
        widths = [3, *(w for block in BLOCKS for w in block)]
        for i, n in enumerate(self.convolutions):
            weight, bias = found[f"conv{n}.weight"], found[f"conv{n}.bias"]
            if weight.shape != (widths[i + 1], widths[i], 3, 3) or bias.shape != (widths[i + 1],):
                raise ValueError(f"conv{n} of these weights is {tuple(weight.shape)}; they are not VGG-19's")
            fast = weight.float().contiguous(memory_format=torch.channels_last).clone()  # a fifth faster on CPUs
            self.register_buffer(f"weight{n}", fast, persistent=False)
            self.register_buffer(f"bias{n}", bias.float().clone(), persistent=False)
        first, shift = _input(found)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    @property
    def layers(self) -> list[str]:
        """Names that `forward` knows, in the order of a pass."""
        return [f"{kind}{n}" for n in self.convolutions for kind in ("conv", "relu")]

    @torch.no_grad()
    def normalise(self, pictures: Iterable[Tensor]) -> None:
        """Scales the weights so that every map's mean activation over these pictures (1,3,H,W) is one.

        Gatys et al. 2016, section 2: without that, a few loud maps would be all of a loss. ReLU lets a factor through,
        so maps change by factors only. Maps that are hardly ever active are scaled like one a hundredth as loud as the
        mean.
        """
        shown = [F.conv2d(x, self.first, self.shift) for x in pictures]
        before = torch.ones(3, device=self.first.device)
        for i, n in enumerate(self.convolutions):
            if i and n[0] != self.convolutions[i - 1][0]:
                shown = [F.max_pool2d(h, 2) if self.pooling == "max" else F.avg_pool2d(h, 2) for h in shown]
            getattr(self, f"weight{n}").mul_(before[None, :, None, None])
            maps = [F.relu(self._convolved(h, n)) for h in shown]
            loud = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
            before = loud.clamp_min(0.01 * float(loud.mean()) + 1e-8)
            getattr(self, f"weight{n}").div_(before[:, None, None, None])
            getattr(self, f"bias{n}").div_(before)
            shown = [m / before[None, :, None, None] for m in maps]

    def least(self, names: Iterable[str]) -> int:
        """The smallest side of a picture that still has a map of two pixels at the deepest of these layers."""
        return 2 * max(stride(n) for n in names)

    def check(self, names: Iterable[str], size: Sequence[int]) -> None:
        """Refuses what `forward` cannot do: layers that do not exist, pictures (H,W) too small for them.

        Raises:
            ValueError: which, and what would do.
        """
        unknown = [n for n in names if n not in self.layers]
        if unknown:
            raise ValueError(
                f"these weights have no layer {unknown[0]!r}; choose from {self.layers[1]} … {self.layers[-1]}"
            )
        if min(size) < self.least(names):
            raise ValueError(f"pictures of {size[0]}×{size[1]} are too small: {self.least(names)} pixels at least")

    def forward(self, x: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """The maps (B,C,h,w) of the layers asked for; nothing deeper is computed.

        Raises:
            ValueError: a layer does not exist, or pictures are too small for it.
        """
        wanted = list(dict.fromkeys(names))
        self.check(wanted, x.shape[2:])
        found: dict[str, Tensor] = {}
        h = F.conv2d(x, self.first, self.shift)
        for i, n in enumerate(self.convolutions):
            if i and n[0] != self.convolutions[i - 1][0]:
                h = F.max_pool2d(h, 2) if self.pooling == "max" else F.avg_pool2d(h, 2)
            h = self._convolved(h, n)  # maps that nobody asked for are let go: of large pictures each is a GB
            found |= {f"conv{n}": h} if f"conv{n}" in wanted else {}
            h = F.relu(h)
            found |= {f"relu{n}": h} if f"relu{n}" in wanted else {}
            if len(found) == len(wanted):
                break
        return {w: found[w] for w in wanted}

    def _convolved(self, h: Tensor, n: str) -> Tensor:
        weight, bias = getattr(self, f"weight{n}"), getattr(self, f"bias{n}")
        if self.padding == "zeros":
            return F.conv2d(h, weight, bias, padding=1)
        return F.conv2d(F.pad(h, (1, 1, 1, 1), mode="reflect"), weight, bias)


def stride(name: str) -> int:
    """How many pixels of the picture lie between two places of a layer's maps.

    >>> stride("relu1_2"), stride("conv4_1")
    (1, 8)
    """
    return 2 ** (int(name[4]) - 1)


def reach(name: str) -> int:
    """How many pixels to each side of its own a place of a layer's maps sees.

    >>> reach("relu1_1"), reach("relu3_1"), reach("relu5_1")
    (1, 10, 70)
    """
    until = CONVOLUTIONS.index(name[4:]) + 1
    return sum(2 ** (int(n[0]) - 1) for n in CONVOLUTIONS[:until])


@dataclass(frozen=True)
class Tile:
    """A part of a picture, with as much around it as its maps can see.

    Maps of the part alone, `maps[tile.within(name)]`, are those of the whole picture at `tile.of(name)`, but for
    the order in which a convolution sums.

    Attributes:
        top: first row of the part; `bottom` is the row after its last one, `left` and `right` are its columns.
        halo: pixels around it, where the picture has any.
        size: (H,W) of the picture.
    """

    top: int
    bottom: int
    left: int
    right: int
    halo: int
    size: tuple[int, int]

    @property
    def seen(self) -> tuple[Any, slice, slice]:
        """Where the picture (B,C,H,W) is seen: the part and its halo."""
        (top, bottom), (left, right) = self._around()
        return ..., slice(top, bottom), slice(left, right)

    def within(self, name: str) -> Any:
        """Where the maps of what is seen are the part's own."""
        if not self.halo:
            return ...
        (top, _), (left, _) = self._around()
        return self._places(name, top, left)

    def of(self, name: str) -> tuple[Any, slice, slice]:
        """Where these maps lie in those of the whole picture."""
        return self._places(name, 0, 0)

    def _around(self) -> tuple[tuple[int, int], tuple[int, int]]:
        h, w = self.size
        rows = max(0, self.top - self.halo), min(h, self.bottom + self.halo)
        return rows, (max(0, self.left - self.halo), min(w, self.right + self.halo))

    def _places(self, name: str, top: int, left: int) -> tuple[Any, slice, slice]:
        s = stride(name)
        rows = slice((self.top - top) // s, (self.bottom - top) // s)
        return ..., rows, slice((self.left - left) // s, (self.right - left) // s)


def tiles(size: tuple[int, int], side: int, names: Iterable[str]) -> list[Tile]:
    """Tiles that cover a picture of size (H,W) once, for maps of these layers; one where it is small enough.

    Args:
        size: (H,W).
        side: about how many pixels a side a tile has; pictures of up to side² pixels are one tile.
        names: of layers.

    >>> [(t.top, t.bottom, t.left, t.right) for t in tiles((100, 300), 128, ["relu2_1"])]
    [(0, 100, 0, 100), (0, 100, 100, 200), (0, 100, 200, 300)]
    """
    h, w = size
    if h * w <= side * side:
        return [Tile(0, h, 0, w, 0, size)]
    step = max(stride(n) for n in names)  # parts begin where the deepest maps have a place
    halo = -(-max(reach(n) for n in names) // step) * step

    def cuts(n: int) -> list[int]:
        count = -(-n // side)
        return [i * n // count // step * step for i in range(count)] + [n]

    return [Tile(*rows, *columns, halo, size) for rows in pairwise(cuts(h)) for columns in pairwise(cuts(w))]


def _named(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of any layout by this module's names."""
    if "features.0.weight" not in weights:
        return dict(weights)
    places = dict(zip(_TORCHVISION, CONVOLUTIONS, strict=True))
    parts = ("weight", "bias")
    return {f"conv{n}.{p}": weights[f"features.{i}.{p}"] for i, n in places.items() for p in parts
            if f"features.{i}.{p}" in weights}  # fmt: skip


def _input(weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What turns pictures in [-1,1] into what the weights were trained on, as a 1×1 convolution."""
    if "preprocess.weight" in weights:  # of [0,1]: y = W (x + 1) / 2 + b
        weight, bias = weights["preprocess.weight"].float(), weights["preprocess.bias"].float()
        return weight / 2, bias + weight.sum((1, 2, 3)) / 2
    mean, std = torch.tensor(_MEAN), torch.tensor(_STD)
    return torch.diag(0.5 / std)[:, :, None, None], (0.5 - mean) / std
