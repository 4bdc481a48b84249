"""Real images and their features, which are cached on disk.

The name of a cache file depends on the fingerprint of the data set (its pixels and how they were prepared) and on the
key of the extractor (which names its version). If either changes, the features are computed again.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path

import pooch
import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save
from torch import Tensor

from limner.core.batch import Dataset, to_uint8
from limner.core.durable import replace_file
from limner.evaluation.draws import batches
from limner.metrics.extractors.features import Classifier, Extractor


@dataclass(frozen=True)
class RealImages:
    """Images of a data set and their features.

    Attributes:
        images: (N,C,H,W) uint8.
        features: (N,d) float32, on the CPU.
        logits: (N,K) of the classifier, or None when the extractor has no classes.
        labels: (N,) true classes, or None.
        name: name of the data set.
        of: number of images that they were drawn from.
    """

    images: Tensor
    features: Tensor
    logits: Tensor | None
    labels: Tensor | None
    name: str
    of: int

    def __len__(self) -> int:
        return len(self.images)


_VALUES = 1 << 25  # of images read at once


def uint8_images(dataset: Dataset, limit: int | None = None) -> tuple[Tensor, Tensor | None]:
    """At most `limit` images (N,C,H,W) uint8 of a set, drawn at random with a fixed seed, and their classes (N,)."""
    n = min(limit or len(dataset), len(dataset))
    xs, ys = [], []
    for x, y, _ in batches(dataset, n, max(1, min(500, _VALUES // prod(dataset.shape))), "cpu"):
        xs.append(to_uint8(x))
        ys.append(y)
    labels = None if dataset.labels is None else torch.cat([y for y in ys if y is not None])
    return torch.cat(xs), labels


def extract(extractor: Extractor, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Features (N,d) and logits (N,K) of images in one pass; logits are None for an extractor without classes."""
    if isinstance(extractor, Classifier):
        features, logits = extractor.both(x)
        return features.cpu(), logits.cpu()
    return extractor.features(x).cpu(), None


def cache_file(*of: object) -> Path:
    """The file of what depends on these alone: in ``features`` under ``$LIMNER_CACHE``, or in the user's cache."""
    key = hashlib.sha256(" ".join(map(str, of)).encode()).hexdigest()
    return Path(os.environ.get("LIMNER_CACHE") or pooch.os_cache("limner")).expanduser() / "features" / key[:32]


def keep(file: Path, content: bytes) -> None:
    """Writes a file of the cache; where the disk is full or read-only, the next call computes its content again."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, content)


def load_real_images(dataset: Dataset, extractor: Extractor, limit: int | None = None) -> RealImages:
    """At most `limit` images of a set, as `uint8_images` draws them, and their features, from the cache if it has them.

    If a file of the cache cannot be read or written, the features are computed.
    """
    x, y = uint8_images(dataset, limit)
    which = f"{len(x)}" if len(x) == len(dataset) else f"{len(x)} drawn"  # earlier versions took evenly spaced ones
    path = cache_file(dataset.fingerprint, which, extractor.key)
    values = _read(path, len(x), extractor.dims)
    if values is None:
        features, logits = extract(extractor, x)
        values = {"features": features.contiguous()} | ({} if logits is None else {"logits": logits.contiguous()})
        keep(path, save(values))
    return RealImages(x, values["features"], values.get("logits"), y, dataset.name, len(dataset))


def _read(path: Path, n: int, dims: int) -> dict[str, Tensor] | None:
    try:
        values = parse_safetensors(path.read_bytes())
    except (OSError, SafetensorError):
        return None
    return values if values.get("features", torch.empty(0)).shape == (n, dims) else None
