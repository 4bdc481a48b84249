"""Sessions of a run merged, curves smoothed and thinned, and private text removed."""

from __future__ import annotations

import random

import pytest

from limner.report import curves, facts, words


def test_a_resumed_run_has_each_step_once_and_one_clock() -> None:
    rows = [{"images": i, "seconds": float(i)} for i in (1, 2, 3, 4)]
    repeated = [{"images": 3, "seconds": 0.5}, {"images": 4, "seconds": 1.5}]  # a clock that starts anew
    assert facts.merge_sessions(rows + repeated) == [
        {"images": 1, "seconds": 1.0},
        {"images": 2, "seconds": 2.0},
        {"images": 3, "seconds": 2.5},
        {"images": 4, "seconds": 3.5},
    ]
    continued = [{"images": 3, "seconds": 2.9}]  # a clock that was saved
    assert facts.merge_sessions(rows + continued)[-1] == {"images": 3, "seconds": 2.9}


@pytest.mark.parametrize("n", [3, 1999, 2000, 2001, 50_000])
def test_thinned_curves_keep_ends_extremes_and_gaps(n: int) -> None:
    rng = random.Random(n)
    values: list[float | None] = [rng.gauss(0, 1) for _ in range(n)]
    values[n // 2] = None
    indices = curves.thin(values)
    assert len(indices) <= 2000
    assert indices == sorted(set(indices))
    assert {0, n - 1, n // 2} <= set(indices)
    finite = [v for v in values if v is not None]
    remaining = [values[i] for i in indices if values[i] is not None]
    assert min(remaining) == min(finite)  # type: ignore[type-var]
    assert max(remaining) == max(finite)  # type: ignore[type-var]


def test_smoothing_does_not_lag() -> None:
    line = curves.smooth([float(i) for i in range(201)], 5)
    assert line[100] == pytest.approx(100.0)
    assert curves.smooth([1.0, None, 3.0], 1) == [1.0, None, 3.0]  # a window of one changes nothing


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/alice/photos/a.png is cut", "…/a.png is cut"),
        ("from '/srv/alice smith/x y.png': bad", "from '…/x y.png': bad"),
        ("file:///home/alice/x.txt", "…/x.txt"),
        ("PATH=/usr/bin:/home/alice/bin", "PATH=…/bin:…/bin"),
        (r"C:\Users\alice\photos\a.png", "…/a.png"),
        ("C:/Users/alice", "~"),
        ("in /root/x and /home/alice", "in …/x and ~"),
        ("~/photos/cats", "…/cats"),
        ("1,200 images/s at lr 1/2, loss/G -> D(G(z))/n", "1,200 images/s at lr 1/2, loss/G -> D(G(z))/n"),
        ("photos/cats and ../dogs", "photos/cats and ../dogs"),
        ("<b>x</b> & </script>", "<b>x</b> & </script>"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_absolute_paths_lose_all_but_their_last_name(text: str, shown: str) -> None:
    assert words.public(text) == shown


def test_private_keys_are_dropped_at_any_depth() -> None:
    value = {
        "device": "cpu",
        "hostname": "x",
        "git": {"user": "x", "commit": "ab12"},
        "env": {"A": "x"},
        "l": [{"cwd": "x"}],
    }
    assert words.public_value(value) == {"device": "cpu", "git": {"commit": "ab12"}, "l": [{}]}
