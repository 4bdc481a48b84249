"""Explanations of the checks: what each means, which numbers decide, and what has helped."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import CodeType
from typing import Any

from limner.config.explain import Explanation
from limner.core.errors import unknown
from limner.doctor.checks import CHECKS
from limner.doctor.checks._check import Check
from limner.doctor.finding import TO_CLEAR, TO_FAIL
from limner.doctor.remedies import bed_of, beds, described

_INTRODUCTION = f"""What `limner doctor RUN` looks for; `limner explain doctor.NAME` says more of a check.

Most checks fail after {TO_FAIL} bad examinations in a row, and pass again after
{TO_CLEAR} good ones. Fewer bad ones are watched."""


def explain(key: str) -> Explanation:
    """Explains ``doctor``, which lists the checks, or one check, such as ``doctor.collapse``.

    Raises:
        LimnerError: there is no such check; the message gives the nearest names.
    """
    _, _, name = key.partition(".")
    if not name:
        summaries = "\n".join(f"{check.name:<24} {summary(check)}" for check in CHECKS.values())
        return Explanation(key, "checks", f"{_INTRODUCTION}\n\n{summaries}", [])
    if name not in CHECKS:
        raise unknown("check", key, [f"doctor.{known}" for known in CHECKS])
    return Explanation(key, "check", "\n\n".join(filter(None, parts(CHECKS[name]))), [])


def summary(check: Check) -> str:
    """The first line of what a check means."""
    return check.text.partition("\n")[0]


def parts(check: Check) -> Iterator[str]:
    """The paragraphs on a check: what it means, its numbers, what looks like it, and remedies with rates."""
    yield check.text
    numbers = [f"    {value:g}  {words}" for value, words in thresholds(check)]
    if numbers:
        yield "\n".join(["Numbers that decide:", *numbers])
    if check.looks_like:
        yield f"It looks like: {', '.join(check.looks_like)}."
    lines = []
    for change, remedy in described(check.name):
        effect = f" ({remedy.effect})" if remedy.effect else ""
        lines += [f"    {change.words}", f"        {remedy.text}; {remedy.rate}{effect}"]
    if lines:
        yield "\n".join(["Remedies, offered where a recipe takes them:", *lines])
    if any(remedy.of for _, remedy in described(check.name)):
        bed = beds()[bed_of(check.name)]
        yield f"Measured where {bed.failure} (recipe {bed.recipe})."


def thresholds(check: Check) -> list[tuple[float, str]]:
    """The numbers of a check's module that it uses, with the comment behind each."""
    module = inspect.getmodule(check.find)
    names = set(_names(check.find.__code__))
    source = inspect.getsource(module) if module is not None else ""
    found: list[tuple[float, str]] = []
    for name, comment in re.findall(r"^(_?[A-Z][A-Z_]+) = [^#\n]+?(?:  # (.+))?$", source, re.MULTILINE):
        value: Any = vars(module).get(name)
        if name in names and isinstance(value, int | float):
            found.append((value, comment))
    return found


def _names(code: CodeType) -> Iterator[str]:
    """The global names that a function and the functions within it use."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
