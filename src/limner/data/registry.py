"""The registry of data sources, and `load`, which makes a data set from a name or a path.

A source is a function that returns plain arrays, or a data set. The decorator `source(name)` registers it in `SOURCES`
when its module in `limner.data.sources` is imported, so a new file there is a new source.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

from limner.core.errors import LimnerError, unknown
from limner.core.paths import NameOrPath, exists, named
from limner.data.options import Options

if TYPE_CHECKING:
    from limner.core.batch import Dataset

Gives = Mapping[str, Mapping[str, Any]]
"""Each kind of batch (`limner.core.batch.KINDS`) that a source can make -> the options that make it."""

IMAGES: Gives = {"images": {}}
PAIRS: Gives = {"pairs": {}}
DOMAINS: Gives = {"domains": {}}
POINTS: Gives = {"points": {}}


class Source:
    """A data source. Calling it with options returns a data set.

    Attributes:
        name: the name in recipes.
        gives: each kind of batch that it can make, with the options that make it.
        declares: what declares its options: the function, and `Options` for sources of images.
    """

    def __init__(self, name: str, function: Callable[..., Any], gives: Gives, images: bool) -> None:
        functools.update_wrapper(self, function)
        self.name, self.function, self.gives = name, function, gives
        self.declares: tuple[Callable[..., Any], ...] = (function, Options) if images else (function,)
        self._signature = inspect.signature(function)
        self._takes_options = "options" in self._signature.parameters

    def __call__(self, *args: Any, **kwargs: Any) -> Dataset:
        shared = inspect.signature(Options).parameters if Options in self.declares else {}
        specific = {k: v for k, v in kwargs.items() if k not in shared}
        options = Options(**{k: v for k, v in kwargs.items() if k in shared})
        known = [p for p in (*self._signature.parameters, *shared) if p != "options"]
        for key in specific:
            if key not in known:
                raise unknown(f"option of data source {self.name!r}", key, known)
        if self._takes_options:
            specific["options"] = options
        try:
            bound = self._signature.bind(*args, **specific)
        except TypeError as error:
            raise LimnerError(f"data source {self.name!r}: {error}; see 'limner explain {self.name}'") from None
        bound.apply_defaults()
        result = self.function(*bound.args, **bound.kwargs)
        datasets = import_module("limner.data.datasets")  # imports torch, which names and help do not need
        if Options in self.declares:
            dataset = result if self._takes_options else datasets.from_arrays(self.name, result, options)
            return import_module("limner.data.labels").labelled(dataset, options)
        # Options that are None are dropped, so that a new option does not change older fingerprints.
        arguments = repr(sorted((k, v) for k, v in bound.arguments.items() if v is not None))
        return datasets.from_cloud(self.name, result, arguments)


SOURCES: dict[str, Source] = {}
"""Sources by name."""

SetOrPath = Annotated[str, NameOrPath(lambda: SOURCES, "data set")]
"""The name of a data set, or a path."""


def source(name: str, *, images: bool = True, gives: Gives | None = None) -> Callable[[Callable[..., Any]], Source]:
    """Registers a source function under a name.

    Args:
        name: the name in recipes.
        images: True for images, which have the shared `Options`; False for points.
        gives: each kind of batch that it can make, with the options that make it; by default images or points.

    A function with an argument `options` gets an `Options` and returns a data set. Any other function returns `Arrays`
    or a `Cloud`, from which the `Source` makes a data set.
    """

    def register(function: Callable[..., Any]) -> Source:
        kinds = dict(gives or (IMAGES if images else POINTS))
        if "images" in kinds:  # the same, with a wrong label for each image
            kinds["mismatched"] = {**kinds["images"], "mismatch": True}
        SOURCES[name] = Source(name, function, kinds, images)
        return SOURCES[name]

    return register


def list_sources() -> dict[str, str]:
    """The names of all sources, each with the first line of its description."""
    return {name: (SOURCES[name].__doc__ or "").splitlines()[0] for name in sorted(SOURCES)}


def load(name: str | os.PathLike[str], **options: Any) -> Dataset:
    """Loads a data set by its name, or from a folder or a ZIP of images.

    Args:
        name: a name from `list_sources`, or a path.
        **options: arguments of that source; `limner explain NAME` lists them.

    Raises:
        LimnerError: there is no such source, path or option, a folder has the name of a source too, or the data
            cannot be read or downloaded.
    """
    chosen, text = named(name, SOURCES, "data set"), os.fspath(name)
    if chosen is not None:
        return SOURCES[chosen](**options)
    if exists(text) or any(c in text for c in ("/", os.sep, "~")) or text.lower().endswith(".zip"):
        return SOURCES["folder"](text, **options)
    raise LimnerError(f"{unknown('data source', text, SOURCES)} (nor is there a folder or ZIP of that name)")


def get(name: str) -> dict[str, Any]:
    """Downloads a named set, if it is not on this machine, and describes it.

    Raises:
        LimnerError: there is no such source, or it cannot be downloaded.
    """
    named = [s for s in SOURCES if s not in USER_FILES]
    if name not in named:
        raise unknown("data source", name, named)
    whole, test = SOURCES[name](split="all"), SOURCES[name](split="test")
    return {
        "name": name,
        "description": list_sources()[name],
        "gives": next(iter(SOURCES[name].gives)),
        "images": len(whole),
        "held_out": len(test),
        "shape": list(whole.shape),
        "classes": whole.classes,
        "attributes": whole.attributes,
        "fingerprint": whole.fingerprint,
        "notes": list(whole.notes),
    }


USER_FILES = ("folder", "pairs", "domains")
"""Sources of the user's own files: there is nothing to download, and no set of that name."""
