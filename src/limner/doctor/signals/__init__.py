"""What an examination measures of a model: one file for each capability, each a pure function of model and ground.

A signal is a number, and its name says what it is of: ``samples/spread``, ``critic/real``. A model has the signals of
everything that it can do; `SIGNALS` is the list. No signal trains, changes or remembers anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from limner.core.model import GenerativeModel
from limner.doctor.ground import Ground
from limner.doctor.signals import (
    autoencoder,
    critic,
    data,
    denoiser,
    flow,
    posterior,
    samples,
    style,
    translation,
    weights,
)
from limner.doctor.signals.examination import Examination


class Signals(NamedTuple):
    """Signals that belong together.

    Attributes:
        ability: what a model can do that has them, for the `needs` of checks.
        applies: whether a model has them.
        measure: what they are.
        once: whether they are measured at the first examination only, because no training changes them.
    """

    ability: str
    applies: Callable[[GenerativeModel], bool]
    measure: Callable[[GenerativeModel, Ground], Examination]
    once: bool = False


SIGNALS = (
    Signals("Draws", samples.applies, samples.measure),
    Signals("HasCritic", critic.applies, critic.measure),
    Signals("HasCritic", weights.applies, weights.measure),
    Signals("HasPosterior", posterior.applies, posterior.measure),
    Signals("Autoencodes", autoencoder.applies, autoencoder.measure),
    Signals("Inverts", flow.applies, flow.measure),
    Signals("Denoises", denoiser.applies, denoiser.measure),
    Signals("Translates", translation.applies, translation.measure),
    Signals("Paints", style.applies, style.measure),
    Signals("Learns", data.applies, data.measure, once=True),
)


def signals_of(model: GenerativeModel) -> list[Signals]:
    """The signals that a model has."""
    return [signals for signals in SIGNALS if signals.applies(model)]


def measure(model: GenerativeModel, ground: Ground, signals: list[Signals] | None = None) -> Examination:
    """All signals of a model, or some of them. The model is in evaluation mode afterwards."""
    found = Examination()
    for each in signals_of(model) if signals is None else signals:
        part = each.measure(model.eval(), ground)
        found.signals |= part.signals
        found.counts = part.counts or found.counts
    return found
