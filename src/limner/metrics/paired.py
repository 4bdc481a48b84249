"""Distances between images and their targets, one by one: of pixels, of structure, of features.

================  =================================================================================================
function          definition
================  =================================================================================================
`l1`              mean absolute difference on the [0,1] scale
`psnr`            10 log10(peak² / MSE) in dB
`ssim`            structural similarity: Wang, Bovik, Sheikh and Simoncelli 2004, *Image quality assessment: from error
                  visibility to structural similarity*, eq. 13
`Perceptual`      distance of convolutional features: Zhang, Isola, Efros, Shechtman and Wang 2018, arXiv:1801.03924,
                  eq. 1 with w = 1
================  =================================================================================================

All take x and y (B,C,H,W), uint8 or in [-1,1], and give (B,). The first three compare pixels, so blur scores better
than detail at slightly wrong positions; the last one prefers detail. It is not LPIPS: no weights were fitted to human
judgements, and the net is another one, so its key is part of the name of every score.
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
from limner.metrics.extractors.features import checked, random_conv

_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03  # sections III.B and III.C of the paper of SSIM
_ENDS = (0, 2, 4, 7, 10, 14, 15)
"""Indices of the last block of each of EfficientNet-Lite0's seven stages."""
_WIDTHS = (32, 64, 128)

Layers = list[Tensor]
"""Features of images at several layers, (B,K,h,w) each, with a unit vector at every position."""


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
    """The side of SSIM's Gaussian window: 11 pixels, or the largest odd number that fits into the image.

    >>> window(64, 48), window(8, 8)
    (11, 7)
    """
    side = min(_WINDOW, height, width)
    return side - (side + 1) % 2


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity (B,) in float64: 1 for equal images.

    Windows are Gaussian, 11×11 with sigma 1.5; K1 = 0.01, K2 = 0.03, and L = 1, since images are first mapped to [0,1].
    The mean is over channels and over all windows inside the image. Images with fewer than 11 pixels a side get the
    `window` that fits; such values can be compared only between images of that size.

    >>> ssim(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16))
    tensor([1.], dtype=torch.float64)
    """
    x, y = ((image.double() + 1) / 2 for image in _pair(x, y))
    h, w = x.shape[2:]
    side = window(h, w)
    rows, columns = _window_matrix(side, h).to(x.device), _window_matrix(side, w).T.to(x.device)

    def mean(t: Tensor) -> Tensor:
        return rows @ t @ columns

    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y, cov = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2, mean(x * y) - mu_x * mu_y
    c1, c2 = _K1**2, _K2**2
    similar = (2 * mu_x * mu_y + c1) * (2 * cov + c2) / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))
    return similar.flatten(1).mean(1)


def _window_matrix(side: int, length: int) -> Tensor:
    """The Gaussian at every position of a line, (length-side+1,length); products are faster than convolutions."""
    offsets = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    weights = (-(offsets**2) / (2 * _SIGMA**2)).exp()
    weights = weights / weights.sum()
    positions = length - side + 1
    return torch.stack([F.pad(weights, (i, positions - 1 - i)) for i in range(positions)])


class Perceptual:
    """Squared distance of features with unit vectors at every position, mean over positions and layers.

    d(x, y) = 1/L Σ_l 1/(H_l W_l) Σ_hw |f_l(x)_hw - f_l(y)_hw|²: eq. 1 of Zhang et al. 2018 with w = 1, and with a mean
    over layers instead of a sum. It lies in [0,4]. Images are not resized.

    >>> x = torch.zeros(2, 3, 16, 16)
    >>> Perceptual.random(3)(x, x)
    tensor([0., 0.])

    Args:
        key: name of net and weights, for the names of scores.
        net: computes features (B,K,h,w) at several layers from images (B,C,H,W) in [-1,1].
        channels: numbers of channels that the net accepts.
        device: where it computes.
    """

    def __init__(
        self, key: str, net: Callable[[Tensor], Layers], channels: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        self.key, self.channels, self.device = key, tuple(channels), torch.device(device)
        self._net = net

    @classmethod
    def effnet(cls, device: torch.device | str = "cpu", weights: str | Path | None = None) -> Perceptual:
        """The seven stages of EfficientNet-Lite0 (ImageNet), for grey and colour images.

        Raises:
            LimnerError: the extra ``eval`` or the weights are missing.
        """
        net = pretrained.effnet_lite0(weights).to(device)
        key = pretrained.pretrained("effnet-lite0", "cpu", weights).key
        return cls(key, lambda x: _stage_outputs(net, x.expand(-1, 3, -1, -1)), (1, 3), device)

    @classmethod
    def random(cls, channels: int, device: torch.device | str = "cpu") -> Perceptual:
        """Three layers with fixed random weights, for any number of channels; needs no download."""
        net = _random_net(channels).to(device)
        return cls("random-conv-v1", lambda x: _layer_outputs(net, x), (channels,), device)

    @classmethod
    def best(cls, channels: int, device: torch.device | str = "cpu", weights: str | Path | None = None) -> Perceptual:
        """EfficientNet-Lite0 for grey and colour images if the extra ``eval`` is installed, else random layers."""
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
            LimnerError: the shape or the range of x is wrong.
        """
        if x.ndim != 4 or x.shape[1] not in self.channels:
            counts = " or ".join(map(str, self.channels))
            raise LimnerError(f"{self.key} reads images (B,{counts},H,W); it got {tuple(x.shape)}")
        with torch.autocast(self.device.type, enabled=False):
            (images,) = checked(x, max(len(x), 1), self.device)
            return [F.normalize(f, dim=1, eps=1e-10) for f in self._net(images)]

    def toward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances (B,) of images x (B,C,H,W) from y, with a gradient in x; x may leave [-1,1].

        Both are on the device of the net.
        """
        with torch.autocast(self.device.type, enabled=False):
            f, g = ([F.normalize(f, dim=1, eps=1e-10) for f in self._net(each.float())] for each in (x, y.detach()))
        return torch.stack([(a - b).square().sum(1).flatten(1).mean(1) for a, b in zip(f, g, strict=True)]).mean(0)

    def between(self, f: Layers, g: Layers) -> Tensor:
        """Distances (B,), on the CPU, of images with these layers."""
        parts = [(a - b).square().sum(1).flatten(1).mean(1) for a, b in zip(f, g, strict=True)]
        return torch.stack(parts).mean(0).cpu()

    def __call__(self, x: Tensor, y: Tensor, *, batch: int = 32) -> Tensor:
        """Distances (B,) of images x from y, `batch` pairs at a time.

        Raises:
            LimnerError: shapes or ranges of x and y are wrong.
        """
        x, y = _pair(x, y)
        parts = zip(x.split(batch), y.split(batch), strict=True)
        return torch.cat([self.between(self.layers(a), self.layers(b)) for a, b in parts])


def _stage_outputs(net: nn.Module, x: Tensor) -> Layers:
    """The outputs of the last block of each stage."""
    layers: Layers = []

    def append_output(_: nn.Module, __: Any, y: Tensor) -> None:
        layers.append(y)

    with ExitStack() as hooks:
        for end in _ENDS:
            hooks.callback(net.get_submodule(f"_blocks.{end}").register_forward_hook(append_output).remove)
        net(x)
    return layers


def _random_net(channels: int) -> nn.Sequential:
    """Random convolutions; without their biases, the features of a flat grey patch would be 0."""
    rng, layers = np.random.RandomState(0), []
    for before, after in itertools.pairwise((channels, *_WIDTHS)):
        layer = random_conv(rng, before, after, padding_mode="replicate")
        layer.bias = nn.Parameter(torch.from_numpy(0.3 * rng.standard_normal(after)).float())
        layers.append(layer)
    return nn.Sequential(*layers).requires_grad_(False).eval()


def _layer_outputs(net: nn.Sequential, x: Tensor) -> Layers:
    layers: Layers = []
    for layer in net:
        x = layer(x).relu()
        layers.append(x)
        x = F.avg_pool2d(x, 2, ceil_mode=True)
    return layers


def _pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 4 or x.shape != y.shape or not x.numel():
        raise LimnerError(f"x and y must be images (B,C,H,W) of one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    return to_float(x), to_float(y)
