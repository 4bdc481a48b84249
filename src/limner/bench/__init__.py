"""Benches: many trainings under equal conditions, and a table that compares with published ones.

`limner bench NAME` calls `run`, which imports torch; this module does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from limner.core.errors import unknown

if TYPE_CHECKING:
    from limner.core.progress import Progress

_TITLES = {
    "modes": "Modes found on the ring, the grid and Stacked MNIST: recipes × testbeds × seeds",
    "augment": "Whether generated images help a classifier that has 10, 20 or 50 real ones a class",
}


def titles() -> dict[str, str]:
    """Names of the benches, with a line about each."""
    return dict(_TITLES)


def run(name: str, *, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Runs a bench, or continues one that was interrupted, and writes its page.

    Args:
        name: a name of `titles`.
        progress: receives the progress of trainings and messages; default none.
        **settings: arguments of the bench, e.g. of `limner.bench.modes.run`.

    Returns:
        The results of the bench; ``page`` is the path of its ``index.html``.

    Raises:
        LimnerError: an unknown bench or setting, or a recipe that does not train.
    """
    if name not in _TITLES:
        raise unknown("bench", name, _TITLES)
    result: dict[str, Any] = import_module(f"limner.bench.{name}").run(progress=progress, **settings)
    return result
