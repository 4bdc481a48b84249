"""The generator of CycleGAN: downsampling by 4, residual blocks, upsampling by 4.

Zhu, Park, Isola and Efros 2017, *Unpaired image-to-image translation using cycle-consistent adversarial networks*,
arXiv:1703.10593, appendix 7.2, after Johnson, Alahi and Fei-Fei 2016 (arXiv:1603.08155): c7s1-64, d128, d256, R256 six
or nine times, u128, u64, c7s1-3; reflection padding, instance norm without scale and shift, ReLU, tanh; weights from
N(0, 0.02). With nine blocks and 3 channels in and out it has 11.378 million parameters.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.nets._layers import (
    MapNorm,
    OddSizes,
    Statistics,
    always_on_dropout,
    normal_init,
    pad_to_multiple,
    translator_norm,
)

_LARGE = 128  # images larger than this get nine blocks


class _Blur(nn.Module):
    """Halves or doubles a map through a binomial filter, without aliases (Zhang 2019, arXiv:1904.11486)."""

    kernel: Tensor

    def __init__(self, up: bool) -> None:
        super().__init__()
        self.up = up
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4 if up else torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", row.outer(row)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B,N,2H,2W), or (B,N,H/2,W/2) rounded up, of maps (B,N,H,W)."""
        n = x.shape[1]
        if not self.up:
            return F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), self.kernel.expand(n, 1, 3, 3), stride=2, groups=n)
        x = F.pad(x, (1, 1, 1, 1), "replicate")
        return F.conv_transpose2d(x, self.kernel.expand(n, 1, 4, 4), stride=2, padding=3, groups=n)


class _Block(nn.Module):
    """x + F(x): two 3×3 convolutions with a norm each."""

    def __init__(self, channels: int, norm: MapNorm, dropout: float, statistics: Statistics) -> None:
        super().__init__()
        bias = norm != "batch"
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=bias),
            *translator_norm(norm, channels, statistics),
            nn.ReLU(),
            *always_on_dropout(dropout),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=bias),
            *translator_norm(norm, channels, statistics),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class Generator(nn.Module):
    """Images (B,C',H,W) -> images (B,C,H,W) in [-1,1], of any H and W from 8 on.

    Args:
        width: channels of the first map, a quarter of those of the blocks. Raise it if images lack detail; lower it
            for speed and memory: the cost grows with its square.
        blocks: residual blocks; null means 6 for images up to 128 pixels and 9 for larger ones, as in the paper.
            Raise it if shapes must change as well as colours; lower it
            for speed.
        norm: "instance" as in the paper, "batch", or "none".
        dropout: probability of dropping an activation inside the blocks, also after training.
        statistics: what batch norm uses after training: "running", the averages over the training, or "image", those
            of each image.
        antialias: where maps are resized through a blur and convolved without a stride, as in CUT (Park et al. 2020,
            arXiv:2007.15651): "none", "down", "up" or "both". Use it if results shimmer.
        odd_sizes: sides that are not multiples of 4: "repeat" repeats the edge before the net; "keep" lets its maps
            round up, as the published nets do. Both crop the result.
        shape: (C,H,W) of a target; filled from the data.
        source: (C',H,W) of a source; filled from the data.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: int | None = None,
        norm: MapNorm = "instance",
        dropout: float = 0.0,
        statistics: Statistics = "running",
        antialias: Literal["none", "down", "up", "both"] = "none",
        odd_sizes: OddSizes = "repeat",
        *,
        shape: tuple[int, int, int],
        source: tuple[int, int, int],
    ) -> None:
        super().__init__()
        if min(shape[1:]) < 8:
            raise ValueError(f"images of {shape[1]}×{shape[2]} are too small for resnet.Generator (8 pixels at least)")
        blocks = (6 if max(shape[1:]) <= _LARGE else 9) if blocks is None else blocks
        bias = norm != "batch"
        self.odd_sizes = odd_sizes

        def after(channels: int) -> list[nn.Module]:
            return [*translator_norm(norm, channels, statistics), nn.ReLU()]

        def down(a: int) -> list[nn.Module]:
            if antialias in ("down", "both"):
                return [nn.Conv2d(a, 2 * a, 3, 1, 1, bias=bias), *after(2 * a), _Blur(up=False)]
            return [nn.Conv2d(a, 2 * a, 3, 2, 1, bias=bias), *after(2 * a)]

        def up(a: int) -> list[nn.Module]:
            if antialias in ("up", "both"):
                return [_Blur(up=True), nn.Conv2d(a, a // 2, 3, 1, 1, bias=bias), *after(a // 2)]
            return [nn.ConvTranspose2d(a, a // 2, 3, 2, 1, 1, bias=bias), *after(a // 2)]

        self.net = nn.Sequential(
            nn.Conv2d(source[0], width, 7, padding=3, padding_mode="reflect", bias=bias),
            *after(width),
            *down(width),
            *down(2 * width),
            *(_Block(4 * width, norm, dropout, statistics) for _ in range(blocks)),
            *up(4 * width),
            *up(2 * width),
            nn.Conv2d(width, shape[0], 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )
        normal_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B,C,H,W) of images (B,C',H,W)."""
        rounds_up = self.odd_sizes == "keep" and min(x.shape[2:]) > 4
        return self.net(x if rounds_up else pad_to_multiple(x, 4))[..., : x.shape[2], : x.shape[3]]
