"""A function and a module never share a name, whatever was imported before."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import limner


def test_every_public_function_stays_one_after_every_import() -> None:
    """`import limner.data.NAME` binds NAME in `limner.data`, and would hide a lazy function of that name."""
    names = [m.name for m in pkgutil.walk_packages(limner.__path__, "limner.") if not m.name.endswith("__main__")]
    modules = [limner, *map(importlib.import_module, names)]
    for package in (m for m in modules if hasattr(m, "__path__")):
        lazy = getattr(package, "_MODULES", {})
        functions = {n for n, v in vars(package).items() if callable(v)} | set(lazy)
        assert not functions & {m.name for m in pkgutil.iter_modules(package.__path__)}, package.__name__
        assert not [n for n in lazy if isinstance(getattr(package, n), ModuleType)]
    for name in limner.__all__:
        assert callable(getattr(limner, name))
    for name in ("check", "load", "get", "list_sources"):
        assert callable(getattr(limner.data, name))
