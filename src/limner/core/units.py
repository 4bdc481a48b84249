"""Numbers as people write them: 1.2M images, 20m of training, 3.4 GB."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

from limner.core.errors import LimnerError

_COUNT = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def count(value: Any) -> Any:
    """Whole number from ``1.2M``, ``10k`` or ``5000``; anything else passes on to the type check.

    >>> count("1.2M"), count("10k"), count(64)
    (1200000, 10000, 64)
    """
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kMG]?)\s*", value)
        if not match:
            raise ValueError(f"{value!r} is not a count; write 5000, 10k or 1.2M")
        return round(float(match[1]) * _COUNT[match[2]])
    return value


def duration(value: Any) -> Any:
    """Seconds from ``90s``, ``20m``, ``1h30m`` or a plain number of seconds.

    >>> duration("1h30m"), duration("90s"), duration(5)
    (5400.0, 90.0, 5)
    """
    if isinstance(value, str):
        parts = re.findall(r"([0-9]*\.?[0-9]+)\s*([smhd])", value)
        if parts and re.fullmatch(r"\s*(?:[0-9]*\.?[0-9]+\s*[smhd]\s*)+", value):
            return sum(float(n) * _SECONDS[u] for n, u in parts)
        raise ValueError(f"{value!r} is not a duration; write 90s, 20m or 1h30m")
    return value


Count = Annotated[int, BeforeValidator(count)]
Duration = Annotated[float, BeforeValidator(duration)]


def clock(seconds: float) -> str:
    """A duration for people.

    >>> clock(3.2), clock(75), clock(4000)
    ('3 s', '1 min 15 s', '1 h 6 min')
    """
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60} s"
    return f"{s // 3600} h {s % 3600 // 60} min"


def size(num_bytes: float) -> str:
    """A number of bytes for people.

    >>> size(512), size(3_400_000)
    ('512 B', '3.4 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000 or unit == "GB":
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError("unreachable")


def shares(given: Sequence[float] | None, n: int, name: str) -> list[float]:
    """The parts of a whole for n things, of what somebody gave for them; equal by default.

    Raises:
        LimnerError: they are not n, one is negative, or all are 0.

    >>> shares([3, 1], 2, "style_shares"), shares(None, 4, "style_shares")
    ([0.75, 0.25], [0.25, 0.25, 0.25, 0.25])
    """
    found = [1.0] * n if given is None else list(given)
    if len(found) != n or min(found, default=0) < 0 or sum(found) == 0:
        raise LimnerError(f"{name} needs {n} number{'s' * (n != 1)}, none negative and not all 0; got {found}")
    return [value / sum(found) for value in found]
