"""A call that has not been made yet.

`Spec(kind, name, kwargs)` stands for ``constructor(**kwargs)``. The constructor's own signature is the only
place where an option is declared: validation, defaults, JSON Schema and `limner explain` are read from it.

Three kinds of arguments need not be written:

* **facts of the data** (`Dataset.facts`) are filled in at build time: models and nets ask for them by keyword-only
  arguments;
* a **required argument of a nested net** is inherited from the model around it (``z`` is written once);
* everything else has its default.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticUndefined

from limner.config.catalogue import find, names
from limner.core.errors import LimnerError, unknown


@dataclass(frozen=True)
class Argument:
    """One argument of a constructor, as its signature and docstring declare it.

    Attributes:
        is_fact: whether the data decide it, so that nobody writes it: the shape of an image, the number of classes.
    """

    name: str
    annotation: Any
    default: Any
    text: str
    is_fact: bool = False

    @property
    def required(self) -> bool:
        """Whether the constructor gives no default."""
        return self.default is inspect.Parameter.empty

    @property
    def is_net(self) -> bool:
        """Whether the argument is a nested network."""
        return any(_is_module(a) for a in (self.annotation, *typing.get_args(self.annotation)))

    @property
    def type(self) -> str:
        """The type for people: ``int``, ``'mse' | 'bce'``, ``net``."""
        return "net" if self.is_net else _type_name(self.annotation)


def _is_module(annotation: Any) -> bool:
    return inspect.isclass(annotation) and any(c.__name__ == "Module" for c in annotation.__mro__)


def _type_name(annotation: Any) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        hint = {"count": "count such as 10k", "duration": "duration such as 20m"}
        named = [hint[m.func.__name__] for m in args[1:] if getattr(m, "func", None) and m.func.__name__ in hint]
        return named[0] if named else _type_name(args[0])
    if origin is typing.Literal:
        return " | ".join(repr(a) for a in args)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_name(a) for a in args)
    if annotation is type(None):
        return "none"
    if origin is not None:
        return f"{origin.__name__}[{', '.join('…' if a is Ellipsis else _type_name(a) for a in args)}]"
    return getattr(annotation, "__name__", str(annotation))


@cache
def arguments(kind: str, name: str) -> dict[str, Argument]:
    """The arguments of a constructor in order of declaration."""
    constructor = find(kind, name)
    found: dict[str, Argument] = {}
    for part in getattr(constructor, "declares", (constructor,)):
        target = part.__init__ if inspect.isclass(part) else part
        # What a function returns is left out: that type may be imported for type checkers alone.
        declared = {k: v for k, v in target.__annotations__.items() if k != "return"}
        shim = types.SimpleNamespace(__annotations__=declared)
        hints = typing.get_type_hints(shim, globalns=_namespace(part), include_extras=True)
        texts = _documented(inspect.getdoc(part) or "") | _documented(inspect.getdoc(target) or "")
        for p in inspect.signature(part).parameters.values():
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "options":
                fact = p.kind is p.KEYWORD_ONLY and kind in ("model", "net")
                annotation = hints.get(p.name, p.annotation)
                found[p.name] = Argument(p.name, annotation, p.default, texts.get(p.name, ""), fact)
    return found


def _namespace(part: Any) -> dict[str, Any]:
    """The globals in which the annotations of a constructor were written."""
    return vars(sys.modules[part.__module__])


def _documented(doc: str) -> dict[str, str]:
    """The entries of a Google-style ``Args:`` section."""
    found = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE)
    if not found:
        return {}
    entries = re.findall(r"^ {4}(\w+)(?: \(.*?\))?:(.*(?:\n {5,}.*)*)", found[1], re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


@cache
def form(kind: str, name: str) -> type[BaseModel]:
    """A pydantic model of a constructor's arguments; no argument is required, since facts come later."""
    fields: dict[str, Any] = {}
    for a in arguments(kind, name).values():
        if a.is_net:
            optional = type(None) in typing.get_args(a.annotation)
            annotation: Any = Annotated[Any, BeforeValidator(_as_net(optional))]
        else:
            annotation = a.annotation
        default = None if a.required else a.default
        fields[a.name] = (annotation, Field(default=default, description=a.text or None))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_default=False, protected_namespaces=())
    return create_model(f"{kind}:{name}", __config__=config, **fields)


def _as_net(optional: bool) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        return None if value is None and optional else Spec.parse("net", value)

    return convert


@dataclass(frozen=True)
class Spec:
    """A call not yet made: kind and name in the catalogue, and checked keyword arguments.

    >>> s = Spec.parse("optimiser", {"name": "adam", "lr": "1e-3"})
    >>> s.kwargs
    {'lr': 0.001}
    """

    kind: str
    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, kind: str, data: Any, where: str = "", name: str | None = None) -> Spec:
        """Checks ``{"name": ..., argument: value, ...}`` (or just a name) against the constructor.

        Args:
            kind: kind in the catalogue.
            data: the mapping, or a name.
            where: where it stands in the recipe, for messages.
            name: the name to take when `data` has none.

        Raises:
            LimnerError: unknown name or argument (with the nearest match), or a value of the wrong type.
        """
        if isinstance(data, Spec):
            return data
        where = where or kind
        if isinstance(data, str):
            data = {"name": data}
        if not isinstance(data, Mapping):
            raise LimnerError(f"{where}: expected 'name: …' with arguments, got {data!r}")
        kwargs = dict(data)
        name = kwargs.pop("name", name)
        if name is None:
            raise LimnerError(f"{where}: 'name' is missing; add name: and a {kind} from 'limner list {kind}s'")
        if not isinstance(name, str):
            raise LimnerError(f"{where}: a name must be text, got {name!r}; write name: NAME")
        known = arguments(kind, name)
        for key in kwargs:
            if key not in known:
                error = unknown(f"argument of {name}", key, [k for k, a in known.items() if not a.is_fact])
                raise LimnerError(f"{where}: {error}")
        try:
            checked = form(kind, name)(**kwargs)
        except ValidationError as error:
            raise LimnerError(_one_line(where, error)) from None
        return cls(kind, name, {k: getattr(checked, k) for k in kwargs})

    def get(self, name: str) -> Any:
        """The value of an argument, or the constructor's default."""
        return self.kwargs.get(name, arguments(self.kind, self.name)[name].default)

    def resolve(self, **facts: Any) -> Spec:
        """The same call with facts of the data and inherited arguments written in.

        Raises:
            LimnerError: a required argument is still missing.
        """
        known = arguments(self.kind, self.name)
        kwargs = dict(self.kwargs)
        for a in known.values():
            if a.name not in kwargs and a.name in facts and (a.required or a.is_fact):
                kwargs[a.name] = facts[a.name]
        missing = [a.name for a in known.values() if a.required and a.name not in kwargs]
        if missing:
            raise LimnerError(f"{self.name}: argument {missing[0]!r} is missing; write it as {missing[0]}: VALUE")
        own = {a.name: kwargs.get(a.name, a.default) for a in known.values()}
        inherited = facts | {k: v for k, v in own.items() if not isinstance(v, Spec)}
        resolved = {k: v.resolve(**inherited) if isinstance(v, Spec) else v for k, v in kwargs.items()}
        return Spec(self.kind, self.name, resolved)

    def build(self, **facts: Any) -> Any:
        """Makes the call, innermost first.

        Raises:
            LimnerError: an argument is missing or a constructor refuses its arguments.
        """
        spec = self.resolve(**facts)
        kwargs = {k: v.build() if isinstance(v, Spec) else v for k, v in spec.kwargs.items()}
        for a in arguments(self.kind, self.name).values():
            if a.is_net:
                self._check_net(a, kwargs.get(a.name))
        try:
            return find(spec.kind, spec.name)(**kwargs)
        except (ValueError, TypeError, RuntimeError) as error:
            raise LimnerError(f"{spec.name}: {' '.join(str(error).split())}") from error

    def _check_net(self, argument: Argument, net: Any) -> None:
        """Raises a `LimnerError` where a net is of another kind than the constructor asks for."""
        wanted = tuple(t for t in (argument.annotation, *typing.get_args(argument.annotation)) if _is_module(t))
        if net is None or isinstance(net, wanted):
            return
        fitting = [n for n in names("net") if issubclass(find("net", n), wanted)]  # type: ignore[arg-type]
        given = self.kwargs[argument.name].name
        raise LimnerError(
            f"{self.name}: {given} is no {wanted[0].__name__}, which {argument.name} must be; choose from:"
            f" {', '.join(fitting)}"
        )

    def agrees(self, call: Mapping[str, Any]) -> bool:
        """Whether another description is of the same model; facts that it does not have are left out of the comparison.

        Descriptions of earlier versions know fewer facts.
        """
        other = Spec.parse(self.kind, dict(call))
        return self._like(other).to_dict() == other.to_dict()

    def _like(self, other: Spec) -> Spec:
        """This call without the facts that another one does not have."""
        known = arguments(self.kind, self.name)
        kept = {k: v for k, v in self.kwargs.items() if k in other.kwargs or not known[k].is_fact}
        nested = {k: v._like(other.kwargs[k]) for k, v in kept.items() if _both_specs(v, other.kwargs.get(k))}
        return Spec(self.kind, self.name, kept | nested)

    def to_dict(self) -> dict[str, Any]:
        """Plain mapping as written in YAML; `parse` reads it back."""
        return {"name": self.name} | {k: _plain(v) for k, v in self.kwargs.items()}

    def to_json(self) -> str:
        """JSON text of `to_dict`."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, kind: str, text: str) -> Spec:
        """Reads what `to_json` wrote, checking it as anything else."""
        return cls.parse(kind, json.loads(text))


def _both_specs(a: Any, b: Any) -> bool:
    return isinstance(a, Spec) and isinstance(b, Spec) and a.name == b.name


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _one_line(where: str, error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join([where, *(str(p) for p in first["loc"] if isinstance(p, str) and p.isidentifier())])
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    given = first.get("input")
    shown = "" if given is PydanticUndefined or repr(given) in reason else f", got {given!r}"
    return f"{place}: {reason[0].lower() + reason[1:]}{shown}"


def schema(kind: str, name: str) -> dict[str, Any]:
    """JSON Schema of a constructor's arguments."""
    described = {"title": name, "type": "object", "additionalProperties": False, "properties": {}}
    properties: dict[str, Any] = described["properties"]  # type: ignore[assignment]
    whole = form(kind, name).model_json_schema()["properties"]
    for a in arguments(kind, name).values():
        if a.is_fact:
            continue
        entry = {k: v for k, v in whole[a.name].items() if k != "title"}
        if a.is_net:
            entry |= {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
        if a.required:
            entry.pop("default", None)
        properties[a.name] = entry
    return described
