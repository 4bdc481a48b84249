"""The Fréchet distance against closed forms, two other ways to compute it, and its own bias law."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from limner.core.errors import LimnerError
from limner.metrics.frechet import Moments, floor, frechet, frechet_distance, frechet_infinity

LARGE = pytest.param(2048, marks=pytest.mark.slow)  # Inception's, for which scipy alone needs half a minute


def spd(d: int, seed: int, decay: float = 1.0) -> np.ndarray:
    """A covariance with spectrum 1/i^decay in random axes."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (axes / np.arange(1, d + 1) ** decay) @ axes.T


def draws(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


# ---- closed forms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 64, 512, LARGE])
def test_shifted_and_scaled_spheres(d):
    m, zero, one = np.linspace(-1, 1, d), np.zeros(d), np.eye(d)
    assert frechet_distance(zero, one, m, one) == pytest.approx((m**2).sum(), rel=1e-12)
    assert frechet_distance(zero, 9 * one, m, 4 * one) == pytest.approx((m**2).sum() + d, rel=1e-12)


@pytest.mark.parametrize("d", [1, 2, 64, 512, LARGE])
def test_diagonal_covariances(d):
    rng = np.random.default_rng(d)
    l, k = rng.uniform(0, 2, d), rng.uniform(0, 2, d)
    expected = ((np.sqrt(l) - np.sqrt(k)) ** 2).sum()
    assert frechet_distance(np.zeros(d), np.diag(l), np.zeros(d), np.diag(k)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("d", [1, 2, 64, 256, LARGE])
def test_any_covariances_as_scipys_root_and_as_plain_eigenvalues(d):
    mu1, mu2, s1, s2 = draws(1, d, 0)[0], draws(1, d, 1)[0], spd(d, 2), 2 * spd(d, 3, 0.5)
    result = frechet_distance(mu1, s1, mu2, s2)
    means = ((mu1 - mu2) ** 2).sum() + np.trace(s1 + s2)
    assert result == pytest.approx(means - 2 * np.trace(sqrtm(s1 @ s2)).real, rel=1e-6)
    assert result == pytest.approx(means - 2 * np.sqrt(np.linalg.eigvals(s1 @ s2).astype(complex)).sum().real, rel=1e-6)


# ---- laws ----------------------------------------------------------------------------------------------------------


def test_symmetric_rotation_invariant_and_of_degree_two():
    d = 32
    mu1, mu2, s1, s2 = draws(1, d, 0)[0], draws(1, d, 1)[0], spd(d, 2), spd(d, 3, 2)
    result = frechet_distance(mu1, s1, mu2, s2)
    assert frechet_distance(mu2, s2, mu1, s1) == pytest.approx(result, rel=1e-9)
    q = np.linalg.qr(draws(d, d, 4))[0]
    assert frechet_distance(q @ mu1, q @ s1 @ q.T, q @ mu2, q @ s2 @ q.T) == pytest.approx(result, rel=1e-9)
    assert frechet_distance(3 * mu1, 9 * s1, 3 * mu2, 9 * s2) == pytest.approx(9 * result, rel=1e-12)


@pytest.mark.parametrize("n", [40, 1000])  # 40 images of 64 features: a singular covariance
def test_a_set_is_no_distance_from_itself(n):
    x = draws(n, 64, 0)
    s = Moments().update(x).covariance
    assert 0 <= frechet(x, x[::-1]) <= 1e-6 * np.trace(s)


def test_fewer_images_than_features():
    x, y = draws(40, 64, 0), draws(50, 64, 1) + 1
    result = frechet(x, y)
    s1, s2 = Moments().update(x).covariance, Moments().update(y).covariance
    means = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s1 + s2)
    # The nuclear norm of the cross Gram matrix is Tr (S1 S2)^½ without any covariance at all.
    gram = (x - x.mean(0)) @ (y - y.mean(0)).T / np.sqrt(39 * 49)
    assert result == pytest.approx(means - 2 * np.linalg.svd(gram, compute_uv=False).sum(), rel=1e-6)


def test_singular_covariances_in_either_place():
    flat, round_ = np.diag([4.0, 1.0, 0.0]), np.diag([1.0, 1.0, 1.0])
    zero = np.zeros(3)
    expected = 1 + 0 + 1
    assert frechet_distance(zero, flat, zero, round_) == pytest.approx(expected, abs=1e-12)
    assert frechet_distance(zero, round_, zero, flat) == pytest.approx(expected, abs=1e-12)
    assert frechet_distance(zero, 0 * flat, zero, flat) == pytest.approx(5, abs=1e-12)


# ---- bias ----------------------------------------------------------------------------------------------------------


def test_the_floor_of_a_sphere():
    assert floor(np.eye(64), 10_000, 10_000) == pytest.approx(2 / 10_000 * (64 + (64**2 + 64) / 4), rel=1e-12)
    assert floor(np.eye(64), 500) == pytest.approx(1 / 500 * (64 + (64**2 + 64) / 4), rel=1e-12)
    assert floor(np.zeros((3, 3)), 10) == 0


@pytest.mark.parametrize(
    ("decay", "n", "m", "repeats"), [(0.0, 1000, 1000, 12), (0.0, 500, 2000, 12), (1.0, 1000, 3000, 40)]
)
def test_two_sets_of_one_distribution_lie_at_the_floor(decay, n, m, repeats):
    """Within 5 %, as simulated when the law was derived; the mean over repeats is good to about 1 %."""
    d = 32
    s = spd(d, 0, decay)
    root = np.linalg.cholesky(s)
    result = [frechet(draws(n, d, 2 * i) @ root.T, draws(m, d, 2 * i + 1) @ root.T) for i in range(repeats)]
    assert np.mean(result) == pytest.approx(floor(s, n, m), rel=0.05)


def test_extrapolation_takes_nine_tenths_of_the_bias_away():
    x = draws(4000, 64, 5)
    result = frechet_infinity(x, np.zeros(64), np.eye(64))
    assert result.distances[-1] == pytest.approx(
        frechet_distance(*Moments().update(x).compute(), np.zeros(64), np.eye(64))
    )
    assert result.distances[0] > 5 * result.distances[-1]
    assert result.sizes[0] == 400
    assert result.sizes[-1] == 4000
    assert abs(result.value) <= 0.1 * result.distances[-1]


def test_extrapolation_keeps_a_true_distance():
    x = draws(4000, 16, 6) + 0.5
    result = frechet_infinity(x, np.zeros(16), np.eye(16), seed=1)
    error = 2 * np.sqrt(4 / 4000)  # of |mean|²: its gradient is 2·(0.5,…), of length 4
    assert result.value == pytest.approx(4, abs=3 * error)
    assert result == frechet_infinity(x, np.zeros(16), np.eye(16), seed=1)


# ---- moments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [[500], [1] * 500, [1, 2, 497], [0, 250, 250], [7] * 71 + [3]])
def test_moments_do_not_depend_on_how_features_arrive(parts):
    x = draws(500, 6, 0) @ spd(6, 1, 2) + 1e4
    moments = Moments()
    for part in torch.from_numpy(x).split(parts):
        moments.update(part)
    assert moments.n == 500
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-12)
    scale = np.cov(x, rowvar=False).diagonal().max()
    np.testing.assert_allclose(moments.covariance, np.cov(x - 1e4, rowvar=False), rtol=1e-9, atol=1e-9 * scale)


def test_workers_and_order():
    x = draws(300, 5, 3) * [1, 10, 100, 0.1, 1] + 1e4
    whole = Moments().update(x)
    workers = [Moments().update(x[i::7]) for i in range(7)]
    merged = Moments()
    for worker in reversed([*workers, Moments()]):
        merged.merge(worker)
    assert merged.n == 300
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=1e-9, atol=1e-9)
    assert workers[-1].n == 42  # merging took nothing from them
    np.testing.assert_allclose(workers[-1].mean, x[6::7].mean(0), rtol=1e-12)


def test_float32_features_lose_nothing():
    """Sums in float32 would be off by per cents here."""
    x = torch.from_numpy(draws(2000, 4, 0)).float() + 1000
    expected = np.cov(x.numpy().astype(np.float64), rowvar=False)
    np.testing.assert_allclose(Moments().update(x).covariance, expected, rtol=1e-9, atol=1e-12)
    bf16 = x.bfloat16()
    np.testing.assert_allclose(Moments().update(bf16).mean, bf16.double().mean(0), rtol=1e-12)


def test_reset():
    moments = Moments().update(draws(10, 3, 0))
    moments.reset()
    assert moments.update([[1.0, 2.0]]).mean.tolist() == [1.0, 2.0]


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_too_few_or_unlike_or_broken_features():
    with pytest.raises(LimnerError, match="no features yet"):
        _ = Moments().mean
    with pytest.raises(LimnerError, match="at least 2 images, there are 1"):
        Moments().update([[1.0]]).compute()
    with pytest.raises(LimnerError, match=r"shape \(B,3\), got \(2, 4\)"):
        Moments().update(draws(2, 3, 0)).update(draws(2, 4, 0))
    with pytest.raises(LimnerError, match="cannot be merged"):
        Moments().update(draws(2, 3, 0)).merge(Moments().update(draws(2, 4, 0)))
    with pytest.raises(LimnerError, match="not finite"):
        Moments().update([[float("nan")]])
    with pytest.raises(LimnerError, match="not finite"):
        frechet_distance([0.0], [[np.inf]], [0.0], [[1.0]])
    with pytest.raises(LimnerError, match="do not fit covariances"):
        frechet_distance([0.0], [[1.0]], [0.0, 0.0], np.eye(2))
    with pytest.raises(LimnerError, match="at least 20 images, there are 19"):
        frechet_infinity(draws(19, 2, 0), np.zeros(2), np.eye(2))
