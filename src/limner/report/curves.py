"""The curves of a page: fewer points that keep every peak and dip, and a smoothed curve beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from limner.report.facts import Row, as_number

MAX_POINTS = 2_000
MAX_CURVES = 60

GROUPS = {"loss": "Losses", "logit": "Logits of D", "grad": "Gradient norms", "term": "Terms"}
_NOT_CURVES = frozenset(("images", "step", "epoch", "seconds", "images_per_second"))

Points = Sequence[float | None]


def smooth(values: Points, window: float) -> list[float | None]:
    """Weighted mean around each value; weights fall off exponentially over `window` values to either side.

    Both sides count alike, so the smoothed curve does not lag. None stays None and has no weight.

    >>> smooth([4.0, 4.0, None, 4.0], 10)
    [4.0, 4.0, None, 4.0]
    """
    decay = 1.0 - 1.0 / max(window, 1.0)

    def running_sums(series: Points) -> list[tuple[float, float]]:
        total = weight = 0.0
        sums = []
        for value in series:
            total, weight = decay * total, decay * weight
            if value is not None:
                total, weight = total + value, weight + 1.0
            sums.append((total, weight))
        return sums

    both = zip(values, running_sums(values), reversed(running_sums(values[::-1])), strict=True)
    # each value is in both sums, so it is subtracted once
    return [None if v is None else (t0 + t1 - v) / (w0 + w1 - 1.0) for v, (t0, w0), (t1, w1) in both]


def thin(values: Points, limit: int = MAX_POINTS) -> list[int]:
    """Indices of at most `limit` values: the first, the last, and the minimum, maximum and first gap of each interval.

    >>> thin([0.0, 9.0, 1.0], limit=2000)
    [0, 1, 2]
    """
    n = len(values)
    if n <= limit:
        return list(range(n))
    intervals = max((limit - 2) // 3, 1)  # each gives up to three indices
    indices = {0, n - 1}
    for k in range(intervals):
        interval = range(k * n // intervals, (k + 1) * n // intervals)
        finite = [i for i in interval if values[i] is not None]
        if finite:
            indices.add(min(finite, key=lambda i: values[i] or 0.0))
            indices.add(max(finite, key=lambda i: values[i] or 0.0))
        if len(finite) < len(interval):
            indices.add(next(i for i in interval if values[i] is None))
    return sorted(indices)


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def curve(name: str, rows: list[Row], key: str) -> dict[str, Any]:
    """One curve for the page: `x` images seen, `y` raw, `s` smoothed, and a summary for the table."""
    rows = [row for row in rows if key in row]
    y = [as_number(row[key]) for row in rows]
    s = smooth(y, len(y) / 50) if len(y) >= 20 else y
    indices = thin(y)
    finite = [(v, row["images"]) for v, row in zip(y, rows, strict=True) if v is not None]
    low, high = min(finite, default=(None, 0)), max(finite, default=(None, 0))
    return {
        "name": name,
        "x": [rows[i]["images"] for i in indices],
        "y": [_round(y[i]) for i in indices],
        "s": [_round(s[i]) for i in indices],
        "gaps": len(y) - len(finite),
        "first": finite[0][0] if finite else None,
        "last": finite[-1][0] if finite else None,
        "low": low[0],
        "low_at": low[1],
        "high": high[0],
        "high_at": high[1],
    }


def _needs_log(curves: list[dict[str, Any]]) -> bool:
    """Whether the axis is logarithmic at first: all values are positive and span more than three decades."""
    lows = [c["low"] for c in curves if c["low"] is not None]
    highs = [c["high"] for c in curves if c["high"] is not None]
    return bool(lows) and min(lows) > 0 and max(highs) / min(lows) > 1e3


def charts(rows: list[Row]) -> tuple[list[dict[str, Any]], int]:
    """Charts of all logged values, one for each prefix of their keys, and the number of curves left out.

    The groups of `GROUPS` come first. A key without a prefix has a chart of its own.
    """
    logged = dict.fromkeys(k for row in rows for k, v in row.items() if k not in _NOT_CURVES and _is_numeric(v))
    keys = list(logged)[:MAX_CURVES]
    groups: dict[str, list[str]] = {prefix: [] for prefix in GROUPS}
    for key in keys:
        groups.setdefault(key.split("/", 1)[0], []).append(key)
    out = []
    for prefix, members in groups.items():
        if members:
            curves = [curve(k.split("/", 1)[-1], rows, k) for k in members]
            name = GROUPS.get(prefix, prefix.replace("_", " "))
            out.append({"title": name, "prefix": prefix, "log": _needs_log(curves), "curves": curves})
    return out, len(logged) - len(keys)


def _is_numeric(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def speed(rows: list[Row]) -> dict[str, Any] | None:
    """The chart of images a second, or None when that was not logged."""
    rate = curve("images/s", rows, "images_per_second")
    if rate["last"] is None:
        return None
    return {"title": "Images a second", "prefix": "speed", "log": False, "curves": [rate]}
