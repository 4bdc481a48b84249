"""Which columns of a table are attributes, and what their values are called.

=============================================  =======================================================================
column                                         attribute
=============================================  =======================================================================
truth values (``true`` and ``false``)          ``no`` and ``yes``
at most 20 different whole numbers             the numbers
other numbers                                  none, unless `Asked.bins` gives the borders of intervals
text, at most 100 different                    the texts, in natural order
a column of which most cells differ            none: it names images
the same value for all images                  none: it tells nothing
=============================================  =======================================================================

A cell that is empty, ``null``, ``NaN``, ``NA`` or ``N/A`` is a value that is not known.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from limner.core.errors import LimnerError
from limner.data.files.natural import natural_order

MOST_NUMBERS, MOST_TEXTS, MOST_ASKED = 20, 100, 1000
"""Different whole numbers and texts that a column has at most, and texts where it is asked for by name."""

_FEW = 10  # so many different cells are values, even if each of them stands for one image
_UNKNOWN = frozenset(("", "null", "nan", "na", "n/a"))
_NUMBER = re.compile(r"[-+]?([0-9]{1,300}\.?[0-9]{0,300}|\.[0-9]{1,300})([eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True)
class Asked:
    """What a user asks of the table of a folder.

    Args:
        attributes: the columns to take; None for all that can be attributes.
        bins: column -> the borders of intervals, ascending; a border belongs to the interval above it.
    """

    attributes: tuple[str, ...] | None = None
    bins: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for column, borders in self.bins.items():
            ascending = all(a < b for a, b in pairwise(borders))
            if not borders or not ascending or not all(math.isfinite(b) for b in borders):
                raise LimnerError(
                    f"bins: the borders of {column} must ascend; write for example {{{column}: [20, 40]}}"
                )
            if self.attributes is not None and column not in map(plain_name, self.attributes):
                raise LimnerError(f"bins: {column} is not among the chosen attributes; add it to them, or leave it out")

    @property
    def names_columns(self) -> bool:
        """Whether it names columns, which must be there then."""
        return bool(self.attributes) or bool(self.bins)


@dataclass
class Chosen:
    """Attributes of images.

    Args:
        attributes: the names of the values of each attribute.
        features: (N,F) the index of the value of each attribute, -1 where it is not known.
        left_out: column and reason of each column that is no attribute.
    """

    attributes: dict[str, list[str]]
    features: NDArray[np.int64]
    left_out: dict[str, str]


def plain_name(text: str) -> str:
    """The name of a column as an attribute is asked for: without spaces and the signs that end a name.

    >>> plain_name(" Hair colour "), plain_name("a=b")
    ('Hair_colour', 'a_b')
    """
    return re.sub(r"[\s=,;]+", "_", text.strip())


def plain_cell(text: str) -> str | None:
    """The value that a cell says, or None where it is not known.

    >>> plain_cell(" very  round "), plain_cell("NaN"), plain_cell("True")
    ('very round', None, 'yes')
    """
    text = " ".join(text.split()).strip(",; ")
    lowered = text.lower()
    if lowered in _UNKNOWN:
        return None
    return {"true": "yes", "false": "no"}.get(lowered, text)


def choose_columns(
    where: str,
    columns: Mapping[str, Sequence[str | None]],
    asked: Asked,
    reasons: Mapping[str, str],
    borders: Mapping[str, tuple[float, ...]],
) -> Chosen:
    """The attributes that the columns of a table give.

    Args:
        where: the table, for messages.
        columns: name -> the cell of each of N images, None where it is not known.
        asked: what the user asks for.
        reasons: column and reason of each column that cannot be an attribute.
        borders: borders of intervals of columns, where the user gives no others.

    Raises:
        LimnerError: a column that is asked for does not exist or is no attribute.
    """
    named = None if asked.attributes is None else [plain_name(a) for a in asked.attributes]
    every = {**columns, **dict.fromkeys(reasons, ())}
    for kind, wanted in (("attributes", named or ()), ("bins", asked.bins)):
        for name in wanted:
            if name not in every:
                raise LimnerError(f"{kind}: {where} has no column {name!r}; choose from: {', '.join(list(every)[:20])}")
    chosen = Chosen({}, np.zeros((0, 0), np.int64), {})
    parts: list[NDArray[np.int64]] = []
    for name in every if named is None else dict.fromkeys(named):
        is_wanted = named is not None or name in asked.bins
        result = reasons.get(name) or _values(
            name, columns[name], asked.bins.get(name, borders.get(name, ())), is_wanted
        )
        if not isinstance(result, str):
            chosen.attributes[name], part = result
            parts.append(part)
        elif is_wanted:
            raise LimnerError(f"attributes: the column {name} of {where} {result}")
        else:
            chosen.left_out[name] = result
    n = len(next(iter(columns.values()), ()))
    chosen.features = np.stack(parts, 1) if parts else np.zeros((n, 0), np.int64)
    return chosen


def _values(
    name: str, cells: Sequence[str | None], borders: Sequence[float], is_wanted: bool
) -> tuple[list[str], NDArray[np.int64]] | str:
    """The names of the values of a column and the index (N,) of the value of each image, or why it is no attribute."""
    counts = Counter(cell for cell in cells if cell is not None)
    if not counts:
        return "is empty"
    are_numbers = all(_NUMBER.fullmatch(cell) for cell in counts)
    names: dict[str, str]  # cell -> value
    if borders:
        if not are_numbers:
            word = next(cell for cell in counts if not _NUMBER.fullmatch(cell))
            raise LimnerError(f"bins: the column {name} has {word!r}, which is no number; leave it out of bins")
        names = _intervals(counts, borders)
        values = list(dict.fromkeys(names[cell] for cell in sorted(counts, key=float)))
    else:
        names = {cell: _whole(cell) if are_numbers else cell for cell in counts}
        values = natural_order(set(names.values()))
        if reason := _unsuited(name, values, counts, are_numbers, is_wanted):
            return reason
    if len(values) < 2:
        return f"has {values[0]!r} for all images, and tells nothing"
    index: dict[str | None, int] = {cell: values.index(names[cell]) for cell in counts}
    index[None] = -1
    return values, np.array([index[cell] for cell in cells], np.int64)


def _unsuited(name: str, values: list[str], counts: Counter[str], are_numbers: bool, is_wanted: bool) -> str:
    """Why a column is no attribute, and what to do; "" where it is one."""
    n, total = len(values), counts.total()
    mostly_differ = n > _FEW and 2 * n > total and not is_wanted
    if are_numbers:
        if n <= MOST_NUMBERS and all(float(v).is_integer() for v in values) and not mostly_differ:
            return ""
        ordered = sorted(float(cell) for cell in counts.elements())
        quarters = dict.fromkeys(f"{ordered[k * len(ordered) // 4]:g}" for k in (1, 2, 3))
        return f"has {n:,} different numbers (data.bins={{{name}: [{', '.join(quarters)}]}} makes intervals of them)"
    if n > (MOST_ASKED if is_wanted else MOST_TEXTS) or mostly_differ:
        return f"has {n:,} different texts (name it text if they are captions; as an attribute it needs fewer)"
    return ""


def _intervals(cells: Counter[str], borders: Sequence[float]) -> dict[str, str]:
    """Cell -> the name of its interval.

    >>> _intervals(Counter(["19", "20", "39", "90"]), [20, 40])
    {'19': 'below-20', '20': '20-39', '39': '20-39', '90': '40+'}
    >>> _intervals(Counter(["0.2", "-1"]), [-1, 0.5])
    {'0.2': '-1-to-0.5', '-1': '-1-to-0.5'}
    """
    whole = all(number.is_integer() for number in (*map(float, cells), *map(float, borders)))
    inner = [
        f"{low:g}-{high - 1:g}" if whole and low >= 0 and high - 1 > low
        else f"{low:g}" if whole and high - 1 == low
        else f"{low:g}-to-{high:g}"
        for low, high in pairwise(borders)
    ]  # fmt: skip
    names = [f"below-{borders[0]:g}", *inner, f"{borders[-1]:g}+"]
    return {cell: names[bisect_right(borders, float(cell))] for cell in cells}


def _whole(cell: str) -> str:
    """A number without a part behind the point that says nothing: 1.0 -> 1."""
    number = float(cell)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else cell
