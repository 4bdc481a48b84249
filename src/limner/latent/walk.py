"""Walks through latent space: between two codes, along one dimension, and over a two-dimensional space.

A straight line between Gaussian codes passes near the origin, where hardly any code lies; the arc of `slerp` stays at
the norms that codes have (White 2016, *Sampling generative networks*, arXiv:1609.04468, section 2.1). The grid of
`manifold` is that of Kingma and Welling 2013 (arXiv:1312.6114), figure 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core import interpolation
from limner.core.capabilities import Decodes
from limner.core.errors import LimnerError


def lerp(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """`steps` codes (steps,…) on the straight line from code a (…) to code b (…), both ends included.

    >>> lerp(torch.tensor([0.0]), torch.tensor([1.0]), 3).flatten()
    tensor([0.0000, 0.5000, 1.0000])
    """
    return _interpolate(interpolation.lerp, a, b, steps)


def slerp(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """`steps` codes (steps,…) on the arc from code a (…) to code b (…), both ends included.

    If a and b have the same norm, all codes have it. If a and b are parallel, no arc is unique and the straight line is
    used.
    """
    return _interpolate(interpolation.slerp, a, b, steps)


def _interpolate(between: interpolation.Interpolation, a: Tensor, b: Tensor, steps: int) -> Tensor:
    if steps < 2:
        raise LimnerError(f"a walk has at least 2 steps, its ends; got {steps}")
    t = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device)
    return between(a.expand(steps, *a.shape), b.expand(steps, *b.shape), t)


@torch.inference_mode()
def traverse(model: Decodes, z: Tensor, dim: int, values: Tensor, y: Tensor | None = None) -> Tensor:
    """Images (T,C,H,W) of code z (…) as dimension `dim` takes each value and all others stay the same.

    Args:
        model: anything that decodes.
        z: one code.
        dim: index into the flattened code.
        values: (T,) values of that dimension.
        y: (T,) classes, for conditional models.

    Raises:
        LimnerError: the code has no such dimension.
    """
    if not 0 <= dim < z.numel():
        raise LimnerError(f"dim={dim} is out of range; this code has dimensions 0 to {z.numel() - 1}")
    codes = z.repeat(len(values), *[1] * z.dim())  # (T,…)
    codes.flatten(1)[:, dim] = values
    return model.decode(codes, y)


def quantile_grid(n: int) -> Tensor:
    """Codes (n·n,2) at quantiles of N(0, I): z1 grows to the right, z2 upwards, rows from the top.

    Coordinates are the inverse normal distribution function at (i + ½)/n, so each cell of the grid has probability 1/n²
    and the grid is denser where codes are more frequent.

    >>> quantile_grid(2)
    tensor([[-0.6745,  0.6745],
            [ 0.6745,  0.6745],
            [-0.6745, -0.6745],
            [ 0.6745, -0.6745]])
    """
    if n < 1:
        raise LimnerError(f"a grid has at least 1 row, got {n}")
    line = torch.special.ndtri((torch.arange(n) + 0.5) / n)
    z2, z1 = torch.meshgrid(line.flip(0), line, indexing="ij")
    return torch.stack([z1.flatten(), z2.flatten()], 1)


@torch.inference_mode()
def manifold(model: Decodes, n: int = 20, device: torch.device | str = "cpu") -> Tensor:
    """Images (n·n,C,H,W) over a two-dimensional latent space, in the order of `quantile_grid`.

    Raises:
        LimnerError: the model's codes have another size.
    """
    try:
        return model.decode(quantile_grid(n).to(device), None)
    except (RuntimeError, ValueError):
        raise LimnerError("a manifold needs a model with two latent dimensions; train one with model.z=2") from None
