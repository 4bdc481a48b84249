"""Latent codes that a model names: categorical ones and uniform ones, beside noise without a name.

Chen et al. 2016, *InfoGAN*, arXiv:1606.03657, section 5: the input of G is noise z and codes c1, c2, …, all drawn
independently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter
from itertools import accumulate, pairwise
from math import log
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from limner.core import sampling_options
from limner.core.model import Data
from limner.core.prior import Positive, Prior

Code = int | Literal["uniform"]
"""A code: the number of its values if it is categorical, or ``uniform`` on [-1,1]."""

_REACH = 2  # how far a uniform code may be set: the paper's figures go to twice the range of training


class CodePrior(Prior):
    """Independent noise and codes. A draw is a vector (z,): uniform noise on [-1,1], then the codes in order.

    A categorical code is a one-hot vector in it, and a uniform code is one number.

    Args:
        codes: the codes c1, c2, ….
        z: length of the vector.

    Attributes:
        names: names of the codes: c1, c2, ….
        noise: how many numbers of the vector are noise.
        bounds: where each code begins and ends in the vector.

    Raises:
        ValueError: there is no code, a code has fewer than two values, or the vector is too short for them.

    >>> prior = CodePrior([3, "uniform"], z=6)
    >>> prior.sample(2, torch.Generator().manual_seed(0), c1=2)[:, 2:5]
    tensor([[0., 0., 1.],
            [0., 0., 1.]])
    """

    def __init__(self, codes: Sequence[Code], z: int) -> None:
        super().__init__("uniform", z)
        wrong = [code for code in codes if code != "uniform" and code < 2]
        if wrong or not codes:
            raise ValueError(
                f"codes are numbers of values, 2 or more, and 'uniform', such as [10, uniform]; got {codes}"
            )
        self.codes = tuple(codes)
        self.names = tuple(f"c{k}" for k in range(1, len(codes) + 1))
        sizes = [1 if code == "uniform" else int(code) for code in codes]
        self.noise = z - sum(sizes)
        if self.noise < 0:
            raise ValueError(f"these codes need {sum(sizes)} numbers and G takes z={z}; raise G.z (62 more are usual)")
        self.bounds = tuple(pairwise(accumulate(sizes, initial=self.noise)))

    @property
    def options(self) -> dict[str, Parameter]:
        """The sampling options: truncation, and each code by its name. None draws it."""
        parameters = sampling_options.declared(self.sample)
        for name, code in zip(self.names, self.codes, strict=True):
            value: Any = (
                Annotated[float, Field(ge=-_REACH, le=_REACH)]
                if code == "uniform"
                else Annotated[int, Field(ge=0, le=int(code) - 1)]
            )
            parameters[name] = Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=value | None)
        return parameters

    @property
    def entropies(self) -> dict[str, float]:
        """The entropy H(c) of each code in nats: log K of a categorical one, log 2 of a uniform one on [-1,1]."""
        return {name: log(2 if code == "uniform" else code) for name, code in zip(self.names, self.codes, strict=True)}

    def batch(self, n: int, data: Data) -> Tensor:
        """Draws (n,z) for a training step, a function of the stream's seed and position."""
        return self._drawn(data.rand(n, self.noise + len(self.codes)))

    def sample(
        self, n: int, generator: torch.Generator, *, truncation: Positive | None = None, **chosen: float
    ) -> Tensor:
        """Draws (n,z), on the generator's device.

        Args:
            n: number of vectors.
            generator: source of the noise.
            truncation: limits the noise to ±truncation. Lower it for more typical and less varied images of the same
                codes.
            **chosen: codes that are not drawn, such as ``c1=3``; all else is as without them.

        Raises:
            LimnerError: truncation is not positive.
        """
        u = torch.rand((n, self.noise + len(self.codes)), generator=generator, device=generator.device)
        z = self._drawn(u)
        z[:, : self.noise] *= self.largest(truncation)
        return self.fixed(z, chosen)

    def _drawn(self, u: Tensor) -> Tensor:
        """Vectors (n,z) of uniform numbers (n,noise+codes) in [0,1)."""
        parts = [2 * u[:, : self.noise] - 1]
        for v, code in zip(u[:, self.noise :].unbind(1), self.codes, strict=True):
            parts.append(2 * v[:, None] - 1 if code == "uniform" else self._one_hot((v * code).long(), code))
        return torch.cat(parts, 1)

    def fixed(self, z: Tensor, chosen: Mapping[str, float | Tensor]) -> Tensor:
        """Vectors z (n,z) in which some codes, by name, have the value of `chosen`: a number, or numbers (n,)."""
        z = z.clone()
        for name, value in chosen.items():
            k = self.names.index(name)
            (first, end), code = self.bounds[k], self.codes[k]
            values = torch.as_tensor(value, device=z.device).expand(len(z))
            z[:, first:end] = values[:, None] if code == "uniform" else self._one_hot(values.long(), code)
        return z

    def split(self, z: Tensor) -> list[Tensor]:
        """The codes in vectors (B,z), one tensor (B,K) or (B,1) for each."""
        return [z[:, first:end] for first, end in self.bounds]

    @staticmethod
    def _one_hot(index: Tensor, size: int) -> Tensor:
        # `F.one_hot` would read the index on the host and so wait for the device.
        return (index[:, None] == torch.arange(size, device=index.device)).float()
