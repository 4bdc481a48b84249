"""The images that a training leaves on its way: samples of the same noise, reconstructions of the same images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from limner.core.batch import Images, evenly_spaced
from limner.core.capabilities import Corrupts, Reconstructs
from limner.core.inference import reconstruct

COLUMNS = 16
"""Images of a batch that a preview is made of, at most."""


class Grid(NamedTuple):
    """Images (N,C,H,W) in [-1,1] and how many stand side by side; None makes it as square as it gets."""

    images: Tensor
    columns: int | None = None


def reconstructions(model: Reconstructs, batch: Images, seed: int = 0) -> Grid:
    """Rows of inputs, of corrupted inputs where the model undoes a corruption, and of outputs."""
    rows = [batch.x]
    if isinstance(model, Corrupts):
        generator = torch.Generator(batch.x.device).manual_seed(seed)
        rows.append(
            model.corrupt(batch.x, lambda *size: torch.randn(*size, generator=generator, device=batch.x.device))
        )
    rows.append(reconstruct(model, rows[-1], batch.y))
    return Grid(torch.cat(rows), len(batch.x))


def rgb(x: Tensor) -> Tensor:
    """Images (B,C,H,W) of any number of channels in colour: (B,3,H,W)."""
    return x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)


def rows_of(*rows: Tensor, most: int = 8) -> Grid:
    """A grid with one row for each batch (B,C,H,W), at most `most` columns wide, in colour."""
    chosen = evenly_spaced(len(rows[0]), most)
    return Grid(torch.cat([rgb(row[chosen].cpu()) for row in rows]), len(chosen))
