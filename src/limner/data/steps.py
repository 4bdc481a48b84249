"""Steps that all sets of images share: choice of classes, augmentations, fingerprints, messages."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limner.core.batch import Augment, to_float, to_uint8
from limner.core.condition import Attributes, Classes, Condition
from limner.core.errors import LimnerError, unknown
from limner.core.rng import keys
from limner.data import augment
from limner.data.options import Options

_CHUNK = 4096  # images binarised at a time


Known = list[str] | dict[str, list[str]]
"""The names of classes, or the names of the values of each attribute."""

_Labels = NDArray[np.int64]


def choose(
    name: str, labels: _Labels | None, known: Known | None, options: Options
) -> tuple[_Labels | None, Known | None, NDArray[np.bool_] | None]:
    """What `only` and `without` leave: labels, names, and the mask (N,) of the images to keep, or None for all.

    Args:
        name: the name of the set, for messages.
        labels: (N,) class indices, or (N,F) the index of the value of each attribute, -1 where it is not known.
        known: the names of the classes or of the values.
        options: the options.

    Raises:
        LimnerError: a named class or value does not exist, or none is left.
    """
    if options.only is None and options.without is None:
        return labels, known, None
    if labels is None or not known:
        raise LimnerError(f"{name} has no classes to choose from; leave 'only' and 'without' out")
    if isinstance(known, dict):
        return _choose_values(name, labels, known, options)
    return _choose_classes(name, labels, known, options)


def _choose_classes(
    name: str, labels: _Labels, classes: list[str], options: Options
) -> tuple[_Labels, list[str], NDArray[np.bool_]]:
    """The classes that are kept, renumbered."""
    only = classes if options.only is None else [str(c) for c in options.only]
    without = [str(c) for c in options.without or ()]
    for c in (*only, *without):
        if c not in classes:
            raise unknown(f"class of {name}", c, classes)
    selected = [c for c in classes if c in only and c not in without]
    if not selected:
        raise LimnerError(f"{name}: 'only' and 'without' leave no class; name fewer classes in 'without'")
    renumbered = np.array([selected.index(c) if c in selected else -1 for c in classes], dtype=np.int64)[labels]
    return renumbered, selected, renumbered >= 0


def _choose_values(
    name: str, features: _Labels, attributes: dict[str, list[str]], options: Options
) -> tuple[_Labels | None, dict[str, list[str]] | None, NDArray[np.bool_]]:
    """The values that are kept, renumbered, without the attributes of which one value is left: they tell nothing."""
    only = [_value(name, word, attributes) for word in options.only or ()]
    without = [_value(name, word, attributes) for word in options.without or ()]
    keep = np.ones(len(features), dtype=bool)
    columns, left = [], {}
    for f, (attribute, values) in enumerate(attributes.items()):
        named = [value for word, value in only if word == attribute]
        dropped = [value for word, value in without if word == attribute]
        selected = [value for value in named or values if value not in dropped]
        selected.sort(key=values.index)
        if not selected:
            raise LimnerError(f"{name}: 'only' and 'without' leave no value of {attribute}; name fewer in 'without'")
        column = np.array([*(selected.index(v) if v in selected else -1 for v in values), -1])[features[:, f]]
        # an image of which the value is not known stays, unless the value was asked for
        keep &= (column >= 0) | ((features[:, f] < 0) & (not named))
        if len(selected) > 1 or len(values) == 1:
            columns.append(column)
            left[attribute] = selected
    return (np.stack(columns, 1), left, keep) if left else (None, None, keep)


def _value(name: str, word: str | int, attributes: dict[str, list[str]]) -> tuple[str, str]:
    """``"glasses=round"`` -> (glasses, round)."""
    attribute, _, value = (part.strip() for part in str(word).partition("="))
    if not value:
        first = next(iter(attributes))
        example = f"{attribute if attribute in attributes else first}={attributes[first][0]}"
        raise LimnerError(f"{name} has attributes, and {word!r} is not a value of one; write for example [{example}]")
    if attribute not in attributes:
        raise unknown(f"attribute of {name}", attribute, attributes)
    if value not in attributes[attribute]:
        raise unknown(f"value of {attribute}", value, attributes[attribute])
    return attribute, value


def conditioned(labels: _Labels | None, known: Known | None) -> tuple[Tensor | None, Condition | None]:
    """The labels of a set as nets take them, and its condition.

    Args:
        labels: (N,) class indices, or (N,F) the index of the value of each attribute, -1 where it is not known.
        known: the names of the classes or of the values.
    """
    if labels is None:
        return None, None
    y = torch.from_numpy(labels.astype(np.int64))
    if known is None or isinstance(known, list):
        return y, None if known is None else Classes(known)
    attributes = Attributes(known, Attributes.sampled_rows(y).tolist())
    return attributes.vectors(y), attributes


def augmentations(options: Options) -> tuple[Augment, ...]:
    """The functions that are applied to each batch. Held-out images are not flipped or moved."""
    functions: list[Augment] = []
    if options.flip and options.split != "test":
        functions.append(augment.flip)
    if options.shift and options.split != "test":
        functions.append(partial(augment.shift, pixels=options.shift))
    if options.binarise == "dynamic":
        functions.append(augment.binarise)
    return tuple(functions)


def binarised(pixels: Tensor, ids: Tensor) -> Tensor:
    """Black and white images (N,C,H,W) uint8; the random numbers depend on the sample ids (N,) alone."""
    chunks = zip(pixels.split(_CHUNK), keys(0, torch.zeros_like(ids), ids).split(_CHUNK))
    return torch.cat([to_uint8(augment.binarise(to_float(x), k)) for x, k in chunks])


def fingerprint(*parts: bytes | str | NDArray[np.generic] | None) -> str:
    """SHA-256 of the parts in order, each with its length or shape."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            raw = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part or b""
            digest.update(b"%d:" % len(raw) + raw)
    return digest.hexdigest()


def identity(known: Known | None, options: Options) -> str:
    """The part of a fingerprint that is not pixels: names of classes or of values, and options."""
    return json.dumps([known, options.text()])


def captions(texts: Sequence[Sequence[str]] | None) -> list[str]:
    """The part of a fingerprint that is captions; nothing where a set has none, as before there were captions."""
    return [] if texts is None else [json.dumps([list(t) for t in texts])]


def listed(counts: Iterable[tuple[str, int]], most: int = 8) -> str:
    """Counts as text; only the first `most` are listed.

    >>> listed([("rose", 3), ("tulip", 2)])
    'rose 3, tulip 2'
    """
    pairs = list(counts)
    tail = f", and {len(pairs) - most} more" if len(pairs) > most else ""
    return ", ".join(f"{k} {v}" for k, v in pairs[:most]) + tail


def by_reason(quarantine: Sequence[tuple[str, str]]) -> str:
    """How many files were left out, by reason.

    >>> by_reason([("a.png", "truncated"), ("b.png", "truncated"), ("c.png", "empty file")])
    '2 truncated, 1 empty file'
    """
    return ", ".join(f"{n} {reason}" for reason, n in Counter(reason for _, reason in quarantine).most_common())
