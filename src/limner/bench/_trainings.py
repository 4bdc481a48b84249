"""What benches share: names and numbers of a user, trainings that go on where they stopped, means over seeds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner import api
from limner.config import catalogue, recipe
from limner.config.recipe import Recipe
from limner.core import checkpoint
from limner.core.errors import LimnerError, unknown
from limner.core.progress import Progress
from limner.core.run import Run, relative
from limner.core.units import clock, count
from limner.metrics.scorecard import interval

_ON_THE_WAY = (
    "images", "time", "device", "threads", "workers", "keep", "samples", "log_images", "sample_images",
    "checkpoint_images", "milestone_images",
)  # fmt: skip
"""Settings of training that leave a result what it is, or that decide only how far it goes."""
_SAID_EVERY = 10.0  # seconds between lines about a training of so much time


@dataclass(frozen=True)
class Mean:
    """A mean over seeds: its standard error and Student's 95 % interval; None for a single seed."""

    mean: float
    error: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Mean:
        """Of at least one value."""
        return cls(*interval(list(values)))

    def text(self, digits: int, times: float = 1.0) -> str:
        """As papers write it: mean ± standard error."""
        shown = f"{times * self.mean:.{digits}f}"
        return shown if self.error is None else f"{shown} ± {times * self.error:.{digits}f}"


# -- what is wanted ------------------------------------------------------------------------------------------


def number(name: str, value: int | str) -> int:
    """A whole number from 1 up, such as 10 or 2k.

    Raises:
        LimnerError: it is none; `name` says whose it is.
    """
    try:
        n = count(value)
    except ValueError as error:
        raise LimnerError(f"{name}: {error}") from None
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise LimnerError(f"{name}: {value!r} is not possible; write a whole number from 1 up")
    return n


def words(what: str, names: str | Sequence[str]) -> list[str]:
    """The words of a list or of a text with commas, each once.

    >>> words("testbeds", "ring, grid,ring")
    ['ring', 'grid']

    Raises:
        LimnerError: there is none.
    """
    parts = [str(w).strip() for w in (names if isinstance(names, (list, tuple)) else str(names).split(","))]
    wanted = list(dict.fromkeys(w for w in parts if w))
    if not wanted:
        raise LimnerError(f"{what}: none is named; write {what}=NAME,NAME or leave it out")
    return wanted


def matching(pattern: str) -> list[str]:
    """The recipes that a name, a pattern such as toy-pac*, or a YAML file stands for.

    Raises:
        LimnerError: there is none.
    """
    matches = [pattern] if pattern.endswith((".yaml", ".yml")) else catalogue.list_recipes(pattern)
    if not matches:
        raise unknown("recipe", pattern, catalogue.list_recipes())
    return matches


def but(settings: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """`settings` without `names`."""
    return {k: v for k, v in settings.items() if k not in names}


# -- trainings -----------------------------------------------------------------------------------------------


def place(folder: Path, name: str) -> Path:
    """Where the training of that name lies.

    Raises:
        LimnerError: it is no name of a folder.
    """
    if Path(name).name != name:
        raise LimnerError(f"a recipe cannot be called {name!r} here; give it a name: without slashes")
    return folder / "runs" / name


def refuse_another(where: Path, wanted: Recipe) -> None:
    """Raises where a run is that was trained otherwise: it must not be counted as this one."""
    if not (where / "recipe.yaml").is_file():
        return
    run, new = Run(where), wanted.to_dict()
    old = recipe.load(run.recipe).to_dict()
    for section in ("model", "data", "optim", "train"):
        if but(old[section], _ON_THE_WAY) != but(new[section], _ON_THE_WAY):
            raise LimnerError(f"{relative(where)} was trained with other settings ({section}); choose another out=DIR")
    saved = [int(folder.name) for folder in checkpoint.folders(run.checkpoints)]
    if saved and saved[-1] >= wanted.train.get("images") + wanted.train.get("batch"):
        raise LimnerError(f"{relative(where)} was trained for more images than are asked for; choose another out=DIR")


def train(where: Path, wanted: Recipe, told: Progress, seconds: float | None = None) -> Run:
    """Trains, resumes, or only finds a run.

    Args:
        where: the run folder.
        wanted: recipe; its images end the training, if its time does not.
        told: who is told.
        seconds: of training in all, over every start, as `wanted` says; default no limit. A ``done`` event keeps them.
    """
    if seconds is None:
        images = wanted.train.get("images")
        if not (where / "recipe.yaml").is_file():
            return api.train(wanted.to_dict(), out=where, progress=told)
        run = Run(where)
        return run if run.ended(images) else api.resume(where, progress=told, **{"train.images": images})
    if not (where / "recipe.yaml").is_file():
        run = api.train(wanted.to_dict(), out=where, progress=_Clock(told, seconds))
    else:
        run = Run(where)
        if any(e["event"] == "done" and e.get("budget", 0) >= seconds for e in run.events()):
            return run
        rest = seconds - _spent(run)
        if rest > 0:
            api.resume(where, progress=_Clock(told, seconds), **{"train.time": rest})
    last = run.metrics()[-1]
    run.event("done", last["images"], last["seconds"], message=f"{clock(seconds)} of training are over", budget=seconds)
    return run


def _spent(run: Run) -> float:
    """Seconds of training behind the checkpoint that a resumed training goes on from; later ones are lost."""
    if not checkpoint.folders(run.checkpoints):
        return 0.0
    return float(checkpoint.newest(run.checkpoints)[0].state["seconds"])


class _Clock:
    """Tells of a training that time will end: a sentence now and then, since no share of its images is known."""

    def __init__(self, told: Progress, seconds: float) -> None:
        self.told, self.seconds, self.said = told, seconds, time.monotonic()

    def start(self, run: Run, position: int, total: int) -> None:
        """Says where the run is."""
        self.told.say(f"training in {relative(run.path)}, {position:,} images seen")

    def step(self, position: int) -> None: ...

    def log(self, line: Mapping[str, Any]) -> None:
        """Says how far it is, at most every few seconds."""
        now = time.monotonic()
        if now - self.said >= _SAID_EVERY:
            self.said = now
            left = clock(max(0.0, self.seconds - line["seconds"]))
            self.told.say(f"{line['images']:>10,} images  {line['images_per_second']:,.0f} images/s  {left} left")

    def say(self, message: str) -> None:
        """Passes a sentence on."""
        self.told.say(message)

    def stop(self) -> None: ...
