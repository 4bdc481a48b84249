"""Signals of a normalising flow: of a model with an exact likelihood that maps images to codes and back.

* ``flow/scale``: root mean square of the codes of training images, whose base is N(0, I): 1 where the flow fits.
* ``flow/finite``: share of images, trained on and held out, whose log p(x) is a finite number.
* ``flow/train``, ``flow/held``: bits per dimension of training and of held-out images, up to a constant.
* ``flow/round_trip``: largest error of held-out images that are mapped to codes and back, in grey levels; of points,
  whose scale is their standard deviation, likewise.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from limner.core.batch import LEVEL
from limner.core.capabilities import Conditional, Denoises, HasLogProb, Reconstructs
from limner.core.model import GenerativeModel
from limner.doctor.ground import Ground
from limner.doctor.signals.examination import Examination
from limner.evaluation.draws import dequantised

_IMAGES = 64
_SEED = 1_000_039


def applies(model: GenerativeModel) -> bool:
    """Whether a model has a likelihood, encodes and decodes, without steps of a solver."""
    return isinstance(model, HasLogProb) and isinstance(model, Reconstructs) and not isinstance(model, Denoises)


@torch.inference_mode()
def measure(model: GenerativeModel, ground: Ground) -> Examination:
    """The signals of codes and likelihoods."""
    assert isinstance(model, HasLogProb)
    assert isinstance(model, Reconstructs)
    conditional, measure_of = isinstance(model, Conditional), getattr(model, "measure", "density")

    def side(of: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        x, y = of
        return x if ground.is_points else dequantised(x, measure_of, _SEED), y if conditional else None

    x, y = side(ground.real.batch(_IMAGES, model.device))
    held, held_y = (x, y) if ground.held is None else side(ground.held.batch(_IMAGES, model.device))
    dims = x[0].numel()
    bits = {
        name: -model.log_prob(of, labels).double() / (dims * log(2))
        for name, of, labels in (("train", x, y), ("held", held, held_y))
        if name == "train" or ground.held is not None
    }
    again = model.decode(model.encode(held, held_y), held_y)
    off = again - (held if ground.is_points else held.clamp(-1, 1))  # dequantised values reach beyond the range
    unit = LEVEL * (float(x.std()) if ground.is_points else 1.0)
    signals = {
        "flow/scale": float(model.encode(x, y).flatten(1).double().square().mean().sqrt()),
        "flow/finite": float(torch.isfinite(torch.cat(list(bits.values()))).float().mean()),
        "flow/round_trip": float(off.abs().max()) / unit,
    }
    return Examination(signals | {f"flow/{name}": float(values.mean()) for name, values in bits.items()})
