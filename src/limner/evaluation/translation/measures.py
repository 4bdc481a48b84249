"""Scores of single translations, each with its interval, beside those of the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from torch import Tensor

from limner.core.batch import Dataset
from limner.data.pairs import DomainSet
from limner.evaluation.draws import counted
from limner.metrics import paired
from limner.metrics.paired import Perceptual
from limner.metrics.scorecard import Card, Score, interval, normalised

_EXACT_DB = 100.0


@dataclass(frozen=True)
class Effort:
    """Limits of an evaluation.

    Attributes:
        n: largest number of held-out images.
        perceptual: largest number of them for the perceptual distance.
        references: largest number of training pairs for the baselines.
        seeds: seeds of the noise for diversity; below 2 it is not measured.
        frechet: whether Fréchet distances are measured, which take most of the time.
    """

    n: int = 10_000
    perceptual: int = 10_000
    references: int = 5_000
    seeds: int = 5
    frechet: bool = True

    @classmethod
    def for_training(cls, heldout: Dataset) -> Effort:
        """Limits for the end of a training, so that it takes seconds; fewer images, at least 32, if above 64×64."""
        n = 160 if isinstance(heldout, DomainSet) else 500  # an image of two domains is translated six times
        return cls(affordable(n, heldout.shape), affordable(min(n, 200), heldout.shape), 2000, 2, frechet=False)


def affordable(n: int, shape: Sequence[int]) -> int:
    """At most n images of a shape (C,H,W); fewer, but at least 32, if they are larger than 64×64."""
    return max(32, min(n, n * 64 * 64 // (shape[1] * shape[2])))


@dataclass(frozen=True)
class Measure:
    """What a score of single images measures.

    Attributes:
        better: "higher" or "lower".
        unit: unit of the number.
        exact: the score of equal images; None where it is infinite.
        how: what the number is, in a sentence.
    """

    better: Literal["higher", "lower"]
    unit: str
    exact: float | None
    how: str


MEASURES = {
    "l1": Measure("lower", "", 0.0, "mean absolute difference from the target on the [0,1] scale"),
    "psnr_db": Measure(
        "higher", "dB", None, f"peak signal-to-noise ratio, the mean over images; {_EXACT_DB:g} dB for an exact one"
    ),
    "ssim": Measure("higher", "", 1.0, "structural similarity to the target (Wang et al. 2004)"),
    "perceptual": Measure(
        "lower",
        "",
        0.0,
        "squared distance of unit feature vectors, mean over positions and layers (Zhang et al. 2018,"
        " eq. 1 with w = 1; not LPIPS)",
    ),
}


@dataclass(frozen=True)
class On:
    """The images that a score is of: `total` of them, `what` they are."""

    total: int
    what: str

    def text(self, n: int) -> str:
        """What n of them are, in words."""
        return counted(n, self.total, self.what)


@dataclass
class Measurements:
    """Measurements of one method: values of single images by measure, and features of all images."""

    values: dict[str, list[float]] = field(default_factory=dict)
    features: list[Tensor] = field(default_factory=list)

    def add(self, measure: str, values: Tensor) -> None:
        self.values.setdefault(measure, []).extend(values.double().tolist())

    def compare(self, y: Tensor, b: Tensor) -> None:
        """Adds the pixel measures of images y against b."""
        self.add("l1", paired.l1(y, b))
        self.add("psnr_db", paired.psnr(y, b).clamp(max=_EXACT_DB))
        self.add("ssim", paired.ssim(y, b))


def conditions(measure: str, n: int, shape: Sequence[int], perceptual: Perceptual) -> str:
    """The conditions in a score's name: features, number of images, a window that is not the paper's."""
    if measure == "perceptual":
        return f"@{perceptual.key}[n={n}]"
    side = paired.window(shape[1], shape[2])
    return f"[n={n}]" if measure != "ssim" or side == paired.window(64, 64) else f"[n={n}, window={side}]"


def score_name(measure: str, method: str) -> str:
    """The name of a method's score.

    >>> score_name("l1", ""), score_name("l1", "nearest"), score_name("psnr_db", "nearest")
    ('l1', 'l1_nearest', 'psnr_nearest_db')
    """
    head, unit, _ = measure.partition("_db")
    return f"{head}_{method}{unit}" if method else measure


def scores_with_baselines(
    measure: str, values: dict[str, list[float]], at: str, on: On, descriptions: dict[str, str], prefix: str = ""
) -> Card:
    """The model's score ("" among the values), with the best baseline as its floor; and those of the baselines."""
    about, model = MEASURES[measure.split("_to_")[0]], values[""]
    sign = 1 if about.better == "higher" else -1
    others = {method: v for method, v in values.items() if method}
    best = max((fmean(v) for v in others.values()), key=lambda m: sign * m, default=None)
    margins = "".join(
        f"; {_margin([sign * (x - y) for x, y in zip(model, v, strict=True)])} {descriptions[method]}"
        for method, v in others.items()
    )
    common: dict[str, Any] = {
        "unit": about.unit, "on": on.text(len(model)), "property": "quality", "better": about.better
    }  # fmt: skip
    card = {
        f"{prefix}{measure}{at}": Score.of_sample(
            model, how=about.how + margins, ceiling=about.exact, floor=best,
            norm=normalised(fmean(model), best, about.exact), **common,
        )
    }  # fmt: skip
    for method, v in others.items():
        name = f"{prefix}{score_name(measure, method)}{at}"
        card[name] = Score.of_sample(v, how=f"the same for {descriptions[method]}", **common)
    return card


def _margin(gains: list[float]) -> str:
    """By how much the model is better or worse on the same images, in words."""
    mean, _, low, high = interval(gains)
    if low is None or high is None:
        return f"{abs(mean):.3g} {'better' if mean > 0 else 'worse'} than"
    if low <= 0 <= high:
        return f"neither better nor worse ({low:.2g} to {high:.2g}) than"
    low, high = sorted((abs(low), abs(high)))
    return f"{abs(mean):.3g} ({low:.3g} to {high:.3g}) {'better' if mean > 0 else 'worse'} than"
