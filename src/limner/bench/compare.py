"""Which recipe is better: all trained under equal budget, data and seeds, all judged alike, differences tested.

====================  ============================================================================================
equal                 how
====================  ============================================================================================
data                  one set for all, of the same size and preparation
order of images       a function of (seed, epoch, index), so every recipe with the same seed meets them in one order
budget                images seen, or seconds of training over all starts, sheets and checkpoints included
judge                 the same held-out images, extractor, number of samples and noise seed
====================  ============================================================================================

A score has a value for each seed of training. Means stand with Student's 95 % interval, and pairs of recipes are tested
as `limner.bench._verdicts` says: Welch's t-test, corrected by Holm's method over all pairs and scores.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from limner import api, report
from limner.bench._compared import sections, text
from limner.bench._trainings import Mean, matching, number, place, refuse_another, train, words
from limner.bench._verdicts import verdicts
from limner.config import recipe
from limner.config.recipe import Recipe
from limner.core.batch import Dataset, Images
from limner.core.capabilities import Translates
from limner.core.device import pick
from limner.core.durable import replace_file
from limner.core.errors import LimnerError, unknown
from limner.core.frame import drawable
from limner.core.progress import Progress, Silent
from limner.core.run import Run, relative
from limner.core.train import Interrupted
from limner.core.units import clock, count, duration
from limner.evaluation import properties, translation
from limner.evaluation.cost import cost
from limner.evaluation.reference_set import ReferenceSet
from limner.evaluation.scoring import extractor_for
from limner.metrics.scorecard import PROPERTIES, base

__all__ = ["TESTED", "Budget", "Trained", "text", "work"]

TESTED = ("clipped_density", "fd", "clipped_coverage", "l1", "ssim", "perceptual", "pair_l1_to_a", "pair_l1_to_b")
"""Scores that pairs of recipes are tested in, where they have them. Each further one would cost the others power."""
_JUDGED = ("sampling", "quality", "coverage")
_ENDLESS = 1_000_000_000  # images of a training that time ends
_BUDGET = ("images", "time", "seed")
_COST_SECONDS = 5.0
_UNEVEN = 1.2  # times as many images in the same time for another seed: the machine had other work


# -- what is wanted ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Budget:
    """What each training may use: images, or seconds. One of them is None."""

    images: int | None
    seconds: float | None

    @classmethod
    def parse(cls, value: int | str) -> Budget:
        """Images from 5000, 500k or 2M; time from 90s, 10m or 1h30m.

        >>> Budget.parse("500k"), Budget.parse("10m")
        (Budget(images=500000, seconds=None), Budget(images=None, seconds=600.0))

        Raises:
            LimnerError: it is neither, or nothing.
        """
        wrong = LimnerError(f"budget: {value!r} is not possible; write images such as 500k, or time such as 10m")
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise wrong
        try:
            images = int(count(value))
        except ValueError:
            try:
                seconds = float(duration(value))
            except ValueError:
                raise wrong from None
            if not 0 < seconds < math.inf:
                raise wrong from None
            return cls(None, seconds)
        if images < 1:
            raise wrong
        return cls(images, None)

    @property
    def text(self) -> str:
        """For people."""
        return clock(self.seconds) if self.seconds is not None else f"{self.images:,} images"


def run(
    *recipes: str | Path,
    progress: Progress | None = None,
    seeds: int | str = 3,
    budget: int | str = "10m",
    data: str | Path | dict[str, Any] | None = None,
    n: int | str = 10_000,
    only: str | Sequence[str] = "quality,coverage",
    extractor: str | None = None,
    out: str | Path = "runs/compare",
    **overrides: Any,
) -> dict[str, Any]:
    """Trains what is not yet there, judges, tests, and writes ``results.json`` and ``index.html`` into `out`.

    A comparison that was cut off goes on where it stopped: finished trainings are judged again, the others resumed.
    More seeds or a larger budget go on from what is there, too.

    Args:
        *recipes: names, patterns such as toy-*, or YAML files; two or more.
        progress: who is told.
        seeds: how many seeds each is trained with, from 0. One gives no verdict.
        budget: of each training: images such as 500k, or time such as 10m.
        data: a data set or a folder of pictures for all; default what the first recipe is made for.
        n: samples that are judged; at most as many as there are training images.
        only: properties that are judged: quality, coverage, sampling.
        extractor: as of `limner.evaluate`; default the classifier that knows the data, if there is one.
        out: the folder.
        **overrides: keys of every recipe, e.g. data.size=32 or train.threads=1.

    Returns:
        ``page``, ``conditions``, ``recipes`` (images, seconds, parameters), ``scores`` (means, intervals, anchors),
        ``verdicts``, ``note`` (why there are none) and ``trainings``.

    Raises:
        LimnerError: fewer than two recipes, an unknown one, a budget that is none, data without held-out images, or a
            folder with trainings of other settings. All of that before anything is trained.
    """
    told, folder, allowed = progress or Silent(), Path(str(out)), Budget.parse(budget)
    chosen, n_seeds, samples = _properties(only), number("seeds", seeds), number("n", n)
    plan = _plan(recipes, n_seeds, allowed, data, overrides)
    _refuse_another_budget(folder, allowed)
    for seed, wanted in plan:
        refuse_another(_place(folder, wanted, seed), wanted)
    judge = _ready([wanted for seed, wanted in plan if seed == 0], chosen, samples, extractor)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "budget.json", (json.dumps(asdict(allowed)) + "\n").encode())
    except OSError as error:
        raise LimnerError(f"cannot write {relative(folder)}: {error.strerror}; choose another out=DIR") from None
    trained: list[Trained] = []
    result: dict[str, Any] = {}
    for seed, wanted in plan:
        told.say(f"compare: {wanted.name}, seed {seed}, {allowed.text}")
        try:
            run = train(_place(folder, wanted, seed), wanted, told, allowed.seconds)
        except Interrupted:
            told.say("compare: stopped; the same command goes on from here")
            raise
        trained.append(_judged(run, seed, wanted, judge, chosen))
        result = _write(folder, trained, judge, allowed, n_seeds, len(plan))
    return result


def _properties(names: str | Sequence[str]) -> list[str]:
    wanted = words("only", names)
    for name in wanted:
        if name in PROPERTIES and name not in _JUDGED:
            raise LimnerError(
                f"only: compare judges {', '.join(_JUDGED)}; for {name} train first, then"
                f" limner evaluate OUT/runs/* only={name}"
            )
        if name not in _JUDGED:
            raise unknown("property", name, _JUDGED)
    return [p for p in PROPERTIES if p in wanted]


def _plan(
    names: Sequence[str | Path], seeds: int, budget: Budget, data: Any, overrides: Mapping[str, Any]
) -> list[tuple[int, Recipe]]:
    """Every training, seed by seed, so that whatever else the machine does meets all recipes alike.

    Raises:
        LimnerError: a recipe cannot be had, or `overrides` change what the comparison decides.
    """
    for key in overrides:
        if key in (*_BUDGET, *(f"train.{name}" for name in _BUDGET)):
            raise LimnerError(f"{key} is the comparison's; write budget=500k or budget=10m, and seeds=3")
    found = list(dict.fromkeys(match for name in names for match in matching(str(name))))
    if len(found) < 2:
        raise LimnerError("a comparison needs two recipes; name two, e.g. limner compare vae-mnist gan-mnist")
    common: dict[str, Any] = {} if data is None else {"data": data if isinstance(data, dict) else str(data)}
    common = {"data": recipe.load(found[0], {**common, **overrides}).data.to_dict()}
    plan = [(seed, _recipe(name, seed, budget, common, overrides)) for seed in range(seeds) for name in found]
    called = [wanted.name for seed, wanted in plan if seed == 0]
    for name in called:
        if called.count(name) > 1:
            raise LimnerError(f"two recipes are called {name}; give one of them another name: in its file")
    return plan


def _recipe(name: str, seed: int, budget: Budget, common: Mapping[str, Any], overrides: Mapping[str, Any]) -> Recipe:
    """A recipe on the common data, with its seed and budget; scores on the way would only cost time.

    A training that time ends has no last image, so whatever recipes derive from it (how often sheets and checkpoints
    are written) stays as the recipe itself would have it. Nothing else in a training depends on it: schedules of
    models count images from the start.
    """
    fixed = {**common, "train.seed": seed, "train.score_images": 0, "train.time": budget.seconds, **overrides}
    try:
        if budget.images is not None:
            return recipe.load(name, fixed | {"train.images": budget.images})
        own = recipe.load(name, fixed).train.build()
        ends = {"images": _ENDLESS, "sample_images": own.sample_images, "checkpoint_images": own.checkpoint_images}
        return recipe.load(name, fixed | {f"train.{k}": v for k, v in ends.items()})
    except LimnerError as error:
        raise error if name in str(error) else LimnerError(f"{name}: {error}") from None


def _place(folder: Path, wanted: Recipe, seed: int) -> Path:
    return place(folder, f"{wanted.name}-{seed}")


def _refuse_another_budget(folder: Path, budget: Budget) -> None:
    """Raises where trainings are that had more, or another kind: they could not be set beside new ones."""
    try:
        old = Budget(**json.loads((folder / "budget.json").read_text()))
    except (OSError, ValueError, TypeError):
        return
    same = (old.images is None) == (budget.images is None)
    if not same or (old.images or old.seconds or 0) > (budget.images or budget.seconds or 0):
        raise LimnerError(
            f"{relative(folder)} has trainings with a budget of {old.text}; choose another out=DIR, or no smaller one"
        )


def _ready(
    recipes: Sequence[Recipe], chosen: Sequence[str], n: int, extractor: str | None
) -> ReferenceSet | translation.TranslationEvaluator | None:
    """The judge of all; None where no images are compared.

    Raises:
        LimnerError: a recipe cannot be trained on the data, or its samples could not be judged.
    """
    device = _device(recipes[0])
    eyes = extractor_for(extractor, None, device)
    first: tuple[Dataset, Dataset | None] | None = None
    for wanted in recipes:
        try:
            prepared = api.prepare(wanted)
        except LimnerError as error:
            raise LimnerError(f"{wanted.name} cannot be trained on {_about(recipes[0])}: {error}") from None
        first = first or (prepared.dataset, prepared.heldout)
    assert first is not None
    data, heldout = first
    if drawable(data.shape):
        raise LimnerError(f"{data.name} holds points, not images; count their modes with limner bench modes")
    if heldout is None:
        raise LimnerError(
            f"{data.name} holds no images back to judge by; leave data.split out, or name other data=NAME"
        )
    if data.batch_type is not Images:
        return translation.TranslationEvaluator(data, heldout, translation.Effort(n, n), eyes(data))
    if not {"quality", "coverage"} & set(chosen):
        return None
    return ReferenceSet(data, heldout, n=n, extractor=eyes(data), device=device)


def _about(wanted: Recipe) -> str:
    size = wanted.data.kwargs.get("size")
    return wanted.data.name + (f" of size {size}" if size is not None else "")


def _device(wanted: Recipe) -> Any:
    return pick(str(wanted.train.get("device")).split(",")[0])


# -- judging -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """One training and its scores.

    Attributes:
        recipe: its name.
        seed: of the training.
        images: seen.
        seconds: of training.
        parameters: of all its nets.
        run: folder, relative to the comparison's.
        env: device, threads and versions.
        scores: what `Score.to_dict` tells, by name.
    """

    recipe: str
    seed: int
    images: int
    seconds: float
    parameters: int
    run: str
    env: dict[str, Any]
    scores: dict[str, dict[str, Any]]


def _judged(
    run: Run,
    seed: int,
    wanted: Recipe,
    judge: ReferenceSet | translation.TranslationEvaluator | None,
    chosen: Sequence[str],
) -> Trained:
    """Scores of a finished run, where it was trained."""
    model = api.load(run.latest, str(_device(wanted)))
    scores: dict[str, dict[str, Any]] = {}
    if isinstance(judge, translation.TranslationEvaluator) and isinstance(model, Translates):
        card = judge.card(model, model.device) if {"quality", "coverage"} & set(chosen) else {}
        card = {name: score for name, score in card.items() if score.value is not None}
        scores = {name: replace(score, on="").to_dict() for name, score in card.items() if score.property in chosen}
        model = translation.Repeated(model, judge.heldout)
    elif isinstance(judge, ReferenceSet):
        card, _ = properties.image_scores(judge, [0], lambda n, noise: model.sample(n, seed=noise))
        scores = {name: score.to_dict() for name, score in card.items() if score.property in chosen}
    if "sampling" in chosen:
        scores = _speed(model) | scores
    last = run.metrics()[-1]
    size = sum(p.numel() for p in model.parameters())
    env = run.read_json("env.json") or {}
    folder = f"runs/{run.path.name}"
    return Trained(wanted.name, seed, last["images"], last["seconds"], size, folder, env, scores)


def _speed(model: Any) -> dict[str, dict[str, Any]]:
    found = cost(model, limit=_COST_SECONDS)
    how = "at the best batch, from noise to 8-bit images; the same nets whatever the seed, so it is not tested"
    return {
        "throughput": {
            "value": found.throughput, "unit": "images/s", "property": "sampling", "better": "higher", "how": how,
        },
        "latency_ms": {
            "value": found.latency_p50_ms, "unit": "ms", "property": "sampling", "better": "lower",
            "how": "time of one image, median",
        },
    }  # fmt: skip


# -- what is written -----------------------------------------------------------------------------------------


def _write(
    folder: Path,
    trained: list[Trained],
    judge: ReferenceSet | translation.TranslationEvaluator | None,
    budget: Budget,
    seeds: int,
    planned: int,
) -> dict[str, Any]:
    """What is known so far as JSON and as a page; verdicts only when all is trained."""
    names = list(dict.fromkeys(t.recipe for t in trained))
    values = _values(trained)
    note, tested = "", {}
    if len(trained) < planned:
        note = f"{len(trained)} of {planned} trainings are done; verdicts come with the last."
    elif seeds == 1:
        note = "One seed gives no verdict: nothing says how much chance is in it. seeds=3 gives one."
    else:
        tested = {s: v for s, v in values.items() if base(s) in TESTED}
    known = {s: score for t in trained for s, score in t.scores.items()}
    found = verdicts(tested, {s: known[s]["better"] for s in tested})
    note = note or ("" if found else "Only quality and coverage are tested; the seeds of one net are equally fast.")
    content: dict[str, Any] = {
        "conditions": _conditions(trained, judge, budget, seeds),
        "recipes": [_about_recipe([t for t in trained if t.recipe == name]) for name in names],
        "scores": {s: _about_score(known[s]) | {"recipes": _means(v)} for s, v in values.items()},
        "verdicts": [asdict(v) for v in found],
        "note": note,
        "trainings": [
            asdict(t) | {"scores": {s: score["value"] for s, score in t.scores.items()}} for t in trained
        ],
    }  # fmt: skip
    replace_file(folder / "results.json", (json.dumps(content, indent=1) + "\n").encode())
    page = report.write_page(
        folder / "index.html", " or ".join(names) + "?", list(sections(folder, content)), "comparison"
    )
    return content | {"page": relative(page)}


def _values(trained: list[Trained]) -> dict[str, dict[str, list[float]]]:
    """Score -> recipe -> values by seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for t in trained:
        for name, score in t.scores.items():
            found.setdefault(name, {}).setdefault(t.recipe, []).append(float(score["value"]))
    return found


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    return {recipe: asdict(Mean.of(v)) | {"values": list(v)} for recipe, v in values.items()}


def _about_score(score: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("property", "unit", "better", "how", "on", "ceiling", "floor")
    return {k: score[k] for k in kept if k in score}


def _about_recipe(own: list[Trained]) -> dict[str, Any]:
    return {
        "recipe": own[0].recipe,
        "parameters": own[0].parameters,
        "images": asdict(Mean.of(t.images for t in own)),
        "seconds": asdict(Mean.of(t.seconds for t in own)),
    }


def _uneven(trained: list[Trained]) -> str:
    """What a busy machine has done to equal time."""
    seen = {t.recipe: [o.images for o in trained if o.recipe == t.recipe] for t in trained}
    ratio, name = max((max(images) / min(images), name) for name, images in seen.items())
    if ratio < _UNEVEN:
        return ""
    return (
        f"In the same time {name} saw from {min(seen[name]):,} to {max(seen[name]):,} images, so the machine had other"
        " work: equal time was not equal work. A budget of images, such as budget=100k, does not depend on that."
    )


def _conditions(
    trained: list[Trained], judge: ReferenceSet | translation.TranslationEvaluator | None, budget: Budget, seeds: int
) -> dict[str, Any]:
    envs = [{k: t.env.get(k) for k in ("device", "device_name", "threads", "torch", "limner")} for t in trained]
    found: dict[str, Any] = {
        "budget": {"images": budget.images, "seconds": budget.seconds, "text": budget.text},
        "seeds": seeds,
        "environments": [e for i, e in enumerate(envs) if e not in envs[:i]],
        "warning": "" if budget.seconds is None else _uneven(trained),
    }
    if isinstance(judge, translation.TranslationEvaluator):
        found |= {"anchors": ["exact", "best baseline"]}
    elif judge is not None:
        c, h, w = judge.train.shape
        found |= {
            "data": judge.train.name,
            "size": [c, h, w],
            "trained_on": len(judge.train),
            "heldout": len(judge.real),
            "samples": judge.n,
            "extractor": judge.extractor.key,
        }
    return found
