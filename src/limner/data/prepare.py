"""What all sets of images share once they are read: choosing classes and images, augmentations, fingerprints."""

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
from limner.core.errors import LimnerError, unknown
from limner.core.rng import keys
from limner.data import augment
from limner.data.options import Options

_ONCE = 4096  # images prepared at a time


def choose_classes(
    name: str, labels: NDArray[np.int64] | None, classes: list[str] | None, options: Options
) -> tuple[NDArray[np.int64] | None, list[str] | None, NDArray[np.bool_] | None]:
    """New labels (N,), new class names, and which images to keep (N,) or None for all.

    Raises:
        LimnerError: a class that does not exist is named, or none is left.
    """
    if options.only is None and options.without is None:
        return labels, classes, None
    if labels is None or classes is None:
        raise LimnerError(f"{name} has no classes to choose from; leave 'only' and 'without' out")
    only = classes if options.only is None else [str(c) for c in options.only]
    without = [str(c) for c in options.without or ()]
    for c in (*only, *without):
        if c not in classes:
            raise unknown(f"class of {name}", c, classes)
    kept = [c for c in classes if c in only and c not in without]
    if not kept:
        raise LimnerError(f"{name}: 'only' and 'without' leave no class; name fewer classes in 'without'")
    renumbered = np.array([kept.index(c) if c in kept else -1 for c in classes], dtype=np.int64)[labels]
    return renumbered, kept, renumbered >= 0


def spread(n: int, limit: int | None) -> NDArray[np.int64]:
    """Indices of at most `limit` of `n` items, spread evenly, so that a set sorted by class keeps all classes.

    >>> spread(10, 4).tolist()
    [0, 2, 5, 7]
    """
    if limit is None or limit >= n:
        return np.arange(n)
    return np.arange(limit, dtype=np.int64) * n // limit


def augmentations(options: Options) -> tuple[Augment, ...]:
    """The functions to apply to each training batch. What is held out is not flipped or moved."""
    found: list[Augment] = []
    if options.split != "test":
        found += [augment.flip] if options.flip else []
        found += [partial(augment.shift, pixels=options.shift)] if options.shift else []
    return (*found, *([augment.binarise] if options.binarise == "dynamic" else []))


def binarised(pixels: Tensor, ids: Tensor) -> Tensor:
    """Black and white (N,C,H,W) uint8, drawn once and for all for each sample id (N,)."""
    fixed = keys(0, torch.zeros_like(ids), ids)
    parts = zip(pixels.split(_ONCE), fixed.split(_ONCE))
    return torch.cat([to_uint8(augment.binarise(to_float(x), k)) for x, k in parts])


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


def identity(classes: list[str] | None, options: Options | None) -> str:
    """The part of a fingerprint that is not pixels: class names and everything that was asked for."""
    return json.dumps([classes, options.text() if options else None])


def listed(counts: Iterable[tuple[str, int]], most: int = 8) -> str:
    """Counts as text, with the tail cut off.

    >>> listed([("rose", 3), ("tulip", 2)])
    'rose 3, tulip 2'
    """
    pairs = list(counts)
    tail = f", and {len(pairs) - most} more" if len(pairs) > most else ""
    return ", ".join(f"{k} {v}" for k, v in pairs[:most]) + tail


def by_reason(quarantine: Sequence[tuple[str, str]]) -> str:
    """How many files were left out for which reason.

    >>> by_reason([("a.png", "truncated"), ("b.png", "truncated"), ("c.png", "empty file")])
    '2 truncated, 1 empty file'
    """
    return ", ".join(f"{n} {why}" for why, n in Counter(why for _, why in quarantine).most_common())
