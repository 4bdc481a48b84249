"""How diverse samples are, without known modes: different bins, Vendi score, birthday test, Inception-style score.

NDB, the number of statistically different bins (Richardson and Weiss 2018, arXiv:1805.12462): k-means divides the
training images into bins; a bin is different when the shares of training and of generated images in it differ by the
z-test of two proportions, alpha = 0.05. For equal distributions about 0.05 of the bins are different. The
Jensen-Shannon divergence of the two histograms, in nats, is given too.

Vendi score (Friedman and Dieng 2022, arXiv:2210.02410): the exponential of the entropy of the eigenvalues of
X Xᵀ/n, where rows of X have length 1. It is 1 for n equal images, n for n orthogonal ones, and at most d.

Birthday test (Arora and Zhang 2017, arXiv:1706.08224): in a batch of s from S equally likely images, two are the same
with probability one half at s = 1.177 √S. If half of the batches of s contain a duplicate, most samples are among
about s² images.

Inception-style score (Salimans et al. 2016, arXiv:1606.03498): exp E KL(p(y|x) || p(y)) over all images, with any
classifier. Scores of different classifiers cannot be compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.special import xlogy

from limner.core.errors import LimnerError
from limner.metrics.neighbours import Z95, nearest, within
from limner.metrics.sets import Array, Features, checked, subsample

_BIN_IMAGES = 20_000  # training images that bins are fitted to; more change them little
_MAX_PAIRS = 500_000  # of duplicates
_ORDERS = 400  # random orders, each of which gives one first duplicate


@dataclass(frozen=True)
class NDB:
    """Bins in which two sets differ.

    Attributes:
        share: share of the bins that are different (NDB/K): about 0.05 for equal distributions.
        js: Jensen-Shannon divergence of the histograms, in nats, from 0 to ln 2.
        js_floor: expected divergence for equal distributions with as many images, to first order.
        train: (K,) share of training images in each bin.
        fake: (K,) share of generated images in each bin.
        z: (K,) difference of the two shares, in standard errors.
        centres: (K,d) centres of the bins.
    """

    share: float
    js: float
    js_floor: float
    train: Array = field(repr=False, compare=False)
    fake: Array = field(repr=False, compare=False)
    z: Array = field(repr=False, compare=False)
    centres: Array = field(repr=False, compare=False)


def ndb(train: Features, *, fake: Features, k: int = 100, seed: int = 0) -> NDB:
    """Divides training images into k bins and counts generated images in them.

    Args:
        train: features (N,d); bins are fitted to at most 20,000 of them, evenly spaced.
        fake: features (M,d) of the same extractor.
        k: number of bins.
        seed: seed of k-means.

    Raises:
        LimnerError: there are fewer than 10 training images for each bin, or fewer generated ones than bins;
            dimensions differ, or a feature is not finite.
    """
    from sklearn.cluster import KMeans  # its import takes a second, which a training need not wait for

    train, fake = checked(train=train, fake=fake)
    if k < 2:
        raise LimnerError(f"k must be at least 2 bins, got k={k}")
    if len(train) < 10 * k or len(fake) < k:
        raise LimnerError(
            f"{k} bins need {10 * k} training and {k} generated images, there are {len(train)} and {len(fake)};"
            " give more, or lower k"
        )
    kmeans = KMeans(k, n_init=1, max_iter=50, random_state=seed)
    centres = kmeans.fit(subsample(train, _BIN_IMAGES)).cluster_centers_
    p, q = (np.bincount(nearest(x, centres, 1)[1][:, 0], minlength=k) / len(x) for x in (train, fake))
    size = 1 / len(train) + 1 / len(fake)
    pooled = (p * len(train) + q * len(fake)) / (len(train) + len(fake))
    error = np.sqrt(pooled * (1 - pooled) * size)
    z = np.divide(q - p, error, out=np.zeros(k), where=error > 0)
    js = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    return NDB(float((np.abs(z) > Z95).mean()), max(js, 0.0), (k - 1) / 8 * size, p, q, z, centres)


def vendi(x: Features) -> float:
    """Vendi score, the effective number of different images; features (N,d).

    >>> round(vendi([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 0.1]]), 12)
    2.0

    Raises:
        LimnerError: all features of an image are 0, so they have no direction; or a feature is not finite.
    """
    (x,) = checked(1, given=x)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if not length.all():
        raise LimnerError(f"all features of {int((length == 0).sum())} images are 0; leave these images out")
    rows: Array = x / length
    gram = rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T
    return math.exp(entropy(np.linalg.eigvalsh(gram / len(rows)).clip(0)))


@dataclass(frozen=True)
class Birthday:
    """Result of a search for duplicates among samples.

    Attributes:
        batch: s, the smallest batch that contains a duplicate half of the time; None without duplicates.
        support: s², the order of magnitude of the number of images; None without duplicates.
        at_least: lower bound of S at 95 %, if the S images are equally likely.
        pairs: number of pairs of duplicates.
        n: number of samples.
        threshold: distance of features up to which two images count as the same.
        examples: (E,2) indices of the closest pairs, to look at: images with close features may still differ.
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
            f"half of the batches of {self.batch} have a duplicate: most samples are among about {self.support} images"
        )


def birthday(x: Features, threshold: float, *, seed: int = 0) -> Birthday:
    """Searches samples for duplicates.

    The batch is the median position of the first duplicate over 400 random orders of the samples. Its relative error
    is about 1/(2 √pairs).

    Args:
        x: features (N,d) of samples. If they have more than half a million pairs, only the first part is used.
        threshold: largest distance of two duplicates, for example from `duplicate_threshold`.
        seed: seed of the orders.

    Raises:
        LimnerError: the threshold is negative; there are fewer than 2 images, or a feature is not finite.
    """
    (x,) = checked(fake=x)
    if not threshold >= 0:
        raise LimnerError(f"threshold must be a distance of 0 or more, got {threshold}")
    pairs, distances = _close(x, threshold)
    while len(pairs) > _MAX_PAIRS:
        x = x[: len(x) // 2]
        pairs, distances = _close(x, threshold)
    n, n_pairs = len(x), len(pairs)
    batch = support = None
    if n_pairs:
        rng, first = np.random.default_rng(seed), []
        for _ in range(_ORDERS):
            positions = rng.permutation(n)
            first.append(int(positions[pairs].max(1).min()) + 1)
        batch = int(np.median(first))
        support = batch**2
    examples = pairs[np.argsort(distances, kind="stable")[:16]]
    at_least = int(n * (n - 1) / 2 / _poisson_upper(n_pairs))  # pairs are nearly Poisson with mean n(n-1)/2S
    return Birthday(batch, support, at_least, n_pairs, n, float(threshold), examples)


def duplicate_threshold(real: Features, labels: Tensor | None = None, quantile: float = 0.001) -> float:
    """Distance below which two samples count as the same: a low quantile of nearest-neighbour distances of real images.

    Args:
        real: features (N,d).
        labels: (N,) classes; nearest neighbours are then of the same class.
        quantile: share of real images whose nearest neighbour is at most so far away.

    Raises:
        LimnerError: a class has fewer than 2 images.
    """
    (real,) = checked(real=real)
    kinds = np.zeros(len(real), dtype=int) if labels is None else labels.cpu().numpy()
    if len(kinds) != len(real):
        raise LimnerError(f"there are {len(real)} images and {len(kinds)} labels; give one for each")
    parts = [real[kinds == kind] for kind in np.unique(kinds)]
    if min(map(len, parts)) < 2:
        raise LimnerError("a class has a single image, which has no neighbour; leave this class out")
    distances = np.concatenate([nearest(part, part, 1, same=True)[0][:, 0] for part in parts])
    return float(np.quantile(distances, quantile))


def inception_style_score(logits: Tensor | Features) -> float:
    """From class logits (N,K): 1 if all images have equal logits, K if all are certain and classes equally frequent.

    >>> round(inception_style_score(1e4 * torch.eye(10)), 9)
    10.0

    Raises:
        LimnerError: a logit is not finite, or the shape is not (N,K).
    """
    (values,) = checked(1, classified=logits)
    log_p = torch.from_numpy(values).log_softmax(1)
    p = log_p.exp()
    marginal = p.mean(0)
    return math.exp(max(float((p * log_p).sum(1).mean() - xlogy(marginal, marginal).sum()), 0.0))


def _close(x: Array, threshold: float) -> tuple[NDArray[np.int64], Array]:
    """Pairs (P,2) within the threshold and their distances; stops after `_MAX_PAIRS`."""
    parts, n_pairs = [], 0
    for part in within(x, threshold):
        parts.append(part)
        n_pairs += len(part[0])
        if n_pairs > _MAX_PAIRS:
            break
    return np.concatenate([pairs for pairs, _ in parts]), np.concatenate([distances for _, distances in parts])


def _poisson_upper(count: int) -> float:
    """Upper end of a one-sided interval of 95 % of a Poisson mean (Wilson and Hilferty 1931), within 1 %."""
    n = count + 1
    return n * (1 - 1 / (9 * n) + 1.6449 / (3 * math.sqrt(n))) ** 3


def entropy(p: Array) -> float:
    """Entropy in nats of probabilities (K,).

    >>> round(entropy(np.array([0.5, 0.5, 0.0])), 4)
    0.6931
    """
    positive = p[p > 0]
    return float(-(positive * np.log(positive)).sum())
