"""The nets of PacGAN's experiments, for comparisons with its published numbers of modes.

Lin, Khetan, Fanti and Oh 2018, *PacGAN: the power of two samples in generative adversarial networks*, arXiv:1712.04086.
`Generator` and `Discriminator` are for points in the plane (section 4.1: the 8-ring and the 25-grid); their widths,
norms and initial values are those of the authors' code. `StackedGenerator` and `StackedDiscriminator` are for Stacked
MNIST at (3,28,28) (section 4.2, after the VEEGAN paper's experiment): the DCGAN nets of T. Kim's TensorFlow code, with
5×5 kernels and "same" padding. The architecture alone changes those numbers by an order of magnitude.

Packing changes D's first layer only: its input is `pack` images, concatenated along the channels.

Departure: layers before batch norm have no bias, which it would subtract again.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod

from torch import Tensor, nn

from limner.nets import protocols
from limner.nets._critic import Critic
from limner.nets._layers import Maxout, SameConv2d, SameConvTranspose2d, check_batch_norm


def _init(net: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0."""
    for m in net.modules():
        if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(m.weight, 0.0, 0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


# ---- points in the plane --------------------------------------------------------------------------------------------


class Generator(protocols.Generator):
    """Noise (B,z) -> points (B,C,H,W), any real numbers: four hidden layers of ReLU with batch norm, then a linear one.

    Args:
        z: size of the noise vector; 2 in the paper.
        width: units of each hidden layer; 400 in the paper. Raise it if modes are blurred; lower it for speed.
        shape: (C,H,W) of a point; filled from the data.
    """

    classes = 0

    def __init__(self, z: int = 2, width: int = 400, *, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.z, self.code_shape, self.image_shape = z, (z,), shape
        self.net = nn.Sequential()
        for a, b in pairwise((z, *[width] * 4)):
            # 1e-4 and 0.05 are the authors' values (0.05 is 1 - TensorFlow's 0.95)
            self.net.extend([nn.Linear(a, b, bias=False), nn.BatchNorm1d(b, eps=1e-4, momentum=0.05), nn.ReLU()])
        self.net.append(nn.Linear(width, prod(shape)))
        _init(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Points (B,C,H,W) of noise (B,z)."""
        return self.net(z).unflatten(1, self.image_shape)

    def check_batch(self, n: int) -> None:
        """Refuses batches of a single point, which has no variance for batch norm."""
        check_batch_norm(n)


class Discriminator(Critic):
    """Points (B,C,H,W) -> logits (B/pack,): three hidden layers of linear maxout, no norm.

    Args:
        width: units of each hidden layer; 200 in the paper. Raise it if the generator wins at once; lower it if its
            loss only grows.
        pieces: linear functions of whose values a unit gives the maximum; 5 in the paper. Raise it for a D with more
            pieces; lower it for speed.
        pack: points that get one logit; 2, 3 and 4 in the paper. Raise it if modes are missing; lower it for more
            logits from the same points. It must divide the batch.
        shape: (C,H,W) of a point; filled from the data.
    """

    def __init__(self, width: int = 200, pieces: int = 5, pack: int = 1, *, shape: tuple[int, int, int]) -> None:
        super().__init__(pack)
        self.net = nn.Sequential()
        for a, b in pairwise((pack * prod(shape), *[width] * 3)):
            self.net.extend([nn.Linear(a, b * pieces), Maxout(pieces)])
        self.net.append(nn.Linear(width, 1))
        _init(self)

    def inputs(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Input of the first layer for points (B,C,H,W): (B/pack,pack*C*H*W)."""
        return self.packed(x.flatten(1))


# ---- Stacked MNIST --------------------------------------------------------------------------------------------------


def _halvings(shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Sizes of the image and of four halvings of it, rounded up.

    >>> _halvings((3, 28, 28))
    [(28, 28), (14, 14), (7, 7), (4, 4), (2, 2)]
    """
    return [(-(-shape[1] // 2**k), -(-shape[2] // 2**k)) for k in range(5)]


class StackedGenerator(protocols.Generator):
    """Noise (B,z) -> images (B,C,H,W) in [-1,1]: a dense layer, then four 5×5 transposed convolutions.

    Maps of 512, 256, 128 and 64 channels; at (3,28,28) they have 2, 4, 7 and 14 pixels a side.

    Args:
        z: size of the noise vector; 100 in the paper, uniform on [-1,1].
        width: channels of the last hidden map; 64 in the paper. Raise it if images lack detail; lower it for speed.
        shape: (C,H,W) of an image; filled from the data.
    """

    classes = 0

    def __init__(self, z: int = 100, width: int = 64, *, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.z, self.code_shape = z, (z,)
        *sizes, base = _halvings(shape)
        widths = [8 * width, 4 * width, 2 * width, width]
        # The dense layer has a bias for each position of the small map, which batch norm does not subtract.
        self.net = nn.Sequential(nn.Linear(z, widths[0] * prod(base)), nn.Unflatten(1, (widths[0], *base)))
        for (a, b), size in zip(pairwise([*widths, shape[0]]), reversed(sizes), strict=True):
            last = size is sizes[0]
            self.net.extend([nn.BatchNorm2d(a), nn.ReLU(), SameConvTranspose2d(a, b, 5, 2, size, bias=last)])
        self.net.append(nn.Tanh())
        _init(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of noise (B,z)."""
        return self.net(z)


class StackedDiscriminator(Critic):
    """Images (B,C,H,W) -> logits (B/pack,): four 5×5 convolutions of stride 2, then a dense layer.

    Args:
        width: channels of the first map; 64 in the paper. Raise it if the generator wins at once; lower it if its loss
            only grows.
        pack: images that get one logit; 2, 3 and 4 in the paper. Raise it if modes are missing; lower it for more
            logits from the same images. It must divide the batch.
        shape: (C,H,W) of an image; filled from the data.
    """

    def __init__(self, width: int = 64, pack: int = 1, *, shape: tuple[int, int, int]) -> None:
        super().__init__(pack)
        widths = [pack * shape[0], width, 2 * width, 4 * width, 8 * width]
        self.net = nn.Sequential()
        for i, (a, b) in enumerate(pairwise(widths)):
            self.net.append(SameConv2d(a, b, 5, 2, bias=i == 0))
            self.net.extend([*([nn.BatchNorm2d(b)] if i else []), nn.LeakyReLU(0.2)])
        self.net.extend([nn.Flatten(), nn.Linear(widths[-1] * prod(_halvings(shape)[-1]), 1)])
        _init(self)
