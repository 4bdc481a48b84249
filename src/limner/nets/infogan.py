"""The nets of InfoGAN for small images, where Q shares all of D but its last layer.

Chen et al. 2016, *InfoGAN*, arXiv:1606.03657, appendix C.1, table 1 (MNIST): in D two 4×4 stride-2 convolutions and a
layer of 1024 units, batch norm except after the first convolution, LeakyReLU; G mirrors it with ReLU. Weights are drawn
from N(0, 0.02), as in the authors' code. Departures: any image size and any number of convolutions, tanh instead of a
sigmoid because images lie in [-1,1], and a slope of 0.2 in LeakyReLU (0.1 in the paper, 0.01 in their code).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import prod
from typing import Literal

from torch import Tensor, nn

from limner.nets import protocols
from limner.nets._critic import apply_spectral_norm
from limner.nets._layers import check_batch_norm


def _init(net: nn.Module) -> None:
    for m in net.modules():
        if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(m.weight, 0.0, 0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def _map(shape: tuple[int, int, int], widths: tuple[int, ...]) -> tuple[int, int]:
    """Size of the smallest map, rounded up."""
    if not widths or min(shape[1:]) >> len(widths) < 2:
        h, w = shape[1:]
        raise ValueError(
            f"widths has {len(widths)} convolutions, and images of {h}×{w} must be halved at least once and to no less "
            "than 2 pixels; give more or fewer widths"
        )
    h, w = (-(-n // (1 << len(widths))) for n in shape[1:])
    return h, w


class Generator(protocols.Generator):
    """Noise and codes (B,z) -> images (B,C,H,W) in [-1,1]: two linear layers, then transposed convolutions of stride 2.

    Args:
        z: length of the input, noise and codes together (74 in the paper: 62 + 10 + 1 + 1).
        widths: channels of the maps, from the smallest. Raise them if images lack detail; lower them for speed.
        hidden: units of the first layer. Raise it if images are too alike; lower it for speed.
        shape: (C,H,W) of an image; filled from the data.
    """

    classes = 0

    def __init__(
        self, z: int = 74, widths: tuple[int, ...] = (128, 64), hidden: int = 1024, *, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.z, self.code_shape, self.size = z, (z,), shape[1:]
        smallest = _map(shape, widths)
        base = (widths[0], *smallest)
        self.net = nn.Sequential(
            nn.Linear(z, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, prod(base), bias=False),
            nn.BatchNorm1d(prod(base)),
            nn.ReLU(),
            nn.Unflatten(1, base),
        )
        for a, b in pairwise(widths):
            self.net.extend([nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()])
        self.net.extend([nn.ConvTranspose2d(widths[-1], shape[0], 4, 2, 1), nn.Tanh()])
        _init(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of noise and codes (B,z)."""
        h, w = self.size
        return self.net(z)[..., :h, :w]  # the smallest map is rounded up

    def check_batch(self, n: int) -> None:
        """Refuses batches of a single image, which has no variance for batch norm."""
        check_batch_norm(n)


class Discriminator(protocols.FeatureCritic):
    """Images (B,C,H,W) -> logits (B,): 4×4 stride-2 convolutions, a layer of features, and one linear layer.

    Args:
        widths: channels of the convolutions, each of which halves the maps. Raise them if the generator wins at once;
            lower them for speed.
        hidden: number of features, from which D tells real from generated images and Q estimates the codes. Raise it
            if Q's bound stays low; lower it for speed.
        norm: "batch" as in the paper; "none" with spectral norm.
        spectral: whether to divide every weight by its largest singular value (Miyato et al. 2018), which bounds D's
            gradient. Use it, with norm=none, if D wins.
        shape: (C,H,W) of an image; filled from the data.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 128),
        hidden: int = 1024,
        norm: Literal["batch", "none"] = "batch",
        spectral: bool = False,
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        _map(shape, widths)
        h, w = (n >> len(widths) for n in shape[1:])
        self.features = hidden
        self.trunk = trunk = nn.Sequential()
        normed = norm == "batch"
        for i, (a, b) in enumerate(pairwise((shape[0], *widths))):
            trunk.append(nn.Conv2d(a, b, 4, 2, 1, bias=not i or not normed))
            trunk.extend([*([nn.BatchNorm2d(b)] if i and normed else []), nn.LeakyReLU(0.2)])
        units = widths[-1] * h * w
        trunk.extend([nn.Flatten(), nn.Linear(units, hidden, bias=not normed)])
        trunk.extend([*([nn.BatchNorm1d(hidden)] if normed else []), nn.LeakyReLU(0.2)])
        self.head = nn.Linear(hidden, 1)
        _init(self)
        if spectral:
            apply_spectral_norm(self)

    def layers(self) -> Iterable[nn.Module]:
        return (self.trunk, self.head)


def recogniser(features: int, outputs: int, hidden: int = 128) -> nn.Sequential:
    """The layers of Q after those that it shares with D: (B,features) -> parameters (B,outputs) of Q(c|x)."""
    net = nn.Sequential(
        nn.Linear(features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, outputs)
    )
    _init(net)
    return net
