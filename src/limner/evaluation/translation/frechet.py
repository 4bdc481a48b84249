"""Fréchet distances of few translations, with errors from a jackknife."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor

from limner.core.batch import Dataset, drawn
from limner.core.errors import LimnerError
from limner.evaluation.translation.measures import Measurements, On, score_name
from limner.evaluation.translation.without_learning import chunks
from limner.metrics.extractors import features, pretrained
from limner.metrics.extractors.features import Extractor
from limner.metrics.frechet import Moments, frechet_distance
from limner.metrics.scorecard import Card, Score, missing, normalised, student

_GROUPS = 10  # of the jackknife
MIN_IMAGES = 20
"""The fewest images that have a Fréchet distance."""


def extractor_for(dataset: Dataset, device: torch.device | str = "cpu") -> Extractor:
    """The default extractor for Fréchet distances.

    It is the classifier for the data if there is one, EfficientNet-Lite0 for colour images if it is installed, else
    random features fitted to the data set.
    """
    known = features.KEYS.get(dataset.name)
    if known:
        return features.classifier(known, device)
    if dataset.shape[0] == 3:
        try:
            return pretrained.pretrained("effnet-lite0", device)
        except LimnerError:  # the extra is missing
            pass
    return features.fitted(dataset, device)


def small_set_frechet(x: Tensor, y: Tensor) -> float:
    """Fréchet distance of features x (N,d) and y (M,d) as of `limner.metrics.frechet.frechet`, fast for few images.

    With S = AᵀA and T = BᵀB the trace of (ST)^½ is the sum of the singular values of ABᵀ, which is N×M: for fewer
    images than dimensions that is quicker by far, and exact where covariances are singular.
    """
    if min(len(x), len(y)) >= x.shape[1]:
        return frechet_distance(*Moments().update(x).compute(), *Moments().update(y).compute())
    a, b = (np.asarray(z.cpu().double().numpy()) for z in (x, y))
    apart = float(((a.mean(0) - b.mean(0)) ** 2).sum())
    a, b = ((z - z.mean(0)) / math.sqrt(len(z) - 1) for z in (a, b))
    overlap = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(apart + float((a**2).sum() + (b**2).sum() - 2 * overlap), 0.0)


def _jackknife(x: Tensor, y: Tensor) -> tuple[float, float, float, float]:
    """The distance, its standard error and 95 % interval by a jackknife over ten groups of images."""
    distance = small_set_frechet(x, y)

    def without(z: Tensor, group: int) -> Tensor:
        return z[torch.arange(len(z)) % _GROUPS != group]

    left_out = [small_set_frechet(without(x, g), without(y, g)) for g in range(_GROUPS)]
    mean = sum(left_out) / _GROUPS
    error = math.sqrt((_GROUPS - 1) / _GROUPS * sum((value - mean) ** 2 for value in left_out))
    half = student(_GROUPS - 1) * error
    return distance, error, max(distance - half, 0.0), distance + half


def frechet_score(
    fake: Tensor, target: Tensor, real: Tensor | None, floor: float | None, on: str, how: str = ""
) -> Score:
    """A Fréchet distance; its ceiling is that of real images. `how` is given for baselines."""
    value, error, low, high = _jackknife(fake, target)
    ceiling = None if real is None or len(real) < MIN_IMAGES else small_set_frechet(real, target)
    if not how:
        how = "Fréchet distance of translations from held-out targets, all together (Heusel et al. 2017)"
        if len(fake) <= fake.shape[1]:
            how += f"; fewer images than the {fake.shape[1]:,} features, so it compares only at as many"
        if ceiling is not None:
            how += f"; as many training targets have {ceiling:.4g}"
    norm = normalised(value, floor, ceiling) if floor is not None and ceiling is not None and floor > ceiling else None
    return Score(
        value, on=on, how=how, property="quality", error=error, low=low, high=high, better="lower", ceiling=ceiling,
        floor=floor, norm=norm,
    )  # fmt: skip


def frechet_scores(
    measurements: dict[str, Measurements],
    targets: list[Tensor],
    train: Dataset | None,
    extractor: Extractor,
    n: int,
    on: On,
    descriptions: dict[str, str],
) -> Card:
    """Fréchet distances of every method. The nearest neighbour gives real images, so it is no floor here."""
    if n < MIN_IMAGES:
        return {"fd": missing("quality", f"a Fréchet distance needs {MIN_IMAGES} held-out images, there are {n}")}
    target = torch.cat(targets)
    real = None if train is None else features_of(extractor, train, n)
    at, what = f"@{extractor.key}[n={n}]", on.text(n)
    others = {
        method: frechet_score(torch.cat(m.features), target, None, None, what, f"the same for {descriptions[method]}")
        for method, m in measurements.items()
        if method
    }
    floor = min((cast(float, s.value) for method, s in others.items() if method != "nearest"), default=None)
    card = {f"fd{at}": frechet_score(torch.cat(measurements[""].features), target, real, floor, what)}
    return card | {f"{score_name('fd', method)}{at}": score for method, score in others.items()}


def features_of(extractor: Extractor, dataset: Dataset, n: int) -> Tensor:
    """Features of at most n images of a set, drawn at random."""
    return torch.cat([extractor.features(dataset.fetch(ids)).cpu() for ids in chunks(drawn(len(dataset), n), 64)])
