"""What a model can do, as the names of capabilities, so that checks need no model."""

from __future__ import annotations

import inspect
from typing import Any

from limner.core import capabilities
from limner.core.model import GenerativeModel
from limner.doctor.signals import samples

_PROTOCOLS: dict[str, Any] = {
    name: value
    for name, value in vars(capabilities).items()
    if inspect.isclass(value) and getattr(value, "_is_runtime_protocol", False)
}


def abilities(model: GenerativeModel) -> frozenset[str]:
    """The names of the protocols of `limner.core.capabilities` that a model has; ``Draws`` if samples cost little."""
    found = {name for name, protocol in _PROTOCOLS.items() if isinstance(model, protocol)}
    return frozenset(found | ({"Draws"} if samples.applies(model) else set()))
