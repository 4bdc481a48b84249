"""Failures of conditional models."""

from __future__ import annotations

from limner.doctor.checks._check import check
from limner.doctor.checks._judged import judged
from limner.doctor.checks._missing import YOUNG_YET
from limner.doctor.finding import Finding
from limner.doctor.history import History

OBEYED = 0.6  # of the way from chance to what real images show of their labels
SPREAD = 0.1  # of the distance of two real images of one label
_NO_LABELS = "this model takes no labels, or draws no samples"


@check("Draws", "Conditional", why_not=_NO_LABELS, looks_like=("noise",))
def condition_ignored(history: History) -> Finding:
    """Samples do not show what was asked for: the condition is ignored, or the labels are wrong.

    G is told the label, and has a reason to obey only if D knows it too. Where D's label has no weight, or where the
    labels of the data are wrong, G draws anything. It shows as an agreement of samples with what was asked for that
    is little above chance. A projection discriminator or an auxiliary classifier strengthens the label. `limner lab
    cgan` shows it.
    """
    return judged(
        "condition_ignored",
        history.grown("condition/obeyed", lambda share: share < OBEYED),
        lambda share: share < OBEYED,
        OBEYED,
        bad="samples do not show what was asked for: {value:.2f} on the way from chance, 0, to real images, 1",
        good="samples show what was asked for: {value:.2f} on the way from chance, 0, to real images, 1",
        missing="needs labels that can be read in images, and a training of more than 2,000 steps",
    )


@check("Draws", "Conditional", why_not=_NO_LABELS, looks_like=("collapse", "low_variety"))
def noise_ignored(history: History) -> Finding:
    """The label alone decides the image, and the noise changes nothing: one image for each label.

    A generator that is told much, a label or a caption, can please D with one image for each. It shows as samples of
    one label that do not differ. Noise as dropout in the generator, or a D that sees several samples at once, may
    help. `limner lab cgan` shows sheets of one label.
    """
    return judged(
        "noise_ignored",
        history.grown("condition/spread", lambda spread: spread < SPREAD),
        lambda spread: spread < SPREAD,
        SPREAD,
        bad="samples of one label are the same image: their mean distance is {value:.2f} of that of real images",
        good="samples of one label differ: their mean distance is {value:.2f} of that of real images",
        missing=YOUNG_YET,
    )
