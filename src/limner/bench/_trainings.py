"""Parts that benches share: settings of the user, trainings that can be continued, means over seeds."""

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
from limner.core.paths import BUILTIN
from limner.core.progress import Progress
from limner.core.run import Run, relative
from limner.core.units import clock, count
from limner.metrics.scorecard import interval

_ALLOWED_CHANGES = (
    "images", "time", "device", "threads", "workers", "keep", "samples", "log_images", "sample_images",
    "checkpoint_images", "milestone_images",
)  # fmt: skip
"""Training settings that do not change a result, or only decide how long the training is."""
_REPORT_EVERY = 10.0  # seconds between lines about a training with a time limit


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its standard error and Student's 95 % interval, which are None for a single seed."""

    mean: float
    error: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Mean:
        """The mean of at least one value."""
        return cls(*interval(list(values)))

    def text(self, digits: int, scale: float = 1.0) -> str:
        """Mean ± standard error, as in papers."""
        text = f"{scale * self.mean:.{digits}f}"
        return text if self.error is None else f"{text} ± {scale * self.error:.{digits}f}"


# -- settings -----------------------------------------------------------------------------------------------


def positive_int(name: str, value: int | str) -> int:
    """A whole number from 1 up, such as 10 or 2k.

    Raises:
        LimnerError: it is not; the message begins with `name`.
    """
    try:
        n = count(value)
    except ValueError as error:
        raise LimnerError(f"{name}: {error}") from None
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise LimnerError(f"{name}: {value!r} is not possible; write a whole number from 1 up")
    return n


def split_names(key: str, names: str | Sequence[str]) -> list[str]:
    """The names of a list or of a text with commas, without repetitions.

    >>> split_names("testbeds", "ring, grid,ring")
    ['ring', 'grid']

    Raises:
        LimnerError: the list is empty.
    """
    parts = [str(w).strip() for w in (names if isinstance(names, (list, tuple)) else str(names).split(","))]
    unique = list(dict.fromkeys(w for w in parts if w))
    if not unique:
        raise LimnerError(f"{key}: none is named; write {key}=NAME,NAME or leave it out")
    return unique


def matching_recipes(pattern: str) -> list[str]:
    """The recipes that a name, a pattern such as toy-pac*, or a YAML file stands for.

    Raises:
        LimnerError: no recipe matches.
    """
    is_one = pattern.endswith((".yaml", ".yml")) or pattern.startswith(BUILTIN)
    matches = [pattern] if is_one else catalogue.list_recipes(pattern)
    if not matches:
        raise unknown("recipe", pattern, catalogue.list_recipes())
    return matches


def without(settings: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """`settings` without `names`."""
    return {k: v for k, v in settings.items() if k not in names}


# -- trainings -----------------------------------------------------------------------------------------------


def run_folder(folder: Path, name: str) -> Path:
    """The run folder of the training of that name.

    Raises:
        LimnerError: the name cannot be the name of a folder.
    """
    if Path(name).name != name:
        raise LimnerError(f"the name of a recipe cannot be {name!r} here; give it a name: without slashes in its file")
    return folder / "runs" / name


def check_same_settings(folder: Path, planned: Recipe) -> None:
    """Raises an error if the folder holds a run with other settings, which must not be counted as this one."""
    if not (folder / "recipe.yaml").is_file():
        return
    run, new = Run(folder), recipe.record(planned)
    old = recipe.of_run(run.recipe).to_dict()
    for section in ("model", "data", "optim", "train"):
        if without(old[section], _ALLOWED_CHANGES) != without(new[section], _ALLOWED_CHANGES):
            raise LimnerError(f"{relative(folder)} was trained with other settings ({section}); choose another out=DIR")
    counts = [int(saved.name) for saved in checkpoint.folders(run.checkpoints)]
    if counts and counts[-1] >= planned.train.get("images") + planned.train.get("batch"):
        raise LimnerError(
            f"{relative(folder)} was trained on more images than this bench asks for; choose another out=DIR"
        )


def train(folder: Path, planned: Recipe, progress: Progress, seconds: float | None = None) -> Run:
    """Trains or resumes a run, unless it is finished.

    Args:
        folder: the run folder.
        planned: the recipe; its number of images ends the training, unless its time does.
        progress: receives the progress of the training.
        seconds: time limit of training over all starts, as in `planned`; default none. A ``done`` event records it.
    """
    if seconds is None:
        images = planned.train.get("images")
        if not (folder / "recipe.yaml").is_file():
            return api.train(planned.to_dict(), out=folder, progress=progress)
        run = Run(folder)
        return run if run.ended(images) else api.resume(folder, progress=progress, **{"train.images": images})
    if not (folder / "recipe.yaml").is_file():
        run = api.train(planned.to_dict(), out=folder, progress=_TimedProgress(progress, seconds))
    else:
        run = Run(folder)
        if any(e["event"] == "done" and e.get("budget", 0) >= seconds for e in run.events()):
            return run
        remaining = seconds - _seconds_trained(run)
        if remaining > 0:
            api.resume(folder, progress=_TimedProgress(progress, seconds), **{"train.time": remaining})
    last_line = run.metrics()[-1]
    run.event(
        "done",
        last_line["images"],
        last_line["seconds"],
        message=f"{clock(seconds)} of training are over",
        budget=seconds,
    )
    return run


def _seconds_trained(run: Run) -> float:
    """Seconds of training up to the newest checkpoint, from which a resumed training continues."""
    if not checkpoint.folders(run.checkpoints):
        return 0.0
    return float(checkpoint.newest(run.checkpoints)[0].state["seconds"])


class _TimedProgress:
    """Progress of a training with a time limit, as lines of text: its number of images is not known in advance."""

    def __init__(self, progress: Progress, seconds: float) -> None:
        self.progress, self.seconds, self.last_report = progress, seconds, time.monotonic()

    def start(self, run: Run, position: int, total: int) -> None:
        """Prints the run folder."""
        self.progress.say(f"training in {relative(run.path)}, {position:,} images seen")

    def step(self, position: int) -> None: ...

    def log(self, line: Mapping[str, Any]) -> None:
        """Prints the progress, at most every few seconds."""
        now = time.monotonic()
        if now - self.last_report >= _REPORT_EVERY:
            self.last_report = now
            left = clock(max(0.0, self.seconds - line["seconds"]))
            self.progress.say(f"{line['images']:>10,} images  {line['images_per_second']:,.0f} images/s  {left} left")

    def say(self, message: str) -> None:
        """Passes a message on."""
        self.progress.say(message)

    def finding(self, check: str, state: str) -> None:
        """Passes a finding on."""
        self.progress.finding(check, state)

    def stop(self) -> None: ...
