"""limner: a library to train, evaluate and use generative image models.

>>> import limner
>>> "vae-mnist" in limner.list_recipes("vae*")
True

Importing limner is fast, because torch is imported by the first call that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from limner.api import advise, demo, dry_run, explain, load, resume, sample, train
    from limner.bench.compare import run as compare
    from limner.config.catalogue import list_models, list_recipes
    from limner.core.errors import LimnerError
    from limner.core.run import Run
    from limner.curing import cure
    from limner.doctor.diagnosis import diagnose
    from limner.evaluation.scoring import evaluate
    from limner.painting import stylise

_MODULES = {
    "train": "limner.api",
    "resume": "limner.api",
    "load": "limner.api",
    "sample": "limner.api",
    "advise": "limner.api",
    "demo": "limner.api",
    "dry_run": "limner.api",
    "explain": "limner.api",
    "diagnose": "limner.doctor.diagnosis",
    "cure": "limner.curing",
    "evaluate": "limner.evaluation.scoring",
    "compare": "limner.bench.compare",
    "stylise": "limner.painting",
    "list_models": "limner.config.catalogue",
    "list_recipes": "limner.config.catalogue",
    "Run": "limner.core.run",
    "LimnerError": "limner.core.errors",
}
_ATTRIBUTES = {"compare": "run"}  # where the name in the module differs
_PACKAGES = ("apply", "core", "data", "doctor", "labs", "latent", "losses", "metrics", "models", "nets", "report")

__all__ = [
    "LimnerError",
    "Run",
    "advise",
    "compare",
    "cure",
    "demo",
    "diagnose",
    "dry_run",
    "evaluate",
    "explain",
    "list_models",
    "list_recipes",
    "load",
    "resume",
    "sample",
    "stylise",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), _ATTRIBUTES.get(name, name))
    if name in _PACKAGES:
        return importlib.import_module(f"limner.{name}")
    raise AttributeError(f"module 'limner' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES, *_PACKAGES])
