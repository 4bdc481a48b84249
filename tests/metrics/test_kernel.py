"""Kernel distances against closed forms, scikit-learn's kernel and their own spread over seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel

from limner.core.errors import LimnerError
from limner.metrics.kernel import cubic, gaussians, kid, median_distance, mmd


def draws(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """N(m,I) with |m|² = shift."""
    return np.random.default_rng(seed).normal(size=(n, d)) + np.sqrt(shift / d)


def closed_form(d: int, u: float) -> float:
    """KID of N(0,I) and N(m,I) with u = |m|²."""
    return 3 * u / d + 3 * u**2 / d**2 + 3 * u / d**2 + u**3 / d**3 + 6 * u**2 / d**3 + 6 * u / d**3


def by_sklearn(x: np.ndarray, y: np.ndarray) -> float:
    n, m = len(x), len(y)
    xx, yy, xy = (polynomial_kernel(a, b, degree=3, gamma=None, coef0=1) for a, b in ((x, x), (y, y), (x, y)))
    off = ((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy))
    assert xy.shape == (n, m)
    return sum(off) - 2 * xy.mean()


# ---- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "d"), [(200, 200, 64), (300, 170, 8), (1025, 2049, 16)])  # the last: several blocks
def test_as_scikit_learns_kernel(n, m, d):
    x, y = draws(n, d, 0), draws(m, d, 1, 2.0)
    result = kid(real=x, fake=torch.from_numpy(y)).value
    assert result == pytest.approx(by_sklearn(x, y), abs=1e-10)


def test_the_biased_estimate_is_another_number():
    x, y = draws(200, 64, 0), draws(200, 64, 1)
    k = lambda a, b: polynomial_kernel(a, b, degree=3, gamma=None, coef0=1).mean()  # noqa: E731
    biased = k(x, x) + k(y, y) - 2 * k(x, y)
    assert biased - kid(real=x, fake=y).value > 0.02  # 2 (E k(x,x) - E k(x,x')) / n = 0.07


def test_closed_form():
    assert closed_form(64, 4) == pytest.approx(0.20285, abs=1e-5)
    result = kid(real=draws(5000, 64, 0), fake=draws(4000, 64, 1, 4.0))
    assert abs(result.value - closed_form(64, 4)) < 3 * result.error
    assert result.error < 0.01


def test_swapping_changes_nothing():
    x, y = draws(300, 16, 0), draws(200, 16, 1, 1.0)
    assert kid(real=x, fake=y).value == pytest.approx(kid(real=y, fake=x).value, abs=1e-12)
    assert kid(real=x, fake=y).error == pytest.approx(kid(real=y, fake=x).error, abs=1e-12)
    assert kid(real=x, fake=y[::-1]).value == pytest.approx(kid(real=x, fake=y).value, abs=1e-12)


# ---- its standard error --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "u"), [(300, 300, 0.0), (400, 200, 0.0), (300, 300, 0.5), (200, 400, 8.0)])
def test_the_error_is_the_spread_over_seeds(n, m, u):
    """From equal distributions, where only the second order is left, to far ones, where the first is nearly all."""
    d = 32
    result = [kid(real=draws(n, d, 2 * i), fake=draws(m, d, 2 * i + 1, u)) for i in range(200)]
    values, errors = (np.array([getattr(f, name) for f in result]) for name in ("value", "error"))
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.2)  # the spread itself is good to 5 %
    assert (np.abs(values - closed_form(d, u)) < 3 * errors).mean() >= 0.985
    assert values.mean() == pytest.approx(closed_form(d, u), abs=4 * values.std() / np.sqrt(200))


def test_equal_distributions_are_as_often_below_zero():
    result = [kid(real=draws(100, 16, 2 * i), fake=draws(100, 16, 2 * i + 1)).value for i in range(200)]
    assert 0.4 < np.mean(np.array(result) < 0) < 0.7


# ---- other kernels -------------------------------------------------------------------------------------------------


def test_a_gaussian_kernel_of_two_normals():
    """E exp(-|x-y|²/(2s²)) over N(0,I) and N(m,I) is (s²/(s²+2))^(d/2) exp(-|m|²/(2(s²+2)))."""
    d, u, s2 = 4, 1.0, 4.0 * np.array([0.25, 0.5, 1, 2, 4])
    mean = lambda u: ((s2 / (s2 + 2)) ** (d / 2) * np.exp(-u / (2 * (s2 + 2)))).mean()  # noqa: E731
    result = mmd(draws(3000, d, 0), draws(3000, d, 1, u), kernel=gaussians(2.0))
    assert abs(result.value - 2 * (mean(0) - mean(u))) < 3 * result.error
    assert result.value > 10 * result.error


def test_the_mixture_is_the_mean_of_its_parts():
    x, y = torch.from_numpy(draws(20, 3, 0)), torch.from_numpy(draws(30, 3, 1))
    squared = torch.cdist(x, y).square()
    expected = sum((-squared / (2 * (1.7 * f) ** 2)).exp() for f in (0.5, 0.5**0.5, 1, 2**0.5, 2)) / 5
    torch.testing.assert_close(gaussians(1.7)(x, y), expected, rtol=1e-10, atol=1e-12)


def test_the_default_kernel_knows_no_scale():
    x, y = draws(300, 4, 0), draws(200, 4, 1, 1.0)
    assert mmd(100 * x, 100 * y).value == pytest.approx(mmd(x, y).value, rel=1e-9)
    assert median_distance(x, x) == pytest.approx(np.sqrt(2 * (4 - 2 / 3)), rel=0.05)
    narrower = mmd(x / 2, draws(200, 4, 2))  # a KL that is too strong makes codes too narrow, or too wide
    assert narrower.value > 5 * narrower.error


def test_a_constant_set_has_no_bandwidth_but_a_distance():
    zeros = np.zeros((5, 2))
    assert mmd(zeros, zeros).value == 0
    assert mmd(zeros, zeros).error == 0


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_too_few_or_unlike_or_broken_features():
    x = draws(5, 3, 0)
    with pytest.raises(LimnerError, match="at least 2 fake images, there are 1"):
        kid(real=x, fake=x[:1])
    with pytest.raises(LimnerError, match="3 features for real images and 2 features for fake images"):
        kid(real=x, fake=x[:, :2])
    with pytest.raises(LimnerError, match="features of fake images are not finite"):
        kid(real=x, fake=x * np.inf)
    with pytest.raises(TypeError):
        kid(x, x)
    assert cubic(torch.ones(1, 2), torch.ones(1, 2)).item() == 8
