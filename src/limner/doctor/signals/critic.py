"""Signals of a critic, of any model that has one. Above 0 a logit means real.

* ``critic/real``, ``critic/fake``: share of training images and of samples that D tells rightly.
* ``critic/held``: the same of held-out images; the gap to ``critic/real`` is what D has learnt by heart.
* ``critic/gap``: (E f_train - E f_held) / (E f_train - E f_fake), near 0 unless D overfits (Karras et al. 2020, eq. 1).
* ``critic/signal``: mean norm of the gradient by which G's loss moves a sample; near 0, G learns nothing.

D is asked in training mode, in a copy, because batch norm in evaluation mode gives it other logits.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from limner.core.capabilities import Conditional, HasCritic, Translates
from limner.core.model import GenerativeModel
from limner.doctor.ground import Ground
from limner.doctor.signals.measured import Measured

_IMAGES = 128
_SEED = 1_000_033


def applies(model: GenerativeModel) -> bool:
    """Whether a model has a critic of samples; that of a translator looks at translations."""
    return isinstance(model, HasCritic) and not isinstance(model, Translates)


def measure(model: GenerativeModel, ground: Ground) -> Measured:
    """The signals of D."""
    own = copy.deepcopy(model)
    assert isinstance(own, HasCritic)
    x, y = ground.real.batch(_IMAGES, model.device)
    conditional = isinstance(model, Conditional)
    y = y if conditional else None
    fake = own.sample(len(x), y=y, seed=_SEED).clone()  # a copy outside inference mode, which gradients need
    own.train()
    with torch.no_grad():
        logits = {"real": own.critic(x, y), "fake": own.critic(fake, y)}
        if ground.held is not None and len(ground.held.images) >= len(x):
            held, held_y = ground.held.batch(len(x), model.device)
            logits["held"] = own.critic(held, held_y if conditional else None)
    pull = own.sample_gradient(fake, x, y)
    signals = {
        "critic/real": _share(logits["real"] > 0),
        "critic/fake": _share(logits["fake"] < 0),
        "critic/signal": float(pull.flatten(1).norm(dim=1).mean()),
    }
    if "held" in logits:
        means = {name: float(value.mean()) for name, value in logits.items()}
        between = means["real"] - means["fake"]
        signals["critic/held"] = _share(logits["held"] > 0)
        signals["critic/gap"] = (means["real"] - means["held"]) / between if between > 0 else 0.0
    return Measured(signals)


def _share(hits: Tensor) -> float:
    return float(hits.float().mean())
