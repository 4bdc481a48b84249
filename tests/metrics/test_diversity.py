"""Bins, Vendi scores, birthdays and class scores against closed forms and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2

from limner.core.errors import LimnerError
from limner.metrics.diversity import birthday, duplicate_threshold, inception_style_score, ndb, vendi


def draws(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


# ---- bins ----------------------------------------------------------------------------------------------------------


def test_equal_sets_differ_in_one_bin_of_twenty():
    result = [ndb(draws(4000, 4, 2 * i), fake=draws(3000, 4, 2 * i + 1), k=50, seed=i) for i in range(10)]
    assert np.mean([f.share for f in result]) == pytest.approx(0.05, abs=0.03)
    assert np.mean([f.js for f in result]) == pytest.approx(result[0].js_floor, rel=0.2)
    assert result[0].js_floor == pytest.approx(49 / 8 * (1 / 4000 + 1 / 3000))


def test_bins_count_what_they_say():
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    p, q = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.4, 0.0, 0.5, 0.1])
    train, fake = (
        np.repeat(centres, (share * n).round().astype(int), 0) + rng.uniform(-1, 1, (n, 2))
        for share, n in ((p, 1000), (q, 500))
    )
    result = ndb(train, fake=torch.from_numpy(fake), k=4)
    order = [int(((result.centres - c) ** 2).sum(1).argmin()) for c in centres]
    np.testing.assert_allclose(result.train[order], p)
    np.testing.assert_allclose(result.fake[order], q)
    assert result.share == 0.5
    assert result.js == pytest.approx(jensenshannon(p, q) ** 2)
    pooled = (1000 * p + 500 * q) / 1500
    np.testing.assert_allclose(result.z[order], (q - p) / np.sqrt(pooled * (1 - pooled) * (1 / 1000 + 1 / 500)))


def test_a_lost_mode_shows_in_its_bins_and_a_seed_gives_the_same():
    train, fake = draws(5000, 8, 0), draws(2000, 8, 1)
    half = fake[fake[:, 0] > 0]
    result = ndb(train, fake=half, k=50)
    assert result.share > 0.5
    assert result.js > 5 * result.js_floor
    assert result == ndb(train, fake=half, k=50)
    assert ndb(train, fake=half[:1].repeat(200, 0), k=50).js == pytest.approx(math.log(2), abs=0.05)


# ---- Vendi ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(64, 64), (640, 64), (64, 640)])
def test_vendi_of_directions(n, d):
    k = min(n, d)
    axes = np.eye(d)[np.arange(n) % k] * np.linspace(0.1, 9, n)[:, None]
    assert vendi(axes) == pytest.approx(k, rel=1e-9)
    assert vendi(axes[:1].repeat(n, 0)) == pytest.approx(1, rel=1e-9)
    uneven = np.repeat(np.eye(d)[:2], [n // 4, n - n // 4], 0)
    assert vendi(uneven) == pytest.approx(math.exp(0.25 * math.log(4) + 0.75 * math.log(4 / 3)), rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(50, 200), (200, 50)])
def test_vendi_by_the_matrix_of_similarities(n, d):
    x = draws(n, d, 0)
    rows = x / np.linalg.norm(x, axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(rows @ rows.T / n).clip(1e-300)
    assert vendi(x) == pytest.approx(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()), rel=1e-9)


# ---- birthdays -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("support", [400, 10_000])
def test_a_uniform_support_has_its_birthday_at_1_177_roots(support):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(support, 3))
    result = birthday(images[rng.integers(support, size=5000)], threshold=1e-9)
    error = 1 / (2 * math.sqrt(result.pairs)) + 0.03  # that of the pool, and of 400 orders
    assert result.batch == pytest.approx(1.177 * math.sqrt(support), rel=3 * error)
    assert result.support == result.batch**2
    assert result.at_least < support < 1.3 * result.at_least
    assert "have a duplicate" in result.verdict


def test_no_duplicates_give_a_lower_bound():
    result = birthday(draws(2000, 8, 0), threshold=1e-6)
    assert (result.batch, result.support, result.pairs) == (None, None, 0)
    assert result.at_least == pytest.approx(2000 * 1999 / 2 / 3.0, rel=0.02)  # exp(-3) = 5 %
    assert result.verdict.startswith("no duplicates among 2000 samples: more than")


def test_the_bound_is_that_of_a_poisson_mean():
    from limner.metrics.diversity import _poisson_upper

    for n in (0, 1, 5, 50, 5000):
        assert _poisson_upper(n) == pytest.approx(chi2.ppf(0.95, 2 * n + 2) / 2, rel=0.01)


def test_a_collapsed_set_is_found_from_a_part():
    result = birthday(np.ones((3000, 4)), threshold=0.0)
    assert result.batch == 2
    assert result.n < 3000
    assert result.pairs == result.n * (result.n - 1) // 2


def test_examples_are_the_closest_pairs():
    x = np.array([[0.0], [100], [0.5], [200], [100.1]])
    result = birthday(x, threshold=1.0)
    assert result.examples.tolist() == [[1, 4], [0, 2]]
    assert result.pairs == 2


def test_the_threshold_is_a_quantile_within_classes():
    x = np.array([[0.0], [1], [10], [13], [11], [2.5]])
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    assert duplicate_threshold(x, labels, quantile=0) == 1
    assert duplicate_threshold(x, labels, quantile=1) == 8.5
    assert duplicate_threshold(x, quantile=1) == 2
    with pytest.raises(LimnerError, match="single image"):
        duplicate_threshold(x, torch.tensor([0, 0, 0, 0, 0, 1]))


# ---- classes -------------------------------------------------------------------------------------------------------


def test_the_inception_style_score():
    assert inception_style_score(torch.zeros(7, 10)) == pytest.approx(1, abs=1e-12)
    certain = 50.0 * torch.eye(10).repeat(3, 1)
    assert inception_style_score(certain) == pytest.approx(10, rel=1e-9)
    assert inception_style_score(1e30 * torch.eye(10)) == pytest.approx(10, rel=1e-12)  # no nan when overconfident
    assert inception_style_score(certain[:4].half()) == pytest.approx(4, rel=1e-6)
    p = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
    kl = [sum(q * math.log(q / m) for q, m in zip(row, (0.7, 0.3))) for row in p.tolist()]
    assert inception_style_score(p.log()) == pytest.approx(math.exp(sum(kl) / 2), rel=1e-12)


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_what_is_refused():
    x = draws(50, 3, 0)
    with pytest.raises(LimnerError, match="100 bins need 1000 training and 100 generated images, there are 50 and 50"):
        ndb(x, fake=x)
    with pytest.raises(LimnerError, match="k must be at least 2 bins"):
        ndb(x, fake=x, k=1)
    with pytest.raises(TypeError):
        ndb(x, x)
    with pytest.raises(LimnerError, match="all features of 2 images are 0"):
        vendi(np.concatenate([x, np.zeros((2, 3))]))
    with pytest.raises(LimnerError, match="distance of 0 or more"):
        birthday(x, threshold=float("nan"))
    with pytest.raises(LimnerError, match="not finite"):
        inception_style_score(torch.full((2, 3), math.inf))
    with pytest.raises(LimnerError, match="at least 2 fake images"):
        birthday(x[:1], threshold=1.0)
