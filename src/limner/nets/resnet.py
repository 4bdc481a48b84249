"""The generator of CycleGAN: downsampling by 4, residual blocks, upsampling by 4.

Zhu, Park, Isola and Efros 2017, *Unpaired image-to-image translation using cycle-consistent adversarial networks*,
arXiv:1703.10593, appendix 7.2, after Johnson, Alahi and Fei-Fei 2016 (arXiv:1603.08155): c7s1-64, d128, d256, R256 six
or nine times, u128, u64, c7s1-3; reflection padding, instance norm without scale and shift, ReLU, tanh; weights from
N(0, 0.02). With nine blocks and 3 channels in and out it has 11.378 million parameters.
"""

from __future__ import annotations

from torch import Tensor, nn

from limner.nets._layers import MapNorm, always_on_dropout, norm_2d, normal_init, pad_to_multiple

_LARGE = 128  # images larger than this get nine blocks


class _Block(nn.Module):
    """x + F(x): two 3×3 convolutions with a norm each."""

    def __init__(self, channels: int, norm: MapNorm, dropout: float) -> None:
        super().__init__()
        bias = norm != "batch"
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=bias),
            *norm_2d(norm, channels, affine=False),
            nn.ReLU(),
            *always_on_dropout(dropout),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=bias),
            *norm_2d(norm, channels, affine=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class Generator(nn.Module):
    """Images (B,C',H,W) -> images (B,C,H,W) in [-1,1], of any H and W from 8 on.

    An image whose sides are not multiples of 4 is padded by repeating its edge, and the result is cropped.

    Args:
        width: channels of the first map, a quarter of those of the blocks. Raise it if images lack detail; lower it
            for speed and memory: the cost grows with its square.
        blocks: residual blocks; null means 6 for images up to 128 pixels and 9 for larger ones, as in the paper.
            Raise it if shapes must change as well as colours; lower it
            for speed.
        norm: "instance" as in the paper, "batch", or "none".
        dropout: probability of dropping an activation inside the blocks, also after training.
        shape: (C,H,W) of a target; filled from the data.
        source: (C',H,W) of a source; filled from the data.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: int | None = None,
        norm: MapNorm = "instance",
        dropout: float = 0.0,
        *,
        shape: tuple[int, int, int],
        source: tuple[int, int, int],
    ) -> None:
        super().__init__()
        if min(shape[1:]) < 8:
            raise ValueError(f"images of {shape[1]}×{shape[2]} are too small for resnet.Generator (8 pixels at least)")
        blocks = (6 if max(shape[1:]) <= _LARGE else 9) if blocks is None else blocks
        bias = norm != "batch"

        def after(channels: int) -> list[nn.Module]:
            return [*norm_2d(norm, channels, affine=False), nn.ReLU()]

        self.net = nn.Sequential(
            nn.Conv2d(source[0], width, 7, padding=3, padding_mode="reflect", bias=bias),
            *after(width),
            nn.Conv2d(width, 2 * width, 3, 2, 1, bias=bias),
            *after(2 * width),
            nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=bias),
            *after(4 * width),
            *(_Block(4 * width, norm, dropout) for _ in range(blocks)),
            nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, 1, bias=bias),
            *after(2 * width),
            nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1, bias=bias),
            *after(width),
            nn.Conv2d(width, shape[0], 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )
        normal_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B,C,H,W) of images (B,C',H,W)."""
        return self.net(pad_to_multiple(x, 4))[..., : x.shape[2], : x.shape[3]]
