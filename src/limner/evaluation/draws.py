"""Images of a set as scores take them: drawn at random, in batches, and dequantised for likelihoods."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from limner.core.batch import Dataset, drawn, to_float
from limner.core.capabilities import Conditional, HasPrior

GREY = 2 / 255
"""Width of a grey level on [-1,1]."""


def counted(n: int, total: int, what: str) -> str:
    """How many of how many things, and how they were chosen.

    >>> counted(500, 500, "pictures of photos"), counted(500, 12_000, "pictures of photos")
    ('500 pictures of photos', '500 of 12,000 pictures of photos (drawn with seed 0)')
    """
    return f"{n} {what}" if n >= total else f"{n} of {total:,} {what} (drawn with seed 0)"


def batches(
    dataset: Dataset, n: int, size: int, device: torch.device | str
) -> Iterator[tuple[Tensor, Tensor | None, list[int]]]:
    """`n` drawn images, their classes and indices, with the deterministic transforms of training."""
    indices = drawn(len(dataset), n)
    for first in range(0, n, size):
        ids = indices[first : first + size]
        x = to_float(dataset.fetch(ids)).to(device)
        for augment in dataset.augment:  # static binarisation is part of the data and depends on the sample alone
            x = augment(x, torch.tensor(ids, device=device))
        y = None if dataset.labels is None else dataset.labels[ids].to(device)
        yield x, y, ids


def asked_labels(model: object, heldout: Dataset, n: int) -> Tensor | None:
    """Labels (n,…) of the samples that are scored; None for a model without a condition.

    They are all classes in turn; of other labels those of held-out images, so that samples and the images that they are
    compared with have the same combinations.
    """
    if not isinstance(model, Conditional):
        return None
    if model.condition.names is not None or heldout.labels is None or heldout.condition != model.condition:
        return model.condition.default(n)
    ids = torch.tensor(drawn(len(heldout), n))
    return heldout.labels[ids[torch.arange(n) % len(ids)]]


def drawn_codes(model: HasPrior, n: int, generator: torch.Generator) -> Tensor:
    """Draws (n,…) of the model's prior, with those of its sampling options that the prior takes, such as truncation."""
    options: Mapping[str, Any] = getattr(model, "options", {})
    known = inspect.signature(model.prior.sample).parameters.values()
    names = {p.name for p in known} | (set(options) if any(p.kind is p.VAR_KEYWORD for p in known) else set())
    return model.prior.sample(n, generator, **{k: v for k, v in options.items() if k in names})


def dequantised(x: Tensor, measure: str, seed: int) -> Tensor:
    """Images (B,C,H,W) in [-1,1], dequantised for models of this measure.

    For a density, uniform noise of the width of a grey level is added, on [-1-1/255, 1+1/255]; for a unit density,
    likewise on [0,1), (level + u)/256. For probabilities, x is returned.
    """
    if measure not in ("density", "unit_density"):
        return x
    generator = torch.Generator(x.device).manual_seed(seed)
    u = torch.rand(x.shape, generator=generator, device=x.device)
    return x + (u - 0.5) * GREY if measure == "density" else (127.5 * (x + 1) + u) / 256
