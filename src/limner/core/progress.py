"""Reports of the progress of a training, and the means of its logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from limner.core import dist
from limner.core.errors import LimnerError
from limner.core.model import Logs
from limner.core.run import Run


class Progress(Protocol):
    """Receives the progress of a training, for example to show it."""

    def start(self, run: Run, position: int, total: int) -> None:
        """Called when training starts or resumes at `position` of `total` images."""

    def step(self, position: int) -> None:
        """Called after every step, so it must be cheap."""

    def log(self, line: Mapping[str, Any]) -> None:
        """Called for each line of ``metrics.jsonl``."""

    def say(self, message: str) -> None:
        """Called with a message for the user."""

    def finding(self, check: str, state: str) -> None:
        """Called when a check of the doctor begins or ceases to fail."""

    def stop(self) -> None:
        """Called when training ends, also after an error."""


class Silent:
    """A `Progress` that does nothing."""

    def start(self, run: Run, position: int, total: int) -> None: ...
    def step(self, position: int) -> None: ...
    def log(self, line: Mapping[str, Any]) -> None: ...
    def say(self, message: str) -> None: ...
    def finding(self, check: str, state: str) -> None: ...
    def stop(self) -> None: ...


@dataclass
class Meters:
    """Means of the logs since the last line of metrics; they stay on the device and are saved in checkpoints."""

    names: list[str] = field(default_factory=list)
    sums: Tensor | None = None
    steps: int = 0

    def add(self, logs: Logs) -> None:
        """Adds the logs of one step."""
        names = list(logs) if self.sums is None else self.names  # a checkpoint may name them in another order
        if not logs.keys() >= set(names):
            raise LimnerError(
                "the checkpoint has means of other logs than this model gives; restore it, or train again"
            )
        values = torch.stack([logs[name].detach().float() for name in names])
        if self.sums is None:
            self.names, self.sums = names, values
        else:
            self.sums += values
        self.steps += 1

    def take(self) -> dict[str, float]:
        """Returns the means over all ranks and resets them. Only here does the training loop wait for the device."""
        if self.sums is None:
            return {}
        means = self.sums / self.steps
        dist.average_([means])
        line = dict(zip(self.names, means.tolist(), strict=True))
        self.names, self.sums, self.steps = [], None, 0
        return line
