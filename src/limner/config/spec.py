"""A constructor call that has not been made yet.

`Spec(kind, name, kwargs)` describes the call ``constructor(**kwargs)``. An option is declared in the signature of the
constructor only; validation, defaults, JSON Schema and `limner explain` are derived from it.

A recipe can leave out these arguments:

* **facts of the data** (`Dataset.facts`), which are keyword-only arguments of models and nets and are filled in later;
* **required arguments of a nested net** that its model has too, such as ``z``;
* all arguments with a default.
"""

from __future__ import annotations

import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticUndefined

from limner.config.catalogue import find, names
from limner.config.signatures import argument_texts
from limner.config.written import read_as
from limner.core.errors import LimnerError, unknown
from limner.core.paths import NameOrPath
from limner.core.yaml_text import Text, nested, plain

_REFUSALS = (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError, OSError, MemoryError)
"""What a constructor raises about its arguments, the first by intent and the others at extreme values."""


_LONGEST = 1 << 14  # values of a list


@dataclass(frozen=True)
class Argument:
    """One argument of a constructor, from its signature and docstring.

    Attributes:
        is_fact: whether the data determine it, such as the shape of an image or the number of classes.
    """

    name: str
    annotation: Any
    default: Any
    text: str
    is_fact: bool = False

    @property
    def required(self) -> bool:
        """Whether the argument has no default."""
        return self.default is inspect.Parameter.empty

    @property
    def is_net(self) -> bool:
        """Whether the argument is a nested network."""
        return any(_is_module(a) for a in (self.annotation, *typing.get_args(self.annotation)))

    @property
    def name_or_path(self) -> NameOrPath | None:
        """The names of limner that a value may be, besides a path; None where it cannot be a name."""
        return next((m for m in _metadata(self.annotation) if isinstance(m, NameOrPath)), None)

    @property
    def type(self) -> str:
        """The type as readable text: ``int``, ``'mse' | 'bce'``, ``net``."""
        return "net" if self.is_net else _type_name(self.annotation)


def _metadata(annotation: Any) -> Iterator[Any]:
    """The metadata of `Annotated` anywhere in an annotation."""
    if typing.get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    for part in typing.get_args(annotation):
        yield from _metadata(part)


def _is_module(annotation: Any) -> bool:
    return inspect.isclass(annotation) and any(c.__name__ == "Module" for c in annotation.__mro__)


def _type_name(annotation: Any) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        examples = {"count": "count such as 10k", "duration": "duration such as 20m"}
        functions = [m.func.__name__ for m in args[1:] if getattr(m, "func", None)]
        return next((examples[f] for f in functions if f in examples), _type_name(args[0]))
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
    """The arguments of a constructor, in the order of its signature."""
    constructor = find(kind, name)
    result: dict[str, Argument] = {}
    for part in getattr(constructor, "declares", (constructor,)):
        target = part.__init__ if inspect.isclass(part) else part
        # The return type is left out, because it may be imported under TYPE_CHECKING only.
        annotations = {k: v for k, v in target.__annotations__.items() if k != "return"}
        shim = types.SimpleNamespace(__annotations__=annotations)
        namespace = vars(sys.modules[part.__module__])
        hints = typing.get_type_hints(shim, globalns=namespace, include_extras=True)
        texts = argument_texts(inspect.getdoc(part) or "") | argument_texts(inspect.getdoc(target) or "")
        for p in inspect.signature(part).parameters.values():
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "options":
                fact = p.kind is p.KEYWORD_ONLY and kind in ("model", "net")
                annotation = hints.get(p.name, p.annotation)
                result[p.name] = Argument(p.name, annotation, p.default, texts.get(p.name, ""), fact)
    return result


@cache
def arguments_model(kind: str, name: str) -> type[BaseModel]:
    """A pydantic model of a constructor's arguments. None is required, because facts are filled in later."""
    fields: dict[str, Any] = {}
    for a in arguments(kind, name).values():
        if a.is_net:
            optional = type(None) in typing.get_args(a.annotation)
            annotation: Any = Annotated[Any, BeforeValidator(_as_net(optional))]
        else:
            annotation = a.annotation
        default = None if a.required else a.default
        fields[a.name] = (annotation, Field(default=default, description=a.text or None))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=(), allow_inf_nan=False)
    return create_model(f"{kind}:{name}", __config__=config, **fields)


def _as_net(optional: bool) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        is_null = value is None or (isinstance(value, Text) and plain(value) is None)
        return None if is_null and optional else Spec.parse("net", value)

    return convert


def as_section(value: str) -> dict[str, Any]:
    """A section of a recipe that is written as one text: a mapping, or only the name."""
    tree = nested(value) if isinstance(value, Text) else None
    return tree if isinstance(tree, dict) else {"name": str(value)}


@dataclass(frozen=True)
class Spec:
    """A constructor call: kind and name in the catalogue, and checked keyword arguments.

    >>> s = Spec.parse("optimiser", {"name": "adam", "lr": "1e-3"})
    >>> s.kwargs
    {'lr': 0.001}
    """

    kind: str
    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, kind: str, data: Any, where: str = "", name: str | None = None) -> Spec:
        """Checks ``{"name": ..., argument: value, ...}``, or only a name, against the constructor.

        Args:
            kind: kind in the catalogue.
            data: the mapping, or a name.
            where: path in the recipe, for messages.
            name: the default name.

        Raises:
            LimnerError: a name or argument is unknown (the message gives the nearest), or a value has the wrong type.
        """
        if isinstance(data, Spec):
            return data
        where = where or kind
        if isinstance(data, str):
            data = as_section(data)
        if not isinstance(data, Mapping):
            raise LimnerError(f"{where}: expected 'name: …' with arguments, got {data!r}")
        kwargs = dict(data)
        name = kwargs.pop("name", name)
        if name is None:
            raise LimnerError(f"{where}: 'name' is missing; add name: and a {kind} from 'limner list {kind}s'")
        if not isinstance(name, str):
            raise LimnerError(f"{where}: a name must be text, got {name!r}; write name: NAME")
        name = str(name)
        known = arguments(kind, name)
        for key, value in kwargs.items():
            if isinstance(value, (list, tuple)) and len(value) > _LONGEST:
                raise LimnerError(f"{where}.{key}: a list of {len(value)} values is too long; {_LONGEST} are allowed")
            if key not in known:
                error = unknown(f"argument of {name}", key, [k for k, a in known.items() if not a.is_fact])
                raise LimnerError(f"{where}: {error}")
        try:
            written = {k: v if known[k].is_net else read_as(v, known[k].annotation) for k, v in kwargs.items()}
            checked = arguments_model(kind, name)(**written)
        except ValidationError as error:
            raise LimnerError(_one_line(where, error)) from None
        return cls(kind, name, {k: getattr(checked, k) for k in kwargs})

    def get(self, name: str) -> Any:
        """The value of an argument, or the constructor's default."""
        return self.kwargs.get(name, arguments(self.kind, self.name)[name].default)

    def resolve(self, **facts: Any) -> Spec:
        """The same call, with the facts of the data and the inherited arguments filled in.

        Raises:
            LimnerError: a required argument is missing.
        """
        known = arguments(self.kind, self.name)
        kwargs = dict(self.kwargs)
        for a in known.values():
            if a.name not in kwargs and a.name in facts and (a.required or a.is_fact):
                kwargs[a.name] = facts[a.name]
        missing = [a.name for a in known.values() if a.required and a.name not in kwargs]
        if missing:
            raise LimnerError(f"{self.name}: argument {missing[0]!r} is missing; write it as {missing[0]}: VALUE")
        values = {a.name: kwargs.get(a.name, a.default) for a in known.values()}
        inherited = facts | {k: v for k, v in values.items() if not isinstance(v, Spec)}
        resolved = {k: v.resolve(**inherited) if isinstance(v, Spec) else v for k, v in kwargs.items()}
        return Spec(self.kind, self.name, resolved)

    def build(self, **facts: Any) -> Any:
        """Makes the call, after the calls of nested nets.

        Raises:
            LimnerError: an argument is missing, or a constructor does not accept its arguments.
        """
        spec = self.resolve(**facts)
        kwargs = {k: v.build() if isinstance(v, Spec) else v for k, v in spec.kwargs.items()}
        for a in arguments(self.kind, self.name).values():
            if a.is_net:
                self._check_net(a, kwargs.get(a.name))
        try:
            return find(spec.kind, spec.name)(**kwargs)
        except _REFUSALS as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise LimnerError(f"{spec.name}: {reason}") from error

    def _check_net(self, argument: Argument, net: Any) -> None:
        """Raises a `LimnerError` if a net is not of the right type, or takes labels and the model has none."""
        accepted = tuple(t for t in (argument.annotation, *typing.get_args(argument.annotation)) if _is_module(t))
        takes_labels = self.kind == "model" and getattr(net, "classes", 0) > 0
        if takes_labels and "condition" not in arguments(self.kind, self.name):
            name = argument.name
            raise LimnerError(f"{self.name} has no labels that it could tell {name}; write {name}.conditional=false")
        if net is None or isinstance(net, accepted):
            return
        choices = [n for n in names("net") if issubclass(find("net", n), accepted)]  # type: ignore[arg-type]
        chosen = self.kwargs[argument.name].name
        raise LimnerError(
            f"{self.name}: {chosen} is no {accepted[0].__name__}, which {argument.name} must be; choose from:"
            f" {', '.join(choices)}"
        )

    def matches(self, call: Mapping[str, Any]) -> bool:
        """Whether `call`, as `to_dict` writes it, describes the same model.

        Facts that `call` lacks are not compared, because earlier versions wrote fewer facts. Conditions are the same if
        they read the same labels; their examples may differ.
        """
        other = Spec.parse(self.kind, dict(call))
        mine, theirs = self._without_new_facts(other).to_dict(), other.to_dict()
        if _same_condition(mine.get("condition"), theirs.get("condition")):
            mine["condition"] = theirs["condition"]
        return mine == theirs

    def _without_new_facts(self, other: Spec) -> Spec:
        """This call without the facts that `other` does not have."""
        known = arguments(self.kind, self.name)
        kwargs = {k: v for k, v in self.kwargs.items() if k in other.kwargs or not known[k].is_fact}
        for k, v in kwargs.items():
            nested = other.kwargs.get(k)
            if isinstance(v, Spec) and isinstance(nested, Spec) and v.name == nested.name:
                kwargs[k] = v._without_new_facts(nested)
        return Spec(self.kind, self.name, kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The call as a plain mapping, as in YAML; `parse` reads it."""
        return {"name": self.name} | {k: _plain(v) for k, v in self.kwargs.items()}

    def to_json(self) -> str:
        """The call as JSON text; `from_json` reads it."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, kind: str, text: str) -> Spec:
        """Reads and checks the text of `to_json`."""
        return cls.parse(kind, json.loads(text))


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
    path = ".".join([where, *(str(p) for p in first["loc"] if isinstance(p, str) and p.isidentifier())])
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    value = first.get("input")
    shown = "" if value is PydanticUndefined or repr(value) in reason else f", got {value!r}"
    return f"{path}: {reason[0].lower() + reason[1:]}{shown}"


def schema(kind: str, name: str) -> dict[str, Any]:
    """JSON Schema of a constructor's arguments."""
    properties: dict[str, Any] = {}
    whole = arguments_model(kind, name).model_json_schema()["properties"]
    for a in arguments(kind, name).values():
        if a.is_fact:
            continue
        entry = {k: v for k, v in whole[a.name].items() if k != "title"}
        if a.is_net:
            entry |= {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
        if a.required:
            entry.pop("default", None)
        properties[a.name] = entry
    return {"title": name, "type": "object", "additionalProperties": False, "properties": properties}


def _same_condition(a: Any, b: Any) -> bool:
    """Whether two headers of conditions describe the same one."""
    if not isinstance(a, Mapping) or not isinstance(b, Mapping):
        return False
    from_header = import_module("limner.core.condition").from_header  # imports torch, which this module does without
    try:
        return bool(from_header(a) == from_header(b))
    except ValueError:
        return False
