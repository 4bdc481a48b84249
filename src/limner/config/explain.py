"""Explanations of recipes, models, nets, data and options, taken from signatures and docstrings."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from limner.config import recipe as recipes
from limner.config.catalogue import find, names
from limner.config.spec import Argument, Spec, arguments
from limner.core.errors import unknown
from limner.core.paths import BUILTIN, exists, user_path


@dataclass(frozen=True)
class Explanation:
    """A description of one name, and name, type, default and meaning of each of its options."""

    name: str
    kind: str
    text: str
    options: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """The explanation as a plain mapping."""
        return asdict(self)


def explain(key: str) -> Explanation:
    """Explains a recipe, a model, net, data source or optimiser, one option such as ``train.batch``, or a run.

    Args:
        key: ``vae-mnist``, ``vae``, ``mlp.Encoder``, ``train``, ``vae.beta``, ``train.batch``, ``adam.lr`` …; or a run
            folder: which number stands for which class, how its data were read, and its settings.

    Raises:
        LimnerError: the name is unknown; the message gives the nearest names.
    """
    if key in names("recipe"):
        return _recipe(key)
    if constructor := _find(key):
        return _constructor(*constructor, key)
    if exists(f"{key}/recipe.yaml"):
        return _run(key)
    owner, _, option = key.rpartition(".")
    constructor = _find(owner) if owner else None
    if constructor and option in arguments(*constructor):
        return Explanation(key, "option", "", [_row(arguments(*constructor)[option])])
    if not owner:
        owners = [(k, n) for k, n in _constructors() if key in arguments(k, n) and not arguments(k, n)[key].is_fact]
        if owners:
            rows = [_row(arguments(k, n)[key]) | {"of": "train" if k == "train" else n} for k, n in owners]
            return Explanation(key, "option", "", rows)
    known = [n for kind in ("recipe", "model", "data", "optimiser", "net") for n in names(kind)]
    if constructor:
        known = [f"{owner}.{n}" for n, a in arguments(*constructor).items() if not a.is_fact]
    else:
        known += [n for kind, name in _constructors() for n, a in arguments(kind, name).items() if not a.is_fact]
    raise unknown("name", key, set(known))


def _constructors() -> list[tuple[str, str]]:
    return [("train", "trainer"), *((k, n) for k in ("model", "optimiser", "data") for n in names(k))]


def _find(name: str) -> tuple[str, str] | None:
    if name == "train":
        return "train", "trainer"
    return next(((kind, name) for kind in ("model", "data", "optimiser", "train", "net") if name in names(kind)), None)


def _recipe(name: str) -> Explanation:
    loaded = recipes.load(f"{BUILTIN}{name}")
    text = recipes.find(f"{BUILTIN}{name}").read_text("utf-8")
    comment = " ".join(line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#"))
    return Explanation(name, "recipe", comment, _settings(loaded))


def _run(path: str) -> Explanation:
    run = import_module("limner.core.run").Run(user_path(path))  # imports numpy, which names and options do without
    events = run.events()
    last: dict[str, list[str]] = {k: e[k] for e in events for k in ("classes", "notes") if e.get(k)}
    classes, notes = last.get("classes", []), last.get("notes", [])
    lines = ["classes by number: " + ", ".join(f"{k} {name}" for k, name in enumerate(classes))] if classes else []
    return Explanation(run.name, "run", "\n".join([*lines, *notes]), _settings(recipes.of_run(run.recipe)))


def _settings(loaded: recipes.Recipe) -> list[dict[str, Any]]:
    """A row for each option of a recipe, with its value."""
    rows: list[dict[str, Any]] = []

    def add(spec: Spec, prefix: str) -> None:
        for a in arguments(spec.kind, spec.name).values():
            if a.is_fact:
                continue
            value, path = spec.kwargs.get(a.name, None if a.required else a.default), f"{prefix}.{a.name}"
            rows.append(_row(a) | {"name": path, "value": value.name if isinstance(value, Spec) else value})
            if isinstance(value, Spec):
                add(value, path)

    add(loaded.model, "model")
    add(loaded.data, "data")
    for group, spec in loaded.optim.items():
        add(spec, f"optim.{group}")
    add(loaded.train, "train")
    return rows


def _constructor(kind: str, name: str, shown: str) -> Explanation:
    constructor = find(kind, name)
    doc = inspect.getdoc(constructor) or ""
    module = inspect.getdoc(inspect.getmodule(constructor)) or "" if kind == "model" else ""
    text = "\n\n".join(part.partition("Args:")[0].strip() for part in (module, doc) if part)
    rows = [_row(a) for a in arguments(kind, name).values() if not a.is_fact]
    return Explanation(shown, kind, text, rows)


def _row(a: Argument) -> dict[str, Any]:
    default = None if a.required else a.default
    return {"name": a.name, "type": a.type, "default": default, "required": a.required, "text": a.text}
