"""Remedies: changes of a recipe that help against a failure, and how often each has helped.

``remedies.yaml`` lists them for each check. ``measured.json``, which ``benchmarks/doctor_remedies.py`` writes, holds in
how many failing trainings each has improved a metric. A remedy is offered to a run only if its recipe takes it: the
overrides are read and the model is built, as `limner train` would.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from limner.config import recipe as recipes
from limner.config.recipe import Recipe
from limner.config.spec import Spec, arguments
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.options import TrainOptions
from limner.core.update import Updates
from limner.core.yaml_text import read_yaml
from limner.doctor.finding import Remedy

LISTED = Path(__file__).with_name("remedies.yaml")
MEASURED = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Bed:
    """A training that fails, on which remedies are measured.

    Attributes:
        recipe: name of its recipe.
        failure: what is wrong with it, in a phrase.
        set: overrides of the recipe that make it fail.
        metric: name of the number that a remedy must improve.
    """

    recipe: str
    failure: str
    set: dict[str, Any]
    metric: str


@dataclass(frozen=True)
class Change:
    """A remedy as it is listed, for any recipe.

    Attributes:
        text: what it does, in a phrase.
        set: overrides; ``optim.*`` stands for each group of optimisers.
        times: factors of the values that a recipe has.
        automatic: whether it is safe without asking.
    """

    text: str
    set: dict[str, Any] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    automatic: bool = False

    @property
    def words(self) -> str:
        """The change for people, not quoted for a shell; ``×0.5`` are factors."""
        given = [f"{key}={_written(value)}" for key, value in self.set.items()]
        return " ".join(given + [f"{key}=×{factor:g}" for key, factor in self.times.items()])

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """The overrides for a recipe.

        Raises:
            LimnerError: the recipe has no such value that could be multiplied.
        """
        found = {key: value for name, value in self.set.items() for key in _groups(recipe, name)}
        for name, factor in self.times.items():
            for key in _groups(recipe, name):
                found[key] = _times(_value(recipe, key), factor, key)
        return found


@cache
def _listed() -> dict[str, Any]:
    return read_yaml(LISTED)


def beds() -> dict[str, Bed]:
    """The beds by name."""
    return {name: Bed(**entry) for name, entry in _listed()["beds"].items()}


def bed_of(check: str) -> str:
    """The bed on which the remedies of a check are measured, or ""."""
    return str(_listed()["checks"].get(check, {}).get("bed", ""))


def of_check(check: str) -> list[Change]:
    """The remedies of a check, as they are listed."""
    return [Change(**_listed()["remedies"][name]) for name in _listed()["checks"].get(check, {}).get("remedies", ())]


def of_bed(bed: str, first: int = 99) -> list[Change]:
    """The remedies that are measured on a bed: the first so many of each check that it is the bed of."""
    every = {change.words: change for check in checks() if bed_of(check) == bed for change in of_check(check)[:first]}
    return list(every.values())


def checks() -> list[str]:
    """The checks that have remedies."""
    return list(_listed()["checks"])


@cache
def _measured() -> dict[tuple[str, str], dict[str, Any]]:
    """What was measured of each change, by the name of its bed and its words."""
    rows = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else []
    return {(row["bed"], row["change"]): row for row in rows}


def described(check: str) -> list[tuple[Change, Remedy]]:
    """The remedies of a check with their rates of success, the best first.

    They are ranked by (helped + 1) / (trainings + 2), so that few trainings, or none, count as near to a half.
    """
    bed = bed_of(check)
    pairs = [(change, _described(change, bed)) for change in of_check(check)]
    return sorted(pairs, key=lambda pair: -(pair[1].helped + 1) / (pair[1].of + 2))


def _described(change: Change, bed: str) -> Remedy:
    row = _measured().get((bed, change.words))
    if row is None:
        return Remedy(change.set, change.text, automatic=change.automatic)
    effect = f"{row['metric']} {row['before']:.3g} → {row['after']:.3g}"
    return Remedy(change.set, change.text, beds()[bed].recipe, row["helped"], row["of"], change.automatic, effect)


def remedies(check: str, recipe: Mapping[str, Any], model: GenerativeModel, last_good: int | None) -> list[Remedy]:
    """The remedies that a run can take, the best first.

    Args:
        check: name of the check that fails.
        recipe: the content of the run's ``recipe.yaml``.
        model: its trained model.
        last_good: images of the newest checkpoint from before the failure. A training goes on from there if the nets
            are alike, and begins anew if not.
    """
    spec = Spec.parse("model", model.spec.to_dict())
    before, facts, shapes = recipes.of_run(recipe), facts_of(spec), _shapes(model)
    found = []
    for change, remedy in described(check):
        try:
            new = _built(changed(before, change), facts)
        except LimnerError:  # this recipe does not take it
            continue
        settings, left = change.settings(before), before.train.get("images") - (last_good or 0)
        start = last_good if _shapes(new) == shapes and left > 0 else None
        rest = {} if start is None else {"train.images": left}
        found.append(replace(remedy, settings=settings | rest, start=start))
    return found


def _shapes(model: GenerativeModel) -> dict[str, Any]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def changed(recipe: Recipe, change: Change) -> Recipe:
    """A recipe with a change.

    Raises:
        LimnerError: the recipe does not take it, or is the same with it.
    """
    after = recipes.of_run(recipe.to_dict(), change.settings(recipe))
    if all(_is(recipe, after, key) for key in change.settings(recipe)):
        raise LimnerError(f"{change.words} changes nothing in this recipe")
    return after


def _is(a: Recipe, b: Recipe, key: str) -> bool:
    """Whether two recipes have the same value of a key, also if one has it by default."""
    return bool(_value(a, key) == _value(b, key))


def facts_of(spec: Spec) -> dict[str, Any]:
    """The facts of the data that a resolved Spec holds, at any depth."""
    found: dict[str, Any] = {}
    for name, argument in arguments(spec.kind, spec.name).items():
        value = spec.kwargs.get(name)
        if isinstance(value, Spec):
            found = facts_of(value) | found
        elif argument.is_fact and name in spec.kwargs:
            found[name] = value
    return found


def _built(recipe: Recipe, facts: Mapping[str, Any]) -> GenerativeModel:
    """The untrained model of a recipe on data with these facts.

    Raises:
        LimnerError: it cannot be trained so.
    """
    options: TrainOptions = recipe.train.build()
    with torch.random.fork_rng([]):
        model: GenerativeModel = recipe.model.build(**facts)
    try:
        model.check_batch(options.batch)
    except ValueError as error:
        raise LimnerError(str(error)) from None
    Updates(model.groups(), {group: spec.build() for group, spec in recipe.optim.items()})
    return model


def _groups(recipe: Recipe, key: str) -> list[str]:
    """The keys that a key with ``*`` for each group of optimisers stands for."""
    return [key.replace("*", group, 1) for group in recipe.optim] if key.startswith("optim.*") else [key]


def _value(recipe: Recipe, key: str) -> Any:
    """The value of a key of a recipe, or its default."""
    section, *path = key.split(".")
    node: Any = getattr(recipe, section, None)
    if section == "optim":
        group, *path = path
        node = recipe.optim.get(group, recipe.optim.get("*"))
    for name in path:
        if not isinstance(node, Spec) or (name != "name" and name not in arguments(node.kind, node.name)):
            raise LimnerError(f"this recipe has no {key}")
        node = node.name if name == "name" else node.get(name)
    return node


def _times(value: Any, factor: float, key: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LimnerError(f"{key} is no number in this recipe")
    product = float(f"{value * factor:.6g}")
    return max(1, round(product)) if isinstance(value, int) and factor >= 1 else product


# ---- as text ---------------------------------------------------------------------------------------------------------


def setting(item: tuple[str, Any]) -> str:
    """A setting as a word of the command line.

    >>> setting(("model.penalties", {"r1": 1})), setting(("optim.G.betas", [0.5, 0.999]))
    ("'model.penalties={r1: 1}'", "'optim.G.betas=[0.5, 0.999]'")
    """
    key, value = item
    return shlex.quote(f"{key}={_written(value)}")


def _written(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def words(settings: Mapping[str, Any]) -> Iterator[str]:
    """Settings as words of the command line."""
    return map(setting, settings.items())
