"""Convolutional encoders and decoders.

`PoolEncoder` convolves and pools to a map as code; `TransposedDecoder` inverts it by transposed convolutions,
`NearestDecoder` by repeating pixels before each convolution. On (1,28,28) the first two have 50,161 parameters and a
code of 64×2×2. `Encoder` and `Decoder` are stride-2 nets with a vector as code, for images of any size, aspect ratio
and number of channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Literal

from torch import Tensor, nn

from limner.nets import _labels as labels
from limner.nets import protocols
from limner.nets._layers import Norm, Output, norm_2d, output

Pool = Literal["max", "average"]
Size = tuple[int, int]


def _check_lengths(count: int, **lists: Sequence[int]) -> None:
    for name, values in lists.items():
        if len(values) != count:
            raise ValueError(f"{name} has {len(values)} entries for {count} layers; give one for each layer")


def _times(size: Sequence[int]) -> str:
    return "×".join(map(str, size))


# ---- a map as code: convolutions and pooling; transposed convolutions or nearest-neighbour upsampling ----------------


def pool_sizes(
    size: Size,
    kernels: Sequence[int],
    strides: Sequence[int],
    paddings: Sequence[int],
    pool_strides: Sequence[int],
) -> list[Size]:
    """Map sizes in a `PoolEncoder`: of the image, then after each convolution and each 2×2 pooling.

    >>> [h for h, _ in pool_sizes((28, 28), (3, 3), (3, 2), (1, 1), (2, 1))]
    [28, 10, 5, 3, 2]
    """
    sizes = [size]
    for kernel, stride, padding, pool_stride in zip(kernels, strides, paddings, pool_strides, strict=True):
        for k, s, p in ((kernel, stride, padding), (2, pool_stride, 0)):
            h, w = ((n + 2 * p - k) // s + 1 for n in sizes[-1])
            if min(h, w) < 1:
                raise ValueError(
                    f"images of {_times(size)} are too small for these convolutions and poolings; "
                    "use larger images, or smaller or fewer strides"
                )
            sizes.append((h, w))
    return sizes


class PoolEncoder(protocols.Encoder):
    """Image (B,C,H,W) -> code (B,widths[-1],h,w): convolution, ReLU and 2×2 pooling for each width.

    Args:
        widths: channels of each layer; the last is the code's. Raise the last for better reconstructions; lower it
            for a stronger compression.
        kernels: kernel size of each convolution.
        strides: stride of each convolution. Lower them for a larger code map.
        paddings: zero padding of each convolution.
        pool: "max" or "average" of each 2×2 window.
        pool_strides: stride of each pooling: 2 halves the map, 1 makes it one row and one column smaller.
        shape: (C,H,W) of an image; filled from the data.
    """

    classes = 0

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64),
        kernels: tuple[int, ...] = (3, 3),
        strides: tuple[int, ...] = (3, 2),
        paddings: tuple[int, ...] = (1, 1),
        pool: Pool = "max",
        pool_strides: tuple[int, ...] = (2, 1),
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        _check_lengths(len(widths), kernels=kernels, strides=strides, paddings=paddings, pool_strides=pool_strides)
        sizes = pool_sizes(shape[1:], kernels, strides, paddings, pool_strides)
        pooling = nn.MaxPool2d if pool == "max" else nn.AvgPool2d
        channels = (shape[0], *widths)
        self.code_shape = (channels[-1], *sizes[-1])
        self.z = prod(self.code_shape)
        self.blocks = nn.Sequential()
        for i, (k, s, p, t) in enumerate(zip(kernels, strides, paddings, pool_strides, strict=True)):
            conv = nn.Conv2d(channels[i], channels[i + 1], k, s, p)
            self.blocks.append(nn.Sequential(conv, nn.ReLU(), pooling(2, t)))

    def layers(self, x: Tensor, y: Tensor | None = None) -> list[Tensor]:
        """The map after each pooling; the last is the code."""
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (B,*code_shape) of images (B,C,H,W)."""
        return self.blocks(x)


def _transposed_input(n: int, kernels: Sequence[int], strides: Sequence[int], paddings: Sequence[int]) -> int:
    """Input size for which transposed convolutions give `n` pixels, rounded down."""
    for k, s, p in zip(reversed(kernels), reversed(strides), reversed(paddings), strict=True):
        n = max(1, (n + 2 * p - k) // s + 1)
    return n


def _transposed_output(n: int, kernels: Sequence[int], strides: Sequence[int], paddings: Sequence[int]) -> int:
    for k, s, p in zip(kernels, strides, paddings, strict=True):
        n = (n - 1) * s - 2 * p + k
    return n


class TransposedDecoder(protocols.Decoder):
    """Code (B,channels,h,w) -> image (B,C,H,W): transposed convolutions with ReLU between them.

    The code's size h×w follows from H×W and the strides.

    Args:
        widths: channels between the layers; one fewer than there are kernels. Raise them for better images.
        kernels: kernel size of each transposed convolution.
        strides: stride of each transposed convolution.
        paddings: rows and columns cropped at each side by each transposed convolution.
        channels: channels of the code: the encoder's last width.
        out: "tanh" keeps images in [-1,1]; "linear" for a loss that takes logits.
        shape: (C,H,W) of an image; filled from the data.
    """

    classes = 0

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 16),
        kernels: tuple[int, ...] = (3, 5, 2),
        strides: tuple[int, ...] = (2, 3, 2),
        paddings: tuple[int, ...] = (0, 1, 1),
        channels: int = 64,
        out: Output = "tanh",
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        _check_lengths(len(widths) + 1, kernels=kernels, strides=strides, paddings=paddings)
        size = shape[1:]
        code = [_transposed_input(n, kernels, strides, paddings) for n in size]
        result = [_transposed_output(n, kernels, strides, paddings) for n in code]
        if result != list(size):
            raise ValueError(
                f"these transposed convolutions turn a code of {_times(code)} into {_times(result)}, not into images "
                f"of {_times(size)}; resize them to {_times(result)}, change the strides, or use conv.NearestDecoder"
            )
        self.code_shape = (channels, *code)
        self.z = prod(self.code_shape)
        channels_of = (channels, *widths, shape[0])
        self.net = nn.Sequential()
        for i, (k, s, p) in enumerate(zip(kernels, strides, paddings, strict=True)):
            self.net.append(nn.ConvTranspose2d(channels_of[i], channels_of[i + 1], k, s, p))
            self.net.append(nn.ReLU() if i < len(widths) else output(out, shape[0], 1))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of codes (B,*code_shape)."""
        return self.net(z)


class NearestDecoder(protocols.Decoder):
    """Code (B,widths[-1],h,w) -> image (B,C,H,W): nearest-neighbour up-sampling and a 3×3 convolution at each step.

    Its map sizes are those of the `PoolEncoder` with the same arguments, in reverse, so it fits any image. Without a
    norm training often fails on mostly black images: the last bias saturates tanh at -1 before the weights have
    changed.

    Args:
        widths: the encoder's widths.
        kernels: the encoder's kernels.
        strides: the encoder's strides.
        paddings: the encoder's paddings.
        pool_strides: the encoder's pool_strides.
        norm: "batch" after each hidden convolution; "none" if batches are very small.
        out: "tanh" keeps images in [-1,1]; "linear" for a loss that takes logits.
        shape: (C,H,W) of an image; filled from the data.
    """

    classes = 0

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64),
        kernels: tuple[int, ...] = (3, 3),
        strides: tuple[int, ...] = (3, 2),
        paddings: tuple[int, ...] = (1, 1),
        pool_strides: tuple[int, ...] = (2, 1),
        norm: Norm = "batch",
        out: Output = "tanh",
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        _check_lengths(len(widths), kernels=kernels, strides=strides, paddings=paddings, pool_strides=pool_strides)
        sizes = pool_sizes(shape[1:], kernels, strides, paddings, pool_strides)
        channels = [shape[0], *(w for width in widths for w in (width, width))]
        # A convolution may keep the size: each size counts once, with the channels that it first has in the encoder.
        channels_at: dict[Size, int] = {}
        for size, c in zip(sizes, channels, strict=True):
            channels_at.setdefault(size, c)
        self.code_shape = (channels[-1], *sizes[-1])
        self.z = prod(self.code_shape)
        self.net = nn.Sequential()
        c = channels[-1]
        for size in list(channels_at)[-2::-1]:
            self.net.append(nn.Upsample(size=size, mode="nearest"))
            last = size == shape[1:]
            self.net.append(nn.Conv2d(c, channels_at[size], 3, padding=1, bias=last or norm == "none"))
            self.net.extend([output(out, shape[0], 1)] if last else [*norm_2d(norm, channels_at[size]), nn.ReLU()])
            c = channels_at[size]

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of codes (B,*code_shape)."""
        return self.net(z)


# ---- Stride-2 nets with a vector as code ---------------------------------------------------------------------------


class Encoder(protocols.Encoder):
    """Image (B,C,H,W) -> code (B, heads*z): 4×4 stride-2 convolutions, then one linear layer.

    Args:
        z: size of the code. Raise it if reconstructions lack detail; lower it for a stronger compression.
        widths: channels of each convolution; each halves the image. Raise them or add one for larger images; take
            one away for tiny ones.
        heads: number of vectors of size z in the output: 1 for an autoencoder, 2 (mean and log variance) for a VAE.
        norm: "batch" trains faster; "none" if batches are very small.
        conditional: whether the class of each image is an input too, as one constant plane for each class. Needs
            labelled data.
        shape: (C,H,W) of an image; filled from the data.
        classes: number of classes; filled from the data.
    """

    def __init__(
        self,
        z: int,
        widths: tuple[int, ...] = (32, 64),
        heads: int = 1,
        norm: Norm = "batch",
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.z, self.code_shape, self.heads = z, (z,), heads
        self.classes = labels.one_hot_size(conditional, classes)
        h, w = (n >> len(widths) for n in shape[1:])
        if min(h, w) < 1:
            raise ValueError(
                f"images of {_times(shape[1:])} are too small to be halved {len(widths)} times; give fewer widths"
            )
        channels = (shape[0] + self.classes, *widths)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4, 2, 1, bias=norm == "none"), *norm_2d(norm, b), nn.ReLU())
            for a, b in pairwise(channels)
        )
        self.head = nn.Linear(channels[-1] * h * w, heads * z)

    def layers(self, x: Tensor, y: Tensor | None = None) -> list[Tensor]:
        """The map after each convolution, then the code (B,heads*z)."""
        h = labels.append_vectors(x, y, self.classes)
        maps = []
        for block in self.blocks:
            h = block(h)
            maps.append(h)
        return [*maps, self.head(h.flatten(1))]

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (B,heads*z) of images (B,C,H,W)."""
        return self.layers(x, y)[-1]


class Decoder(protocols.Decoder):
    """Code (B,z) -> image (B, outputs*C, H, W): one linear layer, then 4×4 stride-2 transposed convolutions.

    Args:
        z: size of the code.
        widths: channels of each map, smallest map first; each transposed convolution doubles the size. Raise them if
            images stay blurred; lower them for speed.
        out: "tanh" keeps images in [-1,1]; "linear" for a likelihood or a loss that takes logits.
        outputs: maps for each channel: 1, or 2 for a mean and a log scale; tanh acts on the first one only.
        norm: "batch" trains faster; "none" if batches are very small.
        conditional: whether the class of each image is an input too, as a one-hot vector. Needs labelled data.
        shape: (C,H,W) of an image; filled from the data.
        classes: number of classes; filled from the data.
    """

    def __init__(
        self,
        z: int,
        widths: tuple[int, ...] = (64, 32),
        out: Output = "tanh",
        outputs: int = 1,
        norm: Norm = "batch",
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("widths is empty; give the channels of at least one map")
        self.z, self.code_shape = z, (z,)
        self.classes = labels.one_hot_size(conditional, classes)
        self.size = shape[1:]
        scale = 2 ** len(widths)
        self.map_shape = (widths[0], *(-(-n // scale) for n in self.size))  # rounded up, and cropped in `forward`
        self.stem = nn.Linear(z + self.classes, prod(self.map_shape), bias=norm == "none")
        self.net = nn.Sequential(*norm_2d(norm, widths[0]), nn.ReLU())
        for a, b in pairwise(widths):
            self.net.extend([nn.ConvTranspose2d(a, b, 4, 2, 1, bias=norm == "none"), *norm_2d(norm, b), nn.ReLU()])
        self.net.append(nn.ConvTranspose2d(widths[-1], outputs * shape[0], 4, 2, 1))
        self.net.append(output(out, shape[0], outputs))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,outputs*C,H,W) of codes (B,z)."""
        h, w = self.size
        x = self.stem(labels.append_vectors(z, y, self.classes)).unflatten(1, self.map_shape)
        return self.net(x)[..., :h, :w]
