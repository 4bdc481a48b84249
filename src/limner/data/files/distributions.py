"""How the values of attributes are distributed over images, and which of them never meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from limner.data.steps import listed

_SHOWN = 4


def distribution(attributes: Mapping[str, Sequence[str]], features: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """Attribute -> value -> number of images; "" counts those of which it is not known.

    Args:
        attributes: the names of the values of each attribute.
        features: (N,F) value indices, -1 where a value is not known.
    """
    result = {}
    for f, (attribute, values) in enumerate(attributes.items()):
        counts = np.bincount(features[:, f] + 1, minlength=len(values) + 1).tolist()
        result[attribute] = dict(zip(values, counts[1:])) | ({"": counts[0]} if counts[0] else {})
    return result


def described(counts: Mapping[str, Mapping[str, int]]) -> str:
    """The values of some attributes and how many images have them, as text.

    >>> described({"glasses": {"none": 3, "round": 1, "": 2}})
    'glasses (none 3, round 1, not known 2)'
    """
    texts = [f"{a} ({listed((v or 'not known', n) for v, n in of.items())})" for a, of in list(counts.items())[:_SHOWN]]
    more = len(counts) - len(texts)
    return ", ".join(texts) + (f", and {more} more" if more else "")


def never_together(
    attributes: Mapping[str, Sequence[str]], features: NDArray[np.int64], least: float = 5
) -> list[tuple[str, str, float]]:
    """Pairs of values that no image has, and how many would have them if the attributes were independent.

    A conditional model has not seen them, and its images of them are guesses.

    Args:
        attributes: the names of the values of each attribute.
        features: (N,F) value indices, -1 where a value is not known.
        least: pairs of which fewer images are expected are not listed.

    Returns:
        The pairs as ``hair=grey`` and ``glasses=round``, with the expected number, most expected first.

    >>> rows = np.array([[0, 0]] * 9 + [[1, 1]] * 9 + [[0, 1]])
    >>> ((a, b, n),) = never_together({"hair": ["red", "grey"], "glasses": ["none", "round"]}, rows, least=4)
    >>> a, b, round(n, 2)
    ('hair=grey', 'glasses=none', 4.26)
    >>> never_together({"hair": ["red", "grey"], "glasses": ["none", "round"]}, rows)  # fewer than 5 are expected
    []
    """
    bounds = list(pairwise(accumulate((len(values) for values in attributes.values()), initial=0)))
    columns = zip(features.T, attributes.values())
    known = np.concatenate([np.asarray(f[:, None] == np.arange(len(v)), np.float32) for f, v in columns], 1)
    together = known.T @ known
    names = [f"{attribute}={value}" for attribute, values in attributes.items() for value in values]
    found = []
    for (a, b), (c, d) in combinations(bounds, 2):
        counts = together[a:b, c:d]
        expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / max(counts.sum(), 1)
        for i, j in np.argwhere((counts == 0) & (expected >= least)).tolist():
            found.append((names[a + i], names[c + j], float(expected[i, j])))
    return sorted(found, key=lambda pair: -pair[2])
