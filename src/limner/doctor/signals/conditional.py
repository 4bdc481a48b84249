"""Signals of a conditional model: whether samples have what was asked for, and whether the noise does anything.

* ``condition/obeyed``: how often samples show what was asked for, from 0 as by chance to 1 as real images show their
  labels; the mean over attributes. What an image shows is told by the nearest mean of training images of each value,
  in the features of the scores.
* ``condition/spread``: mean feature distance of two samples of one label over that of two real images of one label
  (over that of any two real images where labels do not repeat); 0 if the label alone decides the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core.capabilities import Conditional
from limner.core.condition import Condition
from limner.core.model import GenerativeModel
from limner.doctor.ground import REALS, Ground, mean_distance
from limner.metrics.conditions import within_label

_READABLE = 0.2  # above chance: what the nearest mean must tell of real images
_LABELS, _EACH, _SEED = 8, 4, 1_000_037  # of the extra samples where no two labels are the same


def asked(model: GenerativeModel, ground: Ground, n: int) -> Tensor | None:
    """Labels (n,…) to ask a model for: those of training images, in turn; None for a model without a condition."""
    if not isinstance(model, Conditional):
        return None
    labels = ground.real.labels
    if labels is None or ground.train.condition != model.condition:
        return model.condition.default(n)
    return labels[torch.arange(n) % len(labels)]


def of_features(features: Tensor, y: Tensor, model: GenerativeModel, ground: Ground) -> dict[str, float]:
    """The signals of samples by their features (N,d) and the labels (N,…) that were asked for."""
    assert isinstance(model, Conditional)
    if ground.real.labels is None or ground.train.condition != model.condition:
        return {}
    signals = of_labels(features, y, model.condition, ground)
    if "condition/spread" not in signals:
        few = y[:_LABELS].repeat_interleave(_EACH, 0)
        again, _ = ground.look(model.sample(len(few), y=few, seed=_SEED))
        signals["condition/spread"] = sum(map(mean_distance, again.split(_EACH))) / _LABELS / ground.spread
    return signals


def of_labels(features: Tensor, y: Tensor, condition: Condition, ground: Ground) -> dict[str, float]:
    """The signals of images (N,d) and the labels (N,…) that they should have; without those that need more samples."""
    found = obeyed(features, y, condition, ground)
    signals = {} if found is None else {"condition/obeyed": found}
    assert ground.real.labels is not None
    within = within_label(
        fake=features, fake_labels=y.cpu(), real=ground.features[:REALS], real_labels=ground.real.labels[:REALS]
    )
    return signals | ({} if within is None else {"condition/spread": within.ratio})


def obeyed(features: Tensor, y: Tensor, condition: Condition, ground: Ground) -> float | None:
    """How often images (N,d) show their labels (N,…): 0 as by chance, 1 as real ones; None where none is readable."""
    labels = ground.real.labels
    if not condition.values or labels is None:
        return None
    half = len(labels) // 2
    real, values = ground.features, condition.features(labels).cpu()
    wanted, rates = condition.features(y).cpu(), []
    for column in range(values.shape[1]):
        of = values[:half, column]
        known = of[of >= 0].unique()
        if len(known) < 2:
            continue
        means = torch.stack([real[:half][of == value].mean(0) for value in known])
        ceiling = _above_chance(real[half:], values[half:, column], known, means)
        found = _above_chance(features, wanted[:, column], known, means)
        if ceiling is not None and found is not None and ceiling > _READABLE:
            rates.append(found / ceiling)
    return sum(rates) / len(rates) if rates else None


def _above_chance(features: Tensor, asked_for: Tensor, known: Tensor, means: Tensor) -> float | None:
    """Agreement of the nearest mean with what was asked for, above that by chance; None where nothing was asked."""
    valid = torch.isin(asked_for, known)
    if not bool(valid.any()):
        return None
    wanted, read = asked_for[valid], known[torch.cdist(features[valid], means).argmin(1)]
    chance = sum(float((read == value).float().mean() * (wanted == value).float().mean()) for value in known)
    return float((read == wanted).float().mean()) - chance
