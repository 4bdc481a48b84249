"""The generator of pix2pix: a U-Net, an encoder and a decoder with skip connections between maps of one size.

Isola, Zhu, Zhou and Efros 2017, *Image-to-image translation with conditional adversarial networks*, arXiv:1611.07004,
section 3.2.1 and appendix 6.1.1. Encoder C64-C128-C256-C512-C512-…, decoder …-CD512-C512-C256-C128-C64, where every map
of the encoder is concatenated to the decoder's map of the same size; 4×4 kernels, stride 2; LeakyReLU 0.2 in the
encoder, ReLU in the decoder; no norm on the first map nor at the bottleneck; dropout in the decoder, in training *and*
after it, which is the only noise. Weights from N(0, 0.02). With `depth=8` and 3 channels in and out this is the
reference's U-Net-256 with 54.414 million parameters.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from limner.nets._layers import Statistics, always_on_dropout, normal_init, pad_to_multiple, translator_norm

_DEEPEST = 8


class Generator(nn.Module):
    """Images (B,C',H,W) -> images (B,C,H,W) in [-1,1], of any H and W.

    An image whose sides are not multiples of 2^depth is padded by repeating its edge, and the result is cropped.

    Args:
        width: channels of the first map; they double at each halving, to eight times as many at most. Raise it if
            images lack detail; lower it for speed and memory: the cost grows with its square.
        depth: number of halvings; null means down to a side of one pixel, 8 at most. Lower it for images much smaller
            than those of the training; raise it if the receptive field is too small.
        norm: "batch" as in the paper, with `statistics`. "instance": always the statistics of each image; use it for
            batches of more than one. "none" to compare.
        statistics: what batch norm uses after training: "image", those of each image, as in the paper (section 3.4), or
            "running", the averages over the training, as the reference does with --eval.
        dropout: probability of dropping an activation in the decoder maps next to the smallest (three of them at depth
            8, one at depth 6), also after training. Set it to 0 if one image must always give the same result.
        residual: whether to predict the difference from the source's first channels. Set it if source and target are
            nearly the same, as in denoising (Kim et al. 2016, arXiv:1511.04587).
        shape: (C,H,W) of a target; filled from the data.
        source: (C',H,W) of a source; filled from the data.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int | None = None,
        norm: Literal["batch", "instance", "none"] = "batch",
        dropout: float = 0.5,
        residual: bool = False,
        statistics: Statistics = "image",
        *,
        shape: tuple[int, int, int],
        source: tuple[int, int, int],
    ) -> None:
        super().__init__()
        depth = min(min(shape[1:]).bit_length() - 1, _DEEPEST) if depth is None else depth
        if not 2 <= depth <= 10:
            raise ValueError(f"a U-Net halves images 2 to 10 times, not {depth}; set depth or use larger images")
        if residual and source[0] < shape[0]:
            raise ValueError(
                f"residual needs a source of {shape[0]} channels or more, this one has {source[0]}; set residual=false"
            )
        self.multiple, self.residual = 2**depth, shape[0] if residual else 0
        bias = norm != "batch"
        widths = [width * min(2**k, 8) for k in range(depth)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, (a, b) in enumerate(pairwise([source[0], *widths])):
            norms = translator_norm(norm, b, statistics) if 0 < i < depth - 1 else []
            self.down.append(
                nn.Sequential(*([nn.LeakyReLU(0.2)] if i else []), nn.Conv2d(a, b, 4, 2, 1, bias=bias), *norms)
            )
        dropout_layers = range(depth - 1 - max(1, depth - 5), depth - 1)
        for i in reversed(range(1, depth)):  # from the bottleneck up; each input but the first has a skip
            a, b = widths[i] * (1 if i == depth - 1 else 2), widths[i - 1]
            noise = always_on_dropout(dropout) if i in dropout_layers else []
            up = nn.ConvTranspose2d(a, b, 4, 2, 1, bias=bias)
            self.up.append(nn.Sequential(nn.ReLU(), up, *translator_norm(norm, b, statistics), *noise))
        self.up.append(nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * width, shape[0], 4, 2, 1), nn.Tanh()))
        normal_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B,C,H,W) of images (B,C',H,W)."""
        h, skips = pad_to_multiple(x, self.multiple), []
        for layer in self.down:
            h = layer(h)
            skips.append(h)
        h = self.up[0](skips.pop())
        for layer in self.up[1:]:
            h = layer(torch.cat([skips.pop(), h], 1))
        y = h[..., : x.shape[2], : x.shape[3]]
        return (x[:, : self.residual] + y).clamp(-1, 1) if self.residual else y
