"""What an examination measures of a model: one file for each capability, each a pure function of model and ground.

A signal is a number, and its name says what it is of: ``samples/spread``, ``critic/real``. A model has the signals of
everything that it can do; `SIGNALS` is the list. No signal trains, changes or remembers anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from limner.core.model import GenerativeModel
from limner.doctor.ground import Ground
from limner.doctor.signals import critic, samples
from limner.doctor.signals.measured import Measured


class Signals(NamedTuple):
    """Signals that belong together: whether a model has them, and what they are."""

    applies: Callable[[GenerativeModel], bool]
    measure: Callable[[GenerativeModel, Ground], Measured]


SIGNALS = (Signals(samples.applies, samples.measure), Signals(critic.applies, critic.measure))


def signals_of(model: GenerativeModel) -> list[Signals]:
    """The signals that a model has."""
    return [signals for signals in SIGNALS if signals.applies(model)]


def measure(model: GenerativeModel, ground: Ground, signals: list[Signals] | None = None) -> Measured:
    """All signals of a model, or some of them."""
    found = Measured()
    for each in signals_of(model) if signals is None else signals:
        part = each.measure(model, ground)
        found.signals |= part.signals
        found.counts = part.counts or found.counts
    return found
