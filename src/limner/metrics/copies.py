"""Whether samples are copies of training images.

C_T (Meehan, Chaudhuri and Dasgupta 2020, arXiv:2004.05675): in each of three cells of k-means, the distances of
generated images to their nearest training image are ranked among those of held-out images. With m generated and n
held-out ones,

    Z = (U - (nm/2 - ½)) / √(nm(n+m+1)/12),    U the pairs in which the generated image lies farther off (ties: half)

and C_T is the mean of Z over cells, weighted by their share of held-out images. Far below 0 the samples are closer to
the training set than new images can be: copying. Far above 0 they lie farther off: underfitting.

AuthPct (Alaa et al. 2022, arXiv:2102.08921): percentage of generated images that are farther from their nearest
training image than that one is from its own nearest. Fresh images
of the same distribution give no fixed number: 39 % in two dimensions, 69 % in 16, 82 % in 64. Only the difference from
held-out images says something.

Neither takes part in a score of coverage: a copy covers nothing new.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from limner.core.errors import LimnerError
from limner.metrics.neighbours import nearest as nearest_of
from limner.metrics.sets import Array, Features, checked

CT_COPIES, CT_UNDERFITS, AUTHPCT_COPIES = -3.0, 3.0, -15.0
"""C_T below and above which samples copy and underfit; points of AuthPct below held-out images at which they copy."""
_CELLS, _DIMS, _LEAST = 3, 64, 20
_HARDLY = 0.01  # of held-out images
_LOOKED_AT = 2000  # training images that say what is near


@dataclass(frozen=True)
class Cell:
    """A cell of training images.

    Attributes:
        train: training images in it.
        test: held-out images in it.
        fake: generated images in it.
        z: their Z; None when there are too few generated images, or none of another kind.
    """

    train: int
    test: int
    fake: int
    z: float | None


@dataclass(frozen=True)
class CT:
    """C_T of generated images.

    Attributes:
        value: mean Z; below -3 copying, far above 0 underfitting.
        cells: what it is made of.
    """

    value: float
    cells: tuple[Cell, ...]


def c_t(*, train: Features, test: Features, fake: Features, seed: int = 0) -> CT:
    """C_T in three cells of at most 64 principal components of the training images.

    Args:
        train: features (L,d) of the images the model was trained on.
        test: features (N,d) of held-out images.
        fake: features (M,d) of generated images; cells with fewer than 20 of them do not count.
        seed: of k-means.

    Raises:
        LimnerError: no cell has 20 generated, one held-out and one training image; dimensions differ, or a feature
            is not finite.
    """
    train, test, fake = checked(_CELLS, train=train, test=test, fake=fake)
    sets = [train, test, fake]
    if train.shape[1] > _DIMS:
        middle = train.mean(0)
        axes = np.linalg.eigh(np.cov(train, rowvar=False))[1][:, -_DIMS:]
        sets = [(x - middle) @ axes for x in sets]
    means = KMeans(_CELLS, n_init=10, random_state=seed).fit(sets[0])
    where = [means.predict(x) for x in sets]
    cells = []
    for i in range(_CELLS):
        a, b, c = (x[at == i] for x, at in zip(sets, where))
        z = None
        if len(a) and len(b) and len(c) >= _LEAST:
            z = rank_z(nearest_of(c, a, 1)[0][:, 0], nearest_of(b, a, 1)[0][:, 0])
        cells.append(Cell(len(a), len(b), len(c), z))
    weight = sum(cell.test for cell in cells if cell.z is not None)
    if not weight:
        raise LimnerError(f"C_T needs {_LEAST} generated and some held-out images in a cell; none of 3 has; give more")
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
    """AuthPct in per cent, from 0 for a set of copies; compare it with that of held-out images.

    >>> authpct(train=[[0.0], [1.0]], fake=[[-0.5], [3.0]])
    50.0

    Args:
        train: features (L,d) of training images.
        fake: features (M,d) of generated images, or of held-out ones.
    """
    train, fake = checked(train=train, fake=fake)
    apart, who = nearest_of(fake, train, 1)
    return _authentic(train, apart[:, 0], who[:, 0])


def _authentic(train: Array, apart: Array, who: NDArray[np.int64]) -> float:
    hit, place = np.unique(who, return_inverse=True)  # only these need their own neighbour
    # The nearest is the image itself, or a duplicate at 0; the second is then its distance to another either way.
    own = nearest_of(train[hit], train, 2)[0][:, 1]
    return float(100 * (apart > own[place]).mean())


@dataclass(frozen=True)
class Nearest:
    """The training images that generated ones come closest to.

    Attributes:
        distances: (M,k) the smallest first.
        indices: (M,k) of training images.
    """

    distances: Array = field(repr=False)
    indices: NDArray[np.int64] = field(repr=False)


def nearest(*, train: Features, fake: Features, k: int = 5) -> Nearest:
    """The k training images nearest to each generated one, to be looked at side by side.

    Raises:
        LimnerError: there are fewer than k training images, dimensions differ, or a feature is not finite.
    """
    train, fake = checked(1, train=train, fake=fake)
    return Nearest(*nearest_of(fake, train, k))


@dataclass(frozen=True)
class Duplicates:
    """Generated images that are the same as a training image, up to a distance.

    Attributes:
        share: of the generated images.
        threshold: the distance.
        fakes: (D,) indices of generated images, the closest first.
        trains: (D,) index of the training image that each is nearest to.
        distances: (D,) between the two.
    """

    share: float
    threshold: float
    fakes: NDArray[np.int64] = field(repr=False, compare=False)
    trains: NDArray[np.int64] = field(repr=False, compare=False)
    distances: Array = field(repr=False, compare=False)


def duplicates(*, train: Features, fake: Features, threshold: float) -> Duplicates:
    """Generated images no farther than `threshold` from a training image; close features need not be the same image.

    Raises:
        LimnerError: the threshold is negative, dimensions differ, or a feature is not finite.
    """
    if not threshold >= 0:
        raise LimnerError(f"two images are the same up to a distance of 0 or more, got threshold={threshold}")
    found = nearest(train=train, fake=fake, k=1)
    return _duplicates(found.distances[:, 0], found.indices[:, 0], threshold)


def _duplicates(apart: Array, who: NDArray[np.int64], threshold: float) -> Duplicates:
    close = np.flatnonzero(apart <= threshold)
    close = close[np.argsort(apart[close], kind="stable")]
    return Duplicates(len(close) / len(apart), float(threshold), close, who[close], apart[close])


@dataclass(frozen=True)
class Copying:
    """All there is to say about copying.

    Attributes:
        verdict: "copies", "underfits" or "no sign of copying".
        why: the numbers that led to it, in a sentence.
        c_t: see `CT`.
        authpct: of generated images, in per cent.
        authpct_test: of held-out images.
        duplicates: generated images nearer to a training image than all but 0.1 % of training images to each other.
        duplicates_test: share of held-out images that are so near.
    """

    verdict: str
    why: str
    c_t: CT
    authpct: float
    authpct_test: float
    duplicates: Duplicates
    duplicates_test: float


def copying(*, train: Features, test: Features, fake: Features, seed: int = 0) -> Copying:
    """Whether generated images are closer to the training images than held-out ones are.

    Args:
        train: features (L,d) of the images the model was trained on, all of them: a copy of one left out is not seen.
        test: features (N,d) of held-out images.
        fake: features (M,d) of generated images.
        seed: of k-means.

    Raises:
        LimnerError: there are too few images, dimensions differ, or a feature is not finite.
    """
    train, test, fake = checked(_LEAST, train=train, test=test, fake=fake)
    score = c_t(train=train, test=test, fake=fake, seed=seed)
    apart, who = nearest_of(fake, train, 1)
    apart_test, who_test = nearest_of(test, train, 1)
    ours, theirs = _authentic(train, apart[:, 0], who[:, 0]), _authentic(train, apart_test[:, 0], who_test[:, 0])
    some = train[np.linspace(0, len(train) - 1, min(len(train), _LOOKED_AT)).astype(int)]
    threshold = float(np.quantile(nearest_of(some, train, 2)[0][:, 1], 0.001))
    # A low AuthPct alone is no sign: a collapsed model near a lonely training image has one, however far off it lies.
    # So some samples must also be nearer than hardly any held-out image is.
    near = float((apart[:, 0] < np.quantile(apart_test[:, 0], _HARDLY)).mean())
    verdict = "no sign of copying"
    if score.value < CT_COPIES or (ours - theirs < AUTHPCT_COPIES and near > 2 * _HARDLY):
        verdict = "copies"
    elif score.value > CT_UNDERFITS:
        verdict = "underfits"
    why = f"C_T {score.value:.1f}, AuthPct {ours:.1f} % against {theirs:.1f} % of held-out images"
    return Copying(
        verdict,
        why,
        score,
        ours,
        theirs,
        _duplicates(apart[:, 0], who[:, 0], threshold),
        float((apart_test[:, 0] <= threshold).mean()),
    )
