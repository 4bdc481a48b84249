"""Scores of a translator: how near translations come to their targets, compared with baselines without learning.

With pairs, every held-out translation is compared with its target: L1, PSNR, SSIM, a perceptual distance
(`limner.metrics.paired`), and all translations with all targets by a Fréchet distance. A number alone says little, so
baselines are measured in the same way, on the same images. Their names are part of the names of their scores:

==============  ====================================================================================================
``l1_classic``  a method without learning: bicubic, grey, Telea's inpainting, a median filter, an unsharp mask
``l1_nearest``  the training target whose source is nearest to the given source in L2
``l1_constant``  the mean colour of the training targets: the constant that is best in squared error
``l1_median``   their median colour, channel by channel: the constant that is best in L1
``l1_source``   the source itself
==============  ====================================================================================================

The best baseline is the floor of a score and an exact translation its ceiling, so a model with a norm above 0 is
better than all of them. If a task has a classic method, that is the only baseline. Translations are finished as by
`limner apply` (`inpaint` keeps the pixels outside holes, `colourise` keeps the luminance), and rounded to 8 bits.

Diversity is how much translations of one source differ with the noise. pix2pix's is near zero: dropout is its only
noise, and its net learnt to ignore any other (Isola et al. 2017, section 3.1).

Without pairs, the scores are those of the losses in training (cycle consistency; identity on images of the target
domain), the Fréchet distance from the other domain, whose floor is that of untranslated images, and, if the held-out
set knows pairs that training did not, the distance from the true target.

Errors and intervals are over images, of one training; those of Fréchet distances come from a jackknife of ten groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.batch import Dataset, Paired, Unpaired, batch_of, drawn, evenly_spaced, to_float, to_uint8
from limner.core.capabilities import Translates
from limner.core.errors import LimnerError
from limner.core.inference import translated
from limner.core.model import GenerativeModel
from limner.core.previews import rgb
from limner.data import degradations as tasks
from limner.data.degradations import Degradation
from limner.data.pairs import DomainSet, PairSet
from limner.evaluation.draws import counted
from limner.metrics import paired
from limner.metrics.extractors import features, pretrained
from limner.metrics.extractors.features import Extractor
from limner.metrics.frechet import Moments, frechet_distance
from limner.metrics.paired import Perceptual
from limner.metrics.scorecard import Card, Score, interval, missing, normalised, student

_BATCH = 16
_GROUPS = 10  # of the jackknife
_MIN_IMAGES = 20  # for a Fréchet distance
_EXACT_DB = 100.0
_SIDE = 64  # larger sources are reduced to this size to find the nearest
_CANDIDATES = 4
_DIVERSITY_SOURCES = 50
_CONSTANTS = ("constant", "median")
_NAMES = {
    "nearest": "the nearest training source's target",
    "constant": "the mean colour",
    "median": "the median colour",
    "source": "the source itself",
    "identity": "no translation",
}

Method = Callable[[Tensor], Tensor]
"""Translates sources (B,C',H,W) to images (B,C,H,W)."""


@dataclass(frozen=True)
class Effort:
    """Limits of an evaluation.

    Attributes:
        n: largest number of held-out images.
        perceptual: largest number of them for the perceptual distance.
        references: largest number of training pairs for the baselines.
        seeds: seeds of the noise for diversity; below 2 it is not measured.
        frechet: whether Fréchet distances are measured, which take most of the time.
    """

    n: int = 10_000
    perceptual: int = 10_000
    references: int = 5_000
    seeds: int = 5
    frechet: bool = True

    @classmethod
    def for_training(cls, heldout: Dataset) -> Effort:
        """Limits for the end of a training, so that it takes seconds; fewer images, at least 32, if above 64×64."""
        n = 160 if isinstance(heldout, DomainSet) else 500  # an image of two domains is translated six times
        return cls(_affordable(n, heldout.shape), _affordable(min(n, 200), heldout.shape), 2000, 2, frechet=False)


def _affordable(n: int, shape: Sequence[int]) -> int:
    return max(32, min(n, n * 64 * 64 // (shape[1] * shape[2])))


@dataclass(frozen=True)
class Measure:
    """What a score of single images measures.

    Attributes:
        better: "higher" or "lower".
        unit: unit of the number.
        exact: the score of equal images; None where it is infinite.
        how: what the number is, in a sentence.
    """

    better: Literal["higher", "lower"]
    unit: str
    exact: float | None
    how: str


MEASURES = {
    "l1": Measure("lower", "", 0.0, "mean absolute difference from the target on the [0,1] scale"),
    "psnr_db": Measure(
        "higher", "dB", None, f"peak signal-to-noise ratio, the mean over images; {_EXACT_DB:g} dB for an exact one"
    ),
    "ssim": Measure("higher", "", 1.0, "structural similarity to the target (Wang et al. 2004)"),
    "perceptual": Measure(
        "lower",
        "",
        0.0,
        "squared distance of unit feature vectors, mean over positions and layers (Zhang et al. 2018,"
        " eq. 1 with w = 1; not LPIPS)",
    ),
}


# -- features --------------------------------------------------------------------------------------------------------


def extractor_for(dataset: Dataset, device: torch.device | str = "cpu") -> Extractor:
    """The default extractor for Fréchet distances.

    It is the classifier for the data if there is one, EfficientNet-Lite0 for colour images if it is installed, else
    random features fitted to the data set.
    """
    known = features.KEYS.get(dataset.name)
    if known:
        return features.classifier(known, device)
    if dataset.shape[0] == 3:
        try:
            return pretrained.pretrained("effnet-lite0", device)
        except LimnerError:  # the extra is missing
            pass
    return features.fitted(dataset, device)


def rounded(x: Tensor) -> Tensor:
    """Images (B,C,H,W) in [-1,1] on the CPU, rounded to 8 bits as if they were saved.

    Raises:
        LimnerError: some values are not finite.
    """
    if not bool(torch.isfinite(x).all()):
        raise LimnerError("some translations are not finite; choose an earlier checkpoint with which=NUMBER")
    return to_float(to_uint8(x).cpu())


# -- baselines without learning --------------------------------------------------------------------------------------


class PairBaselines:
    """Baselines from training pairs: a constant colour, or the target of the nearest source.

    Args:
        train: a set of pairs.
        limit: largest number of pairs that are used, drawn at random.

    Attributes:
        mean: colour (C,) in [0,255], the best constant in squared error.
        median: colour (C,) in [0,255], the best constant in L1.
    """

    def __init__(self, train: Dataset, limit: int = 5000) -> None:
        self.train, self.ids = train, drawn(len(train), limit)
        counts = torch.zeros(train.shape[0], 256, dtype=torch.int64)
        sources = []
        for ids in _chunks(self.ids, 64):
            a, b = batch_of(train, [ids])
            sources.append(_shrink(a).flatten(1))
            counts += torch.stack([c.bincount(minlength=256) for c in to_uint8(b).transpose(0, 1).flatten(1).int()])
        self._sources = torch.cat(sources)  # (N,C'·h·w)
        self._middle = self._sources.mean(0)
        self._lengths = (self._sources - self._middle).square().sum(1)
        total = counts.sum(1, keepdim=True)
        self.mean = (counts * torch.arange(256)).sum(1) / total[:, 0]
        self.median = (2 * counts.cumsum(1) >= total).int().argmax(1).float()

    def nearest_ids(self, a: Tensor) -> list[int]:
        """Indices of the training pairs whose sources are nearest to a (B,C',H,W) in L2.

        The four nearest by float32 products are compared exactly.
        """
        x = _shrink(a).flatten(1)
        rough = self._lengths - 2 * (x - self._middle) @ (self._sources - self._middle).T
        near = rough.topk(min(_CANDIDATES, len(self.ids)), largest=False).indices.sort().values
        exact = (self._sources[near] - x[:, None]).square().sum(2).argmin(1, keepdim=True)
        return [self.ids[i] for i in near.gather(1, exact)[:, 0].tolist()]

    def nearest(self, a: Tensor) -> Tensor:
        """Targets (B,C,H,W) of the nearest sources."""
        pairs: Paired = batch_of(self.train, [self.nearest_ids(a)])
        return pairs.b

    def constant(self, colour: Tensor) -> Method:
        """The method that always gives one colour (C,) in [0,255]."""
        return lambda a: (colour / 127.5 - 1)[None, :, None, None].expand(len(a), -1, *a.shape[2:])


def _shrink(a: Tensor) -> Tensor:
    size = (min(a.shape[2], _SIDE), min(a.shape[3], _SIDE))
    return a if tuple(a.shape[2:]) == size else F.interpolate(a, size, mode="area")


def baselines(heldout: Dataset, train: Dataset | None = None, references: int = 5000) -> dict[str, Method]:
    """Baselines by name: the classic method of a task, else the methods that follow from training pairs.

    Args:
        heldout: pairs.
        train: training pairs; without them, only the source itself is a baseline.
        references: largest number of training pairs that are used.
    """
    assert isinstance(heldout, PairSet)
    task = task_of(heldout)
    if task is not None and task.classic_name:
        return {"classic": lambda a: cast(Tensor, task.classic(a))}
    methods: dict[str, Method] = {}
    if isinstance(train, PairSet):
        pairs = PairBaselines(train, references)
        methods = {
            "nearest": pairs.nearest,
            "constant": pairs.constant(pairs.mean),
            "median": pairs.constant(pairs.median),
        }
    if heldout.source[0] in (1, heldout.shape[0]):
        methods["source"] = lambda a: a.expand(-1, heldout.shape[0], -1, -1)
    return methods


def task_of(heldout: Dataset) -> Degradation | None:
    """The task that makes the sources of such pairs from their targets; None where both were given."""
    pairing: dict[str, Any] | None = getattr(heldout, "pairing", None)
    return None if pairing is None else tasks.make(**pairing)


def translator(model: Translates, task: Degradation | None = None, seed: int = 0) -> Method:
    """The translation by a model, finished as the task requires."""

    def method(a: Tensor) -> Tensor:
        y = translated(model, a, seed=seed, batch=_BATCH).cpu()
        return y if task is None else task.finish(a, y)

    return method


# -- pairs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class On:
    """The images that a score is of: `total` of them, `what` they are."""

    total: int
    what: str

    def text(self, n: int) -> str:
        """What n of them are, in words."""
        return counted(n, self.total, self.what)


@dataclass
class _Measurements:
    """Measurements of one method: values of single images by measure, and features of all images."""

    values: dict[str, list[float]] = field(default_factory=dict)
    features: list[Tensor] = field(default_factory=list)

    def add(self, measure: str, values: Tensor) -> None:
        self.values.setdefault(measure, []).extend(values.double().tolist())

    def compare(self, y: Tensor, b: Tensor) -> None:
        """Adds the pixel measures of images y against b."""
        self.add("l1", paired.l1(y, b))
        self.add("psnr_db", paired.psnr(y, b).clamp(max=_EXACT_DB))
        self.add("ssim", paired.ssim(y, b))


def pair_scores(
    model: Translates,
    heldout: Dataset,
    train: Dataset | None = None,
    *,
    effort: Effort | None = None,
    extractor: Extractor | None = None,
    perceptual: Perceptual | None = None,
    device: torch.device | str = "cpu",
) -> Card:
    """Scores of a translator on held-out pairs, and of the baselines.

    Args:
        model: in evaluation mode.
        heldout: pairs that it was not trained on.
        train: pairs that it was trained on, for the baselines and the ceiling of the Fréchet distance.
        effort: limits; everything is measured by default.
        extractor: for the Fréchet distance; default that of `extractor_for`.
        perceptual: the perceptual distance; default `Perceptual.best`.
        device: where features are computed.

    Raises:
        LimnerError: the held-out set has no pairs, or translations are not finite.
    """
    if not isinstance(heldout, PairSet):
        raise LimnerError(f"{heldout.name} has no pairs to compare translations with; name pairs with data=FOLDER")
    effort, task = effort or Effort(), task_of(heldout)
    perceptual = perceptual or Perceptual.best(heldout.shape[0], device)
    if effort.frechet and extractor is None:
        extractor = extractor_for(heldout if train is None else train, device)
    methods = {"": translator(model, task), **baselines(heldout, train, effort.references)}
    n = min(effort.n, len(heldout))
    measurements, target_features = _measure_pairs(methods, heldout, n, effort, extractor, perceptual)
    descriptions = {**_NAMES, "classic": "" if task is None else f"the classic method ({task.classic_name})"}
    on = On(len(heldout), f"held-out pairs of {heldout.name}" + ("" if task is None else f", {task.name}"))
    card: Card = {}
    for measure in MEASURES:
        at = _conditions(measure, len(measurements[""].values[measure]), heldout.shape, perceptual)
        values = {method: m.values[measure] for method, m in measurements.items()}
        card |= _scores_with_baselines(measure, values, at, on, descriptions)
    if extractor is not None and effort.frechet:
        card |= _frechet_scores(measurements, target_features, train, extractor, n, on, descriptions)
    return card | _diversity(model, heldout, task, effort, perceptual)


def _measure_pairs(
    methods: dict[str, Method],
    heldout: Dataset,
    n: int,
    effort: Effort,
    extractor: Extractor | None,
    perceptual: Perceptual,
) -> tuple[dict[str, _Measurements], list[Tensor]]:
    """Measurements of every method on the same images, and the features of the targets."""
    measurements = {method: _Measurements() for method in methods}
    ids, with_features = drawn(len(heldout), n), set(drawn(n, effort.perceptual))
    target_features = []
    for positions in _chunks(range(n), _BATCH):
        a, b = batch_of(heldout, [[ids[i] for i in positions]])
        b = rounded(b)
        selected = [i in with_features for i in positions]
        target = perceptual.layers(b[selected]) if any(selected) else []
        if extractor is not None and effort.frechet:
            target_features.append(extractor.features(b).cpu())
        for name, method in methods.items():
            y = rounded(method(a))
            measurements[name].compare(y, b)
            if target:
                measurements[name].add("perceptual", perceptual.between(perceptual.layers(y[selected]), target))
            if extractor is not None and effort.frechet:
                z = extractor.features(y[:1] if name in _CONSTANTS else y).cpu()
                measurements[name].features.append(z.expand(len(y), -1))
    return measurements, target_features


def _conditions(measure: str, n: int, shape: Sequence[int], perceptual: Perceptual) -> str:
    """The conditions in a score's name: features, number of images, a window that is not the paper's."""
    if measure == "perceptual":
        return f"@{perceptual.key}[n={n}]"
    side = paired.window(shape[1], shape[2])
    return f"[n={n}]" if measure != "ssim" or side == paired.window(64, 64) else f"[n={n}, window={side}]"


def _score_name(measure: str, method: str) -> str:
    """The name of a method's score.

    >>> _score_name("l1", ""), _score_name("l1", "nearest"), _score_name("psnr_db", "nearest")
    ('l1', 'l1_nearest', 'psnr_nearest_db')
    """
    head, unit, _ = measure.partition("_db")
    return f"{head}_{method}{unit}" if method else measure


def _scores_with_baselines(
    measure: str, values: dict[str, list[float]], at: str, on: On, descriptions: dict[str, str], prefix: str = ""
) -> Card:
    """The model's score ("" among the values), with the best baseline as its floor; and those of the baselines."""
    about, model = MEASURES[measure.split("_to_")[0]], values[""]
    sign = 1 if about.better == "higher" else -1
    others = {method: v for method, v in values.items() if method}
    best = max((fmean(v) for v in others.values()), key=lambda m: sign * m, default=None)
    margins = "".join(
        f"; {_margin([sign * (x - y) for x, y in zip(model, v, strict=True)])} {descriptions[method]}"
        for method, v in others.items()
    )
    common: dict[str, Any] = {
        "unit": about.unit, "on": on.text(len(model)), "property": "quality", "better": about.better
    }  # fmt: skip
    card = {
        f"{prefix}{measure}{at}": Score.of_sample(
            model, how=about.how + margins, ceiling=about.exact, floor=best,
            norm=normalised(fmean(model), best, about.exact), **common,
        )
    }  # fmt: skip
    for method, v in others.items():
        name = f"{prefix}{_score_name(measure, method)}{at}"
        card[name] = Score.of_sample(v, how=f"the same for {descriptions[method]}", **common)
    return card


def _margin(gains: list[float]) -> str:
    """By how much the model is better or worse on the same images, in words."""
    mean, _, low, high = interval(gains)
    if low is None or high is None:
        return f"{abs(mean):.3g} {'better' if mean > 0 else 'worse'} than"
    if low <= 0 <= high:
        return f"neither better nor worse ({low:.2g} to {high:.2g}) than"
    low, high = sorted((abs(low), abs(high)))
    return f"{abs(mean):.3g} ({low:.3g} to {high:.3g}) {'better' if mean > 0 else 'worse'} than"


def _diversity(
    model: Translates, heldout: Dataset, task: Degradation | None, effort: Effort, perceptual: Perceptual
) -> Card:
    """How much translations of one source differ with the seed of the noise."""
    if effort.seeds < 2:
        return {}
    measured = _Measurements()
    n = min(_DIVERSITY_SOURCES, effort.n, len(heldout))
    for ids in _chunks(drawn(len(heldout), n), _BATCH):
        a, _ = batch_of(heldout, [ids])
        ys = [rounded(translator(model, task, seed)(a)) for seed in range(effort.seeds)]
        layers = [perceptual.layers(y) for y in ys]
        pairs = [(i, j) for j in range(effort.seeds) for i in range(j)]
        measured.add("l1", torch.stack([paired.l1(ys[i], ys[j]) for i, j in pairs]).mean(0))
        measured.add("perceptual", torch.stack([perceptual.between(layers[i], layers[j]) for i, j in pairs]).mean(0))
    how = (
        f"mean difference between translations of one source under {effort.seeds} seeds of the noise; pix2pix's is near"
        " zero, since dropout is its only noise (Isola et al. 2017, section 3.1)"
    )
    names = {"l1": f"diversity[n={n}]", "perceptual": f"diversity_perceptual@{perceptual.key}[n={n}]"}
    on = counted(n, len(heldout), f"held-out sources of {heldout.name}")
    card = {}
    for measure, name in names.items():
        kind = "on the [0,1] scale, " if measure == "l1" else "of features, "
        card[name] = Score.of_sample(
            measured.values[measure], on=on, how=kind + how, property="coverage", better="higher"
        )
    return card


# -- Fréchet distances -----------------------------------------------------------------------------------------------


def small_set_frechet(x: Tensor, y: Tensor) -> float:
    """Fréchet distance of features x (N,d) and y (M,d) as of `limner.metrics.frechet.frechet`, fast for few images.

    With S = AᵀA and T = BᵀB the trace of (ST)^½ is the sum of the singular values of ABᵀ, which is N×M: for fewer
    images than dimensions that is quicker by far, and exact where covariances are singular.
    """
    if min(len(x), len(y)) >= x.shape[1]:
        return frechet_distance(*Moments().update(x).compute(), *Moments().update(y).compute())
    a, b = (np.asarray(z.cpu().double().numpy()) for z in (x, y))
    apart = float(((a.mean(0) - b.mean(0)) ** 2).sum())
    a, b = ((z - z.mean(0)) / math.sqrt(len(z) - 1) for z in (a, b))
    overlap = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(apart + float((a**2).sum() + (b**2).sum() - 2 * overlap), 0.0)


def _jackknife(x: Tensor, y: Tensor) -> tuple[float, float, float, float]:
    """The distance, its standard error and 95 % interval by a jackknife over ten groups of images."""
    distance = small_set_frechet(x, y)

    def without(z: Tensor, group: int) -> Tensor:
        return z[torch.arange(len(z)) % _GROUPS != group]

    left_out = [small_set_frechet(without(x, g), without(y, g)) for g in range(_GROUPS)]
    mean = sum(left_out) / _GROUPS
    error = math.sqrt((_GROUPS - 1) / _GROUPS * sum((value - mean) ** 2 for value in left_out))
    half = student(_GROUPS - 1) * error
    return distance, error, max(distance - half, 0.0), distance + half


def _frechet_score(
    fake: Tensor, target: Tensor, real: Tensor | None, floor: float | None, on: str, how: str = ""
) -> Score:
    """A Fréchet distance; its ceiling is that of real images. `how` is given for baselines."""
    value, error, low, high = _jackknife(fake, target)
    ceiling = None if real is None or len(real) < _MIN_IMAGES else small_set_frechet(real, target)
    if not how:
        how = "Fréchet distance of translations from held-out targets, all together (Heusel et al. 2017)"
        if len(fake) <= fake.shape[1]:
            how += f"; fewer images than the {fake.shape[1]:,} features, so it compares only at as many"
        if ceiling is not None:
            how += f"; as many training targets have {ceiling:.4g}"
    norm = normalised(value, floor, ceiling) if floor is not None and ceiling is not None and floor > ceiling else None
    return Score(
        value, on=on, how=how, property="quality", error=error, low=low, high=high, better="lower", ceiling=ceiling,
        floor=floor, norm=norm,
    )  # fmt: skip


def _frechet_scores(
    measurements: dict[str, _Measurements],
    targets: list[Tensor],
    train: Dataset | None,
    extractor: Extractor,
    n: int,
    on: On,
    descriptions: dict[str, str],
) -> Card:
    """Fréchet distances of every method. The nearest neighbour gives real images, so it is no floor here."""
    if n < _MIN_IMAGES:
        return {"fd": missing("quality", f"a Fréchet distance needs {_MIN_IMAGES} held-out images, there are {n}")}
    target = torch.cat(targets)
    real = None if train is None else _features(extractor, train, n)
    at, what = f"@{extractor.key}[n={n}]", on.text(n)
    others = {
        method: _frechet_score(torch.cat(m.features), target, None, None, what, f"the same for {descriptions[method]}")
        for method, m in measurements.items()
        if method
    }
    floor = min((cast(float, s.value) for method, s in others.items() if method != "nearest"), default=None)
    card = {f"fd{at}": _frechet_score(torch.cat(measurements[""].features), target, real, floor, what)}
    return card | {f"{_score_name('fd', method)}{at}": score for method, score in others.items()}


def _features(extractor: Extractor, dataset: Dataset, n: int) -> Tensor:
    """Features of at most n images of a set, drawn at random."""
    return torch.cat([extractor.features(dataset.fetch(ids)).cpu() for ids in _chunks(drawn(len(dataset), n), 64)])


# -- two domains -----------------------------------------------------------------------------------------------------


def domain_scores(
    model: Translates,
    heldout: Dataset,
    train: Dataset | None = None,
    *,
    effort: Effort | None = None,
    extractor: Extractor | None = None,
    perceptual: Perceptual | None = None,
    device: torch.device | str = "cpu",
) -> Card:
    """Scores of a translator between two held-out domains, and against their pairs where the set knows them.

    Args:
        model: in evaluation mode.
        heldout: two domains that it was not trained on.
        train: the domains that it was trained on, for the ceiling of the Fréchet distance.
        effort: limits; everything is measured by default.
        extractor: for the Fréchet distance; default that of `extractor_for`.
        perceptual: the perceptual distance; default `Perceptual.best`.
        device: where features are computed.

    Raises:
        LimnerError: the held-out set has no two domains, or translations are not finite.
    """
    if not isinstance(heldout, DomainSet):
        raise LimnerError(f"{heldout.name} has no two domains; name a folder with trainA, trainB, testA and testB")
    effort = effort or Effort()
    perceptual = perceptual or Perceptual.best(heldout.shape[0], device)
    if not effort.frechet:
        extractor = None
    elif extractor is None:
        extractor = extractor_for(heldout if train is None else train, device)
    card: Card = {}
    for to in model.domains:
        source, target = (heldout.a, heldout.b) if to == "b" else (heldout.b, heldout.a)
        partners = target if heldout.known else None
        measurements = _measure_domain(model, source, partners, to, effort, extractor, perceptual)
        card |= _cycle_scores(measurements[""], source, to)
        card |= _identity_scores(model, target, to, effort)
        if heldout.known:
            on = On(
                len(source),
                f"held-out pictures of {source.name}, whose partners in {target.name} training did not know",
            )
            for measure in ("l1", "ssim", "perceptual"):
                values = {method: m.values[measure] for method, m in measurements.items()}
                at = _conditions(measure, len(values[""]), heldout.shape, perceptual)
                card |= _scores_with_baselines(f"{measure}_to_{to}", values, at, on, _NAMES, "pair_")
        if extractor is not None:
            trained: Dataset | None = getattr(train, to, None)
            card |= _domain_distances(measurements, target, trained, extractor, source, to, effort.n)
    return card


def _measure_domain(
    model: Translates,
    source: Dataset,
    partners: Dataset | None,
    to: str,
    effort: Effort,
    extractor: Extractor | None,
    perceptual: Perceptual,
) -> dict[str, _Measurements]:
    """Measurements of translations ("") and of untranslated images ("identity") of a domain."""
    n, back = min(effort.n, len(source)), "a" if to == "b" else "b"
    ids, with_features = drawn(len(source), n), set(drawn(n, effort.perceptual))
    measurements = {"": _Measurements(), "identity": _Measurements()}
    for positions in _chunks(range(n), _BATCH):
        selected = [i in with_features for i in positions]
        batch_ids = [ids[i] for i in positions]
        x = to_float(source.fetch(batch_ids))
        y = translated(model, x, to, batch=_BATCH).cpu().clamp(-1, 1)
        if back in model.domains:
            measurements[""].add("cycle", paired.l1(rounded(translated(model, y, back, batch=_BATCH)), x))
        b = None if partners is None else to_float(partners.fetch(batch_ids))
        layers = perceptual.layers(b[selected]) if b is not None and any(selected) else []
        for method, images in (("", rounded(y)), ("identity", x)):
            if b is not None:
                measurements[method].compare(images, b)
            if layers:
                measurements[method].add("perceptual", perceptual.between(perceptual.layers(images[selected]), layers))
            if extractor is not None:
                measurements[method].features.append(extractor.features(images).cpu())
    return measurements


def _cycle_scores(measured: _Measurements, source: Dataset, to: str) -> Card:
    values = measured.values.get("cycle")
    if values is None:
        return {}
    n, start = len(values), "a" if to == "b" else "b"
    return {
        f"cycle_l1_{start}[n={n}]": Score.of_sample(
            values, on=counted(n, len(source), f"held-out pictures of {source.name}"),
            property="coverage", better="lower", ceiling=0.0,
            how=f"mean |x - there and back| on the [0,1] scale, {start} to {to} to {start} (Zhu et al. 2017, eq. 2)",
        )
    }  # fmt: skip


def _identity_scores(model: Translates, target: Dataset, to: str, effort: Effort) -> Card:
    """How much images change that are in the target domain already."""
    measured, n = _Measurements(), min(effort.n, len(target))
    for ids in _chunks(drawn(len(target), n), _BATCH):
        x = to_float(target.fetch(ids))
        measured.add("l1", paired.l1(rounded(translated(model, x, to, batch=_BATCH)), x))
    return {
        f"identity_l1_to_{to}[n={n}]": Score.of_sample(
            measured.values["l1"], on=counted(n, len(target), f"held-out pictures of {target.name}"),
            property="quality", better="lower",
            how=f"how much pictures of {to} change when they are translated to {to} (Zhu et al. 2017, section 5.2)",
            ceiling=0.0,
        )
    }  # fmt: skip


def _domain_distances(
    measurements: dict[str, _Measurements],
    target: Dataset,
    trained: Dataset | None,
    extractor: Extractor,
    source: Dataset,
    to: str,
    limit: int,
) -> Card:
    """The Fréchet distance to a domain; its floor is that of untranslated images."""
    fake, untouched = (torch.cat(measurements[method].features) for method in ("", "identity"))
    n = len(fake)
    if min(n, len(target)) < _MIN_IMAGES:
        why = f"a Fréchet distance needs {_MIN_IMAGES} held-out images, there are {min(n, len(target))}"
        return {f"fd_to_{to}": missing("quality", why)}
    real = _features(extractor, target, limit)
    at, against = f"@{extractor.key}[n={n}]", counted(len(real), len(target), f"of {target.name}")
    on = f"{counted(n, len(source), f'held-out pictures of {source.name}')} against {against}"
    identity = _frechet_score(untouched, real, None, None, on, f"the same for {_NAMES['identity']}")
    ceiling = None if trained is None else _features(extractor, trained, n)
    return {
        f"fd_to_{to}{at}": _frechet_score(fake, real, ceiling, cast(float, identity.value), on),
        f"fd_to_{to}_identity{at}": identity,
    }


@dataclass(frozen=True)
class TranslationEvaluator:
    """Scores translators on held-out pairs or domains.

    Attributes:
        train: training data.
        heldout: data that were not trained on.
        effort: limits of the evaluation.
        extractor: for Fréchet distances; None stands for that of `extractor_for`.
        perceptual: the perceptual distance; None stands for `Perceptual.best`.
    """

    train: Dataset
    heldout: Dataset
    effort: Effort
    extractor: Extractor | None = None
    perceptual: Perceptual | None = None

    def card(self, model: Translates, device: torch.device | str = "cpu") -> Card:
        """`pair_scores` or `domain_scores`, whichever fits the held-out set."""
        scores = domain_scores if isinstance(self.heldout, DomainSet) else pair_scores
        return scores(
            model, self.heldout, self.train, effort=self.effort, extractor=self.extractor, perceptual=self.perceptual,
            device=device,
        )  # fmt: skip


# -- for training, evaluation and reports ----------------------------------------------------------------------------
def missing_scores(name: str, properties: Sequence[str]) -> Card:
    """Properties that translators do not have, with the reason."""
    reasons = {
        "latent": ("latent", f"{name} translates pictures; it has no latent space"),
        "mig": ("disentangled", f"{name} translates pictures; it has no codes to compare with factors"),
        "bits_per_dim": ("likelihood", f"{name} does not say how probable a picture is, so it has no likelihood"),
        "copying": ("copying", f"{name} has no samples: every translation is compared with its own target"),
    }
    return {key: missing(property_, why) for key, (property_, why) in reasons.items() if property_ in properties}


def training_scorer(heldout: Dataset, n: int = 200) -> Callable[[Translates], dict[str, float]] | None:
    """The score that selects the best checkpoint in training: ``l1`` of pairs, ``cycle_l1`` of domains, else None."""
    n = _affordable(n, heldout.shape)

    def pair_error(model: Translates) -> dict[str, float]:
        method, errors = translator(model, task_of(heldout)), []
        for ids in _chunks(evenly_spaced(len(heldout), n), _BATCH):
            a, b = batch_of(heldout, [ids])
            errors.append(paired.l1(rounded(method(a)), b))
        return {"l1": float(torch.cat(errors).mean())}

    def cycle_error(model: Translates) -> dict[str, float]:
        assert isinstance(heldout, DomainSet)
        errors = []
        for part, to, back in ((heldout.a, "b", "a"), (heldout.b, "a", "b")):
            for ids in _chunks(evenly_spaced(len(part), max(n // 4, 32)), _BATCH):  # each takes four passes, not one
                x = to_float(part.fetch(ids))
                there = translated(model, x, to, batch=_BATCH).clamp(-1, 1)
                errors.append(paired.l1(rounded(translated(model, there, back, batch=_BATCH)), x))
        return {"cycle_l1": float(torch.cat(errors).mean())}

    scorers: dict[type, Callable[[Translates], dict[str, float]]] = {Paired: pair_error, Unpaired: cycle_error}
    return scorers.get(heldout.batch_type)


def before_after(
    model: Translates, heldout: Dataset, train: Dataset | None = None, rows: int = 10, references: int = 5000
) -> tuple[Tensor, int, str]:
    """Held-out images with their translations and, for pairs, baselines and targets: a row for each.

    Returns:
        Images (rows·columns,3,H,W) in [-1,1] row by row, the number of columns, and the names of the columns.
    """
    if isinstance(heldout, DomainSet):
        return _domain_rows(model, heldout, rows)
    a, b = batch_of(heldout, [evenly_spaced(len(heldout), rows)])
    task = task_of(heldout)
    columns = {"source": a}
    for name, method in baselines(heldout, train, references).items():
        if name in ("classic", "nearest"):
            columns[_NAMES[name] if task is None or name != "classic" else task.classic_name] = method(a)
    columns |= {"translation": translator(model, task)(a), "target": b}
    return _interleave(columns)


def _domain_rows(model: Translates, heldout: DomainSet, rows: int) -> tuple[Tensor, int, str]:
    n = min(rows, len(heldout.a), len(heldout.b))
    a, b = (to_float(part.fetch(evenly_spaced(len(part), n))) for part in (heldout.a, heldout.b))
    columns = {"a": a, "as b": translated(model, a, "b")}
    if heldout.known:
        columns["its partner in b"] = b
        return _interleave(columns | ({"that as a": translated(model, b, "a")} if "a" in model.domains else {}))
    if "a" in model.domains:
        columns["back again"] = translated(model, columns["as b"], "a")
        columns |= {"another of b": b, "as a": translated(model, b, "a")}
        columns["and back"] = translated(model, columns["as a"], "b")
    return _interleave(columns)


def _interleave(columns: dict[str, Tensor]) -> tuple[Tensor, int, str]:
    shown = torch.stack([rgb(x.cpu()) for x in columns.values()], 1).flatten(0, 1)
    return shown, len(columns), ", ".join(columns)


class Repeated(GenerativeModel):
    """A model that translates the same image again and again, so that `limner.evaluation.cost` can time translators."""

    evaluations = 1

    def __init__(self, model: GenerativeModel, heldout: Dataset) -> None:
        super().__init__()
        self.model, self.spec = model, model.spec
        source = batch_of(heldout, [[0] for _ in heldout.parts()]).a
        self.register_buffer("source", source.to(model.device), persistent=False)

    def groups(self) -> dict[str, torch.nn.Module]:
        return self.model.groups()

    def draw(self, n: int, y: Tensor | None, generator: torch.Generator, **options: Any) -> Tensor:
        source = cast(Tensor, self.source)
        return cast(Translates, self.model).translate(source.expand(n, -1, -1, -1), "b")


def _chunks(ids: Sequence[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(ids), size):
        yield list(ids[first : first + size])
