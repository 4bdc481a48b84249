"""Labels as inputs of a net: vectors, or constant planes of a map (Mirza and Osindero 2014, arXiv:1411.1784).

Labels are class indices (B,) int64, which stand for one-hot vectors, or vectors (B,size) of attributes or of a text.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def one_hot_size(conditional: bool, classes: int) -> int:
    """Number of label inputs of a net: `classes` if it is conditional, else 0."""
    if conditional and classes < 1:
        raise ValueError("conditional=true needs data with class labels; use a labelled set or conditional=false")
    return classes if conditional else 0


def vectors(y: Tensor | None, size: int) -> Tensor:
    """The labels as vectors (B,size): one-hot vectors of class indices y (B,) int64; vectors y (B,size) themselves.

    >>> vectors(torch.tensor([0, 2]), 3)
    tensor([[1., 0., 0.],
            [0., 0., 1.]])

    Raises:
        ValueError: there are no labels, or vectors of another size.
    """
    if y is None:
        raise ValueError("this net is conditional; give the label y of every sample")
    if y.dim() == 1:
        # `F.one_hot` would read y on the host and so wait for the device.
        return (y[:, None] == torch.arange(size, device=y.device)).float()
    if y.shape[1] != size:
        raise ValueError(f"this net takes label vectors of {size} numbers, got {y.shape[1]}")
    return y


def append_vectors(x: Tensor, y: Tensor | None, size: int) -> Tensor:
    """Returns x (B,n) or (B,n,H,W) with the vectors of labels y appended to dimension 1; x alone if size is 0.

    >>> append_vectors(torch.zeros(2, 1), torch.tensor([0, 2]), 3)
    tensor([[0., 1., 0., 0.],
            [0., 0., 0., 1.]])
    """
    if size == 0:
        return x
    v = vectors(y, size).to(x.dtype)
    if x.dim() == 4:
        v = v[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, v], 1)


class Embedding(nn.Embedding):
    """A learnt vector for each class, or for other labels the sum of those of their entries: a linear map of vectors.

    Args:
        size: length of the labels' vectors.
        features: length of the result.
        null: whether there is one more vector, for images whose label is not told: index `size`, or a vector of zeros.
    """

    def __init__(self, size: int, features: int, null: bool = False) -> None:
        super().__init__(size + null, features)
        self.size, self.null = size, null

    def forward(self, y: Tensor) -> Tensor:
        """Features (B,features) of class indices (B,) or vectors (B,size)."""
        if y.dim() == 1:
            return super().forward(y)
        if y.shape[1] != self.size:
            raise ValueError(f"this net takes label vectors of {self.size} numbers, got {y.shape[1]}")
        v = torch.cat([y, 1 - y.any(1, keepdim=True).to(y.dtype)], 1) if self.null else y
        return v.to(self.weight.dtype) @ self.weight
