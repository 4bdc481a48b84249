"""Scores that follow from what a model can do: reconstruct, bound its likelihood, hit modes that are known."""

from __future__ import annotations

import math

import torch

from limner.core.batch import Dataset
from limner.core.capabilities import Corrupts, HasBound, Reconstructs
from limner.core.model import GenerativeModel
from limner.evaluation.likelihood import Likelihood, bits, bounds
from limner.evaluation.reconstruction import denoising_psnr, reconstruction_psnr
from limner.metrics.modes import Modes, point_modes, stacked_modes
from limner.metrics.scorecard import Card, Score

MEASURES_OF_P = {
    "bernoulli": "grey values taken as probabilities of white: comparable among Bernoulli models only",
    "density": "density of uniformly dequantised pixels",
    "discrete": "probability of the 256 grey values",
    "unit_density": "density of uniformly dequantised pixels on [0,1]",
}
"""What p(x) is, by the name that a model has for it."""
_POINTS = 2500  # samples that modes are counted on (PacGAN)
_STACKED = 2600  # a tenth of what papers count on, so that the end of a training does not take minutes
_LIMIT = 2000  # held-out images scored for likelihood at the end of training


def of_capabilities(model: GenerativeModel, heldout: Dataset, device: torch.device | str = "cpu") -> Card:
    """Reconstruction, likelihood bounds and known modes, by name; empty for models and data without any.

    `error` is one standard error over images.
    """
    return reconstruction(model, heldout, device) | likelihoods(model, heldout, device) | modes(model, heldout)


def reconstruction(model: GenerativeModel, heldout: Dataset, device: torch.device | str) -> Card:
    """How well held-out images come back, for models that encode and decode."""
    on = f"{len(heldout)} held-out images of {heldout.name}"
    if isinstance(model, Corrupts) and isinstance(model, Reconstructs):
        found = denoising_psnr(model, heldout, device)
    elif isinstance(model, Reconstructs):
        values = reconstruction_psnr(model, heldout, device)
        found = {"psnr_db": (values, "peak signal-to-noise ratio of reconstructions, mean over images")}
    else:
        return {}
    card = {}
    for name, (values, how) in found.items():
        error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else None
        card[name] = Score(float(values.mean()), "dB", on, how, "latent", error, better="higher")
    return card


def likelihoods(model: GenerativeModel, heldout: Dataset, device: torch.device | str, limit: int = _LIMIT) -> Card:
    """Bounds of the likelihood, for models that have them."""
    if not isinstance(model, HasBound):
        return {}
    return of_bounds(bounds(model, heldout, k=50, device=device, limit=limit), model.measure, heldout)


def of_bounds(found: Likelihood, measure: str, heldout: Dataset) -> Card:
    """Bounds as scores."""
    dims = heldout.shape[0] * heldout.shape[1] * heldout.shape[2]
    on, what = f"{found.n} held-out images of {heldout.name}", MEASURES_OF_P[measure]
    nats = "nats per image"
    return {
        "elbo_nats": Score(
            found.elbo, nats, on, f"evidence lower bound, {what}", "likelihood", found.elbo_error, better="higher"
        ),
        "iwae50_nats": Score(
            found.iwae, nats, on, f"importance-weighted bound with {found.k} draws (Burda et al. 2015), {what}",
            "likelihood", found.iwae_error, better="higher",
        ),
        "bits_per_dim": bits_score(
            bits(found.iwae, dims, measure), found.iwae_error / (dims * math.log(2)), f"IWAE-{found.k}", measure, on
        ),
    }  # fmt: skip


def bits_score(value: float, error: float, kind: str, measure: str, on: str) -> Score:
    """Bits per dimension; on grey values 8 bits are what uniform noise needs, and the floor."""
    grey = measure != "bernoulli"
    return Score(
        value, "bits per dimension", on, f"{kind}, {MEASURES_OF_P[measure]}", "likelihood", error, better="lower",
        ceiling=0.0 if grey else None, floor=8.0 if grey else None,
        norm=min(max(1 - value / 8, 0.0), 1.0) if grey else None,
    )  # fmt: skip


def modes(model: GenerativeModel, heldout: Dataset) -> Card:
    """Modes found, where the data have modes that are known."""
    centres = getattr(heldout, "centres", None)
    if centres is not None:
        counted = point_modes(model.sample(_POINTS, seed=0).cpu(), centres, getattr(heldout, "sigma", 0.0))
    elif heldout.name == "stacked-mnist" and heldout.shape[0] == 3:
        counted = stacked_modes(model.sample(_STACKED, seed=0))
    else:
        return {}
    return mode_scores(counted, heldout.name)


def mode_scores(counted: Modes, name: str) -> Card:
    """Mode counts as scores."""
    on = f"{counted.n} samples against the {counted.known} modes of {name}"
    what = "a sample within 3 standard deviations" if counted.high_quality is not None else "a sample, by lenet64-v1"
    of = f"of {counted.known}"
    card = {"modes": Score(counted.found, of, on, f"modes with at least {what}", "coverage", better="higher")}
    if counted.high_quality is not None:
        how = f"within 3 standard deviations of a mode; a perfect sampler has {counted.ceiling:.3f}"
        card["high_quality"] = Score(counted.high_quality, "of samples", on, how, "quality", better="higher")
    if counted.kl is not None:
        how = f"KL(p_G || p_data) over modes; a perfect sampler has about {counted.floor:.2g} at this many samples"
        card["reverse_kl"] = Score(counted.kl, "nats", on, how, "coverage", better="lower")
    return card
