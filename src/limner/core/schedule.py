"""Values that change over a training as a function of its position: rates, weights, noise, levels.

A schedule has no state. It is asked with the number of images seen, so a resumed training needs nothing but its
position, and one step asks once, outside anything that runs on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import Protocol


class Schedule(Protocol):
    """A value for every position of a training."""

    def __call__(self, images: float) -> float:
        """The value after so many images."""
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
    """From `start` to `end` on a straight line, between two positions; constant before and after.

    >>> ramp = Linear(1.0, 0.0, begin=100, length=100)
    >>> ramp(0), ramp(150), ramp(300)
    (1.0, 0.5, 0.0)
    """

    start: float
    end: float
    begin: float = 0.0
    length: float = 1.0

    def __call__(self, images: float) -> float:
        gone, left = _share(images - self.begin, self.length), _share(self.begin + self.length - images, self.length)
        return self.start * left + self.end * gone


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
        gone = _share(images - self.begin, self.length)
        return self.end + (self.start - self.end) * (1 + cos(pi * gone)) / 2


@dataclass(frozen=True)
class Step:
    """`start`, multiplied by `factor` at each of some positions.

    >>> fall = Step(1.0, at=(100, 200), factor=0.1)
    >>> fall(99), fall(100), round(fall(500), 9)
    (1.0, 0.1, 0.01)
    """

    start: float
    at: Sequence[float]
    factor: float = 0.1

    def __call__(self, images: float) -> float:
        return self.start * self.factor ** sum(images >= place for place in self.at)


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
        return self.after(images) * _share(images, self.length)


def _share(part: float, length: float) -> float:
    """What share of a length a part is, in [0,1]."""
    return min(1.0, max(0.0, part / length)) if length > 0 else float(part >= 0)
