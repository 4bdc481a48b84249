"""Activations, norms and other layers of several nets."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid", "elu", "silu"]
Norm = Literal["batch", "none"]
MapNorm = Literal["batch", "instance", "layer", "none"]
VectorNorm = Literal["batch", "layer", "none"]
Output = Literal["tanh", "linear"]
OddSizes = Literal["repeat", "keep"]


def activation(name: Activation) -> nn.Module:
    """A new activation module; leaky_relu has the slope 0.2 of Radford et al. 2016."""
    match name:
        case "relu":
            return nn.ReLU()
        case "leaky_relu":
            return nn.LeakyReLU(0.2)
        case "tanh":
            return nn.Tanh()
        case "sigmoid":
            return nn.Sigmoid()
        case "elu":
            return nn.ELU()
        case "silu":
            return nn.SiLU()
    raise ValueError(f"unknown activation {name!r}; choose from: relu, leaky_relu, tanh, sigmoid, elu, silu")


def norm_2d(name: MapNorm, channels: int, *, affine: bool = True) -> list[nn.Module]:
    """The normalisation of a map of `channels` channels, as a list of one module or none.

    Layer norm (Ba et al. 2016, arXiv:1607.06450) is that of WGAN-GP's critics: mean and variance over (C,H,W) of an
    image, scale and shift for each channel, which is group norm with one group. Without `affine` there is no scale and
    no shift.
    """
    match name:
        case "batch":
            return [nn.BatchNorm2d(channels, affine=affine)]
        case "instance":
            return [nn.InstanceNorm2d(channels, affine=affine)]
        case "layer":
            return [nn.GroupNorm(1, channels, affine=affine)]
        case "none":
            return []
    raise ValueError(f"unknown norm {name!r}; choose from: batch, instance, layer, none")


Statistics = Literal["image", "running"]


class ImageBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that uses each image's own statistics in evaluation mode (Isola et al. 2017, section 3.4)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


def translator_norm(name: MapNorm, channels: int, statistics: Statistics) -> list[nn.Module]:
    """The norm of a translator: batch norm with either statistics, or instance norm without scale and shift."""
    if name == "batch" and statistics == "image":
        return [ImageBatchNorm2d(channels)]
    return norm_2d(name, channels, affine=name != "instance")


def norm_1d(name: VectorNorm, units: int, *, affine: bool = True) -> list[nn.Module]:
    """The normalisation of `units` units, as a list of one module or none; scale and shift only if `affine`."""
    match name:
        case "batch":
            return [nn.BatchNorm1d(units, affine=affine)]
        case "layer":
            return [nn.LayerNorm(units, elementwise_affine=affine)]
        case "none":
            return []
    raise ValueError(f"unknown norm {name!r}; choose from: batch, layer, none")


def needs_bias(name: MapNorm) -> bool:
    """Whether the layer before a norm needs a bias: batch and instance norm would subtract it again."""
    return name not in ("batch", "instance")


def normal_init(net: nn.Module) -> None:
    """Initialises weights from N(0, 0.02) (Radford et al. 2016, section 4), scales of norms from N(1, 0.02)."""
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(m.weight, 0.0, 0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)) and m.affine:
            nn.init.normal_(m.weight, 1.0, 0.02)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pads maps (B,C,H,W) at the bottom and right by repeating their edge, to multiples of `multiple`."""
    h, w = (-n % multiple for n in x.shape[2:])
    return F.pad(x, (0, w, 0, h), mode="replicate") if h or w else x


def doublings(shape: tuple[int, int, int], nets: str) -> tuple[int, tuple[int, int]]:
    """Number of doublings from the smallest map of a net to images (C,H,W), and the size of the smallest map.

    It has 4 to 8 pixels on its shorter side, rounded up, so that a generator crops its output.

    >>> doublings((3, 32, 32), "such"), doublings((1, 37, 53), "such")
    ((3, (4, 4)), (3, (5, 7)))

    Raises:
        ValueError: the images are too small for nets of the kind `nets`.
    """
    h, w = shape[1:]
    n = (min(h, w) // 4).bit_length() - 1
    if n < 1:
        raise ValueError(f"images of {h}×{w} are too small for {nets} nets (8 pixels at least); use mlp or conv nets")
    return n, (-(-h >> n), -(-w >> n))


def doubled_widths(width: int, widest: int, n: int) -> list[int]:
    """Channels from the largest map to the smallest, n halvings below: they double up to `widest`.

    >>> doubled_widths(32, 128, 3), doubled_widths(64, 32, 1)
    ([32, 64, 128, 128], [64, 64])
    """
    return [min(width << k, max(width, widest)) for k in range(n + 1)]


class PixelNorm(nn.Module):
    """Divides vectors (B,n), or those of the pixels of (B,n,H,W), by their root mean square (Karras et al. 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class Binomial(nn.Module):
    """Resampling of maps by the filter (1,3,3,1)/8 in both directions; beyond the border are zeros.

    Upsampling by 2 is bilinear interpolation away from the border, and downsampling its transpose over 4.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", weights.outer(weights)[None, None], persistent=False)

    def upsample(self, x: Tensor) -> Tensor:
        """Maps (B,C,2H,2W) of maps (B,C,H,W)."""
        channels = x.shape[1]
        return F.conv_transpose2d(x, 4 * self.kernel.expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)

    def downsample(self, x: Tensor) -> Tensor:
        """Maps (B,C,H/2,W/2) of maps (B,C,H,W)."""
        return self.blur(x, 1, stride=2)

    def blur(self, x: Tensor, pad: int, gain: float = 1.0, stride: int = 1) -> Tensor:
        """Maps (B,C,H+2·pad−3,W+2·pad−3), blurred, of maps (B,C,H,W) that get `pad` zeros at each border."""
        channels = x.shape[1]
        kernel = self.kernel if gain == 1 else gain * self.kernel
        return F.conv2d(x, kernel.expand(channels, 1, 4, 4), stride=stride, padding=pad, groups=channels)


def check_batch_norm(n: int) -> None:
    """Checks that a batch of n images has a variance, for batch norm of vectors."""
    if n < 2:
        raise ValueError(f"batch norm needs more than one image, and a batch has {n}; use batches of 2, or norm=none")


class AlwaysOnDropout(nn.Module):
    """Dropout in training and in evaluation mode: noise of a generator (Isola et al. 2017)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout is a probability of at least 0 and below 1, got {p:g}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, training=True)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def always_on_dropout(p: float) -> list[nn.Module]:
    """Dropout in training and evaluation mode, as a list of one module, or none for p = 0."""
    return [AlwaysOnDropout(p)] if p else []


class Maxout(nn.Module):
    """The maximum of each group of `pieces` neighbours of dimension 1 (Goodfellow et al. 2013, arXiv:1302.4389)."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """(B,n) of (B,n*pieces)."""
        return x.unflatten(1, (-1, self.pieces)).max(2).values

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}"


class PartialTanh(nn.Module):
    """Tanh of the first `n` entries of dimension 1 alone: of the mean, not of the log scale, that a decoder gives."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, : self.n].tanh(), x[:, self.n :]], 1)

    def extra_repr(self) -> str:
        return str(self.n)


def output(name: Output, n: int, outputs: int) -> nn.Module:
    """The last layer of a decoder, whose first `n` entries of dimension 1, of `outputs * n`, are the image."""
    if name == "linear":
        return nn.Identity()
    return nn.Tanh() if outputs == 1 else PartialTanh(n)


class TransposedLinear(nn.Module):
    """A linear layer with the transposed weight of another layer and a bias of its own."""

    def __init__(self, source: nn.Linear, bias: nn.Parameter) -> None:
        super().__init__()
        # A tuple hides the layer from nn.Module, so that the state dict has its weight once. A deepcopy of a model that
        # holds both layers ties the copies to each other.
        self._source = (source,)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (B,out) of inputs (B,in)."""
        return F.linear(x, self._source[0].weight.T, self.bias)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: ceil(n/stride) outputs, an odd zero at the bottom right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, stride, bias=bias)

    def pads(self, x: Tensor) -> list[int]:
        """Padding of x (B,inputs,H,W) in the order of `F.pad`: left, right, top, bottom."""
        pads = []
        for n, k, s in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):  # width first
            total = max(0, (-(-n // s) - 1) * s + k - n)
            pads += [total // 2, total - total // 2]
        return pads

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B,outputs,ceil(H/stride),ceil(W/stride)) of maps (B,inputs,H,W)."""
        return super().forward(F.pad(x, self.pads(x)))


class SameConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution with TensorFlow's "same" padding: the adjoint of a `SameConv2d` of maps of `size`.

    TensorFlow crops an odd row and column at the end, and so does this. PyTorch's `output_padding` gives the same size
    but crops at the start, which shifts the image by a pixel.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        kernel: side of the kernel.
        stride: factor of the sizes of output and input.
        size: (H,W) of the output, for strides that do not divide it; stride times the input by default.
        bias: whether to add a bias for each output channel.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        size: tuple[int, int] | None = None,
        bias: bool = False,
    ) -> None:
        h, w = ((kernel - stride + -n % stride) // 2 for n in size or (0, 0))  # half of what `SameConv2d` pads
        super().__init__(inputs, outputs, kernel, stride, padding=(h, w), bias=bias)
        self.size = size

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Maps (B,outputs,stride*H,stride*W) of maps (B,inputs,H,W)."""
        h, w = self.size or [n * s for n, s in zip(x.shape[2:], self.stride, strict=True)]
        return super().forward(x, output_size)[..., :h, :w]
