"""The closed dict of data sources, and the options that every source of images shares.

A source is a function that returns plain arrays. `source(name)` enters it in `SOURCES` and gives it the
arguments of `Options` as well: they are merged into its signature and its docstring, because those two are
where recipes, `limner explain` and the JSON Schema learn what can be set.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from typing import Any, Literal

from limner.core.errors import LimnerError, unknown
from limner.core.units import Count

Split = Literal["train", "test", "all"]

SOURCES: dict[str, Callable[..., Any]] = {}
"""Name -> function that returns a `limner.core.batch.Dataset`; its attribute `gives` says of which kinds."""

IMAGES: Mapping[str, dict[str, Any]] = {"images": {}}
PAIRS: Mapping[str, dict[str, Any]] = {"pairs": {}}
DOMAINS: Mapping[str, dict[str, Any]] = {"domains": {}}
POINTS: Mapping[str, dict[str, Any]] = {"points": {}}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How images are chosen and prepared.

    Args:
        split: which part to take: "train", "test" (what training never sees) or "all". "test" has no flip or shift.
        size: side in pixels, or (height, width): the shorter side is resized, the longer one cropped at its centre.
            Raise it if you need detail; lower it if training is too slow.
        channels: 1 grey, 2 grey with alpha, 3 RGB, 4 RGB with alpha; by default what the images have.
        only: names of the classes to keep.
        without: names of the classes to leave out.
        limit: take this many images, spread evenly over the set. Lower it if you want a quick try.
        flip: mirror each image left to right half of the time. Turn it on if left and right mean the same.
        shift: move each image by up to this many pixels each way, repeating its edge. Raise it if there are few images.
        binarise: take intensities as probabilities of white: "static" draws each image once, "dynamic" in every epoch.
    """

    split: Split = "train"
    size: int | tuple[int, int] | None = None
    channels: Literal[1, 2, 3, 4] | None = None
    only: list[str | int] | None = None
    without: list[str | int] | None = None
    limit: Count | None = None
    flip: bool = False
    shift: int = 0
    binarise: Literal["none", "static", "dynamic"] = "none"

    def __post_init__(self) -> None:
        _one_of("split", self.split, typing.get_args(Split))
        _one_of("binarise", self.binarise, ("none", "static", "dynamic"))
        _one_of("channels", self.channels, (None, 1, 2, 3, 4))
        sides = (self.size,) if isinstance(self.size, int) or self.size is None else tuple(self.size)
        if self.size is not None and (len(sides) > 2 or not all(isinstance(s, int) and 1 <= s <= 8192 for s in sides)):
            raise LimnerError(f"size: {self.size!r} is no size; write 64, or [height, width], each from 1 to 8192")
        for key, names in (("only", self.only), ("without", self.without)):
            if isinstance(names, str):
                raise LimnerError(f"{key}: {names!r} is one name; write a list of class names, such as [{names}]")
        if self.limit is not None and self.limit < 1:
            raise LimnerError(f"limit: {self.limit} leaves no image; write 1 or more, or leave it out")
        if self.shift < 0:
            raise LimnerError(f"shift: {self.shift} is negative; write how many pixels an image may move, 0 for none")

    @property
    def height_width(self) -> tuple[int, int] | None:
        """`size` as (H,W), or None when the images decide."""
        if self.size is None:
            return None
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    def text(self) -> str:
        """Everything that was asked for, as text for a fingerprint."""
        return repr(sorted(asdict(self).items()))


def _one_of(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        shown = ", ".join(str(k) for k in known if k is not None)
        raise LimnerError(f"{name}: {value!r} is not possible; choose from: {shown}")


def source(
    name: str, *, images: bool = True, gives: Mapping[str, dict[str, Any]] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a source function under a name.

    Args:
        name: how a user calls it.
        images: whether it is made of images, which take the shared `Options`; False for points.
        gives: what a model can get from it (images, pairs, domains or points), each with the options that give it;
            what it is made of by default.

    A function that declares an argument `options` gets them as one `Options` and prepares its images itself;
    for any other, the `Arrays` or the `Cloud` that it returns is made into a data set here.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        SOURCES[name] = build = _public(name, function, images)
        build.gives = gives or (IMAGES if images else POINTS)  # type: ignore[attr-defined]
        return build

    return register


def _public(name: str, function: Callable[..., Any], images: bool) -> Callable[..., Any]:
    """The function with the shared options among its own arguments."""
    own = _parameters(function)
    prepares_itself = own.pop("options", None) is not None
    shared = {p: v.replace(kind=v.KEYWORD_ONLY) for p, v in _parameters(Options).items()} if images else {}
    signature = inspect.Signature([*own.values(), *shared.values()])

    def build(*args: Any, **kwargs: Any) -> Any:
        given = _bound(name, signature, args, kwargs)
        mine = {k: v for k, v in given.items() if k in own}
        if not images:
            # what is null is left out, so that an option that came later leaves the fingerprints of older runs alone
            asked = repr(sorted((k, v) for k, v in given.items() if v is not None))
            return import_module("limner.data.memory").from_cloud(name, function(**mine), asked)
        options = Options(**{k: v for k, v in given.items() if k in shared})
        if prepares_itself:
            return function(**mine, options=options)
        return import_module("limner.data.memory").from_arrays(name, function(**mine), options)

    build.__name__, build.__qualname__, build.__module__ = function.__name__, function.__qualname__, function.__module__
    build.__doc__ = _documented(inspect.getdoc(function) or "", inspect.getdoc(Options) or "" if images else "")
    build.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    build.__signature__ = signature  # type: ignore[attr-defined]
    return build


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters with real types for annotations. What it returns is left out: that type may need torch."""
    if isinstance(function, type):
        hints = typing.get_type_hints(function, include_extras=True)
    else:
        arguments = {k: v for k, v in function.__annotations__.items() if k != "return"}
        shim = types.SimpleNamespace(__annotations__=arguments)
        hints = typing.get_type_hints(shim, globalns=function.__globals__, include_extras=True)
    found = inspect.signature(function).parameters.values()
    return {p.name: p.replace(annotation=hints[p.name]) for p in found}


def _documented(doc: str, shared: str) -> str:
    """A docstring with the entries of the shared ``Args:`` section behind its own."""
    if not shared:
        return doc
    entries = re.split(r"^Args:\n", shared, flags=re.MULTILINE)[1].rstrip()
    own = doc.rstrip() if re.search(r"^Args:$", doc, re.MULTILINE) else f"{doc}\n\nArgs:"
    return f"{own}\n{entries}\n"


def _bound(name: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a call with defaults filled in.

    Raises:
        LimnerError: an argument is unknown, missing or given twice.
    """
    for key in kwargs:
        if key not in signature.parameters:
            raise unknown(f"option of data source {name!r}", key, signature.parameters)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise LimnerError(f"data source {name!r}: {error}; see 'limner explain {name}'") from None
    bound.apply_defaults()
    return dict(bound.arguments)


OPTION_NAMES = tuple(f.name for f in fields(Options))
"""Names of the shared options, in order."""
