"""Who is told how training goes, and the means it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from limner.core import dist
from limner.core.model import Logs
from limner.core.run import Run


class Progress(Protocol):
    """Who is told how training goes."""

    def start(self, run: Run, position: int, total: int) -> None:
        """Training begins or goes on at `position` of `total` images."""

    def step(self, position: int) -> None:
        """A step is done; called every step, so it must be cheap."""

    def log(self, line: Mapping[str, Any]) -> None:
        """A line of ``metrics.jsonl``."""

    def say(self, message: str) -> None:
        """A sentence for the user."""

    def stop(self) -> None:
        """Training has ended, for whatever reason."""


class Silent:
    """Tells nobody."""

    def start(self, run: Run, position: int, total: int) -> None: ...
    def step(self, position: int) -> None: ...
    def log(self, line: Mapping[str, Any]) -> None: ...
    def say(self, message: str) -> None: ...
    def stop(self) -> None: ...


@dataclass
class Meters:
    """Means of the logs since the last line, kept on the device and in the checkpoint."""

    names: list[str] = field(default_factory=list)
    sums: Tensor | None = None
    steps: int = 0

    def add(self, logs: Logs) -> None:
        """Adds one step."""
        names = list(logs) if self.sums is None else self.names  # a checkpoint may name them in another order
        values = torch.stack([logs[name].detach().float() for name in names])
        if self.sums is None:
            self.names, self.sums = names, values
        else:
            self.sums += values
        self.steps += 1

    def take(self) -> dict[str, float]:
        """The means over all ranks, then empty. The one place where training waits for the device."""
        if self.sums is None:
            return {}
        means = self.sums / self.steps
        dist.average_([means])
        line = dict(zip(self.names, means.tolist(), strict=True))
        self.names, self.sums, self.steps = [], None, 0
        return line
