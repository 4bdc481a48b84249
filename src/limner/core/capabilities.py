"""What a model can do besides training and sampling: a `Protocol` for each ability.

Metrics, latent tools, tasks and the studio ask for an ability with `isinstance`. None of them ever asks for a class, so
a new model has all tools at once.
"""

from __future__ import annotations

from collections.abc import Callable
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
class Reconstructs(Encodes, Decodes, Protocol):
    """An autoencoder of any kind."""


@runtime_checkable
class Corrupts(Protocol):
    """Trained to undo a corruption it can also apply."""

    def corrupt(self, x: Tensor, noise: Callable[..., Tensor]) -> Tensor:
        """Corrupted images (B,C,H,W); `noise(*size)` gives standard normal numbers."""
        ...


@runtime_checkable
class Translates(Protocol):
    """Makes pictures of one domain from pictures of another.

    Attributes:
        domains: what it can translate to: ``("b",)``, or ``("b", "a")`` for both ways.
        source: (C,H,W) of the pictures that domain a had in training; any H and W will do.
        shape: (C,H,W) of those of domain b.
        pairing: how sources were made of targets (name and amount); None where both were given.
    """

    domains: tuple[str, ...]
    source: tuple[int, int, int]
    shape: tuple[int, int, int]
    pairing: dict[str, Any] | None

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        """Pictures (B,C,H,W) in [-1,1] of domain `to`, of pictures (B,C',H,W) of the other."""
        ...


@runtime_checkable
class Stylises(Protocol):
    """Paints pictures in the style of any other picture; `stylised` puts the three together."""

    def encode_features(self, x: Tensor) -> Tensor:
        """Maps (B,N,h,w) of pictures (B,3,H,W) in [-1,1]."""
        ...

    def transfer_statistics(self, maps: Tensor, style: Tensor) -> Tensor:
        """Maps (B,N,h,w) with the statistics of the maps of a style (B or 1,N,h',w')."""
        ...

    def decode_features(self, maps: Tensor) -> Tensor:
        """Pictures of maps."""
        ...


@runtime_checkable
class Conditional(Protocol):
    """Generates what it is asked for.

    Attributes:
        condition: what it can be asked for.
    """

    condition: Condition


@runtime_checkable
class HasBound(Protocol):
    """Bounds the likelihood by importance sampling.

    Attributes:
        measure: what p(x) is: ``bernoulli`` pixels, a ``density`` on [-1,1], or that of ``discrete`` grey values.
    """

    measure: str

    def log_weights(self, x: Tensor, k: int, noise: Callable[..., Tensor], y: Tensor | None = None) -> Tensor:
        """Log p(x,z)/q(z|x) in nats, (k,B), for k draws of z per image."""
        ...


class SamplesNoise(Protocol):
    """A prior that can be sampled, wholly or near its middle."""

    def sample(self, n: int, generator: torch.Generator, *, truncation: float | None = None) -> Tensor:
        """Noise (n,z) on the generator's device."""
        ...


@runtime_checkable
class HasPrior(Protocol):
    """Draws samples by decoding noise."""

    prior: SamplesNoise


class Generates(HasPrior, Decodes, Protocol):
    """Its samples are decoded noise."""


@runtime_checkable
class HasPosterior(Protocol):
    """Gives a whole distribution of codes for an image, N(mean, exp(logvar)) of independent numbers."""

    def posterior(self, x: Tensor, *y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B,z); a conditional model is given the classes too."""
        ...


@runtime_checkable
class HasLogProb(Protocol):
    """Knows the likelihood of an image; a `measure`, as of `HasBound`, says of what: by default a density on [-1,1]."""

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Log p(x) in nats, (B,), of images (B,C,H,W)."""
        ...


@runtime_checkable
class HasCritic(Protocol):
    """Has a critic whose judgement moves the samples."""

    def critic(self, x: Tensor) -> Tensor:
        """Logits (B,) of images (B,C,H,W); high means real."""
        ...

    def sample_gradient(self, fake: Tensor, real: Tensor) -> Tensor:
        """Where the generator's loss would move each sample, of the shape of `fake` (B,C,H,W)."""
        ...


@runtime_checkable
class ScoresSamples(Protocol):
    """Tells ordinary images from anomalous ones."""

    def score_samples(self, x: Tensor) -> Tensor:
        """(B,), higher is more ordinary (the sign of scikit-learn's `score_samples`)."""
        ...
