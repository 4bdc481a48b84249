"""The small parts that nets are made of, by the names that recipes use."""

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
    """The normalisation of a map of `channels` channels: one module, or none at all.

    Layer norm is that of Ba et al. 2016 (arXiv:1607.06450) as WGAN-GP's critics have it: mean and variance over all of
    an image's (C,H,W), scale and shift for each channel. That is group norm with one group. Instance norm has a scale
    and a shift unless `affine` is False.
    """
    match name:
        case "batch":
            return [nn.BatchNorm2d(channels)]
        case "instance":
            return [nn.InstanceNorm2d(channels, affine=affine)]
        case "layer":
            return [nn.GroupNorm(1, channels)]
        case "none":
            return []
    raise ValueError(f"unknown norm {name!r}; choose from: batch, instance, layer, none")


def norm_1d(name: VectorNorm, units: int) -> list[nn.Module]:
    """The normalisation of `units` units: one module, or none at all."""
    match name:
        case "batch":
            return [nn.BatchNorm1d(units)]
        case "layer":
            return [nn.LayerNorm(units)]
        case "none":
            return []
    raise ValueError(f"unknown norm {name!r}; choose from: batch, layer, none")


def biased(name: MapNorm) -> bool:
    """Whether the layer before a norm keeps its bias: batch and instance norm take it out again, channel by channel."""
    return name not in ("batch", "instance")


def normal_init(net: nn.Module) -> None:
    """Radford et al. 2016, section 4: weights from N(0, 0.02), and PyTorch's reading of it for norms: N(1, 0.02)."""
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(m.weight, 0.0, 0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)) and m.affine:
            nn.init.normal_(m.weight, 1.0, 0.02)


def to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Maps (B,C,H,W) made larger, at the bottom and right, by repeating their edge until both sides divide."""
    h, w = (-n % multiple for n in x.shape[2:])
    return F.pad(x, (0, w, 0, h), mode="replicate") if h or w else x


def at_least_two(n: int) -> None:
    """Refuses to train batch norm of vectors on n images, where their variance is 0."""
    if n < 2:
        raise ValueError(f"batch norm needs images to compare, and a batch has {n}; use batches of 2, or norm=none")


class LiveDropout(nn.Module):
    """Dropout that never rests: it is noise for a generator, at training and at sampling (Isola et al. 2017)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout is a probability from 0 up to 1, got {p:g}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """The shape stays; the default generator of the device draws what is dropped."""
        return F.dropout(x, self.p, training=True)

    def extra_repr(self) -> str:
        """What `print(net)` shows."""
        return f"p={self.p}"


def live_dropout(p: float) -> list[nn.Module]:
    """Dropout that never rests: one module, or none at all for p = 0."""
    return [LiveDropout(p)] if p else []


class Maxout(nn.Module):
    """The largest of each `pieces` neighbours of dimension 1 (Goodfellow et al. 2013, arXiv:1302.4389)."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """(B,n) of (B,n*pieces)."""
        return x.unflatten(1, (-1, self.pieces)).max(2).values

    def extra_repr(self) -> str:
        """What `print(net)` shows."""
        return f"pieces={self.pieces}"


class TanhFirst(nn.Module):
    """The tanh of the first `n` entries of dimension 1; the others as they are.

    A decoder with a mean and a log-scale map squashes the mean alone.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        """The shape stays."""
        return torch.cat([x[:, : self.n].tanh(), x[:, self.n :]], 1)

    def extra_repr(self) -> str:
        """What `print(net)` shows."""
        return str(self.n)


def output(name: Output, n: int, outputs: int) -> nn.Module:
    """What ends a decoder: `n` entries of dimension 1 are the image, the other `(outputs - 1) * n` are not."""
    if name == "linear":
        return nn.Identity()
    return nn.Tanh() if outputs == 1 else TanhFirst(n)


class TransposedLinear(nn.Module):
    """A linear layer whose weight is the transpose of another layer's; its bias is its own."""

    def __init__(self, source: nn.Linear, bias: nn.Parameter) -> None:
        super().__init__()
        # A tuple hides the layer from nn.Module: its weight stays in one place of the state dict, and deepcopy of a
        # model that holds both layers still ties the copies to each other.
        self._source = (source,)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (B,out) of inputs (B,in)."""
        return F.linear(x, self._source[0].weight.T, self.bias)


class SameConv2d(nn.Conv2d):
    """Convolution padded as TensorFlow's "same": ceil(n/stride) outputs, the odd zero at the bottom right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, stride, bias=bias)

    def pads(self, x: Tensor) -> list[int]:
        """Zeros to the left, right, top and bottom of x (B,inputs,H,W), in the order of `F.pad`."""
        pads = []
        for n, k, s in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):  # width first
            total = max(0, (-(-n // s) - 1) * s + k - n)
            pads += [total // 2, total - total // 2]
        return pads

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B,outputs,ceil(H/stride),ceil(W/stride)) of maps (B,inputs,H,W)."""
        return super().forward(F.pad(x, self.pads(x)))


class SameConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution padded as TensorFlow's "same": the adjoint of a `SameConv2d` of maps of `size`.

    TensorFlow takes the odd row and column off the end. PyTorch's `output_padding` gives the same size but takes them
    off the start, which shifts the image by a pixel; so this cuts the end.

    Args:
        inputs: channels of the map that comes in.
        outputs: channels of the map that goes out.
        kernel: side of the kernel.
        stride: how many times larger the map becomes.
        size: (H,W) of the map that goes out, for strides that do not divide it; stride times the input by default.
        bias: whether to add one number for each output channel.
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
