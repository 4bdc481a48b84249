"""What models ask of the nets that are given to them.

A constructor that writes ``G: Generator`` gets no other kind of net: the catalogue compares when the model is built. A
net of your own states what it is by its base class, and has the attributes named here.
"""

from __future__ import annotations

from torch import nn

from limner.nets._critic import BoundCritic, Critic

__all__ = [
    "BoundCritic",
    "Critic",
    "Decoder",
    "Encoder",
    "Generator",
    "GrowingCritic",
    "GrowingGenerator",
    "mixes_images",
]


class Encoder(nn.Module):
    """Images (B,C,H,W) -> codes (B,*code_shape), or (B,heads·z).

    Attributes:
        code_shape: shape of one code.
        heads: how many vectors of the code's size it gives: 2 for a mean and a log variance.
    """

    code_shape: tuple[int, ...]
    heads: int = 1


class Decoder(nn.Module):
    """Codes (B,z) or (B,*code_shape) -> images (B,C,H,W).

    Attributes:
        z: numbers in a code.
        code_shape: shape of one code.
    """

    z: int
    code_shape: tuple[int, ...]


Generator = Decoder
"""The decoder of noise: what a decoder is called in a GAN."""


class GrowingGenerator(Generator):
    """A generator that draws images of any level, ``G(z, level=1.5)``.

    Attributes:
        levels: how often the first images double.
    """

    levels: int


class GrowingCritic(Critic):
    """A critic of images of any level, ``D(x, level=1.5)``.

    Attributes:
        levels: how often the first images double.
    """

    levels: int


def mixes_images(critic: nn.Module) -> bool:
    """Whether a logit depends on other images of the batch, so that no image has a gradient of its own.

    Batch norm and features of the batch do that. Packs (`Critic.pack`) do not: a pack is one thing that is judged.
    """
    batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in critic.modules())
    return batch_norm or bool(getattr(critic, "mixes", False))
