"""How a check is declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from limner.core.errors import LimnerError
from limner.doctor.finding import Finding
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
        try:
            return self.find(history)
        except (LimnerError, ArithmeticError, LookupError, TypeError, ValueError) as error:  # it must end no training
            return Finding(self.name, "error", f"this check failed: {error}")


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
