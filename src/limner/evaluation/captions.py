"""Scores of models of captions: is the caption found again in the picture, and does the picture show what it says?

The judge is a reader of attributes where the data have attributes beside their captions: the pinned one, or a small net
that is trained on the training images. Else it is a linear map, fitted to training images, from the features that are
compared to the vectors of captions. Captions count as wrong for a picture if the data say so: those of pictures with
another attribute or class, or without any, of pictures that share no caption with this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from limner.core.batch import Dataset, drawn, to_uint8
from limner.core.errors import LimnerError
from limner.evaluation.reference_set import ReferenceSet, ScoredImages
from limner.metrics.conditions import PARTS, accuracies, unseen_labels
from limner.metrics.extractors.readers import ReadsAttributes, SmallReader, pinned_reader, reading
from limner.metrics.neighbours import wilson
from limner.metrics.retrieval import POOL, by_attributes, by_vectors, candidates, r_precision
from limner.metrics.scorecard import Card, Score, missing, normalised
from limner.metrics.sets import name as named

_MOST = 1000  # pictures whose caption is looked for
_LEARNT = 5000  # training images that a judge learns from
FEW = 50
"""Samples below which an accuracy says little."""


def caption_scores(reference: ReferenceSet, scored: ScoredImages, model: Any, heldout: Dataset) -> Card:
    """R-precision, and GAN-test where captions have attributes beside them.

    Args:
        reference: the real images.
        scored: samples of the captions of held-out images, as `draws.asked_labels` chooses them.
        model: the model, whose labels are captions.
        heldout: the images of the reference.
    """
    ids = torch.tensor(drawn(len(heldout), reference.n))[: len(scored.images)]
    images = scored.images[: len(ids)]
    described = getattr(heldout, "described", None)
    if described is None:
        why = "the captions have no attributes beside them that a reader could find; see r_precision"
        return {
            f"gan_test{reference.conditions}": missing("quality", why),
            **_retrieval(reference, scored.features[: len(ids)], heldout, ids, None),
        }
    reader = _reader(reference, described[0].values)
    return {
        **_obedience(reference, model, reader, images, heldout, ids),
        **_retrieval(reference, images, heldout, ids, reader),
    }


def _reader(reference: ReferenceSet, values: Any) -> ReadsAttributes:
    """The pinned reader of the data if it knows all values, or a small one that learns from training images."""
    pinned = pinned_reader(reference.train.name, values, reference.device)
    if pinned is not None:
        return pinned
    train: Any = reference.train  # described as the held-out images are
    condition, labels = train.described
    ids = drawn(len(train), _LEARNT)
    truth = condition.features(labels[torch.tensor(ids)])
    return SmallReader.trained(train.fetch(ids), truth, condition.values, device=reference.device)


def _obedience(
    reference: ReferenceSet, model: Any, reader: ReadsAttributes, images: Tensor, heldout: Any, ids: Tensor
) -> Card:
    """GAN-test, the share of what captions say that is seen: of captions of combinations trained on, and of others."""
    condition, labels = heldout.described
    values = condition.values
    asked = labels[ids]
    train: Any = reference.train
    trained: Tensor = train.described[1]
    seen_ids = torch.tensor(drawn(len(trained), min(_MOST, len(images))))
    again = model.sample(len(seen_ids), y=train.labels[seen_ids], seed=0)
    unseen = unseen_labels(asked, trained)
    groups = {"": (images, asked, "captions of held-out images")}
    groups["_seen"] = (to_uint8(again.clamp(-1, 1)).cpu(), trained[seen_ids], "captions of training images")
    if int(unseen.sum()) >= FEW:
        groups["_held_out"] = (images[unseen], asked[unseen], "captions of combinations that no training image has")
    card: Card = {}
    real = heldout.fetch(ids.tolist())
    ceilings = accuracies(_read(reader, real, values), condition.features(asked), list(values))
    for kind, (x, y, what) in groups.items():
        tests = accuracies(_read(reader, x, values), condition.features(y), list(values))
        for part, found in tests.items():
            if part not in ceilings or (kind and part.startswith(":")):
                continue
            which = part[1:] if part.startswith(":") else PARTS[part]
            card[named(f"gan_test{part}{kind}", reader.key, reference.n)] = Score(
                found.value, low=found.low, high=found.high, floor=found.chance, ceiling=ceilings[part].value,
                norm=normalised(found.value, found.chance, ceilings[part].value), on=f"{len(x)} samples of {what}",
                how=f"share of what the caption says that {reader.key} reads in the sample: {which};"
                f" {found.chance:.3g} with shuffled captions", property="quality", better="higher",
            )  # fmt: skip
    return card


def _read(reader: ReadsAttributes, x: Tensor, values: Any) -> Tensor:
    return reading(reader.logits(x), reader.values, values)


@dataclass(frozen=True)
class _Found:
    value: float
    low: float
    high: float


def _found(similarity: Tensor) -> _Found:
    found = r_precision(similarity)
    return _Found(float(found.double().mean()), *wilson(int(found.sum()), len(found)))


def _retrieval(
    reference: ReferenceSet, samples: Tensor, heldout: Any, ids: Tensor, reader: ReadsAttributes | None
) -> Card:
    """R-precision of samples, with that of the real pictures of the same captions as the ceiling.

    `samples` are images, or their features where there is no reader.
    """
    ids, samples = ids[:_MOST], samples[:_MOST]
    try:
        pool = candidates(heldout.groups[ids])
    except LimnerError as error:
        return {f"r_precision{reference.conditions}": missing("quality", str(error))}
    if reader is not None:
        condition, labels = heldout.described
        told = condition.features(labels[ids])
        real = heldout.fetch(ids.tolist())
        found, best = (
            _found(by_attributes(reader.logits(x), reader.values, condition.values, told, pool))
            for x in (samples, real)
        )
        key, judge = reader.key, f"attributes as {reader.key} reads them"
    else:
        learnt, texts = reference.trained_on, heldout.labels[ids]
        known: dict[str, Any] = {"real": learnt.features, "real_vectors": learnt.labels}
        same = reference.extractor.features(heldout.fetch(ids.tolist())).cpu()
        found, best = (_found(by_vectors(x, texts, pool, **known)) for x in (samples, same))
        key, judge = reference.extractor.key, f"a linear map of {reference.extractor.key}, fitted to training images"
    return {
        f"r_precision@{key}[n={len(ids)},pool={POOL}]": Score(
            found.value, low=found.low, high=found.high, floor=1 / POOL, ceiling=best.value, property="quality",
            norm=normalised(found.value, 1 / POOL, best.value), better="higher",
            on=f"{len(ids)} samples, each with its caption and {POOL - 1} of held-out pictures of another description",
            how=f"share whose own caption fits best (R-precision, Xu et al. 2018), by {judge}; 0.01 by chance",
        )
    }  # fmt: skip
