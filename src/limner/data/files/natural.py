"""Names of files and classes: the order that people expect, and one form of each."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

_NUMBER = re.compile(r"[-+]?[0-9]{1,300}(\.[0-9]{1,300})?")
_DIGITS = re.compile(r"([0-9]{1,300})")


def natural_order(names: Iterable[str]) -> list[str]:
    """Names in the order that people expect: numbers by their value, also inside of names.

    >>> natural_order(["10", "9", "-1", "0.5"]), natural_order(["b10", "b9", "a"])
    (['-1', '0.5', '9', '10'], ['a', 'b9', 'b10'])
    """
    names = list(names)
    if all(_NUMBER.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (float(name), name))
    return sorted(names, key=lambda name: ([int(p) if k % 2 else p for k, p in enumerate(_DIGITS.split(name))], name))


def differ_in_case(names: Iterable[str]) -> list[str]:
    """The first names that differ only in their case; none if there are no such names.

    >>> differ_in_case(["Blue", "Red", "blue", "red"])
    ['Blue', 'blue']
    """
    names = list(names)
    counts = Counter(name.casefold() for name in names)
    first = next((name.casefold() for name in names if counts[name.casefold()] > 1), None)
    return [name for name in names if name.casefold() == first]


def composed(name: str) -> str:
    """A name in Unicode's composed form, as macOS writes é as e and an accent, and others as one character."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
