"""Nets of the conditional adversarial autoencoder: encoder, generator, and the two discriminators.

Zhang, Song and Qi 2017, *Age progression/regression by conditional adversarial autoencoder*, arXiv:1702.08423, figure 3
and the authors' code (`FaceAging.py`, commit cb5a5b2): 5×5 convolutions of stride 2 with TensorFlow's "same" padding
and ReLU, no norm in E and G, batch norm in both discriminators. At 128×128 the nets have the paper's channels; smaller
images are halved fewer times, always down to about 4 pixels.

Labels are inputs as the authors have them: vectors of −1 and 1. G gets them repeated until they are about as long as z;
D gets them as maps beside the first convolution's, so it looks at the image before it is told the label.

Weights are drawn as He et al. 2015 do (arXiv:1502.01852) instead of from N(0, 0.02), which without a norm is right for
wide nets only.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod

from torch import Tensor, nn

from limner.nets import _labels as labels
from limner.nets import protocols
from limner.nets._critic import Critic
from limner.nets._layers import SameConv2d, SameConvTranspose2d, check_batch_norm


def _halvings(shape: tuple[int, int, int]) -> int:
    """Number of halvings from the image to a map of about 4 pixels on its shorter side."""
    return max(1, (min(shape[1:]) // 4).bit_length() - 1)


def _reduced(shape: tuple[int, int, int], n: int) -> tuple[int, int]:
    """(h,w) of the map after n halvings that round up."""
    return -(-shape[1] // 2**n), -(-shape[2] // 2**n)


def _signs(y: Tensor | None, size: int) -> Tensor:
    """Label vectors (B,size) as numbers from −1 to 1: −1 for what the label does not say."""
    return 2 * labels.vectors(y, size) - 1


def _he_init(net: nn.Module) -> None:
    for m in net.modules():
        if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


class Encoder(protocols.Encoder):
    """Images (B,C,H,W) -> codes (B,z), any numbers: 5×5 stride-2 convolutions, then one linear layer.

    Args:
        z: size of the code. Raise it if faces lose their identity; lower it for a prior that codes fill better.
        width: channels of the first map; they double at each step. Raise it if pictures lack detail; lower it for
            speed and memory.
        shape: (C,H,W) of an image; filled from the data.
    """

    def __init__(self, z: int, width: int = 64, *, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.z, self.code_shape = z, (z,)
        n = _halvings(shape)
        widths = [shape[0], *(width << k for k in range(n))]
        self.net = nn.Sequential()
        for a, b in pairwise(widths):
            self.net.extend([SameConv2d(a, b, 5, 2), nn.ReLU()])
        head = nn.Linear(widths[-1] * prod(_reduced(shape, n)), z)
        self.net.extend([nn.Flatten(), head])
        _he_init(self)
        nn.init.normal_(head.weight, 0.0, 0.02)  # small codes at first, where the tanh has a slope

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (B,z) of images (B,C,H,W)."""
        return self.net(x)


class Generator(protocols.Generator):
    """Codes (B,z) and labels -> images (B,C,H,W) in [-1,1]: a linear layer, 5×5 stride-2 transposed convolutions.

    Two convolutions of stride 1 end it, as in the authors' code.

    Args:
        z: size of the code.
        width: channels of the encoder's first map; here the second last doubling has so many. Raise it if pictures lack
            detail; lower it for speed and memory.
        conditional: whether the label is an input too. Needs labelled data.
        shape: (C,H,W) of an image; filled from the data.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
    """

    def __init__(
        self,
        z: int,
        width: int = 64,
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.z, self.code_shape, self.size = z, (z,), shape[1:]
        self.classes = labels.one_hot_size(conditional, classes)
        self.repeats = max(1, z // self.classes) if self.classes else 0
        n = _halvings(shape)
        self.map_shape = ((width << n) // 2, *_reduced(shape, n))
        widths = [self.map_shape[0] >> k for k in range(n + 1)]
        self.stem = nn.Linear(z + self.repeats * self.classes, prod(self.map_shape))
        self.net = nn.Sequential(nn.ReLU())
        for a, b in pairwise(widths):
            self.net.extend([SameConvTranspose2d(a, b, 5, 2, bias=True), nn.ReLU()])
        last = max(1, widths[-1] // 2)
        self.net.extend([SameConv2d(widths[-1], last, 5, 1), nn.ReLU(), SameConv2d(last, shape[0], 5, 1), nn.Tanh()])
        _he_init(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of codes (B,z), and of labels (B,…) if the net is conditional."""
        h, w = self.size
        v = _signs(y, self.classes).repeat(1, self.repeats) if self.classes else None
        joined = labels.append_vectors(z, v, self.repeats * self.classes)
        return self.net(self.stem(joined).unflatten(1, self.map_shape))[..., :h, :w]


class _LabelMaps(labels.Labelled):
    """Appends the label to a map as constant maps.

    Args:
        size: length of the labels' vectors.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, h: Tensor, y: Tensor | None) -> Tensor:
        """Maps (B,channels+size,H,W) of maps (B,channels,H,W) and labels (B,…)."""
        return labels.append_vectors(h, _signs(y, self.size), self.size)


class Discriminator(Critic):
    """Images and labels -> logits (B,): four 5×5 stride-2 convolutions, then two linear layers.

    Args:
        width: channels of the first map; they double at each step. Raise it if the generator wins at once; lower it if
            the generator's loss only grows.
        conditional: whether the label is an input too, as maps beside the first convolution's. Needs labelled data.
        shape: (C,H,W) of an image; filled from the data.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
    """

    def __init__(
        self, width: int = 16, conditional: bool = False, *, shape: tuple[int, int, int], classes: int = 0
    ) -> None:
        super().__init__()
        self.classes = labels.one_hot_size(conditional, classes)
        widths = [width << k for k in range(4)]
        self.net = nn.Sequential(SameConv2d(shape[0], width, 5, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        if self.classes:
            self.net.append(_LabelMaps(self.classes))
        for k, (a, b) in enumerate(pairwise(widths)):
            self.net.extend(
                [SameConv2d(a + (0 if k else self.classes), b, 5, 2, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
            )
        features = widths[-1] * prod(_reduced(shape, 4))
        hidden = 64 * width  # 1024 in the paper
        self.net.extend([nn.Flatten(), nn.Linear(features, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)])
        _he_init(self)

    def check_batch(self, n: int) -> None:
        """Refuses batches of a single image, which may have no variance for batch norm."""
        check_batch_norm(n)


class CodeDiscriminator(Critic):
    """Codes (B,z) -> logits (B,): high means from the prior. Fully connected, with batch norm.

    Args:
        z: size of the code.
        widths: units of each hidden layer. Raise them if codes do not fill the prior; lower them if E's loss only
            grows.
        shape: (C,H,W) of an image; filled from the data, and of no effect on codes.
    """

    def __init__(self, z: int, widths: tuple[int, ...] = (64, 32, 16), *, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.z = z
        self.net = nn.Sequential()
        for a, b in pairwise((z, *widths)):
            self.net.extend([nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU()])
        self.net.append(nn.Linear((z, *widths)[-1], 1))
        _he_init(self)

    def check_batch(self, n: int) -> None:
        """Refuses batches of a single code, which has no variance for batch norm."""
        check_batch_norm(n)
