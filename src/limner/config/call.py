"""Keyword arguments that people write, read by the annotations of the function that takes them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from limner.core.errors import LimnerError, unknown

_WRITTEN = (str, int, float, list, tuple, dict, Path, type(None))  # objects are what programs hand over

P = ParamSpec("P")
R = TypeVar("R")


def keywords(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Type and default of the keyword-only arguments of a function, by name."""
    hints = get_type_hints(function, include_extras=True)
    found = inspect.signature(function).parameters.values()
    return {p.name: (hints[p.name], p.default) for p in found if p.kind is p.KEYWORD_ONLY}


def read(fields: Mapping[str, tuple[Any, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all fields, those that are given checked against their types.

    Args:
        fields: type and default of each, as `keywords` gives them.
        given: values by name, each of them a field.

    Raises:
        LimnerError: a value does not fit; the message names the field, what it should be, and what it is.

    >>> read({"size": (int, 512), "strength": (float, 1.0)}, {"size": "64"})
    {'size': 64, 'strength': 1.0}
    """
    chosen: dict[str, Any] = dict(fields)
    try:
        form = create_model("settings", __config__=ConfigDict(arbitrary_types_allowed=True), **chosen)(**given)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        raise LimnerError(f"{first['loc'][0]}: {reason[0].lower() + reason[1:]}; got {first['input']!r}") from None
    return {key: getattr(form, key) for key in fields}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with keyword arguments that are checked against its annotations before it begins.

    Raises:
        LimnerError: a value that does not fit, or a name that the function does not have.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        fields, parameters = keywords(function), inspect.signature(function).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            for key in kwargs:
                if key not in parameters:
                    raise unknown("setting", key, fields)
        own: dict[str, Any] = {k: v for k, v in kwargs.items() if k in fields and isinstance(v, _WRITTEN)}
        return function(*args, **kwargs | read({k: fields[k] for k in own}, own))  # type: ignore[arg-type]

    return called
