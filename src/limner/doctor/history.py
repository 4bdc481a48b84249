"""What the checks look at: everything that a run has written, and facts of its recipe and data. No model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from limner.core.checkpoint import folders
from limner.core.records import is_number
from limner.core.run import Run
from limner.core.units import count

Row = Mapping[str, Any]

YOUNG = 2000
"""Steps during which a new model is not judged by its samples: a generator first draws one image, and then noise."""
FINISHED = 1 << 30
"""The step of images that no training is known of."""


@dataclass(frozen=True)
class Counts:
    """How often each kind of image was drawn in an examination.

    Attributes:
        names: names of the kinds: classes, or bins of similar images.
        shares: the share of each kind among real images.
        drawn: (images, number of samples of each kind) of each examination after the model's youth.
    """

    names: Sequence[str]
    shares: Sequence[float]
    drawn: Sequence[tuple[int, Sequence[int]]]


@dataclass(frozen=True)
class History:
    """A training so far.

    Attributes:
        recipe: the resolved recipe.
        facts: the first event of the run: name, number and shape of the data, classes, parameters …
        metrics: the lines of ``metrics.jsonl``.
        checks: the lines of ``checks.jsonl``.
        events: the lines of ``events.jsonl``.
        abilities: what the model can do, by the names of the protocols of `limner.core.capabilities`.
        checkpoints: the images of the checkpoints that are kept.
    """

    recipe: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Row] = ()
    checks: Sequence[Row] = ()
    events: Sequence[Row] = ()
    abilities: frozenset[str] = frozenset()
    checkpoints: Sequence[int] = ()

    @property
    def model(self) -> Mapping[str, Any]:
        """The model's section of the recipe."""
        section = self.recipe.get("model", {})
        return section if isinstance(section, Mapping) else {"name": section}

    @property
    def batch(self) -> int:
        """Images of a step."""
        return int(count(str(self.recipe.get("train", {}).get("batch", 64))))

    def signal(self, name: str, after: int = 0) -> list[tuple[int, float | None]]:
        """(images, value) of a signal at each examination that has it, later than after so many steps."""
        rows = [c for c in self.checks if name in c["signals"] and c["step"] > after]
        return [(c["images"], c["signals"][name] if is_number(c["signals"][name]) else None) for c in rows]

    def fact(self, name: str) -> float | None:
        """The newest value of a signal that no training changes; None where it was not measured."""
        return next((value for _, value in reversed(self.signal(name)) if value is not None), None)

    def grown(self, name: str, is_bad: Callable[[float], bool] | None = None) -> list[tuple[int, float | None]]:
        """(images, value) of a signal after a model's youth, which a model that learns slowly has twice as long.

        Args:
            name: the signal.
            is_bad: what a young model may be; where a value is bad from the start, youth ends with the first good one,
                after twice the steps at the latest. By default it ends after `YOUNG` steps.
        """
        values: list[tuple[int, float | None]] = []
        for c in self.checks:
            if c["step"] <= YOUNG or name not in c["signals"]:
                continue
            value = c["signals"][name] if is_number(c["signals"][name]) else None
            bad_yet = is_bad is not None and not values and value is not None and is_bad(value)
            if not (bad_yet and c["step"] <= 2 * YOUNG):
                values.append((c["images"], value))
        return values

    def metric(self, name: str) -> list[tuple[int, float | None]]:
        """(images, value) of a logged number at each line that has it."""
        return [(m["images"], m[name] if is_number(m[name]) else None) for m in self.metrics if name in m]

    def counts(self) -> Counts | None:
        """How often each kind was drawn; None where that is not counted."""
        kinds = next((c["kinds"] for c in reversed(self.checks) if "kinds" in c), None)
        if kinds is None:
            return None
        drawn = [
            (c["images"], c["counts"])
            for c in self.checks
            if c["step"] > YOUNG and len(c.get("counts", ())) == len(kinds["names"])
        ]
        return Counts(kinds["names"], kinds["shares"], drawn)

    def until(self, images: int) -> History:
        """The training as it was before it had seen so many images."""
        parts = ([row for row in rows if row["images"] < images] for rows in (self.metrics, self.checks, self.events))
        metrics, checks, events = parts
        return replace(self, metrics=metrics, checks=checks, events=events)

    def last_good(self, since: int | None) -> int | None:
        """Images of the newest checkpoint from before `since`; None where there is none."""
        return max((at for at in self.checkpoints if since is not None and at < since), default=None)

    def losses(self) -> Iterator[str]:
        """Names of the logged losses."""
        yield from dict.fromkeys(k for m in self.metrics for k in m if k.startswith("loss/"))


def read(run: Run, abilities: frozenset[str]) -> History:
    """The history of a run, whose model has these abilities.

    Raises:
        LimnerError: a file of the run is damaged.
    """
    events = run.events()
    first = next((e for e in events if e["event"] in ("start", "resume")), {})
    checkpoints = [int(p.name) for p in folders(run.checkpoints)]
    return History(run.recipe, first, run.metrics(), run.checks(), events, abilities, checkpoints)
