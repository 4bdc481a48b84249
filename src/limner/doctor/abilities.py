"""What a model can do, as the names of capabilities, so that checks need no model."""

from __future__ import annotations

import inspect
from typing import Any

from limner.core import capabilities
from limner.core.model import GenerativeModel
from limner.doctor.signals import SIGNALS

_PROTOCOLS: dict[str, Any] = {
    name: value
    for name, value in vars(capabilities).items()
    if inspect.isclass(value) and getattr(value, "_is_runtime_protocol", False)
}


def abilities(model: GenerativeModel) -> frozenset[str]:
    """What a model can do.

    They are the names of the protocols of `limner.core.capabilities` that it has, and those of its signals: ``Draws``
    if samples cost little, ``Autoencodes``, ``Inverts``, ``Paints`` …
    """
    found = {name for name, protocol in _PROTOCOLS.items() if isinstance(model, protocol)}
    return frozenset(found | {signals.ability for signals in SIGNALS if signals.applies(model)})
