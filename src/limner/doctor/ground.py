"""Real images as the ground that a model's samples are compared with while it trains: few, and looked at once.

A `Ground` is small, since an examination must cost less than a twentieth of the training: some hundred images, seen
through the same extractor as the scores. Points of a toy are their own features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limner.core.batch import Dataset, drawn, examples, to_float, to_uint8
from limner.core.frame import drawable
from limner.evaluation.real_features import extract
from limner.evaluation.reference_set import usual_extractor
from limner.metrics.diversity import duplicate_threshold, vendi
from limner.metrics.extractors.features import Classifier, Extractor
from limner.metrics.kernel import cubic
from limner.metrics.quality import grain, pattern, sharpness

REALS = 512
"""Images of each side, trained on and held out, while a model trains."""
_COMPARED = 256  # of which pairs are measured
_BINS = 16


@dataclass(frozen=True)
class Points:
    """Points as their own features, scaled to the spread of the data.

    Attributes:
        mean: (d,) mean of the data.
        std: (d,) its standard deviation.
    """

    mean: Tensor
    std: Tensor
    key: str = "points"

    @property
    def dims(self) -> int:
        return len(self.mean)

    def features(self, x: Tensor, *, batch: int = 256) -> Tensor:
        """Features (N,d) of points (N,C,H,W)."""
        return (x.flatten(1).float().cpu() - self.mean) / self.std


class Ground:
    """Real images, held-out ones, and what follows from them.

    Args:
        train: the training data.
        heldout: data that are not trained on, or None.
        device: where features are computed.
        most: images of each side.
    """

    def __init__(
        self, train: Dataset, heldout: Dataset | None, device: torch.device | str = "cpu", most: int = REALS
    ) -> None:
        self.device, self.train = torch.device(device), train
        self.heldout = None if heldout is train else heldout
        self._vendi: dict[int, float] = {}
        self.is_points = drawable(train.shape)
        self.real = _Side.of(train, most)
        self.held = None if self.heldout is None else _Side.of(self.heldout, most)

    @cached_property
    def extractor(self) -> Extractor | Points:
        """What images are looked at with.

        Raises:
            LimnerError: there is none for such images.
        """
        if not self.is_points:
            return usual_extractor(self.train, self.device)
        x = self.real.images.flatten(1)
        return Points(x.mean(0), x.std(0).clamp(min=1e-6))

    def batch(self, n: int, device: torch.device) -> Any:
        """A batch of at most n items as the model takes them, held out where there are such; always the same."""
        return examples(self.heldout or self.train, n, device)

    def look(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (N,d) of images (N,C,H,W), and logits (N,K) where the extractor is a classifier.

        Images in [-1,1] are rounded to 8 bits first, as in all scores; values that are not finite are grey.
        """
        if isinstance(self.extractor, Points):
            return self.extractor.features(x.nan_to_num()), None
        x = x if x.dtype == torch.uint8 else to_uint8(x.nan_to_num().clamp(-1, 1)).cpu()
        return extract(self.extractor, x)

    @cached_property
    def _looked(self) -> tuple[Tensor, Tensor | None]:
        return self.look(self.real.images)

    @property
    def features(self) -> Tensor:
        """Features (N,d) of the training images."""
        return self._looked[0]

    @property
    def logits(self) -> Tensor | None:
        """Logits (N,K) of the training images; None where the extractor is no classifier."""
        return self._looked[1]

    @cached_property
    def held_features(self) -> Tensor | None:
        """Features (N,d) of the held-out images."""
        return None if self.held is None else self.look(self.held.images)[0]

    @cached_property
    def spread(self) -> float:
        """Mean distance of the features of two training images."""
        return mean_distance(self.features)

    def vendi_of(self, n: int) -> float:
        """Vendi score of n training images, or of all where there are fewer."""
        if n not in self._vendi:
            self._vendi[n] = vendi(self.features[:n])
        return self._vendi[n]

    @cached_property
    def same(self) -> float:
        """Distance of features below which two images count as the same."""
        return duplicate_threshold(self.features[:1024])

    @cached_property
    def _kernel(self) -> float:
        """The mean kernel of two training images, a part of `kid` that samples do not change."""
        return _mean_off_diagonal(cubic(*[self.features[:REALS].double()] * 2))

    def kid(self, features: Tensor) -> float:
        """Unbiased kernel distance (Bińkowski et al. 2018) of features (N,d) to those of training images."""
        x = features.double()
        return (
            self._kernel + _mean_off_diagonal(cubic(x, x)) - 2 * float(cubic(self.features[:REALS].double(), x).mean())
        )

    @cached_property
    def looks(self) -> Mapping[str, float]:
        """`sharpness`, `grain` and `checkerboard` of training images, and the power among which a pattern would show.

        Of points and of tiny images there are none.
        """
        x = self.real.images[:REALS]
        if self.is_points or min(x.shape[2:]) < 8:
            return {}
        seen = pattern(x)
        return {"sharpness": sharpness(x), "grain": grain(x), "checkerboard": seen.beside(0.0), "high": seen.usual}

    @property
    def sharpness(self) -> float | None:
        """Variance of the Laplacian of training images; None of points and of tiny or flat images."""
        return self.looks.get("sharpness") or None

    @cached_property
    def within(self) -> Tensor:
        """(K,) mean distance of two training images of each kind; NaN for kinds with fewer than two."""
        return within_kinds(self.features, self.kinds.of_each(self.features, self.logits), len(self.kinds.names))

    @cached_property
    def kinds(self) -> Kinds:
        """The kinds of images, which are the classes that the extractor tells or bins of similar images."""
        return Kinds.of(self)


@dataclass(frozen=True)
class _Side:
    """Some items of a data set: images (N,C,H,W) uint8 or points, and labels (N,…) or None."""

    images: Tensor
    labels: Tensor | None

    @classmethod
    def of(cls, dataset: Dataset, n: int) -> _Side:
        indices = torch.tensor(drawn(len(dataset), n))
        # In random order, since callers take the first ones, and data sets may be sorted by class.
        order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))
        labels = None if dataset.labels is None else dataset.labels[indices[order]]
        return cls(dataset.fetch(indices.tolist()).cpu()[order], labels)

    def batch(self, n: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """The first n images (n,C,H,W) in [-1,1] and their labels."""
        y = None if self.labels is None else self.labels[:n].to(device)
        return to_float(self.images[:n]).to(device), y


@dataclass(frozen=True)
class Kinds:
    """How samples are sorted into kinds.

    Attributes:
        names: a name for each kind.
        shares: (K,) share of each among the training images.
        centres: (K,d) centres of the bins; None where a classifier tells the kinds.
    """

    names: Sequence[str]
    shares: Sequence[float]
    centres: Tensor | None = field(default=None, repr=False)

    @classmethod
    def of(cls, ground: Ground) -> Kinds:
        features, logits = ground.features, ground.logits
        modes = getattr(ground.train, "centres", None)
        if modes is not None and isinstance(ground.extractor, Points):
            centres = ground.extractor.features(modes.reshape(len(modes), -1))
            names = ["mode at (" + ", ".join(f"{v:.2g}" for v in mode.flatten().tolist()) + ")" for mode in modes]
            return cls(names, _shares(torch.cdist(features, centres).argmin(1), len(names)), centres)
        if logits is not None and isinstance(ground.extractor, Classifier):
            classes = ground.train.classes or []
            names = classes if len(classes) == logits.shape[1] else [str(k) for k in range(logits.shape[1])]
            return cls(names, _shares(logits.argmax(1), len(names)))
        from scipy.cluster.vq import kmeans2

        k = min(_BINS, len(features) // 8) or 1
        found, nearest = kmeans2(features.double().numpy(), k, minit="++", seed=np.random.default_rng(0))
        names = [f"kind {i + 1}" for i in range(k)]
        return cls(names, _shares(torch.from_numpy(nearest).long(), k), torch.from_numpy(found).float())

    def of_each(self, features: Tensor, logits: Tensor | None) -> Tensor:
        """The kind (N,) of each image, given by features (N,d) and logits (N,K)."""
        if self.centres is None:
            assert logits is not None
            return logits.argmax(1)
        return torch.cdist(features.float(), self.centres).argmin(1)


def within_kinds(features: Tensor, kinds: Tensor, k: int) -> Tensor:
    """(k,) mean distance of two different rows of features (N,d) of the same kind (N,); NaN where there are no two."""
    means = []
    for kind in range(k):
        of_kind = features[kinds == kind][:_COMPARED]
        means.append(float(torch.pdist(of_kind).mean()) if len(of_kind) > 1 else float("nan"))
    return torch.tensor(means)


def _mean_off_diagonal(kernel: Tensor) -> float:
    n = len(kernel)
    return float((kernel.sum() - kernel.diagonal().sum()) / max(n * (n - 1), 1))


def _shares(kinds: Tensor, k: int) -> list[float]:
    shares: list[float] = (torch.bincount(kinds, minlength=k) / len(kinds)).tolist()
    return shares


def mean_distance(features: Tensor, most: int = _COMPARED) -> float:
    """Mean Euclidean distance of two different rows of features (N,d), of the first so many."""
    x = features[:most].double()
    return float(torch.pdist(x).mean()) if len(x) > 1 else 0.0
