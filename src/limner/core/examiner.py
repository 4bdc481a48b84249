"""Whoever watches over a training; `limner.doctor.watch.Watch` does.

The loop hands over each line of metrics, and every so many images the model itself. What it hears are a line of
measurements for ``checks.jsonl`` and the findings that are new. An examiner changes neither the model nor the random
numbers of the training, so a training with one gives the same bits as one without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from limner.core.model import GenerativeModel


class News(NamedTuple):
    """A finding that has changed.

    Attributes:
        message: what to tell the user; "" where it is for the log alone.
        facts: what ``events.jsonl`` keeps: check, state, value, threshold, since …
        roll_back: whether the model is beyond repair, so that only an earlier checkpoint helps.
    """

    message: str
    facts: dict[str, Any]
    roll_back: bool = False


class Examiner(Protocol):
    """Measures the health of a model while it trains, and says what is wrong with it."""

    def begin(self, metrics: Iterable[Mapping[str, Any]], checks: Iterable[Mapping[str, Any]]) -> None:
        """Takes the lines of ``metrics.jsonl`` and ``checks.jsonl`` that a run has so far; forgets all others."""
        ...

    def log(self, line: Mapping[str, Any]) -> None:
        """Takes a new line of ``metrics.jsonl``."""
        ...

    def examine(self, model: GenerativeModel, images: int, step: int) -> tuple[dict[str, Any], list[News]]:
        """Measures a model after so many images and steps.

        Returns:
            The line for ``checks.jsonl``, and what has changed since the last one. The model's mode may have changed.
        """
        ...
