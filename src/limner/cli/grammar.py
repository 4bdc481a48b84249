"""The grammar of the command line: a verb is a function, and its signature declares names and settings.

Names and settings come in any order. A setting is ``key=value``, ``--key value`` or ``--key=value``, a flag also
``--key`` alone, and a setting of one letter ``-n 64``. Further settings of a verb are those of the functions that it
names as its sources, so that every setting has one signature and one docstring.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter
from typing import Any, NamedTuple

from limner.config.signatures import Setting, Source, read_texts, source
from limner.core.errors import LimnerError, unknown

_FLAG_VALUES = ("true", "false", "yes", "no", "on", "off", "1", "0")
_KEY = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)
_SHORT = {"c": "config"}


class Result(NamedTuple):
    """The result of a verb: a document for ``--json``, a text, and an exception to raise after printing."""

    document: Any
    text: str
    failure: BaseException | None = None


_JSON = Setting("json", "bool", None, "print one JSON document on stdout, everything else on stderr.")


@dataclass(frozen=True)
class Verb:
    """A verb.

    Attributes:
        name: name on the command line.
        function: has a positional parameter for each name and a keyword-only one for each setting of its own. It
            receives all other settings as texts, for `read_texts`.
        sources: dotted paths of the functions of the other settings, by their headings in the help. ``{name}`` in a
            path is the first name on the command line.
        named: what the first name on the command line adds to the help, settings by heading.
    """

    name: str
    function: Callable[..., Result | None]
    sources: Mapping[str, str]
    named: Callable[[str], Mapping[str, Sequence[Setting]]] | None = None

    @cached_property
    def own(self) -> Source:
        """Signature and docstring of the verb's function."""
        return source(f"{self.function.__module__}.{self.function.__name__}") or Source("", {})

    @cached_property
    def names(self) -> dict[str, Parameter]:
        """The positional parameters."""
        kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
        return {k: p for k, p in self.own.parameters.items() if p.kind in kinds}


class Parser:
    """Parses the names and settings of a verb.

    Args:
        verb: the verb.
        arguments: the command line after the verb, for sources that depend on the first name.

    Attributes:
        first: the first name in the arguments, or "".
        sections: settings by name, by heading of the help.
        settings: all settings by name.
        texts: descriptions of names and settings.
        others: description of undeclared keys, from the docstring of the source that accepts them; empty if none does.
        open: whether undeclared keys are passed on; also true if a source does not exist.
    """

    def __init__(self, verb: Verb, arguments: Sequence[str] = ()) -> None:
        self.first = next((w for w in arguments if w[:1] != "-" and "=" not in w), "")
        first = self.first.replace("-", "_")
        first = first if first.isidentifier() else ""
        sources = {heading: source(path.format(name=first)) for heading, path in verb.sources.items()}
        declared = [
            (heading, declaration) for heading, declaration in (("Settings", verb.own), *sources.items()) if declaration
        ]
        self.verb, self.sections, self.settings = verb, dict[str, dict[str, Setting]](), dict[str, Setting]()
        for heading, declaration in declared:
            rows = self.sections.setdefault(heading, {})
            for s in declaration.settings:
                if s.name not in verb.names and s.name not in rows and s not in self.settings.values():
                    rows[s.name] = s
            self.settings = rows | self.settings
        self.sections["Settings"]["json"] = self.settings["json"] = _JSON
        self.texts = {name: text for _, declaration in reversed(declared) for name, text in declaration.texts.items()}
        catch_alls = [
            (declaration, p.name)
            for declaration in sources.values()
            if declaration
            for p in declaration.parameters.values()
            if _is_open(p)
        ]
        self.others = catch_alls[0][0].texts.get(catch_alls[0][1], "") if catch_alls else ""
        self.open = bool(catch_alls) or None in sources.values()

    def parse(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, Any], bool]:
        """Positional and keyword arguments of the verb's function, and whether to print JSON.

        Raises:
            LimnerError: an argument or a key that the verb does not accept, a missing name, or a value that does not
                fit the annotations of the verb.
        """
        positional, settings = self._read(arguments)
        known = [*self.settings, *self.verb.names, "help"]
        for key in settings:
            if key in ("progress", "on_frame") or not (self.open or key in known):
                raise unknown("setting", key, known)
        names: list[str] = []
        for key, parameter in self.verb.names.items():
            by_key = [settings.pop(key)] if key in settings else []
            if parameter.kind is Parameter.VAR_POSITIONAL:
                names, positional = [*names, *positional, *by_key], []
            elif by_key or positional:
                names += by_key or [positional.pop(0)]
            elif parameter.default is Parameter.empty:
                text = self.texts[key].replace("`", "").rstrip(".")
                raise LimnerError(f"{key} is missing: {text}; see 'limner {self.verb.name} --help'")
        if positional:
            raise self._unreadable(positional[0])
        common = read_texts(_common_settings, {"json": settings.pop("json", "false")})
        own = {name.rstrip("_"): name for name in self.verb.own.parameters}
        own_settings = {own[k]: settings.pop(k) for k in list(settings) if k in own}
        return names, settings | read_texts(self.verb.function, own_settings), common["json"]

    def _read(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Positional names, and settings as texts."""
        positional: list[str] = []
        settings: dict[str, str] = {}
        remaining = list(arguments)
        while remaining:
            argument = remaining.pop(0)
            if argument[:1] == "-" and argument != "-":
                key, text = self._read_option(argument, remaining)
            elif match := _KEY.fullmatch(argument):
                key, text = match.groups()
            elif argument[:1] == "=":
                raise self._unreadable(argument)
            else:
                positional.append(argument)
                continue
            if not text:
                raise LimnerError(f"{key}: there is no value after the '='; write {key}=VALUE, or leave {key} out")
            settings[key if "." in key else key.replace("-", "_")] = text
        return positional, settings

    def _read_option(self, argument: str, remaining: list[str]) -> tuple[str, str]:
        """Key and text of an option with dashes; the text may be the next argument."""
        key, equals, text = argument.lstrip("-").partition("=")
        if argument[1] != "-" and len(key) > 1:  # -n64
            key, equals, text = argument[1], "=", argument[2:]
        key = _SHORT.get(key, key) if argument[1] != "-" and key not in self.settings else key
        setting = self.settings.get(key.replace("-", "_"))
        if equals and key:
            return key, text
        if setting is not None and setting.annotation == "bool":
            return key, remaining.pop(0) if remaining and remaining[0] in _FLAG_VALUES else "true"
        if key and setting is None and not self.open and key not in self.verb.names:
            raise unknown("setting", key, [*self.settings, "help"])
        if not key or not remaining or remaining[0].startswith("--"):
            raise self._unreadable(argument)
        return key, remaining.pop(0)

    def _unreadable(self, argument: str) -> LimnerError:
        defaults = [f"{s.name}={s.default}" for s in self.settings.values() if s.default is not None]
        example = "train.batch=32" if "train.batch" in self.others else next(iter(defaults), "json=true")
        return LimnerError(f"cannot read {argument!r}; write key=value, e.g. {example}")


def _is_open(parameter: Parameter) -> bool:
    return parameter.kind is Parameter.VAR_KEYWORD


def _common_settings(*, json: bool = False) -> None:
    """The settings of every verb."""
