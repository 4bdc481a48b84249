"""The scores that training leaves in ``scores.json``: what the model's capabilities allow, each with its conditions."""

from __future__ import annotations

import math
from typing import Any

import torch

from limner.core.batch import Dataset
from limner.core.model import Bounds, Corrupts, GenerativeModel, Reconstructs
from limner.losses.likelihood import bits_per_dim
from limner.metrics.likelihood import bounds
from limner.metrics.modes import Modes, point_modes, stacked_modes
from limner.metrics.reconstruction import denoising_psnr, reconstruction_psnr

_MEASURES = {
    "bernoulli": "grey values taken as probabilities of white: comparable among Bernoulli models only",
    "density": "density of uniformly dequantised pixels",
    "discrete": "probability of the 256 grey values",
}
_POINTS = 2500  # samples that modes are counted on (PacGAN)
_STACKED = 2600  # a tenth of what papers count on, so that the end of a training does not take minutes
_LIMIT = 2000  # held-out images scored for likelihood at the end of training


def score(model: GenerativeModel, heldout: Dataset, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Scores by name: ``{"psnr_db": {"value", "error", "unit", "on", "how"}, …}``. Empty for models without any.

    `error` is one standard error over images.
    """
    scores: dict[str, Any] = {}
    on = f"{len(heldout)} held-out images of {heldout.name}"
    if isinstance(model, Corrupts) and isinstance(model, Reconstructs):
        for name, (values, how) in denoising_psnr(model, heldout, device).items():
            scores[name] = _entry(values, "dB", on, how)
    elif isinstance(model, Reconstructs):
        values = reconstruction_psnr(model, heldout, device)
        scores["psnr_db"] = _entry(values, "dB", on, "peak signal-to-noise ratio of reconstructions, mean over images")
    if isinstance(model, Bounds):
        found = bounds(model, heldout, k=50, device=device, limit=_LIMIT)
        dims = heldout.shape[0] * heldout.shape[1] * heldout.shape[2]
        some = f"{found.n} held-out images of {heldout.name}"
        measure = _MEASURES[model.measure]
        bits = float(bits_per_dim(torch.tensor(found.iwae), dims))
        if model.measure == "density":
            bits += math.log2(127.5)  # from a density on [-1,1] to one on grey values 0…255
        scores["elbo_nats"] = {
            "value": found.elbo,
            "error": found.elbo_error,
            "unit": "nats per image",
            "on": some,
            "how": f"evidence lower bound, {measure}",
        }
        scores["iwae50_nats"] = {
            "value": found.iwae,
            "error": found.iwae_error,
            "unit": "nats per image",
            "on": some,
            "how": f"importance-weighted bound with 50 draws (Burda et al. 2015), {measure}",
        }
        scores["bits_per_dim"] = {
            "value": bits,
            "unit": "bits per dimension",
            "on": some,
            "how": f"from the importance-weighted bound, {measure}",
        }
    return scores | _modes(model, heldout)


def _modes(model: GenerativeModel, heldout: Dataset) -> dict[str, Any]:
    """Modes found, where the data have modes that are known."""
    centres = getattr(heldout, "centres", None)
    if centres is not None:
        counted = point_modes(model.sample(_POINTS, seed=0).cpu(), centres, getattr(heldout, "sigma", 0.0))
    elif heldout.name == "stacked-mnist" and heldout.shape[0] == 3:
        counted = stacked_modes(model.sample(_STACKED, seed=0))
    else:
        return {}
    return mode_scores(counted, heldout.name)


def mode_scores(counted: Modes, name: str) -> dict[str, Any]:
    """Mode counts as scores."""
    on = f"{counted.n} samples against the {counted.known} modes of {name}"
    what = "a sample within 3 standard deviations" if counted.high_quality is not None else "a sample, by lenet64-v1"
    scores: dict[str, Any] = {
        "modes": {"value": counted.found, "unit": f"of {counted.known}", "on": on, "how": f"modes with at least {what}"}
    }
    if counted.high_quality is not None:
        how = f"within 3 standard deviations of a mode; a perfect sampler has {counted.ceiling:.3f}"
        scores["high_quality"] = {"value": counted.high_quality, "unit": "of samples", "on": on, "how": how}
    if counted.kl is not None:
        how = f"KL(p_G || p_data) over modes; a perfect sampler has about {counted.floor:.2g} at this many samples"
        scores["reverse_kl"] = {"value": counted.kl, "unit": "nats", "on": on, "how": how}
    return scores


def _entry(values: torch.Tensor, unit: str, on: str, how: str) -> dict[str, Any]:
    error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return {"value": float(values.mean()), "error": error, "unit": unit, "on": on, "how": how}
