"""Failures of normalising flows."""

from __future__ import annotations

from limner.doctor.checks._check import check
from limner.doctor.checks._judged import judged
from limner.doctor.finding import Finding, trend
from limner.doctor.history import History

_NOT_A_FLOW = "this model is no flow: it has no exact likelihood that it computes by inverting itself"
_YOUNG = 200  # steps
_FAR = 3.0  # of the scale of N(0, I), in either direction
_LEVEL = 1.0  # grey level
_GAP = 0.2  # bits per dimension between held-out and training images
_RISE = 0.1  # bits per dimension above the best so far


@check("Inverts", why_not=_NOT_A_FLOW, looks_like=("not_invertible", "divergence"), rolls_back=True)
def exploding_scales(history: History) -> Finding:
    """Codes of images are far from N(0, I), or likelihoods are not finite: the scales of the flow explode.

    A coupling layer multiplies by exp(s). If s has no bound, a few layers make numbers that no float can hold, or
    squeeze all images to a point; the log-likelihood has jumps or becomes infinite. A flow that fits gives images codes
    whose root mean square is 1. Clip the gradient, lower the learning rate, and bound s, for which couplings use tanh.
    `limner lab flow` explains the change of variables.
    """
    finite = trend(history.signal("flow/finite"), lambda v: v < 1, to_fail=1)
    if finite is not None and finite.state == "fail":
        sentence = f"log p(x) is no finite number for {1 - finite.value:.0%} of the images"
        return Finding("exploding_scales", "fail", sentence, finite.value, 1.0, finite.since)
    return judged(
        "exploding_scales",
        history.signal("flow/scale", after=_YOUNG),
        lambda v: not 1 / _FAR < v < _FAR,
        _FAR,
        bad="codes of images have a root mean square of {value:.3g}; those of N(0, I) have 1",
        good="codes of images have a root mean square of {value:.2f}, near the 1 of N(0, I)",
    )


@check("Inverts", why_not=_NOT_A_FLOW, looks_like=("exploding_scales",), rolls_back=True)
def not_invertible(history: History) -> Finding:
    """An image that is encoded and decoded comes back as another one: the flow is not invertible in practice.

    A flow is invertible by construction, but only as far as floats go: where scales are very large or very small, the
    way back loses the digits. Samples then have grains or wild pixels though the likelihood looks good, and the
    likelihood itself is not to be trusted. One grey level is visible at best; errors above it are a fault. Remedies are
    those of exploding scales.
    """
    return judged(
        "not_invertible",
        history.signal("flow/round_trip"),
        lambda v: v > _LEVEL,
        _LEVEL,
        bad="images that are encoded and decoded come back up to {value:.3g} grey levels off",
        good="images that are encoded and decoded come back exactly, up to {value:.2g} grey levels",
    )


@check("Inverts", why_not=_NOT_A_FLOW, looks_like=("tiny_set",))
def likelihood_overfit(history: History) -> Finding:
    """The likelihood of new images falls while that of training images rises: overfitting.

    A flow learns a density, and with few images the best one is a peak at each of them. Bits per dimension of training
    images go on falling, those of held-out images turn and rise: from there on it learns by heart. Keep the checkpoint
    of the turn, or take more images, augmentation or a smaller net.
    """
    trained = dict(history.signal("flow/train", after=_YOUNG))
    best, values = float("inf"), list[tuple[int, float | None]]()
    for images, held in history.signal("flow/held", after=_YOUNG):
        before = trained.get(images)
        if held is None or before is None:
            values.append((images, None))
            continue
        best = min(best, held)
        values.append((images, held - best if held - before > _GAP else 0.0))
    return judged(
        "likelihood_overfit",
        values,
        lambda v: v > _RISE,
        _RISE,
        bad="held-out images need {value:.2f} bits per dimension more than at their best, and training images fewer",
        good="held-out images need {value:.2f} bits per dimension more than at their best",
        missing="it needs held-out images, and a longer training",
    )
