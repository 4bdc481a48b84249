"""The card of a translator: how near translations come to what they should be, beside what needs no learning.

With pairs, every held-out translation is held against its target: L1, PSNR, SSIM, a perceptual distance
(`limner.metrics.paired`), and all of them together against all targets by a Fréchet distance. A number alone says
little, so simple ways are measured alike, on the same pictures. Their scores carry their names:

==============  ====================================================================================================
``l1_classic``  what one does without learning: bicubic, grey, Telea's inpainting, a median filter, an unsharp mask
``l1_nearest``  the training target whose source is nearest to the given source in L2
``l1_constant``  the mean colour of the training targets: the constant that is best in squared error
``l1_median``   their median colour, channel by channel: the constant that is best in L1
``l1_source``   the source itself
==============  ====================================================================================================

The best of them is the floor of a score and exactness its ceiling, so a norm above 0 says that it beats them all.
Where a task has a classic way, that is the only baseline. Translations are finished as `limner apply` finishes them
(`inpaint` keeps what is no hole, `colourise` keeps the luminance), and rounded to 8 bits.

Diversity is how much translations of one source differ with the noise. pix2pix's is near zero: dropout is its only
noise, and its net learnt to ignore any other (Isola et al. 2017, section 3.1; erratum E16 of the lectures).

Without pairs there are the errors that training knows (there and back; leaving alone what is there already), the
Fréchet distance from the other domain, whose floor is to change nothing, and, where a held-out set knows pairs that
training did not, the distance from the true partner.

Errors and intervals are over images (those of Fréchet distances by a jackknife of ten groups), of one training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.batch import Dataset, Paired, batch_of, evenly_spaced, to_float, to_uint8
from limner.core.capabilities import Translates
from limner.core.errors import LimnerError
from limner.core.inference import translated
from limner.core.model import GenerativeModel
from limner.core.previews import rgb
from limner.data import degradations as tasks
from limner.data.degradations import Degradation
from limner.data.pairs import DomainSet, PairSet
from limner.metrics import paired
from limner.metrics.extractors import features, pretrained
from limner.metrics.extractors.features import Extractor
from limner.metrics.frechet import Moments, frechet_distance
from limner.metrics.paired import Perceptual
from limner.metrics.scorecard import Card, Score, interval, missing, student

_BATCH = 16
_GROUPS = 10  # of the jackknife
_LEAST = 20  # images of a Fréchet distance
_EXACT_DB = 100.0
_SIDE = 64  # larger sources are compared at this size when the nearest is looked for
_CANDIDATES = 4
_VARIED = 50  # sources whose translations under several seeds are compared
_FLAT = ("constant", "median")
_NAMES = {
    "nearest": "the nearest training source's target",
    "constant": "the mean colour",
    "median": "the median colour",
    "source": "the source itself",
    "identity": "no translation",
}

Way = Callable[[Tensor], Tensor]
"""Makes pictures (B,C,H,W) of sources (B,C',H,W)."""


@dataclass(frozen=True)
class Effort:
    """How much is looked at.

    Attributes:
        n: most held-out images.
        perceptual: most of them whose features are compared one by one.
        references: most training pairs that the baselines know.
        seeds: of the noise, whose translations of one source are compared; below 2 none are.
        frechet: whether Fréchet distances are measured; they cost most.
    """

    n: int = 10_000
    perceptual: int = 10_000
    references: int = 5_000
    seeds: int = 5
    frechet: bool = True

    @classmethod
    def at_the_end(cls, heldout: Dataset) -> Effort:
        """What the end of a training can afford: seconds. Of larger images than 64×64 fewer, but 32."""
        n = 160 if isinstance(heldout, DomainSet) else 500  # a picture of two domains is translated six times
        return cls(_affordable(n, heldout.shape), _affordable(min(n, 200), heldout.shape), 2000, 2, frechet=False)


def _affordable(n: int, shape: Sequence[int]) -> int:
    return max(32, min(n, n * 64 * 64 // (shape[1] * shape[2])))


@dataclass(frozen=True)
class Measure:
    """What a score of single pictures is.

    Attributes:
        better: which way is good.
        unit: of the number.
        exact: what equal pictures have; None where that is no number.
        how: one sentence.
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
        "squared distance of unit feature vectors, mean over positions and layers (Zhang et al. 2018, eq. 1 with w = 1;"
        " not LPIPS)",
    ),
}


# -- eyes ------------------------------------------------------------------------------------------------------------


def extractor_for(dataset: Dataset, device: torch.device | str = "cpu") -> Extractor:
    """Features for Fréchet distances: the classifier that knows the pictures, EfficientNet-Lite0 for colour, or random.

    The last are fitted to the data set.
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
    """Pictures (B,C,H,W) in [-1,1] on the CPU as they would be saved, with 8 bits.

    Raises:
        LimnerError: some are not finite.
    """
    if not bool(torch.isfinite(x).all()):
        raise LimnerError("some translations are not finite; look at the net, or take an earlier checkpoint")
    return to_float(to_uint8(x).cpu())


# -- ways that need no learning --------------------------------------------------------------------------------------


class References:
    """What simple ways know of the training pairs: colours of targets, and sources among which to look for one.

    Args:
        train: a set of pairs.
        limit: most pairs that are looked at, evenly spaced.

    Attributes:
        mean: colour (C,) in [0,255], the best constant in squared error.
        median: colour (C,) in [0,255], the best constant in L1.
    """

    def __init__(self, train: Dataset, limit: int = 5000) -> None:
        self.train, self.ids = train, evenly_spaced(len(train), limit)
        counts = torch.zeros(train.shape[0], 256, dtype=torch.int64)
        sources = []
        for some in _parts(self.ids, 64):
            a, b = batch_of(train, [some])
            sources.append(_small(a).flatten(1))
            counts += torch.stack([c.bincount(minlength=256) for c in to_uint8(b).transpose(0, 1).flatten(1).int()])
        self._sources = torch.cat(sources)  # (N,C'·h·w)
        self._middle = self._sources.mean(0)
        self._lengths = (self._sources - self._middle).square().sum(1)
        total = counts.sum(1, keepdim=True)
        self.mean = (counts * torch.arange(256)).sum(1) / total[:, 0]
        self.median = (2 * counts.cumsum(1) >= total).int().argmax(1).float()

    def find(self, a: Tensor) -> list[int]:
        """Which training pairs have the nearest sources to a (B,C',H,W) in L2.

        The four that float32 products find nearest are compared exactly.
        """
        x = _small(a).flatten(1)
        rough = self._lengths - 2 * (x - self._middle) @ (self._sources - self._middle).T
        near = rough.topk(min(_CANDIDATES, len(self.ids)), largest=False).indices.sort().values
        exact = (self._sources[near] - x[:, None]).square().sum(2).argmin(1, keepdim=True)
        return [self.ids[i] for i in near.gather(1, exact)[:, 0].tolist()]

    def nearest(self, a: Tensor) -> Tensor:
        """Their targets (B,C,H,W)."""
        pairs: Paired = batch_of(self.train, [self.find(a)])
        return pairs.b

    def flat(self, colour: Tensor) -> Way:
        """The way that always gives one colour (C,) in [0,255]."""
        return lambda a: (colour / 127.5 - 1)[None, :, None, None].expand(len(a), -1, *a.shape[2:])


def _small(a: Tensor) -> Tensor:
    size = (min(a.shape[2], _SIDE), min(a.shape[3], _SIDE))
    return a if tuple(a.shape[2:]) == size else F.interpolate(a, size, mode="area")


def baselines(heldout: Dataset, train: Dataset | None = None, references: int = 5000) -> dict[str, Way]:
    """Ways to make targets without a net, by name: the classic one of a task, else those that a set of pairs has.

    Args:
        heldout: pairs.
        train: pairs of the same kind that models are trained on; without them only the source itself is left.
        references: most training pairs that are looked at.
    """
    assert isinstance(heldout, PairSet)
    task = task_of(heldout)
    if task is not None and task.classic_name:
        return {"classic": lambda a: cast(Tensor, task.classic(a))}
    ways: dict[str, Way] = {}
    if isinstance(train, PairSet):
        known = References(train, references)
        ways = {"nearest": known.nearest, "constant": known.flat(known.mean), "median": known.flat(known.median)}
    if heldout.source[0] in (1, heldout.shape[0]):
        ways["source"] = lambda a: a.expand(-1, heldout.shape[0], -1, -1)
    return ways


def task_of(heldout: Dataset) -> Degradation | None:
    """What makes sources of the targets of such pairs; None where both were given."""
    told: dict[str, Any] | None = getattr(heldout, "pairing", None)
    return None if told is None else tasks.make(**told)


def translator(model: Translates, task: Degradation | None = None, seed: int = 0) -> Way:
    """A model's way, finished as the task has it."""

    def way(a: Tensor) -> Tensor:
        y = translated(model, a, seed=seed, batch=_BATCH).cpu()
        return y if task is None else task.finish(a, y)

    return way


# -- pairs -----------------------------------------------------------------------------------------------------------


@dataclass
class _Tally:
    """What one way makes of all sources: values of single pictures by measure, and features of all."""

    values: dict[str, list[float]] = field(default_factory=dict)
    features: list[Tensor] = field(default_factory=list)

    def add(self, measure: str, values: Tensor) -> None:
        self.values.setdefault(measure, []).extend(values.double().tolist())

    def compare(self, y: Tensor, b: Tensor) -> None:
        """Pixels of pictures y with those of b."""
        self.add("l1", paired.l1(y, b))
        self.add("psnr_db", paired.psnr(y, b).clamp(max=_EXACT_DB))
        self.add("ssim", paired.ssim(y, b))


def of_pairs(
    model: Translates,
    heldout: Dataset,
    train: Dataset | None = None,
    *,
    effort: Effort | None = None,
    extractor: Extractor | None = None,
    perceptual: Perceptual | None = None,
    device: torch.device | str = "cpu",
) -> Card:
    """Scores of a translator on held-out pairs, and of what needs no learning.

    Args:
        model: in evaluation mode.
        heldout: pairs that it was not trained on.
        train: pairs that it was trained on, for the baselines and the ceiling of the Fréchet distance.
        effort: how much is looked at; everything by default.
        extractor: for the Fréchet distance; default that of `extractor_for`.
        perceptual: the distance of features; default `Perceptual.best`.
        device: where features are computed.

    Raises:
        LimnerError: the held-out set has no pairs, or translations are not finite.
    """
    if not isinstance(heldout, PairSet):
        raise LimnerError(f"{heldout.name} has no pairs to hold translations against; name pairs with data=FOLDER")
    effort, task = effort or Effort(), task_of(heldout)
    perceptual = perceptual or Perceptual.best(heldout.shape[0], device)
    if effort.frechet and extractor is None:
        extractor = extractor_for(heldout if train is None else train, device)
    ways = {"": translator(model, task), **baselines(heldout, train, effort.references)}
    n = min(effort.n, len(heldout))
    tallies, seen = _tallied(ways, heldout, n, effort, extractor, perceptual)
    said = {**_NAMES, "classic": "" if task is None else f"the classic way ({task.classic_name})"}
    on = f"held-out pairs of {heldout.name}" + ("" if task is None else f", {task.name}")
    card: Card = {}
    for measure in MEASURES:
        at = _conditions(measure, len(tallies[""].values[measure]), heldout.shape, perceptual)
        card |= _beside(measure, {way: t.values[measure] for way, t in tallies.items()}, at, on, said)
    if extractor is not None and effort.frechet:
        card |= _distances(tallies, seen, train, extractor, n, on, said)
    return card | _diversity(model, heldout, task, effort, perceptual)


def _tallied(
    ways: dict[str, Way],
    heldout: Dataset,
    n: int,
    effort: Effort,
    extractor: Extractor | None,
    perceptual: Perceptual,
) -> tuple[dict[str, _Tally], list[Tensor]]:
    """Every way on the same pictures; and the features of the targets."""
    tallies: dict[str, _Tally] = {way: _Tally() for way in ways}
    ids, looked, seen = evenly_spaced(len(heldout), n), set(evenly_spaced(n, effort.perceptual)), []
    for places in _parts(range(n), _BATCH):
        a, b = batch_of(heldout, [[ids[i] for i in places]])
        b = rounded(b)
        chosen = [i in looked for i in places]
        target = perceptual.layers(b[chosen]) if any(chosen) else []
        if extractor is not None and effort.frechet:
            seen.append(extractor.features(b).cpu())
        for name, way in ways.items():
            y = rounded(way(a))
            tallies[name].compare(y, b)
            if target:
                tallies[name].add("perceptual", perceptual.between(perceptual.layers(y[chosen]), target))
            if extractor is not None and effort.frechet:
                z = extractor.features(y[:1] if name in _FLAT else y).cpu()
                tallies[name].features.append(z.expand(len(y), -1))
    return tallies, seen


def _conditions(measure: str, n: int, shape: Sequence[int], perceptual: Perceptual) -> str:
    """What stands behind a score's name: features, number of images, a window that is not the paper's."""
    if measure == "perceptual":
        return f"@{perceptual.key}[n={n}]"
    side = paired.window(shape[1], shape[2])
    return f"[n={n}]" if measure != "ssim" or side == paired.window(64, 64) else f"[n={n}, window={side}]"


def _named(measure: str, way: str) -> str:
    """A way's score of a measure.

    >>> _named("l1", ""), _named("l1", "nearest"), _named("psnr_db", "nearest")
    ('l1', 'l1_nearest', 'psnr_nearest_db')
    """
    head, unit, _ = measure.partition("_db")
    return f"{head}_{way}{unit}" if way else measure


def _beside(
    measure: str, values: dict[str, list[float]], at: str, on: str, said: dict[str, str], prefix: str = ""
) -> Card:
    """The model's score ("" among the values) between its best baseline and exactness; and the baselines'."""
    what, own = MEASURES[measure.split("_to_")[0]], values[""]
    sign = 1 if what.better == "higher" else -1
    others = {way: v for way, v in values.items() if way}
    mean, error, low, high = interval(own)
    best = max((interval(v)[0] for v in others.values()), key=lambda m: sign * m, default=None)
    won = "".join(f"; {_margin([sign * (x - y) for x, y in zip(own, v, strict=True)])} {said[way]}"
                  for way, v in others.items())  # fmt: skip
    on = f"{len(own)} {on}"
    card = {
        f"{prefix}{measure}{at}": Score(
            mean, what.unit, on, what.how + won, "quality", error, low, high, what.better, what.exact, best,
            _between(mean, best, what.exact),
        )
    }  # fmt: skip
    for way, v in others.items():
        mean, error, low, high = interval(v)
        how = f"the same for {said[way]}"
        card[f"{prefix}{_named(measure, way)}{at}"] = Score(
            mean, what.unit, on, how, "quality", error, low, high, what.better
        )
    return card


def _margin(gains: list[float]) -> str:
    """By how much the same pictures came out better, in words."""
    mean, _, low, high = interval(gains)
    if low is None or high is None:
        return f"{abs(mean):.3g} {'better' if mean > 0 else 'worse'} than"
    if low <= 0 <= high:
        return f"neither better nor worse ({low:.2g} to {high:.2g}) than"
    low, high = sorted((abs(low), abs(high)))
    return f"{abs(mean):.3g} ({low:.3g} to {high:.3g}) {'better' if mean > 0 else 'worse'} than"


def _between(value: float, floor: float | None, ceiling: float | None) -> float | None:
    """Where between floor (0) and ceiling (1) a value lies."""
    if floor is None or ceiling is None or floor == ceiling:
        return None
    return min(max((value - floor) / (ceiling - floor), 0.0), 1.0)


def _diversity(
    model: Translates, heldout: Dataset, task: Degradation | None, effort: Effort, perceptual: Perceptual
) -> Card:
    """How much translations of one source differ with the seed of the noise."""
    if effort.seeds < 2:
        return {}
    found = _Tally()
    n = min(_VARIED, effort.n, len(heldout))
    for ids in _parts(evenly_spaced(len(heldout), n), _BATCH):
        a, _ = batch_of(heldout, [ids])
        ys = [rounded(translator(model, task, seed)(a)) for seed in range(effort.seeds)]
        seen = [perceptual.layers(y) for y in ys]
        two = [(i, j) for j in range(effort.seeds) for i in range(j)]
        found.add("l1", torch.stack([paired.l1(ys[i], ys[j]) for i, j in two]).mean(0))
        found.add("perceptual", torch.stack([perceptual.between(seen[i], seen[j]) for i, j in two]).mean(0))
    how = (
        f"mean difference between translations of one source under {effort.seeds} seeds of the noise; pix2pix's is near"
        " zero, since dropout is its only noise (Isola et al. 2017, section 3.1)"
    )
    names = {"l1": f"diversity[n={n}]", "perceptual": f"diversity_perceptual@{perceptual.key}[n={n}]"}
    on = f"{n} held-out sources of {heldout.name}"
    card = {}
    for measure, name in names.items():
        mean, error, low, high = interval(found.values[measure])
        kind = "on the [0,1] scale, " if measure == "l1" else "of features, "
        card[name] = Score(mean, "", on, kind + how, "coverage", error, low, high, "higher")
    return card


# -- Fréchet distances -----------------------------------------------------------------------------------------------


def frechet_of(x: Tensor, y: Tensor) -> float:
    """Fréchet distance of features x (N,d) from y (M,d), as `limner.metrics.frechet.frechet` has it, for few images.

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


def _spread_of(x: Tensor, y: Tensor) -> tuple[float, float, float, float]:
    """The distance, its standard error and 95 % interval by a jackknife over ten groups of images."""
    whole = frechet_of(x, y)

    def without(z: Tensor, group: int) -> Tensor:
        return z[torch.arange(len(z)) % _GROUPS != group]

    left = [frechet_of(without(x, g), without(y, g)) for g in range(_GROUPS)]
    middle = sum(left) / _GROUPS
    error = math.sqrt((_GROUPS - 1) / _GROUPS * sum((one - middle) ** 2 for one in left))
    reach = student(_GROUPS - 1) * error
    return whole, error, max(whole - reach, 0.0), whole + reach


def _frechet_score(
    fake: Tensor, target: Tensor, real: Tensor | None, floor: float | None, on: str, how: str = ""
) -> Score:
    """A distance between what real images have and what changing nothing, say, has."""
    value, error, low, high = _spread_of(fake, target)
    ceiling = None if real is None or len(real) < _LEAST else frechet_of(real, target)
    told = how or "Fréchet distance of translations from held-out targets, all together (Heusel et al. 2017)"
    if not how and len(fake) <= fake.shape[1]:
        told += f"; fewer images than the {fake.shape[1]:,} features, so it compares only at as many"
    if not how and ceiling is not None:
        told += f"; as many training targets have {ceiling:.4g}"
    norm = None if floor is None or ceiling is None or floor <= ceiling else _between(value, floor, ceiling)
    return Score(value, "", on, told, "quality", error, low, high, "lower", ceiling, floor, norm)


def _distances(
    tallies: dict[str, _Tally],
    targets: list[Tensor],
    train: Dataset | None,
    extractor: Extractor,
    n: int,
    on: str,
    said: dict[str, str],
) -> Card:
    """Fréchet distances of every way. A nearest neighbour is a real picture, so it is no floor here."""
    if n < _LEAST:
        return {"fd": missing("quality", f"a Fréchet distance needs {_LEAST} held-out images, there are {n}")}
    target = torch.cat(targets)
    real = None if train is None else _features(extractor, train, n)
    at, on = f"@{extractor.key}[n={n}]", f"{n} {on}"
    others = {
        way: _frechet_score(torch.cat(t.features), target, None, None, on, f"the same for {said[way]}")
        for way, t in tallies.items()
        if way
    }
    floor = min((cast(float, s.value) for way, s in others.items() if way != "nearest"), default=None)
    card = {f"fd{at}": _frechet_score(torch.cat(tallies[""].features), target, real, floor, on)}
    return card | {f"{_named('fd', way)}{at}": score for way, score in others.items()}


def _features(extractor: Extractor, dataset: Dataset, n: int) -> Tensor:
    """Features of at most n images of a set, evenly spaced."""
    return torch.cat(
        [extractor.features(dataset.fetch(ids)).cpu() for ids in _parts(evenly_spaced(len(dataset), n), 64)]
    )


# -- two domains -----------------------------------------------------------------------------------------------------


def of_domains(
    model: Translates,
    heldout: Dataset,
    train: Dataset | None = None,
    *,
    effort: Effort | None = None,
    extractor: Extractor | None = None,
    perceptual: Perceptual | None = None,
    device: torch.device | str = "cpu",
) -> Card:
    """Scores of a translator between two held-out domains; with their pairs, where the set knows them.

    Args:
        model: in evaluation mode.
        heldout: two domains that it was not trained on.
        train: those that it was trained on, for the ceiling of the Fréchet distance.
        effort: how much is looked at; everything by default.
        extractor: for the Fréchet distance; default that of `extractor_for`.
        perceptual: the distance of features; default `Perceptual.best`.
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
        tallies = _one_way(model, source, target if heldout.known else None, to, effort, extractor, perceptual)
        card |= _there_and_back(tallies[""], source, to)
        card |= _left_alone(model, target, to, effort)
        if heldout.known:
            on = f"held-out pictures of {source.name}, whose partners in {target.name} training did not know"
            for measure in ("l1", "ssim", "perceptual"):
                values = {way: t.values[measure] for way, t in tallies.items()}
                at = _conditions(measure, len(values[""]), heldout.shape, perceptual)
                card |= _beside(f"{measure}_to_{to}", values, at, on, _NAMES, "pair_")
        if extractor is not None:
            trained: Dataset | None = getattr(train, to, None)
            card |= _to_domain(tallies, target, trained, extractor, source, to, effort.n)
    return card


def _one_way(
    model: Translates,
    source: Dataset,
    partners: Dataset | None,
    to: str,
    effort: Effort,
    extractor: Extractor | None,
    perceptual: Perceptual,
) -> dict[str, _Tally]:
    """Translations ("") and untouched pictures ("identity") of a domain, beside their partners if these are known."""
    n, back = min(effort.n, len(source)), "a" if to == "b" else "b"
    ids, looked = evenly_spaced(len(source), n), set(evenly_spaced(n, effort.perceptual))
    tallies = {"": _Tally(), "identity": _Tally()}
    for places in _parts(range(n), _BATCH):
        chosen = [i in looked for i in places]
        some = [ids[i] for i in places]
        x = to_float(source.fetch(some))
        y = translated(model, x, to, batch=_BATCH).cpu().clamp(-1, 1)
        if back in model.domains:
            tallies[""].add("cycle", paired.l1(rounded(translated(model, y, back, batch=_BATCH)), x))
        b = None if partners is None else to_float(partners.fetch(some))
        layers = perceptual.layers(b[chosen]) if b is not None and any(chosen) else []
        for way, made in (("", rounded(y)), ("identity", x)):
            if b is not None:
                tallies[way].compare(made, b)
            if layers:
                tallies[way].add("perceptual", perceptual.between(perceptual.layers(made[chosen]), layers))
            if extractor is not None:
                tallies[way].features.append(extractor.features(made).cpu())
    return tallies


def _there_and_back(tally: _Tally, source: Dataset, to: str) -> Card:
    if "cycle" not in tally.values:
        return {}
    mean, error, low, high = interval(tally.values["cycle"])
    n, start = len(tally.values["cycle"]), "a" if to == "b" else "b"
    how = f"mean |x - there and back| on the [0,1] scale, {start} to {to} to {start} (Zhu et al. 2017, eq. 2)"
    return {
        f"cycle_l1_{start}[n={n}]": Score(
            mean, "", f"{n} held-out pictures of {source.name}", how, "coverage", error, low, high, "lower", 0.0
        )
    }


def _left_alone(model: Translates, target: Dataset, to: str, effort: Effort) -> Card:
    """What becomes of pictures that are in the wanted domain already."""
    found, n = _Tally(), min(effort.n, len(target))
    for ids in _parts(evenly_spaced(len(target), n), _BATCH):
        x = to_float(target.fetch(ids))
        found.add("l1", paired.l1(rounded(translated(model, x, to, batch=_BATCH)), x))
    mean, error, low, high = interval(found.values["l1"])
    how = f"how much pictures of {to} change when they are translated to {to} (Zhu et al. 2017, section 5.2)"
    on = f"{n} held-out pictures of {target.name}"
    return {
        f"identity_l1_to_{to}[n={n}]": Score(mean, "", on, how, "quality", error, low, high, "lower", 0.0)
    }  # fmt: skip


def _to_domain(
    tallies: dict[str, _Tally],
    target: Dataset,
    trained: Dataset | None,
    extractor: Extractor,
    source: Dataset,
    to: str,
    limit: int,
) -> Card:
    """The Fréchet distance to a domain; its floor is that of the other domain as it is."""
    fake, untouched = (torch.cat(tallies[way].features) for way in ("", "identity"))
    n = len(fake)
    if min(n, len(target)) < _LEAST:
        why = f"a Fréchet distance needs {_LEAST} held-out images, there are {min(n, len(target))}"
        return {f"fd_to_{to}": missing("quality", why)}
    real = _features(extractor, target, limit)
    at, on = f"@{extractor.key}[n={n}]", f"{n} held-out pictures of {source.name} against {len(real)} of {target.name}"
    alone = _frechet_score(untouched, real, None, None, on, f"the same for {_NAMES['identity']}")
    ceiling = None if trained is None else _features(extractor, trained, n)
    return {
        f"fd_to_{to}{at}": _frechet_score(fake, real, ceiling, cast(float, alone.value), on),
        f"fd_to_{to}_identity{at}": alone,
    }


@dataclass(frozen=True)
class TranslationEvaluator:
    """Held-out pairs or domains that translators are judged by, all alike.

    Attributes:
        train: what they were trained on.
        heldout: what they were not.
        effort: how much is looked at.
        extractor: for Fréchet distances; None leaves the choice to `extractor_for`.
        perceptual: the distance of features; None leaves the choice to `Perceptual.best`.
    """

    train: Dataset
    heldout: Dataset
    effort: Effort
    extractor: Extractor | None = None
    perceptual: Perceptual | None = None

    def card(self, model: Translates, device: torch.device | str = "cpu") -> Card:
        """`of_pairs` or `of_domains`, as the held-out set is."""
        judge = of_domains if isinstance(self.heldout, DomainSet) else of_pairs
        return judge(
            model, self.heldout, self.train, effort=self.effort, extractor=self.extractor, perceptual=self.perceptual,
            device=device,
        )  # fmt: skip


# -- what evaluation needs besides -----------------------------------------------------------------------------------


def cannot(name: str, chosen: Sequence[str]) -> Card:
    """Properties that translators do not have, and why."""
    whys = {
        "latent": ("latent", f"{name} makes pictures of pictures; it has no latent space to walk in"),
        "mig": ("disentangled", f"{name} makes pictures of pictures; it has no codes to compare with factors"),
        "bits_per_dim": ("likelihood", f"{name} does not say how probable a picture is, so it has no likelihood"),
        "copying": ("copying", f"{name} has no samples: every translation is held against its own target"),
    }
    return {key: missing(property_, why) for key, (property_, why) in whys.items() if property_ in chosen}


def on_the_way(heldout: Dataset, n: int = 200) -> Callable[[Translates], dict[str, float]]:
    """A score that says during a training which checkpoint is best: ``l1`` of pairs, ``cycle_l1`` of two domains."""
    n = _affordable(n, heldout.shape)

    def pair_error(model: Translates) -> dict[str, float]:
        way, errors = translator(model, task_of(heldout)), []
        for ids in _parts(evenly_spaced(len(heldout), n), _BATCH):
            a, b = batch_of(heldout, [ids])
            errors.append(paired.l1(rounded(way(a)), b))
        return {"l1": float(torch.cat(errors).mean())}

    def cycle_error(model: Translates) -> dict[str, float]:
        assert isinstance(heldout, DomainSet)
        errors = []
        for part, to, back in ((heldout.a, "b", "a"), (heldout.b, "a", "b")):
            for ids in _parts(evenly_spaced(len(part), max(n // 4, 32)), _BATCH):  # four passes of a picture, not one
                x = to_float(part.fetch(ids))
                there = translated(model, x, to, batch=_BATCH).clamp(-1, 1)
                errors.append(paired.l1(rounded(translated(model, there, back, batch=_BATCH)), x))
        return {"cycle_l1": float(torch.cat(errors).mean())}

    return cycle_error if isinstance(heldout, DomainSet) else pair_error


def before_after(
    model: Translates, heldout: Dataset, train: Dataset | None = None, rows: int = 10, references: int = 5000
) -> tuple[Tensor, int, str]:
    """Held-out pictures, what was made of them, and what should have been: a row each.

    Returns:
        Pictures (rows·columns,3,H,W) in [-1,1] row by row, the number of columns, and what the columns are.
    """
    if isinstance(heldout, DomainSet):
        return _two_domains(model, heldout, rows)
    a, b = batch_of(heldout, [evenly_spaced(len(heldout), rows)])
    task = task_of(heldout)
    columns = {"source": a}
    for way, make in baselines(heldout, train, references).items():
        if way in ("classic", "nearest"):
            columns[_NAMES[way] if task is None or way != "classic" else task.classic_name] = make(a)
    columns |= {"translation": translator(model, task)(a), "target": b}
    return _in_rows(columns)


def _two_domains(model: Translates, heldout: DomainSet, rows: int) -> tuple[Tensor, int, str]:
    n = min(rows, len(heldout.a), len(heldout.b))
    a, b = (to_float(part.fetch(evenly_spaced(len(part), n))) for part in (heldout.a, heldout.b))
    columns = {"a": a, "as b": translated(model, a, "b")}
    if heldout.known:
        columns["its partner in b"] = b
        return _in_rows(columns | ({"that as a": translated(model, b, "a")} if "a" in model.domains else {}))
    if "a" in model.domains:
        columns["back again"] = translated(model, columns["as b"], "a")
        columns |= {"another of b": b, "as a": translated(model, b, "a")}
        columns["and back"] = translated(model, columns["as a"], "b")
    return _in_rows(columns)


def _in_rows(columns: dict[str, Tensor]) -> tuple[Tensor, int, str]:
    shown = torch.stack([rgb(x.cpu()) for x in columns.values()], 1).flatten(0, 1)
    return shown, len(columns), ", ".join(columns)


class Repeated(GenerativeModel):
    """Translates one picture over and over, so that `limner.evaluation.cost` can time a translator like any model."""

    evaluations = 1

    def __init__(self, model: GenerativeModel, heldout: Dataset) -> None:
        super().__init__()
        self.model, self.spec = model, model.spec
        a = heldout.a.fetch([0]) if isinstance(heldout, DomainSet) else batch_of(heldout, [[0]])[0]
        self.register_buffer("source", to_float(a).to(model.device), persistent=False)

    def groups(self) -> dict[str, torch.nn.Module]:
        return self.model.groups()

    def draw(self, n: int, y: Tensor | None, generator: torch.Generator, **options: Any) -> Tensor:
        source = cast(Tensor, self.source)
        return cast(Translates, self.model).translate(source.expand(n, -1, -1, -1), "b")


def _parts(ids: Sequence[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(ids), size):
        yield list(ids[first : first + size])
