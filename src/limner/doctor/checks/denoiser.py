"""Failures of models that denoise: diffusion and flow matching."""

from __future__ import annotations

from limner.doctor.checks._check import check
from limner.doctor.checks._judged import EARLY, judged
from limner.doctor.finding import Finding
from limner.doctor.history import History

_NOT_ONE = "this model is no denoiser"
_YOUNG = 300  # steps
_ALONE = 1.05  # times the error of the best denoiser of single pixels, which is the best of all for Gaussian data
_ASSUMED = 6.0  # times the spread of the data, or that part of it, that a model may assume
_REACH = 5.0  # times the spread of the data, which the largest noise must have
_OFF = 2.0  # times the contrast of the data, with the shift of the mean


@check("Denoises", why_not=_NOT_ONE, looks_like=("wrong_range",))
def not_denoising(history: History) -> Finding:
    """The loss is flat and samples are noise: the net knows no images.

    The loss of a diffusion model is a mean over all noise levels. At most of them it is small from the start, so a flat
    curve says little. The test is a middle level, half the spread of the data: whoever knows only the mean and the
    variance of each pixel can lower the noise there to a certain error, and a net that has seen images does far
    better, because it looks at the neighbours. A net that stays at that error, or above it, draws noise, however long
    the sampler runs. Raise or lower the learning rate, and train longer. `limner lab diffusion` shows denoised images
    at every level.
    """
    return judged(
        "not_denoising",
        history.signal("denoise/mid", after=_YOUNG),
        lambda v: v > _ALONE,
        _ALONE,
        bad="noise is removed with {value:.2f} times the error of the best denoiser of single pixels",
        good="noise is removed with {value:.2f} times the error of the best denoiser of single pixels",
    )


@check("Denoises", why_not=_NOT_ONE, looks_like=("not_denoising",))
def wrong_range(history: History) -> Finding:
    """The data have another range than the model assumes, or its images have another range than the data.

    Noise levels mean something only beside the spread of the data. If the data are far wider than the model assumes,
    its largest noise does not drown them, and samples start from noise that no training image was ever under; if they
    are far narrower, all levels but the smallest are wasted. And an image with a little noise must come back with its
    own mean and contrast; if not, samples are too dark, too pale or out of range.
    """
    assumed, reach = history.fact("denoise/assumed"), history.fact("denoise/reach")
    if assumed is not None and reach is not None:
        if reach < _REACH:
            sentence = f"the largest noise is {reach:.2g} times the spread of the data, which shine through; scale them"
            return Finding("wrong_range", "fail", sentence, reach, _REACH)
        if not 1 / _ASSUMED < assumed < _ASSUMED:
            sentence = f"the model assumes {assumed:.2g} times the spread of the data; scale them, or set sigma_data"
            return Finding("wrong_range", "fail", sentence, assumed, _ASSUMED)
    shifts = dict(history.signal("denoise/mean", after=_YOUNG))
    values = [
        (images, None if v is None else max(v, 1 / max(v, 1e-9)) + abs(shifts.get(images) or 0))
        for images, v in history.signal("denoise/std", after=_YOUNG)
    ]
    return judged(
        "wrong_range",
        values,
        lambda v: v > _OFF,
        _OFF,
        bad="mean and contrast of denoised images are off by a factor of {value:.2f}",
        good="denoised images have the mean and the contrast of the data, up to a factor of {value:.2f}",
        missing=EARLY,
    )
