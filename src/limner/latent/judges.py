"""What judges pictures of a latent tool: features to compare them by, and readers that say what is in them.

Both are those of the data that the run learnt from, where limner has any for them. Otherwise features are
`limner.metrics.extractors.features.Random`, and a small reader learns from the labels of the data, or of other labelled
pictures that the user names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limner import data
from limner.config import recipe as recipes
from limner.config import run_data
from limner.core.batch import Dataset, Images
from limner.core.condition import Condition
from limner.core.errors import LimnerError
from limner.core.paths import BUILTIN, exists, user_path
from limner.core.run import Run
from limner.evaluation.factors import factor_reader
from limner.evaluation.real_features import uint8_images
from limner.metrics.extractors import attributes, features
from limner.metrics.extractors.features import Classifier, Extractor, Random
from limner.metrics.extractors.readers import READERS, ReadsAttributes, ReadsQuantities, SmallReader

_LEARNT = 6000  # pictures that a small reader learns from
_NAMED, _EFFECT = (
    0.5,
    0.1,
)  # least |r|, and least change of a probability or share of a range, after which a slider is named


def run_of(path: str | Path) -> Run | None:
    """The run of a run folder, of a checkpoint in it, or of a file of one; None for a file elsewhere."""
    place = user_path(path).resolve()
    for folder in (place, *list(place.parents)[:3]):
        if (folder / "recipe.yaml").is_file():
            return Run(folder)
    return None


def data_name(path: str | Path) -> str:
    """The name of the data set that a run learnt from; "" for a folder of pictures, or a model without a run."""
    run = run_of(path)
    part: Any = run.recipe.get("data") if run else None
    return str(part.get("name", "")) if isinstance(part, Mapping) else str(part or "")


def extractor(path: str | Path, samples: Tensor, device: torch.device | str = "cpu") -> Extractor:
    """The features of the data of a run, or of random nets with the components of these samples (N,C,H,W)."""
    name = data_name(path)
    if name in features.KEYS:
        return features.classifier(features.KEYS[name], device)
    if name in attributes.KEYS:
        found = attributes.attribute_reader(attributes.KEYS[name], device)
        if found.channels == samples.shape[1]:
            return found
    return Random(samples, device)


@dataclass(frozen=True, eq=False)
class ClassReader:
    """A classifier as a reader of one attribute, ``class``.

    Attributes:
        values: the names of the classes.
        classifier: gives the logits.
    """

    values: Mapping[str, Sequence[str]]
    classifier: Classifier

    @property
    def key(self) -> str:
        """That of the classifier."""
        return self.classifier.key

    @property
    def about(self) -> Mapping[str, Any]:
        """How it was trained."""
        return self.classifier.about

    def logits(self, x: Tensor, *, batch: int = 256) -> dict[str, Tensor]:
        """Logits (B,K) of images x (B,C,H,W), uint8 or in [-1,1], on the CPU."""
        return {"class": self.classifier.classify(x, batch=batch).cpu()}


def reader(
    path: str | Path, shape: tuple[int, ...], labelled: str | Path | None = None, device: torch.device | str = "cpu"
) -> ReadsAttributes | None:
    """What reads attributes of the pictures of a run; None where nothing is known of them.

    Args:
        path: the run.
        shape: (C,H,W) of its pictures.
        labelled: pictures with labels, a folder or a named set, to read by their classes or attributes instead of
            those of the run's data.
        device: where it computes.

    Raises:
        LimnerError: the pictures are not there, or have no classes or attributes.
    """
    if labelled is None:
        name = data_name(path)
        found = _pinned(name, device)
        if found is not None:
            return found
        run = run_of(path)
        if run is None or name not in data.list_sources():
            return None
        try:
            dataset: Dataset = run_data.located(run, recipes.of_run(run.recipe).data, "latent").build()
        except LimnerError:
            return None  # the pictures have moved: the model can be looked into without them
    else:
        is_name = str(labelled) in data.list_sources() and not exists(labelled)
        found = _pinned(str(labelled), device) if is_name else None
        if found is not None:
            return found
        options: dict[str, Any] = {"size": shape[1:], "channels": shape[0]}
        dataset = data.load(f"{BUILTIN}{labelled}" if is_name else str(labelled), **options)
    condition: Condition | None = getattr(dataset, "condition", None)
    if dataset.batch_type is not Images or dataset.labels is None or condition is None or not condition.values:
        if labelled is None:
            return None
        raise LimnerError(f"{labelled} has no classes or attributes to read by; give class folders or a metadata.csv")
    x, y = uint8_images(dataset, _LEARNT)
    assert y is not None
    return SmallReader.trained(x, condition.features(y.cpu()), condition.values, device=device)


def _pinned(name: str, device: torch.device | str) -> ReadsAttributes | None:
    """The reader or the classifier that limner has for a named set."""
    if name in READERS:
        return READERS[name](device)
    if name == "mini-dsprites":
        return factor_reader(device)
    if name in features.KEYS:
        classes = data.load(f"{BUILTIN}{name}", limit=100).classes
        found = features.classifier(features.KEYS[name], device)
        return ClassReader({"class": classes or [str(k) for k in range(found.classes)]}, found)
    return None


def scores(reader: ReadsAttributes, x: Tensor) -> dict[str, Tensor]:
    """Log probabilities (N,K) of the values of each attribute of images (N,C,H,W) in [-1,1], on the CPU."""
    return {name: logits.cpu().float().log_softmax(1) for name, logits in reader.logits(x).items()}


@dataclass(frozen=True)
class Correlation:
    """What a slider changes most evenly.

    Attributes:
        attribute: the attribute.
        value: the value of it that becomes likelier, or less likely if r is negative; None for a quantity.
        r: Pearson's correlation of the slider's position with the log probability of that value, or with the mean that
            the reader gives a quantity. A quantity that repeats is its cosine and its sine, and r, from 0 to 1, the
            multiple correlation with both.
        effect: how far the probability itself moves on the way, from -1 to 1, mean over rows; or how far a quantity
            moves, as a share of its range. Of one that repeats it is the way to the farthest position, as a share of
            half a period.
    """

    attribute: str
    value: str | None
    r: float
    effect: float

    def __str__(self) -> str:
        said = f"{self.attribute}={self.value}, r = {self.r:+.2f}, probability {self.effect:+.2f}"
        if self.value is None:
            said = f"{self.attribute}, r = {self.r:+.2f}, {self.effect:+.2f} of its range"
        return said if self.is_name else f"unnamed (nearest {said})"

    @property
    def is_name(self) -> bool:
        """Whether it names a slider: even on a small way r may be large, so the pictures must change too."""
        return abs(self.r) >= _NAMED and abs(self.effect) >= _EFFECT


def correlation(reader: ReadsAttributes, t: Tensor, x: Tensor) -> Correlation:
    """The quantity, or the value of another attribute, that goes most evenly with the position of a slider.

    Of `correlations` those that name a slider come first, and then the one of the largest absolute r; its arguments.
    """
    return max(correlations(reader, t, x), key=lambda c: (c.is_name, abs(c.r)))


def correlations(reader: ReadsAttributes, t: Tensor, x: Tensor) -> list[Correlation]:
    """How evenly each quantity, and each value of the other attributes, goes with the position of a slider.

    Each row of pictures has its own mean taken away, so that only what the slider changes counts.

    Args:
        reader: reads the pictures.
        t: (T,) positions.
        x: images (B,T,C,H,W) of B rows.
    """
    b, n = x.shape[:2]
    periods = reader.quantities if isinstance(reader, ReadsQuantities) else {}
    found: list[Correlation] = []
    position = (t.double().cpu() - t.double().cpu().mean()).expand(b, n)
    for attribute, table in scores(reader, x.flatten(0, 1)).items():
        rows = table.view(b, n, -1).double()
        names = list(map(str, reader.values[attribute]))
        if attribute in periods:
            found.append(_of_quantity(attribute, names, periods[attribute], position, rows.exp()))
            continue
        effects = (rows[:, -1].exp() - rows[:, 0].exp()).mean(0)
        r = _r(position, rows)
        found += [Correlation(attribute, *each) for each in zip(names, r.tolist(), effects.tolist(), strict=True)]
    return found


def _of_quantity(
    attribute: str, names: Sequence[str], period: float | None, position: Tensor, p: Tensor
) -> Correlation:
    """That of the mean of a quantity under probabilities p (B,T,K) of its values."""
    values = torch.tensor([float(name) for name in names], dtype=p.dtype)
    if period is None:
        share = (p @ values)[..., None] / (values.max() - values.min())
        effect = float((share[:, -1] - share[:, 0]).mean())
        return Correlation(attribute, None, float(_r(position, share)), effect)
    angle = 2 * math.pi * values / period
    both = torch.stack([p @ angle.cos(), p @ angle.sin()], -1)  # (B,T,2)
    turned = torch.atan2(both[..., 1], both[..., 0])
    away = (turned - turned[:, :1] + math.pi).remainder(2 * math.pi) - math.pi
    centred = (both - both.mean(1, keepdim=True)).flatten(0, 1)
    fitted = (centred @ torch.linalg.lstsq(centred, position.reshape(-1, 1), driver="gelsd").solution).view_as(position)
    return Correlation(
        attribute, None, abs(float(_r(position, fitted[..., None]))), float(away.abs().amax(1).mean() / math.pi)
    )


def _r(position: Tensor, rows: Tensor) -> Tensor:
    """Pearson's correlation (K,) of centred positions (B,T) with numbers (B,T,K) less the mean of their row."""
    rows = rows - rows.mean(1, keepdim=True)
    both = (position[..., None] * rows).sum((0, 1))
    norms = position.square().sum().sqrt() * rows.square().sum((0, 1)).sqrt()
    return torch.where(norms > 0, both / norms.clamp_min(1e-300), 0.0)
