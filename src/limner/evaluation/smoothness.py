"""Properties of the latent space: how evenly images change along paths, and whether all draws give real images.

=======================  ==============================================================================================
path length              E d(G(z_t), G(z_t+e)) / e² for t ~ U(0,1) between two draws of the prior (Karras, Laine and
                         Aila 2019, arXiv:1812.04948, section 4.1; slerp for a normal prior, else a straight line). d is
                         the squared distance of our features and not LPIPS, so this feature path length (FPL) cannot
                         be compared with published PPL.
interpolation FD         Fréchet distance of mid-points of paths over that of samples: 1 where images between samples
                         are as good as samples
step evenness            largest over mean feature step on a path of 16 steps: 1 for steady change, 16 for a single jump
hole rate                share of draws of the prior whose image is near no real image
posterior–prior gap      unbiased squared MMD (Gretton et al. 2012, *A kernel two-sample test*) between codes of images
                         and draws of the prior: if it is large, samples are drawn where no codes were trained
round trip               ``|x - decode(encode(x))|`` and ``|z - encode(decode(z))|``: 0 for a flow, positive for others
=======================  ==============================================================================================

Path length needs images that are not rounded: with 8 bits they do not change over most steps of e = 1e-4 and jump at
others, which multiplied the value of one published model by 37.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from limner.core.batch import Dataset, to_uint8
from limner.core.capabilities import Conditional, Encodes, Generates, HasPosterior, HasPrior, Reconstructs
from limner.core.errors import LimnerError
from limner.core.interpolation import Interpolation, interpolation_for, slerp
from limner.evaluation.draws import batches, drawn_codes
from limner.metrics.extractors.features import Extractor
from limner.metrics.frechet import Moments, frechet_distance
from limner.metrics.kernel import mmd

# ---- paths ---------------------------------------------------------------------------------------------------------


def path_lengths(
    G: Callable[[Tensor], Tensor],
    features: Callable[[Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    t: Tensor,
    *,
    e: float = 1e-4,
    between: Interpolation = slerp,
) -> Tensor:
    """Squared feature distance of G at t and at t + e between codes a and b, over e²: (B,).

    For linear G and features, with the product W, and straight lines this is exactly |W (b - a)|².

    Args:
        G: maps codes (B,…) to images.
        features: maps images to features (B,d).
        a: codes (B,…) at t = 0.
        b: codes (B,…) at t = 1.
        t: (B,) in [0,1].
        e: the step. Codes are interpolated in float64. G and the features usually compute in float32, which at 1e-4
            changes the value by less than a thousandth for typical nets; half precision is not enough.
        between: slerp or lerp.
    """
    low, high = (between(a.double(), b.double(), s.double()).to(a.dtype) for s in (t, t + e))
    with torch.autocast(a.device.type, enabled=False):
        both = features(G(torch.cat([low, high]))).double()
    start, end = both.chunk(2)
    return (end - start).square().sum(1) / e**2


@dataclass(frozen=True)
class PathLength:
    """A feature path length.

    Attributes:
        value: mean over paths, without the 1 % shortest and the 1 % longest.
        error: one standard error of the mean.
        n: number of paths, including those.
        e: the step.
        between: ``slerp`` or ``lerp``.
    """

    value: float
    error: float
    n: int
    e: float
    between: str

    @classmethod
    def of(cls, lengths: Tensor, e: float, between: str) -> PathLength:
        """The mean of lengths (P,), at least 100, that were computed with the step e on ways of a kind."""
        values = lengths.cpu().numpy()
        low, high = np.percentile(values, 1, method="lower"), np.percentile(values, 99, method="higher")
        trimmed = values[(values >= low) & (values <= high)]
        return cls(float(trimmed.mean()), float(trimmed.std(ddof=1) / len(trimmed) ** 0.5), len(values), e, between)


@torch.inference_mode()
def path_length(
    model: Generates,
    extractor: Extractor,
    *,
    n: int = 2000,
    e: float = 1e-4,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> PathLength:
    """Feature path length of a model in evaluation mode.

    For a conditional model, the class is constant along a path, and classes alternate between paths.

    Args:
        model: draws noise and decodes it.
        extractor: computes features; values of different extractors cannot be compared.
        n: number of paths.
        e: the step, see `path_lengths`.
        device: where the model is.
        seed: seed of the paths.

    Raises:
        LimnerError: there are fewer than 100 paths, too few to drop percentiles, or e is not positive.
    """
    if n < 100 or e <= 0:
        raise LimnerError(f"a path length needs at least 100 paths and a positive step, got n={n} and e={e:g}")
    generator, between = torch.Generator(device).manual_seed(seed), interpolation_for(model.prior)
    parts = []
    for ids, y in _batched_draws(model, n, 250, device):
        a, b = (drawn_codes(model, len(ids), generator) for _ in range(2))
        t = torch.rand(len(ids), generator=generator, device=device)
        y_twice = None if y is None else torch.cat([y, y])

        def G(z: Tensor, y: Tensor | None = y_twice) -> Tensor:
            return model.decode(z, y).clamp(-1, 1)

        parts.append(path_lengths(G, extractor.features, a, b, t, e=e, between=between).cpu())
    return PathLength.of(torch.cat(parts), e, between.__name__)


@dataclass(frozen=True)
class InterpolationFd:
    """Fréchet distances of samples and of images half-way between them.

    Attributes:
        samples: distance of samples.
        midpoints: distance of images half-way between two draws of the prior.
        ratio: midpoints over samples.
        n: number of images of each kind.
    """

    samples: float
    midpoints: float
    ratio: float
    n: int


@torch.inference_mode()
def interpolation_fd(
    model: Generates,
    extractor: Extractor,
    *,
    real: tuple[ArrayLike, ArrayLike],
    n: int = 5000,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> InterpolationFd:
    """Compares images half-way between two draws of the prior with samples.

    Args:
        model: draws noise and decodes it, in evaluation mode.
        extractor: computes features.
        real: mean (d,) and covariance (d,d) of the features of real images.
        n: number of images of each kind, so that both distances have the same bias.
        device: where the model is.
        seed: seed of the draws.

    Raises:
        LimnerError: n is below 2, or the distance of the samples is 0.
    """
    generator, between = torch.Generator(device).manual_seed(seed), interpolation_for(model.prior)
    samples, midpoints = Moments(), Moments()
    for ids, y in _batched_draws(model, n, 250, device):
        a, b = (drawn_codes(model, len(ids), generator) for _ in range(2))
        middle = between(a, b, torch.full((len(ids),), 0.5, device=a.device, dtype=a.dtype))
        for moments, z in ((samples, a), (midpoints, middle)):
            moments.update(extractor.features(to_uint8(model.decode(z, y))))
    of_samples, of_midpoints = (frechet_distance(*m.compute(), *real) for m in (samples, midpoints))
    if of_samples == 0:
        raise LimnerError(
            "the samples are at the distance 0 from the real images, so there is no ratio; give held-out images"
        )
    return InterpolationFd(of_samples, of_midpoints, of_midpoints / of_samples, n)


@dataclass(frozen=True)
class Evenness:
    """Largest over mean step along paths.

    Attributes:
        value: mean over paths.
        worst: 95th percentile over paths.
        paths: number of paths.
        steps: number of steps of each path.
    """

    value: float
    worst: float
    paths: int
    steps: int


def evenness(features: Tensor) -> Tensor:
    """Largest over mean step (P,) of paths of features (P,steps+1,d); 1 for a path that does not move."""
    steps = (features[:, 1:] - features[:, :-1]).double().norm(dim=2)
    mean = steps.mean(1)
    return torch.where(mean > 0, steps.amax(1) / mean.clamp_min(1e-300), 1.0)


@torch.inference_mode()
def step_evenness(
    model: Generates,
    extractor: Extractor,
    *,
    paths: int = 128,
    steps: int = 16,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Evenness:
    """How evenly images change along paths between two draws: from 1 for even steps to `steps` for a single jump.

    Args:
        model: draws noise and decodes it, in evaluation mode.
        extractor: computes features.
        paths: number of paths.
        steps: number of steps of each path.
        device: where the model is.
        seed: seed of the draws.

    Raises:
        LimnerError: there are no paths, or fewer than two steps.
    """
    if paths < 1 or steps < 2:
        raise LimnerError(f"evenness needs at least 1 path of at least 2 steps, got {paths} and {steps}")
    generator, between = torch.Generator(device).manual_seed(seed), interpolation_for(model.prior)
    parts = []
    for ids, y in _batched_draws(model, paths, 32, device):
        a, b = (drawn_codes(model, len(ids), generator).repeat_interleave(steps + 1, 0) for _ in range(2))
        t = torch.linspace(0, 1, steps + 1, dtype=a.dtype, device=a.device).repeat(len(ids))
        images = model.decode(between(a, b, t), None if y is None else y.repeat_interleave(steps + 1, 0))
        parts.append(evenness(extractor.features(images.clamp(-1, 1)).view(len(ids), steps + 1, -1)).cpu())
    value = torch.cat(parts)
    return Evenness(float(value.mean()), float(value.quantile(0.95)), paths, steps)


def _batched_draws(
    model: object, n: int, size: int, device: torch.device | str
) -> Iterator[tuple[range, Tensor | None]]:
    """Indices of `n` draws, at most `size` at a time, with classes in turn for a conditional model."""
    for first in range(0, n, size):
        ids = range(first, min(first + size, n))
        y = None
        if isinstance(model, Conditional):
            y = model.condition.default(ids.stop)[ids.start :].to(device)
        yield ids, y


# ---- codes and the prior -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gap:
    """A kernel distance between codes of images and draws of the prior.

    Attributes:
        value: unbiased squared MMD, from about 0 (it may be slightly negative) to 2.
        error: standard error of the value.
        noise: its standard deviation if codes were draws of the prior. A value below twice this is not significant.
        n: number of codes, and of draws.
        drawn: whether codes were drawn from q(z|x); else they are those of `encode`.
    """

    value: float
    error: float
    noise: float
    n: int
    drawn: bool


@torch.inference_mode()
def posterior_prior_gap(
    model: Encodes, dataset: Dataset, *, n: int = 2000, device: torch.device | str = "cpu", seed: int = 0
) -> Gap:
    """Distance between the distribution of the codes of images and the prior.

    The kernel is the mean of five Gaussians around the median distance (`limner.metrics.kernel.mmd`). For a model with
    a `posterior`, one code is drawn from it for each image: the aggregate posterior q(z) is a mixture of these
    distributions, and their means alone would be too near to 0. For other models, `encode` gives the codes.

    Args:
        model: encodes, and has a prior; in evaluation mode.
        dataset: images.
        n: largest number of images, which are drawn at random.
        device: where the model is.
        seed: seed of the draws.

    Raises:
        LimnerError: the model has no prior, or there are too few images.
    """
    if not isinstance(model, HasPrior):
        raise LimnerError("this model has no prior to compare its codes with; fit one to its codes first")
    generator = torch.Generator(device).manual_seed(seed)
    n, drawn = min(n, len(dataset)), isinstance(model, HasPosterior)
    codes = []
    for x, y, _ in batches(dataset, n, 250, device):
        if isinstance(model, HasPosterior):
            mean, logvar = model.posterior(x, y) if isinstance(model, Conditional) else model.posterior(x)
            z = mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=generator, device=mean.device)
        else:
            z = model.encode(x, y)
        codes.append(z.flatten(1))
    draws, more_draws = (drawn_codes(model, n, generator).flatten(1) for _ in range(2))
    result = mmd(torch.cat(codes), draws)
    return Gap(result.value, result.error, mmd(more_draws, draws).error, n, drawn)


@dataclass(frozen=True)
class RoundTrip:
    """Errors of encoding and decoding, in the units of images ([-1,1]) and of codes.

    Attributes:
        x_max: largest ``|x - decode(encode(x))|``.
        x_mean: mean of it.
        z_max: largest ``|z - encode(decode(z))|``.
        z_mean: mean of it.
        codes: source of z: ``prior``, or ``images``.
    """

    x_max: float
    x_mean: float
    z_max: float
    z_mean: float
    codes: str


@torch.inference_mode()
def round_trip(model: Reconstructs, x: Tensor, y: Tensor | None = None, *, seed: int = 0) -> RoundTrip:
    """Encodes and decodes images, and decodes and encodes codes.

    Codes are draws of the prior if the model has one, else those of the images.

    Args:
        model: encodes and decodes, in evaluation mode.
        x: images (B,C,H,W) in [-1,1], on the model's device.
        y: their classes, for conditional models.
        seed: seed of the draws.
    """
    if not len(x):
        raise LimnerError("a round trip needs at least 1 image; give some")
    codes = model.encode(x, y)
    z, source = codes, "images"
    if isinstance(model, HasPrior):
        z, source = drawn_codes(model, len(x), torch.Generator(x.device).manual_seed(seed)), "prior"
    x_errors = (x - model.decode(codes, y)).abs().double()
    z_errors = (z - model.encode(model.decode(z, y), y)).abs().double()
    return RoundTrip(
        float(x_errors.max()), float(x_errors.mean()), float(z_errors.max()), float(z_errors.mean()), source
    )
