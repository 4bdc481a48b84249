"""What models expect of the nets that are passed to them.

A model's constructor names one of these base classes, as in ``G: Generator``, and a net that does not derive from it is
refused when the model is built. To write a net of your own, derive from the base class, set its attributes in the
constructor and write `forward`:

    class Affine(protocols.Generator):
        def __init__(self, z: int = 8, *, shape: tuple[int, int, int]) -> None:
            super().__init__()
            self.z, self.code_shape, self.shape = z, (z,), shape
            self.net = nn.Linear(z, prod(shape))

        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return self.net(z).tanh().unflatten(1, self.shape)

A net may have a method ``check_batch(n)``, which raises ValueError for batches of n images that it cannot be trained
on. Image-to-image nets need no base class: models call them with images (B,C',H,W) alone. In the others y are the
labels of conditional nets, class indices (B,) int64 or vectors (B,size) float32, or None. A net that can be conditional
has an argument ``conditional``: true means in its usual way, a word in another one, such as "cbn" or "projection".
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from limner.nets import _labels as labels
from limner.nets._critic import BoundCritic, Critic
from limner.nets._equalised import Linear
from limner.nets._style import NoiseMaps

__all__ = [
    "BoundCritic",
    "Critic",
    "Decoder",
    "Denoiser",
    "Dequantiser",
    "Encoder",
    "FeatureCritic",
    "Flow",
    "Generator",
    "GrowingCritic",
    "GrowingGenerator",
    "PyramidCritic",
    "PyramidGenerator",
    "StyleGenerator",
    "mixes_images",
]


class Encoder(nn.Module):
    """Images (B,C,H,W) -> codes (B,*code_shape), or with several heads vectors (B,heads·z).

    Attributes:
        code_shape: shape of one code, without the batch.
        heads: number of vectors of size z in the output: 2 are a mean and a log variance.
    """

    code_shape: tuple[int, ...]
    heads: int = 1


class Decoder(nn.Module):
    """Codes (B,*code_shape) -> images (B,C,H,W) in [-1,1], or logits or parameters of a likelihood.

    Attributes:
        z: number of entries of a code.
        code_shape: shape of one code, without the batch; (z,) for a vector.
        classes: length of the labels' vectors, such as the number of classes; 0 if the net does not take labels.
    """

    z: int
    code_shape: tuple[int, ...]
    classes: int = 0


Generator = Decoder
"""The generator of a GAN: a decoder of noise (B,z)."""


class Denoiser(nn.Module):
    """Noisy images (B,C,H,W), noise levels c and classes y -> predictions (B,heads·C,H,W) of any range.

    It is called as ``net(x, c, y)``. c (B,) or (B,times) is of order 1, such as a time in [0,1] or ln(σ)/4; c (1,) or
    (1,times) is one noise level for all images. y (B,) int64 may have the null class, index `classes`, for images whose
    class is not told; y=None is the null class for all. A net with ``classes == 0`` does not look at y.

    Args:
        heads: numbers for each entry of an image in the output: 2 for a mean and a variance.
        times: numbers in c.
        conditional: whether the class is an input.
        shape: (C,H,W) of an image; filled from the data.
        classes: number of classes; filled from the data.
    """

    def __init__(
        self,
        heads: int = 1,
        times: int = 1,
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__()
        if heads < 1 or times < 1:
            raise ValueError(f"a denoiser has 1 or more heads and times; got heads={heads} times={times}")
        self.shape, self.heads, self.times = shape, heads, times
        self.classes = labels.one_hot_size(conditional, classes)


class FeatureCritic(Critic):
    """A critic whose last layer is apart, so that other nets can share all layers before it.

    ``D.head(D.trunk(x))`` are the logits (B,1) of images x (B,C,H,W).

    Attributes:
        features: F, the number of features of an image.
        trunk: images (B,C,H,W) -> features (B,F).
        head: features (B,F) -> logits (B,1).
    """

    features: int
    trunk: nn.Module
    head: nn.Module


class GrowingGenerator(Generator):
    """A generator for progressive growing: ``G(z, level=1.5)`` gives images of that level.

    Attributes:
        levels: number of doublings from the first images to the data's size.
    """

    levels: int


class GrowingCritic(Critic):
    """A critic for progressive growing: ``D(x, level=1.5)`` takes images of that level.

    Attributes:
        levels: number of doublings from the first images to the data's size.
    """

    levels: int


class PyramidGenerator(Generator):
    """A generator of a Laplacian pyramid: noise (B,z) -> images (B,C,H,W), level by level.

    Attributes:
        levels: K, how often the images are halved.
        net: G of each level, from the finest: noise (B,1,H,W), a low-pass image (B,C,H,W) and labels -> details; the
            last one, noise and labels -> the coarsest image.
        noise: shape of the noise of each level, from the finest, without the batch.
        classes: number of classes; 0 if it is not conditional.
    """

    levels: int
    net: nn.ModuleList
    noise: list[tuple[int, ...]]
    classes: int

    def images(self, z: Tensor, y: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """The low-pass image and the details of each level, from the finest."""
        raise NotImplementedError


class PyramidCritic(Critic):
    """A critic of a Laplacian pyramid, with one net for the images of each level.

    Attributes:
        levels: K, how often the images are halved.
        net: D of each level, from the finest: images (B,C,H,W) and labels -> logits (B,).
    """

    levels: int
    net: nn.ModuleList


class StyleGenerator(Generator):
    """A generator that maps noise to w, and makes an image of one w for each layer (Karras et al. 2019).

    Args:
        z: size of the noise vector.
        w: size of w.
        styles: L, the number of layers that take a w of their own, from the coarsest.
        mapping: noise (B,z) and labels -> w (B,w).
        classes: length of the labels' vectors; 0 if the net does not take labels.

    Attributes:
        w_mean: (w,) mean of w over the training so far; whoever trains the net keeps it.
        noise: the maps of noise; `noise.total` is N, the numbers of an image.
        layers: the convolutions in order; each has `affine`, the equalised linear layer from its w to its style.
    """

    w_mean: Tensor
    noise: NoiseMaps
    layers: nn.ModuleList

    def __init__(self, z: int, w: int, styles: int, mapping: nn.Module, classes: int = 0) -> None:
        super().__init__()
        self.z, self.code_shape, self.classes = z, (z,), classes
        self.w, self.L, self.mapping = w, styles, mapping
        self.register_buffer("w_mean", torch.zeros(w))

    def styles(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Styles (B,L,w), equal for all layers, of noise (B,z) and labels (B,…)."""
        w: Tensor = self.mapping(z, y)
        return w[:, None].expand(-1, self.L, -1)

    def synthesis(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of styles (B,L,w) and noise (B,N) or (1,N), the fixed noise if there is none."""
        raise NotImplementedError

    def modulations(self) -> list[Tensor]:
        """The linear map (channels,w) by which each convolution takes its style from w; images have none here."""
        affines = (layer.affine for layer in self.layers)
        return [affine.scale * affine.weight for affine in affines if isinstance(affine, Linear)]

    def forward(self, z: Tensor, y: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of noise (B,z) and labels (B,…)."""
        return self.synthesis(self.styles(z, y), noise)


class Flow(nn.Module):
    """An invertible net between data x (B,C,H,W) and a base z (B,D) with D = C·H·W, of which N(0, I) is the density.

    The density of x is the density of z times the change of volume: log p(x) = log N(z; 0, I) + log|det dz/dx|. The
    base is always N(0, I_D). A net with learnt priors of its parts applies them inside itself, as affine maps that
    count in the determinant.

    ``flow(x, y)`` gives z (B,D) and log|det dz/dx| (B,) in nats, float32 or wider also under autocast.
    """

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Data (B,C,H,W) of base points z (B,D), the inverse of `forward`."""
        raise NotImplementedError

    def warm_up(self, x: Tensor, y: Tensor | None = None, mean: Callable[[Tensor], Tensor] | None = None) -> None:
        """Sets parameters that depend on data, once, from a batch x (B,C,H,W); most nets have none.

        Args:
            x: a batch of data, as `forward` gets them.
            y: its class indices (B,), or None.
            mean: averages a tensor over all ranks, so that they start from equal weights; None with a single one.
        """


class Dequantiser(nn.Module):
    """A distribution q(u|x) of noise u (B,C,H,W) in [0,1) that spreads each pixel over the width of its grey level.

    ``dequantiser(eps, x)`` makes the noise of standard normal eps (B,C,H,W) for images x (B,C,H,W) in [-1,1], and gives
    its log density log q(u|x) (B,) in nats: 0 for evenly spread noise.
    """

    def forward(self, eps: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def mixes_images(critic: nn.Module) -> bool:
    """Whether a logit depends on other images of the batch, so that a logit has no gradient at one image alone.

    Batch norm and features of the batch have that effect. Packs (`Critic.pack`) do not: a pack is one input of the
    critic.
    """
    batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in critic.modules())
    return batch_norm or bool(getattr(critic, "mixes", False))
