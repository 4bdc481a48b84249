"""Signatures and docstrings, from which the command line is derived.

`limner VERB --help` describes functions that use torch, whose import takes seconds. `source` reads signatures from the
source files instead, which takes milliseconds. After a function is imported, `read_texts` converts the texts of a
command line according to its annotations.
"""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from inspect import Parameter
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from limner.core.errors import unknown

_PACKAGE = Path(__file__).resolve().parent.parent
_ENTRY = re.compile(r"^ {4}\**(\w+)(?: \(.*?\))?:(.*(?:\n {5,}.*)*)", re.MULTILINE)


class Setting(NamedTuple):
    """A setting of a function. The annotation is text; the default is None if there is nothing to show."""

    name: str
    annotation: str
    default: Any
    text: str


@dataclass(frozen=True)
class Source:
    """Signature and docstring of a function, or of a class and its constructor, read from the source file.

    Attributes:
        doc: the docstring, without indentation.
        parameters: the parameters by name, without `self`. Annotations are text. A default is its value if it is a
            literal, else an Ellipsis.
    """

    doc: str
    parameters: dict[str, Parameter]

    @cached_property
    def texts(self) -> dict[str, str]:
        """The description of each parameter, in one line."""
        return argument_texts(self.doc)

    @property
    def settings(self) -> Iterator[Setting]:
        """The parameters with a default that can be written as text; `try_` is written ``try``."""
        for p in self.parameters.values():
            if p.default is not Parameter.empty and not re.search("Progress|Callable", p.annotation):
                shown = None if p.default is False or p.default in (..., "", ()) else p.default
                yield Setting(p.name.rstrip("_"), p.annotation, shown, self.texts.get(p.name, ""))


def argument_texts(doc: str) -> dict[str, str]:
    """The entries of the section ``Args:`` of a Google-style docstring without indentation, each in one line."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in _ENTRY.findall(section[1])} if section else {}


@cache
def source(path: str) -> Source | None:
    """Signature and docstring of the function or class at a dotted path such as ``limner.apply.draw.draw``, or None.

    >>> shares = source("limner.core.units.shares")
    >>> list(shares.parameters), shares.doc.split(";")[0]
    (['values', 'n', 'name'], 'Normalises n weights to the sum 1')
    """
    *parents, name = path.split(".")[1:]
    module = _PACKAGE.joinpath(*parents)
    for file in (module.with_suffix(".py"), module / "__init__.py"):
        for node in _definitions(file) if file.is_file() else ():
            if node.name == name:
                inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
                call = node if isinstance(node, ast.FunctionDef) else inits[0] if inits else None
                return Source(ast.get_docstring(node) or "", _parameters(call.args) if call else {})
    return None


@cache
def _definitions(file: Path) -> list[ast.FunctionDef | ast.ClassDef]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def _parameters(args: ast.arguments) -> dict[str, Parameter]:
    plain = [*args.posonlyargs, *args.args]
    defaults = [*[None] * (len(plain) - len(args.defaults)), *args.defaults]
    rows: list[tuple[ast.arg | None, Any, ast.expr | None]] = [
        *((a, Parameter.POSITIONAL_OR_KEYWORD, default) for a, default in zip(plain, defaults)),
        (args.vararg, Parameter.VAR_POSITIONAL, None),
        *((a, Parameter.KEYWORD_ONLY, default) for a, default in zip(args.kwonlyargs, args.kw_defaults)),
        (args.kwarg, Parameter.VAR_KEYWORD, None),
    ]
    return {
        a.arg: Parameter(a.arg, kind, default=_value(default), annotation=ast.unparse(a.annotation or ast.Name("")))
        for a, kind, default in rows
        if a is not None and a.arg != "self"
    }


def _value(default: ast.expr | None) -> Any:
    try:
        return Parameter.empty if default is None else ast.literal_eval(default)
    except ValueError:
        return ...


def read_texts(function: Callable[..., Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """Keyword arguments of a function, converted from the texts of a command line.

    A value is read by its annotation (`limner.config.written`). Keys that the function does not declare are keys of a
    recipe, or options of a model, if the function takes ``**overrides``; they stay `Text` until their type is known.

    Raises:
        LimnerError: a value has the wrong type, or the function has no such argument.

    >>> def draw(n: int, *, out: str = "", y: int | None = None, **overrides: object) -> None: ...
    >>> read_texts(draw, {"n": "9", "out": "2024", "y": "null", "train.batch": "32"})
    {'n': 9, 'out': '2024', 'y': None, 'train.batch': '32'}
    """
    from limner.config.call import read  # imports pydantic, which help does not need
    from limner.config.written import read_as
    from limner.core.yaml_text import Text

    parameters, hints = inspect.signature(function).parameters, get_type_hints(function, include_extras=True)
    named = {k: p for k, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    overrides = {k: Text(text) for k, text in texts.items() if k not in named}
    if overrides and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise unknown("setting", next(iter(overrides)), [k for k, p in named.items() if p.default is not p.empty])
    fields = {k: (hints[k], named[k].default) for k in texts if k in named}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # pydantic warns of fields such as "json"
        return read(fields, {k: read_as(Text(texts[k]), hints[k]) for k in fields}) | overrides
