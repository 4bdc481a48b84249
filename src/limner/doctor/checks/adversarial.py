"""Failures of the game between a generator and its critic."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from limner.doctor.checks._check import check
from limner.doctor.checks._judged import judged
from limner.doctor.finding import Finding
from limner.doctor.history import YOUNG, History

WINS = 0.98  # share of pairs that D puts in the right order
FACTOR = 1e-2  # of the slope of D's logit that reaches G
SIGNAL = 1e-2  # of G's gradient at the beginning
TELLS = 0.6  # share of pairs in the right order, up to which D tells next to nothing
TOLD = 0.85  # share of samples and real images that their nearest neighbours tell apart
GAP = 0.5  # of the distance of D's logits of training images and of samples
GROWTH = 3.0  # of the largest singular value
_STEPS = 1000  # over which it is measured
_BEGINNING = 3  # examinations
_NO_CRITIC = "no critic judges the samples of this model"


@check("HasCritic", why_not=_NO_CRITIC, looks_like=("collapse", "noise"))
def vanishing(history: History) -> Finding:
    """D tells all samples from real images, and next to no gradient reaches G: the vanishing gradient.

    With the minimax loss log(1 - D(G(z))) the gradient is multiplied by D(G(z)), which is 0 where D is sure. So the
    better D is, the less G learns. It shows as a D that is always right while the gradient at the samples is less
    than a hundredth of D's slope, or of what it was at the beginning. The non-saturating loss, a penalty on D's
    slope, or noise on D's images helps. `limner lab vanishing-gradient` shows it.
    """
    order, pull, slope = (dict(history.signal(f"critic/{name}")) for name in ("order", "signal", "slope"))
    usual = _beginning(list(pull.values())[:_BEGINNING])
    gradients = history.metric("grad/G")
    usual_gradient = _beginning([v for images, v in gradients if images <= _BEGINNING * 250 * history.batch])
    values: list[tuple[int, float | None]] = []
    for images, right in order.items():
        now, steep = pull.get(images), slope.get(images)
        if right is None or now is None or not steep or not usual:
            values.append((images, None))
            continue
        shares = [now / steep / FACTOR, now / usual / SIGNAL]
        own = next((v for at, v in reversed(gradients) if at <= images and v is not None), None)
        if own is not None and usual_gradient:  # where samples are saturated, nothing of it reaches the weights
            shares.append(own / usual_gradient / SIGNAL)
        values.append((images, min(shares) * FACTOR if right > WINS else 1.0))
    return judged(
        "vanishing",
        values,
        lambda share: share < FACTOR,
        FACTOR,
        bad="D is always right, and G's gradient is {value:.1e} of D's slope, or of what it was at the beginning",
        good="a gradient reaches G",
        missing="needs an examination of D",
    )


def _beginning(values: Sequence[float | None]) -> float:
    """The usual value at the beginning; 0 where there is none."""
    return median([v for v in values if v] or [0.0])


@check("HasCritic", "Draws", why_not=_NO_CRITIC, looks_like=("vanishing", "noise"))
def weak_critic(history: History) -> Finding:
    """D cannot tell samples from real images although they differ, so G learns nothing: D is too weak.

    At the equilibrium D is right half of the time, because there is no difference left. A weak D is right half of the
    time too. What tells them apart is a second judge: if the nearest neighbours of images still tell samples from
    real ones, D is too weak, and if they do not, the game is at its equilibrium. A wider D, more steps of D, or less
    regularisation helps. `limner lab optimal-d` shows what D can know.
    """
    told = dict(history.grown("samples/told"))
    values: list[tuple[int, float | None]] = []
    at_rest = False
    for images, order in history.grown("critic/order"):
        second = told.get(images)
        if order is None or second is None:
            values.append((images, None))
            continue
        at_rest = order < TELLS and second < TELLS + 0.05
        values.append((images, second if order < TELLS else 0.0))
    rest = "D and a second judge tell nothing: this is the equilibrium"
    return judged(
        "weak_critic",
        values,
        lambda second: second > TOLD,
        TOLD,
        bad="D tells next to nothing, and nearest neighbours tell {value:.0%} of samples and real images apart",
        good=rest if at_rest else "D tells samples from real images as far as they differ",
        missing="it takes a training of more than 2,000 steps until D can be judged",
    )


@check("HasCritic", why_not=_NO_CRITIC, looks_like=("copying", "vanishing"))
def critic_overfit(history: History) -> Finding:
    """D knows its training images by heart: it takes held-out images for samples.

    With few images D remembers them, and its gradient tells G nothing about new ones; the samples get worse although
    D gets better. It shows as logits of held-out images that move from those of training images towards those of
    samples (Karras et al. 2020). Augmentation of all that D sees (DiffAugment, ADA) or a stronger penalty helps.
    `limner lab gan` trains on few images.
    """
    order = dict(history.signal("critic/order"))
    values = [
        (images, None if value is None else value if (order.get(images) or 0) > TELLS else 0.0)
        for images, value in history.grown("critic/gap")
    ]
    return judged(
        "critic_overfit",
        values,
        lambda gap: gap > GAP,
        GAP,
        bad="D takes held-out images for samples: their logits are {value:.0%} of the way there",
        good="D takes held-out images for real ones: their logits are {value:.0%} of the way to those of samples",
        missing="needs at least 128 held-out images, and a training of more than 2,000 steps",
    )


@check("HasCritic", why_not=_NO_CRITIC, looks_like=("divergence", "collapse"))
def spectral_growth(history: History) -> Finding:
    """The largest singular value of a net grows quickly, which comes before the breakdown of large GANs.

    The slope of a net is bounded by the product of the singular values of its layers. Where one of them grows without
    bound, small changes of the input change everything, and the training breaks down (Brock et al. 2019). Spectral
    norm, or a penalty on D's slope, bounds them. `limner lab vanishing-gradient` compares such norms.
    """
    steps = {c["images"]: c["step"] for c in history.checks}
    rows: dict[int, float | None] = {}
    worst = ""
    for name in dict.fromkeys(n for c in history.checks for n in c["signals"] if n.startswith("weights/")):
        seen = [(at, v) for at, v in history.signal(name) if steps[at] > YOUNG / 2]
        for at, value in seen:
            before = [v for then, v in seen if steps[then] <= steps[at] - _STEPS and v]
            if not before or value is None:
                continue
            ratio = value / before[-1]
            if ratio > (rows.get(at) or 0.0):
                rows[at], worst = ratio, name.removeprefix("weights/")
    return judged(
        "spectral_growth",
        sorted(rows.items()),
        lambda ratio: ratio > GROWTH,
        GROWTH,
        bad=f"the largest singular value of {worst} is {{value:.1f}} times that of 1,000 steps before",
        good="the largest singular values grow slowly: {value:.2f} times those of 1,000 steps before",
        missing="needs examinations over more than 2,000 steps",
    )
