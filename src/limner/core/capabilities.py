"""What a model can do besides training and sampling: one `Protocol` for each capability.

Metrics, latent tools and tasks test for a capability with `isinstance` and never for a model's class, so they work with
any new model that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from limner.core.condition import Condition


@runtime_checkable
class Encodes(Protocol):
    """Maps images to codes."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (B,…) of images (B,C,H,W)."""
        ...


@runtime_checkable
class Decodes(Protocol):
    """Maps codes to images."""

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of codes (B,…)."""
        ...


@runtime_checkable
class EstimatesCodes(Protocol):
    """Estimates the named codes that an image was generated from; the noise beside them is not recovered.

    Attributes:
        code_values: the number of values of each code by its name, in order; 0 for a continuous one.
    """

    code_values: Mapping[str, int]

    def estimate_codes(self, x: Tensor) -> Tensor:
        """One number (B,K) for each code of images (B,C,H,W): the likeliest value, or the mean of a continuous one."""
        ...


@runtime_checkable
class Reconstructs(Encodes, Decodes, Protocol):
    """An autoencoder of any kind."""


@runtime_checkable
class Corrupts(Protocol):
    """Is trained to undo a corruption, which it can also apply."""

    def corrupt(self, x: Tensor, noise: Callable[..., Tensor]) -> Tensor:
        """Corrupted images (B,C,H,W); `noise(*size)` gives standard normal numbers."""
        ...


@runtime_checkable
class Translates(Protocol):
    """Translates images of one domain into another.

    Attributes:
        domains: the domains it translates to: ``("b",)``, or ``("b", "a")`` for both directions.
        source: (C,H,W) of the images of domain a in training; it translates images of any H and W.
        shape: (C,H,W) of the images of domain b.
        pairing: name and amount of the degradation that made sources of targets; None if the data have both.
    """

    domains: tuple[str, ...]
    source: tuple[int, int, int]
    shape: tuple[int, int, int]
    pairing: dict[str, Any] | None

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        """Images (B,C,H,W) in [-1,1] of domain `to`, from images (B,C',H,W) of the other domain."""
        ...


@runtime_checkable
class Stylises(Protocol):
    """Renders images in the style of any other image; `limner.core.inference.stylised` combines the three methods.

    Attributes:
        multiple: pixels of which the sides of an image are made a multiple before `encode_features`.
    """

    multiple: int

    def encode_features(self, x: Tensor) -> Tensor:
        """Feature maps (B,N,h,w) of images (B,3,H,W) in [-1,1]."""
        ...

    def transfer_statistics(self, maps: Tensor, style: Tensor) -> Tensor:
        """Feature maps (B,N,h,w) with the statistics of the feature maps of a style (B or 1,N,h',w')."""
        ...

    def decode_features(self, maps: Tensor) -> Tensor:
        """Images (B,3,H,W) in [-1,1] of feature maps (B,N,h,w)."""
        ...


@runtime_checkable
class Conditional(Protocol):
    """Generates images of a class, or of another condition, that the caller chooses.

    Attributes:
        condition: the possible choices.
    """

    condition: Condition


@runtime_checkable
class HasBound(Protocol):
    """Bounds the likelihood by importance sampling.

    Attributes:
        measure: the kind of p(x): ``bernoulli`` pixels, a ``density`` on [-1,1], or ``discrete`` grey values.
    """

    measure: str

    def log_weights(self, x: Tensor, k: int, noise: Callable[..., Tensor], y: Tensor | None = None) -> Tensor:
        """Log p(x,z)/q(z|x) in nats, (k,B), for k samples of z per image."""
        ...


@runtime_checkable
class HasElbo(Protocol):
    """Bounds the likelihood of images by that of a chain of noise levels: diffusion models.

    Attributes:
        elbo_evaluations: calls of its net for each image.
    """

    elbo_evaluations: int

    def elbo(self, x: Tensor, noise: Callable[..., Tensor], y: Tensor | None = None) -> Tensor:
        """An estimate (B,) in nats of the bound of log P(x), the probability of images (B,C,H,W) of 256 grey values.

        `noise(*size)` gives standard normal numbers.
        """
        ...


class SamplesNoise(Protocol):
    """A prior that can be sampled. Its sampling options, such as truncation, are keyword-only and have defaults."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Noise (n,…), one code for each image, on the generator's device."""
        ...


@runtime_checkable
class HasPrior(Protocol):
    """Has a prior over its codes."""

    prior: SamplesNoise


@runtime_checkable
class Generates(HasPrior, Decodes, Protocol):
    """Generates images by decoding noise from its prior."""


@runtime_checkable
class DrawsPairs(HasPrior, Protocol):
    """Makes corresponding images of two domains of one noise from its prior: CoGAN."""

    def decode_pair(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Images of both domains, (B,C,H,W) in [-1,1] each, of noise (B,z)."""
        ...


@runtime_checkable
class HasStyles(Protocol):
    """Maps noise to styles, and makes images of them: one vector w for each layer, from the coarsest to the finest.

    Without mixing the L vectors of an image are equal; w is such a vector, and w+ are L different ones.
    """

    def styles(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Styles (B,L,w) of noise (B,z), and of labels (B,…) of a conditional model."""
        ...

    def truncated_styles(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Styles (B,L,w) of noise (B,z) as samples have them: truncated as the sampling options of `at` say."""
        ...

    def synthesise(self, ws: Tensor) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of styles (B,L,w), with fixed noise; differentiable."""
        ...

    def mean_style(self, y: Tensor | None = None) -> Tensor:
        """The mean of all styles, (1,L,w); for labels (B,…) of a conditional model the mean of each, (B,L,w)."""
        ...

    def modulations(self) -> list[Tensor]:
        """The linear map (channels,w) by which each convolution takes its style from w; those of images are left out.

        The k-th map takes the k-th vector of an image's styles.
        """
        ...


@runtime_checkable
class HasPosterior(Protocol):
    """Encodes an image as a distribution of codes, N(mean, exp(logvar)) with independent components."""

    def posterior(self, x: Tensor, *y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B,z); a conditional model takes the labels too."""
        ...


@runtime_checkable
class HasLogProb(Protocol):
    """Computes the likelihood of an image: a density, unless an attribute `measure` as of `HasBound` says otherwise.

    It is exact, unless an attribute `likelihood_kind` says ``ELBO``, or ``ODE`` for a continuous flow.
    """

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Log p(x) in nats, (B,), of images (B,C,H,W)."""
        ...


@runtime_checkable
class Denoises(Protocol):
    """Estimates a clean image from a noisy one: diffusion and flow-matching models of any parametrisation.

    A noisy image is x + σ ε. Models whose forward process also scales the image, x_t = α x + s ε, are brought to this
    form by x_t / α and σ = s / α (Karras et al. 2022, arXiv:2206.00364, section 2 and table 1).

    Attributes:
        shape: (C,H,W) of an image.
        sigma_data: standard deviation of the data that the model assumes.
        sigma_min: smallest noise level that it was trained on.
        sigma_max: largest noise level that samples start from.
    """

    shape: tuple[int, int, int]
    sigma_data: float
    sigma_min: float
    sigma_max: float

    def denoise(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        """The estimate of E[x_0 | x] (B,C,H,W) from noisy images x (B,C,H,W) with noise levels sigma (B,).

        Without y a conditional model estimates it over all classes.
        """
        ...


@runtime_checkable
class HasCritic(Protocol):
    """Has a critic, whose gradient trains the generator."""

    def critic(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits (B,) of images (B,C,H,W), with labels (B,…) for a conditional critic; high means real."""
        ...

    def sample_gradient(self, fake: Tensor, real: Tensor, y: Tensor | None = None) -> Tensor:
        """The direction in which the generator's loss moves each sample, of the shape of `fake` (B,C,H,W).

        A relativistic loss compares them with as many real images (B,C,H,W), and all have the labels y (B,…).
        """
        ...


@runtime_checkable
class ScoresSamples(Protocol):
    """Separates ordinary images from anomalous ones."""

    def score_samples(self, x: Tensor) -> Tensor:
        """Scores (B,); higher is more ordinary, as in scikit-learn's `score_samples`."""
        ...
