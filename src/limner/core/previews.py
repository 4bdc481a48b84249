"""Image grids that show the progress of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from limner.core.batch import Images, evenly_spaced
from limner.core.capabilities import Corrupts, Reconstructs
from limner.core.inference import reconstruct

COLUMNS = 16
"""Largest number of images of a batch in a preview."""


class Grid(NamedTuple):
    """Images (N,C,H,W) in [-1,1] and the number of columns; None makes the grid as square as possible.

    `headings` has a text for each column, or is None.
    """

    images: Tensor
    columns: int | None = None
    headings: Sequence[str] | None = None


def reconstructions(model: Reconstructs, batch: Images, seed: int = 0) -> Grid:
    """Rows of inputs, of corrupted inputs if the model undoes a corruption, and of outputs."""
    rows = [batch.x]
    if isinstance(model, Corrupts):
        generator = torch.Generator(batch.x.device).manual_seed(seed)
        rows.append(
            model.corrupt(batch.x, lambda *size: torch.randn(*size, generator=generator, device=batch.x.device))
        )
    rows.append(reconstruct(model, rows[-1], batch.y))
    return Grid(torch.cat(rows), len(batch.x))


class Level(NamedTuple):
    """A moment of a path from noise to images: the noise level σ, noisy images x + σ ε, and their denoised estimate."""

    sigma: float
    noisy: Tensor
    denoised: Tensor


def paths(levels: Sequence[Level], images: Tensor, sigma_data: float, columns: int = 8) -> Grid:
    """Two rows for each image (N,C,H,W), from noise to the image: noisy images at the data's contrast, and estimates.

    Args:
        levels: the moments of the paths, from noise to images.
        images: where the paths end.
        sigma_data: standard deviation of the data.
        columns: moments that are shown, with the end.
    """
    shown = [levels[i] for i in evenly_spaced(len(levels), columns - 1)]
    noisy = [sigma_data * (at.sigma**2 + sigma_data**2) ** -0.5 * at.noisy for at in shown]
    rows = [torch.stack([*row, images], 1) for row in (noisy, [at.denoised for at in shown])]  # (N,columns,C,H,W) each
    return Grid(torch.stack(rows, 1).flatten(0, 2), len(shown) + 1)


def rgb(x: Tensor) -> Tensor:
    """Converts images (B,C,H,W) with any number of channels to RGB (B,3,H,W)."""
    return x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)


def rows_of(*rows: Tensor, most: int = 8) -> Grid:
    """A grid of RGB images with one row for each batch (B,C,H,W) and at most `most` columns."""
    indices = evenly_spaced(len(rows[0]), most)
    return Grid(torch.cat([rgb(row[indices].cpu()) for row in rows]), len(indices))
