"""Likelihood of held-out images: exact, bounded or estimated values of log p(x).

=========  ============================================================================================================
kind       definition
=========  ============================================================================================================
exact      log p(x) itself, of a flow or an autoregressive model
ELBO       a lower bound (Kingma and Welling 2013, arXiv:1312.6114); of a diffusion model that of its chain of
           steps (Ho et al. 2020, arXiv:2006.11239, eq. 5)
IWAE-K     a tighter one from K draws (Burda et al. 2015, arXiv:1509.00519, eq. 8); it rises with K towards log p(x)
ODE(n)     log p(x) up to the solver's error in n steps, from the change of density along a continuous flow (Chen et al.
           2018, arXiv:1806.07366; the probability flow of Song et al. 2021, arXiv:2011.13456, section 4.3)
AIS        an estimate from below for a decoder with Gaussian noise on its pixels, by annealed importance sampling
           (Neal 2001; Wu et al. 2017, arXiv:1611.04273), with a gap that bounds its error on simulated images
=========  ============================================================================================================

The likelihood of a flow in time means nothing in few steps: one model of CIFAR-10 that has 3.12 bits per dimension in
1024 steps reads -9.9 in 8 and -111 in a single one (F2D2, kellyyutonghe.github.io/f2d2). So the number of steps is
doubled until log p(x) is steady, else there is no number.

Only numbers of one kind and one measure can be compared. Nats are per image. Bits are per dimension and refer to 8-bit
grey values, whatever the range of the model: for a density of images in [-1,1], where a grey level is 2/255 wide,
log2(127.5) bits a dimension are added to its nats; for one of (level + u)/256 in [0,1), 8 bits are added. Continuous
models get uniformly dequantised grey levels, because their density of discrete values is unbounded.

A model with a likelihood has ``log_prob(x, y=None) -> (B,)`` in nats, and its attribute `measure` says what the density
is of (see `limner.core.capabilities.HasBound`; default a density on [-1,1]). Where it is not exact,
``likelihood_kind`` says so: ``ELBO``, or ``ODE`` for a continuous flow, whose sampling option `steps` is then the
number of Heun's steps and whose attribute `probes` the number of Hutchinson's probes of an image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from limner.core.batch import Dataset
from limner.core.capabilities import Conditional, Decodes, HasBound, HasElbo, HasLogProb, HasPrior
from limner.core.errors import LimnerError
from limner.core.frame import drawable
from limner.evaluation.annealing import AisOptions, Decoder
from limner.evaluation.draws import batches, dequantised
from limner.losses.likelihood import bits_per_dim, log_mean_exp

ODE_STEPS = (50, 100, 200, 400, 800)
"""Steps that are tried one after the other until the likelihood of a continuous flow is steady."""
ODE_TOLERANCE = 0.005
"""The change in nats per dimension, from one number of steps to its double, below which it is."""
_ODE_PILOT = 8  # images on which this is found out
_BITS = {"bernoulli": 0.0, "discrete": 0.0, "density": math.log2(127.5), "unit_density": 8.0}
_K = 50


@dataclass(frozen=True)
class Likelihood:
    """Mean bounds in nats per image, with standard errors over images."""

    elbo: float
    elbo_error: float
    iwae: float
    iwae_error: float
    k: int
    n: int


@torch.inference_mode()
def bounds(
    model: HasBound,
    dataset: Dataset,
    *,
    k: int = _K,
    device: torch.device | str = "cpu",
    seed: int = 0,
    limit: int | None = None,
) -> Likelihood:
    """ELBO and IWAE-K of images.

    Args:
        model: gives importance weights, in evaluation mode.
        dataset: images, with classes if the model is conditional.
        k: draws per image.
        device: where the model is.
        seed: seed of the draws; the result does not depend on the batch size beyond rounding.
        limit: largest number of images, which are drawn at random with a fixed seed.

    Raises:
        LimnerError: `k` is below 1.
    """
    if k < 1:
        raise LimnerError(f"IWAE needs at least one draw, got k={k}; give k=1 or more")
    n = min(limit or len(dataset), len(dataset))
    elbos, iwaes = [], []
    for x, y, ids in batches(dataset, n, 100, device):
        log_w = _weights(model, dequantised(x, model.measure, seed + ids[0]), y, k, seed + ids[0])
        elbos.append(log_w.mean(0))
        iwaes.append(log_mean_exp(log_w, 0))
    elbo, iwae = torch.cat(elbos).cpu(), torch.cat(iwaes).cpu()
    return Likelihood(*_mean(elbo), *_mean(iwae), k, n)


def _weights(model: HasBound, x: Tensor, y: Tensor | None, k: int, seed: int) -> Tensor:
    """Log importance weights (k,B) float64, computed for 50 draws of each image at a time to bound the memory."""
    log_w = []
    for first in range(0, k, 50):
        generator = torch.Generator(x.device).manual_seed(seed + 1_000_003 * first)

        def noise(*size: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*size, generator=generator, device=x.device)

        log_w.append(model.log_weights(x, min(50, k - first), noise, y).double())
    return torch.cat(log_w)


def bits(nats: float, dims: int, measure: str) -> float:
    """Bits per dimension of 8-bit grey values from nats per image; smaller is better.

    >>> round(bits(-784 * math.log(2 + 2 / 255), 784, "density"), 9)  # uniform over all grey levels
    8.0
    >>> bits(-784 * math.log(256), 784, "discrete")
    8.0

    Args:
        nats: log p(x).
        dims: number of values of an image.
        measure: ``discrete`` or ``bernoulli`` probabilities, a ``density`` on [-1,1] or a ``unit_density`` on [0,1].

    Raises:
        LimnerError: the measure is none of these.
    """
    if measure not in _BITS:
        raise LimnerError(f"unknown measure {measure!r}; use one of {', '.join(_BITS)}")
    return float(bits_per_dim(torch.tensor(nats, dtype=torch.float64), dims)) + _BITS[measure]


# ---- one interface -------------------------------------------------------------------------------------------------

Kind = Literal["exact", "ELBO", "IWAE", "ODE", "AIS"]


@dataclass(frozen=True)
class LogLikelihood:
    """Likelihood of images under a model.

    Attributes:
        kind: ``exact``, ``ELBO``, ``IWAE-50``, ``ODE(200)`` or ``AIS``; only equal kinds can be compared.
        measure: ``bernoulli`` or ``discrete`` for probabilities, ``density`` or ``unit_density`` for densities.
        nats: mean log p(x) per image, or its bound.
        error: one standard error of `nats` over images.
        bits: bits per dimension of 8-bit grey values; it has no meaning for points.
        bits_error: one standard error of `bits`.
        n: number of images.
        ms_per_image: wall-clock time per image.
        train_gap: nats of training images minus nats of held-out ones; None without training images.
        train_gap_error: one standard error of `train_gap`.
        ais_gap: difference in nats of the estimates from above and below on simulated images; None for other kinds.
        sigma: standard deviation of the noise on pixels for AIS; None for other kinds.
        how: how it was computed, for kinds where this has numbers: evaluations of the net, steps, probes.
        each: (n,) nats of each image, on the CPU.
    """

    kind: str
    measure: str
    nats: float
    error: float
    bits: float
    bits_error: float
    n: int
    ms_per_image: float
    train_gap: float | None = None
    train_gap_error: float | None = None
    ais_gap: float | None = None
    sigma: float | None = None
    how: str = ""
    each: Tensor = field(default_factory=lambda: torch.zeros(0), repr=False, compare=False)


def likelihood(
    model: object,
    dataset: Dataset,
    *,
    kind: Kind | None = None,
    k: int = _K,
    train: Dataset | None = None,
    limit: int | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    ais: AisOptions | None = None,
) -> LogLikelihood:
    """Likelihood of held-out images, by a method that the model supports.

    Args:
        model: has ``log_prob`` or ``elbo``, or gives importance weights (`HasBound`), or, for AIS, decodes normal
            noise; in evaluation mode.
        dataset: held-out images, with classes if the model is conditional.
        kind: the method; by default that which the model supports, the first of: ``log_prob`` where it is exact or a
            bound, or on points; ``elbo``; ``log_prob`` of a continuous flow; IWAE-k. AIS and
            ODE take minutes for images.
        k: draws per image of IWAE.
        train: training images for the gap, of which as many are used.
        limit: largest number of images, which are drawn at random with a fixed seed.
        device: where the model is.
        seed: seed of dequantisation and draws.
        ais: options of AIS.

    Raises:
        LimnerError: the model has no likelihood of this kind.
    """
    points = drawable(dataset.shape)
    kind = kind or _kind(model, points)
    n = min(limit or len(dataset), len(dataset))
    if n < 1:
        raise LimnerError(f"{dataset.name} has no images, and a likelihood needs at least 1; name other data")
    dims = math.prod(dataset.shape)
    if kind == "AIS":
        return _by_ais(model, dataset, n, dims, device, seed, ais or AisOptions())
    if kind == "ODE":
        name, measure, how, score = _ode(model, dataset, min(n, _ODE_PILOT), dims, device, seed)
        train = None  # it would take as long again
    else:
        name, measure, how, score = _log_likelihood_fn(model, kind, k)
    start = time.perf_counter()
    nats = _log_likelihoods(score, dataset, n, device, seed, measure)
    seconds = time.perf_counter() - start
    result = replace(_summary(name, measure, nats, dims, seconds), how=how)
    if train is None:
        return result
    train_nats, train_error = _mean(_log_likelihoods(score, train, min(n, len(train)), device, seed, measure))
    error = math.hypot(train_error, result.error)
    return replace(result, train_gap=train_nats - result.nats, train_gap_error=error)


def _summary(kind: str, measure: str, nats: Tensor, dims: int, seconds: float) -> LogLikelihood:
    mean, error = _mean(nats)
    bits_error = error / (dims * math.log(2))
    ms = 1000 * seconds / len(nats)
    return LogLikelihood(kind, measure, mean, error, bits(mean, dims, measure), bits_error, len(nats), ms, each=nats)


def _kind(model: object, points: bool) -> Kind:
    """The method that a model supports, and the cheapest where it supports several."""
    own: Kind | None = getattr(model, "likelihood_kind", "exact") if isinstance(model, HasLogProb) else None
    if own is not None and (own != "ODE" or points):
        return own
    if isinstance(model, HasElbo) and not points:
        return "ELBO"
    if own is not None:
        return own
    if isinstance(model, HasBound):
        return "IWAE"
    if isinstance(model, HasPrior) and isinstance(model, Decodes):
        raise LimnerError("this model has a likelihood by AIS only, which takes minutes; ask for kind AIS")
    raise LimnerError("this model has no likelihood: it has neither log p(x) nor a bound of it, and decodes no noise")


LikelihoodFn = Callable[[Tensor, Tensor | None, int], Tensor]
"""`score(x, y, seed) -> (B,)` nats."""


def _log_likelihood_fn(model: object, kind: Kind, k: int) -> tuple[str, str, str, LikelihoodFn]:
    """Name, measure, description and likelihood function of a kind."""
    if isinstance(model, HasLogProb) and kind == getattr(model, "likelihood_kind", "exact"):
        return kind, getattr(model, "measure", "density"), "", _log_prob(model)
    if kind == "exact":
        raise LimnerError("this model has no log_prob, so it has no likelihood of kind exact")
    if kind == "ELBO" and isinstance(model, HasElbo):
        return _own_elbo(model)
    if not isinstance(model, HasBound):
        raise LimnerError(f"this model gives no importance weights, so it has no likelihood of kind {kind}")
    if k < 1:
        raise LimnerError(f"IWAE needs at least one draw, got k={k}; give k=1 or more")
    bounded = model

    def bound(x: Tensor, y: Tensor | None, seed: int) -> Tensor:
        log_w = _weights(bounded, x, y, k, seed)
        return log_w.mean(0) if kind == "ELBO" else log_mean_exp(log_w, 0)

    return "ELBO" if kind == "ELBO" else f"IWAE-{k}", model.measure, "", bound


def _log_prob(model: HasLogProb) -> LikelihoodFn:
    def score(x: Tensor, y: Tensor | None, seed: int) -> Tensor:
        return model.log_prob(x, y) if isinstance(model, Conditional) else model.log_prob(x)

    return score


def _own_elbo(model: HasElbo) -> tuple[str, str, str, LikelihoodFn]:
    """The bound that a diffusion model computes itself."""

    def score(x: Tensor, y: Tensor | None, seed: int) -> Tensor:
        generator = torch.Generator(x.device).manual_seed(seed)
        return model.elbo(x, lambda *size: torch.randn(*size, generator=generator, device=x.device), y)

    how = (
        f"bound of the chain of noise levels (Ho et al. 2020), {model.elbo_evaluations} evaluations of the net an image"
    )
    return "ELBO", "discrete", how, score


def _ode(
    model: object, dataset: Dataset, n: int, dims: int, device: torch.device | str, seed: int
) -> tuple[str, str, str, LikelihoodFn]:
    """Name, measure, description and likelihood function of a continuous flow, in as many steps as it needs.

    Raises:
        LimnerError: the model is none, or its likelihood still changes at the largest number of steps.
    """
    if not isinstance(model, HasLogProb) or getattr(model, "likelihood_kind", "exact") != "ODE":
        raise LimnerError("this model is no flow in time, so it has no likelihood of kind ODE")
    before, change = None, math.inf
    for steps in ODE_STEPS:
        score = _log_prob(model.at(steps=steps))  # type: ignore[attr-defined]
        nats = _log_likelihoods(score, dataset, n, device, seed, "density")
        change = math.inf if before is None else float((nats - before).abs().mean()) / dims
        if change < ODE_TOLERANCE:
            probes = getattr(model, "probes", 1)
            how = (
                f"Heun's method in {steps} steps, {2 * steps} evaluations of the net and of its gradient an image,"
                f" {probes} probe{'s' * (probes > 1)}; half as many steps change it by {change:.2g} nats per dimension"
            )
            return f"ODE({steps})", "density", how, score
        before = nats
    raise LimnerError(
        f"the likelihood by the ODE is not steady: from {ODE_STEPS[-2]} to {ODE_STEPS[-1]} steps it changes by"
        f" {change:.2g} nats per dimension, and {ODE_TOLERANCE} is the limit; train longer, or use the ELBO"
    )


@torch.no_grad()
def _log_likelihoods(
    score: LikelihoodFn, dataset: Dataset, n: int, device: torch.device | str, seed: int, measure: str
) -> Tensor:
    """Nats (n,) of images, or of points as they are, on the CPU."""
    parts, points = [], drawable(dataset.shape)
    for x, y, ids in batches(dataset, n, 100, device):
        nats = score(x if points else dequantised(x, measure, seed + ids[0]), y, seed + ids[0])
        if nats.shape != (len(x),):
            raise LimnerError(f"log_prob must have the shape ({len(x)},) for {len(x)} images, got {tuple(nats.shape)}")
        parts.append(nats.double().cpu())
    result = torch.cat(parts)
    if bool(result.isnan().any()):
        raise LimnerError("a likelihood is not a number; check the images and the weights")
    return result


def _mean(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error."""
    n = len(values)
    return float(values.mean()), float(values.std()) / math.sqrt(n) if n > 1 else 0.0


def _by_ais(
    model: object, dataset: Dataset, n: int, dims: int, device: torch.device | str, seed: int, options: AisOptions
) -> LogLikelihood:
    if not (isinstance(model, HasPrior) and isinstance(model, Decodes)):
        raise LimnerError("AIS needs a model that decodes noise; this model does not")
    if isinstance(model, Conditional):
        raise LimnerError("AIS does not support conditional models; ask for a kind that this model has")
    if getattr(model.prior, "kind", None) != "normal":
        raise LimnerError("AIS needs a normal prior; this model has another one")
    n = min(n, options.images)
    decoder = Decoder(model, model.prior.sample(1, torch.Generator(device).manual_seed(seed)).shape[1])
    x = torch.cat([dequantised(x, "density", seed + ids[0]) for x, _, ids in batches(dataset, n, 100, device)])
    sigma = options.sigma or decoder.fitted_noise(x[:32], options, seed)
    start = time.perf_counter()
    nats = decoder.lower(x, sigma, options, seed).cpu()
    seconds = time.perf_counter() - start
    result = _summary("AIS", "density", nats, dims, seconds)
    return replace(result, ais_gap=decoder.gap(x, sigma, options, seed + 1), sigma=sigma)
