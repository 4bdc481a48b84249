"""Failures of generators that learn from a critic."""

from __future__ import annotations

from limner.doctor.checks._check import check
from limner.doctor.finding import Finding, trend
from limner.doctor.history import History

_SPREAD = 0.3  # of the distance of two real images
_YOUNG = 2000  # steps during which a new generator still draws one image


@check(
    "Draws",
    why_not="this model draws no samples, or each takes many evaluations of its net",
    looks_like=("dropped_classes", "vanishing"),
)
def collapse(history: History) -> Finding:
    """The generator draws nearly the same image whatever the noise: mode collapse.

    G has found one image that D takes for real, and moves all of its samples there. D then learns to refuse that image,
    and G moves to the next. It shows in sheets of samples that look alike, and as a mean distance between two samples
    that is a small part of that between two real images. `limner lab gan` shows it.
    """
    values = [v for v in history.signal("samples/spread") if v[0] > _YOUNG * history.batch]
    now = trend(values, lambda spread: spread < _SPREAD)
    if now is None:
        return Finding("collapse", "unknown", "it takes a longer training until samples can be judged")
    words = "samples are near-copies of one another" if now.state != "pass" else "samples differ as real images do"
    sentence = f"{words}: their mean distance is {now.value:.2f} of that of real images"
    return Finding("collapse", now.state, sentence, now.value, _SPREAD, now.since)
