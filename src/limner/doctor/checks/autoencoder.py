"""Failures of models that encode an image and decode it again."""

from __future__ import annotations

from limner.doctor.checks._check import check
from limner.doctor.checks._judged import judged
from limner.doctor.finding import Finding
from limner.doctor.history import History

_NOT_ONE = "this model does not encode and decode images"
_YOUNG = 500  # steps
_BLIND = 0.95  # of the variance of the pixels
_DEAD = 0.5  # share of the numbers of a code
_COPIED = 0.5  # of the variance of the pixels of noise
_FITTED = 0.05  # of the variance of the pixels, below which images count as reconstructed
_GAP = 0.1  # of the variance of the pixels: smaller differences of new and training images are none
_TIMES = 2.0  # times the error of training images
_BLUR = 0.25  # of the variance of the Laplacian of the images: watched
_SMEARED = 0.02  # of the variance of the Laplacian of the images: fails


@check("Autoencodes", why_not=_NOT_ONE, looks_like=("posterior_collapse", "dead_units"))
def not_reconstructing(history: History) -> Finding:
    """Reconstructions are no better than the mean image.

    The least that a decoder can learn is the mean of all images; whoever draws it for every image has an error of the
    variance of the pixels. A model that is not clearly better has a code that says nothing, units that are dead, or a
    learning rate with which nothing settles. The sheet of reconstructions shows one grey shape for all images.
    `limner lab ae` shows how the error falls with the size of the code.
    """
    return judged(
        "not_reconstructing",
        history.signal("code/error", after=_YOUNG),
        lambda v: v > _BLIND,
        _BLIND,
        bad="reconstructions miss {value:.0%} of the variance of the pixels, about as the mean image does",
        good="reconstructions miss {value:.0%} of the variance of the pixels",
    )


@check("Autoencodes", why_not=_NOT_ONE, looks_like=("not_reconstructing",))
def dead_units(history: History) -> Finding:
    """Most numbers of the code never change: dead units.

    A unit with ReLU whose input is below 0 for every image gives 0 for every image, its gradient is 0, and it never
    comes back. A large step can kill many at once. A code with few dead units is only smaller than it was meant to be;
    where more than half are dead, lower the learning rate, or the weight of a sparsity penalty. In a sparse autoencoder
    most units are off for *one* image, which is its purpose; dead are those that are off for *all*. `limner lab ae`
    shows the codes of a sparse autoencoder.
    """
    return judged(
        "dead_units",
        history.signal("code/dead", after=_YOUNG),
        lambda v: v > _DEAD,
        _DEAD,
        bad="{value:.0%} of the numbers of a code are alike for all images",
        good="{value:.0%} of the numbers of a code are alike for all images",
        missing="it needs a code without a posterior, and a longer training"
        if "HasPosterior" in history.abilities
        else "it takes a longer training until this can be judged",
    )


@check("Autoencodes", why_not=_NOT_ONE)
def copying_input(history: History) -> Finding:
    """Noise is reconstructed as well as images: the net copies its input.

    A code that is as large as the image or larger (an overcomplete autoencoder) can hold every pixel, so the net may
    learn to pass the image through. Its error is near 0 and it has learnt nothing about images: it does the same to
    noise. It shows when noise whose pixels are each taken from another image comes back unharmed. An overcomplete code
    needs another task: removing noise (`denoising-ae-mnist`), or few active units (`sparse-ae-mnist`). `limner lab ae`
    compares them.
    """
    errors = dict(history.signal("code/error", after=_YOUNG))
    values = [
        # Before it reconstructs images, a model cannot be said to copy them.
        (images, None if v is None or (errors.get(images) or 0) > _FITTED else v)
        for images, v in history.signal("code/noise", after=_YOUNG)
    ]
    if values and all(v is None for _, v in values):
        return Finding("copying_input", "pass", "it does not pass images through unharmed", None, _COPIED)
    return judged(
        "copying_input",
        values,
        lambda v: v < _COPIED,
        _COPIED,
        bad="noise comes back with {value:.0%} of its variance missing: whatever is shown, is copied",
        good="noise comes back with {value:.0%} of its variance missing, so images are not just copied",
    )


@check("Autoencodes", why_not=_NOT_ONE, looks_like=("tiny_set",))
def reconstruction_overfit(history: History) -> Finding:
    """Training images are reconstructed far better than new ones: overfitting.

    An autoencoder with more weights than the images need can learn them by heart. The loss goes on falling, while
    images that it was not trained on come back worse and worse. Stop earlier, take a smaller code or net, more images
    or a task that is harder, such as removing noise. `limner lab ae` compares both errors.
    """
    errors = dict(history.signal("code/error", after=_YOUNG))
    values = list[tuple[int, float | None]]()
    for images, held in history.signal("code/held", after=_YOUNG):
        error = errors.get(images)
        if held is None or error is None:
            values.append((images, None))
        else:
            values.append(
                (images, held / max(error, 1e-9) if held - error > _GAP else min(1.0, held / max(error, 1e-9)))
            )
    return judged(
        "reconstruction_overfit",
        values,
        lambda v: v > _TIMES,
        _TIMES,
        bad="the error of new images is {value:.1f} times that of training images",
        good="new images are reconstructed about as well as training images",
        missing="it needs held-out images, and a longer training",
    )


@check("Autoencodes", why_not=_NOT_ONE, looks_like=("not_reconstructing", "posterior_collapse"))
def blurred_reconstructions(history: History) -> Finding:
    """Reconstructions are blurred.

    A loss that compares pixels is smallest for the mean of all images that a code may stand for, and a mean of sharp
    edges at several places is a soft edge. So reconstructions and samples of a VAE, and of any autoencoder with a small
    code, are smoother than images: a known property, which is watched and only fails where hardly an edge is left. A
    larger code, a smaller beta or an adversarial loss make them sharper. `limner lab vae` shows it.
    """
    values = history.signal("code/sharpness", after=_YOUNG)
    words = "edges of reconstructions have {value:.0%} of the strength of those of images"
    smeared = judged("blurred_reconstructions", values, lambda v: v < _SMEARED, _SMEARED, bad=words, good=words)
    if smeared.state == "fail":
        return smeared
    return judged(
        "blurred_reconstructions",
        values,
        lambda v: v < _BLUR,
        _BLUR,
        bad=words + ", as is usual for a loss of pixels",
        good=words,
        missing="it needs images of 3 by 3 pixels at least, and a longer training",
        at_most_watch=True,
    )
