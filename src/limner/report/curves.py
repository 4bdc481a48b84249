"""Curves small enough for a page: every peak and dip is kept, a smoothed line runs along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from limner.report.facts import Row, as_number

MAX_POINTS = 2_000
MAX_CURVES = 60

GROUPS = {"loss": "Losses", "logit": "Logits of D", "grad": "Gradient norms", "term": "Terms"}
_CLOCK = frozenset(("images", "step", "epoch", "seconds", "images_per_second"))

Points = Sequence[float | None]


def smooth(values: Points, window: float) -> list[float | None]:
    """Weighted mean around each value, its weights falling off exponentially over `window` values to either side.

    It looks both ways, so a smoothed curve does not trail behind its own. A None stays None and weighs nothing.

    >>> smooth([4.0, 4.0, None, 4.0], 10)
    [4.0, 4.0, None, 4.0]
    """
    keep = 1.0 - 1.0 / max(window, 1.0)

    def trail(order: Points) -> list[tuple[float, float]]:
        total = weight = 0.0
        out = []
        for value in order:
            total, weight = keep * total, keep * weight
            if value is not None:
                total, weight = total + value, weight + 1.0
            out.append((total, weight))
        return out

    both = zip(values, trail(values), reversed(trail(values[::-1])), strict=True)
    # the value itself is in both trails, so it is taken off once
    return [None if v is None else (t0 + t1 - v) / (w0 + w1 - 1.0) for v, (t0, w0), (t1, w1) in both]


def thin(values: Points, limit: int = MAX_POINTS) -> list[int]:
    """Indices of at most `limit` values that keep the first, the last, and each stretch's minimum, maximum and gap.

    >>> thin([0.0, 9.0, 1.0], limit=2000)
    [0, 1, 2]
    """
    n = len(values)
    if n <= limit:
        return list(range(n))
    stretches = max((limit - 2) // 3, 1)  # each gives up to three indices
    kept = {0, n - 1}
    for s in range(stretches):
        span = range(s * n // stretches, (s + 1) * n // stretches)
        there = [i for i in span if values[i] is not None]
        if there:
            kept.add(min(there, key=lambda i: values[i] or 0.0))
            kept.add(max(there, key=lambda i: values[i] or 0.0))
        if len(there) < len(span):
            kept.add(next(i for i in span if values[i] is None))
    return sorted(kept)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def curve(name: str, rows: list[Row], key: str) -> dict[str, Any]:
    """One curve for the page: `x` images seen, `y` raw, `s` smoothed, and what a table says of it."""
    rows = [row for row in rows if key in row]
    y = [as_number(row[key]) for row in rows]
    s = smooth(y, len(y) / 50) if len(y) >= 20 else y
    at = thin(y)
    finite = [(v, row["images"]) for v, row in zip(y, rows, strict=True) if v is not None]
    low, high = min(finite, default=(None, 0)), max(finite, default=(None, 0))
    return {
        "name": name,
        "x": [rows[i]["images"] for i in at],
        "y": [_short(y[i]) for i in at],
        "s": [_short(s[i]) for i in at],
        "gaps": len(y) - len(finite),
        "first": finite[0][0] if finite else None,
        "last": finite[-1][0] if finite else None,
        "low": low[0],
        "low_at": low[1],
        "high": high[0],
        "high_at": high[1],
    }


def _wide(curves: list[dict[str, Any]]) -> bool:
    """Whether a logarithmic axis is the better first view: all positive and over three decades."""
    lows = [c["low"] for c in curves if c["low"] is not None]
    highs = [c["high"] for c in curves if c["high"] is not None]
    return bool(lows) and min(lows) > 0 and max(highs) / min(lows) > 1e3


def charts(rows: list[Row]) -> tuple[list[dict[str, Any]], int]:
    """Charts of all that was logged, grouped by prefix, and how many curves were left out.

    A group of `GROUPS` shares one chart; other keys share theirs by prefix, and a key without one has its own.
    """
    seen = dict.fromkeys(k for row in rows for k, v in row.items() if k not in _CLOCK and _numeric(v))
    keys = list(seen)[:MAX_CURVES]
    groups: dict[str, list[str]] = {prefix: [] for prefix in GROUPS}
    for key in keys:
        groups.setdefault(key.split("/", 1)[0], []).append(key)
    out = []
    for prefix, members in groups.items():
        if members:
            curves = [curve(k.split("/", 1)[-1], rows, k) for k in members]
            name = GROUPS.get(prefix, prefix.replace("_", " "))
            out.append({"title": name, "prefix": prefix, "log": _wide(curves), "curves": curves})
    return out, len(seen) - len(keys)


def _numeric(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def speed(rows: list[Row]) -> dict[str, Any] | None:
    """The chart of images a second, or None when that was not logged."""
    one = curve("images/s", rows, "images_per_second")
    if one["last"] is None:
        return None
    return {"title": "Images a second", "prefix": "speed", "log": False, "curves": [one]}
