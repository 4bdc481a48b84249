"""How much of the data samples cover, without knowing its modes: bins, Vendi score, birthdays, classes.

NDB, the number of statistically different bins (Richardson and Weiss 2018, arXiv:1805.12462): k-means cuts the training
images into bins; a bin is different when the shares of training and of generated images in it differ by the z-test of
two proportions, alpha = 0.05. Of equal distributions about 0.05 of the bins are. Beside it the Jensen-Shannon
divergence of the two histograms, in nats.

Vendi score (Friedman and Dieng 2022, arXiv:2210.02410): the exponential of the entropy of the eigenvalues of
X Xᵀ/n, rows of X of length 1. n images that are all alike give 1, n at right angles n. It is at most d.

Birthday test (Arora and Zhang 2017, arXiv:1706.08224): in a batch of s from S images that are equally likely, two are
the same with probability one half at s = 1.177 √S. So if half of the batches of s hold a duplicate, most of the samples
are among about s² images.

Inception-style score (Salimans et al. 2016, arXiv:1606.03498): exp E KL(p(y|x) || p(y)), over all images at once, with
whatever classifier: only scores of one classifier compare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor
from torch.special import xlogy

from limner.core.errors import LimnerError
from limner.metrics.neighbours import Z95, nearest, within
from limner.metrics.sets import Array, Features, checked

_FITTED = 20_000  # training images that bins are fitted to: more move them little
_PAIRS = 500_000  # of duplicates that are looked at
_ORDERS = 400  # of a pool, each of which gives one first duplicate


@dataclass(frozen=True)
class NDB:
    """Bins in which two sets differ.

    Attributes:
        share: of the bins, those that are different (NDB/K): about 0.05 for equal distributions.
        js: Jensen-Shannon divergence of the histograms, in nats, from 0 to ln 2.
        js_floor: what it would be for equal distributions with so many images, to first order.
        train: (K,) share of training images in each bin.
        fake: (K,) share of generated images.
        z: (K,) by how many standard errors fake exceeds train.
        centres: (K,d) of the bins.
    """

    share: float
    js: float
    js_floor: float
    train: Array = field(repr=False, compare=False)
    fake: Array = field(repr=False, compare=False)
    z: Array = field(repr=False, compare=False)
    centres: Array = field(repr=False, compare=False)


def ndb(train: Features, *, fake: Features, k: int = 100, seed: int = 0) -> NDB:
    """Cuts training images into k bins and counts generated ones.

    Args:
        train: features (N,d), which make the bins; of more than 20,000, so many spread evenly.
        fake: features (M,d) of the same extractor.
        k: bins.
        seed: of k-means.

    Raises:
        LimnerError: there are fewer than 10 training images for each bin, or fewer generated ones than bins;
            dimensions differ, or a feature is not finite.
    """
    train, fake = checked(train=train, fake=fake)
    if k < 2:
        raise LimnerError(f"two bins are the least, got k={k}")
    if len(train) < 10 * k or len(fake) < k:
        raise LimnerError(
            f"{k} bins need {10 * k} training and {k} generated images, there are {len(train)} and {len(fake)};"
            " give more, or lower k"
        )
    fitted = train[np.linspace(0, len(train) - 1, min(len(train), _FITTED)).astype(int)]
    centres = KMeans(k, n_init=1, max_iter=50, random_state=seed).fit(fitted).cluster_centers_
    p, q = (np.bincount(nearest(x, centres, 1)[1][:, 0], minlength=k) / len(x) for x in (train, fake))
    size = 1 / len(train) + 1 / len(fake)
    pooled = (p * len(train) + q * len(fake)) / (len(train) + len(fake))
    error = np.sqrt(pooled * (1 - pooled) * size)
    z = np.divide(q - p, error, out=np.zeros(k), where=error > 0)
    js = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return NDB(float((np.abs(z) > Z95).mean()), max(js, 0.0), (k - 1) / 8 * size, p, q, z, centres)


def vendi(x: Features) -> float:
    """How many different images there are, as the Vendi score counts them; features (N,d).

    >>> round(vendi([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 0.1]]), 12)
    2.0

    Raises:
        LimnerError: an image has only zeros as features, which have no direction; or a feature is not finite.
    """
    (x,) = checked(1, given=x)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if not length.all():
        raise LimnerError(
            f"{int((length == 0).sum())} images have only zeros as features, which have no direction; leave them out"
        )
    rows: Array = x / length
    gram = rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T
    return math.exp(_entropy(np.linalg.eigvalsh(gram / len(rows)).clip(0)))


@dataclass(frozen=True)
class Birthday:
    """What a search for duplicates among samples found.

    Attributes:
        batch: s, the smallest batch with a duplicate half of the time; None when none was found.
        support: s², of the order of the images that most samples are among; None when none was found.
        at_least: lower bound of S at 95 %, were S images equally likely.
        pairs: duplicates in the pool.
        n: images in the pool.
        threshold: distance of features up to which two images count as the same.
        examples: (E,2) indices of the closest pairs, to be looked at: close features need not be the same image.
    """

    batch: int | None
    support: int | None
    at_least: int
    pairs: int
    n: int
    threshold: float
    examples: NDArray[np.int64] = field(repr=False, compare=False)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.batch is None or self.support is None:
            return f"no duplicates among {self.n} samples: more than {self.at_least} images, if equally likely"
        return (
            f"half of the batches of {self.batch} hold a duplicate: most samples are among about {self.support} images"
        )


def birthday(x: Features, threshold: float, *, seed: int = 0) -> Birthday:
    """Searches samples for duplicates.

    The batch is the median position of the first duplicate when the samples are put in 400 random orders. With few
    pairs it is rough: its relative error is about 1/(2 √pairs).

    Args:
        x: features (N,d) of samples. If they hold more than half a million pairs, only the first part is used.
        threshold: largest distance of two duplicates, such as `duplicate_threshold` gives.
        seed: of the orders.

    Raises:
        LimnerError: the threshold is negative; there are fewer than 2 images, or a feature is not finite.
    """
    (x,) = checked(fake=x)
    if not threshold >= 0:
        raise LimnerError(f"two images are the same up to a distance of 0 or more, got threshold={threshold}")
    pairs, apart = _close(x, threshold)
    while len(pairs) > _PAIRS:
        x = x[: len(x) // 2]
        pairs, apart = _close(x, threshold)
    n, found = len(x), len(pairs)
    batch = support = None
    if found:
        chance, first = np.random.default_rng(seed), []
        for _ in range(_ORDERS):
            place = chance.permutation(n)
            first.append(int(place[pairs].max(1).min()) + 1)
        batch = int(np.median(first))
        support = batch**2
    examples = pairs[np.argsort(apart, kind="stable")[:16]]
    at_least = int(n * (n - 1) / 2 / _most(found))  # pairs are nearly Poisson with mean n(n-1)/2S
    return Birthday(batch, support, at_least, found, n, float(threshold), examples)


def duplicate_threshold(real: Features, labels: Tensor | None = None, quantile: float = 0.001) -> float:
    """Distance below which two samples count as the same: a low quantile of how near real images come to each other.

    Args:
        real: features (N,d).
        labels: (N,) classes; nearest neighbours are then of the same class.
        quantile: share of real images with a neighbour so near.

    Raises:
        LimnerError: a class has fewer than 2 images.
    """
    (real,) = checked(real=real)
    kinds = np.zeros(len(real), dtype=int) if labels is None else labels.cpu().numpy()
    if len(kinds) != len(real):
        raise LimnerError(f"there are {len(real)} images and {len(kinds)} labels; give one for each")
    parts = [real[kinds == kind] for kind in np.unique(kinds)]
    if min(map(len, parts)) < 2:
        raise LimnerError("a class has a single image, which has no neighbour; leave it out")
    apart = np.concatenate([nearest(part, part, 1, same=True)[0][:, 0] for part in parts])
    return float(np.quantile(apart, quantile))


def inception_style_score(logits: Tensor | Features) -> float:
    """From class logits (N,K): 1 where all images are alike, K where each is certain and all classes are even.

    >>> round(inception_style_score(1e4 * torch.eye(10)), 9)
    10.0

    Raises:
        LimnerError: a logit is not finite, or these are no logits (N,K).
    """
    (values,) = checked(1, classified=logits)
    log_p = torch.from_numpy(values).log_softmax(1)
    p = log_p.exp()
    marginal = p.mean(0)
    return math.exp(max(float((p * log_p).sum(1).mean() - xlogy(marginal, marginal).sum()), 0.0))


def _close(x: Array, threshold: float) -> tuple[NDArray[np.int64], Array]:
    """Pairs (P,2) within the threshold and their distances; stops once there are too many."""
    parts, found = [], 0
    for part in within(x, threshold):
        parts.append(part)
        found += len(part[0])
        if found > _PAIRS:
            break
    return np.concatenate([pairs for pairs, _ in parts]), np.concatenate([apart for _, apart in parts])


def _most(found: int) -> float:
    """Upper end of a one-sided interval of 95 % of a Poisson mean (Wilson and Hilferty 1931), within 1 %."""
    n = found + 1
    return n * (1 - 1 / (9 * n) + 1.6449 / (3 * math.sqrt(n))) ** 3


def _entropy(p: Array) -> float:
    """In nats."""
    some = p[p > 0]
    return float(-(some * np.log(some)).sum())
