"""Nets for style transfer in one pass.

`Transformer` is that of Johnson, Alahi and Fei-Fei 2016, *Perceptual losses for real-time style transfer and
super-resolution*, arXiv:1603.08155, with two later improvements: instance norm (Ulyanov et al. 2016, arXiv:1607.08022),
and nearest-neighbour upsampling before a convolution instead of a transposed one, which avoids checkerboard patterns
(Odena et al. 2016).

`Decoder` is that of AdaIN (Huang and Belongie 2017, arXiv:1703.06868, section 6): VGG-19 in reverse, from the maps of
one of its layers to an image, without norms and with reflection padding.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from limner.nets._layers import OddSizes, Output, pad_to_multiple

Layer = Literal["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
_WIDTHS: dict[Layer, tuple[int, tuple[int, ...]]] = {
    "relu1_1": (64, ()),
    "relu2_1": (128, (64,)),
    "relu3_1": (256, (128, 64)),
    "relu4_1": (512, (256, 128, 64)),
    "relu5_1": (512, (512, 256, 128, 64)),
}
_REPEATS = {512: 4, 256: 4, 128: 2, 64: 2}  # convolutions of VGG's blocks, by their width


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, padding_mode="reflect")


class _Block(nn.Module):
    """x + F(x), F of two 3×3 convolutions with instance norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            _conv(channels, channels, 3),
            nn.InstanceNorm2d(channels, affine=True),
            nn.ReLU(),
            _conv(channels, channels, 3),
            nn.InstanceNorm2d(channels, affine=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class Transformer(nn.Module):
    """Images (B,3,H,W) -> stylised images (B,3,H,W) in [-1,1], of any H and W from 8 on.

    Args:
        width: channels of the first map; the blocks have four times as many. Lower it (to 16) for speed; raise it if
            strokes lack detail.
        blocks: residual blocks. Raise it for larger changes; lower it for speed.
        out: "tanh"; or "linear", as the nets of PyTorch's examples, whose output is cut off at [-1,1].
        odd_sizes: sides that are not multiples of 4: "repeat" repeats the edge before the net; "keep" lets its maps
            round up, as published nets do. Both crop the result.
        shape: (C,H,W) of an image; filled from the data.
    """

    def __init__(
        self,
        width: int = 32,
        blocks: int = 5,
        out: Output = "tanh",
        odd_sizes: OddSizes = "repeat",
        *,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.odd_sizes = odd_sizes
        w, c = width, shape[0]

        def after(channels: int) -> list[nn.Module]:
            return [nn.InstanceNorm2d(channels, affine=True), nn.ReLU()]

        self.net = nn.Sequential(
            _conv(c, w, 9), *after(w),
            _conv(w, 2 * w, 3, 2), *after(2 * w),
            _conv(2 * w, 4 * w, 3, 2), *after(4 * w),
            *(_Block(4 * w) for _ in range(blocks)),
            nn.Upsample(scale_factor=2), _conv(4 * w, 2 * w, 3), *after(2 * w),
            nn.Upsample(scale_factor=2), _conv(2 * w, w, 3), *after(w),
            _conv(w, c, 9), *([nn.Tanh()] if out == "tanh" else []),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Stylised images (B,3,H,W)."""
        if self.odd_sizes == "repeat" or min(x.shape[2:]) < 5:
            multiple = 4 if min(x.shape[2:]) > 4 else 8  # reflection padding needs more pixels than it adds
            return self.net(pad_to_multiple(x, multiple))[..., : x.shape[2], : x.shape[3]]
        return self.net(x)[..., : x.shape[2], : x.shape[3]]


class Decoder(nn.Module):
    """Maps (B,N,h,w) of one layer of VGG-19 -> images (B,3,H,W), about [-1,1].

    Args:
        layer: relu1_1 to relu5_1. A deeper layer has larger strokes and keeps less of the content.
        shape: (C,H,W) of an image; filled from the data.
    """

    def __init__(self, layer: Layer = "relu3_1", *, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.layer = layer
        channels, widths = _WIDTHS[layer]
        self.net = nn.Sequential()
        for width in widths:  # from the first layer of a block to the last layer of the block before
            self.net.extend([_conv(channels, width, 3), nn.ReLU(), nn.Upsample(scale_factor=2)])
            for _ in range(_REPEATS[width] - 1):
                self.net.extend([_conv(width, width, 3), nn.ReLU()])
            channels = width
        self.net.append(_conv(channels, shape[0], 3))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B,3,H,W) of maps (B,N,h,w)."""
        return 2 * self.net(x) - 1
