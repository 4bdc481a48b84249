"""The nets of CoGAN: generators that share their first layers, and discriminators that share their last ones.

Liu and Tuzel 2016, *Coupled generative adversarial networks*, arXiv:1606.07536, appendix A, table 1, and the authors'
code for digits and edges. Their generator ends with one layer of its own and their discriminator begins with one, and
all others are shared. G has transposed convolutions with batch norm and PReLU, D two convolutions with max pooling and
two linear layers. Departures: any image size; kernels of 4×4 in place of 3×3, so that every layer doubles; padding, so
that D's maps are not cut; in D leaky ReLU with the slope that their PReLU begins with; tanh instead of a sigmoid, as
images lie in [-1,1].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from limner.nets import protocols
from limner.nets._critic import Critic


class _Coupled(nn.Module):
    """A net in two parts, one of which it may take from another net.

    Attributes:
        part: the part that can be shared; empty once the one of another net is used.
        own: the part that is always the net's own.
    """

    part: nn.Sequential
    own: nn.Sequential
    _lender: tuple[nn.Sequential, ...] = ()

    @property
    def shared(self) -> nn.Sequential:
        """The part that can be shared."""
        return self._lender[0] if self._lender else self.part

    def share(self, other: _Coupled) -> None:
        """Uses the shared part of another net from now on. Optimise, save and copy both nets as parts of one module.

        Raises:
            ValueError: the parts have different shapes.
        """
        mine, theirs = ([tuple(p.shape) for p in net.shared.parameters()] for net in (self, other))
        if mine != theirs:
            raise ValueError("nets that share layers must be alike; give both the same width, z and own layers")
        # A tuple hides the layers from nn.Module, so that a checkpoint has them once, under the name of the other net.
        self._lender, self.part = (other.shared,), nn.Sequential()


def _check(name: str, own: int, layers: int) -> None:
    if not 1 <= own <= layers:
        raise ValueError(f"{name} has {layers} layers, of which 1 to {layers} can be its own; got {own}")


class Generator(_Coupled, protocols.Generator):
    """Noise (B,z) -> images (B,C,H,W) in [-1,1]: transposed convolutions, and a 5×5 convolution.

    Args:
        z: size of the noise vector.
        width: channels of the largest map; they double at each step towards the smallest. Raise it if images lack
            detail; lower it for speed.
        own: last layers that are not shared. Raise it if the domains differ in more than local detail; lower it if
            pairs do not correspond.
        shape: (C,H,W) of an image; filled from the data.
    """

    classes = 0

    def __init__(self, z: int = 100, width: int = 64, own: int = 1, *, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.z, self.code_shape, self.size = z, (z,), shape[1:]
        n = max(0, (min(shape[1:]) // 4).bit_length() - 1)  # doublings from about 4 pixels
        base = (-(-shape[1] // (1 << n)), -(-shape[2] // (1 << n)))  # rounded up, and cropped in `forward`
        channels = [width << k for k in reversed(range(n + 1))]
        blocks = [self._block(nn.ConvTranspose2d(z, channels[0], base, bias=False), channels[0])]
        for a, b in pairwise(channels):
            blocks.append(self._block(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), b))
        blocks.append(nn.Sequential(nn.Conv2d(width, shape[0], 5, padding=2), nn.Tanh()))
        _check("this generator", own, len(blocks))
        self.part, self.own = nn.Sequential(*blocks[:-own]), nn.Sequential(*blocks[-own:])

    @staticmethod
    def _block(layer: nn.Module, channels: int) -> nn.Sequential:
        return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.PReLU())

    def begin(self, z: Tensor) -> Tensor:
        """Maps of noise (B,z) after the shared layers."""
        return self.shared(z[:, :, None, None])

    def finish(self, h: Tensor) -> Tensor:
        """Images (B,C,H,W) of the maps of `begin`."""
        height, width = self.size
        return self.own(h)[..., :height, :width]

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of noise (B,z)."""
        return self.finish(self.begin(z))


class Discriminator(_Coupled, Critic):
    """Images (B,C,H,W) -> logits (B,): two 5×5 convolutions with 2×2 max pooling, and two linear layers.

    Args:
        width: channels of the first convolution; the second has two and a half times as many. Raise it if the generator
            wins at once; lower it for speed.
        hidden: units of the first linear layer. Raise it if the generator wins at once; lower it for speed.
        own: first layers that are not shared. Raise it if the domains differ in more than local detail; lower it if
            pairs do not correspond.
        shape: (C,H,W) of an image; filled from the data.
    """

    def __init__(self, width: int = 20, hidden: int = 500, own: int = 1, *, shape: tuple[int, int, int]) -> None:
        super().__init__()
        if min(shape[1:]) < 4:
            raise ValueError(f"images of {shape[1]}×{shape[2]} are too small to be halved twice; use 4 pixels or more")
        wide, maps = 5 * width // 2, tuple(side // 4 for side in shape[1:])
        blocks: Sequence[nn.Module] = (
            nn.Sequential(nn.Conv2d(shape[0], width, 5, padding=2), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(width, wide, 5, padding=2), nn.MaxPool2d(2)),
            nn.Sequential(nn.Flatten(), nn.Linear(wide * prod(maps), hidden), nn.LeakyReLU(0.25)),
            nn.Linear(hidden, 1),
        )
        _check("this discriminator", own, len(blocks))
        self.own, self.part = nn.Sequential(*blocks[:own]), nn.Sequential(*blocks[own:])

    def layers(self) -> Iterable[nn.Module]:
        return self.own, self.shared
