"""Scores that follow from what a model can do: reconstruct, bound its likelihood, cover modes that are known."""

from __future__ import annotations

from typing import Any

import torch

from limner.core.batch import Dataset
from limner.core.capabilities import Corrupts, DrawsPairs, EstimatesCodes, Reconstructs
from limner.core.frame import drawable
from limner.core.inference import reconstruct
from limner.core.model import GenerativeModel
from limner.evaluation.cost import MANY, SLOW, count_calls, is_slow
from limner.evaluation.domain_pairs import pixel_pair_scores
from limner.evaluation.draws import batches, counted
from limner.evaluation.likelihood_scores import quick_likelihood_scores
from limner.evaluation.reconstruction import denoising_psnr, reconstruction_psnr
from limner.metrics.matching import match
from limner.metrics.modes import Modes, point_modes, stacked_modes
from limner.metrics.scorecard import Card, Score, normalised

_POINT_SAMPLES = 2500  # as in PacGAN
_STACKED_SAMPLES = 2600  # a tenth of what papers use, so that it takes seconds


def capability_scores(model: GenerativeModel, heldout: Dataset, device: torch.device | str = "cpu") -> Card:
    """Scores of reconstructions, quick likelihoods and known modes; empty for models and data that have none.

    `error` is one standard error over images.
    """
    limit = SLOW.reconstructions if is_slow(model) or _reconstructs_slowly(model, heldout, device) else None
    card = reconstruction_scores(model, heldout, device, limit) | quick_likelihood_scores(model, heldout, device)
    return (
        card
        | known_mode_scores(model, heldout)
        | code_scores(model, heldout, device)
        | pixel_pair_scores(model, heldout)
    )


def _reconstructs_slowly(model: GenerativeModel, heldout: Dataset, device: torch.device | str) -> bool:
    """Whether a reconstruction takes many evaluations: a mean flow draws in one step and encodes along the ODE."""
    if not isinstance(model, Reconstructs) or drawable(heldout.shape):
        return False
    x, y, _ = next(batches(heldout, 1, 1, device))
    return count_calls(model, lambda: reconstruct(model, x, y)) > MANY


def reconstruction_scores(
    model: GenerativeModel, heldout: Dataset, device: torch.device | str, limit: int | None = None
) -> Card:
    """How well held-out images, at most `limit`, are reconstructed, for models that encode and decode."""
    on = counted(min(limit or len(heldout), len(heldout)), len(heldout), f"held-out images of {heldout.name}")
    if drawable(heldout.shape):
        return {}  # the ratio to the peak of a signal has no meaning for points
    if isinstance(model, Corrupts) and isinstance(model, Reconstructs):
        psnrs = denoising_psnr(model, heldout, device)
    elif isinstance(model, Reconstructs):
        values = reconstruction_psnr(model, heldout, device, limit)
        psnrs = {"psnr_db": (values, "peak signal-to-noise ratio of reconstructions, mean over images")}
    else:
        return {}
    card = {}
    for name, (values, how) in psnrs.items():
        error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else None
        card[name] = Score(
            float(values.mean()), unit="dB", on=on, how=how, property="latent", error=error, better="higher"
        )
    return card


@torch.inference_mode()
def code_scores(model: GenerativeModel, heldout: Dataset, device: torch.device | str = "cpu") -> Card:
    """Whether the values of categorical codes are the classes, for models that estimate codes and data with classes."""
    if not isinstance(model, EstimatesCodes) or heldout.classes is None:
        return {}
    mode = model.training
    model.eval()
    parts = [(model.estimate_codes(x).cpu(), y) for x, y, _ in batches(heldout, len(heldout), 250, device)]
    model.train(mode)
    codes, labels = torch.cat([c for c, _ in parts]), torch.cat([y.cpu() for _, y in parts if y is not None])
    card = {}
    for k, (name, values) in enumerate(model.code_values.items()):
        if not values:
            continue
        best = match(codes[:, k], labels, values, len(heldout.classes))
        names = ", ".join(f"{v} = {heldout.classes[c]}" for v, c in best.pairs)
        card[f"{name}_accuracy"] = Score(
            best.accuracy, unit="of images", on=f"{len(labels)} held-out images of {heldout.name}",
            how=f"share of images whose {name}, as Q estimates it, is matched to their class, which the training never"
            f" saw; the best one-to-one matching is {names}",
            property="disentangled", better="higher", floor=best.floor, ceiling=1.0,
            norm=normalised(best.accuracy, best.floor, 1.0),
        )  # fmt: skip
    return card


def sampled_domain(model: Any, dataset: Any) -> Any:
    """The images that samples are compared with: of two domains the one that the model draws, else the whole set."""
    if not isinstance(model, DrawsPairs) or not {"a", "b"} <= set(vars(dataset)):
        return dataset
    return dataset.b if getattr(model, "options", {}).get("domain") == "b" else dataset.a


def known_mode_scores(model: GenerativeModel, heldout: Dataset) -> Card:
    """Counts of modes, where the modes of the data are known."""
    centres = getattr(heldout, "centres", None)
    if centres is not None:
        samples = model.sample(_POINT_SAMPLES, seed=0).cpu()
        return mode_scores(point_modes(samples, centres, getattr(heldout, "sigma", 0.0)), heldout.name)
    if heldout.name == "stacked-mnist" and heldout.shape[0] == 3:
        return mode_scores(stacked_modes(model.sample(_STACKED_SAMPLES, seed=0)), heldout.name)
    return {}


def mode_scores(counts: Modes, name: str) -> Card:
    """Counts of modes as scores."""
    on = f"{counts.n} samples against the {counts.known} modes of {name}"
    criterion = (
        "a sample within 3 standard deviations" if counts.high_quality is not None else "a sample, by lenet64-v1"
    )
    card = {
        "modes": Score(
            counts.found, unit=f"of {counts.known}", on=on, how=f"modes with at least {criterion}",
            property="coverage", better="higher",
        )
    }  # fmt: skip
    if counts.high_quality is not None:
        how = f"within 3 standard deviations of a mode; a perfect sampler has {counts.ceiling:.3f}"
        card["high_quality"] = Score(
            counts.high_quality, unit="of samples", on=on, how=how, property="quality", better="higher"
        )
    if counts.kl is not None:
        how = f"KL(p_G || p_data) over modes; a perfect sampler has about {counts.floor:.2g} at this many samples"
        card["reverse_kl"] = Score(counts.kl, unit="nats", on=on, how=how, property="coverage", better="lower")
    return card
