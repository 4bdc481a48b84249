"""Maps of codes: few numbers for each image, so that an eye can see what lies near what.

PCA: Hotelling 1933, through the singular value decomposition. t-SNE: van der Maaten and Hinton 2008, *Visualizing data
using t-SNE*, JMLR 9. A t-SNE map keeps neighbourhoods only: neither distances between groups nor their sizes mean
anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from limner.core.errors import LimnerError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sklearn.decomposition import PCA


def flat(codes: Tensor) -> NDArray[np.float32]:
    """Codes (N,…) as (N,D): every number of a code counts, also those of a map (64×2×2 gives 256)."""
    return codes.detach().flatten(1).float().cpu().numpy()


def pooled(codes: Tensor) -> NDArray[np.float32]:
    """Code maps (N,C,h,w) as (N,C): the mean of each channel over the map, blind to place. Vectors stay as they are.

    >>> pooled(torch.arange(8.0).view(1, 2, 2, 2))
    array([[1.5, 5.5]], dtype=float32)
    """
    return flat(codes.flatten(2).mean(2) if codes.dim() > 2 else codes)


def principal(x: Tensor, dims: int, seed: int = 0) -> PCA:
    """A fitted `sklearn.decomposition.PCA` of x (N,…) with `dims` axes: the best linear code of that size.

    Args:
        x: images or codes, (N,…); they are flattened.
        dims: number of axes, at most the smaller of N and the numbers in one x.
        seed: of the randomised solver that large sets get.

    Raises:
        LimnerError: there are not that many axes.
    """
    from sklearn.decomposition import PCA

    table = flat(x)
    if not 1 <= dims <= min(table.shape):
        raise LimnerError(
            f"PCA of {len(table)} vectors of {table.shape[1]} has 1 to {min(table.shape)} axes, not {dims}"
        )
    return PCA(dims, random_state=seed).fit(table)


def project(fitted: PCA, x: Tensor) -> Tensor:
    """The linear reconstruction (N,…) of x (N,…): put on the axes of a PCA, and back."""
    back = fitted.inverse_transform(fitted.transform(flat(x)))
    return torch.from_numpy(back).to(x.dtype).view_as(x)


def pca(codes: Tensor, dims: int = 2) -> NDArray[np.float32]:
    """Coordinates (N,dims) of codes (N,…) on their first principal axes, widest first."""
    return _fitted(principal(codes, dims), flat(codes))


def _fitted(model: Any, table: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = model.transform(table)
    return found


def tsne(codes: Tensor | NDArray[np.float32], *, perplexity: float = 30.0, seed: int = 0) -> NDArray[np.float32]:
    """A t-SNE map (N,2) of codes (N,…), started from their first two principal axes.

    Args:
        codes: at least four; 2,000 take some ten seconds.
        perplexity: about how many neighbours each point keeps; at most a third of the points are used.
        seed: of the optimiser.

    Raises:
        LimnerError: there are too few codes.
    """
    from sklearn.manifold import TSNE

    table = flat(codes) if isinstance(codes, Tensor) else codes
    if len(table) < 4:
        raise LimnerError(f"a t-SNE map needs at least 4 codes, got {len(table)}")
    fewer = min(perplexity, (len(table) - 1) / 3)
    placed: NDArray[np.float32] = TSNE(2, perplexity=fewer, init="pca", random_state=seed).fit_transform(table)
    return placed
