"""The latent prior p_z of models that decode noise, and an empirical prior for autoencoders."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod, sqrt
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from limner.core.errors import LimnerError
from limner.core.model import Data
from limner.core.rng import Noise, seed_from

Kind = Literal["normal", "uniform"]
Positive = Annotated[float, Field(gt=0)]


class Prior:
    """Independent noise, N(0, I) or uniform on [-1,1]^z.

    Args:
        kind: normal, or uniform as in the first GAN papers.
        z: dimension of a noise vector.
    """

    def __init__(self, kind: Kind, z: int) -> None:
        self.kind, self.z = kind, z

    def batch(self, n: int, data: Data) -> Tensor:
        """Noise (n,z) for a training step, a function of the stream's seed and position."""
        return data.randn(n, self.z) if self.kind == "normal" else 2 * data.rand(n, self.z) - 1

    def sample(self, n: int, generator: torch.Generator, *, truncation: Positive | None = None) -> Tensor:
        """Noise (n,z), on the generator's device.

        Args:
            n: number of vectors.
            generator: source of the noise.
            truncation: limits all values to ±truncation: the truncation trick (Brock et al. 2019, arXiv:1809.11096,
                section 3.1). Lower it for more typical and less varied images. A truncated normal is drawn through its
                inverse distribution function, so a seed gives similar images at every truncation.

        Raises:
            LimnerError: truncation is not positive.
        """
        if self.kind == "normal":
            return _normal((n, self.z), generator, truncation)
        return self.largest(truncation) * (
            2 * torch.rand((n, self.z), generator=generator, device=generator.device) - 1
        )

    @staticmethod
    def largest(truncation: float | None) -> float:
        """The largest number of uniform noise: truncation, or 1."""
        return 1.0 if truncation is None else min(_positive(truncation), 1.0)


class NormalPrior:
    """Standard normal noise of the shape of an image, for flows and diffusion: the i-th is a function of seed and i.

    Args:
        shape: shape of one sample.
    """

    kind = "normal"

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)

    def sample(self, n: int, generator: torch.Generator, *, temperature: Positive | None = None) -> Tensor:
        """Noise (n, *shape), on the generator's device.

        Args:
            n: number of samples.
            generator: gives the seed of the noise.
            temperature: factor of the noise, 1 by default. Below 1 the samples of a flow are more typical and less
                varied (Kingma and Dhariwal 2018, arXiv:1807.03039, section 6).

        Raises:
            LimnerError: temperature is not positive.
        """
        if temperature is not None and not 0 < temperature < inf:
            raise LimnerError(f"temperature is {temperature!r}; give a positive number such as 0.7, or leave it out")
        z = Noise(seed_from(generator), n, device=generator.device)(0, *self.shape)
        return z if temperature is None else temperature * z


class EmpiricalPrior(nn.Module):
    """A prior for autoencoders, which define none: a Gaussian with the moving mean and variance of the training codes.

    Samples drawn with it are not realistic, because the components of real codes are neither Gaussian nor independent.
    Ghosh et al. 2020 (arXiv:1903.12436) call a density that is fitted after training *ex-post*.

    Args:
        code: shape of one code.
        least: lower limit of all values of a sampled code.
        momentum: weight of the newest batch in the moving mean and variance.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, code: tuple[int, ...], least: float | None = None, momentum: float = 0.02) -> None:
        super().__init__()
        self.code, self.least, self.momentum = tuple(code), least, momentum
        self.register_buffer("mean", torch.zeros(prod(code)))
        self.register_buffer("var", torch.ones(prod(code)))

    @torch.no_grad()
    def update(self, z: Tensor) -> None:
        """Updates the moments with codes (B,…)."""
        z = z.detach().flatten(1).float()
        self.mean.lerp_(z.mean(0), self.momentum)
        self.var.lerp_(z.var(0, unbiased=False), self.momentum)

    def sample(self, n: int, generator: torch.Generator, *, truncation: Positive | None = None) -> Tensor:
        """Independent Gaussian codes (n, *code).

        Args:
            n: number of codes.
            generator: source of the noise.
            truncation: largest distance from the mean in standard deviations. Lower it for more typical images.

        Raises:
            LimnerError: truncation is not positive.
        """
        eps = _normal((n, len(self.mean)), generator, truncation)
        z = self.mean + self.var.sqrt() * eps
        return (z if self.least is None else z.clamp_min(self.least)).view(n, *self.code)


def _normal(size: tuple[int, int], generator: torch.Generator, truncation: float | None) -> Tensor:
    device = generator.device
    if truncation is None:
        return torch.randn(size, generator=generator, device=device)
    truncation = _positive(truncation)
    u = 2 * torch.rand(size, generator=generator, device=device, dtype=_exact(device)) - 1
    bound = torch.erf(torch.tensor(truncation / sqrt(2), dtype=u.dtype))
    return (sqrt(2) * torch.erfinv(u * bound.to(device))).float().clamp(-truncation, truncation)


def _positive(truncation: float) -> float:
    if not 0 < truncation < inf:
        raise LimnerError(f"truncation is {truncation!r}; give a positive number such as 0.7, or leave it out")
    return truncation


def _exact(device: torch.device) -> torch.dtype:
    """float64 if the device has it, because erfinv near ±1 needs the precision."""
    return torch.float32 if device.type == "mps" else torch.float64
