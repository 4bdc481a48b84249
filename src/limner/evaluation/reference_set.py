"""Real images as the yardstick: how far other images are from them, and how far images could be at best and at worst.

A `ReferenceSet` knows the real images of one data set and is asked about many sets of generated ones, so what the real ones
need is computed once. One pass through the extractor serves all scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from limner.core.batch import Dataset, to_float, to_uint8
from limner.core.errors import LimnerError
from limner.evaluation.real_features import Real, images, real, seen
from limner.metrics.diversity import inception_style_score, vendi
from limner.metrics.extractors import features
from limner.metrics.extractors.features import Extractor
from limner.metrics.frechet import Moments, floor, frechet_distance
from limner.metrics.kernel import kid
from limner.metrics.modes import class_modes
from limner.metrics.neighbours import Neighbourhoods, neighbourhoods
from limner.metrics.quality import sharpness

LIMIT = 10_000
"""Most real images that samples are compared with."""
TRAINED = 60_000
"""Most training images that are searched for copies."""


@dataclass(frozen=True)
class Measure:
    """What a score of a set of images is.

    Attributes:
        property: of a good generative model, to which it speaks.
        better: which way is good; None where the ceiling is neither end.
        unit: of the number.
        how: one sentence.
    """

    property: Literal["quality", "coverage"]
    better: Literal["higher", "lower"] | None
    unit: str
    how: str


MEASURES = {
    "clipped_density": Measure(
        "quality",
        "higher",
        "",
        "share of samples as near to real images as those are to each other (Salvy et al. 2025)",
    ),
    "fd": Measure("quality", "lower", "", "Fréchet distance of features taken for Gaussian (Heusel et al. 2017)"),
    "kid": Measure("quality", "lower", "", "kernel distance, cubic, unbiased: may be negative (Bińkowski et al. 2018)"),
    "precision": Measure(
        "quality",
        "higher",
        "",
        "share of samples inside the 3-neighbour ball of a real image (Kynkäänniemi et al. 2019)",
    ),
    "density": Measure(
        "quality", "higher", "", "5-neighbour balls of real images that a sample lies in, over 5 (Naeem et al. 2020)"
    ),
    "sharpness": Measure(
        "quality", None, "× real", "variance of the Laplacian of samples over that of real images: below 1 is blur"
    ),
    "inception_style": Measure(
        "quality", "higher", "", "exp E KL(p(y|x) || p(y)) of the classifier (Salimans et al. 2016)"
    ),
    "clipped_coverage": Measure(
        "coverage", "higher", "", "share of the real images that samples come near, calibrated (Salvy et al. 2025)"
    ),
    "recall": Measure(
        "coverage",
        "higher",
        "",
        "share of real images inside the 3-neighbour ball of a sample (Kynkäänniemi et al. 2019)",
    ),
    "coverage": Measure(
        "coverage", "higher", "", "share of real images whose 5-neighbour ball holds a sample (Naeem et al. 2020)"
    ),
    "classes_found": Measure("coverage", "higher", "", "classes with at least one sample, by the classifier"),
    "class_kl": Measure("coverage", "lower", "nats", "KL(p_G || p_data) over the classifier's classes"),
    "vendi": Measure(
        "coverage",
        None,
        "× real",
        "effective number of different samples over that of real ones (Friedman and Dieng 2023)",
    ),
}
"""Scores of a set of images, the headline of each property first."""


@dataclass(frozen=True)
class ScoredImages:
    """Images in the extractor's eyes, and their scores.

    Attributes:
        images: (N,C,H,W) uint8, as they were judged.
        scores: by the names of `MEASURES`, as many as make sense.
        features: (N,d).
        logits: (N,K), or None.
        near: who lies near whom.
    """

    images: Tensor
    scores: dict[str, float]
    features: Tensor
    logits: Tensor | None
    near: Neighbourhoods


class ReferenceSet:
    """Compares sets of images with the held-out images of a data set.

    Args:
        train: what models were trained on; the extractor may be fitted to it, and the ceiling is drawn from it.
        heldout: what samples are compared with: images never trained on.
        n: generated images per comparison; at most as many as there are training images, so that the ceiling has
            as many.
        extractor: default the classifier that knows the data, else `limner.metrics.extractors.features.Random`.
        device: where features are computed.

    Raises:
        LimnerError: too few images, or no extractor can look at them.
    """

    def __init__(
        self,
        train: Dataset,
        heldout: Dataset,
        *,
        n: int = 10_000,
        extractor: Extractor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        c, h, w = train.shape
        if c not in (1, 3) or min(h, w) < 8:
            raise LimnerError(
                f"scores compare grey or colour images of at least 8×8 pixels; {train.name} has {c}×{h}×{w}"
            )
        if extractor is None:
            known = features.KEYS.get(train.name)
            extractor = features.classifier(known, device) if known else features.fitted(train, device)
        self.extractor, self.train, self.n = extractor, train, min(n, len(train))
        need = extractor.dims + 1
        if self.n < need or len(heldout) < need:
            few, what = (self.n, "generated images (at most as many as are trained on)") if self.n < need else (
                len(heldout), "held-out images"
            )  # fmt: skip
            raise LimnerError(
                f"{extractor.key} has {extractor.dims} features, so a comparison needs at least {need} images on each"
                f" side; there are {few} {what}"
            )
        self.real = real(heldout, extractor, LIMIT)
        self.moments = Moments().update(self.real.features).compute()

    @property
    def conditions(self) -> str:
        """What a score's name carries: ``@lenet64-v1[n=10000]``."""
        return f"@{self.extractor.key}[n={self.n}]"

    @property
    def floor(self) -> float:
        """Fréchet distance that as many images of the very same Gaussian would have."""
        return floor(self.moments[1], self.n, len(self.real))

    def __call__(self, x: Tensor) -> ScoredImages:
        """Scores of images (N,C,H,W) in [-1,1] or uint8. They are rounded to 8 bits first."""
        x = x if x.dtype == torch.uint8 else to_uint8(x.clamp(-1, 1)).cpu()
        z, logits = seen(self.extractor, x)
        near = neighbourhoods(real=self.real.features, fake=z)
        scores = {
            "clipped_density": near.clipped_density,
            "fd": frechet_distance(*Moments().update(z).compute(), *self.moments),
            "kid": kid(real=self.real.features, fake=z).value,
            "precision": near.precision,
            "density": near.density,
            "sharpness": sharpness(to_float(x)) / self._sharpness,
            "clipped_coverage": near.clipped_coverage,
            "recall": near.recall,
            "coverage": near.coverage,
            "vendi": vendi(z) / self._vendi,
        }
        if logits is not None and self.real.logits is not None:
            told = self.real.logits.argmax(1)
            counted = class_modes(logits.argmax(1), logits.shape[1], torch.bincount(told, minlength=logits.shape[1]))
            scores["inception_style"] = inception_style_score(logits)
            scores["classes_found"] = counted.found
            if counted.kl is not None:
                scores["class_kl"] = counted.kl
        return ScoredImages(x, {k: float(scores[k]) for k in MEASURES if k in scores}, z, logits, near)

    @cached_property
    def trained_on(self) -> Real:
        """The training images and their features: up to 60,000, since any may be copied."""
        return real(self.train, self.extractor, TRAINED)

    @cached_property
    def ceiling(self) -> ScoredImages:
        """Real images scored as if a model had made them: training images, spread evenly, as many as are generated."""
        return self(images(self.train, self.n)[0])

    @cached_property
    def worst(self) -> ScoredImages:
        """Noise with the mean and the variance of each pixel of the training images, independent of each other."""
        x = to_float(images(self.train, self.n)[0])
        mean, std = x.mean(0), x.std(0)
        noise = torch.randn(self.n, *mean.shape, generator=torch.Generator().manual_seed(0))
        return self((mean + std * noise).clamp_(-1, 1))

    def norm(self, name: str, value: float) -> float | None:
        """Where between floor (0) and ceiling (1) a score lies; None where that would not say how good it is."""
        high, low = self.ceiling.scores.get(name), self.worst.scores.get(name)
        if high is None or low is None or high == low or MEASURES[name].better is None:
            return None
        return min(max((value - low) / (high - low), 0.0), 1.0)

    @cached_property
    def _sharpness(self) -> float:
        return float(sharpness(to_float(self.real.images)))

    @cached_property
    def _vendi(self) -> float:
        return float(vendi(self.real.features))
