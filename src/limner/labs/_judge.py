"""Whether made images look like those they are meant to resemble, in two plain numbers.

A distance to the nearest real image would not do: a blur is nearer to everything than a sharp digit is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from limner.labs._bench import Reals
from limner.latent.neighbours import nearest
from limner.metrics.probe import distinguishable
from limner.report import Table

EXPLAINED = (
    "Two numbers judge them. Agreement: of the ten training images nearest to an image, the share that have the"
    " commonest class among them; a clear digit has neighbours of one class, a blot has them of many. Told apart:"
    " how often a random forest tells the images from reconstructions by the same decoder, on images that its trees"
    " did not see; 50 % is guessing. Both kinds have passed the same decoder, so it is not the blur that gives them"
    " away."
)


@dataclass(frozen=True)
class Verdict:
    """What was measured of a set of images.

    Attributes:
        agreement: mean share of the ten nearest real images that have the commonest class among them.
        told: how often a classifier tells them from other images, 0.5 is guessing; None if there are none.
    """

    agreement: float
    told: float | None = None


def verdict(reals: Reals, x: Tensor, others: Tensor | None = None, seed: int = 0) -> Verdict:
    """Judges images x (N,C,H,W) beside labelled real ones, and beside `others` (M,C,H,W) that they should be like."""
    return Verdict(agreement(reals, x), None if others is None else distinguishable(x, others, seed=seed))


def agreement(reals: Reals, x: Tensor) -> float:
    """Mean share, in [0,1], of the ten real images nearest to each of x (N,C,H,W) that have the commonest class."""
    return agreed(neighbour_labels(reals, x))


def neighbour_labels(reals: Reals, x: Tensor, k: int = 10) -> Tensor:
    """Classes (N,k) of the k real images nearest to each of x (N,C,H,W), nearest first."""
    _, found = nearest(reals.x, x, min(k, len(reals)))
    return reals.y[found]


def agreed(labels: Tensor) -> float:
    """Mean share of the commonest label in each row of (N,k).

    >>> import torch
    >>> agreed(torch.tensor([[1, 1, 1, 2], [3, 3, 4, 5]]))
    0.625
    """
    return float((labels == labels.mode(1).values[:, None]).float().mean())


def table(rows: Mapping[str, Verdict]) -> Table:
    """The table of a page."""
    shown = [(name, f"{v.agreement:.1%}", "–" if v.told is None else f"{v.told:.1%}") for name, v in rows.items()]
    return Table(("images", "agreement of neighbours", "told apart from reconstructions"), shown)
