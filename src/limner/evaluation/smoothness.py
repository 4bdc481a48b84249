"""A well-behaved latent space: how evenly images change along it, and whether all of it holds images.

=======================  ==============================================================================================
path length              E d(G(z_t), G(z_t+e)) / e² for t ~ U(0,1) between two draws of the prior (Karras, Laine and
                         Aila 2019, arXiv:1812.04948, section 4.1; slerp where the prior is normal, a straight line
                         elsewhere). d is the squared distance of our features and not LPIPS: it is called FPL, feature
                         path length, and compares with no published PPL.
interpolation FD         Fréchet distance of mid-points of paths over that of samples: 1 where what lies between
                         images is as good as the images
step evenness            largest over mean feature step on a path of 16 steps: 1 for steady change, up to 16 for a jump
hole rate                share of draws of the prior whose image lies near no real image at all
posterior–prior gap      unbiased squared MMD (Gretton et al. 2012, *A kernel two-sample test*) between codes of images
                         and draws of the prior: where codes are not, samples are drawn and nothing was learnt
round trip               ``|x - decode(encode(x))|`` and ``|z - encode(decode(z))|``: 0 for a flow, a loss for others
=======================  ==============================================================================================

Path length is of images as the net gives them: rounded to 8 bits they do not change at all over most steps of
e = 1e-4 and jump at others, which multiplied the value of one published model by 37.
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
from limner.evaluation.likelihood import batches
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

    For a linear G and features W and straight lines this is |W (b - a)|² exactly.

    Args:
        G: codes (B,…) to images.
        features: images to features (B,d).
        a: codes (B,…) at t = 0.
        b: codes (B,…) at t = 1.
        t: (B,).
        e: the step. Codes are interpolated in float64; G and the features have their own precision, float32 as a rule,
            which at 1e-4 costs less than a thousandth of the value for nets of ordinary slope. Half precision does not
            do.
        between: slerp or lerp.
    """
    low, high = (between(a.double(), b.double(), s.double()).to(a.dtype) for s in (t, t + e))
    with torch.autocast(a.device.type, enabled=False):
        both = features(G(torch.cat([low, high]))).double()
    one, other = both.chunk(2)
    return (other - one).square().sum(1) / e**2


@dataclass(frozen=True)
class PathLength:
    """A feature path length.

    Attributes:
        value: mean over paths, without the 1 % shortest and the 1 % longest.
        error: one standard error of it over paths.
        n: paths, those included.
        e: the step.
        between: ``slerp`` or ``lerp``.
    """

    value: float
    error: float
    n: int
    e: float
    between: str


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

    A conditional model keeps the class along a path; classes come in turn.

    Args:
        model: draws noise and decodes it.
        extractor: of features; values of other extractors do not compare.
        n: paths.
        e: the step, see `path_lengths`.
        device: where the model is.
        seed: of the paths.

    Raises:
        LimnerError: there are fewer than 100 paths, of which no percentiles can be dropped, or e is not positive.
    """
    if n < 100 or e <= 0:
        raise LimnerError(f"a path length needs at least 100 paths and a positive step, got n={n} and e={e:g}")
    generator, between = torch.Generator(device).manual_seed(seed), interpolation_for(model.prior)
    found = []
    for ids, y in _turns(model, n, 250, device):
        a, b = (model.prior.sample(len(ids), generator) for _ in range(2))
        t = torch.rand(len(ids), generator=generator, device=device)
        twice = None if y is None else torch.cat([y, y])

        def G(z: Tensor, y: Tensor | None = twice) -> Tensor:
            return model.decode(z, y).clamp(-1, 1)

        found.append(path_lengths(G, extractor.features, a, b, t, e=e, between=between).cpu())
    lengths = torch.cat(found).numpy()
    low, high = np.percentile(lengths, 1, method="lower"), np.percentile(lengths, 99, method="higher")
    kept = lengths[(lengths >= low) & (lengths <= high)]
    return PathLength(float(kept.mean()), float(kept.std(ddof=1) / len(kept) ** 0.5), n, e, between.__name__)


@dataclass(frozen=True)
class InterpolationFd:
    """Fréchet distances of samples and of what lies between them.

    Attributes:
        samples: of images of draws of the prior.
        midpoints: of images half-way between two draws.
        ratio: midpoints over samples.
        n: images of each.
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
    """How much worse images half-way between two draws are than images of draws.

    Args:
        model: draws noise and decodes it, in evaluation mode.
        extractor: of features.
        real: mean (d,) and covariance (d,d) of the features of real images.
        n: images of each kind; the two distances have the same bias.
        device: where the model is.
        seed: of the draws.

    Raises:
        LimnerError: n is below 2, or the samples are at no distance from the real images.
    """
    generator, between = torch.Generator(device).manual_seed(seed), interpolation_for(model.prior)
    samples, midpoints = Moments(), Moments()
    for ids, y in _turns(model, n, 250, device):
        a, b = (model.prior.sample(len(ids), generator) for _ in range(2))
        middle = between(a, b, torch.full((len(ids),), 0.5, device=a.device, dtype=a.dtype))
        for moments, z in ((samples, a), (midpoints, middle)):
            moments.update(extractor.features(to_uint8(model.decode(z, y))))
    mine, half = (frechet_distance(*m.compute(), *real) for m in (samples, midpoints))
    if mine == 0:
        raise LimnerError(
            "the samples are at no distance from the real images, so there is no ratio; give held-out ones"
        )
    return InterpolationFd(mine, half, half / mine, n)


@dataclass(frozen=True)
class Evenness:
    """Largest over mean step along paths.

    Attributes:
        value: mean over paths.
        worst: 95th percentile over paths.
        paths: how many.
        steps: on each.
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
    """How evenly images change along paths between two draws; 1 is even, `steps` one single jump.

    Args:
        model: draws noise and decodes it, in evaluation mode.
        extractor: of features.
        paths: how many.
        steps: on each.
        device: where the model is.
        seed: of the draws.

    Raises:
        LimnerError: there is no path, or one of fewer than two steps.
    """
    if paths < 1 or steps < 2:
        raise LimnerError(f"evenness is of at least 1 path of at least 2 steps, got {paths} and {steps}")
    generator, between = torch.Generator(device).manual_seed(seed), interpolation_for(model.prior)
    found = []
    for ids, y in _turns(model, paths, 32, device):
        a, b = (model.prior.sample(len(ids), generator).repeat_interleave(steps + 1, 0) for _ in range(2))
        t = torch.linspace(0, 1, steps + 1, dtype=a.dtype, device=a.device).repeat(len(ids))
        images = model.decode(between(a, b, t), None if y is None else y.repeat_interleave(steps + 1))
        found.append(evenness(extractor.features(images.clamp(-1, 1)).view(len(ids), steps + 1, -1)).cpu())
    value = torch.cat(found)
    return Evenness(float(value.mean()), float(value.quantile(0.95)), paths, steps)


def _turns(model: object, n: int, size: int, device: torch.device | str) -> Iterator[tuple[range, Tensor | None]]:
    """Runs of `n` draws, at most `size` at a time, with their classes in turn for a conditional model."""
    for first in range(0, n, size):
        ids = range(first, min(first + size, n))
        y = None
        if isinstance(model, Conditional):
            y = model.condition.default(ids.stop)[ids.start :].to(device)
        yield ids, y


# ---- what of the space holds images --------------------------------------------------------------------------------


def hole_rate(contributions: Tensor | ArrayLike) -> float:
    """Share of samples with no real image near: those whose contribution to clipped density is 0.

    >>> hole_rate([0.0, 0.2, 1.0, 0.0])
    0.5

    Args:
        contributions: (N,) of samples drawn from the whole prior, without truncation.

    Raises:
        LimnerError: there are none, or they are no contributions.
    """
    c = torch.as_tensor(contributions).detach().double()
    if c.ndim != 1 or not len(c) or not bool((c >= 0).all()):
        raise LimnerError(f"a hole rate is of contributions (N,) from 0 to 1, got the shape {tuple(c.shape)}")
    return float((c == 0).double().mean())


@dataclass(frozen=True)
class Gap:
    """A kernel distance between codes of images and draws of the prior.

    Attributes:
        value: unbiased squared MMD, from about 0 (it may fall a little below) to 2.
        error: its standard error.
        noise: its standard deviation if codes were draws of the prior. A gap below two of them is none that so many
            images can show.
        n: codes, and as many draws.
        drawn: whether codes were draws of q(z|x), or else `encode`'s.
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
    """How far the codes of images, all together, are from the prior that samples are drawn from.

    The kernel is the mean of five Gaussians around the median distance (`limner.metrics.kernel.mmd`). A model with a
    `posterior` is asked for one draw of it an image: q(z) is made of whole clouds, not of their middles, which always
    lie too near to 0. Others are asked for their codes.

    Args:
        model: encodes, and has a prior; in evaluation mode.
        dataset: images.
        n: images, spread evenly over the set.
        device: where the model is.
        seed: of the draws.

    Raises:
        LimnerError: the model has no prior, or there are too few images.
    """
    if not isinstance(model, HasPrior):
        raise LimnerError("this model has no prior that its codes could be compared with; fit one to its codes first")
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
    one, other = (model.prior.sample(n, generator).flatten(1) for _ in range(2))
    found = mmd(torch.cat(codes), one)
    return Gap(found.value, found.error, mmd(other, one).error, n, drawn)


@dataclass(frozen=True)
class RoundTrip:
    """What is lost on the way there and back, in the units of images ([-1,1]) and of codes.

    Attributes:
        x_max: largest ``|x - decode(encode(x))|``.
        x_mean: mean of it.
        z_max: largest ``|z - encode(decode(z))|``.
        z_mean: mean of it.
        codes: where z came from: ``prior``, or ``images``.
    """

    x_max: float
    x_mean: float
    z_max: float
    z_mean: float
    codes: str


@torch.inference_mode()
def round_trip(model: Reconstructs, x: Tensor, y: Tensor | None = None, *, seed: int = 0) -> RoundTrip:
    """Images to codes and back, and codes to images and back.

    Codes are draws of the prior where there is one, else those of the images.

    Args:
        model: encodes and decodes, in evaluation mode.
        x: images (B,C,H,W) in [-1,1], on the model's device.
        y: their classes, for conditional models.
        seed: of the draws.
    """
    if not len(x):
        raise LimnerError("a round trip needs at least 1 image, there is none")
    codes = model.encode(x, y)
    z, source = codes, "images"
    if isinstance(model, HasPrior):
        z, source = model.prior.sample(len(x), torch.Generator(x.device).manual_seed(seed)), "prior"
    there = (x - model.decode(codes, y)).abs().double()
    back = (z - model.encode(model.decode(z, y), y)).abs().double()
    return RoundTrip(float(there.max()), float(there.mean()), float(back.max()), float(back.mean()), source)
