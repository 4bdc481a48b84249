"""PatchGAN discriminators: they give a map of logits, each with a patch of the image as its receptive field.

Isola, Zhu, Zhou and Efros 2017, arXiv:1611.07004, section 3.2.2 and appendix 6.1.2: C64-C128-C256-C512 with 4×4
kernels, stride 2 except in the last two convolutions, no norm on the first map, LeakyReLU 0.2, weights from N(0, 0.02).
A patch of 70 pixels is the paper's choice; 1 ("PixelGAN") is for colours alone, 16 for texture, 286 for the whole of a
256-pixel image. For pairs (6 channels) the default has 2.769 million parameters.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from limner.nets._layers import MapNorm, norm_2d, normal_init

Patch = Literal[1, 16, 34, 70, 142, 286]
_HALVINGS = {16: 1, 34: 2, 70: 3, 142: 4, 286: 5}


class Discriminator(nn.Module):
    """Images (B,C,H,W) -> logits (B,1,h,w), one for each patch; high means real.

    Args:
        width: channels of the first map; they double at each step, to eight times as many at most. Raise it if the
            generator wins at once; lower it for speed.
        patch: side of the receptive field of a logit in pixels: 1, 16, 34, 70, 142 or 286. Raise it if images are sharp
            but their parts do not match; lower it for small images or if the generator's loss only grows.
        norm: "batch" as in pix2pix, "instance" as in CycleGAN, which normalises each image separately.
        shape: (C,H,W) of an image; filled from the data.
    """

    def __init__(
        self, width: int = 64, patch: Patch = 70, norm: MapNorm = "batch", *, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.net = _net(shape[0], shape[1:], width, patch, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B,1,h,w) of images (B,C,H,W)."""
        return self.net(x)


class PairDiscriminator(nn.Module):
    """Sources and images, concatenated to (B,C'+C,H,W), -> logits (B,1,h,w), one for each patch of the pair.

    Args:
        width: channels of the first map; they double at each step, to eight times as many at most. Raise it if the
            generator wins at once; lower it for speed.
        patch: side of the receptive field of a logit in pixels: 1, 16, 34, 70, 142 or 286. Raise it if images are sharp
            but their parts do not match; lower it for small images or if the generator's loss only grows.
        norm: "batch" as in the paper, "instance" to normalise each image separately.
        shape: (C,H,W) of a target; filled from the data.
        source: (C',H,W) of a source; filled from the data.
    """

    def __init__(
        self,
        width: int = 64,
        patch: Patch = 70,
        norm: MapNorm = "batch",
        *,
        shape: tuple[int, int, int],
        source: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.net = _net(source[0] + shape[0], shape[1:], width, patch, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B,1,h,w) of pairs (B,C'+C,H,W)."""
        return self.net(x)


def _net(channels: int, size: tuple[int, ...], width: int, patch: Patch, norm: MapNorm) -> nn.Sequential:
    bias, affine = norm != "batch", norm != "instance"
    if patch == 1:
        layers = [nn.Conv2d(channels, width, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 2 * width, 1, bias=bias)]
        layers += [
            *norm_2d(norm, 2 * width, affine=affine),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 1, bias=bias),
        ]
    else:
        n = _HALVINGS[patch]
        if min(size) >> n < 3:
            raise ValueError(
                f"images of {size[0]}×{size[1]} are too small for patches of {patch}; use a smaller D.patch"
            )
        layers = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for k in range(1, n + 1):
            a, b = width * min(2 ** (k - 1), 8), width * min(2**k, 8)
            layers += [
                nn.Conv2d(a, b, 4, 2 if k < n else 1, 1, bias=bias),
                *norm_2d(norm, b, affine=affine),
            ]
            layers.append(nn.LeakyReLU(0.2))
        layers.append(nn.Conv2d(width * min(2**n, 8), 1, 4, 1, 1))
    net = nn.Sequential(*layers)
    normal_init(net)
    return net
