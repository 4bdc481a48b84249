"""The one grammar of the command line: a verb is a function, and signatures say what may be written.

Names and settings come in any order. A setting is ``key=value``, ``--key value`` or ``--key=value``, a flag also
``--key`` alone, and one of a single letter ``-n 64``. What a verb does not declare itself it takes from the functions
that it names as its sources, so that every setting stands in one signature and one docstring.
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

_FLAG = ("true", "false", "yes", "no", "on", "off", "1", "0")
_KEY = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)
_SHORT = {"c": "config"}


class Answer(NamedTuple):
    """What a verb found: for ``--json``, for people, and what to raise afterwards if it is not what it must be."""

    document: Any
    text: str
    failure: BaseException | None = None


_JSON = Setting("json", "bool", None, "one JSON document on stdout; everything else on stderr.")


@dataclass(frozen=True)
class Verb:
    """A verb.

    Attributes:
        name: how it is called.
        function: has a positional parameter for each name, a keyword-only one for each setting of its own, and takes
            the texts of all other settings, to be read by `read_texts`.
        sources: dotted paths of the functions that those are for, by the heading that help gives them. ``{name}`` in a
            path stands for the first name on the command line.
    """

    name: str
    function: Callable[..., Answer | None]
    sources: Mapping[str, str]

    @cached_property
    def own(self) -> Source:
        """Signature and docstring of the verb itself."""
        return source(f"{self.function.__module__}.{self.function.__name__}") or Source("", {})

    @cached_property
    def names(self) -> dict[str, Parameter]:
        """The positional parameters."""
        kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
        return {k: p for k, p in self.own.parameters.items() if p.kind in kinds}


class Form:
    """What may be written after a verb.

    Args:
        verb: the verb.
        words: what is written; it decides where a source depends on the first name.

    Attributes:
        sections: settings by name, under the headings of help.
        settings: all of them by name.
        texts: what names and settings mean.
        others: what keys that are declared nowhere mean, by the docstring of the source that takes them; empty where no
            source does.
        open: whether other keys are passed on at all: for one, where there is no such source.
    """

    def __init__(self, verb: Verb, words: Sequence[str] = ()) -> None:
        first = next((w for w in words if w[:1] != "-" and "=" not in w), "").replace("-", "_")
        first = first if first.isidentifier() else ""
        sources = {heading: source(path.format(name=first)) for heading, path in verb.sources.items()}
        found = [(heading, one) for heading, one in (("Settings", verb.own), *sources.items()) if one]
        self.verb, self.sections, self.settings = verb, dict[str, dict[str, Setting]](), dict[str, Setting]()
        for heading, one in found:
            rows = self.sections.setdefault(heading, {})
            for s in one.settings:
                if s.name not in verb.names and s.name not in rows and s not in self.settings.values():
                    rows[s.name] = s
            self.settings = rows | self.settings
        self.sections["Settings"]["json"] = self.settings["json"] = _JSON
        self.texts = {name: text for _, one in reversed(found) for name, text in one.texts.items()}
        further = [(one, p.name) for one in sources.values() if one for p in one.parameters.values() if _is_open(p)]
        self.others = further[0][0].texts.get(further[0][1], "") if further else ""
        self.open = bool(further) or None in sources.values()

    def call(self, words: Sequence[str]) -> tuple[list[str], dict[str, Any], bool]:
        """Arguments and keyword arguments of the verb's function, and whether JSON is wanted.

        Raises:
            LimnerError: a word or a key that the verb does not take, a name that is missing, or a value that the verb's
                own annotations refuse.
        """
        bare, given = self._read(words)
        known = [*self.settings, *self.verb.names, "help"]
        for key in given:
            if key in ("progress", "on_frame") or not (self.open or key in known):
                raise unknown("setting", key, known)
        names: list[str] = []
        for key, parameter in self.verb.names.items():
            named = [given.pop(key)] if key in given else []
            if parameter.kind is Parameter.VAR_POSITIONAL:
                names, bare = [*names, *bare, *named], []
            elif named or bare:
                names += named or [bare.pop(0)]
            elif parameter.default is Parameter.empty:
                text = self.texts[key].replace("`", "").rstrip(".")
                raise LimnerError(f"{key} is missing: {text}; see 'limner {self.verb.name} --help'")
        if bare:
            raise self._unread(bare[0])
        shared = read_texts(_shared, {"json": given.pop("json", "false")})
        own = {k: text for k, text in given.items() if k in self.verb.own.parameters}
        return names, given | read_texts(self.verb.function, own), shared["json"]

    def _read(self, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Names, and the texts of settings."""
        bare: list[str] = []
        given: dict[str, str] = {}
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word[:1] == "-" and word != "-":
                key, text = self._dashed(word, rest)
            elif found := _KEY.fullmatch(word):
                key, text = found.groups()
            elif word[:1] == "=":
                raise self._unread(word)
            else:
                bare.append(word)
                continue
            given[key if "." in key else key.replace("-", "_")] = text
        return bare, given

    def _dashed(self, word: str, rest: list[str]) -> tuple[str, str]:
        """Key and text of a word with dashes, and of the next one if that is its value."""
        key, equals, text = word.lstrip("-").partition("=")
        if word[1] != "-" and len(key) > 1:  # -n64
            key, equals, text = word[1], "=", word[2:]
        key = _SHORT.get(key, key) if word[1] != "-" else key
        setting = self.settings.get(key.replace("-", "_"))
        if equals and key:
            return key, text
        if setting is not None and setting.annotation == "bool":
            return key, rest.pop(0) if rest and rest[0] in _FLAG else "true"
        if key and setting is None and not self.open and key not in self.verb.names:
            raise unknown("setting", key, [*self.settings, "help"])
        if not key or not rest or rest[0].startswith("--"):
            raise self._unread(word)
        return key, rest.pop(0)

    def _unread(self, word: str) -> LimnerError:
        shown = [f"{s.name}={s.default}" for s in self.settings.values() if s.default is not None]
        example = "train.batch=32" if "train.batch" in self.others else next(iter(shown), "json=true")
        return LimnerError(f"cannot read {word!r}; write key=value, e.g. {example}")


def _is_open(parameter: Parameter) -> bool:
    return parameter.kind is Parameter.VAR_KEYWORD


def _shared(*, json: bool = False) -> None:
    """What every verb takes."""
