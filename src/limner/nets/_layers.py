"""The small parts that nets are made of, by the names that recipes use."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid", "elu", "silu"]
Norm = Literal["batch", "none"]
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


def norm_2d(name: Norm, channels: int) -> list[nn.Module]:
    """The normalisation of a map of `channels` channels: one module, or none at all."""
    return [nn.BatchNorm2d(channels)] if name == "batch" else []


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

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B,outputs,ceil(H/stride),ceil(W/stride)) of maps (B,inputs,H,W)."""
        pads = []
        for n, k, s in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):  # width first, as F.pad asks
            total = max(0, (-(-n // s) - 1) * s + k - n)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


class SameConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution padded as TensorFlow's "same": exactly n·stride outputs, no bias.

    TensorFlow takes the odd row and column off the end. PyTorch's `output_padding` gives the same size but takes them
    off the start, which shifts the image by a pixel; so this cuts the end.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=(kernel - stride) // 2, bias=False)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Maps (B,outputs,stride*H,stride*W) of maps (B,inputs,H,W)."""
        h, w = (n * s for n, s in zip(x.shape[2:], self.stride, strict=True))
        return super().forward(x, output_size)[..., :h, :w]
