"""Whether samples are copies of training images.

C_T (Meehan, Chaudhuri and Dasgupta 2020, arXiv:2004.05675): in each of three cells of k-means, the distances of
generated images to their nearest training image are ranked among those of held-out images. With m generated and n
held-out images,

    Z = (U - (nm/2 - ½)) / √(nm(n+m+1)/12),    U the pairs in which the generated image is farther away (ties: half)

and C_T is the mean of Z over cells, weighted by their share of held-out images. If it is far below 0, samples are
closer to the training set than new images are, which means copying. If it is far above 0, they are farther away, which
means underfitting.

AuthPct (Alaa et al. 2022, arXiv:2102.08921): percentage of generated images that are farther from their nearest
training image than that image is from its own nearest. New images of the same distribution give no fixed number: 39 %
in two dimensions, 69 % in 16, 82 % in 64. Only the difference from held-out images has a meaning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from limner.core.errors import LimnerError
from limner.metrics.neighbours import nearest as nearest_of
from limner.metrics.sets import Array, Features, checked, subsample

CT_COPIES, CT_UNDERFITS, AUTHPCT_COPIES = -3.0, 3.0, -15.0
"""C_T below and above which samples copy and underfit; points of AuthPct below held-out images at which they copy."""
_CELLS, _DIMS, _MIN_IMAGES = 3, 64, 20
_QUANTILE = 0.01  # of held-out images
_THRESHOLD_IMAGES = 2000  # training images from which the threshold of duplicates is computed


@dataclass(frozen=True)
class Cell:
    """A cell of k-means.

    Attributes:
        train: number of training images.
        test: number of held-out images.
        fake: number of generated images.
        z: Z of the cell; None if it has too few generated images, or no training or held-out images.
    """

    train: int
    test: int
    fake: int
    z: float | None


@dataclass(frozen=True)
class CT:
    """C_T of generated images.

    Attributes:
        value: mean Z; below -3 means copying, far above 0 underfitting.
        cells: the cells.
    """

    value: float
    cells: tuple[Cell, ...]


def c_t(*, train: Features, test: Features, fake: Features, seed: int = 0) -> CT:
    """C_T in three cells of at most 64 principal components of the training images.

    Args:
        train: features (L,d) of the images the model was trained on.
        test: features (N,d) of held-out images.
        fake: features (M,d) of generated images; cells with fewer than 20 of them do not count.
        seed: seed of k-means.

    Raises:
        LimnerError: no cell has 20 generated, one held-out and one training image; dimensions differ, or a feature
            is not finite.
    """
    from sklearn.cluster import KMeans  # its import takes a second, which a training need not wait for

    train, test, fake = checked(_CELLS, train=train, test=test, fake=fake)
    sets = [train, test, fake]
    if train.shape[1] > _DIMS:
        mean = train.mean(0)
        axes = np.linalg.eigh(np.cov(train, rowvar=False))[1][:, -_DIMS:]
        sets = [(x - mean) @ axes for x in sets]
    kmeans = KMeans(_CELLS, n_init=10, random_state=seed).fit(sets[0])
    cell_ids = [kmeans.predict(x) for x in sets]
    cells = []
    for i in range(_CELLS):
        a, b, c = (x[ids == i] for x, ids in zip(sets, cell_ids))
        z = None
        if len(a) and len(b) and len(c) >= _MIN_IMAGES:
            z = rank_z(nearest_of(c, a, 1)[0][:, 0], nearest_of(b, a, 1)[0][:, 0])
        cells.append(Cell(len(a), len(b), len(c), z))
    weight = sum(cell.test for cell in cells if cell.z is not None)
    if not weight:
        raise LimnerError(
            f"C_T needs {_MIN_IMAGES} generated images and a held-out one in the same of 3 cells; give more images"
        )
    return CT(sum(cell.test * cell.z for cell in cells if cell.z is not None) / weight, tuple(cells))


def rank_z(x: Array, y: Array) -> float:
    """Z of Mann and Whitney's U: by how many standard errors values x (m,) exceed values y (n,), with C_T's ½.

    >>> round(rank_z(np.array([1.0, 2.0]), np.array([3.0, 4.0])), 4)
    -1.1619
    """
    y = np.sort(y)
    u = (np.searchsorted(y, x, "left") + np.searchsorted(y, x, "right")).sum() / 2
    n, m = len(y), len(x)
    return float((u - (n * m / 2 - 0.5)) / math.sqrt(n * m * (n + m + 1) / 12))


def authpct(*, train: Features, fake: Features) -> float:
    """AuthPct in per cent, 0 for a set of copies; compare it with that of held-out images.

    >>> authpct(train=[[0.0], [1.0]], fake=[[-0.5], [3.0]])
    50.0

    Args:
        train: features (L,d) of training images.
        fake: features (M,d) of generated images, or of held-out ones.
    """
    train, fake = checked(train=train, fake=fake)
    distances, indices = nearest_of(fake, train, 1)
    return _authentic(train, distances[:, 0], indices[:, 0])


def _authentic(train: Array, distances: Array, indices: NDArray[np.int64]) -> float:
    neighbours, positions = np.unique(indices, return_inverse=True)
    # The first neighbour of a training image is the image itself or a duplicate of it, so the second one counts.
    own_distances = nearest_of(train[neighbours], train, 2)[0][:, 1]
    return float(100 * (distances > own_distances[positions]).mean())


@dataclass(frozen=True)
class Nearest:
    """The training images that are nearest to generated ones.

    Attributes:
        distances: (M,k), the smallest first.
        indices: (M,k) indices of training images.
    """

    distances: Array = field(repr=False)
    indices: NDArray[np.int64] = field(repr=False)


def nearest(*, train: Features, fake: Features, k: int = 5) -> Nearest:
    """The k training images nearest to each generated one.

    Raises:
        LimnerError: there are fewer than k training images, dimensions differ, or a feature is not finite.
    """
    train, fake = checked(1, train=train, fake=fake)
    return Nearest(*nearest_of(fake, train, k))


@dataclass(frozen=True)
class Duplicates:
    """Generated images that are at most a threshold away from a training image.

    Attributes:
        share: share of the generated images.
        threshold: the largest distance.
        fakes: (D,) indices of generated images, the closest first.
        trains: (D,) indices of their nearest training images.
        distances: (D,) distances between the two.
    """

    share: float
    threshold: float
    fakes: NDArray[np.int64] = field(repr=False, compare=False)
    trains: NDArray[np.int64] = field(repr=False, compare=False)
    distances: Array = field(repr=False, compare=False)


def duplicates(*, train: Features, fake: Features, threshold: float) -> Duplicates:
    """Generated images at most `threshold` from a training image; images with close features may still differ.

    Raises:
        LimnerError: the threshold is negative, dimensions differ, or a feature is not finite.
    """
    if not threshold >= 0:
        raise LimnerError(f"threshold must be a distance of 0 or more, got {threshold}")
    neighbours = nearest(train=train, fake=fake, k=1)
    return _duplicates(neighbours.distances[:, 0], neighbours.indices[:, 0], threshold)


def _duplicates(distances: Array, indices: NDArray[np.int64], threshold: float) -> Duplicates:
    close = np.flatnonzero(distances <= threshold)
    close = close[np.argsort(distances[close], kind="stable")]
    return Duplicates(len(close) / len(distances), float(threshold), close, indices[close], distances[close])


@dataclass(frozen=True)
class Copying:
    """Result of all tests for copying.

    Attributes:
        verdict: "copies", "underfits" or "no sign of copying".
        why: the numbers that the verdict follows from, in a sentence.
        c_t: see `CT`.
        authpct: AuthPct of generated images, in per cent.
        authpct_test: AuthPct of held-out images.
        duplicates: generated images nearer to a training image than all but 0.1 % of training images to each other.
        duplicates_test: share of held-out images that are as near.
        near: share of generated images nearer to a training image than all but 1 % of held-out images.
    """

    verdict: str
    why: str
    c_t: CT
    authpct: float
    authpct_test: float
    duplicates: Duplicates
    duplicates_test: float
    near: float


def copying(*, train: Features, test: Features, fake: Features, seed: int = 0) -> Copying:
    """Whether generated images are closer to the training images than held-out ones are.

    Args:
        train: features (L,d) of all images the model was trained on; copies of images that are left out are not found.
        test: features (N,d) of held-out images.
        fake: features (M,d) of generated images.
        seed: seed of k-means.

    Raises:
        LimnerError: there are too few images, dimensions differ, or a feature is not finite.
    """
    train, test, fake = checked(_MIN_IMAGES, train=train, test=test, fake=fake)
    score = c_t(train=train, test=test, fake=fake, seed=seed)
    distances, indices = nearest_of(fake, train, 1)
    test_distances, test_indices = nearest_of(test, train, 1)
    fake_authpct = _authentic(train, distances[:, 0], indices[:, 0])
    test_authpct = _authentic(train, test_distances[:, 0], test_indices[:, 0])
    neighbours = nearest_of(subsample(train, _THRESHOLD_IMAGES), train, 2)
    threshold = float(np.quantile(neighbours[0][:, 1], 0.001))
    # A low AuthPct alone is no sign of copying: a collapsed model near an isolated training image has a low one too.
    # Therefore some samples must also be nearer than almost all held-out images.
    share_near = float((distances[:, 0] < np.quantile(test_distances[:, 0], _QUANTILE)).mean())
    verdict = "no sign of copying"
    if score.value < CT_COPIES or (fake_authpct - test_authpct < AUTHPCT_COPIES and share_near > 2 * _QUANTILE):
        verdict = "copies"
    elif score.value > CT_UNDERFITS:
        verdict = "underfits"
    why = f"C_T {score.value:.1f}, AuthPct {fake_authpct:.1f} % against {test_authpct:.1f} % of held-out images"
    return Copying(
        verdict,
        why,
        score,
        fake_authpct,
        test_authpct,
        _duplicates(distances[:, 0], indices[:, 0], threshold),
        float((test_distances[:, 0] <= threshold).mean()),
        share_near,
    )
