"""What ``--help`` prints: at most 80 columns, drawn from signatures and docstrings without importing a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import Parameter
from textwrap import fill

from limner.cli.grammar import Form, Verb
from limner.config.signatures import Setting

_WIDTH = 80
_FORMS = "Settings are key=value, --key value or --key=value, in any order."


def overview(verbs: Mapping[str, Verb], group: str = "") -> str:
    """All verbs with a line each, or those of a group, such as ``data``."""
    limner = f"limner {group}".strip()
    rows = [(v.name, _about(v)[0]) for v in verbs.values() if v.name.startswith(group)]
    end = f"{limner} VERB --help lists the settings of a verb. {_FORMS}"
    return "\n\n".join(
        [f"{limner} VERB ...", "Learn, train, judge and use generative image models.", _table(rows), _wrapped(end)]
    )


def text(form: Form) -> str:
    """The help of one verb."""
    verb, (what, example) = form.verb, _about(form.verb)
    usage = " ".join(["limner", verb.name, *map(_usage, verb.names.values()), "[KEY=VALUE ...]"])
    parts = [usage, _wrapped(f"{what}."), f"  {example}", _table((k.upper(), _said(form.texts[k])) for k in verb.names)]
    for heading, section in form.sections.items():
        parts.append(f"{heading}:\n{_table((_name(s), _said(s.text) + _default(s)) for s in section.values())}")
    return "\n\n".join(
        [part for part in parts if part]
        + [_wrapped(_FORMS + (f" Other keys: {_said(form.others)}." if form.others else ""))]
    )


def _about(verb: Verb) -> tuple[str, str]:
    """What a verb does, and an example: the first line of its docstring says both."""
    what, _, example = verb.own.doc.partition("\n")[0].removesuffix(".").rpartition(": limner ")
    return what, f"limner {example}"


def _usage(name: Parameter) -> str:
    many = name.kind is Parameter.VAR_POSITIONAL
    shown = name.name.upper() + "..." * many
    return f"[{shown}]" if many or name.default is not Parameter.empty else shown


def _name(setting: Setting) -> str:
    return "config, -c" if setting.name == "config" else setting.name


def _default(setting: Setting) -> str:
    return "" if setting.default is None else f" ({str(setting.default).replace('True', 'true')})"


def _said(text: str) -> str:
    return " ".join(text.replace("`", "").split()).rstrip(".")


def _wrapped(text: str) -> str:
    return fill(text.replace("`", ""), _WIDTH, break_on_hyphens=False)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    found = list(rows)
    wide = max((len(name) for name, _ in found), default=0)
    lines = (f"  {name:<{wide}}  {text}" for name, text in found)
    return "\n".join(fill(line, _WIDTH, subsequent_indent=" " * (wide + 4), break_on_hyphens=False) for line in lines)
