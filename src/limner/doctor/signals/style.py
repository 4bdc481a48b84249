"""Signals of pictures in a style, of any model that paints: by optimising pixels, for one style or for any.

* ``style/saturated``: share of the values of a picture at the ends of the range, -1 and 1, less that of its content or
  of its style, whichever has more. Where it is high, the step is too large and pixels are thrown from end to end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core.batch import LEVEL, Styled
from limner.core.capabilities import Stylises, Translates
from limner.core.inference import stylised, translated
from limner.core.model import GenerativeModel
from limner.doctor.ground import Ground
from limner.doctor.signals.examination import Examination

_IMAGES = 4


def applies(model: GenerativeModel) -> bool:
    """Whether a model paints in a style."""
    return model.batch_type is Styled or isinstance(model, Stylises)


@torch.inference_mode()
def measure(model: GenerativeModel, ground: Ground) -> Examination:
    """The signals of pictures."""
    content, styles, *_ = ground.batch(_IMAGES, model.device)
    if isinstance(model, Stylises):
        picture = stylised(model, content, [model.encode_features(styles)])
    elif isinstance(model, Translates):
        picture = translated(model, content)
    else:
        picture = model.sample(1)
    ends = max(_at_the_ends(content), *(_at_the_ends(style) for style in styles))
    return Examination({"style/saturated": _at_the_ends(picture) - ends})


def _at_the_ends(x: Tensor) -> float:
    """Share of values within half a grey level of -1 or 1."""
    return float((x.abs() >= 1 - LEVEL / 2).float().mean())
