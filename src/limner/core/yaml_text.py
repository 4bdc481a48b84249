"""YAML of recipes and of command lines, read without aliases and tags, and with limited depth and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from limner.core.errors import LimnerError

_LIMIT = 1 << 18  # bytes of a recipe file
_DEPTH = 12


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases, which could make a short text very large."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed in a recipe")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML mapping.

    Raises:
        LimnerError: the file is not such a mapping, or too large or too deep; the message names the line.
    """
    try:
        if path.stat().st_size > _LIMIT:
            raise LimnerError(f"{path} is larger than {_LIMIT // 1024} kB; give a recipe file")
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise LimnerError(f"cannot read {path}: {error.strerror}; check the name") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise LimnerError(f"{path}{where} is not a recipe: {reason}") from None
    if not isinstance(tree, dict) or _depth(tree) > _DEPTH:
        raise LimnerError(f"{path} is not a recipe: expected keys and values, at most {_DEPTH} levels deep")
    return tree


def parse_value(text: str) -> Any:
    """The value of ``key=value`` on a command line, read as YAML.

    >>> parse_value("[48, 64]"), parse_value("5"), parse_value("photos/"), parse_value("1e-4")
    ([48, 64], 5, 'photos/', '1e-4')
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError:
        return text


def _depth(node: Any) -> int:
    if isinstance(node, Mapping):
        return 1 + max((_depth(v) for v in node.values()), default=0)
    if isinstance(node, Sequence) and not isinstance(node, str):
        return 1 + max((_depth(v) for v in node), default=0)
    return 0


def dump_yaml(tree: Mapping[str, Any]) -> str:
    """YAML text with one line for each entry, and short lists and mappings inline."""
    return yaml.safe_dump(dict(tree), sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
