"""Nearest neighbours of codes, by Euclidean distance."""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core.errors import LimnerError


def nearest(codes: Tensor, query: Tensor, k: int = 8) -> tuple[Tensor, Tensor]:
    """The k nearest of `codes` (N,…) to each code of `query` (Q,…).

    Returns:
        Distances (Q,k) in ascending order, and indices into `codes` (Q,k). A query from `codes` finds itself first.

    Raises:
        LimnerError: there are fewer than k codes.

    >>> nearest(torch.tensor([[0.0], [5.0], [9.0]]), torch.tensor([[6.0]]), k=2)
    (tensor([[1., 3.]]), tensor([[1, 2]]))
    """
    if not 1 <= k <= len(codes):
        raise LimnerError(f"cannot find the {k} nearest of {len(codes)} codes; ask for 1 to {len(codes)}")
    codes, query = codes.flatten(1).float(), query.flatten(1).float()
    # The matrix product is fast but inexact for close codes, so it selects candidates, whose distances are exact.
    mean = codes.mean(0)
    approximate = torch.cdist(query - mean, codes - mean, compute_mode="use_mm_for_euclid_dist")
    candidates = approximate.topk(min(len(codes), k + 8), largest=False).indices  # (Q,k+8)
    exact = torch.stack([(codes[ids] - q).norm(dim=1) for ids, q in zip(candidates, query)])
    distances, order = exact.sort(dim=1, stable=True)
    return distances[:, :k], candidates.gather(1, order)[:, :k]
