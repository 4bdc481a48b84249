"""Signals of a critic, of any model that has one. Above 0 a logit means real, where the loss makes it so.

* ``critic/real``, ``critic/fake``: share of training images and of samples that D tells rightly by the sign.
* ``critic/order``: share of pairs of a training image and a sample that D puts in the right order: 0.5 if it tells
  nothing, 1 if it tells all. It does not depend on where a loss puts its zero.
* ``critic/held``: share of held-out images with a logit above 0.
* ``critic/gap``: (E f_train - E f_held) / (E f_train - E f_fake), near 0 unless D overfits (Karras et al. 2020, eq. 1);
  the numerator less two standard errors, so that a few images do not raise it.
* ``critic/signal``: mean norm of the gradient by which G's loss moves a sample; near 0, G learns nothing.
* ``critic/slope``: mean norm of the gradient of D's logit at samples.

D is asked in training mode, in a copy, because batch norm in evaluation mode gives it other logits.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from limner.core.capabilities import Conditional, HasCritic, Translates
from limner.core.model import GenerativeModel
from limner.doctor.ground import Ground
from limner.doctor.signals.examination import Examination

_IMAGES = 128
_SEED = 1_000_033


def applies(model: GenerativeModel) -> bool:
    """Whether a model has a critic of samples; that of a translator looks at translations."""
    return isinstance(model, HasCritic) and not isinstance(model, Translates)


def measure(model: GenerativeModel, ground: Ground) -> Examination:
    """The signals of D."""
    own = copy.deepcopy(model)
    assert isinstance(own, HasCritic)
    x, y = ground.real.batch(_IMAGES, model.device)
    conditional = isinstance(model, Conditional)
    y = y if conditional else None
    fake = own.sample(len(x), y=y, seed=_SEED).clone()  # a copy outside inference mode, which gradients need
    own.train()
    with torch.no_grad():
        real = own.critic(x, y)
        held = None
        if ground.held is not None and len(ground.held.images) >= len(x):
            others, other_y = ground.held.batch(len(x), model.device)
            held = own.critic(others, other_y if conditional else None)
    fake.requires_grad_()
    with torch.enable_grad():
        logits = own.critic(fake, y)
        (slope,) = torch.autograd.grad(logits.sum(), fake)
    logits = logits.detach()
    signals = {
        "critic/real": _share(real > 0),
        "critic/fake": _share(logits < 0),
        "critic/order": _share(real[:, None] > logits) + _share(real[:, None] == logits) / 2,
        "critic/signal": _mean_norm(own.sample_gradient(fake.detach(), x, y)),
        "critic/slope": _mean_norm(slope),
    }
    if held is not None:
        between = float(real.mean() - logits.mean())
        error = float((real.var() / len(real) + held.var() / len(held)).sqrt())
        signals["critic/held"] = _share(held > 0)
        signals["critic/gap"] = max(0.0, float(real.mean() - held.mean()) - 2 * error) / between if between > 0 else 0.0
    return Examination(signals)


def _share(hits: Tensor) -> float:
    return float(hits.float().mean())


def _mean_norm(gradient: Tensor) -> float:
    return float(gradient.flatten(1).norm(dim=1).mean())
