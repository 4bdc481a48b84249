"""Signals of samples, of any model that draws with a few calls of its nets, and of any folder of pictures.

* ``samples/finite``: share of values that are finite numbers.
* ``samples/spread``: mean feature distance of two samples over that of two training images; 1 when equal.
* ``samples/within``: the same of two samples of one kind, the mean over kinds.
* ``samples/vendi``: effective number of different samples (Friedman and Dieng 2023) over that of as many real ones.
* ``samples/duplicates``: share of samples with another one so near that it counts as the same.
* ``samples/kid``: unbiased kernel distance to training images (Bińkowski et al. 2018).
* ``samples/told``: share of samples and as many training images whose nearest neighbour is of their own sort: 0.5 when
  equal, 1 when they are told apart (Lopez-Paz and Oquab 2017, section 2).
* ``samples/sharpness``: variance of the Laplacian over that of real images: below 1 is blur.
* ``samples/noise``: grain of the pixels, from 0 as in real images to 1 as in white noise.
* ``samples/checkerboard``: peak of the power at patterns of two pixels among high frequencies, over that of real images
  or of white noise, whichever is higher.

A conditional model is asked for the labels of training images, and has the signals of `conditional` too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core.batch import Styled, to_uint8
from limner.core.capabilities import Generates, Stylises, Translates
from limner.core.model import GenerativeModel
from limner.doctor.ground import Ground, mean_distance, within_kinds
from limner.doctor.signals import conditional
from limner.doctor.signals.examination import Examination
from limner.evaluation.cost import count_evaluations
from limner.metrics.diversity import vendi
from limner.metrics.quality import grain, pattern, sharpness

SAMPLES = 128
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


def measure(model: GenerativeModel, ground: Ground) -> Examination:
    """The signals of new samples."""
    y = conditional.asked(model, ground, SAMPLES)
    x = model.sample(SAMPLES, y=y, seed=_SEED)
    looked = ground.look(x)
    found = of_images(x, ground, looked)
    if y is not None:
        found.signals |= conditional.of_features(looked[0], y, model, ground)
    return found


@torch.inference_mode()
def of_images(x: Tensor, ground: Ground, looked: tuple[Tensor, Tensor | None] | None = None) -> Examination:
    """The signals of images (N,C,H,W), uint8 or in [-1,1], or of points.

    Args:
        x: the images.
        ground: the real images.
        looked: what `Ground.look` says of x, where that is known already.
    """
    finite = 1.0 if x.dtype == torch.uint8 else float(torch.isfinite(x).float().mean())
    features, logits = ground.look(x) if looked is None else looked
    kinds = ground.kinds.of_each(features, logits)
    within = within_kinds(features, kinds, len(ground.kinds.names)) / ground.within
    apart = torch.cdist(features, features).fill_diagonal_(float("inf"))
    signals = {
        "samples/finite": finite,
        "samples/spread": mean_distance(features) / ground.spread,
        "samples/vendi": vendi(features) / ground.vendi_of(len(features)),
        "samples/duplicates": float((apart.min(1).values <= ground.same).float().mean()),
        "samples/kid": ground.kid(features),
        "samples/told": _told(features, ground.features[: len(features)]),
    }
    known = within[within.isfinite()]
    if len(known):
        signals["samples/within"] = float(known.mean())
    return Examination(signals | _looks(x, ground), torch.bincount(kinds, minlength=len(ground.kinds.names)).tolist())


def _looks(x: Tensor, ground: Ground) -> dict[str, float]:
    """The signals of the pixels (N,C,H,W); none of points and of tiny images."""
    real = ground.looks
    if not real:
        return {}
    x = x if x.dtype == torch.uint8 else to_uint8(x.nan_to_num().clamp(-1, 1)).cpu()
    found = {"samples/checkerboard": pattern(x).beside(real["high"]) / max(real["checkerboard"], 1.0)}
    if real["sharpness"]:
        found["samples/sharpness"] = sharpness(x) / real["sharpness"]
    if real["grain"] < 1:
        found["samples/noise"] = (grain(x) - real["grain"]) / (1 - real["grain"])
    return found


def _told(fake: Tensor, real: Tensor) -> float:
    """Share of fake and real features (N,d) whose nearest neighbour is of their own sort."""
    distances = torch.cdist(both := torch.cat([fake, real]), both).fill_diagonal_(float("inf"))
    is_fake = torch.arange(len(both)) < len(fake)
    own = (is_fake[distances.argmin(1)] == is_fake).float()
    return float((own[: len(fake)].mean() + own[len(fake) :].mean()) / 2)
