"""Paths and names as users write them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from limner.core.errors import LimnerError, unknown

BUILTIN = "builtin:"
"""Before a name: what limner has under this name is meant, whatever lies on disk."""


def user_path(path: str | os.PathLike[str], what: str = "a path") -> Path:
    """The path that a user wrote, with ``~`` for the home folder.

    Raises:
        LimnerError: it is empty, or can be no path.

    >>> user_path("photos/").name
    'photos'
    """
    text = os.fspath(path)
    if not text.strip() or "\0" in text:
        raise LimnerError(f"{text!r} is not {what}; write the path of a file or folder")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~NAME without such a user
        return Path(text)


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file or folder; False where the text can be no path."""
    try:
        return user_path(path).exists()
    except (LimnerError, OSError):
        return False


def named(text: str | os.PathLike[str], known: Iterable[str], what: str) -> str | None:
    """The name of `known` that a user's text stands for; None if it stands for a path.

    Args:
        text: a name, a name after ``builtin:``, or a path. A `Path` is always a path.
        known: the names.
        what: what they are names of, such as "data set".

    Raises:
        LimnerError: a file or folder has the same name, or there is no such name after ``builtin:``.

    >>> named("digits", ["digits"], "data set"), named("./digits", ["digits"], "data set")
    ('digits', None)
    """
    if not isinstance(text, str):
        return None
    if text.startswith(BUILTIN):
        name = text.removeprefix(BUILTIN)
        if name not in known:
            raise unknown(what, name, known)
        return name
    if text not in known:
        return None
    if exists(text):
        kind = "folder" if Path(text).is_dir() else "file"
        raise LimnerError(
            f"{text} is a {kind} here, and also the name of a {what} of limner: write ./{text} for the {kind}, or"
            f" {BUILTIN}{text} for the {what}"
        )
    return text
