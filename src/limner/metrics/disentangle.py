"""Disentanglement: whether single dimensions of a code stand for single known factors of variation.

All scores compare a table of codes (N,d) with the true factors (N,K) of the same images, in the forms of Locatello et
al. 2019 (*Challenging common assumptions in the unsupervised learning of disentangled representations*,
arXiv:1811.12359). With code dimensions z_j and factors v_k:

===========  ============================================================================================
MIG          Chen et al. 2018, arXiv:1802.04942, eq. 6: mean over k of (I(z_j1; v_k) - I(z_j2; v_k)) / H(v_k)
             with the two dimensions that have most information on v_k
DCI          Eastwood and Williams 2018: importances R (d,K) of codes in classifiers of the factors;
             D = Σ_j ρ_j (1 - H_K(R_j / Σ R_j)), C the same over columns, I the accuracy of the classifiers
SAP          Kumar et al. 2018, arXiv:1711.00848: mean over k of the gap between the two single dimensions
             that predict v_k best
FactorVAE    Kim and Mnih 2018, arXiv:1802.05983: accuracy of predicting which factor 64 codes share, from
             the dimension of least relative variance among them
===========  ============================================================================================

All lie in [0,1]. Without an inductive bias in model or data, unsupervised disentanglement is impossible in principle,
and the random seed matters more than the method (Locatello et al., theorem 1 and section 5.4): report five seeds or
more. FactorVAE's score of codes without information is 1/K, not 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from limner.core.errors import LimnerError
from limner.metrics.diversity import entropy
from limner.metrics.sets import Array

Counts = NDArray[np.int64]
_MIN_POINTS = 100  # with fewer, a histogram of 20 bins and a test split are meaningless
_TREES, _RATE, _DEPTH = 100, 0.1, 3  # those of the published tables


@dataclass(frozen=True)
class Dci:
    """The scores of Eastwood and Williams.

    Attributes:
        disentanglement: D, 1 when each dimension is important for one factor.
        completeness: C, 1 when each factor depends on one dimension.
        informativeness: I, accuracy of the classifiers on codes they were not trained on, mean over factors.
        chance: accuracy of predicting the most frequent value, mean over factors.
        importances: R (d,K); each column sums to 1, or to 0 where the classifier has no splits.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    chance: float
    importances: Array


@dataclass(frozen=True)
class FactorVae:
    """The score of Kim and Mnih.

    Attributes:
        value: accuracy of the majority vote on new votes.
        chance: 1/K, the value for codes without information.
        active: number of dimensions that took part; the others hardly vary.
    """

    value: float
    chance: float
    active: int


@dataclass(frozen=True)
class Disentanglement:
    """All scores of one table of codes and factors.

    Attributes:
        mig: mutual information gap, mean over factors.
        mig_each: the gap of each factor, (K,).
        dci: disentanglement, completeness, informativeness.
        sap: separated attribute predictability, mean over factors.
        factor_vae: Kim and Mnih's score.
        n: number of images.
        codes: number of dimensions d.
        factors: number of factors K.
        seed: seed of every random choice.
    """

    mig: float
    mig_each: tuple[float, ...]
    dci: Dci
    sap: float
    factor_vae: FactorVae
    n: int
    codes: int
    factors: int
    seed: int


def disentanglement(
    codes: Tensor | ArrayLike,
    factors: Tensor | ArrayLike,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    *,
    continuous: Sequence[bool] | None = None,
) -> Disentanglement:
    """All scores of codes (N,d) and factors (N,K).

    Args:
        codes: one row for each image; more than two dimensions are flattened.
        factors: integers from 0.
        sizes: number of values of each factor; factors are checked against it when given.
        seed: seed of every random choice.
        continuous: for `sap`.

    Raises:
        LimnerError: the table has a wrong shape or values that cannot be scored.
    """
    z, v = _table(codes, factors)
    if sizes is not None and (len(sizes) != v.shape[1] or (v.max(0) >= np.asarray(sizes)).any()):
        raise LimnerError(f"factors of sizes {tuple(sizes)} cannot have the values {tuple(v.max(0).tolist())}")
    gaps = mig_each(z, v)
    return Disentanglement(
        mig=float(gaps.mean()),
        mig_each=tuple(gaps.tolist()),
        dci=dci(z, v, seed=seed),
        sap=sap(z, v, continuous=continuous, seed=seed),
        factor_vae=factor_vae(z, v, seed=seed),
        n=len(z),
        codes=z.shape[1],
        factors=v.shape[1],
        seed=seed,
    )


# ---- mutual information gap ----------------------------------------------------------------------------------------


def mig(codes: Tensor | ArrayLike, factors: Tensor | ArrayLike, *, bins: int = 20) -> float:
    """Mutual information gap of codes (N,d) and factors (N,K); the mean of `mig_each`."""
    return float(mig_each(codes, factors, bins=bins).mean())


def mig_each(codes: Tensor | ArrayLike, factors: Tensor | ArrayLike, *, bins: int = 20) -> Array:
    """The gap of each factor, (K,), relative to the factor's entropy.

    Args:
        codes: (N,d); each dimension is divided into `bins` of equal width between its smallest and largest value.
        factors: (N,K) integers; the entropy of a continuous factor would have no meaning here.
        bins: 20 in published tables, at 10,000 points. Lower it for fewer points, or noise counts as information.

    Raises:
        LimnerError: the table has a wrong shape or values that cannot be scored.
    """
    z, v = _table(codes, factors)
    if bins < 2:
        raise LimnerError(f"a histogram has at least 2 bins, got bins={bins}")
    information = mutual_information(discretised(z, bins), v)  # (d,K)
    best = np.sort(information, axis=0)[::-1]
    second = best[1] if len(best) > 1 else np.zeros_like(best[0])
    return np.asarray((best[0] - second) / entropies(v), dtype=np.float64)


def discretised(codes: Array, bins: int) -> Counts:
    """Bin indices (N,d) from 0 to bins - 1, of equal width for each column."""
    low, high = codes.min(0), codes.max(0)
    width = np.where(high > low, high - low, 1.0)
    edges = low + width * np.linspace(0, 1, bins + 1)[1:-1, None]  # (bins-1,d), as numpy.histogram places them
    columns = [np.searchsorted(edges[:, j], codes[:, j], side="right") for j in range(codes.shape[1])]
    return np.stack(columns, 1).astype(np.int64)


def mutual_information(a: Counts, b: Counts) -> Array:
    """I (d,K) in nats between each column of a (N,d) and each of b (N,K), both of non-negative integers."""
    n = len(a)
    information = np.empty((a.shape[1], b.shape[1]))
    for j, k in np.ndindex(information.shape):
        rows, columns = int(a[:, j].max()) + 1, int(b[:, k].max()) + 1
        joint = np.bincount(a[:, j] * columns + b[:, k], minlength=rows * columns).reshape(rows, columns) / n
        independent = np.outer(joint.sum(1), joint.sum(0))
        positive = joint > 0
        information[j, k] = (joint[positive] * np.log(joint[positive] / independent[positive])).sum()
    return information.clip(0)


def entropies(factors: Counts) -> Array:
    """Entropy in nats of each column of factors (N,K)."""
    return np.array([entropy(np.bincount(column) / len(factors)) for column in factors.T])


# ---- disentanglement, completeness, informativeness ----------------------------------------------------------------


def dci(
    codes: Tensor | ArrayLike, factors: Tensor | ArrayLike, *, train: int = 2000, test: int = 1000, seed: int = 0
) -> Dci:
    """Disentanglement, completeness and informativeness of codes (N,d) and factors (N,K).

    The classifiers are those of the published tables, gradient-boosted trees with scikit-learn's defaults (100 of depth
    3 and rate 0.1 for each class), on a random part of the table; the published tables train them on 10,000 points and
    test them on 5,000. Ten codes of five factors take 10 to 20 s of processor time. Versions of limner before used 20
    trees of rate 0.3, which gave values up to 0.07 higher (0.719 instead of 0.665 for codes with noise).

    Args:
        codes: one row for each image.
        factors: integers from 0.
        train: number of points that the classifiers are trained on; fewer if there are not enough.
        test: number of points that they are tested on.
        seed: seed of the choice of points and of the trees.

    Raises:
        LimnerError: the table has a wrong shape or values that cannot be scored.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    z, v = _table(codes, factors)
    train_ids, test_ids = _split(len(z), train, test, seed)
    importances, right, chance = [], [], []
    for column in v.T:
        if len(np.unique(column[train_ids])) < 2:
            raise LimnerError("a factor has only one value among the training points; give more images")
        trees = GradientBoostingClassifier(
            n_estimators=_TREES, learning_rate=_RATE, max_depth=_DEPTH, random_state=seed
        ).fit(z[train_ids], column[train_ids])
        importances.append(trees.feature_importances_.clip(0))  # rounding can make them slightly negative
        right.append(float(trees.score(z[test_ids], column[test_ids])))
        chance.append(float(np.bincount(column).max()) / len(column))
    R = np.stack(importances, 1)
    return Dci(*dci_from_importances(R), float(np.mean(right)), float(np.mean(chance)), R)


def dci_from_importances(importances: ArrayLike) -> tuple[float, float]:
    """D and C from non-negative importances R (d,K).

    >>> [round(s, 6) for s in dci_from_importances([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])]
    [1.0, 1.0]

    Raises:
        LimnerError: R is no table of finite numbers from 0.
    """
    R = np.asarray(importances, dtype=np.float64)
    if R.ndim != 2 or min(R.shape) < 1 or not (np.isfinite(R).all() and (R >= 0).all()):
        raise LimnerError(f"importances must be a table (codes,factors) of finite numbers from 0, got {R.shape}")
    return _concentration(R), _concentration(R.T)


def _concentration(R: Array) -> float:
    """Mean over rows of 1 - entropy, relative to the largest possible entropy, weighted by the sums of the rows."""
    total = R.sum()
    if total == 0 or R.shape[1] < 2:
        return 0.0 if total == 0 else 1.0
    usage = R.sum(1)
    p = R[usage > 0] / usage[usage > 0, None]
    relative = -(p * np.log(np.where(p > 0, p, 1.0))).sum(1) / np.log(R.shape[1])
    return float((usage[usage > 0] / total * (1 - relative)).sum())


# ---- separated attribute predictability ----------------------------------------------------------------------------


def sap(
    codes: Tensor | ArrayLike,
    factors: Tensor | ArrayLike,
    *,
    continuous: Sequence[bool] | None = None,
    train: int = 2000,
    test: int = 1000,
    seed: int = 0,
) -> float:
    """Separated attribute predictability of codes (N,d) and factors (N,K): the mean gap between the two best codes.

    Args:
        codes: one row for each image.
        factors: integers from 0.
        continuous: which factors are quantities. Their score is R² of a linear regression over the whole table. The
            others are classes, and their score is the accuracy of a linear support-vector machine (C = 0.01, balanced
            classes) on points it was not trained on. By default all are classes, as in the published tables.
        train: number of points that the machines are trained on; fewer if there are not enough.
        test: number of points that they are tested on.
        seed: seed of the choice of points.

    Raises:
        LimnerError: the table has a wrong shape or values that cannot be scored.
    """
    z, v = _table(codes, factors)
    kinds = [False] * v.shape[1] if continuous is None else list(continuous)
    if len(kinds) != v.shape[1]:
        raise LimnerError(f"continuous has {len(kinds)} values and there are {v.shape[1]} factors; give one for each")
    scores = _single_scores(z, v, kinds, *_split(len(z), train, test, seed))
    best = np.sort(scores, axis=0)[::-1]
    return float((best[0] - (best[1] if len(best) > 1 else 0.0)).mean())


def _single_scores(z: Array, v: Counts, continuous: list[bool], train_ids: Counts, test_ids: Counts) -> Array:
    """How well each dimension alone predicts each factor, (d,K)."""
    from sklearn.svm import LinearSVC

    scores = np.zeros((z.shape[1], v.shape[1]))
    for j, k in np.ndindex(scores.shape):
        x, y = z[:, j], v[:, k]
        if continuous[k]:
            variances = x.var() * y.var()
            covariance = float(((x - x.mean()) * (y - y.mean())).mean())
            scores[j, k] = covariance**2 / variances if x.var() > 1e-12 and variances > 0 else 0.0
        else:
            svm = LinearSVC(C=0.01, class_weight="balanced").fit(x[train_ids, None], y[train_ids])
            scores[j, k] = float((svm.predict(x[test_ids, None]) == y[test_ids]).mean())
    return scores


# ---- FactorVAE -----------------------------------------------------------------------------------------------------


def factor_vae(
    codes: Tensor | ArrayLike,
    factors: Tensor | ArrayLike,
    *,
    batch: int = 64,
    train: int = 10_000,
    test: int = 5000,
    prune: float = 0.05,
    seed: int = 0,
) -> FactorVae:
    """Kim and Mnih's score of codes (N,d) and factors (N,K).

    A vote is a factor k and the dimension of least relative variance among `batch` codes that share one value of k.
    The majority of votes assigns a factor to each dimension, and new votes test this assignment. Batches are drawn
    from the table with replacement, so the function works for an encoder's codes and for the noise of a decoder.

    Args:
        codes: one row for each image.
        factors: integers from 0; all combinations of values should be about equally frequent.
        batch: number of codes in one vote.
        train: number of votes that assign factors to dimensions.
        test: number of votes that test the assignment.
        prune: dimensions whose standard deviation is below this share of the largest are left out: they hardly vary,
            and a ratio of two such variances has no meaning. (Kim and Mnih prune too; the published code has a
            threshold of 0 and counts the pruned ones wrongly.)
        seed: seed of the votes.

    Raises:
        LimnerError: the table has a wrong shape or values that cannot be scored.
    """
    z, v = _table(codes, factors)
    if batch < 2 or train < 1 or test < 1:
        raise LimnerError(f"votes need batch >= 2 and at least one vote each, got {batch}, {train} and {test}")
    std = z.std(0, ddof=1)
    active = std > prune * std.max()
    if not active.any():
        return FactorVae(1 / v.shape[1], 1 / v.shape[1], 0)
    rng = np.random.default_rng(seed)
    relative = z[:, active] / std[active]
    votes = np.zeros((int(active.sum()), v.shape[1]), dtype=np.int64)
    np.add.at(votes, _votes(relative, v, batch, train, rng), 1)
    factor_of_code = votes.argmax(1)
    least, k = _votes(relative, v, batch, test, rng)
    return FactorVae(float((factor_of_code[least] == k).mean()), 1 / v.shape[1], int(active.sum()))


def _votes(z: Array, v: Counts, batch: int, n: int, rng: np.random.Generator) -> tuple[Counts, Counts]:
    """`n` votes: the dimension of least variance, and the factor that was fixed, (n,) each."""
    k = rng.integers(0, v.shape[1], n)
    least = np.empty(n, dtype=np.int64)
    for factor in range(v.shape[1]):
        order = np.argsort(v[:, factor], kind="stable")
        counts = np.bincount(v[:, factor])
        first, values = np.cumsum(counts) - counts, np.flatnonzero(counts)
        votes = np.flatnonzero(k == factor)
        value = values[rng.integers(0, len(values), len(votes))]
        n_parts = len(votes) * batch * z.shape[1] // 2_000_000 + 1
        for part in np.array_split(np.arange(len(votes)), n_parts):
            offsets = (rng.random((len(part), batch)) * counts[value[part], None]).astype(np.int64)
            codes = z[order[first[value[part], None] + offsets]]  # (votes,batch,d)
            least[votes[part]] = codes.var(1, ddof=1).argmin(1)
    return least, k


# ---- tables and splits ---------------------------------------------------------------------------------------------


def _table(codes: Tensor | ArrayLike, factors: Tensor | ArrayLike) -> tuple[Array, Counts]:
    """Codes (N,d) float64 and factors (N,K) int64, checked."""
    if isinstance(codes, Tensor):
        codes = codes.detach().cpu().double().numpy()
    if isinstance(factors, Tensor):
        factors = factors.detach().cpu().numpy()
    z, v = np.asarray(codes, dtype=np.float64), np.asarray(factors)
    z = z.reshape(len(z), -1) if z.ndim > 2 else z
    if z.ndim != 2 or v.ndim != 2 or len(z) != len(v) or not z.shape[1] or not v.shape[1]:
        raise LimnerError(f"codes {z.shape} and factors {v.shape} do not fit; give (N,d) and (N,K) of the same images")
    if v.dtype.kind not in "iu" or v.min(initial=0) < 0:
        raise LimnerError(f"factors must be integers from 0, got {v.dtype}; number the values of continuous ones")
    if len(z) < _MIN_POINTS:
        raise LimnerError(f"disentanglement needs at least {_MIN_POINTS} images, there are {len(z)}; 10000 are usual")
    if not np.isfinite(z).all():
        raise LimnerError("some codes are not finite; check the images and the encoder")
    constant = [k for k in range(v.shape[1]) if (v[:, k] == v[0, k]).all()]
    if constant:
        raise LimnerError(f"factor {constant[0]} has the same value in all images; leave it out")
    return z, v.astype(np.int64)


def _split(n: int, train: int, test: int, seed: int) -> tuple[Counts, Counts]:
    """Random indices of training and of test points, in the ratio of `train` to `test` where there are too few."""
    if train < 1 or test < 1:
        raise LimnerError(f"train and test must be at least 1, got {train} and {test}")
    train, test = (train, test) if train + test <= n else (n * train // (train + test), n * test // (train + test))
    order = np.random.default_rng(seed).permutation(n)
    return order[:train], order[train : train + test]
