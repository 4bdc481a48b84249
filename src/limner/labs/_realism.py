"""Two numbers that say whether generated images look like the images that they should resemble.

The distance to the nearest real image would not do: a blurred image is nearer to every real image than a sharp one is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from limner.labs._bench import LabelledImages
from limner.latent.neighbours import nearest
from limner.metrics.probe import distinguishable
from limner.report import Table

EXPLANATION = (
    "Two numbers score them. Agreement: of the ten training images nearest to an image, the share that have the"
    " commonest class among them. A clear digit has neighbours of one class, a blot has neighbours of many. Told apart:"
    " how often a random forest tells the images from reconstructions by the same decoder, on images that its trees"
    " were not trained on; 50 % is guessing. Both kinds come from the same decoder, so its blur does not give them"
    " away."
)


@dataclass(frozen=True)
class Realism:
    """The two scores of a set of images.

    Attributes:
        agreement: mean share of the ten nearest real images that have the commonest class among them.
        told_apart: how often a classifier tells them from other images, 0.5 is guessing; None if there are none.
    """

    agreement: float
    told_apart: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """The scores under their keys in ``results.json``."""
        return {"agreement": self.agreement, "told": self.told_apart}


def measure_realism(real: LabelledImages, x: Tensor, reference: Tensor | None = None, seed: int = 0) -> Realism:
    """Compares images x (N,C,H,W) with labelled real ones, and with a `reference` (M,C,H,W) if there is one."""
    return Realism(agreement(real, x), None if reference is None else distinguishable(x, reference, seed=seed))


def agreement(real: LabelledImages, x: Tensor) -> float:
    """Mean share, in [0,1], of the ten real images nearest to each of x (N,C,H,W) that have the commonest class."""
    return majority_share(neighbour_labels(real, x))


def neighbour_labels(real: LabelledImages, x: Tensor, k: int = 10) -> Tensor:
    """Classes (N,k) of the k real images nearest to each of x (N,C,H,W), nearest first."""
    _, indices = nearest(real.x, x, min(k, len(real)))
    return real.y[indices]


def majority_share(labels: Tensor) -> float:
    """Mean share of the commonest label in each row of (N,k).

    >>> import torch
    >>> majority_share(torch.tensor([[1, 1, 1, 2], [3, 3, 4, 5]]))
    0.625
    """
    return float((labels == labels.mode(1).values[:, None]).float().mean())


def table(rows: Mapping[str, Realism]) -> Table:
    """The scores as a table of the page."""
    cells = [
        (name, f"{r.agreement:.1%}", "–" if r.told_apart is None else f"{r.told_apart:.1%}") for name, r in rows.items()
    ]
    return Table(("images", "agreement of neighbours", "told apart from reconstructions"), cells)
