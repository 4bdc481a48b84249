"""How a class index enters a net: as a one-hot vector, or as one-hot planes over a map (Mirza and Osindero 2014)."""

from __future__ import annotations

import torch
from torch import Tensor


def inputs(conditional: bool, classes: int) -> int:
    """How many label inputs a net has: `classes` when it is conditional, else 0."""
    if conditional and classes < 1:
        raise ValueError("conditional=true needs data with class labels; use a labelled set or conditional=false")
    return classes if conditional else 0


def join(x: Tensor, y: Tensor | None, classes: int) -> Tensor:
    """Returns x (B,n) or (B,n,H,W) with `classes` one-hot entries of y (B,) appended to dimension 1.

    >>> join(torch.zeros(2, 1), torch.tensor([0, 2]), 3)
    tensor([[0., 1., 0., 0.],
            [0., 0., 0., 1.]])
    """
    if classes == 0:
        return x
    if y is None:
        raise ValueError("this net is conditional; give the class y of every sample")
    hot = (y[:, None] == torch.arange(classes, device=y.device)).to(x.dtype)  # (B,classes); `one_hot` reads y on a CPU
    if x.dim() == 4:
        hot = hot[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, hot], 1)
