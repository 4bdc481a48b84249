"""Bounds of the likelihood on images never trained on.

ELBO: Kingma and Welling 2013. IWAE-K: Burda, Grosse and Salakhutdinov 2015, eq. 8; it rises with K towards log p(x).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from limner.core.batch import Dataset, to_float
from limner.core.errors import LimnerError
from limner.core.model import Bounds
from limner.losses.likelihood import log_mean_exp


@dataclass(frozen=True)
class Likelihood:
    """Mean bounds in nats per image, with standard errors over images."""

    elbo: float
    elbo_error: float
    iwae: float
    iwae_error: float
    k: int
    n: int


@torch.inference_mode()
def bounds(
    model: Bounds,
    dataset: Dataset,
    *,
    k: int = 50,
    device: torch.device | str = "cpu",
    seed: int = 0,
    limit: int | None = None,
) -> Likelihood:
    """ELBO and IWAE-K of images.

    Args:
        model: anything that gives importance weights, in evaluation mode.
        dataset: images, with classes if the model is conditional.
        k: draws per image.
        device: where the model is.
        seed: of the draws; the result does not depend on the batch size beyond rounding.
        limit: only so many images, spread evenly over the set.

    Raises:
        LimnerError: `k` is below 1.
    """
    if k < 1:
        raise LimnerError(f"IWAE needs at least one draw, got k={k}")
    n = min(limit or len(dataset), len(dataset))
    elbos, iwaes = [], []
    for x, y, ids in batches(dataset, n, 100, device):
        log_w = []
        if model.measure == "density":  # a density needs continuous values: spread each grey level over its width
            g = torch.Generator(device).manual_seed(seed + ids[0])
            x = x + (torch.rand(x.shape, generator=g, device=device) - 0.5) * (2 / 255)
        for first in range(0, k, 50):  # bounded memory: 50 draws of 100 images at a time
            generator = torch.Generator(device).manual_seed(seed + 1_000_003 * first + ids[0])

            def noise(*size: int, generator: torch.Generator = generator) -> Tensor:
                return torch.randn(*size, generator=generator, device=device)

            log_w.append(model.log_weights(x, min(50, k - first), noise, y).double())
        whole = torch.cat(log_w)  # (k,B)
        elbos.append(whole.mean(0))
        iwaes.append(log_mean_exp(whole, 0))
    elbo, iwae = torch.cat(elbos).cpu(), torch.cat(iwaes).cpu()
    elbo_error, iwae_error = (float(v.std()) / math.sqrt(n) if n > 1 else 0.0 for v in (elbo, iwae))
    return Likelihood(float(elbo.mean()), elbo_error, float(iwae.mean()), iwae_error, k, n)


def batches(
    dataset: Dataset, n: int, size: int, device: torch.device | str
) -> Iterator[tuple[Tensor, Tensor | None, list[int]]]:
    """`n` images spread evenly (sets may be sorted by class), prepared as in training but without a random view."""
    chosen = [i * len(dataset) // n for i in range(n)]
    for first in range(0, n, size):
        ids = chosen[first : first + size]
        x = to_float(dataset.fetch(ids)).to(device)
        for augment in dataset.augment:  # static binarisation is part of the data, and a function of the sample alone
            x = augment(x, torch.tensor(ids, device=device))
        y = None if dataset.labels is None else dataset.labels[ids].to(device)
        yield x, y, ids
