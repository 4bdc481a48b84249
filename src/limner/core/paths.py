"""Paths and names as users write them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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


def shown(name: str) -> str:
    r"""A name on one line: with line breaks, escape sequences or other bytes than UTF-8 it is quoted.

    >>> print(shown("a b.png"), shown("a\nb.png"))
    a b.png 'a\nb.png'
    """
    return name if name.isprintable() else repr(name)


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file or folder; False where the text can be no path."""
    try:
        return user_path(path).exists()
    except (LimnerError, OSError):
        return False


def path_text(path: os.PathLike[str]) -> str:
    """A `Path` as a text that is never a name: ``./photos`` for ``Path("photos")``.

    >>> path_text(Path("photos")), path_text(Path("my/photos"))
    ('./photos', 'my/photos')
    """
    text = os.fspath(path)
    return text if len(Path(text).parts) != 1 or Path(text).is_absolute() or text[:1] in (".", "~") else f"./{text}"


def as_text(path: str | os.PathLike[str]) -> str:
    """A text as it is, and a `Path` as `path_text`."""
    return str(path) if isinstance(path, str) else path_text(path)


def plain_name(text: str) -> str:
    """A name without ``builtin:``."""
    return text.removeprefix(BUILTIN)


@dataclass(frozen=True)
class NameOrPath:
    """Marks in an annotation that a text may be one of limner's names as well as a path.

    Args:
        names: gives the names.
        what: what they are names of, such as "data set".
    """

    names: Callable[[], Iterable[str]]
    what: str


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
        raise ambiguous(text, text, what)
    return str(text)


def ambiguous(text: str, path: str, what: str) -> LimnerError:
    """The error for a text that is a name of limner and stands for a file or folder too."""
    kind = "folder" if Path(path).is_dir() else "file"
    return LimnerError(
        f"{text} is the name of a {what} of limner, and there is a {kind} {path} here: write ./{path} for the {kind},"
        f" or {BUILTIN}{text} for the {what}"
    )
