"""Benches: many trainings under equal conditions, and one table that can be set beside published ones.

`limner bench NAME` calls `run`. Nothing heavy is imported before that.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from limner.core.errors import unknown

if TYPE_CHECKING:
    from limner.core.progress import Progress

_TITLES = {"modes": "Modes found on the ring, the grid and Stacked MNIST: recipes × testbeds × seeds"}


def titles() -> dict[str, str]:
    """The benches, each in one line."""
    return dict(_TITLES)


def run(name: str, *, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Does one bench, or goes on with one that was cut off, and writes its page.

    Args:
        name: of `titles`.
        progress: who is told how training goes; default nobody.
        **settings: arguments of the bench, e.g. of `limner.bench.modes.run`.

    Returns:
        What the bench found; ``page`` is the path of its ``index.html``.

    Raises:
        LimnerError: an unknown bench or setting, or a recipe that does not train.
    """
    if name not in _TITLES:
        raise unknown("bench", name, _TITLES)
    found: dict[str, Any] = import_module(f"limner.bench.{name}").run(progress=progress, **settings)
    return found
