"""The nets of LAPGAN: a small GAN for each level of a Laplacian pyramid.

Denton, Chintala, Szlam and Fergus 2015, *Deep generative image models using a Laplacian pyramid of adversarial
networks*, arXiv:1506.05751, and the authors' code. Of an image x the pyramid keeps, for each level k from the finest,
what a smaller image cannot say,

    x_0 = x;   x_{k+1} = down(x_k);   l_k = up(x_{k+1});   h_k = x_k - l_k

and the coarsest image x_K. So x_k = l_k + h_k, and K numbers of details and one small image give x back.

`down` is the mean of 2×2 pixels: Torch's `image.scale`, which the authors use, takes means when it halves. `up` is
bilinear with pixels as squares; theirs aligns the corners. Every weight is a multiple of 1/16, so float32 adds and
subtracts grey levels exactly.

The coarsest level is an MLP GAN. At the others G is three convolutions of a noise plane beside l_k and gives h_k, with
no activation at its end, and D two convolutions (the second with stride 2), dropout and a linear layer of h_k + l_k,
added before the first convolution. Departures: leaky ReLU in D, batch norm in the coarsest G (without it all coarse
images are one for thousands of steps), and weights from N(0, 0.02). Labels are constant planes beside l_k; the authors
first map them to one plane with a linear layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.nets import _labels as labels
from limner.nets import mlp, protocols
from limner.nets._critic import Critic
from limner.nets._layers import VectorNorm, normal_init

Kernels = tuple[int, int, int]


def down(x: Tensor) -> Tensor:
    """Images (B,C,H/2,W/2): the means of squares of 2×2 pixels of images (B,C,H,W)."""
    return F.avg_pool2d(x, 2)


def up(x: Tensor) -> Tensor:
    """Images (B,C,2H,2W): bilinear between pixels of images (B,C,H,W), which begin again at the border."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """Images x_0 = x, …, x_levels, each half as large as the one before."""
    images = [x]
    for _ in range(levels):
        images.append(down(images[-1]))
    return images


def sizes(size: tuple[int, int], levels: int) -> list[tuple[int, int]]:
    """Sizes of the images of a pyramid, from the finest.

    >>> sizes((28, 28), 2)
    [(28, 28), (14, 14), (7, 7)]

    Raises:
        ValueError: an image cannot be halved so often.
    """
    h, w = size
    step = 1 << levels
    if levels < 1 or h % step or w % step or min(h, w) < 2 * step:
        side = max(2, round(min(h, w) / step)) * step
        raise ValueError(
            f"images of {h}×{w} cannot be halved {levels} times to 2 pixels or more; use levels=1 or size={side}"
        )
    return [(h >> k, w >> k) for k in range(levels + 1)]


class _Details(nn.Module):
    """G of a level: noise (B,1,H,W) and a low-pass image (B,C,H,W) -> details (B,C,H,W), unbounded."""

    def __init__(self, channels: int, width: int, kernels: Kernels, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.net = nn.Sequential()
        widths = (1 + channels + classes, width, width, channels)
        for i, ((a, b), kernel) in enumerate(zip(pairwise(widths), kernels, strict=True)):
            self.net.extend([*([nn.ReLU()] if i else []), nn.Conv2d(a, b, kernel, padding=kernel // 2)])
        normal_init(self)

    def forward(self, z: Tensor, low: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net(labels.append_vectors(torch.cat([z, low], 1), y, self.classes))


class _Level(Critic):
    """D of a level: an image l + h (B,C,H,W) -> logits (B,)."""

    def __init__(self, shape: tuple[int, int, int], width: int, dropout: float, classes: int) -> None:
        super().__init__()
        self.classes = classes
        h, w = (-(-side // 2) for side in shape[1:])
        self.net = nn.Sequential(
            nn.Conv2d(shape[0] + classes, width, 5, padding=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 5, 2, padding=2),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(width * h * w, 1),
        )
        normal_init(self)

    def inputs(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return labels.append_vectors(x, y, self.classes)


class Generator(protocols.PyramidGenerator):
    """Noise (B,z) -> images (B,C,H,W): a coarse image, then details of one level after another, which have no bounds.

    Args:
        levels: how often the images are halved. Raise it for larger images; the sides must be divisible by 2^levels.
        coarse_z: size of the noise of the coarsest level. Raise it if images are too alike.
        coarse_widths: units of each hidden layer of the coarsest level (two of 8,000 in the authors' code). Raise them
            if the coarse images lack variety.
        coarse_norm: normalisation of these layers. "batch" keeps the coarse images apart from the start; "none" as in
            the authors' code.
        width: channels of the details' convolutions (64 to 128 in the authors' code). Raise it if details are wrong;
            lower it for speed.
        kernels: sizes of the details' three convolutions. The authors' are 7, 7, 5; smaller ones are quicker.
        conditional: whether every level is told the label. Needs labelled data.
        shape: (C,H,W) of an image; filled from the data.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
    """

    def __init__(
        self,
        levels: int = 2,
        coarse_z: int = 100,
        coarse_widths: tuple[int, ...] = (600, 600),
        coarse_norm: VectorNorm = "batch",
        width: int = 64,
        kernels: Kernels = (7, 7, 5),
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__()
        if any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
            raise ValueError(f"kernels must be odd, so that details keep the size of the image; got {list(kernels)}")
        self.levels, self.sizes = levels, sizes(shape[1:], levels)
        self.classes = labels.one_hot_size(conditional, classes)
        coarse_shape = (shape[0], *self.sizes[-1])
        coarse = mlp.Decoder(
            coarse_z, coarse_widths, conditional=conditional, norm=coarse_norm, shape=coarse_shape, classes=classes
        )
        self.net = nn.ModuleList([_Details(shape[0], width, kernels, self.classes) for _ in range(levels)])
        self.net.append(coarse)
        self.noise = [*((1, h, w) for h, w in self.sizes[:-1]), (coarse_z,)]
        self.z = sum(map(prod, self.noise))
        self.code_shape = (self.z,)

    def split(self, z: Tensor) -> list[Tensor]:
        """The noise of each level, from the finest: planes (B,1,H,W), and (B,coarse_z), of noise (B,z)."""
        parts = z.split([prod(shape) for shape in self.noise], 1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self.noise, strict=True)]

    def images(self, z: Tensor, y: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """The low-pass image l_k and the details h_k of each level, from the finest; the coarsest has no details."""
        noise = self.split(z)
        x: Tensor = self.net[-1](noise[-1], y)
        parts = [(x, torch.zeros_like(x))]
        for k in reversed(range(self.levels)):
            low = up(x)
            h: Tensor = self.net[k](noise[k], low, y)
            parts.insert(0, (low, h))
            x = low + h
        return parts

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of noise (B,z), not clamped: details have no bounds."""
        low, h = self.images(z, y)[0]
        return low + h


class Discriminator(protocols.PyramidCritic):
    """Images (B,C,H,W) -> logits (B,), the sum of those of all levels; ``D.net[k]`` is the discriminator of level k.

    Args:
        levels: how often the images are halved, as G's.
        coarse_widths: units of each hidden layer of the coarsest level. Raise them if its generator wins at once.
        width: channels of the convolutions. Raise it if the details' generators win at once; lower it for speed.
        dropout: probability of dropping an activation before the linear layer. Raise it if D overfits a small set.
        conditional: whether every level is told the label. Needs labelled data.
        shape: (C,H,W) of an image; filled from the data.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
    """

    def __init__(
        self,
        levels: int = 2,
        coarse_widths: tuple[int, ...] = (600, 600),
        width: int = 64,
        dropout: float = 0.5,
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.levels, self.sizes = levels, sizes(shape[1:], levels)
        self.classes = labels.one_hot_size(conditional, classes)
        self.net = nn.ModuleList([_Level((shape[0], *size), width, dropout, self.classes) for size in self.sizes[:-1]])
        self.net.append(
            mlp.Discriminator(
                coarse_widths, conditional=conditional, shape=(shape[0], *self.sizes[-1]), classes=classes
            )
        )

    def layers(self) -> Iterable[nn.Module]:
        return (self,)  # no chain: `input_gradient` asks autograd

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits (B,) of images (B,C,H,W): how real their pyramids look, over all levels."""
        logits: list[Tensor] = [D(x_k, y) for D, x_k in zip(self.net, pyramid(x, self.levels), strict=True)]
        return torch.stack(logits).sum(0)
