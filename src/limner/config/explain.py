"""Explanations of recipes, models, nets, data and options, taken from signatures and docstrings.

The words that `limner sample` takes for a model are its sampling options, the keyword-only parameters of what
`GenerativeModel.sampling_declaration` names.
"""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, create_model

from limner.config import recipe as recipes
from limner.config.catalogue import find, names
from limner.config.signatures import argument_texts
from limner.config.spec import Argument, Spec, arguments
from limner.core.errors import LimnerError, unknown
from limner.core.paths import BUILTIN, exists, user_path
from limner.core.sampling_options import declared, limits

if TYPE_CHECKING:
    from limner.core.run import Run

_SAMPLING = "What `limner sample RUN out.png KEY=VALUE` takes, by model; `limner explain RUN` lists those of a run."


@dataclass(frozen=True)
class Explanation:
    """A description of one name, and name, type, default and meaning of each of its options.

    Attributes:
        sampling: the same of the sampling options of a model, a recipe or a run.
    """

    name: str
    kind: str
    text: str
    options: list[dict[str, Any]]
    sampling: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The explanation as a plain mapping."""
        return asdict(self)


def explain(key: str) -> Explanation:
    """Explains a recipe, a model, net, data source or optimiser, one option such as ``train.batch``, or a run.

    Args:
        key: ``vae-mnist``, ``vae``, ``mlp.Encoder``, ``train``, ``vae.beta``, ``train.batch``, ``adam.lr`` …;
            ``sampling`` or ``sampling.truncation`` for what `limner sample` takes; or a run folder: which number stands
            for which class, how its data were read, and its settings.

    Raises:
        LimnerError: the name is unknown; the message gives the nearest names.
    """
    if key in names("recipe"):
        return _recipe(key)
    if constructor := _find(key):
        return _constructor(*constructor, key)
    if exists(f"{key}/recipe.yaml"):
        return _run(key)
    if key == "sampling":
        return Explanation(key, "sampling", _SAMPLING, [], _all_sampling())
    owner, _, option = key.rpartition(".")
    constructor = _find(owner) if owner else None
    if constructor and option in arguments(*constructor):
        return Explanation(key, "option", "", [_row(arguments(*constructor)[option])])
    sampling = _sampling_of(constructor[1]) if constructor and constructor[0] == "model" else []
    sampling = sampling or (_all_sampling() if owner in ("", "sampling") else [])
    rows = [row for row in sampling if row["name"] == option]
    if not owner:
        owners = [(k, n) for k, n in _constructors() if key in arguments(k, n) and not arguments(k, n)[key].is_fact]
        options = [_row(arguments(k, n)[key]) | {"of": "train" if k == "train" else n} for k, n in owners]
        if options or rows:
            return Explanation(key, "option", "", options + rows)
    elif rows:
        return Explanation(key, "option", "", rows)
    known: list[str] = []
    if constructor:
        known += [n for n, a in arguments(*constructor).items() if not a.is_fact]
    elif owner != "sampling":
        known += [n for kind in ("recipe", "model", "data", "optimiser", "net") for n in names(kind)]
        known += [n for kind, name in _constructors() for n, a in arguments(kind, name).items() if not a.is_fact]
    known += [row["name"] for row in sampling]
    prefix = f"{owner}." if constructor or owner == "sampling" else ""
    raise unknown("name", key, {prefix + n for n in known})


def sampling_schema(model: str) -> dict[str, Any]:
    """JSON Schema of the sampling options of a model."""
    declared = _declared(model)
    fields: dict[str, Any] = {k: (p.annotation, Field(default=p.default)) for k, p in declared.items()}
    texts = {row["name"]: row["text"] for row in _sampling_of(model)}
    config = ConfigDict(arbitrary_types_allowed=True)
    properties = create_model(model, __config__=config, **fields).model_json_schema().get("properties", {})
    entries = {
        k: {n: v for n, v in entry.items() if n != "title"} | ({"description": texts[k]} if texts[k] else {})
        for k, entry in properties.items()
    }
    title = f"sampling options of {model}"
    return {"title": title, "type": "object", "additionalProperties": False, "properties": entries}


def _constructors() -> list[tuple[str, str]]:
    return [("train", "trainer"), *((k, n) for k in ("model", "optimiser", "data") for n in names(k))]


def _find(name: str) -> tuple[str, str] | None:
    if name == "train":
        return "train", "trainer"
    return next(((kind, name) for kind in ("model", "data", "optimiser", "train", "net") if name in names(kind)), None)


def _recipe(name: str) -> Explanation:
    loaded = recipes.load(f"{BUILTIN}{name}")
    own = loaded.model.kwargs.get("sampling") or {}  # in place of the class's defaults
    sampling = [row | {"default": own.get(row["name"], row["default"])} for row in _sampling_of(loaded.model.name)]
    text = recipes.find(f"{BUILTIN}{name}").read_text("utf-8")
    comment = " ".join(line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#"))
    return Explanation(name, "recipe", comment, _settings(loaded), sampling)


def _run(path: str) -> Explanation:
    run = import_module("limner.core.run").Run(user_path(path))  # imports numpy, which names and options do without
    events = run.events()
    last: dict[str, Any] = {k: e[k] for e in events for k in ("classes", "attributes", "notes") if e.get(k)}
    classes, notes = last.get("classes", []), last.get("notes", [])
    lines = ["classes by number: " + ", ".join(f"{k} {name}" for k, name in enumerate(classes))] if classes else []
    lines += [f"attribute {name}: {', '.join(values)}" for name, values in last.get("attributes", {}).items()]
    recipe = recipes.of_run(run.recipe)
    return Explanation(run.name, "run", "\n".join([*lines, *notes]), _settings(recipe), _sampling_of_run(run, recipe))


def _declared(model: str) -> dict[str, inspect.Parameter]:
    """The sampling options of a model by name."""
    declaration = find("model", model).sampling_declaration()  # type: ignore[attr-defined]
    return {} if declaration is None else declared(declaration)


def _sampling_of(model: str) -> list[dict[str, Any]]:
    """A row for each sampling option of a model. A class that declares them may leave out the texts of its bases."""
    declaration = find("model", model).sampling_declaration()  # type: ignore[attr-defined]
    parts = declaration.__mro__ if inspect.isclass(declaration) else (declaration,)
    texts = {k: text for part in reversed(parts) for k, text in argument_texts(inspect.getdoc(part) or "").items()}
    rows = (Argument(k, p.annotation, p.default, texts.get(k, "")) for k, p in _declared(model).items())
    return [_row(a) | {"type": _type(a)} for a in rows]


def _sampling_of_run(run: Run, recipe: recipes.Recipe) -> list[dict[str, Any]]:
    """A row for each sampling option of a trained model, with its own default; of any such model before it is saved.

    The first row of a conditional model says what `y` may be.
    """
    rows = _sampling_of(recipe.model.name)
    try:
        model = import_module("limner.config.load").load_model(run.path)
    except LimnerError:
        return rows
    options, condition = model.sampling_options, getattr(model, "condition", None)
    rows = [row | {"default": options[row["name"]].default} for row in rows if row["name"] in options]
    if condition is None:
        return rows
    text = import_module("limner.core.condition").choices(condition)
    return [{"name": "y", "type": "label", "default": None, "required": False, "text": text}, *rows]


def _type(option: Argument) -> str:
    """The type of a sampling option with its range; None, which stands for the default, is left out."""
    return ", ".join(filter(None, (option.type.removesuffix(" | none"), limits(option.annotation))))


def _all_sampling() -> list[dict[str, Any]]:
    """A row for each sampling option of all models; options that models share are one row."""
    rows: list[dict[str, Any]] = []
    for model in names("model"):
        for row in _sampling_of(model):
            same = next((r for r in rows if {**r, "of": None} == {**row, "of": None}), None)
            if same is None:
                rows.append(row | {"of": model})
            else:
                same["of"] += f", {model}"
    return rows


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
    return Explanation(shown, kind, text, rows, _sampling_of(name) if kind == "model" else [])


def _row(a: Argument) -> dict[str, Any]:
    default = None if a.required else a.default
    return {"name": a.name, "type": a.type, "default": default, "required": a.required, "text": a.text}
