"""Sampling options: what can be chosen each time that a model draws.

A model declares them as keyword-only parameters with defaults, those of its `draw` or of its prior's `sample`. Their
annotations are checked here and nowhere else, so that Python and the command line refuse a value in the same words.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import Parameter
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from limner.core.errors import LimnerError, unknown

_CONFIG = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
_NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_COUNTS = ("no", "one", "two", "three", "four")
_BOUNDS = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}


def declared(function: Callable[..., Any]) -> dict[str, Parameter]:
    """The keyword-only parameters of a function, or the fields of a dataclass of keyword-only ones, by name.

    >>> def sample(n: int, *, truncation: float | None = None) -> None: ...
    >>> list(declared(sample))
    ['truncation']
    """
    # The annotations of an inherited field belong to the module of the class that declares it.
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.replace(annotation=hints[p.name]) for p in parameters if p.kind is p.KEYWORD_ONLY}


def checked(
    model: str, options: Mapping[str, Parameter], values: Mapping[str, Any], settings: Iterable[str] = ()
) -> dict[str, Any]:
    """The values that are not None, converted to the types of their options. None stands for the default.

    Args:
        model: name of the model, for messages.
        options: the options that it declares.
        values: values of some of them, by name.
        settings: further words that the caller takes, for the nearest match to a wrong one.

    Raises:
        LimnerError: the model has no such option, or a value has the wrong type or is out of range.

    >>> def draw(*, steps: int = 20, sampler: Literal["euler", "heun"] = "heun") -> None: ...
    >>> checked("ddpm", declared(draw), {"steps": "8", "sampler": None})
    {'steps': 8}
    >>> checked("ddpm", declared(draw), {"sampler": "huen"})
    Traceback (most recent call last):
    limner.core.errors.LimnerError: unknown sampler 'huen'; did you mean 'heun'?
    """
    chosen = {key: value for key, value in values.items() if value is not None}
    for key in chosen:
        if key not in options:
            raise _missing(model, key, list(options), settings)
    return {key: _converted(options[key], value) for key, value in chosen.items()}


def limits(annotation: Any) -> str:
    """The range of a number in words, or "".

    >>> from pydantic import Field
    >>> limits(Annotated[int, Field(ge=1, le=1000)]), limits(Annotated[float, Field(gt=0)] | None), limits(int)
    ('from 1 to 1000', 'above 0', '')
    """
    if get_origin(annotation) is not Annotated:
        return next(filter(None, map(limits, get_args(annotation))), "")
    found = [m for part in annotation.__metadata__ for m in getattr(part, "metadata", (part,))]
    bounds = {k: getattr(m, k) for m in found for k in _BOUNDS if getattr(m, k, None) is not None}
    if {"ge", "le"} <= bounds.keys():
        return f"from {bounds['ge']:g} to {bounds['le']:g}"
    return " and ".join(f"{words} {bounds[k]:g}" for k, words in _BOUNDS.items() if k in bounds)


def _missing(model: str, key: str, options: list[str], settings: Iterable[str]) -> LimnerError:
    near = difflib.get_close_matches(key, [*options, *(s for s in settings if s != key)], n=1)
    if near:
        return LimnerError(f"{model} has no sampling option {key!r}; did you mean {near[0]!r}?")
    available = f"it has {', '.join(options)}" if options else "it has none"
    return LimnerError(f"{model} has no sampling option {key!r} ({available}); leave {key} out")


def _converted(option: Parameter, value: Any) -> Any:
    """A value of the type of its option."""
    types = list(_alternatives(option.annotation))
    choices = [c for t in types if get_origin(t) is Literal for c in get_args(t)]
    problem = LimnerError(f"{option.name} must be {' or '.join(map(_described, types))}, got {value}")
    if isinstance(value, bool) and not {bool, Any} & set(types) and value not in choices:
        raise problem  # pydantic takes True for 1
    try:
        return TypeAdapter(option.annotation, config=_CONFIG).validate_python(value)
    except ValidationError as error:
        reasons = [e["msg"].removeprefix("Value error, ") for e in error.errors() if e["type"] == "value_error"]
    if reasons:
        raise LimnerError(f"{option.name}: {reasons[0]}")
    raise unknown(option.name, value, map(str, choices)) if len(types) == 1 and choices else problem


def _described(annotation: Any) -> str:
    """What a value must be, as a noun with its range."""
    if get_origin(annotation) is Annotated:
        return f"{_described(get_args(annotation)[0])} {limits(annotation)}".strip()
    if get_origin(annotation) is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    if get_origin(annotation) is tuple:
        elements = get_args(annotation)
        return f"{_COUNTS[len(elements)]} numbers such as {','.join(['0.2', '5', '8', '9'][: len(elements)])}"
    return _NOUNS.get(annotation, str(annotation))


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows, without None."""
    if get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _alternatives(part)
    elif annotation is not NoneType:
        yield Any if annotation is Parameter.empty else annotation
