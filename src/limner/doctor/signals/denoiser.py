"""Signals of a denoiser, of any diffusion or flow-matching model, at three noise levels of the data's own scale.

A denoiser is compared with the best that can be said without looking at the rest of the image: each pixel drawn to its
mean by v/(v + σ²) with its variance v (Wiener), whose error is v σ²/(v + σ²). Both the mean image and the noisy image
itself are worse than that.

* ``denoise/low``, ``denoise/mid``, ``denoise/high``: mean squared error over that of the best for single pixels, at a
  tenth, half and twice the standard deviation of the data. At 1 nothing was learnt; below 1 it knows images.
* ``denoise/mean``, ``denoise/std``: mean of images denoised at the low level less that of the images, in standard
  deviations of the data; and the ratio of their standard deviations: 0 and 1 where the range is right.
* ``denoise/assumed``: standard deviation that the model assumes, over that of the data.
* ``denoise/reach``: largest noise level, which samples start from, over the standard deviation of the data.
"""

from __future__ import annotations

import torch

from limner.core.batch import to_float
from limner.core.capabilities import Conditional, Denoises
from limner.core.model import GenerativeModel
from limner.doctor.ground import Ground
from limner.doctor.signals.examination import Examination

LEVELS = {"low": 0.1, "mid": 0.5, "high": 2.0}
"""Noise levels over the standard deviation of the data."""
_IMAGES = 64
_SEED = 1_000_081


def applies(model: GenerativeModel) -> bool:
    """Whether a model denoises."""
    return isinstance(model, Denoises)


@torch.inference_mode()
def measure(model: GenerativeModel, ground: Ground) -> Examination:
    """The signals of denoised images."""
    assert isinstance(model, Denoises)
    every = to_float(ground.real.images).float()
    variance = every.var(0).double()
    scale = float(every.std())
    if not scale:
        return Examination()
    x, y = ground.real.batch(_IMAGES, model.device)
    y = y if isinstance(model, Conditional) else None
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(_SEED)).to(x.device)
    signals = {"denoise/assumed": model.sigma_data / scale, "denoise/reach": model.sigma_max / scale}
    for name, level in LEVELS.items():
        sigma = min(max(level * scale, model.sigma_min), model.sigma_max)
        denoised = model.denoise(x + sigma * noise, x.new_full((len(x),), sigma), y).float()
        alone = float((variance * sigma**2 / (variance + sigma**2)).mean())
        signals[f"denoise/{name}"] = float((denoised - x).square().mean()) / alone
        if name == "low":
            signals["denoise/mean"] = float(denoised.mean() - x.mean()) / scale
            signals["denoise/std"] = float(denoised.std() / x.std())
    return Examination(signals)
