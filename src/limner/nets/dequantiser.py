"""A learnt distribution of the noise that makes 8-bit images continuous: variational dequantisation.

Ho, Chen, Srinivas, Duan and Abbeel 2019, *Flow++* (arXiv 1902.00275), section 3.1. A flow needs continuous images
x + u, with u within the width of a grey level. Evenly spread noise asks the flow to model little boxes. A net that
chooses u by what the image is makes the flow's task easier, and the bound on the probability of the discrete image
closer:

    log P(x)  >=  E_q(u|x) [ log p(x + u) - log q(u | x) ]                                              eq. 11 and 12

Departure: the noise ends in the normal distribution function instead of the logistic one, so that the untrained net
spreads it evenly, and the training begins at the bound that it has without this net.
"""

from __future__ import annotations

from itertools import pairwise
from math import log, pi

import torch
from torch import Tensor, nn

from limner.nets import protocols

_LARGEST = 1 - 2**-24  # the largest float32 below 1
_BOUND = 3.0  # of the log of a scale


class Coupling(protocols.Dequantiser):
    """Affine couplings of standard normal noise, on a chequerboard of pixels in turn, given the image.

    Args:
        couplings: number of couplings. Raise it for a closer bound; lower it for speed. 0 spreads the noise evenly.
        width: channels of the hidden maps. Raise it for a closer bound; lower it for speed.
        shape: (C,H,W) of an image; filled from the data.
    """

    board: Tensor

    def __init__(self, couplings: int = 4, width: int = 16, *, shape: tuple[int, int, int]) -> None:
        super().__init__()
        if couplings < 0 or width < 1:
            raise ValueError(f"couplings must be 0 or more and width 1 or more, got {couplings} and {width}")
        c, h, w = shape
        if h * w == 1:
            raise ValueError("points have no grey levels to dequantise; leave the dequantiser out, or use images")
        self.features = nn.Sequential(_conv(c, width), nn.SiLU(), _conv(width, width), nn.SiLU())
        self.nets = nn.ModuleList(_net(width + c, width, 2 * c) for _ in range(couplings))
        board = (torch.arange(h)[:, None] + torch.arange(w)) % 2
        self.register_buffer("board", board.float(), persistent=False)  # (H,W) of 0 and 1

    def forward(self, eps: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Noise u (B,C,H,W) in [0,1) of standard normal noise eps (B,C,H,W), and log q(u|x) (B,)."""
        log_q = -0.5 * (eps.square() + log(2 * pi))  # for each pixel
        features = self.features(x) if len(self.nets) else x
        for i, net in enumerate(self.nets):
            kept = self.board if i % 2 else 1 - self.board
            shift, log_scale = net(torch.cat([features, kept * eps], 1)).to(eps.dtype).chunk(2, 1)
            log_scale = (1 - kept) * _BOUND * torch.tanh(log_scale / _BOUND)
            eps = eps * log_scale.exp() + (1 - kept) * shift
            log_q = log_q - log_scale
        log_q = log_q + 0.5 * (eps.square() + log(2 * pi))  # the slope of the distribution function
        return torch.special.ndtr(eps).clamp_max(_LARGEST), log_q.flatten(1).sum(1)


def _conv(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


def _net(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Three convolutions, the last of which begins at zero."""
    layers = [
        _conv(a, b, size) for (a, b), size in zip(pairwise((inputs, width, width, outputs)), (3, 1, 3), strict=True)
    ]
    nn.init.zeros_(layers[-1].weight)
    if layers[-1].bias is not None:
        nn.init.zeros_(layers[-1].bias)
    return nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])
