"""The text of ``--help`` in 80 columns, from signatures and docstrings, without importing a model if none is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import Parameter
from textwrap import fill

from limner.cli.grammar import Parser, Verb
from limner.config.signatures import Setting

_WIDTH = 80
_FORMS = "Settings are key=value, --key value or --key=value, in any order."


def overview(verbs: Mapping[str, Verb], group: str = "") -> str:
    """A line about each verb, or about each of a group such as ``data``."""
    limner = f"limner {group}".strip()
    rows = [(v.name, _about(v)[0]) for v in verbs.values() if v.name.startswith(group)]
    footer = f"{limner} VERB --help lists the settings of a verb. {_FORMS}"
    return "\n\n".join(
        [f"{limner} VERB ...", "Learn, train, evaluate and use generative image models.", _table(rows), _wrap(footer)]
    )


def text(parser: Parser) -> str:
    """The help of one verb, with what is known of the name on the command line."""
    verb, (what, example) = parser.verb, _about(parser.verb)
    usage = " ".join(["limner", verb.name, *map(_usage, verb.names.values()), "[KEY=VALUE ...]"])
    parts = [usage, _wrap(f"{what}."), f"  {example}", _table((k.upper(), _plain(parser.texts[k])) for k in verb.names)]
    more = verb.named(parser.first) if verb.named and parser.first else {}
    for heading, settings in [*((h, section.values()) for h, section in parser.sections.items()), *more.items()]:
        rows = [(_name(s), _plain(s.text) + _default(s)) for s in settings]
        parts.append(f"{heading}:\n{_table(rows)}" if rows else "")
    parts.append(_wrap(_FORMS + (f" Other keys: {_plain(parser.others)}." if parser.others else "")))
    return "\n\n".join(filter(None, parts))


def _about(verb: Verb) -> tuple[str, str]:
    """The summary of a verb and an example, both from the first line of its docstring."""
    what, _, example = verb.own.doc.partition("\n")[0].removesuffix(".").rpartition(": limner ")
    return what, f"limner {example}"


def _usage(name: Parameter) -> str:
    repeated = name.kind is Parameter.VAR_POSITIONAL
    usage = name.name.upper() + "..." * repeated
    return f"[{usage}]" if repeated or name.default is not Parameter.empty else usage


def _name(setting: Setting) -> str:
    """The name of a setting, with its short form if it has one."""
    if len(setting.name) == 1:
        return f"{setting.name}, -{setting.name}"
    return "config, -c" if setting.name == "config" else setting.name


def _default(setting: Setting) -> str:
    return "" if setting.default is None else f" ({str(setting.default).replace('True', 'true')})"


def _plain(text: str) -> str:
    return " ".join(text.replace("`", "").split()).rstrip(".")


def _wrap(text: str) -> str:
    return fill(text.replace("`", ""), _WIDTH, break_on_hyphens=False)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    entries = list(rows)
    width = max((len(name) for name, _ in entries), default=0)
    lines = (f"  {name:<{width}}  {text}" for name, text in entries)
    return "\n".join(fill(line, _WIDTH, subsequent_indent=" " * (width + 4), break_on_hyphens=False) for line in lines)
