"""Which images are alike, by the distance of their codes."""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core.errors import LimnerError


def nearest(codes: Tensor, query: Tensor, k: int = 8) -> tuple[Tensor, Tensor]:
    """The k nearest of `codes` (N,…) to each code of `query` (Q,…), by Euclidean distance.

    Returns:
        Distances (Q,k), rising, and indices into `codes` (Q,k). A query that is one of the codes finds itself first.

    Raises:
        LimnerError: there are fewer than k codes.

    >>> nearest(torch.tensor([[0.0], [5.0], [9.0]]), torch.tensor([[6.0]]), k=2)
    (tensor([[1., 3.]]), tensor([[1, 2]]))
    """
    if not 1 <= k <= len(codes):
        raise LimnerError(f"cannot find the {k} nearest of {len(codes)} codes; ask for 1 to {len(codes)}")
    # without the matrix-product shortcut, which loses digits where codes are close
    distances = torch.cdist(
        query.flatten(1).float(), codes.flatten(1).float(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    values, indices = distances.topk(k, largest=False)
    return values, indices
