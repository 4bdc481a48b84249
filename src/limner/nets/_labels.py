"""Class labels as inputs of a net: one-hot vectors, or one-hot planes of a map (Mirza and Osindero 2014)."""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot_size(conditional: bool, classes: int) -> int:
    """Number of label inputs of a net: `classes` if it is conditional, else 0."""
    if conditional and classes < 1:
        raise ValueError("conditional=true needs data with class labels; use a labelled set or conditional=false")
    return classes if conditional else 0


def append_one_hot(x: Tensor, y: Tensor | None, classes: int) -> Tensor:
    """Returns x (B,n) or (B,n,H,W) with the one-hot vectors of y (B,), of size `classes`, appended to dimension 1.

    >>> append_one_hot(torch.zeros(2, 1), torch.tensor([0, 2]), 3)
    tensor([[0., 1., 0., 0.],
            [0., 0., 0., 1.]])
    """
    if classes == 0:
        return x
    if y is None:
        raise ValueError("this net is conditional; give the class y of every sample")
    # `F.one_hot` would read y on the host and so wait for the device.
    one_hot = (y[:, None] == torch.arange(classes, device=y.device)).to(x.dtype)  # (B,classes)
    if x.dim() == 4:
        one_hot = one_hot[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, one_hot], 1)
