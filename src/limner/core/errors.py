"""The errors that users read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any


class LimnerError(Exception):
    """An error that the user can correct.

    The message is one line that says what is wrong and what to do. The command line prints it without a traceback and
    exits with code 2.
    """


class LimnerWarning(UserWarning):
    """Something was left out or converted. The message is one line, which the command line prints like an error."""


def unknown(kind: str, name: object, known: Iterable[str]) -> LimnerError:
    """The error for an unknown name, with the nearest known names.

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
    """Imports a module of one of limner's optional dependencies ("extras").

    Args:
        module: name of the module.
        name: name of the extra.
        what: start of the error message: what needs the module.

    Raises:
        LimnerError: the module is not installed, or does not work on this machine.

    >>> extra("math", "video", "clips need PyAV").__name__
    'math'
    """
    try:
        return import_module(module)
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit the installed torch
        reason = "" if isinstance(error, ModuleNotFoundError) else f", which does not work here ({error})"
        raise LimnerError(f"{what}{reason}; install it with: pip install 'limner[{name}]'") from None
