"""Real images as a reference: distances of generated images from them, with the best and the worst possible values.

A `ReferenceSet` holds the real images of one data set and their features, and scores any number of sets of generated
images. Images pass through the extractor once for all scores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from limner.core.batch import KINDS, Dataset, Images, Mismatched, at_once, to_uint8
from limner.core.errors import LimnerError
from limner.evaluation.real_features import RealImages, cache_file, extract, keep, load_real_images, uint8_images
from limner.metrics.diversity import inception_style_score, vendi
from limner.metrics.extractors import attributes, features
from limner.metrics.extractors.features import Extractor
from limner.metrics.frechet import Moments, floor, frechet_distance
from limner.metrics.kernel import kid
from limner.metrics.modes import class_modes
from limner.metrics.neighbours import Neighbourhoods, neighbourhoods
from limner.metrics.quality import sharpness
from limner.metrics.scorecard import normalised

LIMIT = 10_000
"""Largest number of real images that samples are compared with."""
TRAINED = 60_000
"""Largest number of training images that are searched for copies."""
_VALUES = 1 << 25  # of images made into floats at once


@dataclass(frozen=True)
class Measure:
    """What a score of a set of images measures.

    Attributes:
        property: the property of a good generative model that it measures.
        better: "higher" or "lower"; None where neither is better.
        how: what the number is, in a sentence.
        unit: unit of the number.
    """

    property: Literal["quality", "coverage"]
    better: Literal["higher", "lower"] | None
    how: str
    unit: str = ""


MEASURES = {
    "clipped_density": Measure(
        "quality", "higher", "share of samples as near to real images as those are to each other (Salvy et al. 2025)"
    ),
    "fd": Measure("quality", "lower", "Fréchet distance of features taken for Gaussian (Heusel et al. 2017)"),
    "kid": Measure("quality", "lower", "kernel distance, cubic, unbiased: may be negative (Bińkowski et al. 2018)"),
    "precision": Measure(
        "quality", "higher", "share of samples inside the 3-neighbour ball of a real image (Kynkäänniemi et al. 2019)"
    ),
    "density": Measure(
        "quality", "higher", "5-neighbour balls of real images that a sample lies in, over 5 (Naeem et al. 2020)"
    ),
    "sharpness": Measure(
        "quality", None, "variance of the Laplacian of samples over that of real images: below 1 is blur", "× real"
    ),
    "inception_style": Measure(
        "quality", "higher", "exp E KL(p(y|x) || p(y)) of the classifier (Salimans et al. 2016)"
    ),
    "clipped_coverage": Measure(
        "coverage", "higher", "share of the real images that samples come near, calibrated (Salvy et al. 2025)"
    ),
    "recall": Measure(
        "coverage", "higher", "share of real images inside the 3-neighbour ball of a sample (Kynkäänniemi et al. 2019)"
    ),
    "coverage": Measure(
        "coverage", "higher", "share of real images whose 5-neighbour ball holds a sample (Naeem et al. 2020)"
    ),
    "classes_found": Measure("coverage", "higher", "classes with at least one sample, by the classifier"),
    "class_kl": Measure("coverage", "lower", "KL(p_G || p_data) over the classifier's classes", "nats"),
    "vendi": Measure(
        "coverage",
        None,
        "number of different samples over that of real ones (Friedman and Dieng 2023)",
        "× real",
    ),
}
"""Scores of a set of images, the headline of each property first."""


@dataclass(frozen=True)
class ScoredImages:
    """Images with their features and their scores.

    Attributes:
        images: (N,C,H,W) uint8.
        scores: scores by the names of `MEASURES`; those of classes only if the extractor is a classifier.
        features: (N,d).
        logits: (N,K), or None.
        neighbourhoods: how the images lie among the real ones.
    """

    images: Tensor
    scores: dict[str, float]
    features: Tensor
    logits: Tensor | None
    neighbourhoods: Neighbourhoods


@dataclass(frozen=True)
class Bound:
    """The best or the worst that a model can be expected to have.

    Attributes:
        scores: as in `ScoredImages`.
        hole_rate: share of images that have no real image near them.
    """

    scores: dict[str, float]
    hole_rate: float


@cache
def _rules() -> str:
    """A hash of the code that scores: what an earlier version of it has scored is not taken from the cache."""
    files = [Path(__file__), *sorted((Path(__file__).parents[1] / "metrics").glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _pixel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,H,W) of each pixel of images (N,C,H,W) uint8, on [-1,1]."""
    total, squares = torch.zeros(2, *x.shape[1:], dtype=torch.float64)
    for part in x.split(at_once(x, _VALUES, 256)):
        levels = part.double()
        total += levels.sum(0)
        squares += levels.square().sum(0)
    variance = (squares - total.square() / len(x)) / max(len(x) - 1, 1)
    return (total / len(x) / 127.5 - 1).float(), (variance.clamp(min=0).sqrt() / 127.5).float()


class ReferenceSet:
    """Compares sets of images with the held-out images of a data set.

    Args:
        train: training images; the extractor may be fitted to them, and the ceiling is a part of them.
        heldout: images that were not trained on, with which samples are compared. If it is `train` itself, there is no
            ceiling, and copies cannot be told.
        n: generated images per comparison; at most the number of training images, since the ceiling needs as many.
        extractor: default the classifier for the data, else `limner.metrics.extractors.features.Random`.
        device: where features are computed.

    Raises:
        LimnerError: there are too few images, or they are not single grey or colour images.
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
        if train.batch_type not in (Images, Mismatched):
            raise LimnerError(
                f"{train.name} has {KINDS[train.batch_type].contents}; scores compare images alone; give data=FOLDER"
            )
        if c not in (1, 3) or min(h, w) < 8:
            raise LimnerError(
                f"scores compare grey or colour images of at least 8×8 pixels; {train.name} has {c}×{h}×{w}"
            )
        if extractor is None:
            extractor = usual_extractor(train, device)
        self.extractor, self.train, self.n, self.device = extractor, train, min(n, len(train)), torch.device(device)
        self.apart, self._heldout = heldout is not train, heldout
        need = extractor.dims + 1
        if self.n < need or len(heldout) < need:
            given = (
                f"{self.n} generated images (at most as many as training images)"
                if self.n < need
                else f"{len(heldout)} held-out images"
            )
            raise LimnerError(
                f"{extractor.key} has {extractor.dims} features, so a comparison needs at least {need} images on each"
                f" side; there are {given}"
            )
        self.real = load_real_images(heldout, extractor, LIMIT)
        self.moments = Moments().update(self.real.features).compute()

    @property
    def conditions(self) -> str:
        """The end of a score's name, which states extractor and sample size, such as ``@lenet64-v1[n=10000]``."""
        return f"@{self.extractor.key}[n={self.n}]"

    @property
    def floor(self) -> float:
        """Expected Fréchet distance of as many images from the same Gaussian."""
        return floor(self.moments[1], self.n, len(self.real))

    def __call__(self, x: Tensor) -> ScoredImages:
        """Scores of images (N,C,H,W), uint8 or in [-1,1]; the latter are rounded to 8 bits first."""
        x = x if x.dtype == torch.uint8 else to_uint8(x.clamp(-1, 1)).cpu()
        z, logits = extract(self.extractor, x)
        near = neighbourhoods(real=self.real.features, fake=z)
        scores = {
            "clipped_density": near.clipped_density,
            "fd": frechet_distance(*Moments().update(z).compute(), *self.moments),
            "kid": kid(real=self.real.features, fake=z).value,
            "precision": near.precision,
            "density": near.density,
            **({"sharpness": sharpness(x) / self._sharpness} if self._sharpness else {}),
            "clipped_coverage": near.clipped_coverage,
            "recall": near.recall,
            "coverage": near.coverage,
            "vendi": vendi(z) / self._vendi,
        }
        if logits is not None and self.real.logits is not None:
            classes = self.real.logits.argmax(1)
            counts = class_modes(logits.argmax(1), logits.shape[1], torch.bincount(classes, minlength=logits.shape[1]))
            scores["inception_style"] = inception_style_score(logits)
            scores["classes_found"] = counts.found
            if counts.kl is not None:
                scores["class_kl"] = counts.kl
        return ScoredImages(x, {k: float(scores[k]) for k in MEASURES if k in scores}, z, logits, near)

    @cached_property
    def trained_on(self) -> RealImages:
        """At most 60,000 training images, any of which may be copied, and their features."""
        return load_real_images(self.train, self.extractor, TRAINED)

    @cached_property
    def ceiling(self) -> Bound | None:
        """Scores of as many training images, drawn at random, as are generated: the best that can be expected.

        None where no images are kept apart from those that are compared with.
        """
        return self._bound("ceiling", lambda: uint8_images(self.train, self.n)[0]) if self.apart else None

    @cached_property
    def noise(self) -> Bound:
        """Scores of independent Gaussian pixels with the means and variances of the training images."""
        return self._bound("noise", self._noise)

    def _bound(self, name: str, images: Callable[[], Tensor]) -> Bound:
        """The scores of images that depend on the data alone, from the cache if it has them."""
        sets = self.train.fingerprint, self._heldout.fingerprint, len(self.real)
        file = cache_file(name, *sets, self.extractor.key, self.n, _rules())
        try:
            return Bound(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # it is not there, or damaged
            scored = self(images())
        bound = Bound(scored.scores, scored.neighbourhoods.hole_rate)
        keep(file, json.dumps(asdict(bound)).encode())
        return bound

    def _noise(self) -> Tensor:
        x, _ = uint8_images(self.train, self.n)
        mean, std = _pixel_moments(x)
        generator = torch.Generator().manual_seed(0)
        # In the memory of the images. A multiple of 16 images a draw, so that the noise is that of one draw for all.
        for part in x.split(16 * at_once(x, _VALUES // 16, 16)):
            part.copy_(to_uint8((mean + std * torch.randn(part.shape, generator=generator)).clamp_(-1, 1)))
        return x

    def norm(self, name: str, value: float) -> float | None:
        """Position of a score from the floor (noise, 0) to the ceiling (1); None for scores that have no best end."""
        if MEASURES[name].better is None:
            return None
        ceiling = self.ceiling
        return None if ceiling is None else normalised(value, self.noise.scores.get(name), ceiling.scores.get(name))

    @cached_property
    def _sharpness(self) -> float:
        return float(sharpness(self.real.images))

    @cached_property
    def _vendi(self) -> float:
        return float(vendi(self.real.features))


def usual_extractor(train: Dataset, device: torch.device | str) -> Extractor:
    """The extractor that was trained on such images, or random features where there is none."""
    classifier, reader = features.KEYS.get(train.name), attributes.KEYS.get(train.name)
    if classifier is not None:
        return features.classifier(classifier, device)
    if reader is not None and (found := attributes.attribute_reader(reader, device)).channels == train.shape[0]:
        return found
    return features.fitted(train, device)
