"""The scorecard: six properties of a good generative model, measured in the same way for every family.

====================  ===================================================================================
property              headline on the card
====================  ===================================================================================
efficient sampling    images a second at the best batch
quality               clipped density (Salvy et al. 2025): the share of samples that could be real
coverage              clipped coverage: the share of the real images that samples come near
latent space          Fréchet distance of images half-way between two codes, beside that of samples
disentanglement       mutual information gap, where the factors of the data are known
likelihood            bits per dimension of held-out images, with the kind of the bound or estimate
====================  ===================================================================================

An absolute number says little: every measure of fidelity and of diversity fails some check (Räisä et al. 2025,
arXiv:2505.22450). Each score is therefore compared with two reference values, measured in the same way on the same
data: the **ceiling**, real training images scored as if a model had made them, and the **floor**, noise with the mean
and variance of each pixel. `norm` says where between them a score lies, 0 to 1. A score that a model cannot have is
"n/a" with the reason, never 0. Sampling options, such as 5 steps, stand in the name of a score
(``fd@lenet64-v1[n=10000,steps=5]``). Copying is a property of its own, because a model that repeats its training images
would win all the others.

Samples are first rounded to 8 bits, as they would be saved. Intervals are Student's t intervals over seeds of the
noise: they cover the randomness of sampling, not that of the training.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
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


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number and the conditions under which it holds.

    Attributes:
        value: the number; None for a score that could not be measured.
        unit: unit of the value, as it is printed.
        on: the data that it was measured on.
        how: what the number is, in a sentence.
        property: one of `PROPERTIES`.
        error: one standard error.
        low: lower end of a 95 % interval.
        high: upper end of this interval.
        better: "higher" or "lower"; None where neither is better.
        ceiling: score of real images.
        floor: score of noise.
        norm: position of the value from floor (0) to ceiling (1).
        why: the reason why there is no value.
        drawn: number of pictures of a folder that were drawn to be scored.
        of: number of usable pictures that they were drawn from.
        options: sampling options that the user chose, by name; empty for the model's defaults.
        notes: sentences on how the images were prepared, and what was left out and why.
    """

    value: float | str | None = field(kw_only=False)
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
    drawn: int | None = None
    of: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @classmethod
    def of_sample(cls, values: Sequence[float], **settings: Any) -> Score:
        """The mean of values, with its standard error and interval; `settings` are the other attributes."""
        mean, error, low, high = interval(values)
        return cls(mean, error=error, low=low, high=high, **settings)

    def to_dict(self) -> dict[str, Any]:
        """The attributes that are set, as ``scores.json`` has them."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {"options": dict(self.options), "notes": list(self.notes)}
        return {k: v for k, v in values.items() if k == "value" or v not in (None, "", [], {})}


Card = dict[str, Score]
"""Scores by name. A name carries its conditions, such as ``fd@lenet64-v1[n=10000]``."""


def missing(property_: str, why: str) -> Score:
    """A score that could not be measured, with the reason."""
    return Score(None, property=property_, why=why)


def normalised(value: float, floor: float | None, ceiling: float | None) -> float | None:
    """Position of a value from floor (0) to ceiling (1), clipped; None without both or where they are equal.

    >>> normalised(3.0, 5.0, 1.0)
    0.5
    """
    if floor is None or ceiling is None or floor == ceiling:
        return None
    return min(max((value - floor) / (ceiling - floor), 0.0), 1.0)


def interval(values: Sequence[float]) -> tuple[float, float | None, float | None, float | None]:
    """Mean, its standard error and Student's 95 % interval; only the mean for a single value.

    >>> [round(v, 2) for v in interval([1.0, 2.0, 3.0])]
    [2.0, 0.58, -0.48, 4.48]
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None, None, None
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = student(len(values) - 1) * error
    return mean, error, mean - half, mean + half


def student(degrees: int) -> float:
    """The t such that 95 % of Student's distribution lie within ±t.

    >>> round(student(4), 3)
    2.776
    """
    from scipy.stats import t

    return float(t.ppf(0.975, degrees))


def base(name: str) -> str:
    """A score's name without its conditions.

    >>> base("fd@lenet64-v1[n=10000]"), base("cas[n=4500]")
    ('fd', 'cas')
    """
    return name.partition("@")[0].partition("[")[0]


def words(options: Mapping[str, Any]) -> str:
    """Sampling options as a user writes them, separated by blanks.

    >>> words({"steps": 5, "guidance": 2.0, "interval": (0.3, 5.0)})
    'steps=5 guidance=2 interval=0.3,5'
    """
    return " ".join(f"{key}={_word(value)}" for key, value in options.items())


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_word, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def named(name: str, options: Mapping[str, Any]) -> str:
    """A score's name with sampling options among its conditions.

    >>> named("fd@lenet64-v1[n=10000]", {"steps": 5}), named("latency_ms", {"steps": 5})
    ('fd@lenet64-v1[n=10000,steps=5]', 'latency_ms[steps=5]')
    """
    if not options:
        return name
    conditions = words(options).replace(" ", ",")
    return f"{name[:-1]},{conditions}]" if name.endswith("]") else f"{name}[{conditions}]"


def unnamed(name: str, options: Mapping[str, Any]) -> str:
    """A score's name without these options: what `named` was given.

    >>> unnamed("fd@lenet64-v1[n=10000,steps=5]", {"steps": 5}), unnamed("latency_ms[steps=5]", {"steps": 5})
    ('fd@lenet64-v1[n=10000]', 'latency_ms')
    """
    conditions = words(options).replace(" ", ",")
    for ending, rest in ((f"[{conditions}]", ""), (f",{conditions}]", "]")) if options else ():
        if name.endswith(ending):
            return name.removesuffix(ending) + rest
    return name


def comparable(cards: Sequence[dict[str, Any]]) -> list[str]:
    """Names of scores that all cards have, in the order of the first card.

    Raises:
        LimnerError: two cards have the same score under different conditions.
    """
    names: dict[str, str] = {}
    for card in cards:
        for name in card:
            first = names.setdefault(base(name), name)
            if first != name:
                raise LimnerError(
                    f"{first} and {name} cannot be compared: the extractor or the number of images differs;"
                    " choose an extractor and an n that fit both"
                )
    return [name for name in cards[0] if all(name in card for card in cards)] if cards else []


def select(card: Card, properties: Collection[str]) -> Card:
    """The scores of some properties."""
    return {name: score for name, score in card.items() if score.property in properties}
