"""What a function takes, and what people wrote for it: the command line is derived from signatures.

`limner VERB --help` is drawn from functions that work with torch, which takes seconds to import. `source` reads them in
their files, which takes milliseconds. Once a function is imported, `read_texts` reads values by its annotations.
"""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from inspect import Parameter
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from limner.core.errors import unknown

_PACKAGE = Path(__file__).resolve().parent.parent
_ENTRY = re.compile(r"^ {4}\**(\w+)(?: \(.*?\))?:(.*(?:\n {5,}.*)*)", re.MULTILINE)


class Setting(NamedTuple):
    """What people may set; the annotation is text, and the default None where there is nothing to show."""

    name: str
    annotation: str
    default: Any
    text: str


@dataclass(frozen=True)
class Source:
    """A function, or the constructor of a class, as it is written.

    Attributes:
        doc: the docstring, without indentation.
        parameters: by name and in order, without `self`. Annotations are text; a default is its value where that is a
            literal, and an Ellipsis where it is not.
    """

    doc: str
    parameters: dict[str, Parameter]

    @cached_property
    def texts(self) -> dict[str, str]:
        """What the section ``Args:`` says of each parameter, in one line."""
        args = re.split(r"^\w+:\n", self.doc.partition("Args:\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
        return {name: " ".join(text.split()) for name, text in _ENTRY.findall(args)}

    @property
    def settings(self) -> Iterator[Setting]:
        """What has a default, and is no object that only a program has."""
        for p in self.parameters.values():
            if p.default is not Parameter.empty and not re.search("Progress|Callable", p.annotation):
                shown = None if p.default is False or p.default in (..., "", ()) else p.default
                yield Setting(p.name, p.annotation, shown, self.texts.get(p.name, ""))


@cache
def source(path: str) -> Source | None:
    """Signature and docstring of what a dotted path such as ``limner.apply.draw.draw`` names; None if there is none.

    >>> found = source("limner.core.units.shares")
    >>> list(found.parameters), found.doc.split(";")[0]
    (['given', 'n', 'name'], 'The parts of a whole for n things, of what somebody gave for them')
    """
    *parents, name = path.split(".")[1:]
    place = _PACKAGE.joinpath(*parents)
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        for node in _defined(file) if file.is_file() else ():
            if node.name == name:
                made = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
                call = node if isinstance(node, ast.FunctionDef) else made[0] if made else None
                return Source(ast.get_docstring(node) or "", _parameters(call.args) if call else {})
    return None


@cache
def _defined(file: Path) -> list[ast.FunctionDef | ast.ClassDef]:
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
    """Keyword arguments of a function, of the texts that people wrote for them on a command line.

    An argument is read by its annotation: what is meant as text or as a path stays as it is written. A key that the
    function does not declare is one of a recipe and read as YAML, if the function takes such keys.

    Raises:
        LimnerError: a value does not fit, or the function does not take a key.

    >>> def draw(n: int, *, out: str = "", y: int | None = None, **overrides: object) -> None: ...
    >>> read_texts(draw, {"n": "9", "out": "2024", "y": "null", "train.batch": "32"})
    {'n': 9, 'out': '2024', 'y': None, 'train.batch': 32}
    """
    from limner.config.call import read  # with pydantic, which help need not wait for
    from limner.core.yaml_text import parse_value

    parameters, hints = inspect.signature(function).parameters, get_type_hints(function, include_extras=True)
    own = {k: p for k, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    others = {k: parse_value(text) for k, text in texts.items() if k not in own}
    if others and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise unknown("setting", next(iter(others)), [k for k, p in own.items() if p.default is not p.empty])
    fields = {k: (hints[k], own[k].default) for k in texts if k in own}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # a setting may be called schema, or json
        return read(fields, {k: _plain(texts[k], set(_kinds(hints[k]))) for k in fields}) | others


def _plain(text: str, kinds: set[Any]) -> Any:
    """The text, or the nothing, whole number, list or mapping that it stands for where one of these is allowed."""
    from limner.core.yaml_text import parse_value

    if NoneType in kinds and text in ("null", "none", "~"):
        return None
    if int in kinds and str not in kinds and re.fullmatch(r"-?\d+", text):
        return int(text)  # so that a number out of range is told as a number
    holds = any(isinstance(k, type) and issubclass(k, Sequence | Mapping) for k in kinds - {str})
    return parse_value(text) if holds and text[:1] in ("[", "{") else text


def _kinds(annotation: Any) -> Iterator[Any]:
    """The classes that an annotation allows, without what they hold."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin in (Annotated, Union, UnionType):
        for part in inside[:1] if origin is Annotated else inside:
            yield from _kinds(part)
    else:
        yield origin or annotation
