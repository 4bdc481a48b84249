"""Failures of style transfer."""

from __future__ import annotations

from statistics import median

from limner.doctor.checks._check import check
from limner.doctor.checks._judged import judged
from limner.doctor.finding import Finding
from limner.doctor.history import History

_NOT_ONE = "this model does not paint in a style"
_LINES = 4  # of metrics
_FALL = 0.01  # of the first loss
_ENDS = 0.2  # share of the values


@check("Paints", why_not=_NOT_ONE)
def no_descent(history: History) -> Finding:
    """The loss does not fall.

    Style transfer descends a loss, of the pixels of one picture or of the weights of a net, and every step should lower
    it. A loss that stays where it began means that the steps are too small to see, or so large that each undoes the
    last; or that content and style ask for nothing, as where they are the same picture. L-BFGS chooses its steps
    itself, Adam wants a learning rate of about 0.02 for pixels. `limner lab style` shows both.
    """
    name = next(history.losses(), None)
    lines = [(images, v) for images, v in history.metric(name) if v is not None] if name else []
    if len(lines) < _LINES:
        return Finding("no_descent", "unknown", f"it needs {_LINES} lines of metrics")
    first = lines[0][1]
    now = median(v for _, v in lines[-3:])
    fallen = 1 - now / first if first else 0.0
    if fallen > _FALL:
        return Finding("no_descent", "pass", f"the loss has fallen by {fallen:.0%}", fallen, _FALL)
    sentence = f"the loss was {first:.3g} at first and is {now:.3g}"
    return Finding("no_descent", "fail", sentence, fallen, _FALL, lines[0][0])


@check("Paints", why_not=_NOT_ONE, looks_like=("no_descent",))
def saturated(history: History) -> Finding:
    """Many pixels are at the ends of the range, black, white or glaring colours.

    Pixels are clamped to the range of an image. Steps that are too large throw them from one end to the other, and
    there they stay: the picture is made of the eight corners of the colour cube. Content and style may have black and
    white of their own, so only what they do not have counts. Lower the learning rate, or take L-BFGS; a weight of
    smoothness helps against single glaring pixels.
    """
    return judged(
        "saturated",
        history.signal("style/saturated"),
        lambda v: v > _ENDS,
        _ENDS,
        bad="{value:.0%} more values than in content or style are at the ends of the range",
        good="no more values than in content and style are at the ends of the range, up to {value:.0%}",
        to_fail=1,
    )
