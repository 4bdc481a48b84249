"""Failures of models with a posterior: VAEs."""

from __future__ import annotations

from limner.doctor.checks._check import check
from limner.doctor.checks._judged import judged
from limner.doctor.finding import Finding
from limner.doctor.history import History

_NOT_A_VAE = "this model has no posterior q(z|x)"
_YOUNG = 500  # steps during which the KL of a healthy VAE may still be near 0
_USED = 0.1  # share of the numbers of a code
_NATS = 1.0  # of KL


@check("HasPosterior", why_not=_NOT_A_VAE, looks_like=("kl_vanishing", "not_reconstructing"))
def posterior_collapse(history: History) -> Finding:
    """Numbers of the code are the same for every image: posterior collapse.

    The loss of a VAE is reconstruction plus KL(q(z|x) ‖ p(z)). A number of the code that helps the decoder less than it
    costs in KL is switched off: its posterior becomes the prior N(0, 1), and the decoder does without it. That some are
    switched off is normal, and how a VAE chooses its size; when nearly all are, samples and reconstructions are one
    blurred mean image. A number counts as used when its mean varies from image to image by more than 0.01 (Burda,
    Grosse and Salakhutdinov 2016). It comes of a large beta, of a decoder that needs no code, or of a learning rate
    that is too high. `limner lab vae` shows how the two parts of the loss pull against each other.
    """
    units = history.fact("posterior/units")
    values = [
        (images, None if v is None or not units else v / units)
        for images, v in history.signal("posterior/active", after=_YOUNG)
    ]
    used = history.fact("posterior/active")
    words = f"{used or 0:.0f} of {units or 0:.0f} numbers of a code say anything about an image"
    return judged("posterior_collapse", values, lambda v: v < _USED, _USED, bad=f"only {words}", good=words)


@check("HasPosterior", why_not=_NOT_A_VAE, looks_like=("posterior_collapse",))
def kl_vanishing(history: History) -> Finding:
    """The code says next to nothing about an image: its KL vanishes.

    KL(q(z|x) ‖ p(z)) is the number of nats that a code tells the decoder about an image. The VAE may lower it to 0 by
    giving every image the prior as its posterior; then the decoder draws without knowing what. Early in a training the
    KL is small and grows as the decoder learns to use the code; that it stays below one nat, about the answer to one
    and a half yes-or-no questions, means that the decoder has learnt to do without. Lower beta, or let it rise slowly
    from 0. `limner lab vae` explains the term.
    """
    return judged(
        "kl_vanishing",
        history.signal("posterior/kl", after=_YOUNG),
        lambda v: v < _NATS,
        _NATS,
        bad="a code tells {value:.2f} nats about an image: the decoder does without it",
        good="a code tells {value:.1f} nats about an image",
    )
