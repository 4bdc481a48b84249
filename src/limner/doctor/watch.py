"""The doctor beside a training: measures the model every so often, and tells what is new."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from limner.core.batch import Dataset
from limner.core.errors import LimnerError
from limner.core.examiner import News
from limner.core.model import GenerativeModel
from limner.doctor import signals
from limner.doctor.abilities import abilities
from limner.doctor.checks import CHECKS
from limner.doctor.finding import Finding, State
from limner.doctor.ground import Ground
from limner.doctor.history import History
from limner.doctor.signals.examination import Examination


class Watch:
    """Examines a training; an `Examiner` of `limner.core.examiner`.

    Args:
        recipe: the resolved recipe.
        train: the training data.
        heldout: data that are not trained on, or None.
    """

    def __init__(self, recipe: Mapping[str, Any], train: Dataset, heldout: Dataset | None) -> None:
        self.recipe, self.train, self.heldout = recipe, train, heldout
        self.metrics: list[Mapping[str, Any]] = []
        self.checks: list[Mapping[str, Any]] = []
        self._known: dict[str, State] = {}
        self._ground: Ground | None = None
        self._signals: list[signals.Signals] = []
        self._abilities: frozenset[str] = frozenset()

    def begin(self, metrics: Iterable[Mapping[str, Any]], checks: Iterable[Mapping[str, Any]]) -> None:
        """Takes what a run has measured so far, and forgets everything else."""
        self.metrics, self.checks = list(metrics), list(checks)
        self._known = {}

    def log(self, line: Mapping[str, Any]) -> None:
        """Takes a line of metrics."""
        self.metrics.append(line)

    def examine(self, model: GenerativeModel, images: int, step: int) -> tuple[dict[str, Any], list[News]]:
        """Measures a model after so many images and steps, and says which findings have changed."""
        start = time.monotonic()
        first = self._ground is None
        if self._ground is None:
            self._abilities, self._signals = abilities(model), signals.signals_of(model)
            self._ground = Ground(self.train, self.heldout, model.device)
        found, trouble = Examination(), []
        for each in list(self._signals):
            try:
                part = signals.measure(model, self._ground, [each])
            except LimnerError:  # such data have none
                self._signals.remove(each)
            except Exception as error:  # whatever it is, it must not end a training
                self._signals.remove(each)
                message = f"doctor: {each.ability} is no longer examined: {error}"
                trouble.append(News(message, {"check": "doctor", "state": "error"}))
            else:
                found.signals |= part.signals
                found.counts = part.counts or found.counts
        self._signals = [each for each in self._signals if not each.once]
        line: dict[str, Any] = {"images": images, "step": step, "signals": found.signals}
        if found.counts:
            line["counts"] = found.counts
            if first:
                kinds = self._ground.kinds
                line["kinds"] = {"names": list(kinds.names), "shares": list(kinds.shares)}
        line["took"] = round(time.monotonic() - start, 3)
        self.checks.append(line)
        return line, trouble + self._news()

    def _news(self) -> list[News]:
        history = History(self.recipe, metrics=self.metrics, checks=self.checks, abilities=self._abilities)
        news = []
        for name, check in CHECKS.items():
            finding = check(history)
            before, self._known[name] = self._known.get(name, "pass"), finding.state
            if finding.state != before and "fail" in (finding.state, before):
                news.append(_told(finding, check.rolls_back))
        return news


def _told(finding: Finding, rolls_back: bool) -> News:
    """What a change of a finding is for the log and the user."""
    fails = finding.state == "fail"
    begins = f" since image {finding.since:,}" if finding.since is not None else ""
    message = (
        f"doctor: {finding.check}: {finding.sentence}{begins}; see 'limner doctor RUN'"
        if fails
        else f"doctor: {finding.check}: over; {finding.sentence}"
    )
    facts = replace(finding, remedies=(), looks_like=(), sentence="").to_dict()
    return News(message, facts, fails and rolls_back)
