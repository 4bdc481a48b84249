"""Significance tests of the differences between recipes, corrected for their number.

Welch's t-test (Welch 1947, *The generalization of "Student's" problem when several different population variances are
involved*) does not assume equal variances: the seeds of a GAN vary more than those of a VAE. It is not paired by seed:
recipes that share a seed share the order of their images but neither weights nor noise, so there is little correlation
to use, and pairing three seeds would leave two degrees of freedom of up to four. P values are corrected over all pairs
and scores together (Holm 1979, *A simple sequentially rejective multiple test procedure*), valid for dependent tests
too. A difference is significant below p = 0.05.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from limner.bench._trainings import Mean

LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """The test of two recipes in one score.

    Attributes:
        score: name of the score.
        a: name of a recipe.
        b: name of another recipe.
        difference: difference of their means, a - b.
        low: lower end of Welch's 95 % interval of the difference, uncorrected; None if there is none.
        high: upper end.
        p: p value of Welch's test; None if neither recipe varies over seeds.
        holm: p corrected over all verdicts.
        better: the better recipe, or None.
        text: the verdict as text.
    """

    score: str
    a: str
    b: str
    difference: float
    low: float | None
    high: float | None
    p: float | None
    holm: float | None
    better: str | None
    text: str


def verdicts(
    values: Mapping[str, Mapping[str, Sequence[float]]], better: Mapping[str, str], level: float = LEVEL
) -> list[Verdict]:
    """Tests every pair of recipes in every score.

    Args:
        values: score -> recipe -> a value for each seed, at least two.
        better: score -> "higher" or "lower".
        level: p value below which a difference is significant.
    """
    rows = [(s, a, b) for s, recipes in values.items() for a, b in combinations(recipes, 2)]
    tests = [welch(values[s][a], values[s][b]) for s, a, b in rows]
    corrected = iter(holm([t[0] for t in tests if t[0] is not None]))
    result = []
    for (s, a, b), (p, low, high) in zip(rows, tests, strict=True):
        means = Mean.of(values[s][a]).mean, Mean.of(values[s][b]).mean
        adjusted = None if p is None else next(corrected)
        winner = (
            (a if (means[0] > means[1]) == (better[s] == "higher") else b)
            if adjusted is not None and adjusted < level
            else None
        )
        result.append(
            Verdict(s, a, b, means[0] - means[1], low, high, p, adjusted, winner, _verdict_text(winner, adjusted))
        )
    return result


def welch(a: Sequence[float], b: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """P value of Welch's two-sided t-test and the 95 % interval of the difference of means, a - b.

    If neither sample varies, p is 1 if they are equal, else None.

    >>> tuple(round(v, 3) for v in welch([1, 2, 3], [4, 5, 6]))
    (0.021, -5.267, -0.733)
    """
    from scipy import stats

    if len({*a}) == len({*b}) == 1:
        return (1.0, 0.0, 0.0) if a[0] == b[0] else (None, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one of the two may be constant
        test = stats.ttest_ind(a, b, equal_var=False)
        interval = test.confidence_interval(0.95)
    return float(test.pvalue), float(interval.low), float(interval.high)


def holm(p: Sequence[float]) -> list[float]:
    """P values corrected for their number by Holm's step-down method.

    >>> [round(v, 3) for v in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected


def _verdict_text(winner: str | None, p: float | None) -> str:
    if p is None:
        return "not tested: neither varies over seeds"
    return f"{winner} is better ({p_text(p)})" if winner else f"no significant difference ({p_text(p)})"


def p_text(p: float | None) -> str:
    """A p value as in papers.

    >>> p_text(0.0004), p_text(0.0031), p_text(0.41), p_text(1.0)
    ('p < .001', 'p = .003', 'p = .41', 'p = 1')
    """
    if p is None:
        return "–"
    if p < 0.001:
        return "p < .001"
    digits = f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    return "p = 1" if float(digits) == 1 else f"p = {digits[1:]}"
