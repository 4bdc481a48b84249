"""Digits in two domains, without pairs: as they are, and as edges or as negatives (Liu and Tuzel 2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from limner.core.errors import LimnerError
from limner.data.options import Options
from limner.data.registry import DOMAINS, SOURCES, source

if TYPE_CHECKING:
    from torch import Tensor

    from limner.data.pairs import DomainSet

Digits = Literal["mnist-5k", "mnist"]


@source("digits-edges", gives=DOMAINS)
def digits_edges(of: Digits = "mnist-5k", *, options: Options) -> DomainSet:  # noqa: D417 - see Options
    """Digits, and edges of other digits, without pairs (Liu and Tuzel 2016, arXiv:1606.07536); known pairs held out.

    An edge image is dilate(x) - x with a square of 3×3 pixels.

    Args:
        of: the set that the digits are from: "mnist-5k", or "mnist" for more of them.
    """
    return _domains("digits-edges", of, edges, options)


@source("digits-negatives", gives=DOMAINS)
def digits_negatives(of: Digits = "mnist-5k", *, options: Options) -> DomainSet:  # noqa: D417 - see Options
    """Digits, and negatives of other digits, without pairs (Liu and Tuzel 2016); known pairs held out.

    Args:
        of: the set that the digits are from: "mnist-5k", or "mnist" for more of them.
    """
    return _domains("digits-negatives", of, negatives, options)


def edges(x: Tensor) -> Tensor:
    """The edges of images (N,C,H,W) uint8: the largest value of the 3×3 pixels around each pixel, minus its own."""
    from torch.nn import functional as F

    return F.max_pool2d(x.float(), 3, stride=1, padding=1).to(x.dtype) - x


def negatives(x: Tensor) -> Tensor:
    """Images (N,C,H,W) uint8 with black and white exchanged."""
    return 255 - x


def _domains(name: str, of: str, change: Callable[[Tensor], Tensor], options: Options) -> DomainSet:
    """Every second digit in the first domain, and the others, changed, in the second.

    Held-out digits are in both domains, so that the partner of each is known; training never draws them.
    """
    from limner.core.batch import Dataset
    from limner.data.datasets import Pixels
    from limner.data.pairs import DomainSet
    from limner.data.steps import fingerprint

    if of not in ("mnist-5k", "mnist"):
        raise LimnerError(f"of: {of!r} is not possible; choose from: mnist-5k, mnist")
    digits: Dataset = SOURCES[of](**vars(options))
    assert digits.pixels is not None
    known = options.split == "test"
    first, second = (digits.pixels, digits.pixels) if known else (digits.pixels[0::2], digits.pixels[1::2])
    if not len(second):
        raise LimnerError(f"{name}: one digit cannot be divided; raise limit")

    # training draws images alone; whether pairs show the same digit is told by labels
    assert digits.labels is not None
    of_first, of_second = (digits.labels, digits.labels) if known else (digits.labels[0::2], digits.labels[1::2])

    def domain(title: str, pixels: Tensor, labels: Tensor) -> Pixels:
        prepared = fingerprint(digits.fingerprint, title)
        return Pixels(title, pixels, labels=labels, classes=digits.classes, augment=digits.augment, prepared=prepared)

    what = "in both domains, as known pairs" if known else "in two halves, so that no digit is in both domains"
    a, b = domain("digits", first, of_first), domain(name.partition("-")[2], change(second), of_second)
    return DomainSet(a, b, name, known=known, notes=[*digits.notes, f"digits {what}"])
