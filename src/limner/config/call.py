"""Checks and converts keyword arguments according to the annotations of a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from limner.config.written import read_as
from limner.core.errors import LimnerError, unknown

_WRITTEN = (
    str,
    int,
    float,
    list,
    tuple,
    dict,
    Path,
    type(None),
)  # types of written values; other objects pass unchecked

P = ParamSpec("P")
R = TypeVar("R")


def keywords(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Types and defaults of the keyword-only arguments of a function, by name."""
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: (hints[p.name], p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


def read(fields: Mapping[str, tuple[Any, Any]], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all fields: the converted `values`, and defaults for the others.

    Args:
        fields: type and default of each field, as `keywords` returns them.
        values: values of some fields by name.

    Raises:
        LimnerError: a value has the wrong type; the message names the field, the expected type and the value.

    >>> read({"size": (int, 512), "strength": (float, 1.0)}, {"size": "64"})
    {'size': 64, 'strength': 1.0}
    """
    definitions: dict[str, Any] = dict(fields)
    try:
        config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
        model = create_model("settings", __config__=config, **definitions)(**values)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        raise LimnerError(f"{first['loc'][0]}: {reason[0].lower() + reason[1:]}; got {first['input']!r}") from None
    return {key: getattr(model, key) for key in fields}


def read_options(declared: Mapping[str, inspect.Parameter], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a call, of which those that a user wrote as text are read by their declarations.

    A text that does not fit its type stays, so that the model's check of its options can report it.
    """
    return {k: read_as(v, declared[k].annotation) if k in declared else v for k, v in options.items()}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function so that its keyword arguments are checked and converted, or a `LimnerError` is raised."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        fields, parameters = keywords(function), inspect.signature(function).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            for key in kwargs:
                if key not in parameters:
                    raise unknown("setting", key, fields)
        written: dict[str, Any] = {k: v for k, v in kwargs.items() if k in fields and isinstance(v, _WRITTEN)}
        return function(*args, **kwargs | read({k: fields[k] for k in written}, written))  # type: ignore[arg-type]

    return called
