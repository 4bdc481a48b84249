"""YAML of recipes and of command lines: texts, lists and mappings, with limits on depth and size.

YAML has a dozen ways to write a number, a truth value or a date, and takes ``no``, ``2024`` or ``2025-01-02`` for one
of them where a name was meant. Here all that is not in quotes is a `Text`, and the type of its key decides what it
means (`limner.config.written`). Tags, aliases and keys that are there twice are refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from limner.core.errors import LimnerError

_LIMIT = 1 << 18  # bytes of a recipe file
_DEPTH = 12
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null")),
    "true": True,
    "false": False,
    ".inf": float("inf"),
    "-.inf": float("-inf"),
    ".nan": float("nan"),
}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,999})")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


class Text(str):
    """A value as a user wrote it, without quotes; the type of its key decides what it means."""


class _Loader(yaml.BaseLoader):
    """YAML whose scalars are texts: `Text` where they have no quotes, else `str`; the null of a key is None."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        refused = "aliases" if isinstance(event, yaml.AliasEvent) else "tags such as !!int" if event.tag else ""
        self.depth += 1
        if refused or self.depth > _DEPTH + 1:
            problem = f"{refused} are not allowed" if refused else f"more than {_DEPTH} levels"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        return str(node.value) if node.style is not None else Text(node.value)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        result: dict[Hashable, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in result:
                problem = (
                    f"the key {key.value} is there twice" if isinstance(key, yaml.ScalarNode) else "a key is no text"
                )
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            item = self.construct_object(value, deep=True)
            result[str(key.value)] = None if isinstance(item, Text) and plain(item) is None else item
        return result


def _load(text: str) -> Any:
    """Texts, lists and mappings of a YAML text; raises a `yaml.YAMLError`."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - makes texts, lists and mappings only
    except ValueError as error:  # such as a character beyond Unicode, "\\U00110000"
        raise yaml.YAMLError(str(error)) from None


def read_written(path: Path) -> dict[str, Any]:
    """Reads a YAML mapping, whose values without quotes are `Text`.

    Raises:
        LimnerError: the file is not such a mapping, or too large or too deep; the message names the line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
        if len(content) > _LIMIT:
            raise LimnerError(f"{path} is larger than {_LIMIT // 1024} kB; give a recipe file")
        text = content.decode("utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise LimnerError(f"{path} is not a recipe: it is no UTF-8 text; save it as UTF-8") from None
        reason = getattr(error, "strerror", None) or error
        raise LimnerError(f"cannot read {path}: {reason}; check the name") from None
    return parse_written(text, path)


def parse_written(text: str, path: Path) -> dict[str, Any]:
    """The YAML mapping that the text of a file is, as `read_written` gives it.

    Raises:
        LimnerError: it is not such a mapping; the message names the file and the line.
    """
    try:
        tree = _load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise LimnerError(f"{path}{where} is not a recipe: {reason}") from None
    if not isinstance(tree, dict):
        raise LimnerError(f"{path} is not a recipe: expected keys and values")
    return tree


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML mapping as plain values, as `dump_yaml` wrote them.

    Raises:
        LimnerError: as `read_written`.
    """
    result: dict[str, Any] = plain(read_written(path))
    return result


def plain(value: Any) -> Any:
    """A value in which each `Text` is the number, the truth value or the null that it looks like, or else text.

    >>> plain([Text("1.5"), Text("12"), Text("true"), Text("no"), Text("2025-01-02"), "7"])
    [1.5, 12, True, 'no', '2025-01-02', '7']
    """
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if not isinstance(value, Text):
        return value
    if _INT.fullmatch(value):
        return int(value)
    if _FLOAT.fullmatch(value):
        return float(value)
    return _CONSTANTS.get(value.lower(), str(value))


def nested(text: str) -> list[Any] | dict[str, Any] | None:
    """The list ``[48, 64]`` or the mapping ``{r1: 1}`` that a text is, with scalars as `Text`; None for other texts.

    >>> nested("[no, 01]"), nested("{r1: 1}"), nested("photos/"), nested("[a")
    (['no', '01'], {'r1': '1'}, None, None)
    """
    if text[:1] + text[-1:] not in ("[]", "{}"):
        return None
    try:
        tree = _load(text)
    except yaml.YAMLError:
        return None
    return tree if isinstance(tree, list | dict) else None


class _Dumper(yaml.SafeDumper):
    """YAML in which every text reads back as it was; in single quotes some line breaks would not."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    has_break = any(c in text for c in "\n\r\x85\u2028\u2029")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if has_break else None)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(tree: Mapping[str, Any]) -> str:
    """YAML text with one line for each entry, and short lists and mappings inline."""
    text: str = yaml.dump(
        plain(tree), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True
    )
    return text
