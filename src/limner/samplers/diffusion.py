"""The common part of diffusion and flow-matching models: everything that follows from a denoiser.

A model's file states how the net F becomes the denoiser D(x, σ) = E[x0 | x], and how it is trained. Drawing, encoding
and decoding along the probability flow and likelihoods need D alone, so they are here, once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from inspect import Parameter
from math import exp, log, sqrt
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from limner.core import sampling_options as declarations
from limner.core.condition import Classes, from_header
from limner.core.errors import LimnerError
from limner.core.model import Data, GenerativeModel
from limner.core.previews import Grid, Level, paths
from limner.core.prior import NormalPrior
from limner.core.rng import Noise, keys_of, uniform
from limner.samplers import grids
from limner.samplers.bound import decoder_term, prior_term, step_term, strata
from limner.samplers.guidance import guided, unlabelled
from limner.samplers.likelihood import EXACT, log_prob
from limner.samplers.steps import Denoiser, StepNoise, ancestral, dpm2m, euler, heun

Denoise = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""`denoise(x, sigma, y)`, as in `limner.core.capabilities.Denoises`."""

_PARTS = 8  # of the noise levels that `score_samples` goes through


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a diffusion model draws its samples.

    Args:
        steps: number of steps from noise to an image. Raise it for better images; time grows in proportion.
        sampler: euler is DDIM; heun takes two evaluations per step; dpm2m is DPM-Solver++(2M), the best for few steps;
            ancestral adds new noise in each step, as DDPM does.
        guidance: scale of classifier-free guidance: 1 is none. Raise it for images that show their class more clearly;
            lower it for more diverse ones.
        interval: lowest and highest noise level between which there is guidance, such as 0.2,5; null means everywhere.
        rescale: share by which the contrast of guided images is brought back to that of unguided ones. Raise it if
            guided images are too harsh.
        churn: new noise in the steps of heun, S_churn of Karras et al. 2022, to be compared with the number of steps.
            Raise it to mend errors of many steps; lower it for few steps.
        eta: share of new noise in the steps of ancestral, η of Song et al. 2021. Lower it for few steps; 0 adds none.
        grid: noise levels of the steps: flow is even in t = σ/(1+σ), karras in σ^(1/7).
        shift: moves the levels of the flow grid: above 1 towards noise, which suits larger images.

    Raises:
        LimnerError: the interval is empty.
    """

    steps: Annotated[int, Field(ge=1, le=10_000)] = 20
    sampler: Literal["dpm2m", "euler", "heun", "ancestral"] = "dpm2m"
    guidance: Annotated[float, Field(ge=0, le=100)] = 1.0
    interval: tuple[float, float] | None = None
    rescale: Annotated[float, Field(ge=0, le=1)] = 0.0
    churn: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    eta: Annotated[float, Field(ge=0, le=1)] = 1.0
    grid: Literal["flow", "karras"] = "flow"
    shift: Annotated[float, Field(ge=0.001, le=1000)] = 1.0

    def __post_init__(self) -> None:
        if self.interval is not None and not 0 <= self.interval[0] < self.interval[1]:
            raise LimnerError(f"interval={self.interval} is empty; write the lower noise level first, as in 0.2,5")


_GUIDANCE = ("guidance", "interval", "rescale")  # what only a model with classes has
_PATHS = 4  # samples whose path a preview shows
_ONLY_WITH = {"eta": ("sampler", "ancestral"), "churn": ("sampler", "heun"), "shift": ("grid", "flow")}


class DiffusionModel(GenerativeModel):
    """Base of models that estimate a clean image from a noisy one.

    A subclass gives `denoise` and `step`, and calls this constructor.

    Args:
        F: the net.
        known: number of classes that the net knows; 0 if the model is not conditional.
        drop: share of the labels that are hidden in training.
        sampling: sampling options in place of those of the class.
        shape: (C,H,W) of an image.
        classes: number of classes of the data.
        condition: names of the classes.

    Attributes:
        F: the net.
        sampling: how it draws if nobody asks for anything else.
        Options: the class whose fields are the sampling options.
        sigma_data: standard deviation of the data that the model assumes.
        sigma_min: smallest noise level that it is trained on.
        sigma_max: largest noise level, which samples start from.
        null: the class that means "none", see `guided`; None if the model is not conditional.
        measure: the kind of p(x) that `log_prob` gives.
        likelihood_kind: how `log_prob` is computed.
        probes: random probes for the trace in `log_prob`, of more than 16 dimensions.
        elbo_evaluations: passes of the net for one estimate of `elbo`.
    """

    Options: ClassVar[type[Sampling]] = Sampling
    family = "diffusion"
    static = True
    measure = "density"
    likelihood_kind = "ODE"
    probes = 1
    elbo_evaluations = 32
    sigma_data: float = 1.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __init__(
        self,
        F: nn.Module,
        known: int,
        drop: float,
        sampling: Mapping[str, Any] | None,
        shape: tuple[int, int, int],
        classes: int,
        condition: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        self.F, self.drop, self.shape = F, drop, tuple(shape)
        self.prior = NormalPrior(self.shape)
        self.is_points = self.shape[1:] == (1, 1)
        self.null = known or None
        if known:
            self.condition = from_header(condition) if condition else Classes(classes)
        if not 0 <= drop < 1:
            raise ValueError(f"drop={drop:g} must be a share from 0 to below 1; 0.1 is usual")
        declared = declarations.declared(self.Options)
        self._default = self.Options(**declarations.checked("sampling", declared, sampling or {}))
        if self.null is None and self._default.guidance != 1:
            raise ValueError("guidance needs a net that knows classes; write F.conditional: true, or leave it out")

    def groups(self) -> dict[str, nn.Module]:
        return {"F": self.F}

    @abstractmethod
    def denoise(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        """The estimate of E[x0 | x] (B,C,H,W) from x = x0 + σ ε with sigma (B,); y None means no class."""

    # ---- options -----------------------------------------------------------------------------------------

    @classmethod
    def sampling_declaration(cls) -> Callable[..., Any]:
        """The class whose fields are the sampling options."""
        return cls.Options

    @property
    def sampling(self) -> Sampling:
        """The sampling options of this model, with those of `at`."""
        return replace(self._default, **self.options)

    @property
    def sampling_options(self) -> dict[str, Parameter]:
        """The sampling options of this model; their defaults are its own."""
        return {
            name: parameter.replace(default=getattr(self._default, name))
            for name, parameter in declarations.declared(self.Options).items()
            if self.null is not None or name not in _GUIDANCE
        }

    def checked_options(self, options: Mapping[str, Any], settings: Iterable[str] = ()) -> dict[str, Any]:
        """The sampling options whose value is not None, which stands for the default.

        Args:
            options: values by name.
            settings: further words that the caller takes, for the nearest match to a wrong one.

        Raises:
            LimnerError: the model has no such option, or a value has the wrong type or is out of range.
        """
        if self.null is None:
            guiding = {name: options[name] for name in _GUIDANCE if name in options}
            asked = declarations.checked(self.title, declarations.declared(self.Options), guiding)
            if any(value != getattr(self._default, name) for name, value in asked.items()):
                raise LimnerError(
                    f"{self.title} was trained without classes, so there is nothing to guide it by; leave"
                    f" {next(iter(asked))} out"
                )
            options = {name: value for name, value in options.items() if name not in guiding}
        values = super().checked_options(options, settings)
        sampling = replace(self.sampling, **values)  # checks what options mean together
        for name, (key, needed) in _ONLY_WITH.items():
            if name in values and values[name] != getattr(self._default, name) and getattr(sampling, key) != needed:
                raise LimnerError(
                    f"{name} does nothing with {key}={getattr(sampling, key)}; write {key}={needed} too, or leave"
                    f" {name} out"
                )
        for name in _GUIDANCE[1:]:
            if name in values and values[name] != getattr(self._default, name) and sampling.guidance == 1:
                raise LimnerError(f"{name} does nothing without guidance; write guidance=2 too, or leave {name} out")
        return values

    # ---- training ----------------------------------------------------------------------------------------

    def dropped(self, y: Tensor | None, data: Data) -> Tensor | None:
        """Labels (B,) of which a share `drop` is replaced by the null class; None for a net without classes.

        Ho and Salimans 2022, arXiv:2207.12598, Algorithm 1.
        """
        if self.null is None or y is None:
            return None
        hidden = (data.rand(len(y)) < self.drop).view(-1, *[1] * (y.dim() - 1))
        return torch.where(hidden, unlabelled(y, self.null), y)

    # ---- drawing -----------------------------------------------------------------------------------------

    def draw(self, n: int, y: Tensor | None, noise: Noise, **options: Any) -> Tensor:
        """Samples (n,C,H,W), from noise at the highest level down to none."""
        sampling = replace(self.sampling, **options)
        D, sigmas = self.denoiser(sampling, y), self.sigmas(sampling)
        x = self.at_level(noise(0, *self.shape), sigmas[0])
        x = _descend(sampling, D, x, sigmas, lambda step: noise(step, *self.shape))
        return x if self.is_points else x.clamp(-1, 1)

    def denoiser(self, sampling: Sampling, y: Tensor | None, denoise: Denoise | None = None) -> Denoiser:
        """The denoiser that a sampler goes by: guided, and limited to the range of images.

        Args:
            sampling: says how it is guided.
            y: classes (B,) of a conditional model.
            denoise: used in place of the model's own.
        """
        null, interval, rescale = self.null, sampling.interval, sampling.rescale
        D = guided(denoise or self.denoise, y, sampling.guidance, null=null, interval=interval, rescale=rescale)
        # Ho et al. keep the estimate in [-1,1] while they sample; points have no such range.
        return D if self.is_points else lambda x, sigma: D(x, sigma).clamp(-1, 1)

    def sigmas(self, sampling: Sampling) -> list[float]:
        """The noise levels of the steps, from the highest to 0."""
        if sampling.grid == "karras":
            return grids.karras(sampling.steps, self.sigma_min, self.sigma_max)
        return grids.flow(sampling.steps, self.sigma_max, sampling.shift)

    def at_level(self, z: Tensor, sigma: float) -> Tensor:
        """Standard normal noise z (n,C,H,W) with the variance of noisy images at a high level: σ² + σ_data²."""
        return sqrt(sigma**2 + self.sigma_data**2) * z

    def preview(self, batch: Any, n: int, seed: int) -> dict[str, Grid]:
        """``samples`` of the same noise each time, and ``paths`` from noise to the first of them."""
        samples = self.sample_grid(n, seed)
        levels = {} if self.is_points else self.levels_of(min(n, _PATHS), seed)
        if not levels:
            return {"samples": samples}
        grid = paths(list(levels.values()), samples.images[:_PATHS], self.sigma_data)
        return {"samples": samples, "paths": grid}

    def levels_of(self, n: int, seed: int) -> dict[float, Level]:
        """What the denoiser got and gave while n samples of a seed were drawn, by noise level, from high to low.

        It is empty for samples that are drawn without a denoiser.
        """
        seen: dict[float, Level] = {}

        def watched(*choice: Any) -> Denoiser:
            D = self.denoiser(*choice)

            def denoise(x: Tensor, sigma: float) -> Tensor:
                x0 = D(x, sigma)
                seen[sigma] = Level(sigma, x, x0)  # heun comes twice to a level, the second time with less error
                return x0

            return denoise

        model = copy(self)
        model.denoiser = watched  # type: ignore[method-assign,assignment]
        model.sample(n, seed=seed)
        return seen

    # ---- the probability flow, both ways -----------------------------------------------------------------

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The noise z (B,C,H,W), about N(0, I), from which the probability flow leads to images x, by Heun's method.

        Song et al. 2021, arXiv:2011.13456, section 4.3. There is no guidance on this path, in either direction.
        """
        sigmas = self.path()[-2::-1]
        return heun(guided(self.denoise, y), x, sigmas) / self.at_level(x.new_ones(()), sigmas[-1])

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The images (B,C,H,W) to which the probability flow leads from noise z, by Heun's method without guidance."""
        sigmas = self.path()
        x = heun(guided(self.denoise, y), self.at_level(z.view(-1, *self.shape), sigmas[0]), sigmas)
        return x if self.is_points else x.clamp(-1, 1)

    # ---- likelihood --------------------------------------------------------------------------------------

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Log p(x) in nats (B,) of points, or of dequantised images in [-1,1], under the probability flow.

        Song et al. 2021, arXiv:2011.13456, section 4.3, by Heun's method in as many steps as `sampling` has. Few steps
        give a number that means nothing: double them until it stays (`limner.evaluation.likelihood` does). An image has
        the same probes in any batch.

        Args:
            x: images (B,C,H,W).
            y: classes (B,) of a conditional model; without them it is the density over all classes.
        """
        probes = None
        if x[0].numel() > EXACT:
            keys = keys_of(x)
            rows = [uniform(keys, k, x[0].numel()).view_as(x) for k in range(self.probes)]
            probes = torch.stack([torch.where(u < 0.5, -1.0, 1.0) for u in rows])
        sigmas = grids.karras(self.sampling.steps + 1, self.sigma_min, self.sigma_max)
        return log_prob(guided(self.denoise, y), x, sigmas, probes, self.sigma_data)[1]

    def score_samples(self, x: Tensor) -> Tensor:
        """How well noise is told from images (B,): low for images unlike the training set.

        It is -∫ |ε - ε̂|² d ln σ by the middles of eight parts, the part of the variational bound that depends on the
        net (Kingma et al. 2021, arXiv:2107.00630, eq. 12), in nats. All images have the same noise, so the score of
        one does not depend on the others.

        Args:
            x: images (B,C,H,W).
        """
        noise, width = Noise(0, 1, device=x.device), log(self.sigma_max / self.sigma_min)
        score = x.new_zeros(len(x))
        for k in range(_PARTS):
            sigma = self.sigma_min * exp(width * (k + 0.5) / _PARTS)
            error = (x - self.denoise(x + sigma * noise(k, *self.shape), x.new_full((len(x),), sigma))) / sigma
            score = score - width / _PARTS * error.square().flatten(1).sum(1)
        return score

    def elbo(self, x: Tensor, noise: Callable[..., Tensor], y: Tensor | None = None) -> Tensor:
        """An unbiased estimate of the variational bound (B,) in nats of images x (B,C,H,W) of 256 grey levels.

        It takes `elbo_evaluations` passes of the net: one for the decoder, the others for as many steps of the chain.

        Args:
            x: images.
            noise: ``noise(*size)`` gives standard normal numbers.
            y: classes (B,) of a conditional model.
        """
        levels = self.elbo_levels
        sigmas = torch.tensor(levels, dtype=torch.float64, device=x.device)
        nats = prior_term(x, levels[-1], self.sigma_data)
        nats = nats + self.last_nats(x, x + levels[0] * noise(*x.shape), y)
        draws, steps = self.elbo_evaluations - 1, len(levels) - 1
        for index in strata(len(x), draws, steps, noise):
            lower, sigma = sigmas[index].float(), sigmas[index + 1].float()
            noisy = x + sigma.view(-1, 1, 1, 1) * noise(*x.shape)
            nats = nats + steps / draws * self.step_nats(x, noisy, lower, sigma, y)
        return -nats

    @property
    def elbo_levels(self) -> list[float]:
        """The noise levels of the chain whose bound `elbo` gives, ascending."""
        low = max(self.sigma_min, 0.004)  # half a grey level; below it the decoder has nothing to say
        return [low * (self.sigma_max / low) ** (i / 999) for i in range(1000)]

    def last_nats(self, x: Tensor, noisy: Tensor, y: Tensor | None) -> Tensor:
        """The nats (B,) of images x from `noisy` at the lowest level."""
        low = self.elbo_levels[0]
        return decoder_term(x, guided(self.denoise, y)(noisy, low), low)

    def step_nats(self, x: Tensor, noisy: Tensor, lower: Tensor, sigma: Tensor, y: Tensor | None) -> Tensor:
        """The nats (B,) of one step of the chain from images `noisy` with sigma (B,) to lower (B,)."""
        return step_term(x, self.denoise(noisy, sigma, y), lower, sigma)

    def path(self) -> list[float]:
        """The noise levels at which `encode` and `decode` stop: as many as there are steps."""
        return grids.karras(max(2, self.sampling.steps), self.sigma_min, self.sigma_max)


def _descend(sampling: Sampling, D: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise) -> Tensor:
    """Runs the chosen sampler from x (n,C,H,W) at sigmas[0] down to the last level."""
    if sampling.sampler == "heun":
        return heun(D, x, sigmas, noise, churn=sampling.churn)
    if sampling.sampler == "ancestral":
        return ancestral(D, x, sigmas, noise, eta=sampling.eta)
    return (euler if sampling.sampler == "euler" else dpm2m)(D, x, sigmas)
