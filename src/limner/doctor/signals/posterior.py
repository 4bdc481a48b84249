"""Signals of a posterior q(z|x), of any model that has one: VAEs.

* ``posterior/units``: numbers of a code.
* ``posterior/active``: those whose mean differs from image to image, Var_x E[z|x] > 0.01 (Burda, Grosse and
  Salakhutdinov 2016, arXiv:1509.00519, section 5): the others say nothing about an image.
* ``posterior/kl``: mean KL(q(z|x) ‖ N(0, I)) in nats: what a code says about an image.
* ``posterior/told``: numbers of a code whose own mean KL is above 0.01 nats.
"""

from __future__ import annotations

import torch

from limner.core.capabilities import Conditional, HasPosterior
from limner.core.model import GenerativeModel
from limner.doctor.ground import Ground
from limner.doctor.signals.examination import Examination
from limner.losses.divergence import kl_normal

ACTIVE = 0.01
"""Variance of a posterior mean over images, and nats of a number of a code, above which it says something."""
_IMAGES = 256


def applies(model: GenerativeModel) -> bool:
    """Whether a model has a posterior."""
    return isinstance(model, HasPosterior)


@torch.inference_mode()
def measure(model: GenerativeModel, ground: Ground) -> Examination:
    """The signals of the posteriors of training images."""
    assert isinstance(model, HasPosterior)
    x, y = ground.real.batch(_IMAGES, model.device)
    mean, logvar = model.posterior(x, *([y] if isinstance(model, Conditional) else []))
    n, units = mean.shape
    kl = kl_normal(mean.reshape(-1, 1), logvar.reshape(-1, 1)).view(n, units).mean(0)
    signals = {
        "posterior/units": float(units),
        "posterior/active": float((mean.var(0) > ACTIVE).sum()),
        "posterior/kl": float(kl.sum()),
        "posterior/told": float((kl > ACTIVE).sum()),
    }
    return Examination(signals)
