"""Failures that samples show, of any model that draws and of folders of pictures."""

from __future__ import annotations

from limner.doctor.checks._check import check
from limner.doctor.checks._judged import judged
from limner.doctor.checks._missing import DEEP, NO_SAMPLES, YOUNG_YET
from limner.doctor.finding import Finding
from limner.doctor.history import History
from limner.metrics.copies import AUTHPCT_COPIES, CT_COPIES

# What these thresholds find, and what they take healthy samples for: `benchmarks/doctor.py level1`.
SPREAD = 0.3  # of the distance of two real images
SURELY = 0.15  # of a young model: healthy ones of 2,000 steps had 0.35 and more, collapsed ones 0.1 (gan-mnist)
DUPLICATES = 0.5  # share of samples; images of one class alone have up to 0.2, the same 30 images 1
WITHIN = 0.7  # of the distance of two real images of one kind
NOISE = 0.45  # of the way from the grain of real images to that of white noise
BLUR = 0.5  # of the variance of the Laplacian of real images
CHECKERBOARD = 2.0  # times the peak of real images or of white noise
AUTHENTIC = -12.0  # points of AuthPct from that of held-out images, beside a low C_T
NEAR = 0.02  # share of samples nearer to training images than 99 % of held-out images
NORM_RATIO = 0.67  # of the Fréchet distances with the statistics of the batch and with the saved ones
_PIXELS = "needs images of 8×8 pixels at least, and a training of more than 2,000 steps"


@check("Draws", why_not=NO_SAMPLES, looks_like=("divergence", "vanishing"))
def noise(history: History) -> Finding:
    """Samples are noise: neighbouring pixels hardly belong together.

    An untrained generator draws noise, and one that has learnt nothing still does. Fully connected generators, which do
    not know that pixels are neighbours, keep some salt and pepper for long. It shows as a correlation of neighbouring
    pixels that is far below that of real images. `limner lab gan` starts from it.
    """
    return judged(
        "noise",
        history.grown("samples/noise", lambda grain: grain > NOISE),
        lambda grain: grain > NOISE,
        NOISE,
        bad="samples are noisy: their grain is at {value:.2f} between that of real images, 0, and that of noise, 1",
        good="samples are as smooth as real images: a grain of {value:.2f} (noise has 1)",
        missing=_PIXELS,
    )


@check("Draws", why_not=NO_SAMPLES, looks_like=("noise",))
def checkerboard(history: History) -> Finding:
    """A pattern that repeats every two pixels lies over the samples: checkerboard artefacts.

    A transposed convolution whose kernel is no multiple of its stride adds to some pixels more often than to others
    (Odena, Dumoulin and Olah 2016). It shows as power at the highest frequency, where real images have least. A
    kernel of 4 with stride 2, or upsampling before a convolution, avoids it. `limner lab dcgan` uses such kernels.
    """
    noisy = dict(history.signal("samples/noise"))
    values = [
        (images, None if value is None or (noisy.get(images) or 0) > NOISE else value)
        for images, value in history.grown("samples/checkerboard", lambda ratio: ratio > CHECKERBOARD)
    ]
    uneven = next((int(v) for _, v in reversed(history.signal("nets/uneven")) if v), 0)
    cause = f"; {uneven} transposed convolutions have a kernel that is no multiple of their stride" if uneven else ""
    return judged(
        "checkerboard",
        values,
        lambda ratio: ratio > CHECKERBOARD,
        CHECKERBOARD,
        bad="a pattern of two pixels lies over the samples: its power is {value:.1f} times that of real images" + cause,
        good="no pattern of two pixels lies over the samples: its power is {value:.2f} of that of real images" + cause,
        missing="needs samples that are no noise; " + _PIXELS,
    )


@check("Draws", why_not=NO_SAMPLES, looks_like=("low_variety",))
def blur(history: History) -> Finding:
    """Samples are less sharp than real images.

    A squared error per pixel is smallest for the mean of all images that are possible, and that mean is blurred; so
    autoencoders and VAEs blur, and GANs do while D is weak. It shows as a variance of the Laplacian that is less than
    half of that of real images. `limner lab vae` shows it beside `limner lab gan`.
    """
    return judged(
        "blur",
        history.grown("samples/sharpness", lambda ratio: ratio < BLUR),
        lambda ratio: ratio < BLUR,
        BLUR,
        bad="samples are blurred: their sharpness is {value:.2f} of that of real images",
        good="samples are sharp: {value:.2f} of the sharpness of real images",
        missing=_PIXELS,
    )


@check("Draws", why_not=NO_SAMPLES, looks_like=("low_variety", "dropped_classes", "vanishing"))
def collapse(history: History) -> Finding:
    """The generator draws nearly the same image, or the same few images, whatever the noise: mode collapse.

    G has found images that D takes for real, and moves all of its samples there. D then learns to refuse them, and G
    moves on to the next. It shows in sheets of samples that look alike, as a mean distance between two samples that
    is a small part of that between two real images, or as samples that are duplicates of one another. `limner lab
    gan` shows it.
    """

    def is_bad(spread: float) -> bool:
        return spread < SPREAD

    # Each kind alone too: ten images, one for each class, are as far apart as real ones.
    same = judged(
        "collapse",
        _least(history, "samples/spread", "samples/within"),
        is_bad,
        SPREAD,
        bad="samples are near-copies of one another: their mean distance is {value:.2f} of that of real images",
        good="samples differ from one another: their mean distance is {value:.2f} of that of real images",
        missing=YOUNG_YET,
    )
    repeated = judged(
        "collapse",
        history.grown("samples/duplicates", lambda share: share > DUPLICATES),
        lambda share: share > DUPLICATES,
        DUPLICATES,
        bad="{value:.0%} of the samples repeat another one",
        good="samples do not repeat one another",
        missing=YOUNG_YET,
    )
    return repeated if same.state in ("pass", "watch") and repeated.state in ("fail", "watch") else same


def _least(history: History, *names: str) -> list[tuple[int, float | None]]:
    """The smallest of some signals at each examination after the model's youth."""
    rows: dict[int, list[float]] = {}
    for name in names:
        for images, value in history.grown(name, lambda spread: SURELY < spread < SPREAD):
            rows.setdefault(images, []).extend([] if value is None else [value])
    return [(images, min(values) if values else None) for images, values in sorted(rows.items())]


@check("Draws", why_not=NO_SAMPLES, looks_like=("collapse", "blur"))
def low_variety(history: History) -> Finding:
    """Samples of one kind are more alike than real images of that kind: a partial collapse, or truncation.

    All classes are there, and each sample may look good; but the generator draws the typical image of a class and
    leaves out the rare ones. Truncated sampling does the same on purpose. It shows as a mean distance between two
    samples of one class below that between two real images of the class. `limner lab gan` shows samples of one digit
    side by side.
    """
    return judged(
        "low_variety",
        history.grown("samples/within", lambda spread: spread < WITHIN),
        lambda spread: spread < WITHIN,
        WITHIN,
        bad="samples of one kind are too alike: their mean distance is {value:.2f} of that of real images of the kind",
        good="samples of one kind differ: their mean distance is {value:.2f} of that of real images of the kind",
        missing=YOUNG_YET,
    )


@check("Draws", why_not=NO_SAMPLES, looks_like=("collapse", "critic_overfit"))
def copying(history: History) -> Finding:
    """Samples are copies of training images: the model has learnt them by heart.

    New images of the same kind lie at some distance from the training images, as held-out images do. If samples lie
    nearer (C_T, Meehan et al. 2020) and in the way of copies (AuthPct, Alaa et al. 2022), the model repeats what it
    saw. It happens with few images and long trainings, and a Fréchet distance against training images rewards it.
    `limner evaluate` shows the nearest pairs.
    """
    ct, authentic, near = (history.signal(f"deep/{name}") for name in ("ct", "authpct", "near"))
    images, value = ct[-1] if ct else (0, None)
    if value is None:
        return Finding("copying", "unknown", DEEP + "; and held-out images")
    points, share = ((found[-1][1] or 0.0) if found else 0.0 for found in (authentic, near))
    # C_T alone is low for truncated samples too, which lie where training images are dense.
    if (value < CT_COPIES and points < AUTHENTIC) or (points < AUTHPCT_COPIES and share > NEAR):
        sentence = (
            f"samples are nearer to training images than new images are: C_T is {value:.1f}, and AuthPct {-points:.0f}"
            " points below that of held-out images"
        )
        return Finding("copying", "fail", sentence, value, CT_COPIES, images)
    sentence = f"samples are no nearer to training images than new images are: C_T is {value:.1f}"
    return Finding("copying", "pass", sentence, value, CT_COPIES)


@check("Draws", why_not=NO_SAMPLES, looks_like=("blur", "noise"))
def batch_norm(history: History) -> Finding:
    """Batch norm in use differs from batch norm in training, so samples are worse than those that G was trained with.

    In training, batch norm takes mean and variance of the batch; in use it takes averages that it saved. Where these
    lag behind, or where the averaged weights need others, the saved ones do not fit. It shows as a Fréchet distance
    that is lower with the statistics of the batch. Estimating them again, or a norm without them, helps.
    """
    values = history.signal("deep/batch_norm")
    if not values and history.signal("deep/ct"):
        return Finding("batch_norm", "n/a", "this model has no batch norm with saved statistics")
    return judged(
        "batch_norm",
        values,
        lambda ratio: ratio < NORM_RATIO,
        NORM_RATIO,
        bad="with the statistics of the batch the Fréchet distance is {value:.2f} of that with the saved ones",
        good="the saved statistics of batch norm fit: a ratio of Fréchet distances of {value:.2f}",
        missing=DEEP,
        to_fail=1,
    )
