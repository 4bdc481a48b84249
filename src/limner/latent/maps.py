"""Projections of codes to few dimensions, for plots.

PCA: Hotelling 1933, by the singular value decomposition. t-SNE: van der Maaten and Hinton 2008, *Visualizing data using
t-SNE*, JMLR 9. A t-SNE map preserves neighbourhoods only: distances between groups and their sizes have no meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from limner.core.errors import LimnerError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sklearn.decomposition import PCA


def flat(codes: Tensor) -> NDArray[np.float32]:
    """Codes (N,…) as vectors (N,D): a map of 64×2×2 becomes a vector of 256."""
    return codes.detach().flatten(1).float().cpu().numpy()


def pooled(codes: Tensor) -> NDArray[np.float32]:
    """Code maps (N,C,h,w) as vectors (N,C), the mean of each channel over all positions. Vectors are not changed.

    >>> pooled(torch.arange(8.0).view(1, 2, 2, 2))
    array([[1.5, 5.5]], dtype=float32)
    """
    return flat(codes.flatten(2).mean(2) if codes.dim() > 2 else codes)


def principal(x: Tensor, dims: int, seed: int = 0) -> PCA:
    """A fitted `sklearn.decomposition.PCA` of x (N,…) with `dims` components: the best linear code of that size.

    Args:
        x: images or codes, (N,…); they are flattened.
        dims: number of components, at most the smaller of N and the dimensions of one x.
        seed: seed of the randomised solver, which is used for large sets.

    Raises:
        LimnerError: there are not that many components.
    """
    from sklearn.decomposition import PCA

    table = flat(x)
    if not 1 <= dims <= min(table.shape):
        raise LimnerError(
            f"PCA of {len(table)} vectors of {table.shape[1]} has 1 to {min(table.shape)} components, not {dims}"
        )
    return PCA(dims, random_state=seed).fit(table)


def project(fitted: PCA, x: Tensor) -> Tensor:
    """The reconstruction (N,…) of x (N,…) from its principal components."""
    reconstruction = fitted.inverse_transform(fitted.transform(flat(x)))
    return torch.from_numpy(reconstruction).to(x.dtype).view_as(x)


def pca(codes: Tensor, dims: int = 2) -> NDArray[np.float32]:
    """The first `dims` principal components (N,dims) of codes (N,…), in order of falling variance."""
    components: NDArray[np.float32] = principal(codes, dims).transform(flat(codes))
    return components


def tsne(codes: Tensor | NDArray[np.float32], *, perplexity: float = 30.0, seed: int = 0) -> NDArray[np.float32]:
    """A t-SNE map (N,2) of codes (N,…), initialised with their first two principal components.

    Args:
        codes: at least four; 2,000 take about ten seconds.
        perplexity: effective number of neighbours of each point; it is lowered to a third of the points where larger.
        seed: seed of the optimiser.

    Raises:
        LimnerError: there are too few codes.
    """
    from sklearn.manifold import TSNE

    table = flat(codes) if isinstance(codes, Tensor) else codes
    if len(table) < 4:
        raise LimnerError(f"a t-SNE map needs at least 4 codes, got {len(table)}")
    perplexity = min(perplexity, (len(table) - 1) / 3)
    points: NDArray[np.float32] = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(table)
    return points
