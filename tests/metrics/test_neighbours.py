"""Scores of neighbourhoods against the `prdc` package, loops that follow the formulas, and exact laws."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from scipy.special import betaln, gammaln
from scipy.stats import beta, binom

from limner.core.errors import LimnerError
from limner.metrics.neighbours import Neighbourhoods, calibration, nearest, neighbourhoods, wilson, within


def draws(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By subtraction, one row at a time."""
    return np.stack([np.sqrt(((y - row) ** 2).sum(1)) for row in x])


# ---- precision, recall, density, coverage --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_as_prdc(seed):
    prdc = pytest.importorskip("prdc")
    rng = np.random.default_rng(seed)
    n, m, d, k = (int(rng.integers(*r)) for r in ((30, 900), (30, 900), (1, 80), (1, 8)))
    real = rng.normal(size=(n, d)) * rng.uniform(0.1, 3, d)
    fake = rng.normal(size=(m, d)) * rng.uniform(0.1, 3, d) + rng.uniform(0, 1)
    with contextlib.redirect_stdout(io.StringIO()):
        expected = prdc.compute_prdc(real, fake, k)
    result = neighbourhoods(real=real, fake=torch.from_numpy(fake), k=k, k_pr=k)
    for name, value in expected.items():
        assert getattr(result, name) == pytest.approx(value, abs=1e-12), name


def test_more_rows_than_a_block(monkeypatch):
    real, fake = draws(300, 5, 0), draws(200, 5, 1)
    whole = neighbourhoods(real=real, fake=fake)
    monkeypatch.setattr("limner.metrics.neighbours._ENTRIES", 200 * 7)
    parts = neighbourhoods(real=real, fake=fake)
    assert parts == whole
    assert (parts.contributions == whole.contributions).all()


@pytest.mark.parametrize(("n", "m", "k", "d"), [(400, 400, 5, 2), (400, 400, 5, 64), (800, 200, 3, 16)])
def test_equal_distributions_have_a_density_of_one_and_a_known_coverage(n, m, k, d):
    """Exactly, for any distribution and dimension (Naeem et al. 2020, appendix)."""
    result = [neighbourhoods(real=draws(n, d, 2 * i), fake=draws(m, d, 2 * i + 1), k=k) for i in range(40)]
    i = np.arange(k)
    coverage = 1 - np.prod((n - 1 - i) / (n + m - 1 - i))
    for name, expected in (("density", 1.0), ("coverage", coverage)):
        values = np.array([getattr(f, name) for f in result])
        assert abs(values.mean() - expected) < 3 * values.std() / np.sqrt(len(values)), name
    assert np.mean([f.clipped_density for f in result]) == pytest.approx(1, abs=0.03)
    assert np.mean([f.clipped_coverage for f in result]) == pytest.approx(1, abs=0.05)  # what exceeds 1 is cut off


def test_the_conventions_of_precision_and_recall():
    """torch-fidelity had them the wrong way round until 0.4.0."""
    real = draws(1000, 8, 0)
    collapsed = neighbourhoods(real=real, fake=0.05 * draws(1000, 8, 1))
    assert collapsed.precision >= 0.95
    assert collapsed.recall <= 0.05
    spread = neighbourhoods(real=real, fake=3 * draws(1000, 8, 1))
    assert spread.precision <= 0.1
    assert spread.recall >= 0.9
    swapped = neighbourhoods(real=0.05 * draws(1000, 8, 1), fake=real)
    assert (swapped.precision, swapped.recall) == (collapsed.recall, collapsed.precision)
    with pytest.raises(TypeError):
        neighbourhoods(real, real)


def test_copies_lie_on_the_edge_of_balls_exactly():
    """A copy of the k-th neighbour is not inside an open ball, whatever rounding says."""
    real = draws(500, 16, 0) * 100 + 1000
    result = neighbourhoods(real=real, fake=real[::-1], k=5, k_pr=5)
    assert result.density == 1
    assert result.precision == result.recall == result.coverage == 1
    one = neighbourhoods(real=real, fake=np.repeat(real[:1], 700, 0))
    to_real = distances(real, real)
    radius = np.sort(to_real, 1)[:, 5]
    assert one.coverage == (to_real[:, 0] < radius).mean()
    assert one.recall == 0  # the samples' balls have no size


# ---- clipped -------------------------------------------------------------------------------------------------------


def slowly(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float]:
    """Clipped density and coverage, word for word."""
    n, m = len(real), len(fake)
    to_real, to_fake = distances(real, real), distances(real, fake)
    radius = np.array([sorted(np.delete(row, i))[k - 1] for i, row in enumerate(to_real)])
    clipped = np.minimum(radius, np.median(radius))
    fakes = [min(sum(to_fake[i, j] <= clipped[i] for i in range(n)), k) / k for j in range(m)]
    reals = [min(sum(to_real[i, j] <= clipped[i] for i in range(n) if i != j), k) / k for j in range(n)]
    density = min(np.mean(fakes) / np.mean(reals), 1)
    covered = np.mean([min(sum(to_fake[i] < radius[i]), k) / k for i in range(n)])
    table = np.array([slow_f(n, good, k) for good in range(m + 1)])
    return density, np.searchsorted(table, covered) / len(table)


def slow_f(n: int, m: int, k: int) -> float:
    """The paper's sum over all j, for one m."""
    j = np.arange(m + 1)
    log_c = gammaln(m + 1) - gammaln(j + 1) - gammaln(m - j + 1)
    return float((np.minimum(j, k) * np.exp(log_c + betaln(k + j, n + m - k - j) - betaln(k, n - k))).sum() / k)


@pytest.mark.parametrize(
    ("n", "m", "d", "k", "scale"),
    [(150, 150, 4, 5, 1.0), (151, 80, 8, 3, 0.8), (70, 160, 2, 1, 2.0), (60, 60, 3, 7, 5)],
)
def test_clipped_scores_as_loops_over_their_formulas(n, m, d, k, scale):
    real, fake = draws(n, d, 0), scale * draws(m, d, 1)
    result = neighbourhoods(real=real, fake=fake, k=k)
    density, coverage = slowly(real, fake, k)
    assert result.clipped_density == pytest.approx(density, abs=1e-9)
    assert result.clipped_coverage == pytest.approx(coverage, abs=1e-9)


@pytest.mark.parametrize(("n", "m", "k"), [(10, 30, 1), (200, 100, 5), (2000, 3000, 5), (8, 4, 7)])
def test_the_calibration_as_its_sum_and_as_an_integral(n, m, k):
    table = calibration(n, m, k)
    some = np.unique(np.linspace(0, m, 12).astype(int))
    np.testing.assert_allclose(table[some], [slow_f(n, int(i), k) for i in some], rtol=1e-9, atol=1e-12)
    mass = beta.ppf((np.arange(20_000) + 0.5) / 20_000, k, n - k)  # of a ball
    short = sum((k - j) * binom.pmf(j, m, mass) for j in range(k))
    assert table[m] == pytest.approx(1 - short.mean() / k, abs=1e-4)
    assert (np.diff(table) > 0).all()


def test_clipped_scores_fall_with_the_share_of_bad_samples():
    real, good, bad = draws(2000, 8, 0), draws(2000, 8, 1), draws(2000, 8, 2) + 30
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        fake = np.where(np.arange(2000)[:, None] < share * 2000, bad, good)
        result = neighbourhoods(real=real, fake=fake)
        assert result.clipped_density == pytest.approx(1 - share, abs=0.03)
        assert result.clipped_coverage == pytest.approx(1 - share, abs=0.05)
        assert result.hole_rate >= share


def test_a_dropped_mode_costs_coverage_and_no_density():
    rng = np.random.default_rng(0)
    centres = 20 * rng.normal(size=(10, 8))
    real, fake = (centres[rng.integers(10, size=2000)] + rng.normal(size=(2000, 8)) for _ in range(2))
    without = centres[rng.integers(9, size=2000)] + rng.normal(size=(2000, 8))
    before, after = neighbourhoods(real=real, fake=fake), neighbourhoods(real=real, fake=without)
    assert after.clipped_density == pytest.approx(before.clipped_density, abs=0.03)
    assert before.clipped_coverage - after.clipped_coverage > 0.1
    assert before.coverage - after.coverage == pytest.approx(0.1, abs=0.03)


def test_an_outlier_spoils_precision_and_not_the_clipped_density():
    """Its ball holds everything."""
    real = np.concatenate([draws(1000, 4, 0), 1000 * np.ones((1, 4))])
    far = draws(500, 4, 1) + 15
    result = neighbourhoods(real=real, fake=far)
    assert result.precision == 1
    assert result.clipped_density == 0
    assert result.hole_rate == 1


# ---- intervals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.9, 1.15])
def test_intervals_hold_what_other_samples_give(scale):
    """Real images stay; 95 % of the intervals should hold the mean over samples, and they are not much too wide."""
    real = draws(500, 8, 0)
    result = [neighbourhoods(real=real, fake=scale * draws(400, 8, 1 + i)) for i in range(150)]
    for name in ("precision", "density", "coverage", "clipped_density", "clipped_coverage"):
        values = np.array([getattr(f, name) for f in result])
        if values.max() == 1 and name.startswith("clipped"):
            continue  # cut off at 1
        low, high = np.array([f.intervals[name] for f in result]).T
        assert (low <= values).all(), name
        assert (values <= high).all(), name
        assert ((low <= values.mean()) & (values.mean() <= high)).mean() >= 0.9, name
        assert np.mean(high - low) < 2 * 1.96 * 1.7 * values.std(), name
    assert "recall" not in result[0].intervals


def test_wilson_as_the_score_test():
    low, high = wilson(30, 100)
    for p in (low, high):
        assert abs(0.3 - p) / np.sqrt(p * (1 - p) / 100) == pytest.approx(1.959964, rel=1e-6)
    assert wilson(100, 100)[1] == 1


# ---- neighbours ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "d", "k"), [(50, 400, 3, 5), (70, 33, 8, 1), (20, 1003, 64, 9), (5, 3, 2, 3)])
def test_the_nearest(n, m, d, k):
    x, y = draws(n, d, 0), draws(m, d, 1)
    to_real, indices = nearest(x, y, k)
    expected = distances(x, y)
    np.testing.assert_array_equal(indices, expected.argsort(1)[:, :k])
    np.testing.assert_allclose(to_real, np.sort(expected, 1)[:, :k], rtol=1e-14)


def test_none_is_its_own_neighbour_and_copies_are_at_zero():
    x = draws(600, 5, 0) + 1e6
    to_real, indices = nearest(x, x, 2, same=True)
    assert (indices != np.arange(600)[:, None]).all()
    np.testing.assert_allclose(to_real, np.sort(distances(x, x), 1)[:, 1:3], rtol=1e-12)
    assert (nearest(x, x, 1)[0] == 0).all()


def test_pairs_within_a_distance():
    x = draws(300, 2, 0)
    x[7] = x[200]
    to_real = distances(x, x)
    expected = {(i, j) for i in range(300) for j in range(i + 1, 300) if to_real[i, j] <= 0.1}
    pairs, result = (np.concatenate(parts) for parts in zip(*within(x, 0.1)))
    assert {tuple(p) for p in pairs.tolist()} == expected
    np.testing.assert_allclose(result, to_real[tuple(pairs.T)], rtol=1e-12)
    assert [p.tolist() for p, _ in within(x, 0.0)] == [[[7, 200]]]


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_too_few_or_unlike_or_broken_features():
    x = draws(6, 3, 0)
    assert isinstance(neighbourhoods(real=x, fake=x + 1), Neighbourhoods)
    with pytest.raises(LimnerError, match="at least 6 fake images, there are 5"):
        neighbourhoods(real=x, fake=x[:5])
    with pytest.raises(LimnerError, match="at least 1 neighbour"):
        neighbourhoods(real=x, fake=x, k=0)
    with pytest.raises(LimnerError, match="use one extractor"):
        neighbourhoods(real=x, fake=x[:, :2])
    with pytest.raises(LimnerError, match="not finite"):
        neighbourhoods(real=x * np.nan, fake=x)
    with pytest.raises(LimnerError, match=r"shape \(N,d\), got \(6, 3, 1\)"):
        neighbourhoods(real=x[..., None], fake=x)
    with pytest.raises(LimnerError, match="must be numbers, got uint8; extract them first"):
        neighbourhoods(real=x.astype(np.uint8), fake=x)
    with pytest.raises(LimnerError, match="7 neighbours were asked for among 6 images"):
        nearest(x, x, 7)
