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
    known, asked = codes.flatten(1).float(), query.flatten(1).float()
    # by matrix product, which is fast but loses digits where codes are close: so centred, a few more, and those exactly
    middle = known.mean(0)
    rough = torch.cdist(asked - middle, known - middle, compute_mode="use_mm_for_euclid_dist")
    candidates = rough.topk(min(len(known), k + 8), largest=False).indices  # (Q,k+8)
    exact = torch.stack([(known[own] - one).norm(dim=1) for own, one in zip(candidates, asked)])
    values, order = exact.sort(dim=1, stable=True)
    return values[:, :k], candidates.gather(1, order)[:, :k]
