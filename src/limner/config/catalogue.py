"""The short names that recipes use.

The catalogue is closed: names are those of the files in limner's own packages, and of the entry points that installed
plug-ins declare (groups ``limner.models`` and ``limner.nets``). So the text of a recipe or a checkpoint cannot make
Python import anything else.

=========  ==============================  =============================================
kind       example of a name               object
=========  ==============================  =============================================
model      ``vae``                         the model class of ``limner/models/vae.py``
net        ``mlp.Encoder``                 a class of ``limner/nets/mlp.py``
data       ``mnist-5k``                    a source function of ``limner.data``
optimiser  ``adam``                        a class of ``limner/core/optimisers.py``
train      ``trainer``                     `limner.core.options.TrainOptions`
=========  ==============================  =============================================
"""

from __future__ import annotations

import ast
import fnmatch
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from limner.core.errors import LimnerError, unknown

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


def files(package: str) -> list[str]:
    """Names of the public modules of a package, without importing any of them."""
    spec = find_spec(package)
    paths = list(spec.submodule_search_locations or []) if spec else []
    return sorted(m.name for m in pkgutil.iter_modules(paths) if not m.name.startswith("_"))


def _plugins(kind: str) -> dict[str, Any]:
    return {e.name: e for e in entry_points(group=f"limner.{kind}s")}


def names(kind: str) -> list[str]:
    """All names of a kind: ``model``, ``net``, ``data``, ``optimiser``, ``train`` or ``recipe``."""
    match kind:
        case "model":
            return sorted({*files("limner.models"), *_plugins("model")})
        case "net":
            nets = [f"{f}.{c}" for f in files("limner.nets") for c in _classes(f"limner.nets.{f}")]
            return sorted({*nets, *_plugins("net")})
        case "data":
            return list(importlib.import_module("limner.data").list_sources())
        case "optimiser":
            return sorted(importlib.import_module("limner.core.optimisers").OPTIMISERS)
        case "train":
            return ["trainer"]
        case "recipe":
            return sorted(p.stem for p in RECIPES.glob("*.yaml"))
    raise LimnerError(f"unknown kind {kind!r}; choose model, net, data, optimiser, train or recipe")


def find(kind: str, name: str) -> Callable[..., Any]:
    """The constructor of a name.

    Raises:
        LimnerError: the name is not in the catalogue; the message gives the nearest names.
    """
    match kind:
        case "model" if name in files("limner.models"):
            return _model_class(importlib.import_module(f"limner.models.{name}"))
        case "net" if name.count(".") == 1:
            module, _, attribute = name.partition(".")
            if module in files("limner.nets") and attribute in _classes(f"limner.nets.{module}"):
                return getattr(importlib.import_module(f"limner.nets.{module}"), attribute)
        case "data" if name in names("data"):
            return importlib.import_module("limner.data").SOURCES[name]
        case "optimiser" if name in names("optimiser"):
            return importlib.import_module("limner.core.optimisers").OPTIMISERS[name]
        case "train" if name == "trainer":
            return importlib.import_module("limner.core.options").TrainOptions
    plugin = _plugins(kind).get(name)
    if plugin is not None:
        return plugin.load()
    raise unknown(kind, name, names(kind))


@cache
def _classes(module: str) -> list[str]:
    """Names of the public nets in a module: classes whose constructor takes `shape`. The module is not imported."""
    spec = find_spec(module)
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8")) if spec and spec.origin else ast.Module([], [])
    classes = [c for c in tree.body if isinstance(c, ast.ClassDef) and not c.name.startswith("_")]
    return sorted(c.name for c in classes if any(_takes_shape(f) for f in c.body))


def _takes_shape(node: ast.stmt) -> bool:
    if not (isinstance(node, ast.FunctionDef) and node.name == "__init__"):
        return False
    return any(a.arg == "shape" for a in (*node.args.args, *node.args.kwonlyargs))


def _model_class(module: Any) -> Callable[..., Any]:
    """The only model that a module of `limner.models` defines."""
    base = importlib.import_module("limner.core.model").GenerativeModel
    classes = (c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__)
    models = [c for c in classes if issubclass(c, base)]
    if len(models) != 1:
        raise LimnerError(f"{module.__name__} must define exactly one model, it defines {len(models)}")
    return models[0]


def list_models(pattern: str = "*") -> list[str]:
    """Names of models that match a shell pattern.

    >>> list_models("*vae*")
    ['cvae', 'vae']
    """
    return fnmatch.filter(names("model"), pattern)


def list_recipes(pattern: str = "*") -> list[str]:
    """Names of recipes that match a shell pattern.

    >>> list_recipes("cvae*")
    ['cvae-mnist']
    """
    return fnmatch.filter(names("recipe"), pattern)
