"""Signals that a training has no time for: of some thousand samples, beside all training images.

* ``deep/ct``: C_T of the samples, far below 0 for copies (Meehan et al. 2020).
* ``deep/authpct``: AuthPct of the samples less that of held-out images, in points (Alaa et al. 2022).
* ``deep/near``: share of samples nearer to a training image than 99 % of held-out images.
* ``deep/batch_norm``: Fréchet distance to training images with the statistics of the batch in batch norm, over that
  with the saved ones.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from limner.core.model import GenerativeModel
from limner.doctor.ground import Ground
from limner.doctor.signals import conditional, samples
from limner.doctor.signals.examination import Examination
from limner.metrics.copies import copying
from limner.metrics.frechet import Moments, frechet_distance

SAMPLES, REALS = 2000, 20_000
"""Samples, and images of each side, of a deep look."""
_SEED = 1_000_039


def measure(model: GenerativeModel, ground: Ground, n: int = SAMPLES) -> Examination:
    """The signals of a finished model; none if it draws no samples.

    Args:
        model: the model, usually the averaged one.
        ground: the real images, `REALS` of each side.
        n: number of samples.
    """
    if not samples.applies(model):
        return Examination()
    y = conditional.asked(model, ground, n)
    features, _ = ground.look(model.sample(n, y=y, seed=_SEED))
    found = of_features(features, ground)
    by_batch = _by_batch(model)
    if by_batch is not None:
        other, _ = ground.look(by_batch.sample(n, y=y, seed=_SEED))
        real = Moments().update(ground.features).compute()
        distances = [frechet_distance(*Moments().update(x).compute(), *real) for x in (other, features)]
        found.signals["deep/batch_norm"] = distances[0] / max(distances[1], 1e-9)
    return found


def of_features(features: Tensor, ground: Ground) -> Examination:
    """The signals of images by their features (N,d); none without held-out images."""
    held = ground.held_features
    if held is None:
        return Examination()
    found = copying(train=ground.features, test=held, fake=features)
    return Examination(
        {
            "deep/ct": found.c_t.value,
            "deep/authpct": found.authpct - found.authpct_test,
            "deep/near": found.near,
        }
    )


def _by_batch(model: GenerativeModel) -> GenerativeModel | None:
    """A copy of a model in which batch norm uses the statistics of each batch; None if it has no batch norm."""
    own = copy.deepcopy(model)
    norms = [m for m in own.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None]
    for norm in norms:
        norm.running_mean = norm.running_var = None
    return own if norms else None
