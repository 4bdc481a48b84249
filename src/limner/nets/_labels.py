"""Labels as inputs of a net: vectors, constant planes, scales and shifts of a norm, or a term of a logit.

Labels are class indices (B,) int64, which stand for one-hot vectors, or vectors (B,size) of attributes or of a text.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def one_hot_size(conditional: bool | str, classes: int) -> int:
    """Number of label inputs of a net: `classes` if it is conditional in any way, else 0."""
    if conditional and classes < 1:
        way = "true" if conditional is True else conditional
        raise ValueError(
            f"conditional={way} needs data with class labels, attributes or captions; use class folders or a"
            " metadata.csv, or conditional=false"
        )
    return classes if conditional else 0


def vectors(y: Tensor | None, size: int) -> Tensor:
    """The labels as vectors (B,size): one-hot vectors of class indices y (B,) int64; vectors y (B,size) themselves.

    >>> vectors(torch.tensor([0, 2]), 3)
    tensor([[1., 0., 0.],
            [0., 0., 1.]])

    Raises:
        ValueError: there are no labels, or vectors of another size.
    """
    if y is None:
        raise ValueError("this net is conditional; give the label y of every sample")
    if y.dim() == 1:
        # `F.one_hot` would read y on the host and so wait for the device.
        return (y[:, None] == torch.arange(size, device=y.device)).float()
    if y.shape[1] != size:
        raise ValueError(f"this net takes label vectors of {size} numbers, got {y.shape[1]}")
    return y


def append_vectors(x: Tensor, y: Tensor | None, size: int) -> Tensor:
    """Returns x (B,n) or (B,n,H,W) with the vectors of labels y appended to dimension 1; x alone if size is 0.

    >>> append_vectors(torch.zeros(2, 1), torch.tensor([0, 2]), 3)
    tensor([[0., 1., 0., 0.],
            [0., 0., 0., 1.]])
    """
    if size == 0:
        return x
    v = vectors(y, size).to(x.dtype)
    if x.dim() == 4:
        v = v[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, v], 1)


class Embedding(nn.Embedding):
    """A learnt vector for each class, or for other labels the sum of those of their entries: a linear map of vectors.

    Args:
        size: length of the labels' vectors.
        features: length of the result.
        null: whether there is one more vector, for images whose label is not told: index `size`, or a vector of zeros.
    """

    def __init__(self, size: int, features: int, null: bool = False) -> None:
        super().__init__(size + null, features)
        self.size, self.null = size, null

    def forward(self, y: Tensor | None) -> Tensor:
        """Features (B,features) of class indices (B,) or vectors (B,size).

        Raises:
            ValueError: there are no labels, or vectors of another size.
        """
        if y is not None and y.dim() == 1:
            return super().forward(y)
        v = vectors(y, self.size)
        if self.null:
            v = torch.cat([v, 1 - v.any(1, keepdim=True).to(v.dtype)], 1)
        return v.to(self.weight.dtype) @ self.weight


class Labelled(nn.Module):
    """A layer that takes labels as well, ``layer(h, y)``."""


def through(layers: Iterable[nn.Module], h: Tensor, y: Tensor | None) -> Tensor:
    """The output of layers in a row for an input h (B,…); those that are `Labelled` get the labels y too."""
    for layer in layers:
        if isinstance(layer, nn.Sequential):
            h = through(layer, h, y)
        else:
            h = layer(h, y) if isinstance(layer, Labelled) else layer(h)
    return h


class Shift(Labelled):
    """Adds numbers that the label chooses to each channel of a map, after a convolution.

    A convolution of (x, planes of the label's vector) is the convolution of x plus a shift for each label, except at
    the border, where zeros are in the planes' place. So this is the label as an input of the layer before (Mirza and
    Osindero 2014, arXiv:1411.1784), at no cost however long the vector is.

    Args:
        size: length of the labels' vectors.
        channels: channels of the map.
        pack: images of one input, each with a label.
    """

    def __init__(self, size: int, channels: int, pack: int = 1) -> None:
        super().__init__()
        self.size, self.pack = size, pack
        self.E = Embedding(pack * size, channels)
        nn.init.normal_(self.E.weight, 0.0, 0.1)  # about the sum of a 4×4 kernel's weights of N(0, 0.02), 0.08

    def forward(self, h: Tensor, y: Tensor | None) -> Tensor:
        """Maps (B/pack,channels,H,W) of maps and labels (B,…)."""
        if self.pack > 1:
            y = vectors(y, self.size).unflatten(0, (-1, self.pack)).flatten(1)
        return h + self.E(y)[:, :, None, None]


class Reduced(nn.Module):
    """A label's vector, reduced to fewer numbers: a linear map and LeakyReLU 0.2 (Reed et al. 2016, section 4.1).

    Args:
        size: length of the labels' vectors.
        features: length of the result; 128 in the paper.
        gain: factor of the vectors. Texts that differ in one word have nearly the same vector; with a gain their
            difference counts beside noise and maps, and Adam learns the map that much faster.
    """

    def __init__(self, size: int, features: int = 128, gain: float = 1.0) -> None:
        super().__init__()
        if not gain > 0:
            raise ValueError(f"text_gain is a factor above 0, got {gain:g}")
        self.features, self.E, self.bias = features, Embedding(size, features), nn.Parameter(torch.zeros(features))
        self.gain = gain
        nn.init.normal_(self.E.weight, 0.0, size**-0.5)  # numbers of about 1 for entries of about 1

    def forward(self, y: Tensor | None) -> Tensor:
        """Vectors (B,features) of labels (B,…)."""
        return nn.functional.leaky_relu(self.gain * self.E(y) + self.bias, 0.2)


class Joined(Labelled):
    """A small map that is joined by the reduced vector of the label at every place, and mixed with it by a convolution.

    Reed et al. 2016, *Generative adversarial text to image synthesis*, arXiv:1605.05396, figure 2: D looks at the image
    first, and compares what it saw with the text.

    Args:
        size: length of the labels' vectors.
        channels: channels of the map.
        norm: the norm after the 1×1 convolution.
        gain: factor of the labels' vectors.
    """

    def __init__(self, size: int, channels: int, norm: list[nn.Module], gain: float = 1.0) -> None:
        super().__init__()
        self.reduced = Reduced(size, gain=gain)
        mixed = nn.Conv2d(channels + self.reduced.features, channels, 1, bias=not norm)
        self.net = nn.Sequential(mixed, *norm, nn.LeakyReLU(0.2))

    def forward(self, h: Tensor, y: Tensor | None) -> Tensor:
        """Maps (B,channels,H,W) of the same, with labels (B,…)."""
        v = self.reduced(y)
        return self.net(append_vectors(h, v, self.reduced.features))


class ConditionalNorm(Labelled):
    """A norm whose scale and shift the label chooses.

    With batch norm this is conditional batch norm (de Vries et al. 2017, arXiv:1707.00683), with instance norm that of
    Dumoulin et al. 2017 (arXiv:1610.07629).

    Args:
        norm: a norm without scale and shift.
        size: length of the labels' vectors.
        channels: channels of the map, or units.
    """

    def __init__(self, norm: nn.Module, size: int, channels: int) -> None:
        super().__init__()
        self.norm = norm
        self.scale, self.shift = Embedding(size, channels), Embedding(size, channels)
        nn.init.normal_(self.scale.weight, 0.0, 0.02)  # about 1: a vector of several ones chooses a sum
        nn.init.zeros_(self.shift.weight)

    def forward(self, h: Tensor, y: Tensor | None) -> Tensor:
        """Maps (B,channels,H,W) or units (B,channels) of the same, with labels (B,…)."""
        places = (slice(None), slice(None), *[None] * (h.dim() - 2))
        return self.norm(h) * (1 + self.scale(y)[places]) + self.shift(y)[places]


class Projection(Labelled):
    """The last layer of a projection discriminator: f(x,y) = l(φ(x)) + ⟨V_y, φ(x)⟩.

    Miyato and Koyama 2018, *cGANs with projection discriminator*, arXiv:1802.05637, eq. 3 and figure 1d.

    Args:
        head: l, a linear layer or a convolution over the whole map, with one output.
        size: length of the labels' vectors.
        features: number of entries of φ(x).
    """

    def __init__(self, head: nn.Linear | nn.Conv2d, size: int, features: int) -> None:
        super().__init__()
        self.head = head
        self.V = Embedding(size, features)
        nn.init.normal_(self.V.weight, 0.0, 0.02)

    def forward(self, phi: Tensor, y: Tensor | None) -> Tensor:
        """Logits (B,) of features (B,…) and labels (B,…)."""
        return self.head(phi).flatten() + (self.V(y) * phi.flatten(1)).sum(1)
