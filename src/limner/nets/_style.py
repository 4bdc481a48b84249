"""What the generators of StyleGAN and StyleGAN2 share: the mapping net, the styles of the layers, the maps of noise.

Karras, Laine and Aila 2019, *A style-based generator architecture for generative adversarial networks*,
arXiv:1812.04948, section 2: z is mapped to w, and each layer takes from its own w how much of each channel there is.
"""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn

from limner.nets._equalised import Linear
from limner.nets._labels import Embedding
from limner.nets._layers import PixelNorm

SLOPE = 0.2
RATE = 0.01  # of the mapping net's learning rate


class Mapping(nn.Module):
    """Noise (B,z), and labels if there are any, -> w (B,features): normalised, joined, and some linear layers.

    A label's vector is embedded without bias and normalised like z (Karras et al. 2020, arXiv:2006.06676, the authors'
    code).

    Args:
        z: size of the noise vector; 0 for a mapping of labels alone.
        features: size of w.
        layers: number of linear layers.
        classes: length of the labels' vectors; 0 without labels.
    """

    def __init__(self, z: int, features: int, layers: int, classes: int = 0) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"mapping is a number of layers, 1 or more; got {layers}")
        self.norm = PixelNorm()
        self.embed = Embedding(classes, features) if classes else None
        widths = [z + (features if classes else 0), *[features] * layers]
        net = [(Linear(a, b, gain=sqrt(2), rate=RATE), nn.LeakyReLU(SLOPE)) for a, b in pairwise(widths)]
        self.net = nn.Sequential(*(layer for pair in net for layer in pair))

    def forward(self, z: Tensor | None, y: Tensor | None = None) -> Tensor:
        """Vectors w (B,features) of noise (B,z) and labels (B,…)."""
        parts = [] if z is None else [self.norm(z)]
        if self.embed is not None:
            parts.append(self.norm(self.embed(y)))
        h: Tensor = self.net(torch.cat(parts, 1))
        return h


class NoiseMaps(nn.Module):
    """Maps of noise of one channel, one for each convolution, as a vector (B,N) for each image.

    Args:
        sizes: sizes of the maps in order.

    Attributes:
        total: N.
        fixed: (1,N) noise that never changes, so that an image is a function of its styles alone.
    """

    fixed: Tensor

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.sizes, self.total = sizes, sum(h * w for h, w in sizes)
        self.register_buffer("fixed", torch.randn(1, self.total))

    def forward(self, noise: Tensor | None) -> list[Tensor]:
        """Maps (B,1,h,w) of noise (B,N); None stands for the fixed noise."""
        flat = (self.fixed if noise is None else noise).split([h * w for h, w in self.sizes], 1)
        return [part.unflatten(1, (1, *size)) for part, size in zip(flat, self.sizes, strict=True)]
