"""Scores of conditional models: do samples have what was asked for, are they diverse within a label, is it used?

The judge of samples is the pinned reader of the data, or the classifier whose features are compared, or else a small
net that is trained on the training images. GAN-test asks it whether samples show their label. CAS (Ravuri and Vinyals
2019) trains the small net on samples and asks it about real images. The floor of each has shuffled labels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from limner.core.batch import Dataset, drawn, to_uint8
from limner.core.capabilities import Conditional
from limner.core.condition import Condition
from limner.core.model import GenerativeModel
from limner.evaluation.captions import FEW, caption_scores
from limner.evaluation.draws import asked_labels, counted
from limner.evaluation.real_features import extract
from limner.evaluation.reference_set import ReferenceSet, ScoredImages
from limner.metrics.conditions import (
    PARTS,
    Agreement,
    accuracies,
    label_effect,
    shuffled_labels,
    spaced_labels,
    unseen_labels,
    within_label,
)
from limner.metrics.extractors.features import Classifier
from limner.metrics.extractors.readers import SmallReader, pinned_reader, reading
from limner.metrics.scorecard import Card, Score, base, missing, normalised
from limner.metrics.sets import name as named

_ROWS, _COLUMNS = 8, 10  # of the sheet on which labels change and noise stays
_SEEN = 1000  # samples of combinations that were trained on, where the held-out labels have too few
_LISTED = 12  # attributes that have rows of their own
_GAN_TEST = "share of samples that show what was asked for, by {judge} (Shmelkov et al. 2018)"
_CAS = "accuracy on real images of a small net trained on samples alone (Ravuri and Vinyals 2019)"


def condition_scores(
    reference: ReferenceSet,
    scored: ScoredImages,
    model: GenerativeModel | None,
    heldout: Dataset,
    properties: Sequence[str],
) -> Card:
    """The scores of what was asked for; "n/a", with the reason, where nothing was.

    Args:
        reference: the real images.
        scored: samples whose labels are those of `draws.asked_labels`.
        model: the model; None for a folder of pictures.
        heldout: the images of the reference.
        properties: GAN-test and CAS belong to quality, as the effect of the label does; the diversity within a label to
            coverage.
    """
    quality, coverage = f"gan_test{reference.conditions}", f"label_diversity{reference.conditions}"
    if not isinstance(model, Conditional):
        who = "a folder of pictures tells no labels" if model is None else f"{model.title} takes no labels"
        why = f"{who}, so nothing was asked for; train a conditional model, such as cvae-mnist"
        return {quality: missing("quality", why), coverage: missing("coverage", why)}
    real = reference.real.labels
    if real is None or heldout.condition != model.condition:
        why = f"the labels of {heldout.name} are not those that {model.title} was trained with"
        return {quality: missing("quality", why), coverage: missing("coverage", why)}
    labels = asked_labels(model, heldout, reference.n)
    card: Card = {}
    if "coverage" in properties:
        card |= _diversity(reference, scored, model.condition, labels, real)
    if "quality" in properties:
        card |= _effect(reference, model, labels, real)
        if model.condition.values:
            card |= _accuracies(reference, scored, model, heldout, labels, real)
        elif getattr(heldout, "groups", None) is not None:
            return card | caption_scores(reference, scored, model, heldout)
        else:
            why = "labels of this model are vectors, which have no values that a reader could find"
            card[quality] = missing("quality", why)
        why = "R-precision looks for captions, and the labels of this model are none"
        card[f"r_precision{reference.conditions}"] = missing("quality", why)
    return card


def _diversity(
    reference: ReferenceSet, scored: ScoredImages, condition: Condition, labels: Tensor, real: Tensor
) -> Card:
    name = f"label_diversity{reference.conditions}"
    found = within_label(
        fake=scored.features, fake_labels=labels, real=reference.real.features, real_labels=real
    )  # fmt: skip
    if found is None:
        return {
            name: missing("coverage", "no two real images that differ share their label, so nothing can be compared")
        }
    least = condition.name(labels[found.least_label][None])[0]
    how = (
        "mean feature distance of samples that share their label, over that of real images that share it; 0 if there is"
        f" one image for each label. The least diverse label is {least}: {found.least:.2f}"
    )
    on = f"{reference.n} samples, {_numbered(found.labels, 'label')}"
    return {name: Score(found.ratio, unit="× real", on=on, how=how, property="coverage", ceiling=1.0, floor=0.0)}


def _effect(reference: ReferenceSet, model: Any, labels: Tensor, real: Tensor) -> Card:
    columns = spaced_labels(labels, _COLUMNS)
    n = _ROWS * len(columns)
    sheet = model.sample(n, y=columns, columns=len(columns), seed=0)
    features, _ = extract(reference.extractor, to_uint8(sheet.clamp(-1, 1)).cpu())
    found = label_effect(features, len(columns), reference.real.features, real)
    name = f"label_effect{reference.conditions}"  # the sheet is smaller, and its size no condition of a comparison
    if found is None:
        return {name: missing("quality", "there is one label only, so it can make no difference")}
    how = (
        "mean feature distance of samples that share their noise and differ in their label, over that of real images of"
        " different labels; 0 if the label is ignored"
    )
    on = f"{n} samples: {_ROWS} draws of noise with {_numbered(found.labels, 'label')}"
    return {name: Score(found.ratio, unit="× real", on=on, how=how, property="quality", ceiling=1.0, floor=0.0)}


@dataclass(frozen=True)
class _Judge:
    """A reader, as it is named in scores, and what it reads in real and in generated images (N,F)."""

    key: str
    title: str
    read: Callable[[Tensor], Tensor]


def _accuracies(
    reference: ReferenceSet, scored: ScoredImages, model: Any, heldout: Dataset, labels: Tensor, real: Tensor
) -> Card:
    """GAN-test and CAS, in each attribute and jointly."""
    condition: Condition = model.condition
    values, device, n = condition.values, reference.device, reference.n
    asked, truth = condition.features(labels), condition.features(real)
    if not bool((asked >= 0).any()) or not bool((truth >= 0).any()):
        return {f"gan_test{reference.conditions}": missing("quality", f"no value of {heldout.name} is known")}
    trained = reference.trained_on
    assert trained.labels is not None
    ids = torch.tensor(drawn(len(trained), n))

    def learnt(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        """What a small net reads that learns from images and their values."""
        reader = SmallReader.trained(x, y, values, device=device)
        return lambda x: reading(reader.logits(x), reader.values, values)

    of_real = learnt(trained.images[ids], condition.features(trained.labels[ids]))
    best = of_real(reference.real.images)
    judge = _judge(
        reference, scored, values, _Judge("small-v1", f"a small net trained on {len(ids)} real images", of_real)
    )
    read = judge.read(scored.images)
    accuracy_test = getattr(reference.extractor, "about", {}).get("accuracy_test")
    is_known = judge.key == reference.extractor.key and isinstance(accuracy_test, float)  # of classes
    known_ceiling = accuracy_test if is_known else None
    ceilings = accuracies(best if judge.read is of_real else judge.read(reference.real.images), truth, list(values))
    settings: dict[str, Any] = {"property": "quality", "better": "higher"}
    on = f"{n} samples, " + ("every class in turn" if condition.names is not None else "with labels of held-out images")
    how = _GAN_TEST.format(judge=judge.title)
    tests = accuracies(read, asked, list(values))
    card: Card = {}
    for part, found in tests.items():
        if part not in ceilings:
            continue  # no real image that is compared with has a known value of it
        card[named(f"gan_test{_safe(part)}", judge.key, n)] = _row(
            found, floor=found.chance, ceiling=ceilings[part].value if known_ceiling is None else known_ceiling, on=on,
            how=_of(part, how, tests), **settings,
        )  # fmt: skip
    card |= _seen_and_held_out(reference, model, judge, heldout, labels, read, how, ceilings, settings)

    samples, control = learnt(scored.images, asked), learnt(scored.images, shuffled_labels(asked))
    scores = accuracies(samples(reference.real.images), truth, list(values))
    floors = accuracies(control(reference.real.images), truth, list(values))
    bests = accuracies(best, truth, list(values))
    on = counted(len(truth), reference.real.of, f"held-out images of {reference.real.name}")
    for part, found in scores.items():
        card[f"cas{_safe(part)}[n={n}]"] = _row(
            found, floor=floors[part].value, ceiling=bests[part].value, on=on, how=_of(part, _CAS, scores), **settings
        )
    return _listed(card, list(values))


def _judge(reference: ReferenceSet, scored: ScoredImages, values: Mapping[str, Sequence[str]], small: _Judge) -> _Judge:
    """The pinned reader of the data if there is one that knows all values; the extractor if it is a classifier."""
    pinned = pinned_reader(reference.train.name, values, reference.device)
    if pinned is not None:
        return _Judge(pinned.key, pinned.key, lambda x: reading(pinned.logits(x), pinned.values, values))
    extractor, classes = reference.extractor, [len(names) for names in values.values()]
    if isinstance(extractor, Classifier) and scored.logits is not None and classes == [extractor.classes]:
        logits = {id(scored.images): scored.logits, id(reference.real.images): reference.real.logits}

        def read(x: Tensor) -> Tensor:
            known = logits.get(id(x))
            return (extractor.classify(x).cpu() if known is None else known).argmax(1, keepdim=True)

        return _Judge(extractor.key, extractor.key, read)
    return small


def _seen_and_held_out(
    reference: ReferenceSet,
    model: Any,
    judge: _Judge,
    heldout: Dataset,
    labels: Tensor,
    read: Tensor,
    how: str,
    ceilings: Mapping[str, Agreement],
    settings: Mapping[str, Any],
) -> Card:
    """GAN-test of combinations of attributes that were trained on, and of others, where there are both."""
    condition: Condition = model.condition
    trained = reference.train.labels
    if len(condition.values) < 2 or trained is None:
        return {}
    unseen = unseen_labels(labels, trained)
    if int(unseen.sum()) < FEW:
        return {}
    what = {"held_out": (labels[unseen], read[unseen], "combinations that no training image has")}
    seen_labels, seen_read = labels[~unseen], read[~unseen]
    if len(seen_labels) < FEW:
        seen_labels = trained[torch.tensor(drawn(len(trained), min(_SEEN, reference.n)))]
        x = model.sample(len(seen_labels), y=seen_labels, seed=0)
        seen_read = judge.read(to_uint8(x.clamp(-1, 1)).cpu())
    what["seen"] = (seen_labels, seen_read, "combinations of training images")
    card: Card = {}
    for kind, (y, found_in, words) in what.items():
        tests = accuracies(found_in, condition.features(y), list(condition.values))
        for part in ("", "_joint"):
            card[named(f"gan_test{part}_{kind}", judge.key, reference.n)] = _row(
                tests[part], floor=tests[part].chance, ceiling=ceilings[part].value,
                on=f"{len(y)} samples with {words}", how=f"{how}: {PARTS[part]}", **settings,
            )  # fmt: skip
    return card


def _row(found: Agreement, *, floor: float, ceiling: float, how: str, **settings: Any) -> Score:
    control = f"; {floor:.3g} with shuffled labels"
    return Score(
        found.value, low=found.low, high=found.high, floor=floor, ceiling=ceiling, how=how + control,
        norm=normalised(found.value, floor, ceiling) if ceiling > floor else None, **settings,
    )  # fmt: skip


def _of(part: str, how: str, tests: Mapping[str, Agreement]) -> str:
    """What a score measures, with the attributes that it concerns."""
    if len(tests) == 1:
        return how
    worst = sorted((test.value, name[1:]) for name, test in tests.items() if name.startswith(":"))[:3]
    least = f"; least in {', '.join(f'{name} {value:.2f}' for value, name in worst)}" if part == "" else ""
    return f"{how}: {PARTS.get(part, part[1:])}{least}"


def _safe(part: str) -> str:
    """The ending of a score's name without the characters that begin its conditions."""
    return re.sub(r"[@\[\]|]", "_", part)


def _listed(card: Card, attributes: Sequence[str]) -> Card:
    """The card without rows for single attributes where these are many."""
    if len(attributes) <= _LISTED:
        return card
    return {name: score for name, score in card.items() if ":" not in base(name)}


def _numbered(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
