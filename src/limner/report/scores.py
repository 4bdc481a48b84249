"""The scores of a report: tiles for the main ones, a table of all, and a radar chart of six properties."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from limner.metrics.scorecard import HEADLINES, PROPERTIES, base
from limner.report.facts import Score
from limner.report.words import number, title

_TRANSLATION = ("l1", "ssim", "perceptual", "cycle_l1_a", "cycle_l1_b", "pair_l1_to_b", "pair_l1_to_a", "diversity")
_RADIUS, _LABEL_RADIUS = 100, 118  # of the radar chart and of its labels, in units of the SVG


@dataclass(frozen=True)
class ScoreRow:
    """A score as a row of the table."""

    name: str
    conditions: str
    value: str
    interval: str
    score: Score

    @property
    def strip(self) -> float | None:
        """Position of the value between floor and ceiling, in percent."""
        return None if self.score.norm is None else 100 * self.score.norm


@dataclass(frozen=True)
class Group:
    """The scores of one property, and the reasons for missing ones."""

    title: str
    rows: list[ScoreRow]
    missing: list[str]


@dataclass(frozen=True)
class Spoke:
    """One property on the radar chart, with the positions of its value, of the rim and of its label."""

    title: str
    norm: float | None
    point: tuple[float, float]
    rim: tuple[float, float]
    label: tuple[float, float]
    anchor: str


def score_row(score: Score) -> ScoreRow:
    """The texts of a score."""
    measured_with, _, settings = score.key.removeprefix(base(score.key)).lstrip("@").partition("[")
    conditions = [measured_with, *settings.rstrip("]").replace("=", " = ").split(",")]
    value = score.text or f"{number(score.value)}{f' {score.unit}' if score.unit else ''}"
    interval = f"{number(score.low)} to {number(score.high)}" if score.low is not None else ""
    if not interval and score.error:
        interval = f"± {number(score.error)}"
    return ScoreRow(
        title(base(score.key), score.unit),
        ", ".join(filter(None, conditions)),
        value,
        interval,
        score,
    )


def tiles(scores: Sequence[Score]) -> list[Score]:
    """The scores shown large: the headline of each property by default options, and scores without a property."""
    headlines = [
        s for s in scores if s.property and not s.options and base(s.key) in (HEADLINES.get(s.property), *_TRANSLATION)
    ]
    return [s for s in scores if not s.property] + [s for s in headlines if s.value is not None]


def groups(scores: Sequence[Score]) -> list[Group]:
    """Scores by property, in the order of the scorecard; those that differ in options only stand together."""
    result = []
    first = {base(s.key): i for i, s in reversed(list(enumerate(scores)))}
    for key, name in PROPERTIES.items():
        members = sorted((s for s in scores if s.property == key), key=lambda s: first[base(s.key)])
        rows = [score_row(s) for s in members if s.value is not None or s.text]
        missing = [s.why for s in members if s.value is None and s.why]
        if rows or missing:
            result.append(Group(name, rows, missing))
    return result


def radar(scores: Sequence[Score]) -> list[Spoke]:
    """The six headlines between floor (middle) and ceiling (rim); empty where fewer than three can be placed."""
    norms = {
        s.property: s.norm for s in scores if s.property and not s.options and base(s.key) == HEADLINES.get(s.property)
    }
    if sum(norm is not None for norm in norms.values()) < 3:
        return []
    spokes = []
    for i, key in enumerate(HEADLINES):
        angle = 2 * math.pi * i / len(HEADLINES) - math.pi / 2
        x, y = math.cos(angle), math.sin(angle)
        norm = norms.get(key)
        radius = _RADIUS * (norm or 0.0)
        anchor = "middle" if abs(x) < 0.1 else "start" if x > 0 else "end"
        spokes.append(
            Spoke(
                PROPERTIES[key],
                norm,
                (round(radius * x, 1), round(radius * y, 1)),
                (round(_RADIUS * x, 1), round(_RADIUS * y, 1)),
                (round(_LABEL_RADIUS * x, 1), round(_LABEL_RADIUS * y, 1)),
                anchor,
            )
        )
    return spokes
