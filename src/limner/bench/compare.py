"""Compares recipes: trains them with equal budget, data and seeds, scores them alike, and tests the differences.

====================  ============================================================================================
equal                 how
====================  ============================================================================================
data                  one set for all, of the same size and preparation
order of images       a function of (seed, epoch, index), so it is the same for all recipes with one seed
budget                images seen, or seconds of training over all starts, with grids of samples and checkpoints
reference             the same held-out images, extractor, number of samples and noise seed
====================  ============================================================================================

A score has a value for each seed of training. Means have Student's 95 % interval. Pairs of recipes are compared by
Welch's t-test, with Holm's correction over all pairs and scores (`limner.bench._verdicts`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from limner import api, report
from limner.bench._comparison_page import sections, text
from limner.bench._trainings import (
    Mean,
    check_same_settings,
    matching_recipes,
    positive_int,
    run_folder,
    split_names,
    train,
)
from limner.bench._verdicts import verdicts
from limner.config import recipe
from limner.config.recipe import Recipe
from limner.core.batch import Dataset, Images, Mismatched
from limner.core.capabilities import Translates
from limner.core.device import pick
from limner.core.durable import replace_file
from limner.core.errors import LimnerError, unknown
from limner.core.frame import drawable
from limner.core.paths import user_path
from limner.core.progress import Progress, Silent
from limner.core.records import is_number, parse_json, read_bytes, record
from limner.core.run import Run, relative
from limner.core.train import Interrupted
from limner.core.units import clock, count, duration
from limner.evaluation import properties, translation
from limner.evaluation.cost import cost
from limner.evaluation.reference_set import ReferenceSet
from limner.evaluation.scoring import extractor_for
from limner.metrics.scorecard import PROPERTIES, base

__all__ = ["TESTED", "Budget", "Trained", "run", "text"]

TESTED = ("clipped_density", "fd", "clipped_coverage", "l1", "ssim", "perceptual", "pair_l1_to_a", "pair_l1_to_b")
"""Scores for which pairs of recipes are tested, if they have them. Each further one would lower the power of all."""
_Reference = ReferenceSet | translation.TranslationEvaluator | None
_PROPERTIES = ("sampling", "quality", "coverage")
_NO_LIMIT = 1_000_000_000  # images of a training with a time limit
_BUDGET = ("images", "time", "seed")
_COST_SECONDS = 5.0
_UNEVEN_RATIO = 1.2  # ratio of images in equal time between seeds that shows a busy machine


# -- settings -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Budget:
    """The budget of each training: a number of images, or seconds. The other is None."""

    images: int | None
    seconds: float | None

    @classmethod
    def parse(cls, value: int | str) -> Budget:
        """Images from 5000, 500k or 2M; time from 90s, 10m or 1h30m.

        >>> Budget.parse("500k"), Budget.parse("10m")
        (Budget(images=500000, seconds=None), Budget(images=None, seconds=600.0))

        Raises:
            LimnerError: it is neither, or not positive.
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
        """The budget as text."""
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
    """Trains missing runs, scores and tests all, and writes ``results.json`` and ``index.html`` into `out`.

    A comparison that was interrupted continues: finished trainings are scored again, the others are resumed. More seeds
    or a larger budget continue from the existing runs, too.

    Args:
        *recipes: names, patterns such as toy-*, or YAML files; two or more.
        progress: receives the progress of trainings and messages.
        seeds: number of seeds of each recipe, from 0. One gives no verdict.
        budget: budget of each training: images such as 500k, or time such as 10m.
        data: a data set or a folder of pictures for all; default the data of the first recipe.
        n: number of samples that are scored; at most as many as there are training images.
        only: properties that are scored: quality, coverage, sampling.
        extractor: as in `limner.evaluate`; default the classifier of the data set, if there is one.
        out: the folder.
        **overrides: keys of every recipe, e.g. data.size=32 or train.threads=1.

    Returns:
        ``page``, ``conditions``, ``recipes`` (images, seconds, parameters), ``scores`` (means, intervals, anchors),
        ``verdicts``, ``note`` (the reason if there are none) and ``trainings``.

    Raises:
        LimnerError: fewer than two recipes, an unknown one, an invalid budget, data without held-out images, or a
            folder with trainings of other settings. Each is raised before anything is trained.
    """
    progress, folder, limit = progress or Silent(), user_path(out, "a folder"), Budget.parse(budget)
    selected, n_seeds, samples = _properties(only), positive_int("seeds", seeds), positive_int("n", n)
    plan = _plan(recipes, n_seeds, limit, data, overrides)
    _check_budget(folder, limit)
    for seed, planned in plan:
        check_same_settings(run_folder(folder, f"{planned.name}-{seed}"), planned)
    reference = _make_reference([planned for seed, planned in plan if seed == 0], selected, samples, extractor)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "budget.json", (json.dumps(asdict(limit)) + "\n").encode())
    except OSError as error:
        raise LimnerError(f"cannot write {relative(folder)}: {error.strerror}; choose another out=DIR") from None
    trained: list[Trained] = []
    result: dict[str, Any] = {}
    for seed, planned in plan:
        progress.say(f"compare: {planned.name}, seed {seed}, {limit.text}")
        try:
            run = train(run_folder(folder, f"{planned.name}-{seed}"), planned, progress, limit.seconds)
        except Interrupted:
            progress.say("compare: stopped; the same command goes on from here")
            raise
        trained.append(_score(run, seed, planned, reference, selected))
        result = _write(folder, trained, reference, limit, n_seeds, len(plan))
    return result


def _properties(names: str | Sequence[str]) -> list[str]:
    selected = split_names("only", names)
    for name in selected:
        if name in PROPERTIES and name not in _PROPERTIES:
            raise LimnerError(
                f"only: compare scores {', '.join(_PROPERTIES)}; for {name} train first, then"
                f" limner evaluate OUT/runs/* only={name}"
            )
        if name not in _PROPERTIES:
            raise unknown("property", name, _PROPERTIES)
    return [p for p in PROPERTIES if p in selected]


def _plan(
    names: Sequence[str | Path], seeds: int, budget: Budget, data: Any, overrides: Mapping[str, Any]
) -> list[tuple[int, Recipe]]:
    """Every training, seed by seed, so that other work of the machine affects all recipes alike.

    Raises:
        LimnerError: a recipe cannot be read, or `overrides` change what the comparison decides.
    """
    for key in overrides:
        if key in (*_BUDGET, *(f"train.{name}" for name in _BUDGET)):
            raise LimnerError(f"{key} is set by the comparison; write budget=500k or budget=10m, and seeds=3")
    unique = list(dict.fromkeys(match for name in names for match in matching_recipes(str(name))))
    if len(unique) < 2:
        raise LimnerError("a comparison needs two recipes; name two, e.g. limner compare vae-mnist gan-mnist")
    common: dict[str, Any] = {} if data is None else {"data": data}
    common = {"data": recipe.load(unique[0], {**common, **overrides}).data.to_dict()}
    plan = [(seed, _recipe(name, seed, budget, common, overrides)) for seed in range(seeds) for name in unique]
    titles = [planned.name for seed, planned in plan if seed == 0]
    for name in titles:
        if titles.count(name) > 1:
            raise LimnerError(f"two recipes have the name {name}; give one of them another name: in its file")
    return plan


def _recipe(name: str, seed: int, budget: Budget, common: Mapping[str, Any], overrides: Mapping[str, Any]) -> Recipe:
    """A recipe on the common data, with its seed and budget, and without scores during training.

    A training with a time limit has no known number of images. The settings that recipes derive from it (the intervals
    of grids and checkpoints) are those of the recipe itself. Nothing else depends on it: schedules of models count
    images from the start.
    """
    fixed = {**common, "train.seed": seed, "train.score_images": 0, "train.time": budget.seconds, **overrides}
    try:
        if budget.images is not None:
            return recipe.load(name, fixed | {"train.images": budget.images})
        options = recipe.load(name, fixed).train.build()
        fixed |= {f"train.{k}": getattr(options, k) for k in ("sample_images", "checkpoint_images")}
        return recipe.load(name, fixed | {"train.images": _NO_LIMIT})
    except LimnerError as error:
        raise error if name in str(error) else LimnerError(f"{name}: {error}") from None


def _check_budget(folder: Path, budget: Budget) -> None:
    """Raises an error if the folder has trainings with a larger budget, or with another kind of budget."""
    try:
        written = parse_json(read_bytes(folder / "budget.json"))
        if not record({}, dict.fromkeys(("images", "seconds"), lambda v: v is None or is_number(v)))(written):
            return
        old = Budget(**written)
    except (LimnerError, ValueError, TypeError):
        return
    same = (old.images is None) == (budget.images is None)
    if not same or (old.images or old.seconds or 0) > (budget.images or budget.seconds or 0):
        raise LimnerError(
            f"{relative(folder)} has trainings with a budget of {old.text}; choose another out=DIR, or a budget that"
            " is not smaller"
        )


def _make_reference(recipes: Sequence[Recipe], selected: Sequence[str], n: int, extractor: str | None) -> _Reference:
    """The reference of all recipes; None if no images are compared.

    Raises:
        LimnerError: a recipe cannot be trained on the data, or its samples cannot be scored.
    """
    device = _device(recipes[0])
    make_extractor = extractor_for(extractor, None, device)
    first_data: tuple[Dataset, Dataset | None] | None = None
    for planned in recipes:
        try:
            prepared = api.prepare(planned)
        except LimnerError as error:
            raise LimnerError(f"{planned.name} cannot be trained on {_data_text(recipes[0])}: {error}") from None
        first_data = first_data or (prepared.dataset, prepared.heldout)
    assert first_data is not None
    data, heldout = first_data
    if drawable(data.shape):
        raise LimnerError(f"{data.name} is a set of points, not images; count their modes with limner bench modes")
    if heldout is None:
        raise LimnerError(
            f"{data.name} has no held-out images to compare with; leave data.split out, or choose other data=NAME"
        )
    if data.batch_type not in (Images, Mismatched):
        return translation.TranslationEvaluator(data, heldout, translation.Effort(n, n), make_extractor(data))
    if not {"quality", "coverage"} & set(selected):
        return None
    return ReferenceSet(data, heldout, n=n, extractor=make_extractor(data), device=device)


def _data_text(planned: Recipe) -> str:
    size = planned.data.kwargs.get("size")
    return planned.data.name + (f" of size {size}" if size is not None else "")


def _device(planned: Recipe) -> Any:
    return pick(str(planned.train.get("device")).split(",")[0])


# -- scores --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """One training and its scores.

    Attributes:
        recipe: name of the recipe.
        seed: seed of the training.
        images: images seen.
        seconds: seconds of training.
        parameters: number of parameters of all its nets.
        run: the run folder, relative to the comparison's.
        env: device, threads and versions.
        scores: results of `Score.to_dict` by name.
    """

    recipe: str
    seed: int
    images: int
    seconds: float
    parameters: int
    run: str
    env: dict[str, Any]
    scores: dict[str, dict[str, Any]]


def _score(run: Run, seed: int, planned: Recipe, reference: _Reference, selected: Sequence[str]) -> Trained:
    """Scores a finished run on the device where it was trained."""
    model = api.load(run.latest, str(_device(planned)))
    scores: dict[str, dict[str, Any]] = {}
    if isinstance(reference, translation.TranslationEvaluator) and isinstance(model, Translates):
        card = reference.card(model, model.device) if {"quality", "coverage"} & set(selected) else {}
        card = {name: score for name, score in card.items() if score.value is not None}
        scores = {name: replace(score, on="").to_dict() for name, score in card.items() if score.property in selected}
        model = translation.Repeated(model, reference.heldout)
    elif isinstance(reference, ReferenceSet):
        card, _ = properties.image_scores(reference, [0], lambda n, noise: model.sample(n, seed=noise))
        scores = {name: score.to_dict() for name, score in card.items() if score.property in selected}
    if "sampling" in selected:
        scores = _speed_scores(model) | scores
    last_line = run.metrics()[-1]
    size = sum(p.numel() for p in model.parameters())
    env = run.read_json("env.json") or {}
    folder = f"runs/{run.path.name}"
    return Trained(planned.name, seed, last_line["images"], last_line["seconds"], size, folder, env, scores)


def _speed_scores(model: Any) -> dict[str, dict[str, Any]]:
    result = cost(model, limit=_COST_SECONDS)
    how = "at the best batch, from noise to 8-bit images; equal for all seeds, so it is not tested"
    return {
        "throughput": {
            "value": result.throughput, "unit": "images/s", "property": "sampling", "better": "higher", "how": how,
        },
        "latency_ms": {
            "value": result.latency_p50_ms, "unit": "ms", "property": "sampling", "better": "lower",
            "how": "time of one image, median",
        },
        "evaluations": {
            "value": result.evaluations, "unit": "per image", "property": "sampling", "better": "lower",
            "how": "calls of nets to draw one image with the model's own sampling options",
        },
    }  # fmt: skip


# -- results ------------------------------------------------------------------------------------------------


def _write(
    folder: Path, trained: list[Trained], reference: _Reference, budget: Budget, seeds: int, planned: int
) -> dict[str, Any]:
    """Writes the results so far as JSON and as a page; verdicts only when all trainings are done."""
    names = list(dict.fromkeys(t.recipe for t in trained))
    values = _values(trained)
    note, tested = "", {}
    if len(trained) < planned:
        note = f"{len(trained)} of {planned} trainings are done; verdicts come with the last."
    elif seeds == 1:
        note = "One seed gives no verdict, as its random variation is unknown; write seeds=3."
    else:
        tested = {s: v for s, v in values.items() if base(s) in TESTED}
    known = {s: score for t in trained for s, score in t.scores.items()}
    tests = verdicts(tested, {s: known[s]["better"] for s in tested})
    note = note or ("" if tests else "Only quality and coverage are tested; the seeds of a net are equally fast.")
    content: dict[str, Any] = {
        "conditions": _conditions(trained, reference, budget, seeds),
        "recipes": [_recipe_facts([t for t in trained if t.recipe == name]) for name in names],
        "scores": {s: _score_facts(known[s]) | {"recipes": _means(v)} for s, v in values.items()},
        "verdicts": [asdict(v) for v in tests],
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
    result: dict[str, dict[str, list[float]]] = {}
    for t in trained:
        for name, score in t.scores.items():
            result.setdefault(name, {}).setdefault(t.recipe, []).append(float(score["value"]))
    return result


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    return {recipe: asdict(Mean.of(v)) | {"values": list(v)} for recipe, v in values.items()}


def _score_facts(score: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("property", "unit", "better", "how", "on", "ceiling", "floor")
    return {k: score[k] for k in keys if k in score}


def _recipe_facts(trainings: list[Trained]) -> dict[str, Any]:
    return {
        "recipe": trainings[0].recipe,
        "parameters": trainings[0].parameters,
        "images": asdict(Mean.of(t.images for t in trainings)),
        "seconds": asdict(Mean.of(t.seconds for t in trainings)),
    }


def _uneven_warning(trained: list[Trained]) -> str:
    """A warning if a busy machine made equal time unequal work."""
    images_seen = {t.recipe: [o.images for o in trained if o.recipe == t.recipe] for t in trained}
    ratio, name = max((max(images) / min(images), name) for name, images in images_seen.items())
    if ratio < _UNEVEN_RATIO:
        return ""
    return (
        f"In the same time {name} saw from {min(images_seen[name]):,} to {max(images_seen[name]):,} images, so the"
        " machine had other work, and equal time was not equal work. A budget of images, such as budget=100k, does not"
        " depend on that."
    )


def _conditions(trained: list[Trained], reference: _Reference, budget: Budget, seeds: int) -> dict[str, Any]:
    envs = [{k: t.env.get(k) for k in ("device", "device_name", "threads", "torch", "limner")} for t in trained]
    result: dict[str, Any] = {
        "budget": {"images": budget.images, "seconds": budget.seconds, "text": budget.text},
        "seeds": seeds,
        "environments": [e for i, e in enumerate(envs) if e not in envs[:i]],
        "warning": "" if budget.seconds is None else _uneven_warning(trained),
    }
    if isinstance(reference, translation.TranslationEvaluator):
        result |= {"anchors": ["exact", "best baseline"]}
    elif reference is not None:
        c, h, w = reference.train.shape
        result |= {
            "data": reference.train.name,
            "size": [c, h, w],
            "trained_on": len(reference.train),
            "heldout": len(reference.real),
            "samples": reference.n,
            "extractor": reference.extractor.key,
        }
    return result
