"""How well planes of a latent space separate attributes (Karras et al. 2019).

For each attribute of a picture a linear support vector machine is fitted to the points of the latent space, and the
conditional entropy H(Y|X) says how much of what a reader sees, Y, is not known from the side X of the plane. The score
is exp(Σ H(Y|X)), which is 1 if planes tell every attribute (Karras, Laine and Aila 2019, *A style-based generator
architecture for generative adversarial networks*, arXiv:1812.04948, section 4.2). As there, the half of the points that
the reader is least sure of is left out, for each attribute.

Departures: each value of an attribute is told from all others, as attributes here may have many values; planes are
judged on points that they were not fitted to, as there are fewer points than the authors' 200,000; and it has an
interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from limner.core.errors import LimnerError

_LEAST = 10  # points with a value, and as many without, that a plane is fitted to


@dataclass(frozen=True)
class Separability:
    """How well planes separate what a reader sees.

    Attributes:
        value: exp(Σ H(Y|X)) over values, 1 at best.
        low: lower end of a 95 % interval over the points.
        high: upper end.
        nothing: exp(Σ H(Y)), which planes that tell nothing would have.
        values: number of values that occur often enough to be told.
    """

    value: float
    low: float
    high: float
    nothing: float
    values: int


def conditional_entropy(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """H(Y|X) in nats, (R,), of yes and no in x (N,) and y (N,), for each of R weightings (R,N) of the points.

    >>> x, other, once = torch.tensor([True, True, False, False]), torch.arange(4) % 2 == 0, torch.ones(1, 4)
    >>> conditional_entropy(x, ~x, once), conditional_entropy(x, other, once)
    (tensor([0.]), tensor([0.6931]))
    """
    cells = torch.stack([torch.stack([(weight * (a & b)).sum(1) for b in (y, ~y)]) for a in (x, ~x)])  # (2,2,R)
    p = cells / cells.sum((0, 1))
    of_x = p.sum(1)
    return torch.special.xlogy(of_x, of_x).sum(0) - torch.special.xlogy(p, p).sum((0, 1))


def separability(points: Tensor, table: Mapping[str, Tensor], *, resamples: int = 200, seed: int = 0) -> Separability:
    """The score of a latent space.

    Args:
        points: points (N,D) of the space.
        table: by attribute the log probabilities (N,K) of its values, which a reader gives to the points' pictures.
        resamples: bootstrap samples of the points, for the interval.
        seed: seed of these.

    Raises:
        LimnerError: no value occurs often enough.
    """
    from sklearn.svm import LinearSVC

    x = points.flatten(1).double().cpu()
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-12)
    n = len(x)
    fitted = torch.arange(n) % 2 == 0
    picks = torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(seed))
    weight = torch.ones(resamples + 1, n, dtype=torch.float64)  # the first counts every point once
    weight[1:] = torch.zeros(resamples, n, dtype=torch.float64).scatter_add_(1, picks, weight[1:])
    total, nothing, count = torch.zeros(resamples + 1, dtype=torch.float64), 0.0, 0
    for log_p in (column for values in table.values() for column in values.double().cpu().unbind(1)):
        has, sure = log_p > torch.tensor(0.5).log(), (log_p - torch.log1p(-log_p.exp().clamp(max=1 - 1e-12))).abs()
        kept = torch.zeros(n, dtype=torch.bool)
        kept[sure.argsort(descending=True, stable=True)[: n // 2]] = True
        own, judged = kept & fitted, kept & ~fitted
        if min(int((has & own).sum()), int((~has & own).sum())) < _LEAST or not bool(judged.any()):
            continue
        plane = LinearSVC(C=0.1, random_state=0).fit(x[own].numpy(), has[own].numpy())
        side = torch.from_numpy(plane.predict(x[judged].numpy()))
        total += conditional_entropy(side, has[judged], weight[:, judged])
        nothing += float(conditional_entropy(torch.ones_like(side), has[judged], weight[:1, judged]))
        count += 1
    if not count:
        raise LimnerError(f"no attribute occurs and is missing in {_LEAST} of these {n} points; give more")
    low, high = total[1:].quantile(torch.tensor([0.025, 0.975], dtype=total.dtype)).exp().tolist()
    return Separability(float(total[0].exp()), low, high, float(torch.tensor(nothing).exp()), count)
