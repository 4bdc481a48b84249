"""Captions as the labels of a set, and labels that are wrong, where the options ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from limner.core.batch import Images, Mismatched
from limner.core.condition import Vectors
from limner.core.errors import LimnerError
from limner.core.labelling import Captions, Mismatches
from limner.data.options import Options
from limner.data.texts import vectors
from limner.data.texts.minilm import ID


def labelled(dataset: Any, options: Options) -> Any:
    """The same set, in place, with captions as its labels and with wrong labels, as the options say.

    Raises:
        LimnerError: the set has no captions or no labels, or all images have the same.
    """
    if options.condition == "labels" and not options.mismatch:
        return dataset
    if dataset.batch_type is not Images:
        raise LimnerError(
            f"{dataset.name} has pairs or domains, which have no labels; use condition=labels, mismatch=false"
        )
    groups = _groups(dataset)
    if options.condition == "text":
        dataset.groups = groups
        if dataset.condition is not None and dataset.labels is not None:
            dataset.described = (dataset.condition, dataset.labels)
        _take_captions(dataset, options.captions)
    if options.mismatch:
        if dataset.labels is None or groups is None:
            raise LimnerError(
                f"{dataset.name} has no labels of which another one could be wrong; give images in a folder for each"
                " class, or with captions in metadata.jsonl"
            )
        try:
            dataset.mismatches = Mismatches(groups, dataset.captions or dataset.labels)
        except ValueError:
            raise LimnerError(
                f"all images of {dataset.name} have the same label, so none is wrong; give images of several classes,"
                " attributes or captions"
            ) from None
        dataset.batch_type = Mismatched
    return dataset


def _take_captions(dataset: Any, most: int) -> None:
    """Makes captions the labels, at most so many of each image."""
    if dataset.texts is None:
        raise LimnerError(
            f"{dataset.name} has no captions; use condition=labels, or write them into metadata.jsonl as its key text"
        )
    without = sum(not texts for texts in dataset.texts)
    if without:
        raise LimnerError(f"{dataset.name}: {without} of {len(dataset.texts)} images have no caption; give each one")
    chosen = [_spread(texts, k, most) for k, texts in enumerate(dataset.texts)]
    index = {text: i for i, text in enumerate(dict.fromkeys(text for texts in chosen for text in texts))}
    table = vectors.encode(list(index))
    dataset.captions = Captions(table, [[index[text] for text in texts] for texts in chosen])
    dataset.labels = dataset.captions.first
    dataset.condition = Vectors(ID, list(index), table)
    dataset.notes.append(f"captions: {len(index)} texts of {len(chosen)} images, as vectors of {ID}")


def _spread(texts: Sequence[str], k: int, most: int) -> list[str]:
    """At most so many of an image's captions; from image to image others, so that all ways of saying it occur."""
    n = len(texts)
    return [texts[(k + i * n // most) % n] for i in range(most)] if n > most else list(texts)


def _groups(dataset: Any) -> Tensor | None:
    """The group (N,) of each image: images of different groups differ in a class or in an attribute.

    Attributes that are not known of all images are left out, because they cannot tell two images apart for certain.
    Without any, images that share a caption, or share captions with a third one, are of one group.
    """
    if dataset.condition is not None and dataset.condition.values and dataset.labels is not None:
        features = dataset.condition.features(dataset.labels)
        known = features[:, (features >= 0).all(0)]
        if known.shape[1]:
            return known.unique(dim=0, return_inverse=True)[1]
    if dataset.texts is None:
        return None
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    index: dict[str, int] = {}
    edges = [(i, index.setdefault(text, len(index))) for i, texts in enumerate(dataset.texts) for text in texts]
    n = len(dataset.texts)
    rows, columns = [i for i, _ in edges], [n + j for _, j in edges]
    graph = coo_array(([1] * len(edges), (rows, columns)), shape=(n + len(index),) * 2)
    return torch.from_numpy(connected_components(graph, directed=False)[1][:n]).long()
