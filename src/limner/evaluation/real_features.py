"""Real images as scores see them: their features, kept on disk so that they are computed once.

A file of the cache is named by what it holds: the fingerprint of the data set (its pixels and how they were prepared)
and the key of the extractor (which names its version). Either changes, and it is another file.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pooch
import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save
from torch import Tensor

from limner.core.batch import Dataset, to_uint8
from limner.core.durable import replace_file
from limner.evaluation.likelihood import batches
from limner.metrics.extractors.features import Classifier, Extractor


@dataclass(frozen=True)
class Real:
    """Images of a data set in an extractor's eyes.

    Attributes:
        images: (N,C,H,W) uint8, as many as were asked for, spread evenly over the set.
        features: (N,d) float32, on the CPU.
        logits: (N,K) of the classifier, or None when the extractor is none.
        labels: (N,) classes as the data tell them, or None.
        name: of the data set.
    """

    images: Tensor
    features: Tensor
    logits: Tensor | None
    labels: Tensor | None
    name: str

    def __len__(self) -> int:
        return len(self.images)


def images(dataset: Dataset, limit: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Images (N,C,H,W) uint8 of a set, at most `limit`, spread evenly over it, and their classes (N,)."""
    n = min(limit or len(dataset), len(dataset))
    xs, ys = [], []
    for x, y, _ in batches(dataset, n, 500, "cpu"):
        xs.append(to_uint8(x))
        ys.append(y)
    labels = None if dataset.labels is None else torch.cat([y for y in ys if y is not None])
    return torch.cat(xs), labels


def seen(extractor: Extractor, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Features (N,d) and logits (N,K) of images in one pass; no logits from an extractor without classes."""
    if isinstance(extractor, Classifier):
        features, logits = extractor.both(x)
        return features.cpu(), logits.cpu()
    return extractor.features(x).cpu(), None


def real(dataset: Dataset, extractor: Extractor, limit: int | None = None) -> Real:
    """A set's images and features; the features come from the cache where they are there.

    The cache is the folder ``features`` under ``$LIMNER_CACHE``, or in the user's cache. A file that cannot be read or
    written does no harm: features are then computed.
    """
    x, y = images(dataset, limit)
    key = hashlib.sha256(f"{dataset.fingerprint} {len(x)} {extractor.key}".encode()).hexdigest()
    file = Path(os.environ.get("LIMNER_CACHE") or pooch.os_cache("limner")).expanduser() / "features" / key[:32]
    found = _read(file, len(x), extractor.dims)
    if found is None:
        features, logits = seen(extractor, x)
        found = {"features": features.contiguous()} | ({} if logits is None else {"logits": logits.contiguous()})
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, save(found))
        except OSError:
            pass  # a full or read-only disk costs the time, not the scores
    return Real(x, found["features"], found.get("logits"), y, dataset.name)


def _read(file: Path, n: int, dims: int) -> dict[str, Tensor] | None:
    try:
        found = parse_safetensors(file.read_bytes())
    except (OSError, SafetensorError):
        return None
    return found if found.get("features", torch.empty(0)).shape == (n, dims) else None
