"""The guard against copying: on copies, on held-out images, against scipy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from limner.core.errors import LimnerError
from limner.metrics.copies import authpct, c_t, copying, duplicates, nearest, rank_z


def draws(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def blobs(n: int, seed: int, d: int = 8) -> np.ndarray:
    """Three far clusters, so that the cells are known."""
    rng = np.random.default_rng(seed)
    return 30 * np.eye(3, d)[rng.integers(3, size=n)] + rng.normal(size=(n, d))


# ---- C_T -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 64, 100])  # the last: after principal components
def test_c_t_of_copies_of_held_out_images_and_of_far_ones(d):
    train, test, fake = draws(2000, d, 0), draws(1000, d, 1), draws(1000, d, 2)
    copies = train[:1000] + 1e-3 * draws(1000, d, 3)
    assert c_t(train=train, test=test, fake=copies).value < -10
    assert abs(c_t(train=train, test=test, fake=fake).value) < 3
    assert c_t(train=train, test=test, fake=1.5 * fake).value > 5


def test_z_as_scipys_u():
    x, y = draws(40, 1, 0)[:, 0].round(1), draws(60, 1, 1)[:, 0].round(1)  # with ties
    u = mannwhitneyu(x, y, alternative="less").statistic
    assert rank_z(x, y) == pytest.approx((u - (40 * 60 / 2 - 0.5)) / np.sqrt(40 * 60 * 101 / 12), rel=1e-12)
    assert rank_z(y - 9, x) < -7 < 7 < rank_z(y + 9, x)


def test_c_t_is_the_mean_over_cells_by_held_out_share():
    train, test = blobs(900, 0), blobs(300, 1)
    fake = blobs(400, 2)
    fake = fake[(fake[:, 0] > 15) | (fake[:, 1] > 15)]  # a third of the modes is gone
    fake = np.concatenate([fake, 30 * np.eye(3, 8)[2] + draws(19, 8, 3)])  # one less than counts
    result = c_t(train=train, test=test, fake=fake)
    expected, weight = 0.0, 0
    for axis in range(2):
        a, b, c = (x[x[:, axis] > 15] for x in (train, test, fake))
        near = [((x[:, None] - a) ** 2).sum(-1).min(1) ** 0.5 for x in (c, b)]
        u = mannwhitneyu(*near).statistic
        n, m = len(b), len(c)
        expected += n * (u - (n * m / 2 - 0.5)) / np.sqrt(n * m * (n + m + 1) / 12)
        weight += n
    assert result.value == pytest.approx(expected / weight, rel=1e-9)
    assert sorted(cell.fake for cell in result.cells)[0] == 19
    assert [cell.z for cell in result.cells if cell.fake == 19] == [None]
    assert sum(cell.train for cell in result.cells) == 900
    assert sum(cell.test for cell in result.cells) == 300


# ---- AuthPct -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "per_cent"), [(2, 39), (16, 69), (64, 82)])
def test_authpct_of_fresh_images_depends_on_the_dimension(d, per_cent):
    result = [authpct(train=draws(1000, d, 2 * i), fake=draws(1000, d, 2 * i + 1)) for i in range(5)]
    assert np.mean(result) == pytest.approx(per_cent, abs=2)


def test_authpct_as_loops_and_of_copies():
    train, fake = draws(80, 3, 0), draws(60, 3, 1)
    far = 0
    for g in fake:
        near = int(((train - g) ** 2).sum(1).argmin())
        own = min(((train[j] - train[near]) ** 2).sum() for j in range(80) if j != near)
        far += ((train[near] - g) ** 2).sum() > own
    assert authpct(train=train, fake=torch.from_numpy(fake)) == pytest.approx(100 * far / 60)
    assert authpct(train=train, fake=train[:30]) == 0


def test_authpct_with_a_training_image_twice():
    """Its nearest other one is at 0, so nothing off it can be a copy of it."""
    train = np.array([[0.0], [0.0], [5.0], [9.0]])
    assert authpct(train=train, fake=[[0.1], [4.0]]) == 50


# ---- neighbours and duplicates -------------------------------------------------------------------------------------


def test_the_nearest_training_images():
    train, fake = draws(500, 6, 0), draws(40, 6, 1)
    fake[3] = train[77]
    result = nearest(train=train, fake=fake, k=4)
    pairwise = np.sqrt(((fake[:, None] - train) ** 2).sum(-1))
    np.testing.assert_array_equal(result.indices, pairwise.argsort(1)[:, :4])
    np.testing.assert_allclose(result.distances, np.sort(pairwise, 1)[:, :4], rtol=1e-12)
    assert (result.indices[3, 0], result.distances[3, 0]) == (77, 0)


def test_duplicates_come_with_their_originals_the_closest_first():
    train, fake = draws(300, 6, 0), draws(100, 6, 1)
    fake[[4, 50]] = train[[200, 100]]
    fake[4, 0] += 0.01
    result = duplicates(train=train, fake=fake, threshold=0.011)
    assert result.share == 0.02
    assert result.fakes.tolist() == [50, 4]
    assert result.trains.tolist() == [100, 200]
    np.testing.assert_allclose(result.distances, [0, 0.01], atol=1e-12)
    assert duplicates(train=train, fake=fake, threshold=0.0).fakes.tolist() == [50]


# ---- the verdict ---------------------------------------------------------------------------------------------------


def test_the_verdict():
    train, test, fake = draws(3000, 16, 0), draws(1000, 16, 1), draws(1000, 16, 2)
    fresh = copying(train=train, test=test, fake=fake)
    assert fresh.verdict == "no sign of copying"
    assert abs(fresh.authpct - fresh.authpct_test) < 6
    assert fresh.duplicates.share < 0.01
    assert fresh.c_t == c_t(train=train, test=test, fake=fake)
    assert fresh.authpct == authpct(train=train, fake=fake)
    assert fresh.authpct_test == authpct(train=train, fake=test)

    memorised = copying(train=train, test=test, fake=train[::3] + 0.01 * fake)
    assert memorised.verdict == "copies"
    assert memorised.c_t.value < -10
    assert memorised.authpct == 0
    assert memorised.duplicates.share == 1
    assert memorised.duplicates_test < 0.01
    assert memorised.why.startswith("C_T -")

    assert copying(train=train, test=test, fake=2 * fake).verdict == "underfits"


def test_a_share_of_copies_is_found_by_authpct_though_the_rest_lies_far_off():
    """C_T sees the mean rank, so far samples hide near ones."""
    train, test = draws(3000, 16, 0), draws(1000, 16, 1)
    mixed = np.concatenate([train[:500], 1.4 * draws(500, 16, 2)])
    result = copying(train=train, test=test, fake=mixed)
    assert result.c_t.value > -3
    assert result.verdict == "copies"
    assert result.duplicates.share == 0.5


def test_a_collapsed_model_far_off_copies_nothing():
    """Near a lonely training image AuthPct is low, though no sample is like any training image."""
    train, test = draws(3000, 16, 0), draws(1000, 16, 1)
    train[0] = 8 * np.eye(16)[0]  # 6 away from all others, of which each is 2 to 4 away from the next
    blot = train[0] + 4.5 * np.eye(16)[0] + 0.01 * draws(500, 16, 2)
    result = copying(train=train, test=test, fake=blot)
    assert result.authpct == 0
    assert result.verdict == "underfits"


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_what_is_refused():
    x = draws(40, 3, 0)
    with pytest.raises(LimnerError, match="at least 20 fake images, there are 19"):
        copying(train=x, test=x, fake=x[:19])
    with pytest.raises(LimnerError, match="C_T needs 20 generated"):
        c_t(train=x, test=x, fake=x[:10])
    with pytest.raises(LimnerError, match="3 features for train images and 2 features for fake images"):
        authpct(train=x, fake=x[:, :2])
    with pytest.raises(LimnerError, match="features of test images are not finite"):
        copying(train=x, test=x * np.inf, fake=x)
    with pytest.raises(LimnerError, match="41 neighbours were asked for among 40"):
        nearest(train=x, fake=x, k=41)
    with pytest.raises(LimnerError, match="distance of 0 or more"):
        duplicates(train=x, fake=x, threshold=-1.0)
    with pytest.raises(TypeError):
        authpct(x, x)
