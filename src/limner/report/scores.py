"""The scorecard on a page: tiles for what matters most, a table with strips for the rest, a radar of six properties."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from limner.metrics.scorecard import HEADLINES, PROPERTIES, base
from limner.report.facts import Score
from limner.report.words import number, title

_OF_TRANSLATORS = ("l1", "ssim", "perceptual", "cycle_l1_a", "cycle_l1_b", "pair_l1_to_b", "pair_l1_to_a", "diversity")
_REACH, _LABEL = 100, 118  # of the radar and of its labels, in units of the drawing


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    name: str
    conditions: str
    value: str
    interval: str
    score: Score

    @property
    def strip(self) -> float | None:
        """Where on a strip from floor to ceiling the value lies, in percent."""
        return None if self.score.norm is None else 100 * self.score.norm


@dataclass(frozen=True)
class Group:
    """The scores of one property, and why others are missing."""

    title: str
    lines: list[Line]
    missing: list[str]


@dataclass(frozen=True)
class Spoke:
    """One property on the radar: its label, where that stands, and where the value and the rim are."""

    title: str
    norm: float | None
    at: tuple[float, float]
    rim: tuple[float, float]
    label: tuple[float, float]
    anchor: str


def line(score: Score) -> Line:
    """A score as words."""
    conditions = score.key.removeprefix(base(score.key)).lstrip("@")
    value = score.text or f"{number(score.value)}{f' {score.unit}' if score.unit else ''}"
    interval = f"{number(score.low)} to {number(score.high)}" if score.low is not None else ""
    if not interval and score.error:
        interval = f"± {number(score.error)}"
    return Line(
        title(base(score.key), score.unit),
        conditions.replace("[n=", ", n = ").rstrip("]").lstrip(", "),
        value,
        interval,
        score,
    )


def tiles(scores: Sequence[Score]) -> list[Score]:
    """What is shown large: the headline of each property, or everything where nothing is said of properties."""
    heads = [s for s in scores if s.property and base(s.key) in (HEADLINES.get(s.property), *_OF_TRANSLATORS)]
    return [s for s in scores if not s.property] + [s for s in heads if s.value is not None]


def groups(scores: Sequence[Score]) -> list[Group]:
    """Scores by property, in the order of the scorecard."""
    found = []
    for key, name in PROPERTIES.items():
        own = [s for s in scores if s.property == key]
        lines = [line(s) for s in own if s.value is not None or s.text]
        missing = [s.why for s in own if s.value is None and s.why]
        if lines or missing:
            found.append(Group(name, lines, missing))
    return found


def radar(scores: Sequence[Score]) -> list[Spoke]:
    """The six headlines between floor (middle) and ceiling (rim); empty where fewer than three have a place."""
    heads = {s.property: s.norm for s in scores if s.property and base(s.key) == HEADLINES.get(s.property)}
    if sum(norm is not None for norm in heads.values()) < 3:
        return []
    spokes = []
    for i, key in enumerate(HEADLINES):
        angle = 2 * math.pi * i / len(HEADLINES) - math.pi / 2
        x, y = math.cos(angle), math.sin(angle)
        norm = heads.get(key)
        far = _REACH * (norm or 0.0)
        anchor = "middle" if abs(x) < 0.1 else "start" if x > 0 else "end"
        spokes.append(
            Spoke(
                PROPERTIES[key],
                norm,
                (round(far * x, 1), round(far * y, 1)),
                (round(_REACH * x, 1), round(_REACH * y, 1)),
                (round(_LABEL * x, 1), round(_LABEL * y, 1)),
                anchor,
            )
        )
    return spokes
