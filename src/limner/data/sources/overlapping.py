"""Two classes that share a digit, on which conditional GANs with a classifier are known to fail."""

from __future__ import annotations

from typing import Literal

from limner.core.errors import LimnerError
from limner.data.arrays import Arrays
from limner.data.registry import SOURCES, source
from limner.data.sources import named

SHARED, ONLY_A, ONLY_B = 0, 1, 2


@source("overlapping-digits")
def overlapping_digits(of: Literal["mnist-5k", "mnist"] = "mnist-5k", twice: bool = False) -> Arrays:
    """Digits in two classes, A = {0, 1} and B = {0, 2}, half of each class zeros (Gong et al. 2019, arXiv:1907.02690).

    All four parts have the same number of images. The digit of each image is its factor ``digit``, so that the share
    of zeros in samples of a class can be scored: it is 1/2.

    Args:
        of: the set that the digits are from: "mnist-5k", or "mnist" for more of them.
        twice: whether every zero is in A and in B, which gives twice as many images. Otherwise it belongs to one of
            them, and a net can learn by heart to which.
    """
    import numpy as np

    if of not in ("mnist-5k", "mnist"):
        raise LimnerError(f"of: {of!r} is not possible; choose from: mnist-5k, mnist")
    digits: Arrays = SOURCES[of].function()
    assert digits.labels is not None
    assert digits.test is not None
    chosen, labels = [], []
    for held_out in (False, True):
        places = [np.flatnonzero((digits.labels == d) & (digits.test == held_out)) for d in (SHARED, ONLY_A, ONLY_B)]
        n = min(len(places[0]) // (1 if twice else 2), len(places[1]), len(places[2]))
        # every second zero, so that neither class has the zeros of other writers
        of_a, of_b = (places[0][:n],) * 2 if twice else (places[0][0 : 2 * n : 2], places[0][1 : 2 * n : 2])
        for k, part in enumerate((of_a, places[1][:n], of_b, places[2][:n])):
            chosen.append(part)
            labels.append(np.full(n, k // 2))
    ids, y = np.concatenate(chosen), np.concatenate(labels)
    order = np.argsort(ids, kind="stable")  # the order of the digits, so that classes and parts are mixed
    ids, y = ids[order], y[order].astype(np.int64)
    return Arrays(
        digits.images[ids],
        y,
        ["A", "B"],
        digits.test[ids],
        factors=digits.labels[ids, None],
        factor_sizes=(len(named.DIGITS),),
        factor_names=("digit",),
        notes=[f"of {of}: A has the digits {SHARED} and {ONLY_A}, B has {SHARED} and {ONLY_B}, half of each {SHARED}"],
    )
