"""One look at the files for everything that is read of them at once.

A training reads its images and the held-out ones from the same folder. Within `one_look` the folder is listed and its
layout found out only once, which takes seconds for a million files.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_SEEN: ContextVar[dict[Hashable, Any] | None] = ContextVar("seen", default=None)


@contextmanager
def one_look() -> Iterator[None]:
    """Files are taken to stay as they are until the end."""
    token = _SEEN.set({})
    try:
        yield
    finally:
        _SEEN.reset(token)


def seen(key: Hashable, look: Callable[[], T]) -> T:
    """The result of `look`, which is called once for each key within `one_look`, and each time elsewhere."""
    known = _SEEN.get()
    if known is None:
        return look()
    if key not in known:
        known[key] = look()
    return known[key]
