"""A check fails after three bad examinations in a row and clears after two good ones."""

from __future__ import annotations

import pytest

from limner.doctor.finding import Trend, trend


@pytest.mark.parametrize(
    ("values", "state", "since"),
    [
        ([1, 1, 1], "pass", None),
        ([1, 0], "watch", 2),
        ([0, 0, 1, 0, 0], "watch", 4),
        ([1, 0, 0, 0], "fail", 2),
        ([0, 0, 0, 1], "fail", 1),
        ([0, 0, 0, 1, 1], "pass", None),
        ([0, 0, 0, 1, 1, 0], "watch", 6),
        ([0, 0, 0, 1, 0, 1], "fail", 1),
        ([0, None, 0, 0], "fail", 1),
    ],
)
def test_a_row_of_examinations(values: list[float | None], state: str, since: int | None) -> None:
    rows = list(enumerate(values, 1))
    assert trend(rows, lambda v: v < 0.5) == Trend(state, next(v for v in reversed(values) if v is not None), since)  # type: ignore[arg-type]


def test_nothing_measured_is_no_trend() -> None:
    assert trend([(1, None)], lambda v: True) is None
