"""Written values: what a text of a command line or of a recipe file means, by the type of its key.

=====================  =============================================================================================
type of the key        what a text means
=====================  =============================================================================================
text, a path           itself: ``2024``, ``no``, ``~``, ``cats #2/`` and ``2025-01-02`` are names
a number               that number in decimal digits, where ``010`` is 10
a truth value          true or false, yes or no, on or off, 1 or 0
a choice               the choice of this name
None is allowed        ``null``, ``none`` or ``~``, if the key does not take text
a list                 ``[48, 64]``, or ``48,64``, or one element
a mapping, a net       ``{r1: 1}``, ``{name: mlp.Encoder, widths: [64]}``
=====================  =============================================================================================
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from limner.core.paths import exists, path_text
from limner.core.yaml_text import Text, nested
from limner.core.yaml_text import plain as guess

_INT = re.compile(r"[-+]?[0-9](_?[0-9]){0,999}")
_FLOAT = re.compile(r"[-+]?([0-9](_?[0-9])*\.?([0-9](_?[0-9])*)?|\.[0-9](_?[0-9])*)([eE][-+]?[0-9]{1,4})?")
_NULL = ("null", "none", "~")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def read_as(value: Any, annotation: Any) -> Any:
    """A written value, by the type of its key; values that are no `Text`, and have none inside, stay as they are.

    A `Path` becomes text for a key that takes only text. A text that does not fit the type is returned as text, so that
    the check of types can report it.

    >>> read_as(Text("010"), int), read_as(Text("010"), str), read_as(Text("[no, 1]"), list[str])
    (10, '010', ['no', '1'])
    """
    if isinstance(value, Text):
        return _read_text(value, list(_alternatives(annotation)))
    if isinstance(value, PathLike) and str in _alternatives(annotation):
        return path_text(value)
    if isinstance(value, list):
        return [read_as(v, e) for v, e in zip(value, _elements(annotation, len(value)))]
    if isinstance(value, Mapping):
        of_key, of_value = _of_mapping(annotation)
        return {read_as(k, of_key): v if of_value is Any else read_as(v, of_value) for k, v in value.items()}
    return value


def _read_text(text: Text, types: list[Any]) -> Any:
    origins = [get_origin(t) or t for t in types]
    has_text = any(t is str or (inspect.isclass(t) and issubclass(t, PathLike)) for t in origins)
    lists = [t for t, o in zip(types, origins) if inspect.isclass(o) and issubclass(o, Sequence) and o is not str]
    mappings = [t for t, o in zip(types, origins) if inspect.isclass(o) and issubclass(o, Mapping)]
    tree = nested(text) if lists or mappings else None
    if isinstance(tree, list) and lists:
        return read_as(tree, lists[0])
    if isinstance(tree, dict) and mappings and (tree.get("name") or not has_text):
        return read_as(tree, mappings[0])
    if has_text:
        return str(text)
    if NoneType in types and text in _NULL:
        return None
    if lists and "," in text and _of_paths(lists[0]) and exists(text):
        return [str(text)]  # the name of a file may have a comma
    scalar = _scalar(text, types)
    if (
        lists
        and isinstance(scalar, str)
        and (len(lists) == len([t for t in types if t is not NoneType]) or "," in text)
    ):
        return read_as([Text(part.strip()) for part in text.split(",")], lists[0])
    return scalar


def _scalar(text: Text, types: list[Any]) -> Any:
    """The number or choice that a text is, if one of the types allows it; else the text."""
    choices = [choice for t in types if get_origin(t) is Literal for choice in get_args(t)]
    for choice in choices:
        if choice == str(text) or (_is_number(choice) and _INT.fullmatch(text) and int(text) == choice):
            return choice
    if text.lower() in (*_TRUE, *_FALSE) and any(isinstance(c, bool) for c in choices):
        return text.lower() in _TRUE
    if (int in types or float in types) and _INT.fullmatch(text):
        return int(text)
    if float in types and _FLOAT.fullmatch(text):
        return float(text)
    return guess(text) if Any in types or object in types else str(text)


def _is_number(choice: Any) -> bool:
    return isinstance(choice, int) and not isinstance(choice, bool)


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows."""
    origin = get_origin(annotation)
    if annotation is inspect.Parameter.empty:
        yield Any
    elif origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from _alternatives(part)
    elif annotation in (list, tuple, dict):
        yield {list: list[Any], tuple: tuple[Any, ...], dict: dict[str, Any]}[annotation]
    else:
        yield NoneType if annotation is None else annotation


def _of_paths(annotation: Any) -> bool:
    return any(inspect.isclass(t) and issubclass(t, PathLike) for t in _alternatives(_elements(annotation, 1)[0]))


def _elements(annotation: Any, n: int) -> list[Any]:
    """The type of each of n elements of a list."""
    for t in _alternatives(annotation):
        origin, args = get_origin(t), get_args(t)
        if inspect.isclass(origin) and issubclass(origin, Sequence) and args:
            fixed = origin is tuple and args[-1] is not Ellipsis
            return [args[min(i, len(args) - 1)] if fixed else args[0] for i in range(n)]
    return [Any] * n


def _of_mapping(annotation: Any) -> tuple[Any, Any]:
    """The types of keys and values; values of any type stay as they are written, because another key decides."""
    for t in _alternatives(annotation):
        if inspect.isclass(get_origin(t)) and issubclass(get_origin(t), Mapping):
            return typing.cast(tuple[Any, Any], get_args(t))
    return str, Any
