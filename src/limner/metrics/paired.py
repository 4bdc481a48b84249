"""How far pictures are from the pictures that they should be, one by one: pixels, structure, features.

================  =================================================================================================
function          what it is
================  =================================================================================================
`l1`              mean absolute difference on the [0,1] scale
`psnr`            10 log10(peak² / MSE) in dB
`ssim`            structural similarity: Wang, Bovik, Sheikh and Simoncelli 2004, *Image quality assessment: from error
                  visibility to structural similarity*, eq. 13
`Perceptual`      distance of convolutional features: Zhang, Isola, Efros, Shechtman and Wang 2018, arXiv:1801.03924,
                  eq. 1 with w = 1
================  =================================================================================================

All take x and y (B,C,H,W), uint8 or in [-1,1], and give (B,). The first three trust pixels: they like blur better than
detail in the wrong place. The last one likes detail. LPIPS is not what it is called: no weights were fitted to people's
judgements, and the net is another one, so its key stands in the name of every score.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.batch import to_float
from limner.core.errors import LimnerError
from limner.losses import reconstruction
from limner.metrics.extractors import pretrained
from limner.metrics.extractors.features import checked

_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03  # sections III.B and III.C of the paper of SSIM
_ENDS = (0, 2, 4, 7, 10, 14, 15)
"""The last block of each of EfficientNet-Lite0's seven stages."""
_WIDTHS = (32, 64, 128)

Layers = list[Tensor]
"""Features of images at several layers, (B,K,h,w) each, every position a unit vector."""


def l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference (B,) on the [0,1] scale.

    >>> l1(torch.ones(1, 3, 4, 4), -torch.ones(1, 3, 4, 4))
    tensor([1.])
    """
    x, y = _pair(x, y)
    return (x - y).abs().flatten(1).mean(1) / 2


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) in dB; infinite for equal images."""
    return reconstruction.psnr(*_pair(x, y))


def window(height: int, width: int) -> int:
    """The side of SSIM's Gaussian window: 11 pixels, or the largest odd number that such an image has room for.

    >>> window(64, 48), window(8, 8)
    (11, 7)
    """
    side = min(_WINDOW, height, width)
    return side - (side + 1) % 2


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity (B,) in float64: 1 for equal images.

    Windows are Gaussian, 11×11 with sigma 1.5; K1 = 0.01, K2 = 0.03, and L = 1, since images go to [0,1] first. The
    mean is over all windows that lie wholly inside, and over channels. Images with fewer than 11 pixels a side get the
    `window` that fits them; such values compare only among images of that size.

    >>> ssim(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16))
    tensor([1.], dtype=torch.float64)
    """
    x, y = ((one.double() + 1) / 2 for one in _pair(x, y))
    h, w = x.shape[2:]
    side = window(h, w)
    rows, columns = _averages(side, h).to(x.device), _averages(side, w).T.to(x.device)

    def mean(t: Tensor) -> Tensor:
        return rows @ t @ columns

    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y, cov = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2, mean(x * y) - mu_x * mu_y
    c1, c2 = _K1**2, _K2**2
    similar = (2 * mu_x * mu_y + c1) * (2 * cov + c2) / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))
    return similar.flatten(1).mean(1)


def _averages(side: int, length: int) -> Tensor:
    """The Gaussian at every place of a line, (length-side+1,length): products with it are quicker than convolutions."""
    at = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    weights = (-(at**2) / (2 * _SIGMA**2)).exp()
    weights = weights / weights.sum()
    places = length - side + 1
    return torch.stack([F.pad(weights, (i, places - 1 - i)) for i in range(places)])


class Perceptual:
    """Squared distance of features whose vectors have length 1 at every position; mean over positions and layers.

    d(x, y) = 1/L Σ_l 1/(H_l W_l) Σ_hw |f_l(x)_hw - f_l(y)_hw|²: eq. 1 of Zhang et al. 2018 with w = 1, but for the mean
    over layers, where they have a sum. It lies in [0,4], and images keep their size.

    >>> x = torch.zeros(2, 3, 16, 16)
    >>> Perceptual.random(3)(x, x)
    tensor([0., 0.])

    Args:
        key: names net and weights, for the names of scores.
        net: features (B,K,h,w) at several layers of images (B,C,H,W) in [-1,1].
        channels: numbers of channels that it takes.
        device: where it computes.
    """

    def __init__(
        self, key: str, net: Callable[[Tensor], Layers], channels: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        self.key, self.channels, self.device = key, tuple(channels), torch.device(device)
        self._net = net

    @classmethod
    def effnet(cls, device: torch.device | str = "cpu", weights: str | Path | None = None) -> Perceptual:
        """The seven stages of EfficientNet-Lite0 (ImageNet), for grey and colour.

        Raises:
            LimnerError: the extra ``eval`` is missing, or the weights are.
        """
        net = pretrained.effnet_lite0(weights).to(device)
        key = pretrained.pretrained("effnet-lite0", "cpu", weights).key
        return cls(key, lambda x: _stages(net, x.expand(-1, 3, -1, -1)), (1, 3), device)

    @classmethod
    def random(cls, channels: int, device: torch.device | str = "cpu") -> Perceptual:
        """Three layers with random weights, the same each time, for any number of channels: no data, no download."""
        net = _random_net(channels).to(device)
        return cls("random-conv-v1", lambda x: _outputs(net, x), (channels,), device)

    @classmethod
    def best(cls, channels: int, device: torch.device | str = "cpu", weights: str | Path | None = None) -> Perceptual:
        """EfficientNet-Lite0's features of grey and colour images; random ones of others, or without the extra."""
        if channels in (1, 3):
            try:
                return cls.effnet(device, weights)
            except LimnerError:
                if weights is not None:
                    raise
        return cls.random(channels, device)

    @torch.inference_mode()
    def layers(self, x: Tensor) -> Layers:
        """Unit vectors at every position of every layer.

        Raises:
            LimnerError: these are no such images.
        """
        if x.ndim != 4 or x.shape[1] not in self.channels:
            wanted = " or ".join(map(str, self.channels))
            raise LimnerError(f"{self.key} reads images (B,{wanted},H,W); it got {tuple(x.shape)}")
        with torch.autocast(self.device.type, enabled=False):
            (whole,) = checked(x, max(len(x), 1), self.device)
            return [F.normalize(f, dim=1, eps=1e-10) for f in self._net(whole)]

    def between(self, f: Layers, g: Layers) -> Tensor:
        """Distances (B,), on the CPU, of images with these layers."""
        parts = [(a - b).square().sum(1).flatten(1).mean(1) for a, b in zip(f, g, strict=True)]
        return torch.stack(parts).mean(0).cpu()

    def __call__(self, x: Tensor, y: Tensor, *, batch: int = 32) -> Tensor:
        """Distances (B,) of images x from y, `batch` pairs at a time.

        Raises:
            LimnerError: these are no such pairs.
        """
        x, y = _pair(x, y)
        parts = zip(x.split(batch), y.split(batch), strict=True)
        return torch.cat([self.between(self.layers(a), self.layers(b)) for a, b in parts])


def _stages(net: nn.Module, x: Tensor) -> Layers:
    """What the last block of each stage gives."""
    found: Layers = []

    def keep(_: nn.Module, __: Any, y: Tensor) -> None:
        found.append(y)

    with ExitStack() as hooks:
        for end in _ENDS:
            hooks.callback(net.get_submodule(f"_blocks.{end}").register_forward_hook(keep).remove)
        net(x)
    return found


def _random_net(channels: int) -> nn.Sequential:
    """Convolutions with He's variance, weights from a generator that numpy promises never to change.

    Biases keep a flat grey patch from having a feature vector without a direction.
    """
    chance, layers = np.random.RandomState(0), []
    for before, after in itertools.pairwise((channels, *_WIDTHS)):
        layer = nn.Conv2d(before, after, 3, padding=1, padding_mode="replicate")
        drawn = chance.standard_normal(layer.weight.shape) * (2 / (9 * before)) ** 0.5
        layer.weight = nn.Parameter(torch.from_numpy(drawn).float())
        layer.bias = nn.Parameter(torch.from_numpy(0.3 * chance.standard_normal(after)).float())
        layers.append(layer)
    return nn.Sequential(*layers).requires_grad_(False).eval()


def _outputs(net: nn.Sequential, x: Tensor) -> Layers:
    found: Layers = []
    for layer in net:
        x = layer(x).relu()
        found.append(x)
        x = F.avg_pool2d(x, 2, ceil_mode=True)
    return found


def _pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 4 or x.shape != y.shape or not x.numel():
        raise LimnerError(f"pairs are images (B,C,H,W) of one shape; these are {tuple(x.shape)} and {tuple(y.shape)}")
    return to_float(x), to_float(y)
