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
from limner.core.errors import LimnerError, unknown
from limner.core.rng import keys
from limner.data import augment
from limner.data.options import Options

_CHUNK = 4096  # images binarised at a time


def choose_classes(
    name: str, labels: NDArray[np.int64] | None, classes: list[str] | None, options: Options
) -> tuple[NDArray[np.int64] | None, list[str] | None, NDArray[np.bool_] | None]:
    """New labels (N,), new class names, and the mask (N,) of the images to keep, or None for all.

    Raises:
        LimnerError: a named class does not exist, or no class is left.
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
    selected = [c for c in classes if c in only and c not in without]
    if not selected:
        raise LimnerError(f"{name}: 'only' and 'without' leave no class; name fewer classes in 'without'")
    renumbered = np.array([selected.index(c) if c in selected else -1 for c in classes], dtype=np.int64)[labels]
    return renumbered, selected, renumbered >= 0


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


def identity(classes: list[str] | None, options: Options) -> str:
    """The part of a fingerprint that is not pixels: class names and options."""
    return json.dumps([classes, options.text()])


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
