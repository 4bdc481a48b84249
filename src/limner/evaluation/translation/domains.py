"""Scores of a translator between two held-out domains."""

from __future__ import annotations

from typing import cast

import torch

from limner.core.batch import Dataset, drawn, to_float
from limner.core.capabilities import Translates
from limner.core.errors import LimnerError
from limner.core.inference import translated
from limner.data.pairs import DomainSet
from limner.evaluation.draws import counted
from limner.evaluation.translation.frechet import MIN_IMAGES, extractor_for, features_of, frechet_score
from limner.evaluation.translation.measures import Effort, Measurements, On, conditions, scores_with_baselines
from limner.evaluation.translation.without_learning import BATCH, NAMES, chunks, rounded
from limner.metrics import paired
from limner.metrics.extractors.features import Extractor
from limner.metrics.paired import Perceptual
from limner.metrics.scorecard import Card, Score, missing


def domain_scores(
    model: Translates,
    heldout: Dataset,
    train: Dataset | None = None,
    *,
    effort: Effort | None = None,
    extractor: Extractor | None = None,
    perceptual: Perceptual | None = None,
    device: torch.device | str = "cpu",
) -> Card:
    """Scores of a translator between two held-out domains, and against their pairs where the set knows them.

    Args:
        model: in evaluation mode.
        heldout: two domains that it was not trained on.
        train: the domains that it was trained on, for the ceiling of the Fréchet distance.
        effort: limits; everything is measured by default.
        extractor: for the Fréchet distance; default that of `extractor_for`.
        perceptual: the perceptual distance; default `Perceptual.best`.
        device: where features are computed.

    Raises:
        LimnerError: the held-out set has no two domains, or translations are not finite.
    """
    if not isinstance(heldout, DomainSet):
        raise LimnerError(f"{heldout.name} has no two domains; name a folder with trainA, trainB, testA and testB")
    effort = effort or Effort()
    perceptual = perceptual or Perceptual.best(heldout.shape[0], device)
    if not effort.frechet:
        extractor = None
    elif extractor is None:
        extractor = extractor_for(heldout if train is None else train, device)
    card: Card = {}
    for to in model.domains:
        source, target = (heldout.a, heldout.b) if to == "b" else (heldout.b, heldout.a)
        partners = target if heldout.known else None
        measurements = _measure_domain(model, source, partners, to, effort, extractor, perceptual)
        card |= _cycle_scores(measurements[""], source, to)
        card |= _identity_scores(model, target, to, effort)
        if heldout.known:
            on = On(
                len(source),
                f"held-out pictures of {source.name}, whose partners in {target.name} training did not know",
            )
            for measure in ("l1", "ssim", "perceptual"):
                values = {method: m.values[measure] for method, m in measurements.items()}
                at = conditions(measure, len(values[""]), heldout.shape, perceptual)
                card |= scores_with_baselines(f"{measure}_to_{to}", values, at, on, NAMES, "pair_")
        if extractor is not None:
            trained: Dataset | None = getattr(train, to, None)
            card |= _domain_distances(measurements, target, trained, extractor, source, to, effort.n)
    return card


def _measure_domain(
    model: Translates,
    source: Dataset,
    partners: Dataset | None,
    to: str,
    effort: Effort,
    extractor: Extractor | None,
    perceptual: Perceptual,
) -> dict[str, Measurements]:
    """Measurements of translations ("") and of untranslated images ("identity") of a domain."""
    n, back = min(effort.n, len(source)), "a" if to == "b" else "b"
    ids, with_features = drawn(len(source), n), set(drawn(n, effort.perceptual))
    measurements = {"": Measurements(), "identity": Measurements()}
    for positions in chunks(range(n), BATCH):
        selected = [i in with_features for i in positions]
        batch_ids = [ids[i] for i in positions]
        x = to_float(source.fetch(batch_ids))
        y = translated(model, x, to, batch=BATCH).cpu().clamp(-1, 1)
        if back in model.domains:
            measurements[""].add("cycle", paired.l1(rounded(translated(model, y, back, batch=BATCH)), x))
        b = None if partners is None else to_float(partners.fetch(batch_ids))
        layers = perceptual.layers(b[selected]) if b is not None and any(selected) else []
        for method, images in (("", rounded(y)), ("identity", x)):
            if b is not None:
                measurements[method].compare(images, b)
            if layers:
                measurements[method].add("perceptual", perceptual.between(perceptual.layers(images[selected]), layers))
            if extractor is not None:
                measurements[method].features.append(extractor.features(images).cpu())
    return measurements


def _cycle_scores(measured: Measurements, source: Dataset, to: str) -> Card:
    values = measured.values.get("cycle")
    if values is None:
        return {}
    n, start = len(values), "a" if to == "b" else "b"
    return {
        f"cycle_l1_{start}[n={n}]": Score.of_sample(
            values, on=counted(n, len(source), f"held-out pictures of {source.name}"),
            property="coverage", better="lower", ceiling=0.0,
            how=f"mean |x - there and back| on the [0,1] scale, {start} to {to} to {start} (Zhu et al. 2017, eq. 2)",
        )
    }  # fmt: skip


def _identity_scores(model: Translates, target: Dataset, to: str, effort: Effort) -> Card:
    """How much images change that are in the target domain already."""
    measured, n = Measurements(), min(effort.n, len(target))
    for ids in chunks(drawn(len(target), n), BATCH):
        x = to_float(target.fetch(ids))
        measured.add("l1", paired.l1(rounded(translated(model, x, to, batch=BATCH)), x))
    return {
        f"identity_l1_to_{to}[n={n}]": Score.of_sample(
            measured.values["l1"], on=counted(n, len(target), f"held-out pictures of {target.name}"),
            property="quality", better="lower",
            how=f"how much pictures of {to} change when they are translated to {to} (Zhu et al. 2017, section 5.2)",
            ceiling=0.0,
        )
    }  # fmt: skip


def _domain_distances(
    measurements: dict[str, Measurements],
    target: Dataset,
    trained: Dataset | None,
    extractor: Extractor,
    source: Dataset,
    to: str,
    limit: int,
) -> Card:
    """The Fréchet distance to a domain; its floor is that of untranslated images."""
    fake, untouched = (torch.cat(measurements[method].features) for method in ("", "identity"))
    n = len(fake)
    if min(n, len(target)) < MIN_IMAGES:
        why = f"a Fréchet distance needs {MIN_IMAGES} held-out images, there are {min(n, len(target))}"
        return {f"fd_to_{to}": missing("quality", why)}
    real = features_of(extractor, target, limit)
    at, against = f"@{extractor.key}[n={n}]", counted(len(real), len(target), f"of {target.name}")
    on = f"{counted(n, len(source), f'held-out pictures of {source.name}')} against {against}"
    identity = frechet_score(untouched, real, None, None, on, f"the same for {NAMES['identity']}")
    ceiling = None if trained is None else features_of(extractor, trained, n)
    return {
        f"fd_to_{to}{at}": frechet_score(fake, real, ceiling, cast(float, identity.value), on),
        f"fd_to_{to}_identity{at}": identity,
    }
