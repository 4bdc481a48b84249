"""Walks through latent space: between two codes, along one number, over the whole of a two-number space.

Straight lines between Gaussian codes pass through the middle, where hardly any code lies; the arc of `slerp` keeps to
the shell where they do (White 2016, *Sampling generative networks*, arXiv:1609.04468, section 2.1). The grid of
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
    return _walk(interpolation.lerp, a, b, steps)


def slerp(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """`steps` codes (steps,…) on the arc from code a (…) to code b (…), both ends included.

    Codes of one norm keep it all along. Where a and b point the same or the opposite way there is no one arc, and the
    straight line is taken.
    """
    return _walk(interpolation.slerp, a, b, steps)


def _walk(between: interpolation.Interpolation, a: Tensor, b: Tensor, steps: int) -> Tensor:
    if steps < 2:
        raise LimnerError(f"a walk has at least 2 steps, its ends; got {steps}")
    t = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device)
    return between(a.expand(steps, *a.shape), b.expand(steps, *b.shape), t)


@torch.inference_mode()
def traverse(model: Decodes, z: Tensor, dim: int, values: Tensor, y: Tensor | None = None) -> Tensor:
    """Images (len(values),C,H,W) as number `dim` of code z (…) takes each value and all others stay.

    Args:
        model: anything that decodes.
        z: one code; of a map, numbers are counted as it is stored.
        dim: which number.
        values: (T,) what it becomes.
        y: (T,) classes, for conditional models.

    Raises:
        LimnerError: the code has no such number.
    """
    if not 0 <= dim < z.numel():
        raise LimnerError(f"a code of {z.numel()} numbers has numbers 0 to {z.numel() - 1}, not {dim}")
    codes = z.repeat(len(values), *[1] * z.dim())  # (T,…)
    codes.flatten(1)[:, dim] = values
    return model.decode(codes, y)


def quantile_grid(n: int) -> Tensor:
    """Codes (n·n,2) at equal steps of probability: z1 grows to the right, z2 upwards, rows from the top.

    Each square of the grid holds the same share 1/n² of N(0, I): coordinates are the inverse normal distribution
    function at (i + ½)/n, so the grid is dense where codes are.

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
    """Images (n·n,C,H,W) over the whole of a two-number latent space, in the order of `quantile_grid`.

    Raises:
        LimnerError: the model's codes have another size.
    """
    try:
        return model.decode(quantile_grid(n).to(device), None)
    except (RuntimeError, ValueError):
        raise LimnerError("a manifold can be drawn of two latent numbers only; train with model.z=2") from None
