"""How a check is declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from limner.doctor.finding import TO_FAIL, Finding, trend
from limner.doctor.history import History


@dataclass(frozen=True)
class Check:
    """A check: what it needs and what it does.

    Attributes:
        name: its name.
        needs: abilities that a model must have; of others it is n/a.
        why_not: the sentence for other models.
        looks_like: checks whose failures look similar.
        rolls_back: whether a failure means that the weights are spoilt, so that only an earlier checkpoint helps.
        find: history -> finding.
    """

    name: str
    needs: frozenset[str]
    why_not: str
    looks_like: tuple[str, ...]
    rolls_back: bool
    find: Callable[[History], Finding]

    @property
    def text(self) -> str:
        """What it means, for `limner explain`."""
        return inspect.getdoc(self.find) or ""

    def __call__(self, history: History) -> Finding:
        if not self.needs <= history.abilities:
            return Finding(self.name, "n/a", self.why_not)
        return self.find(history)


def check(
    *needs: str, why_not: str = "", looks_like: tuple[str, ...] = (), rolls_back: bool = False
) -> Callable[[Callable[[History], Finding]], Check]:
    """Declares a function as a check; `needs` are names of capabilities."""

    def declare(find: Callable[[History], Finding]) -> Check:
        name = find.__name__.rstrip("_")
        return Check(name, frozenset(needs), why_not, looks_like, rolls_back, find)

    return declare


def checks_of(module: ModuleType) -> list[Check]:
    """The checks of a module, in order."""
    values: list[Any] = list(vars(module).values())
    return [value for value in values if isinstance(value, Check)]


EARLY = "it takes a longer training until this can be judged"


def judged(
    check: str,
    values: Iterable[tuple[int, float | None]],
    is_bad: Callable[[float], bool],
    threshold: float,
    *,
    bad: str,
    good: str,
    missing: str = EARLY,
    to_fail: int = TO_FAIL,
    at_most_watch: bool = False,
) -> Finding:
    """The finding of a row of numbers.

    Args:
        check: name of the check.
        values: (images, number) of each examination, in order.
        is_bad: whether a number is bad.
        threshold: the number that they are compared with.
        bad: the sentence where it is bad, with ``{value}`` for the number of the last examination.
        good: the sentence where it is not.
        missing: the sentence where nothing was measured.
        to_fail: bad examinations in a row until the check fails.
        at_most_watch: whether it is watched instead of failing, because it is a property of such models.
    """
    now = trend(values, is_bad, to_fail)
    if now is None:
        return Finding(check, "unknown", missing)
    state = "watch" if at_most_watch and now.state == "fail" else now.state
    sentence = (good if state == "pass" else bad).format(value=now.value)
    return Finding(check, state, sentence, now.value, threshold, now.since)
