"""Disentanglement against codes whose scores are known, and against slow implementations written apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.fft import dct
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import mutual_info_score
from sklearn.svm import LinearSVC

from limner.core.errors import LimnerError
from limner.metrics.disentangle import (
    dci,
    dci_from_importances,
    disentanglement,
    entropies,
    factor_vae,
    mig,
    mig_each,
    sap,
)

SIZES = (3, 6, 4)


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the published trees: what these tests ask for does not need more."""
    monkeypatch.setattr("limner.metrics.disentangle._TREES", 20)
    monkeypatch.setattr("limner.metrics.disentangle._RATE", 0.3)


def factors(n: int, sizes: tuple[int, ...] = SIZES, seed: int = 0) -> np.ndarray:
    """Independent factors, every combination about as often."""
    whole = np.indices(sizes).reshape(len(sizes), -1).T
    table = np.concatenate([whole] * (n // len(whole) + 1))[:n]
    return np.random.default_rng(seed).permutation(table).astype(np.int64)


def noise(n: int, d: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def identity(v: np.ndarray, seed: int = 2) -> np.ndarray:
    """Each factor in one number, in another order and scale, beside two numbers of noise."""
    return np.concatenate([v[:, [2, 0, 1]] * [1.0, -3.0, 0.5] + 7, noise(len(v), 2, seed)], 1)


def rotated(z: np.ndarray) -> np.ndarray:
    """Every number of the code in every number of the result: the axes of a cosine transform."""
    return dct((z - z.mean(0)) / z.std(0), axis=1, norm="ortho")


# ---- known codes ---------------------------------------------------------------------------------------------------


def test_identity_noise_and_rotation():
    v = factors(4000)
    result = {
        "identity": disentanglement(identity(v), v, SIZES),
        "rotated": disentanglement(rotated(identity(v)), v, SIZES),
        "noise": disentanglement(noise(4000, 5), v, SIZES),
    }
    best, turned, none = result["identity"], result["rotated"], result["noise"]
    assert best.mig == pytest.approx(1, abs=0.01)  # the second-best code is noise, which 20 bins give 0.005 nats
    assert best.dci.disentanglement == pytest.approx(1, abs=0.01)
    assert best.dci.completeness == pytest.approx(1, abs=0.01)
    assert best.dci.informativeness == 1
    assert best.factor_vae.value == 1
    assert best.factor_vae.active == 5
    assert none.mig == pytest.approx(0, abs=0.01)
    assert none.dci.disentanglement < 0.05
    assert none.dci.completeness < 0.05
    assert none.dci.informativeness == pytest.approx(none.dci.chance, abs=0.06)
    assert none.sap < 0.06
    assert none.factor_vae.value <= 1 / 3 + 0.1
    assert turned.mig < 0.5 * best.mig
    assert turned.sap < 0.5 * best.sap
    assert turned.dci.disentanglement < 0.7
    assert turned.dci.completeness < 0.7
    assert turned.factor_vae.value < 1


def test_the_gap_of_a_factor_held_twice_is_nothing():
    """Both copies know all of it: MIG and SAP ask for one code a factor, D does not."""
    v = factors(2000)
    codes = np.concatenate([identity(v), v[:, :1] * 2.0], 1)
    gaps = mig_each(codes, v)
    assert gaps[0] == pytest.approx(0, abs=1e-12)
    assert (gaps[1:] > 0.95).all()
    assert dci(codes, v).disentanglement == pytest.approx(1, abs=0.02)


def test_a_single_code_number_has_no_second():
    v = factors(600)
    assert mig_each(v[:, :1] * 1.0, v)[0] == pytest.approx(1, rel=1e-9)
    assert mig_each(v[:, :1] * 1.0, v)[1] == pytest.approx(0, abs=1e-6)
    assert 0 < sap(v[:, :1] * 1.0, v) <= 1


def test_code_order_scale_and_offset_change_nothing():
    v = factors(1500)
    z = rotated(identity(v))
    moved = z[:, ::-1] * 8.0 + 16.0  # powers of two: the bins are the same bits
    assert mig(moved, v) == pytest.approx(mig(z, v), rel=1e-9)
    assert factor_vae(moved, v) == factor_vae(z, v)
    assert sap(moved, v, continuous=[True] * 3) == pytest.approx(sap(z, v, continuous=[True] * 3), rel=1e-9)


def test_codes_that_hardly_vary_take_no_part_in_votes():
    """Unpruned, a constant number with rounding noise wins votes that mean nothing."""
    v = factors(3000)
    codes = np.concatenate([identity(v), 1e-9 * noise(3000, 3, 9), np.ones((3000, 1))], 1)
    result = factor_vae(codes, v)
    assert result.active == 5
    assert result.value == 1
    assert factor_vae(np.ones((3000, 4)), v).value == pytest.approx(1 / 3)


# ---- slow implementations, written apart ---------------------------------------------------------------------------


def slow_mig(codes: np.ndarray, v: np.ndarray, bins: int) -> float:
    gaps = []
    for k in range(v.shape[1]):
        informations = []
        for j in range(codes.shape[1]):
            edges = np.histogram(codes[:, j], bins)[1]
            informations.append(mutual_info_score(v[:, k], np.digitize(codes[:, j], edges[:-1])))
        informations.sort()
        gaps.append((informations[-1] - informations[-2]) / mutual_info_score(v[:, k], v[:, k]))
    return float(np.mean(gaps))


@pytest.mark.parametrize(("bins", "seed"), [(20, 0), (20, 1), (7, 2), (2, 3)])
def test_mig_as_scikit_learns_mutual_information(bins, seed):
    v = factors(1000, seed=seed)
    z = rotated(identity(v, seed)) + 0.3 * noise(1000, 5, seed + 10)
    assert mig(z, v, bins=bins) == pytest.approx(slow_mig(z, v, bins), abs=1e-9)
    assert entropies(v)[0] == pytest.approx(mutual_info_score(v[:, 0], v[:, 0]), abs=1e-12)


def test_sap_as_loops_over_machines_and_lines():
    v = factors(900)
    z = rotated(identity(v))[:, :3] + 0.1 * noise(900, 3)
    order = np.random.default_rng(5).permutation(900)
    learnt, judged = order[:500], order[500:800]
    gaps = []
    for k, straight in enumerate((False, True, False)):
        scores = []
        for j in range(3):
            if straight:
                scores.append(np.corrcoef(z[:, j], v[:, k])[0, 1] ** 2)
                continue
            machine = LinearSVC(C=0.01, class_weight="balanced").fit(z[learnt][:, [j]], v[learnt, k])
            scores.append(sum(machine.predict(z[judged][:, [j]]) == v[judged, k]) / 300)
        scores.sort()
        gaps.append(scores[-1] - scores[-2])
    result = sap(z, v, continuous=(False, True, False), train=500, test=300, seed=5)
    assert result == pytest.approx(sum(gaps) / 3, abs=1e-6)


def test_factor_vae_as_a_loop_over_votes():
    """Kim and Mnih's box, one vote after the other; the two differ by the luck of the votes alone."""
    v = factors(2000)
    z = rotated(identity(v)) + 0.3 * noise(2000, 5)
    rng, spread = np.random.default_rng(0), z.var(0, ddof=1)

    def vote() -> tuple[int, int]:
        k = int(rng.integers(3))
        ids = np.flatnonzero(v[:, k] == rng.integers(SIZES[k]))
        return int((z[rng.choice(ids, 64)].var(0, ddof=1) / spread).argmin()), k

    votes = Counter(vote() for _ in range(3000))
    chosen = [max(range(3), key=lambda k, j=j: votes[j, k]) for j in range(5)]
    slow = np.mean([chosen[j] == k for j, k in (vote() for _ in range(3000))])
    error = 0.5 * np.sqrt(1 / 3000 + 1 / 5000)  # of two shares, at most
    assert factor_vae(z, v).value == pytest.approx(slow, abs=4 * error)


def test_dci_has_the_published_classifiers(monkeypatch: pytest.MonkeyPatch):
    """Those of disentanglement_lib: scikit-learn's gradient boosting as it comes, its importances a column each."""
    monkeypatch.undo()
    v = factors(450, (2, 3))
    z = np.concatenate([v + noise(450, 2), noise(450, 1)], 1)
    order = np.random.default_rng(0).permutation(450)
    result = dci(z, v, train=300, test=150)
    again = [GradientBoostingClassifier(random_state=0).fit(z[order[:300]], v[order[:300], k]) for k in (0, 1)]
    np.testing.assert_allclose(result.importances, np.stack([g.feature_importances_ for g in again], 1), atol=1e-12)


def test_dci_by_hand():
    R = [[0.5, 0.0], [0.5, 0.0], [0.0, 1.0]]
    d, c = dci_from_importances(R)
    assert d == pytest.approx(1, abs=1e-12)  # each code serves one factor
    assert c == pytest.approx(0.5 * (1 - np.log(2) / np.log(3)) + 0.5, abs=1e-12)  # the first factor needs two of three
    d, c = dci_from_importances([[0.75, 0.25], [0.25, 0.75]])
    shared = 1 - (-0.75 * np.log2(0.75) - 0.25 * np.log2(0.25))
    assert (d, c) == (pytest.approx(shared, abs=1e-12), pytest.approx(shared, abs=1e-12))
    d, c = dci_from_importances([[3.0, 1.0], [0.0, 0.0]])  # a code that is not used has no weight
    assert d == pytest.approx(1 + 0.75 * np.log2(0.75) + 0.25 * np.log2(0.25), abs=1e-12)
    assert c == pytest.approx(1, abs=1e-12)
    assert dci_from_importances(np.zeros((3, 2))) == (0, 0)
    assert dci_from_importances(np.full((4, 5), 0.2)) == (pytest.approx(0, abs=1e-12), pytest.approx(0, abs=1e-12))


def test_the_seed_decides_and_nothing_else():
    v = factors(600)
    z = rotated(identity(v))
    first, again = disentanglement(z, v, seed=3), disentanglement(torch.from_numpy(z), torch.from_numpy(v), seed=3)
    assert (first.mig, first.sap, first.factor_vae) == (again.mig, again.sap, again.factor_vae)
    np.testing.assert_array_equal(first.dci.importances, again.dci.importances)
    assert (first.n, first.codes, first.factors, first.seed) == (600, 5, 3, 3)


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_tables_that_cannot_be_judged():
    v, z = factors(200), noise(200, 4)
    with pytest.raises(LimnerError, match="at least 100 images, there are 99; 10000 are usual"):
        mig(z[:99], v[:99])
    with pytest.raises(LimnerError, match=r"codes \(200, 4\) and factors \(199, 3\) do not fit"):
        mig(z, v[:199])
    with pytest.raises(LimnerError, match="integers from 0, got float64"):
        mig(z, v / 2)
    with pytest.raises(LimnerError, match="integers from 0"):
        sap(z, v - 1)
    with pytest.raises(LimnerError, match="factor 1 has the same value"):
        factor_vae(z, np.concatenate([v[:, :1], 0 * v[:, :1]], 1))
    with pytest.raises(LimnerError, match="some codes are not finite"):
        dci(np.where(z > 2, np.nan, z), v)
    with pytest.raises(LimnerError, match=r"sizes \(3, 6, 3\) cannot have the values \(2, 5, 3\)"):
        disentanglement(z, v, (3, 6, 3))
    with pytest.raises(LimnerError, match="continuous has 1 values and there are 3 factors"):
        sap(z, v, continuous=[True])
    with pytest.raises(LimnerError, match="at least 2 bins"):
        mig(z, v, bins=1)
    with pytest.raises(LimnerError, match="finite numbers from 0"):
        dci_from_importances([[-1.0, 0.5]])
