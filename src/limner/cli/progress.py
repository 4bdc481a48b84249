"""Progress of trainings in a terminal, on stderr: a bar on a TTY, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from limner.core.units import clock

if TYPE_CHECKING:
    from limner.core.progress import Progress
    from limner.core.run import Run

_PLAIN_EVERY = 5.0  # seconds between plain lines


def terminal() -> Progress:
    """A bar if stderr is a terminal, else lines; with several processes only the first prints."""
    if int(os.environ.get("RANK", "0")):
        from limner.core.progress import Silent

        return Silent()
    return Bar() if sys.stderr.isatty() else Lines()


def _losses(line: Mapping[str, Any]) -> str:
    losses = [(k.removeprefix("loss/"), v) for k, v in line.items() if k.startswith("loss/")]
    return "  ".join(f"{k} {v:.4g}" if v is not None else f"{k} not finite" for k, v in losses)


class _Failing(set[str]):
    """The checks of the doctor that fail now."""

    def hear(self, check: str, state: str) -> None:
        """Takes a finding that has changed."""
        self.discard(check)
        if state in ("fail", "error"):
            self.add(check)

    @property
    def text(self) -> str:
        """Their names, behind everything else in a line; "" where all is well."""
        return f"  FAIL {', '.join(sorted(self))}" if self else ""


class ClipProgress:
    """Prints the progress of painting a clip every few seconds."""

    def __init__(self) -> None:
        self.started, self.last_report = time.monotonic(), 0.0

    def __call__(self, frames: int, position: float, total: float) -> None:
        """Reports the number of painted frames, and the position in the clip and its length in seconds."""
        now = time.monotonic()
        if frames > 1 and now - self.last_report < _PLAIN_EVERY:
            return
        self.last_report = now
        left = f", {clock((now - self.started) * (total - position) / position)} left" if position > 0 else ""
        sys.stderr.write(f"{frames:>8,} frames, {position:.1f} of {total:.1f} s{left}\n")
        sys.stderr.flush()


class Counter:
    """Prints how many images of all are done, every few seconds."""

    def __init__(self) -> None:
        self.started = self.last_report = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Reports the number of images that are done, and of all."""
        now = time.monotonic()
        if now - self.last_report < _PLAIN_EVERY:
            return
        self.last_report = now
        left = clock((now - self.started) * (total - done) / done)
        sys.stderr.write(f"{done:>12,} of {total:,} images, about {left} left\n")
        sys.stderr.flush()


class Lines:
    """A line every few seconds, for logs and pipes."""

    def __init__(self) -> None:
        self.total, self.printed, self.failing = 0, 0.0, _Failing()

    def start(self, run: Run, position: int, total: int) -> None:
        """Prints the run folder."""
        from limner.core.run import relative

        self.total = total
        self.say(f"training in {relative(run.path)}, {position:,} of {total:,} images seen")

    def step(self, position: int) -> None: ...

    def log(self, line: Mapping[str, Any]) -> None:
        """Prints the progress, at most every few seconds."""
        now = time.monotonic()
        is_last = line["images"] >= self.total
        if now - self.printed < _PLAIN_EVERY and not is_last:
            return
        self.printed = now
        rate = line["images_per_second"]
        left = clock((self.total - line["images"]) / rate) if rate else "?"
        percent = min(100, 100 * line["images"] // self.total)
        self.say(
            f"{line['images']:>10,} images {percent:>3} %  {rate:,.0f} images/s  {left} left  {_losses(line)}"
            + self.failing.text
        )

    def finding(self, check: str, state: str) -> None:
        """Notes what fails, for the next line."""
        self.failing.hear(check, state)

    def say(self, message: str) -> None:
        """Prints a message."""
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()

    def stop(self) -> None: ...


class Bar:
    """A live bar with rate, losses and time left."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar = RichProgress(
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} images"),
            BarColumn(None),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[losses]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.task: TaskID | None = None
        self.failing = _Failing()

    def start(self, run: Run, position: int, total: int) -> None:
        """Opens the bar."""
        from limner.core.run import relative

        self.console.print(f"training in [bold]{relative(run.path)}[/bold]", highlight=False)
        self.task = self.bar.add_task("train", total=total, completed=position, rate="", losses="")
        self.bar.start()

    def step(self, position: int) -> None:
        """Moves the bar, which is redrawn at most ten times a second."""
        if self.task is not None:
            self.bar.update(self.task, completed=position)

    def log(self, line: Mapping[str, Any]) -> None:
        """Shows rate and losses."""
        if self.task is not None:
            self.bar.update(
                self.task, rate=f"{line['images_per_second']:,.0f}/s", losses=_losses(line) + self.failing.text
            )

    def finding(self, check: str, state: str) -> None:
        """Notes what fails, for the bar."""
        self.failing.hear(check, state)

    def say(self, message: str) -> None:
        """Prints a message above the bar."""
        self.console.print(message, highlight=False, markup=False)

    def stop(self) -> None:
        """Closes the bar."""
        self.bar.stop()
