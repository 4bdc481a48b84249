"""Numbers with units: 1.2M images, 20m of training, 3.4 GB."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator

from limner.core.errors import LimnerError

_COUNT = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def count(value: Any) -> Any:
    """Integer from a text such as ``1.2M``, ``10k`` or ``5000``; other values pass unchanged to the type check.

    >>> count("1.2M"), count("10k"), count(64), count("1_000")
    (1200000, 10000, 64, 1000)
    """
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9](?:_?[0-9]){0,99}|[0-9]{0,99}\.[0-9]{1,99})\s*([kMG]?)\s*", value)
        if not match:
            raise ValueError(f"{value!r} is not a count; write 5000, 10k or 1.2M")
        n = Fraction(match[1]) * _COUNT[match[2]]
        if n.denominator != 1:
            raise ValueError(f"{value!r} is not a whole number; write 5000, 10k or 1.2M")
        return int(n)
    return value


def duration(value: Any) -> Any:
    """Seconds from a text such as ``90s``, ``20m`` or ``1h30m``; other values pass unchanged to the type check.

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
    """A duration in readable units.

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
    """A number of bytes in readable units.

    >>> size(512), size(3_400_000)
    ('512 B', '3.4 MB')
    """
    if num_bytes < 1000:
        return f"{num_bytes:.0f} B"
    factor, unit = (1e3, "kB") if num_bytes < 1e6 else (1e6, "MB") if num_bytes < 1e9 else (1e9, "GB")
    return f"{num_bytes / factor:.1f} {unit}"


def shares(values: Sequence[float] | None, n: int, name: str) -> list[float]:
    """Normalises n weights to the sum 1; None stands for equal weights.

    Raises:
        LimnerError: the number of weights is not n, one is negative, or all are 0.

    >>> shares([3, 1], 2, "style_shares"), shares(None, 4, "style_shares")
    ([0.75, 0.25], [0.25, 0.25, 0.25, 0.25])
    """
    weights = [1.0] * n if values is None else list(values)
    if len(weights) != n or min(weights, default=0) < 0 or sum(weights) == 0:
        raise LimnerError(f"{name} needs {n} number{'s' * (n != 1)}, none negative and not all 0; got {weights}")
    return [weight / sum(weights) for weight in weights]
