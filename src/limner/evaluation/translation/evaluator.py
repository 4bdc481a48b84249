"""Scores of translators for trainings and evaluations: whichever fits the held-out set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from limner.core.batch import Dataset, Paired, Unpaired, batch_of, evenly_spaced, to_float
from limner.core.capabilities import Translates
from limner.core.inference import translated
from limner.core.model import GenerativeModel
from limner.core.rng import Noise
from limner.data.pairs import DomainSet
from limner.evaluation.translation.domains import domain_scores
from limner.evaluation.translation.measures import Effort, affordable
from limner.evaluation.translation.pairs import pair_scores
from limner.evaluation.translation.without_learning import BATCH, chunks, rounded, task_of, translator
from limner.metrics import paired
from limner.metrics.extractors.features import Extractor
from limner.metrics.paired import Perceptual
from limner.metrics.scorecard import Card, missing


@dataclass(frozen=True)
class TranslationEvaluator:
    """Scores translators on held-out pairs or domains.

    Attributes:
        train: training data.
        heldout: data that were not trained on.
        effort: limits of the evaluation.
        extractor: for Fréchet distances; None stands for that of `extractor_for`.
        perceptual: the perceptual distance; None stands for `Perceptual.best`.
    """

    train: Dataset
    heldout: Dataset
    effort: Effort
    extractor: Extractor | None = None
    perceptual: Perceptual | None = None

    def card(self, model: Translates, device: torch.device | str = "cpu") -> Card:
        """`pair_scores` or `domain_scores`, whichever fits the held-out set."""
        scores = domain_scores if isinstance(self.heldout, DomainSet) else pair_scores
        return scores(
            model, self.heldout, self.train, effort=self.effort, extractor=self.extractor, perceptual=self.perceptual,
            device=device,
        )  # fmt: skip


def missing_scores(name: str, properties: Sequence[str]) -> Card:
    """Properties that translators do not have, with the reason."""
    reasons = {
        "latent": ("latent", f"{name} translates pictures; it has no latent space"),
        "mig": ("disentangled", f"{name} translates pictures; it has no codes to compare with factors"),
        "bits_per_dim": ("likelihood", f"{name} does not say how probable a picture is, so it has no likelihood"),
        "copying": ("copying", f"{name} has no samples: every translation is compared with its own target"),
    }
    return {key: missing(property_, why) for key, (property_, why) in reasons.items() if property_ in properties}


def training_scorer(heldout: Dataset, n: int = 200) -> Callable[[Translates], dict[str, float]] | None:
    """The score that selects the best checkpoint in training: ``l1`` of pairs, ``cycle_l1`` of domains, else None."""
    n = affordable(n, heldout.shape)

    def pair_error(model: Translates) -> dict[str, float]:
        method, errors = translator(model, task_of(heldout)), []
        for ids in chunks(evenly_spaced(len(heldout), n), BATCH):
            a, b = batch_of(heldout, [ids])
            errors.append(paired.l1(rounded(method(a)), b))
        return {"l1": float(torch.cat(errors).mean())}

    def cycle_error(model: Translates) -> dict[str, float]:
        assert isinstance(heldout, DomainSet)
        errors = []
        for part, to, back in ((heldout.a, "b", "a"), (heldout.b, "a", "b")):
            for ids in chunks(evenly_spaced(len(part), max(n // 4, 32)), BATCH):  # each takes four passes, not one
                x = to_float(part.fetch(ids))
                there = translated(model, x, to, batch=BATCH).clamp(-1, 1)
                errors.append(paired.l1(rounded(translated(model, there, back, batch=BATCH)), x))
        return {"cycle_l1": float(torch.cat(errors).mean())}

    scorers: dict[type, Callable[[Translates], dict[str, float]]] = {Paired: pair_error, Unpaired: cycle_error}
    return scorers.get(heldout.batch_type)


class Repeated(GenerativeModel):
    """A model that translates the same image again and again, so that `limner.evaluation.cost` can time translators."""

    evaluations = 1

    def __init__(self, model: GenerativeModel, heldout: Dataset) -> None:
        super().__init__()
        self.model, self.spec = model, model.spec
        source = batch_of(heldout, [[0] for _ in heldout.parts()]).a
        self.register_buffer("source", source.to(model.device), persistent=False)

    def groups(self) -> dict[str, torch.nn.Module]:
        return self.model.groups()

    def draw(self, n: int, y: Tensor | None, noise: Noise, **options: Any) -> Tensor:
        source = cast(Tensor, self.source)
        return cast(Translates, self.model).translate(source.expand(n, -1, -1, -1), "b")
