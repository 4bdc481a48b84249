"""Scores of the likelihood: bits per dimension of images and nats of points, each with the kind of its number."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import torch

from limner.core.batch import Dataset, HasDensity
from limner.core.capabilities import HasBound, HasLogProb
from limner.core.errors import LimnerError
from limner.core.frame import drawable
from limner.core.model import GenerativeModel
from limner.evaluation.draws import batches, counted
from limner.evaluation.likelihood import Likelihood, LogLikelihood, bits, bounds, likelihood
from limner.metrics.scorecard import Card, Score, missing, normalised

MEASURES_OF_P = {
    "bernoulli": "grey values taken as probabilities of white: comparable among Bernoulli models only",
    "density": "density of uniformly dequantised pixels",
    "discrete": "probability of the 256 grey values",
    "unit_density": "density of uniformly dequantised pixels on [0,1]",
}
"""What p(x) is, by the `measure` of a model."""
_IMAGES = 2000
_POINTS = 10_000  # each takes little, and a gap to the true density can be small
_ELBO_IMAGES = 500  # of models with a bound that takes many evaluations of a net
_ODE_IMAGES = 64


def likelihood_scores(
    model: GenerativeModel,
    train: Dataset | None,
    heldout: Dataset,
    device: torch.device | str,
    kind: str | None = None,
) -> Card:
    """Likelihood of held-out images, the time that it takes, and the gap between training and held-out images.

    Args:
        model: in evaluation mode.
        train: the images that it was trained on; None where these are not at hand, so that there is no gap.
        heldout: images that it was not trained on, or points.
        device: where the model is.
        kind: AIS instead of the default, or ODE beside it; both take minutes.
    """
    if kind == "AIS":
        return _annealed_scores(model, heldout, device)
    scores = _bounded_scores if _is_bounded(model) else _scores
    card = scores(model, train, heldout, device)
    return card | _ode_scores(model, heldout, device) if kind == "ODE" else card


def quick_likelihood_scores(model: GenerativeModel, heldout: Dataset, device: torch.device | str) -> Card:
    """Likelihoods that take seconds: those of flows, and the bounds of VAEs; empty for other models."""
    if _is_bounded(model):
        assert isinstance(model, HasBound)
        return bound_scores(bounds(model, heldout, k=50, device=device, limit=_IMAGES), model.measure, heldout)
    if isinstance(model, HasLogProb) and getattr(model, "likelihood_kind", "exact") != "ODE":
        card = result_scores(
            likelihood(model, heldout, limit=_POINTS if drawable(heldout.shape) else _IMAGES, device=device), heldout
        )
        return {name: score for name, score in card.items() if name != "likelihood_ms"}
    return {}


def result_scores(result: LogLikelihood, heldout: Dataset) -> Card:
    """A likelihood as scores: bits per dimension of images, or nats of points."""
    points = drawable(heldout.shape)
    on = counted(result.n, len(heldout), f"held-out {'points' if points else 'images'} of {heldout.name}")
    card = {"likelihood_ms": _time_score(result.ms_per_image, on, result.kind)}
    if points:
        return _point_scores(result, heldout, on) | card
    how = f"; {result.how}" if result.how else ""
    return {"bits_per_dim": bits_score(result.bits, result.bits_error, result.kind, result.measure, on, how)} | card


def bound_scores(bound: Likelihood, measure: str, heldout: Dataset) -> Card:
    """Bounds of the likelihood as scores."""
    dims = math.prod(heldout.shape)
    on, p = counted(bound.n, len(heldout), f"held-out images of {heldout.name}"), MEASURES_OF_P[measure]
    return {
        "elbo_nats": Score(
            bound.elbo, unit="nats per image", on=on, how=f"evidence lower bound, {p}", property="likelihood",
            error=bound.elbo_error, better="higher",
        ),
        "iwae50_nats": Score(
            bound.iwae, unit="nats per image", on=on, property="likelihood", error=bound.iwae_error, better="higher",
            how=f"importance-weighted bound with {bound.k} draws (Burda et al. 2015), {p}",
        ),
        "bits_per_dim": bits_score(
            bits(bound.iwae, dims, measure), bound.iwae_error / (dims * math.log(2)), f"IWAE-{bound.k}", measure, on
        ),
    }  # fmt: skip


def bits_score(value: float, error: float, kind: str, measure: str, on: str, how: str = "") -> Score:
    """Bits per dimension; of grey values, the ceiling is 0 and the floor 8, what uniform noise needs."""
    grey = measure != "bernoulli"
    return Score(
        value, unit=f"bits per dimension, {kind}", on=on, how=f"{kind}, {MEASURES_OF_P[measure]}{how}",
        property="likelihood", error=error, better="lower", ceiling=0.0 if grey else None, floor=8.0 if grey else None,
        norm=normalised(value, 8.0, 0.0) if grey else None,
    )  # fmt: skip


def _is_bounded(model: GenerativeModel) -> bool:
    return isinstance(model, HasBound) and not isinstance(model, HasLogProb)


def _bounded_scores(
    model: GenerativeModel, train: Dataset | None, heldout: Dataset, device: torch.device | str
) -> Card:
    """Scores of a model with importance weights."""
    assert isinstance(model, HasBound)
    start = time.perf_counter()
    bound = bounds(model, heldout, k=50, limit=_IMAGES, device=device)
    ms = 1000 * (time.perf_counter() - start) / bound.n
    on = counted(bound.n, len(heldout), f"held-out images of {heldout.name}")
    card = bound_scores(bound, model.measure, heldout) | {"likelihood_ms": _time_score(ms, on, f"IWAE-{bound.k}")}
    if train is None:
        return card
    trained = bounds(model, train, k=50, limit=bound.n, device=device)
    gap, error = trained.iwae - bound.iwae, math.hypot(trained.iwae_error, bound.iwae_error)
    return card | {"train_gap": _gap_score(gap, error, on)}


def _scores(model: GenerativeModel, train: Dataset | None, heldout: Dataset, device: torch.device | str) -> Card:
    """Scores of a model with a likelihood, or with the bound of a diffusion."""
    quick = isinstance(model, HasLogProb) and getattr(model, "likelihood_kind", "exact") != "ODE"
    if drawable(heldout.shape):
        limit = _POINTS if quick else _IMAGES
    else:
        limit = _IMAGES if quick else _ELBO_IMAGES
    try:
        result = likelihood(model, heldout, train=train, limit=limit, device=device)
    except LimnerError as reason:
        asked = "" if isinstance(model, HasLogProb) else "; or ask for likelihood=AIS"
        return {"bits_per_dim": missing("likelihood", f"{reason}{asked}")}
    card = result_scores(result, heldout)
    if result.train_gap is not None:
        on = card["likelihood_ms"].on
        card["train_gap"] = _gap_score(result.train_gap, result.train_gap_error or 0.0, on)
    return card


def _ode_scores(model: GenerativeModel, heldout: Dataset, device: torch.device | str) -> Card:
    """The likelihood of a continuous flow, or why there is none."""
    try:
        result = likelihood(model, heldout, kind="ODE", limit=_ODE_IMAGES, device=device)
    except LimnerError as reason:
        return {"bits_per_dim_ode": missing("likelihood", str(reason))}
    return {f"{name}_ode": score for name, score in result_scores(result, heldout).items()}


def _point_scores(result: LogLikelihood, heldout: Dataset, on: str) -> Card:
    """Nats of points, and how far they are from those of the true density."""
    how = f"{result.kind}, log p(x) of points as they are" + (f"; {result.how}" if result.how else "")
    card = {
        "log_likelihood": Score(
            result.nats, unit=f"nats per point, {result.kind}", on=on, how=how, property="likelihood",
            error=result.error, better="higher",
        )
    }  # fmt: skip
    if isinstance(heldout, HasDensity) and heldout.entropy is not None:
        parts = [heldout.log_density(x) for x, _, _ in batches(heldout, result.n, 1000, "cpu")]
        gaps = torch.cat([part for part in parts if part is not None]) - result.each
        card["density_gap"] = Score(
            float(gaps.mean()), unit=f"nats per point, {result.kind}", on=on, property="likelihood", better="lower",
            error=float(gaps.std()) / math.sqrt(len(gaps)) if len(gaps) > 1 else None,
            how="KL(p_data || p_model): mean over these points of their true log density less that of the model; the"
            f" entropy of {heldout.name} is {heldout.entropy:.4g} nats",
        )  # fmt: skip
    return card


def _gap_score(gap: float, error: float, on: str) -> Score:
    return Score(
        gap, unit="nats per image", on=f"{on}, and as many training images", property="likelihood", error=error,
        how="log-likelihood of training images minus that of held-out images", better="lower",
    )  # fmt: skip


def _time_score(ms: float, on: str, kind: str) -> Score:
    return Score(ms, unit="ms per image", on=on, how=f"time for {kind}", property="likelihood", better="lower")


def _annealed_scores(model: GenerativeModel, heldout: Dataset, device: torch.device | str) -> Card:
    """The likelihood of a decoder with noise on its pixels, by annealed importance sampling."""
    result = likelihood(model, heldout, kind="AIS", device=device)
    on = counted(result.n, len(heldout), f"held-out images of {heldout.name}")
    how = (
        f"AIS (Wu et al. 2017) with noise of {result.sigma:.3g} on pixels in [-1,1], fitted; the estimates from below"
        f" and from above differ by {result.ais_gap:.3g} nats, and the number may be off by as much"
    )
    score = bits_score(result.bits, result.bits_error, "AIS", result.measure, on)
    return {"bits_per_dim": replace(score, how=how), "likelihood_ms": _time_score(result.ms_per_image, on, "AIS")}
