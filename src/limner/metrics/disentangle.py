"""Disentanglement: whether single numbers of a code stand for single factors of variation that are known.

All scores are of a table of codes (N,d) beside the true factors (N,K) of the same images, in forms that Locatello et
al. 2019 (*Challenging common assumptions in the unsupervised learning of disentangled representations*,
arXiv:1811.12359) compared. With code numbers z_j and factors v_k:

===========  ============================================================================================
MIG          Chen et al. 2018, arXiv:1802.04942, eq. 6: mean over k of (I(z_j1; v_k) - I(z_j2; v_k)) / H(v_k)
             with the two codes that know most about v_k
DCI          Eastwood and Williams 2018: importances R (d,K) of codes in classifiers of the factors;
             D = Σ_j ρ_j (1 - H_K(R_j / Σ R_j)), C the same over columns, I the accuracy of the classifiers
SAP          Kumar et al. 2018, arXiv:1711.00848: mean over k of the gap between the two single codes that
             predict v_k best
FactorVAE    Kim and Mnih 2018, arXiv:1802.05983: from 64 codes that share one factor, the code of least
             relative variance has to give that factor away
===========  ============================================================================================

All lie in [0,1]. What they do not say: without a bias built into model or data, unsupervised disentanglement is
impossible in principle, and between runs of one method the random seed matters more than the method (Locatello et al.,
theorem 1 and section 5.4). Report five seeds or more. FactorVAE's score of codes that know nothing is 1/K, not 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from limner.core.errors import LimnerError

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
_LEAST = 100  # points below which a histogram of 20 bins and a test split say nothing
_TREES, _RATE, _DEPTH = 20, 0.3, 3


@dataclass(frozen=True)
class Dci:
    """The scores of Eastwood and Williams.

    Attributes:
        disentanglement: D, 1 when each code number serves one factor.
        completeness: C, 1 when each factor is served by one code number.
        informativeness: I, accuracy of the classifiers on codes they were not trained on, mean over factors.
        chance: what the accuracy would be of the most frequent values, mean over factors.
        importances: R (d,K); each column sums to 1, or to 0 where the classifier found nothing to split on.
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
        value: accuracy of the majority vote on fresh votes.
        chance: 1/K, what codes that know nothing reach.
        active: code numbers that took part; the others hardly vary.
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
        factor_vae: accuracy of Kim and Mnih's majority vote.
        n: points in the table.
        codes: d.
        factors: K.
        seed: of every random choice.
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
        codes: one row an image; more than two dimensions are flattened.
        factors: integers from 0, known beforehand.
        sizes: how many values each factor takes; it is checked against the factors when given.
        seed: of every random choice.
        continuous: for `sap`.

    Raises:
        LimnerError: the table cannot be judged, with the reason.
    """
    z, v = _table(codes, factors)
    if sizes is not None and (len(sizes) != v.shape[1] or (v.max(0) >= np.asarray(sizes)).any()):
        raise LimnerError(f"factors of the sizes {tuple(sizes)} cannot reach the values {tuple(v.max(0).tolist())}")
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
    """The gap of each factor, (K,), in shares of the factor's entropy.

    Args:
        codes: (N,d); each number is cut into `bins` of equal width between its least and its largest value.
        factors: (N,K) integers. They have to be discrete: the entropy of a continuous one has no meaning here.
        bins: 20 in published tables, at 10,000 points. More bins of few points find information in noise.

    Raises:
        LimnerError: the table cannot be judged, with the reason.
    """
    z, v = _table(codes, factors)
    if bins < 2:
        raise LimnerError(f"a histogram has at least 2 bins, got bins={bins}")
    information = mutual_information(discretised(z, bins), v)  # (d,K)
    best = np.sort(information, axis=0)[::-1]
    second = best[1] if len(best) > 1 else np.zeros_like(best[0])
    return np.asarray((best[0] - second) / entropies(v), dtype=np.float64)


def discretised(codes: Array, bins: int) -> Counts:
    """Bin numbers (N,d) from 0 to bins - 1, of equal width for each column."""
    low, high = codes.min(0), codes.max(0)
    width = np.where(high > low, high - low, 1.0)
    edges = low + width * np.linspace(0, 1, bins + 1)[1:-1, None]  # (bins-1,d), as numpy.histogram places them
    columns = [np.searchsorted(edges[:, j], codes[:, j], side="right") for j in range(codes.shape[1])]
    return np.stack(columns, 1).astype(np.int64)


def mutual_information(a: Counts, b: Counts) -> Array:
    """I (d,K) in nats between each column of a (N,d) and each of b (N,K), non-negative integers both."""
    n = len(a)
    found = np.empty((a.shape[1], b.shape[1]))
    for j, k in np.ndindex(found.shape):
        rows, columns = int(a[:, j].max()) + 1, int(b[:, k].max()) + 1
        joint = np.bincount(a[:, j] * columns + b[:, k], minlength=rows * columns).reshape(rows, columns) / n
        alone = np.outer(joint.sum(1), joint.sum(0))
        seen = joint > 0
        found[j, k] = (joint[seen] * np.log(joint[seen] / alone[seen])).sum()
    return found.clip(0)


def entropies(factors: Counts) -> Array:
    """Entropy in nats of each column of factors (N,K)."""
    shares = [np.bincount(column) / len(factors) for column in factors.T]
    return np.array([-(p[p > 0] * np.log(p[p > 0])).sum() for p in shares])


# ---- disentanglement, completeness, informativeness ----------------------------------------------------------------


def dci(
    codes: Tensor | ArrayLike, factors: Tensor | ArrayLike, *, train: int = 2000, test: int = 1000, seed: int = 0
) -> Dci:
    """Disentanglement, completeness and informativeness of codes (N,d) and factors (N,K).

    The classifiers are gradient-boosted trees, as in the published tables, on a random part of the table. Those took
    100 trees of rate 0.1 a class; 20 of rate 0.3 give the same within 0.04 (measured on ten codes of five factors:
    identity 1.000 and 1.000, with noise 0.867 and 0.854, rotated 0.278 and 0.242) in a fifth of the time. Forests are
    as fast but choose splits at random, which gives every code some importance: 0.655 and 0.790 where boosting finds
    0.854. Histogram boosting has no importances of its own, and permuted ones miss codes that stand in for each other.

    Args:
        codes: one row an image.
        factors: integers from 0.
        train: points that the classifiers learn from; fewer where there are not enough.
        test: points that they are judged on.
        seed: of the choice of points and of the trees.

    Raises:
        LimnerError: the table cannot be judged, with the reason.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    z, v = _table(codes, factors)
    learnt, judged = _split(len(z), train, test, seed)
    importances, right, chance = [], [], []
    for column in v.T:
        if len(np.unique(column[learnt])) < 2:
            raise LimnerError("a factor has one value among the points to learn from; give more points")
        trees = GradientBoostingClassifier(
            n_estimators=_TREES, learning_rate=_RATE, max_depth=_DEPTH, random_state=seed
        ).fit(z[learnt], column[learnt])
        importances.append(trees.feature_importances_.clip(0))  # rounding can leave them a hair below
        right.append(float(trees.score(z[judged], column[judged])))
        chance.append(float(np.bincount(column).max()) / len(column))
    R = np.stack(importances, 1)
    return Dci(*dci_from_importances(R), float(np.mean(right)), float(np.mean(chance)), R)


def dci_from_importances(importances: ArrayLike) -> tuple[float, float]:
    """D and C of importances R (d,K), which are not negative.

    >>> [round(s, 6) for s in dci_from_importances([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])]
    [1.0, 1.0]

    Raises:
        LimnerError: these are no importances.
    """
    R = np.asarray(importances, dtype=np.float64)
    if R.ndim != 2 or min(R.shape) < 1 or not (np.isfinite(R).all() and (R >= 0).all()):
        raise LimnerError(f"importances are a table (codes,factors) of finite numbers from 0, not of shape {R.shape}")
    return _concentration(R), _concentration(R.T)


def _concentration(R: Array) -> float:
    """Mean over rows of 1 - entropy, in units of the most a row can have, weighted by how much a row is used."""
    total = R.sum()
    if total == 0 or R.shape[1] < 2:
        return 0.0 if total == 0 else 1.0
    used = R.sum(1)
    p = R[used > 0] / used[used > 0, None]
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(1) / np.log(R.shape[1])
    return float((used[used > 0] / total * (1 - entropy)).sum())


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
        codes: one row an image.
        factors: integers from 0.
        continuous: which factors are quantities. Their score is R² of a straight line, over the whole table. The others
            are classes; theirs is the accuracy of a linear support-vector machine (C = 0.01, balanced classes) on
            points it was not trained on. All are classes when not given, as in the published tables.
        train: points that the machines learn from; fewer where there are not enough.
        test: points that they are judged on.
        seed: of the choice of points.

    Raises:
        LimnerError: the table cannot be judged, with the reason.
    """
    z, v = _table(codes, factors)
    quantity = [False] * v.shape[1] if continuous is None else list(continuous)
    if len(quantity) != v.shape[1]:
        raise LimnerError(f"continuous names {len(quantity)} factors and there are {v.shape[1]}; name each")
    scores = _single_scores(z, v, quantity, *_split(len(z), train, test, seed))
    best = np.sort(scores, axis=0)[::-1]
    return float((best[0] - (best[1] if len(best) > 1 else 0.0)).mean())


def _single_scores(z: Array, v: Counts, quantity: list[bool], learnt: Counts, judged: Counts) -> Array:
    """How well each code alone gives each factor, (d,K)."""
    from sklearn.svm import LinearSVC

    scores = np.zeros((z.shape[1], v.shape[1]))
    for j, k in np.ndindex(scores.shape):
        x, y = z[:, j], v[:, k]
        if quantity[k]:
            spread = x.var() * y.var()
            shared = float(((x - x.mean()) * (y - y.mean())).mean())
            scores[j, k] = shared**2 / spread if x.var() > 1e-12 and spread > 0 else 0.0
        else:
            machine = LinearSVC(C=0.01, class_weight="balanced").fit(x[learnt, None], y[learnt])
            scores[j, k] = float((machine.predict(x[judged, None]) == y[judged]).mean())
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

    A vote is a factor k and the code number of least relative variance among `batch` codes that share one value of k.
    A majority vote learns which factor each code number stands for, and is judged on fresh votes. Batches are drawn
    from the table with replacement, so the same function judges an encoder's codes and the noise of a decoder.

    Args:
        codes: one row an image.
        factors: integers from 0, each value of each about equally often beside each other's.
        batch: codes in one vote.
        train: votes that the majority is taken of.
        test: votes that it is judged on.
        prune: code numbers whose standard deviation is below this share of the largest take no part: they hardly vary,
            and a ratio of two such variances says nothing. (Kim and Mnih prune by the same idea; the published code
            has a threshold of 0 and counts the pruned ones wrongly.)
        seed: of the votes.

    Raises:
        LimnerError: the table cannot be judged, with the reason.
    """
    z, v = _table(codes, factors)
    if batch < 2 or train < 1 or test < 1:
        raise LimnerError(f"votes need batch >= 2 and at least one vote each, got {batch}, {train} and {test}")
    spread = z.std(0, ddof=1)
    active = spread > prune * spread.max()
    if not active.any():
        return FactorVae(1 / v.shape[1], 1 / v.shape[1], 0)
    chance = np.random.default_rng(seed)
    relative = z[:, active] / spread[active]
    votes = np.zeros((int(active.sum()), v.shape[1]), dtype=np.int64)
    np.add.at(votes, _votes(relative, v, batch, train, chance), 1)
    chosen = votes.argmax(1)  # the factor each code number stands for
    least, k = _votes(relative, v, batch, test, chance)
    return FactorVae(float((chosen[least] == k).mean()), 1 / v.shape[1], int(active.sum()))


def _votes(z: Array, v: Counts, batch: int, n: int, chance: np.random.Generator) -> tuple[Counts, Counts]:
    """`n` votes: the code number of least variance, and the factor that was fixed, (n,) each."""
    k = chance.integers(0, v.shape[1], n)
    least = np.empty(n, dtype=np.int64)
    for factor in range(v.shape[1]):
        order = np.argsort(v[:, factor], kind="stable")
        counts = np.bincount(v[:, factor])
        first, there = np.cumsum(counts) - counts, np.flatnonzero(counts)
        mine = np.flatnonzero(k == factor)
        value = there[chance.integers(0, len(there), len(mine))]
        for some in np.array_split(np.arange(len(mine)), len(mine) * batch * z.shape[1] // 2_000_000 + 1):
            places = (chance.random((len(some), batch)) * counts[value[some], None]).astype(np.int64)
            drawn = z[order[first[value[some], None] + places]]  # (votes,batch,d)
            least[mine[some]] = drawn.var(1, ddof=1).argmin(1)
    return least, k


# ---- what all need -------------------------------------------------------------------------------------------------


def _table(codes: Tensor | ArrayLike, factors: Tensor | ArrayLike) -> tuple[Array, Counts]:
    """Codes (N,d) float64 and factors (N,K) int64, checked."""
    if isinstance(codes, Tensor):
        codes = codes.detach().cpu().double().numpy()
    if isinstance(factors, Tensor):
        factors = factors.detach().cpu().numpy()
    z, v = np.asarray(codes, dtype=np.float64), np.asarray(factors)
    z = z.reshape(len(z), -1) if z.ndim > 2 else z
    if z.ndim != 2 or v.ndim != 2 or len(z) != len(v) or not z.shape[1] or not v.shape[1]:
        raise LimnerError(
            f"codes {z.shape} and factors {v.shape} are no table; give (N,d) and (N,K) of the same images"
        )
    if v.dtype.kind not in "iu" or v.min(initial=0) < 0:
        raise LimnerError(f"factors are integers from 0, these are {v.dtype}; number the values of continuous ones")
    if len(z) < _LEAST:
        raise LimnerError(f"disentanglement needs at least {_LEAST} images, there are {len(z)}; 10000 are usual")
    if not np.isfinite(z).all():
        raise LimnerError("some codes are not finite; look at the images, or at the encoder")
    alone = [k for k in range(v.shape[1]) if (v[:, k] == v[0, k]).all()]
    if alone:
        raise LimnerError(f"factor {alone[0]} has one value in all images, so nothing can stand for it; leave it out")
    return z, v.astype(np.int64)


def _split(n: int, train: int, test: int, seed: int) -> tuple[Counts, Counts]:
    """Places of points to learn from and of others to be judged on, two to one where there are too few."""
    if train < 1 or test < 1:
        raise LimnerError(f"train and test are numbers of points from 1, got {train} and {test}")
    train, test = (train, test) if train + test <= n else (n * train // (train + test), n * test // (train + test))
    order = np.random.default_rng(seed).permutation(n)
    return order[:train], order[train : train + test]
