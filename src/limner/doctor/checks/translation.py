"""Failures of translators."""

from __future__ import annotations

from limner.doctor.checks._check import check
from limner.doctor.checks._judged import judged
from limner.doctor.finding import Finding
from limner.doctor.history import History

_NOT_ONE = "this model does not translate images"
_YOUNG = 300  # steps
_SAME = 0.05  # of the change that is expected
_SPREAD = 0.1  # of the distance of two targets
_INVERTED = -0.3  # correlation
_WON = 0.05  # of the loss of D, whose value is 0.5 to 2 where it cannot tell
_WINS = 6  # lines of metrics


@check("Translates", why_not=_NOT_ONE, looks_like=("one_translation",))
def untranslated(history: History) -> Finding:
    """Translations are their sources: nothing is translated.

    Cycle consistency and the identity term are smallest for the net that changes nothing, and so is a perceptual
    content loss. Where they outweigh the critic, that net is learnt. With pairs it happens when sources and targets
    are alike but for a detail. Lower the weight of cycle, identity or content, or look at the data.
    """
    return judged(
        "untranslated",
        history.signal("translation/change", after=_YOUNG),
        lambda v: v < _SAME,
        _SAME,
        bad="translations differ from their sources by {value:.1%} of what is expected",
        good="translations differ from their sources by {value:.0%} of what is expected",
    )


@check("Translates", why_not=_NOT_ONE, looks_like=("untranslated", "discriminator_wins"))
def one_translation(history: History) -> Finding:
    """Every source is translated into the same image: the collapse of a translator.

    G has found an image that D takes for real, and draws it whatever the source. With pairs the L1 term prevents it,
    unless its weight is small; without pairs cycle consistency does, since the source cannot be found again in such an
    image. Raise these weights, or lower the learning rate of G. `limner lab gan` shows the same of a GAN.
    """
    return judged(
        "one_translation",
        history.signal("translation/spread", after=_YOUNG),
        lambda v: v < _SPREAD,
        _SPREAD,
        bad="translations of two sources differ by {value:.1%} of what targets do",
        good="translations of two sources differ by {value:.0%} of what targets do",
    )


@check("Translates", why_not=_NOT_ONE, looks_like=("untranslated",))
def inverted_colours(history: History) -> Finding:
    """Translations are negatives: what was bright is dark.

    Without pairs nothing says that bright must stay bright: a net that inverts colours and its partner that inverts
    them back have a perfect cycle, and a critic of patches can hardly tell. It is decided in the first steps of a
    training. Raise the identity term, or begin again with another seed. With pairs it means that sources and targets
    do not belong together.
    """
    return judged(
        "inverted_colours",
        history.signal("translation/likeness", after=_YOUNG),
        lambda v: v < _INVERTED,
        _INVERTED,
        bad="the correlation of translations with what they should be like is {value:.2f}: they are negatives",
        good="the correlation of translations with what they should be like is {value:.2f}",
    )


@check("Translates", why_not=_NOT_ONE, looks_like=("vanishing",))
def discriminator_wins(history: History) -> Finding:
    """D tells every translation from a real image, so G learns nothing from it.

    A loss of D near 0 means that it is never wrong. Then the gradient that it gives G vanishes, and only the other
    terms train G: with pairs translations become blurred means, without pairs they stay what they are. Make D smaller,
    let it see patches only, lower its learning rate, or take a least-squares loss. `limner lab vanishing_gradient`
    shows why the gradient vanishes.
    """
    lines = [(images, v) for images, v in history.metric("loss/D") if images > _YOUNG * history.batch]
    if not lines and not history.metric("loss/D"):
        return Finding("discriminator_wins", "n/a", "this model has no D")
    return judged(
        "discriminator_wins",
        lines,
        lambda v: v < _WON,
        _WON,
        bad="the loss of D is {value:.3f}: it is hardly ever wrong",
        good="the loss of D is {value:.2f}, so it is wrong often enough",
        to_fail=_WINS,
    )
