"""Sampling options of an evaluation, such as ``steps=1,5,20``: a row of scores for each combination of values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from inspect import Parameter, isclass
from itertools import product
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from limner.config.call import read_options
from limner.config.written import read_as
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.yaml_text import Text

_NEAR = 0.7


def combinations(
    model: GenerativeModel, written: Mapping[str, Any], settings: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """The options of each row: all combinations of the values that a user wrote; one row without options for none.

    Args:
        model: declares its sampling options.
        written: values by option, where a list, or a text with commas, stands for several rows. An option that takes a
            sequence itself, such as ``interval=0.3,5``, makes rows of a list of sequences (``[[0.3,5],[1,2]]``).
        settings: names that an unknown option may be a misspelling of.

    Raises:
        LimnerError: the model has no such option, or a value is not possible.
    """
    for name in written:
        if name not in model.sampling_options:
            # steps is not a misspelling of seeds
            model.checked_options({name: written[name]}, difflib.get_close_matches(name, list(settings), cutoff=_NEAR))
    values = {name: _values(model.sampling_options[name], value) for name, value in written.items()}
    rows = [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]
    chosen = [model.checked_options(read_options(model.sampling_options, row)) for row in rows]
    return [row for i, row in enumerate(chosen) if row not in chosen[:i]]


def _values(parameter: Parameter, written: Any) -> list[Any]:
    """The values of one option, of which each makes rows."""
    if _takes_sequences(parameter.annotation):
        if isinstance(written, Text):
            is_several = written.replace(" ", "").startswith("[[")
            written = read_as(written, list[parameter.annotation] if is_several else parameter.annotation)  # type: ignore[name-defined]
        is_several = isinstance(written, list | tuple) and any(isinstance(v, list | tuple) for v in written)
        return list(written) if is_several else [written]
    if isinstance(written, Text):
        written = read_as(written, list[parameter.annotation])  # type: ignore[name-defined]
    values = list(written) if isinstance(written, list | tuple) else [written]
    if not values:
        raise LimnerError(f"{parameter.name}: there is no value in the list; write {parameter.name}=VALUE")
    return values


def _takes_sequences(annotation: Any) -> bool:
    """Whether one value of this type is a sequence."""
    origin = get_origin(annotation) or annotation
    if origin in (Union, UnionType, Annotated):
        return any(map(_takes_sequences, get_args(annotation)[: 1 if origin is Annotated else None]))
    return isclass(origin) and issubclass(origin, Sequence) and not issubclass(origin, str)
