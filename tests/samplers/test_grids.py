from __future__ import annotations

from itertools import pairwise

import pytest

from limner.core.errors import LimnerError
from limner.samplers import grids, steps

from .mixture import mixture, randn  # noqa: TID252 - tests are no package that could be imported by name

TABLE = [0.01 * 1.01**t for t in range(1000)]
MAKERS = {
    "karras": lambda n: grids.karras(n, high=TABLE[-1]),
    "discrete": lambda n: grids.discrete(n, TABLE),
    "flow": lambda n: grids.flow(n, TABLE[-1]),
    "shifted": lambda n: grids.flow(n, TABLE[-1], 3.0),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("n", [1, 2, 3, 20, 999, 1000])
def test_a_grid_starts_at_the_top_descends_and_ends_in_0(name: str, n: int) -> None:
    levels = MAKERS[name](n)
    assert len(levels) == n + 1
    assert all(type(sigma) is float for sigma in levels)
    assert levels[0] == pytest.approx(TABLE[-1], rel=1e-12)
    assert levels[-1] == 0
    assert all(a > b for a, b in pairwise(levels))


def test_karras_is_the_paper_s_equation() -> None:
    i, n, rho = 7, 18, 7
    expected = (80 ** (1 / rho) + i / (n - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    assert grids.karras(n)[i] == pytest.approx(expected, rel=1e-12)
    assert grids.karras(n)[n - 1] == pytest.approx(0.002, rel=1e-12)


def test_a_shift_multiplies_the_levels() -> None:
    """t' = kt/(1 + (k−1)t) is σ' = kσ: a shifted grid up to 80 is k times the plain one up to 80/k."""
    assert grids.flow(9, 80.0, 4.0) == pytest.approx([4 * sigma for sigma in grids.flow(9, 20.0)], rel=1e-12)
    times = [sigma / (1 + sigma) for sigma in grids.flow(9, 20.0)]
    shifted = [4 * t / (1 + 3 * t) for t in times]
    assert [sigma / (1 + sigma) for sigma in grids.flow(9, 80.0, 4.0)] == pytest.approx(shifted, rel=1e-12)


def test_all_levels_of_a_table_are_used_once() -> None:
    assert grids.discrete(1000, TABLE)[:-1] == TABLE[::-1]


def test_uniform_time_with_2m_is_best_at_few_steps() -> None:
    """The defaults of `Sampling`: at 9 and 19 evaluations 2M on uniform t is nearest to the end of the exact path."""
    m, x = mixture(), 80 * randn(64, 16)
    end = steps.heun(m.denoise, x, grids.karras(800))

    def distance(sampler: steps.Sampler, levels: list[float]) -> float:
        return (sampler(m.denoise, x, levels) - end).norm(dim=1).mean().item()

    for n in (9, 19):
        best = distance(steps.dpm2m, grids.flow(n))
        assert best < distance(steps.euler, grids.flow(n))
        assert best < distance(steps.dpm2m, grids.karras(n))
        assert best < distance(steps.heun, grids.karras((n + 1) // 2)) / 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: grids.karras(0), "steps=0 draws nothing; use at least 1"),
        (lambda: grids.flow(-3), "steps=-3 draws nothing"),
        (lambda: grids.flow(4, shift=0.0), "shift=0 must be above 0"),
        (lambda: grids.discrete(1001, TABLE), "steps=1001 is more than the 1000 noise levels"),
        (lambda: grids.karras(5, 2.0, 1.0), "cannot go from 1 down to 2"),
        (lambda: grids.flow(5, float("inf")), "both finite"),
    ],
)
def test_bad_words_are_errors_of_the_user(make, words: str) -> None:
    with pytest.raises(LimnerError, match=words):
        make()
