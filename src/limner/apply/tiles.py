"""A net over an image of any size, in tiles that overlap and fade into each other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def tiled(net: Callable[[Tensor], Tensor], x: Tensor, side: int, overlap: int) -> Tensor:
    """`net` over x (1,C,H,W) in square tiles that overlap and fade into each other.

    If the receptive field of `net` reaches no farther than a quarter of the overlap, the result equals `net(x)`.

    Args:
        net: keeps height and width.
        x: an image.
        side: side of a tile in pixels.
        overlap: least number of pixels that neighbours share.
    """
    h, w = x.shape[2:]
    rows, columns = _starts(h, side, overlap), _starts(w, side, overlap)
    total: Tensor | None = None
    weights = torch.zeros(1, 1, h, w)
    for top in rows:
        for left in columns:
            y = net(x[..., top : top + side, left : left + side])
            fade = _fade(y.shape[2], overlap, top, h)[:, None] * _fade(y.shape[3], overlap, left, w)[None]
            total = torch.zeros(1, y.shape[1], h, w) if total is None else total
            total[..., top : top + side, left : left + side] += fade * y
            weights[..., top : top + side, left : left + side] += fade
    assert total is not None
    return total / weights


def _starts(n: int, side: int, overlap: int) -> list[int]:
    """First pixels of evenly spaced tiles of `side` that cover n pixels and overlap by at least `overlap`.

    >>> _starts(1000, 512, 64), _starts(300, 512, 64)
    ([0, 244, 488], [0])
    """
    if n <= side:
        return [0]
    count = -(-(n - overlap) // (side - overlap))
    return [round(i * (n - side) / (count - 1)) for i in range(count)]


def _fade(n: int, overlap: int, start: int, total: int) -> Tensor:
    """Weights (n,) of a tile that begins at `start` of `total` pixels: 0 for a quarter of the overlap, then up to 1.

    The first quarter is left out because the net sees the tile's edge there; edges of the image itself are not faded.
    """
    index, margin = torch.arange(n), overlap // 4
    before = index if start else torch.full((n,), total)
    after = n - 1 - index if start + n < total else torch.full((n,), total)
    return ((torch.minimum(before, after) + 1 - margin) / (overlap - 2 * margin)).clamp(0, 1)
