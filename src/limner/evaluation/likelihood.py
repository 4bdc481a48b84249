"""Likelihood of held-out images: exact, bounded or estimated values of log p(x).

=========  ============================================================================================================
kind       definition
=========  ============================================================================================================
exact      log p(x) itself, of a flow or an autoregressive model
ELBO       a lower bound (Kingma and Welling 2013, arXiv:1312.6114)
IWAE-K     a tighter one from K draws (Burda et al. 2015, arXiv:1509.00519, eq. 8); it rises with K towards log p(x)
ODE        log p(x) up to the solver's error, from the change of density along a continuous flow (Chen et al. 2018,
           arXiv:1806.07366; the probability flow of Song et al. 2021, arXiv:2011.13456, section 4.3)
AIS        an estimate from below for a decoder with Gaussian noise on its pixels, by annealed importance sampling
           (Neal 2001; Wu et al. 2017, arXiv:1611.04273), with a gap that bounds its error on simulated images
=========  ============================================================================================================

Only numbers of one kind and one measure can be compared. Nats are per image. Bits are per dimension and refer to 8-bit
grey values, whatever the range of the model: for a density of images in [-1,1], where a grey level is 2/255 wide,
log2(127.5) bits a dimension are added to its nats; for one of (level + u)/256 in [0,1), 8 bits are added. Continuous
models get uniformly dequantised grey levels, because their density of discrete values is unbounded.

A model with an exact likelihood has ``log_prob(x, y=None) -> (B,)`` in nats, and its attribute `measure` says what the
density is of (see `limner.core.capabilities.HasBound`; default a density on [-1,1]). A continuous flow has
``likelihood_kind = "ODE"``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from limner.core.batch import Dataset, drawn, to_float
from limner.core.capabilities import Conditional, Decodes, HasBound, HasLogProb, HasPrior
from limner.core.errors import LimnerError
from limner.losses.likelihood import bits_per_dim, gaussian, log_mean_exp

_GREY = 2 / 255  # width of a grey level on [-1,1]
_BITS = {"bernoulli": 0.0, "discrete": 0.0, "density": math.log2(127.5), "unit_density": 8.0}
_K = 50
_CHAINS = 7_919_000_003  # offset of the seed of chains, so that they share no noise with other draws


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


def batches(
    dataset: Dataset, n: int, size: int, device: torch.device | str
) -> Iterator[tuple[Tensor, Tensor | None, list[int]]]:
    """`n` drawn images, their classes and indices, with the deterministic transforms of training."""
    indices = drawn(len(dataset), n)
    for first in range(0, n, size):
        ids = indices[first : first + size]
        x = to_float(dataset.fetch(ids)).to(device)
        for augment in dataset.augment:  # static binarisation is part of the data and depends on the sample alone
            x = augment(x, torch.tensor(ids, device=device))
        y = None if dataset.labels is None else dataset.labels[ids].to(device)
        yield x, y, ids


def dequantised(x: Tensor, measure: str, seed: int) -> Tensor:
    """Images (B,C,H,W) in [-1,1], dequantised for models of this measure.

    For a density, uniform noise of the width of a grey level is added, on [-1-1/255, 1+1/255]; for a unit density,
    likewise on [0,1), (level + u)/256. For probabilities, x is returned.
    """
    if measure not in ("density", "unit_density"):
        return x
    generator = torch.Generator(x.device).manual_seed(seed)
    u = torch.rand(x.shape, generator=generator, device=x.device)
    return x + (u - 0.5) * _GREY if measure == "density" else (127.5 * (x + 1) + u) / 256


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
        kind: ``exact``, ``ELBO``, ``IWAE-50``, ``ODE`` or ``AIS``; only equal kinds can be compared.
        measure: ``bernoulli`` or ``discrete`` for probabilities, ``density`` or ``unit_density`` for densities.
        nats: mean log p(x) per image, or its bound.
        error: one standard error of `nats` over images.
        bits: bits per dimension of 8-bit grey values.
        bits_error: one standard error of `bits`.
        n: number of images.
        ms_per_image: wall-clock time per image.
        train_gap: nats of training images minus nats of held-out ones; None without training images.
        train_gap_error: one standard error of `train_gap`.
        ais_gap: difference in nats of the estimates from above and below on simulated images; None for other kinds.
        sigma: standard deviation of the noise on pixels for AIS; None for other kinds.
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
        model: has ``log_prob``, or gives importance weights (`HasBound`), or, for AIS, decodes normal noise; in
            evaluation mode.
        dataset: held-out images, with classes if the model is conditional.
        kind: the method; default ``log_prob`` if the model has it, else IWAE-k. AIS takes minutes, so it is never the
            default.
        k: draws per image of IWAE.
        train: training images for the gap, of which as many are used.
        limit: largest number of images, which are drawn at random with a fixed seed.
        device: where the model is.
        seed: seed of dequantisation and draws.
        ais: options of AIS.

    Raises:
        LimnerError: the model has no likelihood of this kind.
    """
    kind = kind or _kind(model)
    n = min(limit or len(dataset), len(dataset))
    if n < 1:
        raise LimnerError(f"{dataset.name} has no images, and a likelihood needs at least 1; name other data")
    dims = math.prod(dataset.shape)
    if kind == "AIS":
        return _by_ais(model, dataset, n, dims, device, seed, ais or AisOptions())
    name, measure, score = _log_likelihood_fn(model, kind, k)
    start = time.perf_counter()
    nats = _log_likelihoods(score, dataset, n, device, seed, measure)
    seconds = time.perf_counter() - start
    result = _summary(name, measure, nats, dims, seconds)
    if train is None:
        return result
    train_nats, train_error = _mean(_log_likelihoods(score, train, min(n, len(train)), device, seed, measure))
    error = math.hypot(train_error, result.error)
    return replace(result, train_gap=train_nats - result.nats, train_gap_error=error)


def _summary(kind: str, measure: str, nats: Tensor, dims: int, seconds: float) -> LogLikelihood:
    mean, error = _mean(nats)
    bits_error = error / (dims * math.log(2))
    ms = 1000 * seconds / len(nats)
    return LogLikelihood(kind, measure, mean, error, bits(mean, dims, measure), bits_error, len(nats), ms)


def _kind(model: object) -> Kind:
    if isinstance(model, HasLogProb):
        return "ODE" if getattr(model, "likelihood_kind", "exact") == "ODE" else "exact"
    if isinstance(model, HasBound):
        return "IWAE"
    if isinstance(model, HasPrior) and isinstance(model, Decodes):
        raise LimnerError("this model has a likelihood by AIS only, which takes minutes; ask for kind AIS")
    raise LimnerError("this model has no likelihood: it has neither log p(x) nor a bound of it, and decodes no noise")


LikelihoodFn = Callable[[Tensor, Tensor | None, int], Tensor]
"""`score(x, y, seed) -> (B,)` nats."""


def _log_likelihood_fn(model: object, kind: Kind, k: int) -> tuple[str, str, LikelihoodFn]:
    """Name, measure and likelihood function of a kind."""
    if kind in ("exact", "ODE"):
        if not isinstance(model, HasLogProb):
            raise LimnerError(f"this model has no log_prob, so it has no likelihood of kind {kind}")
        exact = model

        def score(x: Tensor, y: Tensor | None, seed: int) -> Tensor:
            return exact.log_prob(x, y) if isinstance(exact, Conditional) else exact.log_prob(x)

        return kind, getattr(model, "measure", "density"), score
    if not isinstance(model, HasBound):
        raise LimnerError(f"this model gives no importance weights, so it has no likelihood of kind {kind}")
    if k < 1:
        raise LimnerError(f"IWAE needs at least one draw, got k={k}; give k=1 or more")
    bounded = model

    def bound(x: Tensor, y: Tensor | None, seed: int) -> Tensor:
        log_w = _weights(bounded, x, y, k, seed)
        return log_w.mean(0) if kind == "ELBO" else log_mean_exp(log_w, 0)

    return "ELBO" if kind == "ELBO" else f"IWAE-{k}", model.measure, bound


@torch.no_grad()
def _log_likelihoods(
    score: LikelihoodFn, dataset: Dataset, n: int, device: torch.device | str, seed: int, measure: str
) -> Tensor:
    """Nats (n,) of images, on the CPU."""
    parts = []
    for x, y, ids in batches(dataset, n, 100, device):
        nats = score(dequantised(x, measure, seed + ids[0]), y, seed + ids[0])
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


# ---- annealed importance sampling ----------------------------------------------------------------------------------

LogDensity = Callable[[Tensor], Tensor]
"""Log of a density up to a constant, of codes (M,d): (M,) nats, differentiable."""


@dataclass(frozen=True)
class Annealed:
    """Chains from the prior to the posterior, or back.

    Attributes:
        log_w: log weights (M,). Forward, E exp(log_w) = p(x); backward, E exp(-log_w) = 1 / p(x).
        z: ends of the chains, (M,d).
        acceptance: mean share of proposals that were accepted.
    """

    log_w: Tensor
    z: Tensor
    acceptance: float


def temperatures(steps: int) -> Tensor:
    """Inverse temperatures (steps+1,) from 0 to 1, dense at both ends: a logistic curve from -4 to 4 (Wu et al. 2017).

    >>> [round(b, 4) for b in temperatures(4).tolist()]
    [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    if steps < 1:
        raise LimnerError(f"annealing needs at least 1 step, got {steps}")
    s = torch.sigmoid(torch.linspace(-4, 4, steps + 1, dtype=torch.float64))
    return (s - s[0]) / (s[-1] - s[0])


def ais(
    log_prior: LogDensity,
    log_likelihood: LogDensity,
    start: Tensor,
    *,
    steps: int = 500,
    leapfrog: int = 10,
    step: float | Tensor = 0.1,
    backward: bool = False,
    seed: int = 0,
) -> Annealed:
    """Annealed importance sampling of log ∫ p(z) p(x|z) dz, with Hamiltonian transitions.

    Neal 2001, *Annealed importance sampling*: chains pass through p(z) p(x|z)^b for b from 0 to 1, and the weight of a
    chain is the product of p(x|z)^(b' - b). Forward from draws of the prior, it is unbiased for p(x), so the log of
    its mean is below log p(x) on average. Backward from draws of the exact posterior, its reciprocal is unbiased for
    1 / p(x), so minus the log of the mean of the reciprocal is above (Grosse, Ghahramani and Adams 2015, *Sandwiching
    the marginal likelihood using bidirectional Monte Carlo*, arXiv:1511.02543).

    Args:
        log_prior: normalised log p(z).
        log_likelihood: normalised log p(x|z) of the image that belongs to each row.
        start: codes (M,d): draws of the prior, or with `backward` of the posterior.
        steps: number of temperatures after the first. The gap between both directions falls about as 1 / steps.
        leapfrog: number of steps of each Hamiltonian path.
        step: length of such a step, or (steps,) lengths from `tuned`. They must not depend on these chains.
        backward: go from the posterior to the prior.
        seed: seed of the chains.

    Raises:
        LimnerError: steps, leapfrog or step are not positive.
    """
    betas = temperatures(steps)
    lengths = torch.as_tensor(step, dtype=torch.float64).expand(steps)
    if leapfrog < 1 or not bool((lengths > 0).all()):
        raise LimnerError(f"a Hamiltonian path needs at least 1 step of positive length, got {leapfrog} and {step}")
    generator = torch.Generator(start.device).manual_seed(_CHAINS + seed)
    z, log_w, acceptance = start.detach(), start.new_zeros(len(start), dtype=torch.float64), 0.0
    for t in range(steps - 1, -1, -1) if backward else range(steps):
        low, high = float(betas[t]), float(betas[t + 1])
        if backward:  # the reverse of the forward order: first the transition, then the weight
            z, accepted = _hamiltonian(log_prior, log_likelihood, z, high, float(lengths[t]), leapfrog, generator)
        with torch.no_grad():
            log_w += (high - low) * log_likelihood(z).double()
        if not backward:
            z, accepted = _hamiltonian(log_prior, log_likelihood, z, high, float(lengths[t]), leapfrog, generator)
        acceptance += float(accepted.mean()) / steps
    return Annealed(log_w, z, acceptance)


def tuned(
    log_prior: LogDensity,
    log_likelihood: LogDensity,
    start: Tensor,
    *,
    steps: int = 500,
    leapfrog: int = 10,
    step: float = 0.1,
    seed: int = 0,
) -> Tensor:
    """Step lengths (steps,) for `ais` at which about 65 % of proposals are accepted, from separate chains.

    Weights are unbiased for fixed lengths, but not for lengths that adapt to the same chains.
    """
    betas, lengths = temperatures(steps), []
    generator = torch.Generator(start.device).manual_seed(_CHAINS + seed)
    z = start.detach()
    for t in range(steps):
        z, accepted = _hamiltonian(log_prior, log_likelihood, z, float(betas[t + 1]), step, leapfrog, generator)
        step *= math.exp(0.2 * (float(accepted.mean()) - 0.65))
        lengths.append(step)
    return torch.tensor(lengths, dtype=torch.float64)


def _hamiltonian(
    log_prior: LogDensity,
    log_likelihood: LogDensity,
    z: Tensor,
    beta: float,
    step: float,
    leapfrog: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Leaves p(z) p(x|z)^beta invariant (Neal 2011, arXiv:1206.1901, figure 2); gives codes and acceptance (M,)."""

    def energy(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_p = log_prior(z) + beta * log_likelihood(z)
            (gradient,) = torch.autograd.grad(log_p.sum(), z)
        return log_p.detach(), gradient

    momentum = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
    log_p, gradient = energy(z)
    before = log_p - 0.5 * momentum.square().sum(1)
    new, momentum, end = z, momentum + 0.5 * step * gradient, log_p
    for i in range(leapfrog):
        new = new + step * momentum
        end, gradient = energy(new)
        momentum = momentum + (step if i < leapfrog - 1 else 0.5 * step) * gradient
    after = end - 0.5 * momentum.square().sum(1)
    u = torch.rand(len(z), generator=generator, device=z.device, dtype=z.dtype)
    accepted = u.log() < after - before  # false where the path diverged and `after` is not a number
    return torch.where(accepted[:, None], new, z), accepted.double()


def sandwich(forward: Annealed, backward: Annealed, chains: int) -> tuple[Tensor, Tensor]:
    """Lower and upper estimates of log p(x), (B,) each, from weights (chains·B,) with the chains outermost."""
    lower = log_mean_exp(forward.log_w.view(chains, -1), 0)
    upper = -log_mean_exp(-backward.log_w.view(chains, -1), 0)
    return lower, upper


@dataclass(frozen=True)
class AisOptions:
    """Options of AIS for decoders.

    Attributes:
        sigma: standard deviation of the Gaussian noise on pixels in [-1,1]. A decoder has a likelihood only together
            with noise, and its value depends much on this number. None fits it to the images.
        chains: number of chains for each image.
        steps: number of temperatures.
        leapfrog: number of steps of a Hamiltonian path.
        images: largest number of images.
        simulated: number of images drawn from the model, with known codes, for the gap.
    """

    sigma: float | None = None
    chains: int = 4
    steps: int = 300
    leapfrog: int = 10
    images: int = 50
    simulated: int = 20


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


class Decoder:
    """A decoder of normal noise with Gaussian noise on its pixels, p(x|z) = N(decode(z), sigma² I).

    Args:
        model: decodes, in evaluation mode.
        z: number of dimensions of a code.
    """

    def __init__(self, model: Decodes, z: int) -> None:
        self.model, self.z = model, z

    @staticmethod
    def log_prior(z: Tensor) -> Tensor:
        """Log N(z; 0, I), (M,)."""
        return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))

    def log_likelihood(self, x: Tensor, sigma: float) -> LogDensity:
        """Log N(x; decode(z), sigma² I) as a function of z (M,d), for images x (M,C,H,W)."""
        logvar = torch.tensor(2 * math.log(sigma), device=x.device, dtype=x.dtype)

        def log_likelihood(z: Tensor) -> Tensor:
            return gaussian(self.model.decode(z), logvar.expand_as(x), x)

        return log_likelihood

    def draw(self, n: int, like: Tensor, seed: int) -> Tensor:
        """Codes (n,z) from N(0, I)."""
        generator = torch.Generator(like.device).manual_seed(seed)
        return torch.randn(n, self.z, generator=generator, device=like.device, dtype=like.dtype)

    def lower(self, x: Tensor, sigma: float, options: AisOptions, seed: int) -> Tensor:
        """Lower estimates of log p(x), (B,)."""
        return log_mean_exp(self._forward(x, sigma, options, seed).log_w.view(options.chains, -1), 0)

    def gap(self, like: Tensor, sigma: float, options: AisOptions, seed: int) -> float:
        """Mean difference in nats of the upper and lower estimates, on images simulated from known codes.

        On average it bounds the error of `lower` on such images; the error on real images is assumed to be similar.
        """
        z = self.draw(options.simulated, like, seed)
        with torch.no_grad():
            x = self.model.decode(z)
        noise = torch.Generator(like.device).manual_seed(seed + 1)
        x = x + sigma * torch.randn(x.shape, generator=noise, device=x.device, dtype=x.dtype)
        lower, upper = self.both(x, z, sigma, options, seed + 2)
        return float((upper - lower).mean())

    def both(self, x: Tensor, z: Tensor, sigma: float, options: AisOptions, seed: int) -> tuple[Tensor, Tensor]:
        """Lower and upper estimates of log p(x), (B,) each, for images x drawn from known codes z."""
        lengths = self._tuned(x, sigma, options, seed)
        forward = self._forward(x, sigma, options, seed, lengths)
        repeated = x.repeat(options.chains, *[1] * (x.dim() - 1))
        backward = ais(
            self.log_prior,
            self.log_likelihood(repeated, sigma),
            z.repeat(options.chains, 1),
            steps=options.steps,
            leapfrog=options.leapfrog,
            step=lengths,
            backward=True,
            seed=seed + 3,
        )
        return sandwich(forward, backward, options.chains)

    def fitted_noise(self, x: Tensor, options: AisOptions, seed: int) -> float:
        """The standard deviation that maximises the likelihood of images x, by four rounds of EM.

        The next estimate is the residual on pixels for codes near the posterior, and at least that of a grey level.
        """
        sigma, options_short = 0.3, replace(options, steps=max(options.steps // 2, 50), chains=1)
        for i in range(4):
            z = self._forward(x, sigma, options_short, seed + 10 + i).z
            with torch.no_grad():
                sigma = max(float((self.model.decode(z) - x).square().mean().sqrt()), _GREY / math.sqrt(12))
        return sigma

    def _tuned(self, x: Tensor, sigma: float, options: AisOptions, seed: int) -> Tensor:
        subset = x[:: max(1, len(x) // 16)]
        return tuned(
            self.log_prior,
            self.log_likelihood(subset, sigma),
            self.draw(len(subset), x, seed + 4),
            steps=options.steps,
            leapfrog=options.leapfrog,
            seed=seed + 5,
        )

    def _forward(
        self, x: Tensor, sigma: float, options: AisOptions, seed: int, lengths: Tensor | None = None
    ) -> Annealed:
        repeated = x.repeat(options.chains, *[1] * (x.dim() - 1))  # the chains outermost
        return ais(
            self.log_prior,
            self.log_likelihood(repeated, sigma),
            self.draw(len(repeated), x, seed + 6),
            steps=options.steps,
            leapfrog=options.leapfrog,
            step=self._tuned(x, sigma, options, seed) if lengths is None else lengths,
            seed=seed + 7,
        )
