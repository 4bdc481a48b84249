"""Scores of a translator on held-out pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from limner.core.batch import Dataset, batch_of, drawn
from limner.core.capabilities import Translates
from limner.core.errors import LimnerError
from limner.data.degradations import Degradation
from limner.data.pairs import PairSet
from limner.evaluation.draws import counted
from limner.evaluation.translation.frechet import extractor_for, frechet_scores
from limner.evaluation.translation.measures import MEASURES, Effort, Measurements, On, conditions, scores_with_baselines
from limner.evaluation.translation.without_learning import (
    BATCH,
    NAMES,
    Method,
    baselines,
    chunks,
    rounded,
    task_of,
    translator,
)
from limner.metrics import paired
from limner.metrics.extractors.features import Extractor
from limner.metrics.paired import Perceptual
from limner.metrics.scorecard import Card, Score

_DIVERSITY_SOURCES = 50
CONSTANTS = ("constant", "median")


def pair_scores(
    model: Translates,
    heldout: Dataset,
    train: Dataset | None = None,
    *,
    effort: Effort | None = None,
    extractor: Extractor | None = None,
    perceptual: Perceptual | None = None,
    device: torch.device | str = "cpu",
) -> Card:
    """Scores of a translator on held-out pairs, and of the baselines.

    Args:
        model: in evaluation mode.
        heldout: pairs that it was not trained on.
        train: pairs that it was trained on, for the baselines and the ceiling of the Fréchet distance.
        effort: limits; everything is measured by default.
        extractor: for the Fréchet distance; default that of `extractor_for`.
        perceptual: the perceptual distance; default `Perceptual.best`.
        device: where features are computed.

    Raises:
        LimnerError: the held-out set has no pairs, or translations are not finite.
    """
    if not isinstance(heldout, PairSet):
        raise LimnerError(f"{heldout.name} has no pairs to compare translations with; name pairs with data=FOLDER")
    effort, task = effort or Effort(), task_of(heldout)
    perceptual = perceptual or Perceptual.best(heldout.shape[0], device)
    if effort.frechet and extractor is None:
        extractor = extractor_for(heldout if train is None else train, device)
    methods = {"": translator(model, task), **baselines(heldout, train, effort.references)}
    n = min(effort.n, len(heldout))
    measurements, target_features = _measure_pairs(methods, heldout, n, effort, extractor, perceptual)
    descriptions = {**NAMES, "classic": "" if task is None else f"the classic method ({task.classic_name})"}
    on = On(len(heldout), f"held-out pairs of {heldout.name}" + ("" if task is None else f", {task.name}"))
    card: Card = {}
    for measure in MEASURES:
        at = conditions(measure, len(measurements[""].values[measure]), heldout.shape, perceptual)
        values = {method: m.values[measure] for method, m in measurements.items()}
        card |= scores_with_baselines(measure, values, at, on, descriptions)
    if extractor is not None and effort.frechet:
        card |= frechet_scores(measurements, target_features, train, extractor, n, on, descriptions)
    return card | _diversity(model, heldout, task, effort, perceptual)


def _measure_pairs(
    methods: dict[str, Method],
    heldout: Dataset,
    n: int,
    effort: Effort,
    extractor: Extractor | None,
    perceptual: Perceptual,
) -> tuple[dict[str, Measurements], list[Tensor]]:
    """Measurements of every method on the same images, and the features of the targets."""
    measurements = {method: Measurements() for method in methods}
    ids, with_features = drawn(len(heldout), n), set(drawn(n, effort.perceptual))
    target_features = []
    for positions in chunks(range(n), BATCH):
        a, b = batch_of(heldout, [[ids[i] for i in positions]])
        b = rounded(b)
        selected = [i in with_features for i in positions]
        target = perceptual.layers(b[selected]) if any(selected) else []
        if extractor is not None and effort.frechet:
            target_features.append(extractor.features(b).cpu())
        for name, method in methods.items():
            y = rounded(method(a))
            measurements[name].compare(y, b)
            if target:
                measurements[name].add("perceptual", perceptual.between(perceptual.layers(y[selected]), target))
            if extractor is not None and effort.frechet:
                z = extractor.features(y[:1] if name in CONSTANTS else y).cpu()
                measurements[name].features.append(z.expand(len(y), -1))
    return measurements, target_features


def _diversity(
    model: Translates, heldout: Dataset, task: Degradation | None, effort: Effort, perceptual: Perceptual
) -> Card:
    """How much translations of one source differ with the seed of the noise."""
    if effort.seeds < 2:
        return {}
    measured = Measurements()
    n = min(_DIVERSITY_SOURCES, effort.n, len(heldout))
    for ids in chunks(drawn(len(heldout), n), BATCH):
        a, _ = batch_of(heldout, [ids])
        ys = [rounded(translator(model, task, seed)(a)) for seed in range(effort.seeds)]
        layers = [perceptual.layers(y) for y in ys]
        pairs = [(i, j) for j in range(effort.seeds) for i in range(j)]
        measured.add("l1", torch.stack([paired.l1(ys[i], ys[j]) for i, j in pairs]).mean(0))
        measured.add("perceptual", torch.stack([perceptual.between(layers[i], layers[j]) for i, j in pairs]).mean(0))
    how = (
        f"mean difference between translations of one source under {effort.seeds} seeds of the noise; pix2pix's is near"
        " zero, since dropout is its only noise (Isola et al. 2017, section 3.1)"
    )
    names = {"l1": f"diversity[n={n}]", "perceptual": f"diversity_perceptual@{perceptual.key}[n={n}]"}
    on = counted(n, len(heldout), f"held-out sources of {heldout.name}")
    card = {}
    for measure, name in names.items():
        kind = "on the [0,1] scale, " if measure == "l1" else "of features, "
        card[name] = Score.of_sample(
            measured.values[measure], on=on, how=kind + how, property="coverage", better="higher"
        )
    return card
