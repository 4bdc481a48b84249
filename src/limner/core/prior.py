"""The latent prior p_z of models that turn noise into images."""

from __future__ import annotations

from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from limner.core.errors import LimnerError
from limner.core.model import Data

Kind = Literal["normal", "uniform"]


class Prior:
    """Independent noise, N(0, I) or uniform on [-1,1]^z.

    Args:
        kind: normal, or uniform as in the first GAN papers.
        z: numbers in a noise vector.
    """

    def __init__(self, kind: Kind, z: int) -> None:
        self.kind, self.z = kind, z

    def batch(self, n: int, data: Data) -> Tensor:
        """Noise (n,z) of a training step: a function of the stream's seed and position."""
        return data.randn(n, self.z) if self.kind == "normal" else 2 * data.rand(n, self.z) - 1

    def sample(self, n: int, generator: torch.Generator, truncation: float | None = None) -> Tensor:
        """Noise (n,z), on the generator's device.

        Args:
            n: number of vectors.
            generator: draws them.
            truncation: no number beyond ±truncation: the truncation trick (Brock et al. 2019, arXiv:1809.11096,
                section 3.1), which buys typical images with variety. A truncated normal is drawn through its inverse
                distribution function, so one seed gives the same images at every truncation, more or less extreme.

        Raises:
            LimnerError: truncation is not positive.
        """
        if truncation is not None and truncation <= 0:
            raise LimnerError(f"truncation is {truncation}; give a positive number, 0.7 say, or leave it out")
        size, device = (n, self.z), generator.device
        if self.kind == "uniform":
            return min(truncation or 1, 1) * (2 * torch.rand(size, generator=generator, device=device) - 1)
        if truncation is None:
            return torch.randn(size, generator=generator, device=device)
        u = 2 * torch.rand(size, generator=generator, device=device, dtype=_exact(device)) - 1
        reach = torch.erf(torch.tensor(truncation / sqrt(2), dtype=u.dtype))
        return (sqrt(2) * torch.erfinv(u * reach.to(device))).float().clamp(-truncation, truncation)


def _exact(device: torch.device) -> torch.dtype:
    """float64 where the device has it: erfinv near ±1 needs the digits."""
    return torch.float32 if device.type == "mps" else torch.float64
