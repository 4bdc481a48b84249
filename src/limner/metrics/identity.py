"""Whether images keep their identity: what a reader reads before and after a change, such as ageing.

The identity of a face is the share of chosen attributes (skin, eyes, nose …) that read the same in both pictures. As
each picture has a partner, two methods on the same pictures are compared by a paired bootstrap over pictures (Efron and
Tibshirani 1993, *An Introduction to the Bootstrap*, section 13.3): what pictures have in common cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from limner.core.errors import LimnerError, unknown

_DRAWS = 2000


@dataclass(frozen=True, eq=False)
class Identity:
    """How much of the identity is kept.

    Attributes:
        value: share of the attributes that read the same, mean over attributes and pictures.
        low: lower end of the 95 % interval (bootstrap over pictures).
        high: upper end of this interval.
        floor: the same for each picture beside the result of every other one: what equal frequencies alone give.
        per_attribute: share of the pictures in which each attribute reads the same.
        shares: (N,) share of the attributes that read the same in each picture.
    """

    value: float
    low: float
    high: float
    floor: float
    per_attribute: dict[str, float]
    shares: Tensor = field(repr=False)


def identity_kept(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], attributes: Sequence[str] | None = None, seed: int = 0
) -> Identity:
    """Agreement of a reader's heads on pictures before and after a change.

    >>> eyes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> kept = identity_kept({"eyes": eyes}, {"eyes": eyes})
    >>> kept.value, kept.floor
    (1.0, 0.0)

    Args:
        before: logits (N,K) by attribute of the pictures before, as `ReadsAttributes.logits` gives them.
        after: those of the same N pictures after the change, in the same order.
        attributes: the attributes that make the identity; by default all.
        seed: of the bootstrap.

    Raises:
        LimnerError: an attribute is unknown, there are fewer than 2 pictures, or the numbers of pictures differ.
    """
    names = list(before) if attributes is None else list(attributes)
    for name in names:
        if name not in before or name not in after:
            raise unknown("attribute", name, [a for a in before if a in after])
    if not names:
        raise LimnerError("identity needs at least one attribute; name one")
    first, second = (torch.stack([logits[name].argmax(1).cpu() for name in names], 1) for logits in (before, after))
    if first.shape != second.shape or len(first) < 2:
        raise LimnerError(
            f"identity compares at least 2 pictures before and after; there are {len(first)} and {len(second)}"
        )
    same = (first == second).double()  # (N,F)
    shares = same.mean(1)
    low, high = _interval(shares, seed)
    return Identity(
        float(shares.mean()),
        low,
        high,
        _floor(first, second),
        dict(zip(names, same.mean(0).tolist(), strict=True)),
        shares,
    )


def difference(a: Identity, b: Identity, seed: int = 0) -> tuple[float, float, float]:
    """How much more identity `a` keeps than `b` on the same pictures, with its 95 % interval of a paired bootstrap.

    Raises:
        LimnerError: they are of different numbers of pictures.
    """
    if len(a.shares) != len(b.shares):
        raise LimnerError(f"a paired comparison needs the same pictures; there are {len(a.shares)} and {len(b.shares)}")
    gap = a.shares - b.shares
    return float(gap.mean()), *_interval(gap, seed)


def _interval(values: Tensor, seed: int) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of the means of draws with repetition of values (N,)."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.stack(
        [values[torch.randint(len(values), (len(values),), generator=generator)].mean() for _ in range(_DRAWS)]
    )
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return low, high


def _floor(first: Tensor, second: Tensor) -> float:
    """Mean agreement of pictures with results of other pictures, over all n(n-1) pairs; exact, by counts of values."""
    n, total = len(first), 0.0
    for a, b in zip(first.unbind(1), second.unbind(1), strict=True):
        k = int(torch.maximum(a.max(), b.max())) + 1
        pairs = int((torch.bincount(a, minlength=k) * torch.bincount(b, minlength=k)).sum()) - int((a == b).sum())
        total += pairs / (n * (n - 1))
    return total / first.shape[1]
