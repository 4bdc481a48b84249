"""R-precision: whether the caption of a picture is found again among the captions of others.

Xu et al. 2018, *AttnGAN* (arXiv:1711.10485), section 4.1, with R = 1: a picture is compared with its own caption and 99
that do not describe it, and the score is the share of pictures whose own caption is the most similar one. Chance is
1/100. The number depends on what measures similarity and on how alike the captions of the pool are; published numbers
of one model differ by 12 points for that reason (AttnGAN's issues 48 and 56). So a score names its judge and its pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from limner.core.errors import LimnerError
from limner.metrics.extractors.readers import UNKNOWN

POOL = 100
"""Captions among which one is looked for, with the right one."""
_RIDGE = 0.01  # penalty of the ridge regression, for each picture


def candidates(groups: Tensor, pool: int = POOL, seed: int = 0) -> Tensor:
    """For each of N pictures the indices (N,pool) of captions: its own, then others that do not describe it.

    Args:
        groups: (N,) int64; the caption of a picture describes the pictures of its group and no others.
        pool: captions, with the right one.
        seed: seed of the draw, which is without repetition.

    Raises:
        LimnerError: there are too few captions that do not describe a picture.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i, group in enumerate(groups.tolist()):
        order = torch.randperm(len(groups), generator=generator)
        others = order[groups[order] != group][: pool - 1]
        if len(others) < pool - 1:
            raise LimnerError(
                f"{len(others)} of {len(groups)} captions do not describe picture {i}, and {pool - 1} are needed"
            )
        rows.append(torch.cat([torch.tensor([i]), others]))
    return torch.stack(rows)


def r_precision(similarity: Tensor) -> Tensor:
    """Whether (N,) each picture's own caption is found, of similarities (N,pool) of which the first is its own.

    A tie is no find: a judge that finds all captions equal knows nothing.

    >>> r_precision(torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.1, 0.2]]))
    tensor([ True, False, False])
    """
    return similarity[:, 0] > similarity[:, 1:].amax(1)


def by_attributes(
    logits: Mapping[str, Tensor],
    known: Mapping[str, Sequence[str]],
    values: Mapping[str, Sequence[str]],
    told: Tensor,
    pool: Tensor,
) -> Tensor:
    """Similarities (N,pool): the log-probability that a reader gives to what a caption says.

    Args:
        logits: (N,K) by attribute, of N pictures.
        known: the reader's names of values, in the order of its logits.
        values: the attributes that captions tell, with names of values in their own order.
        told: (M,F) what each caption says, as indices into `values`; `UNKNOWN` where it says nothing.
        pool: (N,pool) indices of captions.
    """
    total = torch.zeros(pool.shape)
    for f, (attribute, names) in enumerate(values.items()):
        log_p = logits[attribute].float().log_softmax(1).cpu()
        columns = torch.tensor([list(known[attribute]).index(name) for name in names])
        said = told[pool, f]  # (N,pool)
        total += torch.where(said == UNKNOWN, 0.0, log_p.gather(1, columns[said.clamp(min=0)]))
    return total


def by_vectors(features: Tensor, vectors: Tensor, pool: Tensor, *, real: Tensor, real_vectors: Tensor) -> Tensor:
    """Similarities (N,pool): the cosine of captions' vectors with those that a linear map reads in pictures.

    The map is a ridge regression on real pictures, of standardised features; vectors are taken from their mean.

    Args:
        features: (N,d) of the pictures.
        vectors: (M,size) of the captions.
        pool: (N,pool) indices of captions.
        real: (R,d) features of real pictures.
        real_vectors: (R,size) vectors of their captions.
    """
    mean, std = real.double().mean(0), real.double().std(0).clamp(min=1e-8)
    x, centre = (real.double() - mean) / std, real_vectors.double().mean(0)
    gram = x.T @ x + _RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    W = torch.linalg.solve(gram, x.T @ (real_vectors.double() - centre))
    read = torch.nn.functional.normalize(((features.double() - mean) / std) @ W, dim=1)
    told = torch.nn.functional.normalize(vectors.double() - centre, dim=1)
    return (told[pool] @ read[:, :, None]).squeeze(2)
