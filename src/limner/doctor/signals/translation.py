"""Signals of a translator, of held-out sources where there are some. Of several directions the worst counts.

Distances are root mean squares over pixels. With pairs the target says what a translation should be; without pairs
there is only the source to compare with.

* ``translation/change``: distance of translations from their sources over what it should be: with pairs that of targets
  from sources, without them that of two sources from one another. At 0 nothing is translated.
* ``translation/spread``: distance of translations of two sources over that of two targets, or of two images of the
  other domain. At 0 every source is translated into the same image.
* ``translation/likeness``: correlation over pixels of translations with targets; without pairs with sources, where both
  domains are bright in the same places. Below 0, what was bright is dark.
* ``translation/error``: with pairs, squared error of translations over that of leaving the sources as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core.batch import Paired
from limner.core.capabilities import Translates
from limner.core.inference import translated
from limner.core.model import GenerativeModel
from limner.doctor.ground import Ground
from limner.doctor.signals.examination import Examination

_IMAGES = 16
_WORST = {"translation/change": min, "translation/spread": min, "translation/likeness": min, "translation/error": max}


def applies(model: GenerativeModel) -> bool:
    """Whether a model translates images."""
    return isinstance(model, Translates)


def measure(model: GenerativeModel, ground: Ground) -> Examination:
    """The signals of translations."""
    assert isinstance(model, Translates)
    batch = ground.batch(_IMAGES, model.device)
    paired = isinstance(batch, Paired)
    sides = {"b": (batch[0], getattr(batch, "b", None)), "a": (getattr(batch, "b", None), batch[0])}
    found: dict[str, list[float]] = {}
    for to in model.domains:
        source, other = sides[to]
        if source is None:
            continue
        for name, value in of_images(source, translated(model, source, to), other, paired=paired).items():
            found.setdefault(name, []).append(value)
    return Examination({name: _WORST[name](values) for name, values in found.items()})


@torch.inference_mode()
def of_images(source: Tensor, output: Tensor, other: Tensor | None, *, paired: bool) -> dict[str, float]:
    """The signals of translations.

    Args:
        source: images (B,C',H,W) in [-1,1], two at least.
        output: their translations (B,C,H,W).
        other: their targets (B,C,H,W), or images of the other domain, or None where there are none.
        paired: whether `other` are targets.
    """
    if len(source) < 2:
        return {}
    if source.shape[1] != output.shape[1]:  # a grey source of a coloured image, or one with a mask
        source, output = source.mean(1, keepdim=True), output.mean(1, keepdim=True)
        other = None if other is None else other.mean(1, keepdim=True)
    expected = other if paired and other is not None else source.roll(1, 0)
    reference = source if other is None else other
    signals = {
        "translation/change": _ratio(_distance(output, source), _distance(expected, source)),
        "translation/spread": _ratio(_distance(output, output.roll(1, 0)), _distance(reference, reference.roll(1, 0))),
    }
    if paired and other is not None:
        signals["translation/likeness"] = _correlation(output, other)
        signals["translation/error"] = _ratio(_distance(output, other), _distance(source, other)) ** 2
    else:
        opposite = other is not None and _correlation(source.mean(0), other.mean(0)) < 0
        signals["translation/likeness"] = _correlation(output, source) * (-1 if opposite else 1)
    return signals


def _distance(x: Tensor, y: Tensor) -> float:
    """Mean root mean square of the differences of images (B,C,H,W)."""
    return float((x - y).float().flatten(1).square().mean(1).sqrt().mean())


def _ratio(a: float, b: float) -> float:
    return a / b if b else 1.0


def _correlation(x: Tensor, y: Tensor) -> float:
    """Mean correlation over pixels of images (B,C,H,W), 0 of flat ones; or of one image (C,H,W)."""
    x, y = ((v.float().reshape(len(v) if v.dim() == 4 else 1, -1)) for v in (x, y))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return float(((x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1)).clamp(min=1e-9)).mean())
