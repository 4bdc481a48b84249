"""A net of one size over images of any size: windows that overlap, averaged wherever several of them see a pixel.

A denoiser that is averaged so at every step of a sampler draws one image in which all windows agree (Bar-Tal, Yariv,
Lipman and Dekel 2023, *MultiDiffusion*, arXiv:2302.08113, eq. 5, with weights that fall off towards a window's edge).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def windowed(net: Callable[[Tensor, Tensor], Tensor], x: Tensor, size: tuple[int, int], *, batch: int = 32) -> Tensor:
    """`net` over images x (B,C,H,W) of any size, in windows of `size` that share half of their pixels.

    Sides that are shorter than the window are continued by reflection. An image of the very size goes through the net
    as it is.

    Args:
        net: takes windows (N,C,h,w) and the index (N,) of the image that each is of, and keeps their shape.
        x: images.
        size: (h,w) of a window.
        batch: windows per forward pass.
    """
    (n, _, height, width), (h, w) = x.shape, size
    padded = x[..., _reflected(height, h, x.device), :][..., _reflected(width, w, x.device)]
    corners = [(top, left) for top in starts(padded.shape[2], h) for left in starts(padded.shape[3], w)]
    windows = torch.cat([padded[..., top : top + h, left : left + w] for top, left in corners])
    images = torch.arange(n, device=x.device).repeat(len(corners))
    parts = zip(windows.split(batch), images.split(batch), strict=True)
    many = len(windows) > batch and torch.is_grad_enabled()  # then memory for a gradient is that of one batch
    y = torch.cat([_again(net, *part) if many else net(*part) for part in parts])
    if len(corners) == 1:
        return y[..., :height, :width]
    weight = fade(h, x.device)[:, None] * fade(w, x.device)
    total, weights = torch.zeros_like(padded), torch.zeros_like(padded[:1, :1])
    for (top, left), part in zip(corners, y.split(n), strict=True):
        total[..., top : top + h, left : left + w] += weight * part
        weights[..., top : top + h, left : left + w] += weight
    return (total / weights)[..., :height, :width]


def _again(net: Callable[[Tensor, Tensor], Tensor], part: Tensor, of: Tensor) -> Tensor:
    """net(part, of), which keeps nothing for a gradient but its input, and is computed again for it."""
    return cast(Tensor, checkpoint(net, part, of, use_reentrant=False, preserve_rng_state=False))


def starts(n: int, side: int) -> list[int]:
    """First pixels of evenly spaced windows of `side` that cover n pixels and overlap by at least half.

    >>> starts(28, 28), starts(100, 64), starts(129, 64)
    ([0], [0, 18, 36], [0, 22, 43, 65])
    """
    if n <= side:
        return [0]
    gaps = -(-(n - side) // max(1, side // 2))
    return [round(i * (n - side) / gaps) for i in range(gaps + 1)]


def fade(n: int, device: torch.device) -> Tensor:
    """Weights (n,) of a window's pixels: 1 in the middle, falling in a straight line to almost 0 at the edge."""
    index = torch.arange(n, device=device)
    return (torch.minimum(index, n - 1 - index) + 0.5) / (n / 2)


def _reflected(n: int, least: int, device: torch.device) -> Tensor:
    """Indices into n pixels, `least` or n of them, the last ones reflected."""
    index = torch.arange(max(n, least), device=device)
    if n == 1:
        return torch.zeros_like(index)
    index = index % (2 * n - 2)
    return torch.minimum(index, 2 * n - 2 - index)
