"""DCGAN nets: those of Radford et al. 2016 at any image size, and those of TensorFlow's tutorial.

Radford, Metz and Chintala 2016, *Unsupervised representation learning with deep convolutional generative adversarial
networks*, arXiv:1511.06434: strides instead of pooling, batch norm except at G's output and D's input, no fully
connected hidden layers, ReLU and tanh in G, LeakyReLU 0.2 in D, weights from N(0, 0.02). `Generator` and
`Discriminator` do so at any size of 8 pixels or more; at 64×64×3 they have the parameter counts of PyTorch's tutorial
(3,576,704 and 2,765,568).

`TFGenerator` and `TFDiscriminator` are the nets of TensorFlow's DCGAN tutorial, which departs from the paper: a dense
first layer, LeakyReLU 0.3 in G, 5×5 kernels with "same" padding, no batch norm in D but dropout.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Literal

from torch import Tensor, nn

from limner.nets import _labels as labels
from limner.nets import protocols
from limner.nets._critic import Critic, Minibatch, apply_spectral_norm, minibatch_features, projected
from limner.nets._layers import (
    MapNorm,
    SameConv2d,
    SameConvTranspose2d,
    always_on_dropout,
    check_batch_norm,
    needs_bias,
    norm_2d,
    normal_init,
)
from limner.nets._layers import activation as rectifier

Rectifier = Literal["relu", "leaky_relu"]


def _doublings(shape: tuple[int, int, int]) -> int:
    """Number of doublings from a map of about 4 pixels on its shorter side to the image: floor(log2(min(H,W) / 4))."""
    n = (min(shape[1:]) // 4).bit_length() - 1
    if n < 1:
        h, w = shape[1:]
        raise ValueError(f"images of {h}×{w} are too small for dcgan nets (8 pixels at least); use mlp or conv nets")
    return n


def _norm(name: MapNorm, channels: int, size: int) -> list[nn.Module]:
    """The norm of a map; labels of `size` numbers choose its scale and shift if `size` is not 0."""
    norms = norm_2d(name, channels, affine=not size)
    return [labels.ConditionalNorm(norm, size, channels) for norm in norms] if size else norms


class Generator(protocols.Generator):
    """Noise (B,z) -> images (B,C,H,W) in [-1,1]: a small map, then 4×4 stride-2 transposed convolutions.

    Args:
        z: size of the noise vector.
        width: channels of the last hidden map; they double at each step towards the smallest map. Raise it if images
            lack detail; lower it for speed and memory.
        norm: "batch" as in the paper; "instance" or "layer", which normalise each image separately, if batches are
            very small; "none" to compare.
        dropout: probability of dropping an activation, in training and in sampling: a second source of noise
            (Isola et al. 2017, arXiv:1611.07004, section 3.1). Raise it (to 0.5 there) if samples are too alike; lower
            it if they are noisy.
        activation: "relu" as in the paper; "leaky_relu" (slope 0.2) if many units stay at zero.
        conditional: whether the label of each image is an input too: true appends its vector to the noise, and "text"
            its vector reduced to 128 numbers (Reed et al. 2016), for captions; with "cbn" it chooses the scale and
            shift of every norm (conditional batch norm, de Vries et al. 2017), which tells the label to all layers.
            Needs labelled data.
        text_gain: with conditional: text, the factor of captions' vectors. Raise it (to 20, say) if pictures do not
            follow the caption; lower it if all pictures of a caption look alike.
        shape: (C,H,W) of an image; filled from the data.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
    """

    def __init__(
        self,
        z: int = 100,
        width: int = 64,
        norm: MapNorm = "batch",
        dropout: float = 0.0,
        activation: Rectifier = "relu",
        conditional: bool | Literal["cbn", "text"] = False,
        text_gain: float = 1.0,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.z, self.code_shape = z, (z,)
        self.classes = labels.one_hot_size(conditional, classes)
        by_norm = self.classes if conditional == "cbn" else 0
        if by_norm and norm == "none":
            raise ValueError("conditional=cbn sets the scale and shift of a norm; use norm=batch, or conditional=true")
        self.reduced = labels.Reduced(self.classes, gain=text_gain) if conditional == "text" else None
        self.appended = self.reduced.features if self.reduced else self.classes - by_norm
        self.size = shape[1:]
        n = _doublings(shape)
        scale = 2**n
        base = (-(-shape[1] // scale), -(-shape[2] // scale))  # rounded up, and cropped in `forward`
        bias = needs_bias(norm)
        widths = [width << k for k in reversed(range(n))]

        def after(channels: int) -> list[nn.Module]:
            return [*_norm(norm, channels, by_norm), rectifier(activation), *always_on_dropout(dropout)]

        self.net = nn.Sequential(nn.ConvTranspose2d(z + self.appended, widths[0], base, bias=bias))
        for a, b in pairwise(widths):
            self.net.extend(after(a))
            self.net.append(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=bias))
        self.net.extend(after(width))
        self.net.extend([nn.ConvTranspose2d(width, shape[0], 4, 2, 1, bias=bias), nn.Tanh()])
        normal_init(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of noise (B,z), and of labels if the net is conditional."""
        h, w = self.size
        label = self.reduced(y) if self.reduced else y
        seed = labels.append_vectors(z, label, self.appended)[:, :, None, None]
        return labels.through(self.net, seed, y)[..., :h, :w]


class Discriminator(Critic):
    """Images (B,C,H,W) -> logits (B/pack,): 4×4 stride-2 convolutions, then one over the whole small map.

    Args:
        width: channels of the first map; they double at each step. Raise it if the generator wins at once; lower it
            if the generator's loss only grows.
        norm: "batch" as in the paper; for gradient penalties, for which a logit must depend on one image, "layer" as in
            WGAN-GP (Gulrajani et al. 2017, section 4), "instance", or "none" (the fastest).
        dropout: probability of dropping an activation. Raise it (to 0.3, say) if D overfits a small set.
        spectral: whether to divide every weight by its largest singular value (Miyato et al. 2018), which bounds D's
            gradient. Use it, with norm=none, if D wins; it is not needed with a gradient penalty.
        minibatch: features of the batch, with which D sees that samples are too alike: "std", one number for how much
            images differ (Karras et al. 2018), or "discrimination", how close each is to the others in 100 learned
            spaces (Salimans et al. 2016), slower and larger. "none" if D wins at once with them.
        pack: images that get one logit (Lin et al. 2018). Raise it (to 2, 3 or 4) if modes are missing; lower it for
            more logits from the same images. It must divide the batch.
        conditional: whether the label of each image is an input too: true as constant planes beside the image, in the
            form of what they add to the first map; "projection" adds the product of the last map with a learnt vector
            of the label to the logit (Miyato and Koyama 2018), which suits many classes; "text" joins the vector,
            reduced to 128 numbers, to the last map (Reed et al. 2016), for captions. Needs labelled data.
        text_gain: with conditional: text, the factor of captions' vectors. Raise it (to 20, say) if pictures do not
            follow the caption; lower it if pictures follow it and look bad.
        classifiers: vectors of class logits that D gives besides its logit: 1 for AC-GAN, 2 for its successors.
        shape: (C,H,W) of an image; filled from the data.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
    """

    def __init__(
        self,
        width: int = 64,
        norm: MapNorm = "batch",
        dropout: float = 0.0,
        spectral: bool = False,
        minibatch: Minibatch = "none",
        pack: int = 1,
        conditional: bool | Literal["projection", "text"] = False,
        text_gain: float = 1.0,
        classifiers: int = 0,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__(pack)
        self.classes = labels.one_hot_size(conditional, classes)
        n = _doublings(shape)
        base = (shape[1] >> n, shape[2] >> n)
        bias = needs_bias(norm)
        widths = [pack * shape[0], *(width << k for k in range(n))]
        self.net = nn.Sequential()
        for i, (a, b) in enumerate(pairwise(widths)):
            self.net.append(nn.Conv2d(a, b, 4, 2, 1, bias=bias))
            if not i and conditional is True:
                self.net.append(labels.Shift(self.classes, b, pack))
            self.net.extend([*(norm_2d(norm, b) if i else []), nn.LeakyReLU(0.2)])
            if dropout:
                self.net.append(nn.Dropout(dropout))
        if conditional == "text":
            if pack > 1:
                raise ValueError("a pack of images has no text; use pack=1, or conditional=true")
            self.net.append(labels.Joined(self.classes, widths[-1], norm_2d(norm, widths[-1]), text_gain))
        features, extra = minibatch_features(minibatch, widths[-1] * prod(base))
        head = nn.Conv2d(widths[-1] + extra, 1, base, bias=bias)
        n_phi = (widths[-1] + extra) * prod(base)
        self.net.extend(
            [*features, projected(head, n_phi, self.classes, pack) if conditional == "projection" else head]
        )
        self.add_classifiers(classifiers, n_phi, classes)
        normal_init(self)
        if spectral:
            apply_spectral_norm(self)


# ---- TensorFlow's tutorial -----------------------------------------------------------------------------------------


def _keras_init(net: nn.Module) -> None:
    """Initialises as Keras does by default: Glorot uniform weights, zero biases."""
    for m in net.modules():
        if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


class TFGenerator(protocols.Generator):
    """Noise (B,z) -> images (B,C,H,W) in [-1,1], as in TensorFlow's DCGAN tutorial.

    2,305,472 trainable parameters at (1,28,28), and 25,472 running statistics of batch norm.

    Args:
        z: size of the noise vector.
        shape: (C,H,W) of an image; filled from the data.
    """

    def __init__(self, z: int = 100, *, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.z, self.code_shape = z, (z,)
        self.size = shape[1:]
        base = (256, *(-(-side // 4) for side in self.size))  # rounded up, and cropped in `forward`
        self.net = nn.Sequential(
            nn.Linear(z, prod(base), bias=False),
            nn.BatchNorm1d(prod(base), eps=1e-3, momentum=0.01),  # Keras's 1e-3, and 1 - Keras's 0.99
            nn.LeakyReLU(0.3),  # Keras's default slope
            nn.Unflatten(1, base),
            SameConvTranspose2d(256, 128, 5, 1),
            nn.BatchNorm2d(128, eps=1e-3, momentum=0.01),
            nn.LeakyReLU(0.3),
            SameConvTranspose2d(128, 64, 5, 2),
            nn.BatchNorm2d(64, eps=1e-3, momentum=0.01),
            nn.LeakyReLU(0.3),
            SameConvTranspose2d(64, shape[0], 5, 2),
            nn.Tanh(),
        )
        _keras_init(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of noise (B,z)."""
        h, w = self.size
        return self.net(z)[..., :h, :w]

    def check_batch(self, n: int) -> None:
        """Refuses batches of a single image, which has no variance for the first batch norm."""
        check_batch_norm(n)


class TFDiscriminator(Critic):
    """Images (B,C,H,W) -> logits (B,), as in TensorFlow's DCGAN tutorial: 212,865 parameters at (1,28,28).

    Args:
        shape: (C,H,W) of an image; filled from the data.
    """

    def __init__(self, *, shape: tuple[int, int, int]) -> None:
        super().__init__()
        h, w = (-(-side // 4) for side in shape[1:])
        self.net = nn.Sequential(
            SameConv2d(shape[0], 64, 5, 2),
            nn.LeakyReLU(0.3),
            nn.Dropout(0.3),
            SameConv2d(64, 128, 5, 2),
            nn.LeakyReLU(0.3),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(128 * h * w, 1),
        )
        _keras_init(self)
