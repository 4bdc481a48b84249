"""Recipes: model, data, optimisers and training options of a training.

A recipe has four sections. Each holds the keyword arguments of a constructor::

    model: {name: vae, z: 20, encoder: {name: mlp.Encoder}, decoder: {name: mlp.Decoder}}
    data:  {name: mnist-5k}
    optim: {VAE: {lr: 1.0e-3}}                 # an optimiser for each group of the model; "*" is for all others
    train: {images: 500k, batch: 128, seed: 0}

Later values replace earlier ones: defaults, recipe file, ``config`` file, ``key=value``. A key without a section is
looked up in all sections; only one may have it.

``data`` may be a path. The model's `batch_type` decides whether it is read as a folder of images, of pairs, or of two
domains. A recipe with a ``task`` makes pairs of images: `limner train colourise data=photos/`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from limner.config import catalogue
from limner.config.catalogue import RECIPES, names
from limner.config.spec import Spec, arguments, as_section
from limner.core.errors import LimnerError, unknown
from limner.core.paths import BUILTIN, ambiguous, exists, named, path_text, plain_name, user_path
from limner.core.yaml_text import Text, nested, read_written

SECTIONS = ("model", "data", "optim", "train")
_READING = "reading"  # how folders are read; later versions may read them in another way, so a run records it
# which images and what is known of them; other data do not inherit it
_LOCATIONS = ("name", "path", "a", "b", "limit", "only", "without", "attributes", "bins")


@dataclass(frozen=True)
class Recipe:
    """A checked recipe."""

    name: str
    model: Spec
    data: Spec
    optim: dict[str, Spec]
    train: Spec

    def to_dict(self) -> dict[str, Any]:
        """The recipe as a plain mapping, as in ``recipe.yaml``."""
        train = self.train.to_dict()
        train.pop("name")
        return {
            "name": self.name,
            "model": self.model.to_dict(),
            "data": self.data.to_dict(),
            "optim": {g: s.to_dict() for g, s in self.optim.items()},
            "train": train,
        }


def load(
    source: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    extra: str | Path | None = None,
    *,
    settled: bool = False,
) -> Recipe:
    """Reads and checks a recipe.

    Args:
        source: a name of `limner list recipes`, a YAML file, or a mapping.
        overrides: values by key, with or without the section, applied last.
        extra: a YAML file whose values replace those of the recipe before the overrides.
        settled: the recipe is that of a run, and its names stand for what they stood for when it was made: a folder
            that has the name of a data set now is none of its business.

    Raises:
        LimnerError: unknown recipe, section, key or value; or a name that a file or folder has too.
    """
    if isinstance(source, Mapping):
        name, tree = "recipe", copy.deepcopy(dict(source))
    else:
        path = find(source)
        name, tree = path.stem, read_written(path)
    name = str(tree.pop("name", name))
    if extra is not None:
        tree = _merged(tree, read_written(user_path(extra)))
    _check_sections(tree)
    for key, value in sorted((overrides or {}).items(), key=_order):
        _set(tree, key, value)
    _check_sections(tree)
    for section in SECTIONS:
        if section not in tree:
            raise LimnerError(f"recipe {name}: section {section!r} is missing; a recipe has {', '.join(SECTIONS)}")
    data = Spec.parse("data", _data(data_section(tree["data"]), _batch_kind(tree)))
    keys = None if not settled or "data" in (overrides or {}) else {k.rpartition(".")[2] for k in overrides or {}}
    _check_locations(data, keys)
    return Recipe(
        name,
        Spec.parse("model", tree["model"]),
        data,
        {g: Spec.parse("optimiser", s, f"optim.{g}", "adam") for g, s in tree["optim"].items()},
        Spec.parse("train", tree["train"], name="trainer"),
    )


def _check_sections(tree: Mapping[str, Any]) -> None:
    """Raises a `LimnerError` if a section is unknown or cannot be one."""
    for section, content in tree.items():
        if section not in SECTIONS:
            raise unknown("section", section, SECTIONS)
        if isinstance(content, Mapping | Spec) or (section in ("model", "data") and isinstance(content, str | Path)):
            continue
        if section == "optim":
            raise LimnerError("optim: expected a mapping from group to optimiser, e.g. optim: {G: {lr: 2.0e-4}}")
        raise LimnerError(f"{section}: expected keys and values, got {content!r}; see 'limner explain vae-mnist'")


def data_of(section: Any, batch_type: type) -> Spec:
    """The Spec of data as a user names them: a named set, a path, or a data section of a recipe.

    Args:
        section: what the user wrote.
        batch_type: a type of batch of `limner.core.batch.KINDS`, which decides how a path is read.

    Raises:
        LimnerError: there are no such data, or a name that a file or folder has too.
    """
    kinds = import_module("limner.core.batch").KINDS
    data = Spec.parse("data", _data(data_section(section), kinds[batch_type]))
    _check_locations(data, None)
    return data


def record(recipe: Recipe) -> dict[str, Any]:
    """The recipe as the mapping that a new run keeps, with the way in which its folders are read."""
    tree = recipe.to_dict()
    known = arguments("data", recipe.data.name)
    if _READING in known:
        tree["data"].setdefault(_READING, known[_READING].default)
    return tree


def of_run(recipe: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Reads the recipe of a run, whose names and folders are read as they were when the run began.

    Args:
        recipe: the content of ``recipe.yaml``. If it was written before readings were numbered, its reading is 1.
        overrides: as in `load`.

    Raises:
        LimnerError: unknown recipe, section, key or value.
    """
    tree = copy.deepcopy(dict(recipe))
    data = tree.get("data")
    if isinstance(data, dict) and data.get("name") in names("data") and _READING in arguments("data", data["name"]):
        data.setdefault(_READING, 1)
    return load(tree, overrides, settled=True)


def find(source: str | Path) -> Path:
    """The file of a recipe: of one that limner comes with, by name, or a path to a YAML file.

    Raises:
        LimnerError: there is none, or the name is that of a file here too.
    """
    text, path = str(source), user_path(source, "a recipe")
    files = [file for file in (text, f"{text}.yaml", f"{text}.yml") if exists(file) and not Path(file).is_dir()]
    if isinstance(source, str) and plain_name(text) in names("recipe"):
        if files:
            raise ambiguous(text, files[0], "recipe")
        return RECIPES / f"{plain_name(text)}.yaml"
    if path.suffix in (".yaml", ".yml") or exists(path):
        if not path.is_file():
            raise LimnerError(
                f"there is no recipe file {path}; check the path, or choose a name of 'limner list recipes'"
            )
        return path
    if files:
        raise LimnerError(f"there is no recipe {text!r}; write {files[0]} for the file that lies here")
    raise unknown("recipe", text, names("recipe"))


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    tree = dict(base)
    for k, v in over.items():
        old = tree.get(k)
        tree[k] = _merged(old, v) if isinstance(old, Mapping) and isinstance(v, Mapping) else v
    return tree


def _order(override: tuple[str, Any]) -> int:
    """What is set first: whole sections, then names, then what belongs to them; in whatever order they were written."""
    key = override[0]
    return 0 if key in SECTIONS else 1 if key.endswith(".name") else 2


def _set(tree: dict[str, Any], key: str, new: Any) -> None:
    """Sets one override."""
    path = key.split(".")
    if path[-1] in ("a", "b") and path[:-1] in ([], ["data"]) and _batch_kind(tree).name == "domains":
        path = ["data", path[-1]]  # two folders are two domains, whatever the data of the recipe are
        if path[-1] not in arguments("data", _data(tree.get("data"), _batch_kind(tree))["name"]):
            tree["data"] = _replaced_data(tree["data"], "domains", _batch_kind(tree))
    if path[0] not in SECTIONS:
        path = [_section(tree, path[0]), *path]
    if len(path) == 1 and isinstance(new, Text):
        new = _whole(path[0], new)
    if path == ["data"]:
        tree["data"] = _replaced_data(tree.get("data"), new, _batch_kind(tree))
        return
    if path[0] == "optim" and len(path) == 3 and path[1] not in tree["optim"]:
        if "*" not in tree["optim"]:
            groups = ", ".join(tree["optim"])
            raise LimnerError(f"unknown group {path[1]!r} in {key}; this recipe has the groups {groups}")
        tree["optim"][path[1]] = copy.deepcopy(tree["optim"]["*"])
    node: Any = tree
    for i, part in enumerate(path[:-1]):
        if path[0] != "train" and isinstance(node.get(part), str):
            node[part] = as_section(node[part])
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise LimnerError(f"{key}: {'.'.join(path[: i + 1])} has no parts; set it as a whole")
    node[path[-1]] = new


def _whole(section: str, text: str) -> Any:
    """A section that is written as one text: a mapping such as ``{name: vae, z: 8}``, or a name or a path."""
    tree = nested(text) if isinstance(text, Text) else None
    is_mapping = isinstance(tree, dict) and ("name" in tree or section in ("optim", "train"))
    return tree if is_mapping else text


def _section(tree: Mapping[str, Any], key: str) -> str:
    """The only section whose constructor has an argument `key`."""
    known = {"train": arguments("train", "trainer")}
    if "data" in tree:
        known["data"] = arguments("data", str(_data(tree["data"], _batch_kind(tree)).get("name")))
    if "model" in tree:
        known["model"] = arguments("model", str(_name(tree["model"])))
    owners = [s for s, a in known.items() if key in a]
    if len(owners) == 1:
        return owners[0]
    if owners:
        choices = " or ".join(f"{s}.{key}" for s in owners)
        raise LimnerError(f"{key!r} could mean {choices}; write it with its section")
    options = [k for section in known.values() for k, a in section.items() if not a.is_fact]
    raise unknown("key", key, [*options, *SECTIONS, "out"])


def _name(section: Any) -> Any:
    return section.get("name") if isinstance(section, Mapping) else section


def _batch_kind(tree: Mapping[str, Any]) -> Any:
    """The type of batch that the recipe's model takes, an entry of `limner.core.batch.KINDS`."""
    batch = import_module("limner.core.batch")  # imports torch, which this module does without
    name = _name(tree.get("model"))
    if not isinstance(name, str):  # `Spec.parse` reports this
        return batch.KINDS[batch.Images]
    return batch.KINDS[getattr(catalogue.find("model", name), "batch_type", batch.Images)]


def data_section(written: Any) -> Any:
    """The data section of a recipe that a user wrote: ``{name: …}`` for a text, in which a path is a name too.

    Raises:
        LimnerError: a file or folder has the name of a data set.
    """
    if isinstance(written, Path):
        return {"name": path_text(written)}
    if isinstance(written, Spec | Mapping):
        return written.to_dict() if isinstance(written, Spec) else dict(written)
    if not isinstance(written, str):
        raise LimnerError(f"data: {written!r} is neither text nor a mapping; write data='{written}'")
    tree = _whole("data", written)
    return tree if isinstance(tree, dict) else {"name": named(written, names("data"), "data set") or str(written)}


def _check_locations(data: Spec, keys: set[str] | None) -> None:
    """Raises a `LimnerError` if an argument, of `keys` or of all, is a name of limner and a path too."""
    for argument in arguments("data", data.name).values():
        value, marker = data.kwargs.get(argument.name), argument.name_or_path
        if marker is not None and value is not None and (keys is None or argument.name in keys):
            for text in value if isinstance(value, list) else [value]:
                named(text, list(marker.names()), marker.what)


def _data(section: Any, kind: Any) -> dict[str, Any]:
    """The data section, in which a path is replaced by the data source that reads this kind of batch from a folder."""
    if not isinstance(section, (str, Path, Mapping)):
        raise LimnerError(f"data: expected a path, or 'name: …' with options; got {section!r}")
    tree = {"name": section} if isinstance(section, (str, Path)) else dict(section)
    if not isinstance(tree.get("name"), (str, Path)):
        return tree
    name = plain_name(tree["name"]) if isinstance(tree["name"], str) else path_text(tree["name"])
    options = {k: v for k, v in tree.items() if k != "name"}
    if name not in names("data"):
        return {"name": kind.source, "path": name} | options if _looks_like_path(name) else tree
    gives: Mapping[str, dict[str, Any]] = getattr(catalogue.find("data", name), "gives", {})
    if kind.name in gives:
        return {"name": name} | gives[kind.name] | options
    if kind.name != "images" and "images" in gives:  # the name of a set of images is used like a path
        path = BUILTIN + name if exists(name) else name  # the set was chosen, whatever lies here
        return {"name": kind.source} | ({} if name == "folder" else {"path": path}) | options
    return {"name": name} | options


def _looks_like_path(text: str) -> bool:
    return "/" in text or "\\" in text or text.lower().endswith(".zip") or text[:1] in (".", "~") or exists(text)


def _replaced_data(old: Any, new: Any, kind: Any) -> dict[str, Any]:
    """The new data, with the options of the old ones (size, flip, task …) that the new source also has."""
    tree = _data(data_section(new), kind)
    if old is None or isinstance(new, Mapping):
        return tree
    known = arguments("data", tree["name"])
    return {k: v for k, v in _data(old, kind).items() if k in known and k not in _LOCATIONS} | tree
