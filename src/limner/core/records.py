"""What the plain files of a run folder may hold: each is checked where it is read.

A run folder may come from somebody else, or from a disk that lost a bit. So JSON is read with limits on its depth, its
size and its numbers, and every file has one schema here. A file that does not follow it is a `LimnerError` that names
the file and says what to do. A damaged line of a log is left out, and the others are kept.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from limner.core.errors import LimnerError

Check = Callable[[Any], bool]

_FILE = 1 << 26  # bytes of a JSON file
_LINE = 1 << 20  # bytes of a line of a log
_DEPTH = 32
_LARGEST = 1 << 53  # above it, a float no longer holds every integer


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text in UTF-8. NaN and infinity, which are not JSON, become None.

    Raises:
        ValueError: it is not JSON, repeats a key, is nested more than 32 deep, or has a number that no file of
            limner holds.

    >>> parse_json(b'{"images": 64, "loss": NaN}')
    {'images': 64, 'loss': None}
    """
    text = content if isinstance(content, str) else content.decode("utf-8")
    try:
        value = json.loads(
            text, object_pairs_hook=_once, parse_int=_integer, parse_float=_float, parse_constant=lambda _: None
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.count("[") + text.count("{") > _DEPTH:
        _check_depth(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is repeated")
    return result


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) > _LARGEST:
        raise ValueError("a number is too large")
    return value


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEPTH):
        level = [
            v
            for node in level
            if isinstance(node, (dict, list))
            for v in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise ValueError("nested too deeply")


# ---- schemas ---------------------------------------------------------------------------------------------------------


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """Whether a value is an integer of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_position(name: str) -> bool:
    """Whether a name is that of a position, as in ``00012800``; `int` does not read every digit, such as ²."""
    return name.isascii() and name.isdigit()


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_duration(value: Any) -> bool:
    """Whether a value is a finite number of at least 0."""
    return is_number(value) and value >= 0


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _map_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(check(v) for v in value.values())


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(check(v) for v in value)


def record(required: Mapping[str, Check], optional: Mapping[str, Check], other: Check = lambda _: True) -> Check:
    """A check of a mapping by its keys; `other` checks the values of keys that are not named."""
    known = {**required, **optional}

    def check(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and required.keys() <= value.keys()
            and all(known.get(k, other)(v) for k, v in value.items())
        )

    return check


_WORD = _or_none(_is_text)
_NUMBER = _or_none(is_number)

METRICS = record({"images": is_count}, {"step": is_count, "seconds": is_duration}, _NUMBER)
"""A line of ``metrics.jsonl``: the position, and numbers."""

CHECKS = record(
    {"images": is_count, "step": is_count, "signals": _map_of(_NUMBER)},
    {
        "took": is_duration,
        "counts": _list_of(is_count),
        "kinds": record({"names": _list_of(_is_text), "shares": _list_of(is_duration)}, {}),
    },
)
"""A line of ``checks.jsonl``: what the doctor measured at a position."""

EVENTS = record(
    {"event": _is_text, "images": is_count, "seconds": is_duration},
    dict.fromkeys(("message", "command", "data", "fingerprint", "licence"), _WORD)
    | dict.fromkeys(("took", "total", "items", "energy_joules", "budget", "value", "threshold", "since"), _NUMBER)
    | dict.fromkeys(("check", "state"), _is_text)
    | {"reason": _WORD, "from": is_count, "to": is_count, "rates": _map_of(is_number)}
    | {"shape": _list_of(is_count), "parameters": _map_of(is_count)}
    | {"classes": _list_of(_is_text), "notes": _list_of(_is_text)},
)
"""A line of ``events.jsonl``."""

SCORES = _map_of(
    record(
        {"value": lambda v: _WORD(v) or is_number(v)},
        dict.fromkeys(("unit", "on", "how", "property", "better", "why"), _WORD)
        | dict.fromkeys(("error", "low", "high", "ceiling", "floor", "norm"), _NUMBER),
    )
)
"""``scores.json``."""

_REMEDY = record(
    {"settings": record({}, {}), "text": _is_text, "command": _is_text},
    {"bed": _is_text, "helped": is_count, "of": is_count, "effect": _is_text, "start": _or_none(is_count)},
)
_FINDING = record(
    {"check": _is_text, "state": _is_text, "sentence": _is_text},
    dict.fromkeys(("value", "threshold"), _NUMBER)
    | dict.fromkeys(("since", "last_good"), _or_none(is_count))
    | dict.fromkeys(("sheet", "good_sheet", "picture"), _is_text)
    | {"looks_like": _list_of(_is_text), "remedies": _list_of(_REMEDY)},
)
DOCTOR = record({"images": is_count, "findings": _list_of(_FINDING)}, {"run": _is_text, "notes": _list_of(_is_text)})
"""``doctor.json``: the findings of the last diagnosis."""

ENVIRONMENT = record({}, {"threads": _or_none(is_count)} | dict.fromkeys(("device", "device_name", "torch"), _WORD))
"""``env.json``."""

FILES: dict[str, tuple[Check, str]] = {
    "scores.json": (SCORES, "delete it, and 'limner evaluate RUN' writes it again"),
    "doctor.json": (DOCTOR, "delete it, and 'limner doctor RUN' writes it again"),
    "env.json": (ENVIRONMENT, "delete it; nothing else needs it"),
    "quarantine.json": (
        _list_of(lambda v: _list_of(_is_text)(v) and len(v) == 2),
        "delete it; nothing else needs it",
    ),
    "data/places.json": (_map_of(_list_of(_is_text)), "delete it; data are then looked for from the working folder"),
    "figures/captions.json": (_map_of(_is_text), "delete it; nothing else needs it"),
}
"""The JSON files of a run: their checks, and what to do about a damaged one."""


# ---- reading ---------------------------------------------------------------------------------------------------------


def check_regular(path: Path) -> None:
    """Raises a `LimnerError` if there is anything but a file of this name, such as a folder."""
    if os.path.lexists(path) and not path.is_file():
        raise LimnerError(f"{path} is no file; delete it or restore it")


def read_bytes(path: Path, limit: int = _FILE) -> bytes:
    """The content of a regular file.

    Raises:
        LimnerError: it cannot be read, is no regular file, or has more than `limit` bytes.
    """
    try:
        if not path.is_file():
            raise LimnerError(f"{path} is no file; delete it or restore it")
        if path.stat().st_size > limit:
            raise LimnerError(
                f"{path} is larger than {limit >> 20} MB, which limner never writes; delete or restore it"
            )
        return path.read_bytes()
    except OSError as error:
        raise LimnerError(f"cannot read {path}: {error.strerror or error}; check its permissions") from None


def read_json(folder: Path, name: str) -> Any:
    """The content of one of `FILES` in a run folder; None if it does not exist.

    Raises:
        LimnerError: the file is damaged.
    """
    path, (check, remedy) = folder / name, FILES[name]
    if not path.exists():
        return None
    try:
        value = parse_json(read_bytes(path))
    except ValueError as error:
        raise LimnerError(f"{path} is damaged ({_reason(error)}); {remedy}") from None
    if not check(value):
        raise LimnerError(f"{path} is damaged (it is not what limner writes); {remedy}")
    return value


def _reason(error: ValueError) -> str:
    return "it is not UTF-8" if isinstance(error, UnicodeError) else f"it is not JSON: {error}"


class Lines(NamedTuple):
    """The lines of a log that follow its schema, and the number of other ones."""

    rows: list[dict[str, Any]]
    damaged: int


def read_lines(path: Path, check: Check) -> Lines:
    """Reads a log with one JSON value a line. A last line that a crash cut short does not count as damaged.

    Raises:
        LimnerError: it cannot be read.
    """
    rows: list[dict[str, Any]] = []
    damaged = 0
    check_regular(path)
    try:
        if not path.is_file():
            return Lines([], 0)
        with path.open("rb") as file:
            whole = True
            while line := file.readline(_LINE):
                begins, whole = whole, line.endswith(b"\n")
                if not begins:
                    damaged += whole  # the rest of a line that is too long
                    continue
                if not line.strip():
                    continue
                try:
                    row = parse_json(line)
                except ValueError:
                    damaged += whole
                    continue
                if check(row):
                    rows.append(row)
                else:
                    damaged += 1
    except OSError as error:
        raise LimnerError(f"cannot read {path}: {error.strerror or error}; check its permissions") from None
    return Lines(rows, damaged)
