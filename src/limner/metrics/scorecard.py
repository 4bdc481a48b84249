"""The scorecard: six properties of a good generative model, measured alike for every family.

====================  ===================================================================================
property              headline on the card
====================  ===================================================================================
efficient sampling    images a second at the best batch
quality               clipped density (Salvy et al. 2025): the share of samples that could be real
coverage              clipped coverage: the share of the real images that samples come near
latent space          Fréchet distance of images half-way between two codes, beside that of samples
disentanglement       mutual information gap, where the factors of the data are known
likelihood            bits per dimension of images never trained on, with the kind of number it is
====================  ===================================================================================

An absolute number says little: every measure of fidelity and of diversity fails some check (Räisä et al. 2025,
arXiv:2505.22450). So a score stands between two anchors that are measured in the same way on the same data: the
**ceiling**, real training images scored as if a model had made them, and the **floor**, noise with the mean and
variance of each pixel. `norm` says where between them a score lies, 0 to 1. What a model cannot do is "n/a" with the
reason, never 0. Copying is judged apart: a model that repeats its training images would win all the others.

Samples are rounded to 8 bits first, as they would be saved. Intervals are Student's over seeds of the noise: they say
how much a score owes to chance in sampling, not how much to the training.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from limner.core.errors import LimnerError

PROPERTIES = {
    "sampling": "Efficient sampling",
    "quality": "High-quality samples",
    "coverage": "Coverage",
    "latent": "Well-behaved latent space",
    "disentangled": "Disentangled latent space",
    "likelihood": "Efficient likelihood",
    "copying": "Copying",
}
HEADLINES = {
    "sampling": "throughput",
    "quality": "clipped_density",
    "coverage": "clipped_coverage",
    "latent": "interpolation",
    "disentangled": "mig",
    "likelihood": "bits_per_dim",
}


@dataclass(frozen=True)
class Score:
    """One number with the conditions that it holds under.

    Attributes:
        value: None for a score that does not exist here; then `why` says why.
        unit: of the value, for people.
        on: what it was measured on.
        how: what it is, in a sentence.
        property: of `PROPERTIES`.
        error: one standard error.
        low: lower end of a 95 % interval.
        high: upper end.
        better: "higher" or "lower"; None where neither end is best.
        ceiling: what real images score.
        floor: what noise scores.
        norm: where from floor (0) to ceiling (1) the value lies.
        why: why there is no value.
    """

    value: float | str | None
    unit: str = ""
    on: str = ""
    how: str = ""
    property: str = ""
    error: float | None = None
    low: float | None = None
    high: float | None = None
    better: Literal["higher", "lower"] | None = None
    ceiling: float | None = None
    floor: float | None = None
    norm: float | None = None
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What is known, for ``scores.json``."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in known.items() if k == "value" or v not in (None, "")}


Card = dict[str, Score]
"""Scores by name. A name carries its conditions, such as ``fd@lenet64-v1[n=10000]``."""


def missing(property_: str, why: str) -> Score:
    """A score that does not exist, and the reason."""
    return Score(None, property=property_, why=why)


def interval(values: Sequence[float]) -> tuple[float, float | None, float | None, float | None]:
    """Mean, its standard error and Student's 95 % interval; only the mean for a single value.

    >>> [round(v, 2) for v in interval([1.0, 2.0, 3.0])]
    [2.0, 0.58, -0.48, 4.48]
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None, None, None
    error = statistics.stdev(values) / math.sqrt(len(values))
    reach = student(len(values) - 1) * error
    return mean, error, mean - reach, mean + reach


def student(degrees: int) -> float:
    """The t that 95 % of Student's distribution lie within.

    >>> round(student(4), 3)
    2.776
    """
    from scipy.stats import t  # scikit-learn needs scipy, so it is there

    return float(t.ppf(0.975, degrees))


def base(name: str) -> str:
    """A score's name without its conditions.

    >>> base("fd@lenet64-v1[n=10000]"), base("cas[n=4500]")
    ('fd', 'cas')
    """
    return name.partition("@")[0].partition("[")[0]


def comparable(cards: Sequence[dict[str, Any]]) -> list[str]:
    """Names of scores that all cards have, in order of the first.

    Raises:
        LimnerError: two cards have the same score under other conditions.
    """
    known: dict[str, str] = {}
    for card in cards:
        for name in card:
            other = known.setdefault(base(name), name)
            if other != name:
                raise LimnerError(
                    f"{other} and {name} do not compare: another extractor, or another number of images; evaluate both"
                    " alike"
                )
    return [name for name in cards[0] if all(name in card for card in cards)] if cards else []
