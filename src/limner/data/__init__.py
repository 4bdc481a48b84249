"""Images to learn from: named sets, folders, ZIP files, toys with a known truth.

    dataset = limner.data.load("mnist-5k", size=32)
    dataset = limner.data.load("photos/", channels=3, flip=True)
    report = limner.data.check("photos/")

Nothing here imports torch before a set is loaded, so names, options and help are quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limner.data.check import Report as Report
    from limner.data.check import check as check
    from limner.data.files import Files as Files
    from limner.data.memory import Pixels as Pixels
    from limner.data.memory import Points as Points
    from limner.data.sources import get as get
    from limner.data.sources import list_sources as list_sources
    from limner.data.sources import load as load

_HOMES = {
    "Files": "limner.data.files",
    "Pixels": "limner.data.memory",
    "Points": "limner.data.memory",
    "Report": "limner.data.check",
    "check": "limner.data.check",
    "get": "limner.data.sources",
    "list_sources": "limner.data.sources",
    "load": "limner.data.sources",
}

__all__ = ["Files", "Pixels", "Points", "Report", "check", "get", "list_sources", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # `check` is a function and a module: the function is what the package offers
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
