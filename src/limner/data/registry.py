"""The closed dict of data sources, and how a name or a path becomes a data set.

A source is a function that returns plain arrays, or a data set. `source(name)` enters it in `SOURCES`. The modules of
`limner.data.sources` do that when they are imported, so a new file there is a new source.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import LimnerError, unknown
from limner.data.options import Options

if TYPE_CHECKING:
    from limner.core.batch import Dataset

Gives = Mapping[str, Mapping[str, Any]]
"""The kinds of batch that a source can make (`limner.core.batch.KINDS`), each with the options that make it."""

IMAGES: Gives = {"images": {}}
PAIRS: Gives = {"pairs": {}}
DOMAINS: Gives = {"domains": {}}
POINTS: Gives = {"points": {}}


class Source:
    """A named way to get a data set: called with options, it returns one.

    Attributes:
        name: how a user calls it.
        gives: the kinds of batch it can make, each with the options that make it.
        declares: where its options are declared: the function, and `Options` when it is made of images.
    """

    def __init__(self, name: str, function: Callable[..., Any], gives: Gives, images: bool) -> None:
        functools.update_wrapper(self, function)
        self.name, self.function, self.gives = name, function, gives
        self.declares: tuple[Callable[..., Any], ...] = (function, Options) if images else (function,)
        self._signature = inspect.signature(function)
        self._prepares_itself = "options" in self._signature.parameters

    def __call__(self, *args: Any, **kwargs: Any) -> Dataset:
        shared = inspect.signature(Options).parameters if Options in self.declares else {}
        own = {k: v for k, v in kwargs.items() if k not in shared}
        options = Options(**{k: v for k, v in kwargs.items() if k in shared})
        known = [p for p in (*self._signature.parameters, *shared) if p != "options"]
        for key in own:
            if key not in known:
                raise unknown(f"option of data source {self.name!r}", key, known)
        if self._prepares_itself:
            own["options"] = options
        try:
            bound = self._signature.bind(*args, **own)
        except TypeError as error:
            raise LimnerError(f"data source {self.name!r}: {error}; see 'limner explain {self.name}'") from None
        bound.apply_defaults()
        found = self.function(*bound.args, **bound.kwargs)
        if self._prepares_itself:
            return found
        datasets = import_module("limner.data.datasets")  # needs torch, which names and help do not
        if Options in self.declares:
            return datasets.from_arrays(self.name, found, options)
        # An option that is null is left out, so that one that is added later leaves older fingerprints alone.
        asked = repr(sorted((k, v) for k, v in bound.arguments.items() if v is not None))
        return datasets.from_cloud(self.name, found, asked)


SOURCES: dict[str, Source] = {}
"""Sources by name."""


def source(name: str, *, images: bool = True, gives: Gives | None = None) -> Callable[[Callable[..., Any]], Source]:
    """Registers a source function under a name.

    Args:
        name: how a user calls it.
        images: whether it is made of images, which take the shared `Options`; False for points.
        gives: the kinds of batch it can make, each with the options that make it; by default what it is made of.

    A function that declares an argument `options` gets them as one `Options` and prepares its images itself;
    for any other, the `Arrays` or the `Cloud` that it returns is made into a data set here.
    """

    def register(function: Callable[..., Any]) -> Source:
        SOURCES[name] = Source(name, function, gives or (IMAGES if images else POINTS), images)
        return SOURCES[name]

    return register


def list_sources() -> dict[str, str]:
    """Each source and the first line of its description."""
    return {name: (SOURCES[name].__doc__ or "").splitlines()[0] for name in sorted(SOURCES)}


def load(name: str | os.PathLike[str], **options: Any) -> Dataset:
    """A data set by its name, or from a folder or a ZIP of images.

    Args:
        name: a name from `list_sources`, or a path.
        **options: arguments of that source; `limner explain NAME` lists them.

    Raises:
        LimnerError: there is no such source, path or option, or the data cannot be had.
    """
    text = os.fspath(name)
    if text in SOURCES:
        return SOURCES[text](**options)
    if Path(text).exists() or any(s in text for s in ("/", os.sep, "~")) or text.lower().endswith(".zip"):
        return SOURCES["folder"](text, **options)
    raise LimnerError(f"{unknown('data source', text, SOURCES)} (nor is there a folder or ZIP of that name)")


def get(name: str) -> dict[str, Any]:
    """Fetches a set, so that it is at hand later, and says what it is.

    Raises:
        LimnerError: there is no such source or it cannot be had.
    """
    named = [s for s in SOURCES if s not in _YOURS]
    if name not in named:
        raise unknown("data source", name, named)
    whole, test = load(name, split="all"), load(name, split="test")
    return {
        "name": name,
        "description": list_sources()[name],
        "gives": next(iter(SOURCES[name].gives)),
        "images": len(whole),
        "held_out": len(test),
        "shape": list(whole.shape),
        "classes": whole.classes,
        "fingerprint": whole.fingerprint,
        "notes": list(whole.notes),
    }


_YOURS = ("folder", "pairs", "domains")  # there is nothing to fetch
