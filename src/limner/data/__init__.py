"""Data sets: named sets, folders and ZIP files of images, and points of known densities.

    dataset = limner.data.load("mnist-5k", size=32)
    dataset = limner.data.load("photos/", channels=3, flip=True)
    report = limner.data.check("photos/")
    limner.data.prepare("photos/", "photos.limner", size=64)

This package imports torch only when a set is loaded, so that names, options and help are fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limner.data.checks import Report as Report
    from limner.data.checks import check as check
    from limner.data.datasets import Pixels as Pixels
    from limner.data.datasets import Points as Points
    from limner.data.files.lazy import Files as Files
    from limner.data.preparing import prepare as prepare
    from limner.data.registry import SOURCES as SOURCES
    from limner.data.registry import get as get
    from limner.data.registry import list_sources as list_sources
    from limner.data.registry import load as load

_MODULES = {
    "Files": "limner.data.files.lazy",
    "Pixels": "limner.data.datasets",
    "Points": "limner.data.datasets",
    "Report": "limner.data.checks",
    "check": "limner.data.checks",
    "prepare": "limner.data.preparing",
    "SOURCES": "limner.data.registry",
    "get": "limner.data.registry",
    "list_sources": "limner.data.registry",
    "load": "limner.data.registry",
}

__all__ = ["Files", "Pixels", "Points", "Report", "check", "get", "list_sources", "load", "prepare"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _MODULES[name] in ("limner.data.checks", "limner.data.registry"):
        import_module("limner.data.sources")  # its modules register their sources
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
