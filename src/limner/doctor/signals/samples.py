"""Signals of samples, of any model that draws with a few calls of its nets, and of any folder of pictures.

* ``samples/spread``: mean feature distance of two samples over that of two training images; 1 when equal.
* ``samples/vendi``: effective number of different samples (Friedman and Dieng 2023) over that of as many real ones.
* ``samples/duplicates``: share of samples with another one so near that it counts as the same.
* ``samples/kid``: unbiased kernel distance to training images (Bińkowski et al. 2018).
* ``samples/sharpness``: variance of the Laplacian over that of real images: below 1 is blur.
* ``samples/checkerboard``: power at the highest frequencies over that of real images.
* ``samples/finite``: share of values that are finite numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core.batch import Styled
from limner.core.capabilities import Generates, Stylises, Translates
from limner.core.model import GenerativeModel
from limner.doctor.ground import REALS, Ground, mean_distance
from limner.doctor.signals.measured import Measured
from limner.evaluation.cost import count_evaluations
from limner.metrics.diversity import vendi
from limner.metrics.kernel import kid
from limner.metrics.neighbours import nearest
from limner.metrics.quality import sharpness

SAMPLES = 256
"""Samples of an examination while a model trains."""
_SEED = 1_000_003  # not that of previews, whose noise users look at
_CALLS = 4  # of nets for a sample, up to which drawing is cheap


def applies(model: GenerativeModel) -> bool:
    """Whether a model draws, with a few calls of its nets for each sample."""
    if model.batch_type is Styled:  # one picture is optimised
        return False
    draws = not isinstance(model, Translates | Stylises) and (
        isinstance(model, Generates) or type(model).draw is not GenerativeModel.draw
    )
    return draws and count_evaluations(model) <= _CALLS


def measure(model: GenerativeModel, ground: Ground) -> Measured:
    """The signals of new samples."""
    return of_images(model.sample(SAMPLES, seed=_SEED), ground)


@torch.inference_mode()
def of_images(x: Tensor, ground: Ground) -> Measured:
    """The signals of images (N,C,H,W), uint8 or in [-1,1], or of points."""
    finite = 1.0 if x.dtype == torch.uint8 else float(torch.isfinite(x).float().mean())
    x = x if x.dtype == torch.uint8 else x.nan_to_num()
    features, logits = ground.look(x)
    distances = nearest(features, features, 1, same=True)[0][:, 0]
    signals = {
        "samples/finite": finite,
        "samples/spread": mean_distance(features) / ground.spread,
        "samples/vendi": vendi(features[:SAMPLES]) / ground.vendi,
        "samples/duplicates": float((distances <= ground.same).mean()),
        "samples/kid": kid(real=ground.features[:REALS], fake=features).value,
    }
    if ground.sharpness is not None:
        signals["samples/sharpness"] = sharpness(x if x.dtype == torch.uint8 else x.clamp(-1, 1)) / ground.sharpness
    return Measured(signals, ground.kinds.count(features, logits))
