"""Layers with an equalised learning rate: weights from N(0,1), scaled whenever they are used.

Karras et al. 2018, *Progressive growing of GANs*, arXiv:1710.10196, section 4.1. Adam moves all weights by about the
learning rate, so the layers learn equally fast if all weights are of order 1.
"""

from __future__ import annotations

from math import prod, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Module):
    """A linear layer, gain · (rate · W/√(fan in) x + rate · b).

    Args:
        inputs: numbers in.
        outputs: numbers out.
        gain: factor of the output, such as √2 before a LeakyReLU.
        rate: factor of the learning rate. Weights begin as N(0, 1/rate²), so the layer's output does not depend on it.
        bias: first value of the bias.
    """

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        nn.init.normal_(self.weight, 0.0, 1 / rate)
        nn.init.constant_(self.bias, bias / rate)
        self.scale, self.shift = gain * rate / sqrt(inputs), gain * rate

    def forward(self, x: Tensor) -> Tensor:
        """Vectors (B,outputs) of vectors (B,inputs)."""
        return F.linear(x, self.scale * self.weight, self.shift * self.bias)


class Conv(nn.Conv2d):
    """A convolution, gain · (W/√(fan in) * x + b).

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the kernel.
        gain: factor of the output.
        stride: step of the kernel.
        padding: zeros at each border.
        bias: whether there is one.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        gain: float = 1.0,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=padding, bias=bias)
        self.gain, self.scale = gain, gain / sqrt(prod(self.weight.shape[1:]))
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B,outputs,H',W') of maps (B,inputs,H,W)."""
        bias = None if self.bias is None else self.gain * self.bias
        return self._conv_forward(x, self.scale * self.weight, bias)
