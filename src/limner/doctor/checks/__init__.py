"""The checks: pure functions from the history of a run to a finding.

The name of a check is its function's name; its docstring says what the failure is, how it shows and which lab shows it,
and `limner explain doctor.NAME` prints it. A check belongs to the models that have all abilities that it `needs`
(names of the protocols of `limner.core.capabilities`); of others it is n/a.
"""

from __future__ import annotations

from limner.doctor.checks import (
    adversarial,
    autoencoder,
    classes,
    conditional,
    data,
    denoiser,
    flow,
    posterior,
    recipe,
    samples,
    stability,
    style,
    translation,
)
from limner.doctor.checks._check import Check, checks_of

_OF_SAMPLES = (stability, conditional, samples, classes, adversarial)
_OF_OTHERS = (posterior, autoencoder, flow, denoiser, translation, style, data, recipe)

CHECKS: dict[str, Check] = {check.name: check for file in (*_OF_SAMPLES, *_OF_OTHERS) for check in checks_of(file)}
"""All checks by name, in the order in which they are told: where several fail, the first says most."""
