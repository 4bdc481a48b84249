"""The one error a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any


class LimnerError(Exception):
    """Something the user can put right.

    The message is one line that says what is wrong and what to do about it. The command line prints it
    without a traceback and exits with code 2.
    """


def unknown(kind: str, name: object, known: Iterable[str]) -> LimnerError:
    """The error for a name that is not among the known ones, with the nearest matches.

    >>> print(unknown("recipe", "gan-minst", ["gan-mnist", "dcgan-64"]))
    unknown recipe 'gan-minst'; did you mean 'gan-mnist'?
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    if near:
        hint = "did you mean " + " or ".join(repr(n) for n in near) + "?"
    elif known:
        shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
        hint = f"choose from: {shown}"
    else:
        hint = "there is none to choose from"
    return LimnerError(f"unknown {kind} {name!r}; {hint}")


def extra(module: str, name: str, what: str) -> Any:
    """A module that only comes with one of limner's extras.

    Args:
        module: to import.
        name: of the extra.
        what: needs it, to begin the sentence with.

    Raises:
        LimnerError: it is not there, or does not work here.

    >>> extra("math", "video", "clips need PyAV").__name__
    'math'
    """
    try:
        return import_module(module)
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit its torch raises the latter
        why = "" if isinstance(error, ModuleNotFoundError) else f", which does not work here ({error})"
        raise LimnerError(f"{what}{why}; install it with: pip install 'limner[{name}]'") from None
