"""Values that change over a training, such as learning rates, weights and noise levels.

A schedule is a function of the number of images seen and has no state, so a resumed training needs its position only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import Protocol


class Schedule(Protocol):
    """A value for every position of a training."""

    def __call__(self, images: float) -> float:
        """The value after `images` images."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same value throughout.

    >>> Constant(0.5)(10_000)
    0.5
    """

    value: float

    def __call__(self, images: float) -> float:
        return self.value


@dataclass(frozen=True)
class Linear:
    """Linear from `start` to `end` over `length` images from `begin` on; constant before and after.

    >>> ramp = Linear(1.0, 0.0, begin=100, length=100)
    >>> ramp(0), ramp(150), ramp(300)
    (1.0, 0.5, 0.0)
    """

    start: float
    end: float
    begin: float = 0.0
    length: float = 1.0

    def __call__(self, images: float) -> float:
        done = _fraction(images - self.begin, self.length)
        left = _fraction(self.begin + self.length - images, self.length)
        return self.start * left + self.end * done


@dataclass(frozen=True)
class Cosine:
    """From `start` to `end` along half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, one period).

    >>> fall = Cosine(1.0, 0.0, length=100)
    >>> fall(0), round(fall(50), 9), fall(100)
    (1.0, 0.5, 0.0)
    """

    start: float
    end: float
    begin: float = 0.0
    length: float = 1.0

    def __call__(self, images: float) -> float:
        done = _fraction(images - self.begin, self.length)
        return self.end + (self.start - self.end) * (1 + cos(pi * done)) / 2


@dataclass(frozen=True)
class Step:
    """`start`, multiplied by `factor` at each position of `at`.

    >>> fall = Step(1.0, at=(100, 200), factor=0.1)
    >>> fall(99), fall(100), round(fall(500), 9)
    (1.0, 0.1, 0.01)
    """

    start: float
    at: Sequence[float]
    factor: float = 0.1

    def __call__(self, images: float) -> float:
        return self.start * self.factor ** sum(images >= position for position in self.at)


@dataclass(frozen=True)
class WarmUp:
    """Another schedule, multiplied by a factor that rises from 0 to 1 over the first `length` images.

    Goyal et al. 2017, arXiv:1706.02677, section 2.2. The factor after the first image is above 0.

    >>> WarmUp(Constant(2.0), 100)(50), WarmUp(Constant(2.0), 100)(200)
    (1.0, 2.0)
    """

    after: Schedule
    length: float

    def __call__(self, images: float) -> float:
        return self.after(images) * _fraction(images, self.length)


def _fraction(part: float, length: float) -> float:
    """`part` as a fraction of `length`, clamped to [0,1]."""
    return min(1.0, max(0.0, part / length)) if length > 0 else float(part >= 0)
