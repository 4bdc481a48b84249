"""``key=value``, ``--key value`` and ``--key=value``: the words after a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from limner.core.errors import LimnerError


def settings(words: Sequence[str]) -> dict[str, Any]:
    """Overrides by dotted key, values read as YAML.

    >>> settings(["train.batch=32", "--time", "20m", "--model.z=2"])
    {'train.batch': 32, 'time': '20m', 'model.z': 2}

    Raises:
        LimnerError: a word is none of the three forms.
    """
    from limner.core.yaml_text import parse_value

    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, text = word.lstrip("-").partition("=")
        if not equals and word.startswith("--") and rest and not rest[0].startswith("--"):
            text = rest.pop(0)
        elif not equals or not key:
            raise LimnerError(f"cannot read {word!r}; write key=value, e.g. train.batch=32")
        found[key.replace("-", "_") if "." not in key else key] = parse_value(text)
    return found


def apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names, and the words of settings, where both may come in any order.

    >>> apart(["sky.jpg", "size=64", "--model", "runs/a", "--tile=8"])
    (['sky.jpg'], ['size=64', '--model', 'runs/a', '--tile=8'])
    """
    names: list[str] = []
    rest: list[str] = []
    for word in words:
        follows = bool(rest) and rest[-1].startswith("--") and "=" not in rest[-1]  # the value of the key before it
        (rest if follows or "=" in word or word.startswith("-") else names).append(word)
    return names, rest
