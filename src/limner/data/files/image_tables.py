"""What a table beside images says of each of them: attributes and captions.

* ``metadata.jsonl`` or ``metadata.csv``, in any folder, as Hugging Face's imagefolder has them: the column
  ``file_name`` is the path of an image from the folder of the table, ``text`` its caption or a list of them, and each
  other column may be an attribute (`limner.data.files.columns` says which are).
* CelebA's ``list_attr_celeba.txt`` or ``.csv``, and CelebA-HQ's ``CelebAMask-HQ-attribute-anno.txt``, anywhere: 1 is
  ``yes`` and -1 ``no`` (Liu et al. 2015, arXiv:1411.7766).
* UTKFace's file names ``[age]_[gender]_[race]_[date].jpg`` (Zhang, Song and Qi 2017, arXiv:1702.08423), with ages in
  decades.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from limner.core.errors import LimnerError
from limner.core.paths import shown
from limner.data.files.columns import Asked, choose_columns, plain_cell, plain_name
from limner.data.files.natural import composed
from limner.data.files.table_names import CELEBA, METADATA

FILE, TEXT = "file_name", "text"

_UTKFACE = re.compile(r"(\d{1,3})_([01]?)_(?:([0-4])_)?\d{8,20}(\..*)?")
_GENDERS, _RACES = ("male", "female"), ("white", "black", "asian", "indian", "other")
_DECADES = tuple(range(0, 91, 10))
_MOST_ARE_UTKFACE = 0.9
_SHOWN = 4


class Tables(Protocol):
    """What `read` needs to know of a `limner.data.files.store.Store`."""

    names: list[str]
    quarantine: list[tuple[str, str]]
    tables: list[str]

    def table(self, path: str) -> bytes:
        """The content of a table."""
        ...


@dataclass
class Annotations:
    """What is known of images, in the order of their names.

    Args:
        source: what says it, for messages.
        attributes: the names of the values of each attribute; empty where there is none.
        features: (N,F) the index of the value of each attribute, -1 where it is not known.
        texts: the captions of each image, or None.
        notes: messages for the user: what was found and what was left out.
        faults: messages on what to mend.
    """

    source: str
    attributes: dict[str, list[str]]
    features: NDArray[np.int64]
    texts: list[list[str]] | None = None
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read(store: Tables, names: Sequence[str], asked: Asked) -> Annotations | None:
    """What the tables of a store, or else the names of its files, say of some of its images.

    Args:
        store: has the tables.
        names: the images.
        asked: which columns are taken, and how.

    Returns:
        None where there are no tables.

    Raises:
        LimnerError: a table cannot be read or names none of the images, or what is asked for cannot be had.
    """
    faults: list[str] = []
    tables = [t for t in [_parsed(store, path, faults) for path in _chosen(store, faults)] if t is not None]
    if not tables and (face := _utkface(names)) is not None:
        tables = [face]
    if not tables:
        if asked.names_columns:
            why = f" ({faults[0]})" if faults else ""
            raise LimnerError(
                "attributes: there is no table of attributes, such as metadata.csv with a column file_name"
                f"{why}; add one, or leave attributes and bins out"
            )
        return Annotations("", {}, np.zeros((len(names), 0), np.int64), faults=faults) if faults else None
    merged = _Merged(names, {*store.names, *(path for path, _ in store.quarantine)})
    for table in tables:
        merged.add(table)
    return merged.result(tables, asked, faults)


def _chosen(store: Tables, faults: list[str]) -> list[str]:
    """The tables that are read: those in the convention of imagefolder, or else the first of CelebA's."""
    of_imagefolder = [path for path in store.tables if _file(path) in METADATA]
    chosen = of_imagefolder or store.tables[:1]
    folders = Counter(_folder(path) for path in of_imagefolder)
    twice = next((folder for folder, n in folders.items() if n > 1), None)
    if twice is not None:
        raise LimnerError(f"{twice}metadata.jsonl lies beside {twice}metadata.csv, and one is needed; remove the other")
    others = [path for path in store.tables if path not in chosen]
    if others:
        faults.append(f"{', '.join(others[:_SHOWN])} is not used beside {chosen[0]}: remove one of them")
    return chosen


# --- tables ----------------------------------------------------------------------------------------------


@dataclass
class _Table:
    """The rows of a table.

    Args:
        source: its path, or what it is.
        folder: what its files are relative to; with ``/`` at the end.
        columns: the names of the columns.
        rows: file and cells of each row; None where a value is not known.
        texts: the captions of each row, or None where there is no such column.
        reasons: column and reason of each column that cannot be an attribute.
        borders: borders of intervals of columns.
        anywhere: whether the images may lie in any folder.
    """

    source: str
    folder: str
    columns: list[str]
    rows: list[tuple[str, list[str | None]]]
    texts: list[list[str]] | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    borders: dict[str, tuple[float, ...]] = field(default_factory=dict)
    anywhere: bool = False


def _parsed(store: Tables, path: str, faults: list[str]) -> _Table | None:
    """One table; None, with a note, where it is none in the convention of imagefolder."""
    try:
        text = store.table(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LimnerError(f"{path} is not UTF-8; save it as UTF-8") from None
    if _file(path) in CELEBA:
        return _celeba(path, text)
    rows = list(_json_rows(path, text) if path.lower().endswith(".jsonl") else _csv_rows(path, text))
    keys = list(dict.fromkeys(key for row in rows for key in row))
    if not rows:
        faults.append(f"{path} has no rows: fill it, or remove it")
        return None
    if FILE not in keys:
        faults.append(f"{path} is not used, since it has no column {FILE} (its columns: {', '.join(keys[:8])}): add it")
        return None
    return _table(path, rows, [key for key in keys if key != FILE])


def _json_rows(path: str, text: str) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise LimnerError(f"{path}: line {number} is no JSON object; write one such as "
                              '{"file_name": "1.png", "text": "…"} on each line')  # fmt: skip
        yield row


def _csv_rows(path: str, text: str) -> Iterator[dict[str, Any]]:
    """The rows of a .csv, with the columns of its first line; separated by commas, semicolons or tabs."""
    first = text.lstrip("\n").split("\n", 1)[0]
    signs = [sign for sign in ",;\t" if FILE in (word.strip(' "\r') for word in first.split(sign))]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=(signs or [","])[0], strict=True)
    header: list[str] | None = None
    try:
        for row in lines:
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = [name.strip() for name in row]
                twice = next((name for name, n in Counter(header).items() if name and n > 1), None)
                if twice is not None:
                    raise LimnerError(f"{path} has two columns {twice!r}; rename one")
                continue
            if len(row) > len(header):
                raise LimnerError(
                    f"{path}: line {lines.line_num} has {len(row)} cells and the first line {len(header)}; "
                    "put texts with a comma into quotes"
                )
            yield {name: cell for name, cell in zip(header, row) if name}
    except csv.Error as error:
        raise LimnerError(f"{path}: line {lines.line_num} cannot be read ({error}); save the table again") from None


def _table(path: str, rows: list[dict[str, Any]], keys: list[str]) -> _Table:
    """A table in the convention of imagefolder."""
    columns = {plain_name(key): key for key in keys if key != TEXT}
    if len(columns) < len([key for key in keys if key != TEXT]):
        twice = next(key for key in keys if key != TEXT and columns[plain_name(key)] != key)
        raise LimnerError(f"{path}: the columns {twice!r} and {columns[plain_name(twice)]!r} are alike; rename one")
    reasons: dict[str, str] = {}
    cells: list[tuple[str, list[str | None]]] = []
    kept: dict[str, str] = {}  # one text for equal cells
    for row in rows:
        values = [_cell(row.get(key), name, reasons) for name, key in columns.items()]
        file = row.get(FILE)
        place = str(file).strip() if isinstance(file, (str, int)) else ""
        cells.append((place, [v and kept.setdefault(v, v) for v in values]))
    texts = [_captions(row.get(TEXT)) for row in rows] if TEXT in keys else None
    return _Table(path, _folder(path), list(columns), cells, texts, reasons)


def _cell(value: object, column: str, reasons: dict[str, str]) -> str | None:
    """A cell of any type as text."""
    if value is None:
        return None
    if isinstance(value, (list, dict)):
        reasons[column] = "holds lists or objects"
        return None
    if isinstance(value, float):
        return plain_cell(str(int(value)) if value.is_integer() else repr(value))
    return plain_cell(str(value))


def _captions(value: object) -> list[str]:
    """The captions of a row, "" where one is empty."""
    values = value if isinstance(value, list) else [value]
    return [" ".join(str(text).split()) if isinstance(text, (str, int, float)) else "" for text in values]


def _celeba(path: str, text: str) -> _Table:
    """CelebA's table: the number of images, the names of the attributes, and for each image its -1 and 1."""
    lines = text.splitlines()
    is_csv = path.lower().endswith(".csv")
    start = 0 if is_csv or not (lines and lines[0].strip().isdigit()) else 1
    split = (lambda line: [cell.strip() for cell in line.split(",")]) if is_csv else str.split
    names = split(lines[start]) if len(lines) > start else []
    columns = [plain_name(name).lower() for name in (names[1:] if is_csv else names)]
    if not columns or len(set(columns)) < len(columns):
        raise LimnerError(f"{path} has no names of attributes in line {start + 1}; fetch it again")
    values = {"1": "yes", "-1": "no", "0": "no"}
    rows: list[tuple[str, list[str | None]]] = []
    for number, line in enumerate(lines[start + 1 :], start + 2):
        cells = split(line)
        if not any(cells):
            continue
        row = [values.get(cell) for cell in cells[1:]]
        if len(row) != len(columns) or None in row:
            form = f"a file name and {len(columns)} times 1 or -1"
            raise LimnerError(f"{path}: line {number} is not {form}; fetch it again")
        rows.append((cells[0], row))
    return _Table(path, _folder(path), columns, rows, anywhere=True)


def _utkface(names: Sequence[str]) -> _Table | None:
    """What the names of UTKFace's files say; None where most of the files have other names."""
    rows: list[tuple[str, list[str | None]]] = []
    for name in names:
        if match := _UTKFACE.fullmatch(name.rpartition("/")[2]):
            age, gender, race = match[1], match[2], match[3]
            cells = [age, _GENDERS[int(gender)] if gender else None, _RACES[int(race)] if race else None]
            rows.append((name, cells))
    if len(rows) < 2 or len(rows) < _MOST_ARE_UTKFACE * len(names):
        return None
    return _Table("the file names (UTKFace)", "", ["age", "gender", "race"], rows, borders={"age": _DECADES})


def _file(path: str) -> str:
    return path.rpartition("/")[2].lower()


def _folder(path: str) -> str:
    return path[: path.rfind("/") + 1]


# --- images and rows -------------------------------------------------------------------------------------


class _Merged:
    """The rows of tables, by image.

    Args:
        names: the images.
        there: all files, also those that cannot be read as images.
    """

    def __init__(self, names: Sequence[str], there: Iterable[str]) -> None:
        self.names = names
        self.number = {composed(name): i for i, name in enumerate(names)}
        self.there = {composed(name) for name in there}
        self.columns: dict[str, list[str | None]] = {}
        self.texts: dict[int, list[str]] = {}
        self.rows: Counter[int] = Counter()
        self.contradictions: dict[tuple[int, str], None] = {}
        self.missing: list[str] = []
        self.nameless = 0
        self.empty: list[str] = []

    def add(self, table: _Table) -> None:
        """Adds the rows of a table.

        Raises:
            LimnerError: none of its rows is that of an image.
        """
        places = [self._place(table.folder, file) for file, _ in table.rows]
        if not any(place in self.there for place in places):
            below = "" if table.anywhere else composed(table.folder)
            alone = _unique_files(path for path in self.there if path.startswith(below))
            files = [place.rpartition("/")[2] for place in places]
            places = [alone.get(file, place) for file, place in zip(files, places)]
        if not any(place in self.there for place in places):
            first = next((file for file, _ in table.rows if file), "no name")
            raise LimnerError(
                f"{table.source} names none of the {len(self.names)} images: {first!r} is not one of them, as "
                f"{shown(self.names[0]) if self.names else 'nothing'} is; write paths from the folder of the table"
            )
        columns = [self.columns.setdefault(name, [None] * len(self.names)) for name in table.columns]
        for k, ((file, cells), place) in enumerate(zip(table.rows, places)):
            i = self.number.get(place)
            if i is None:
                if not file:
                    self.nameless += 1
                elif place not in self.there:
                    self.missing.append(file)
                continue
            self.rows[i] += 1
            for name, column, cell in zip(table.columns, columns, cells):
                if cell is not None and column[i] not in (None, cell):
                    self.contradictions[i, name] = None
                column[i] = column[i] if cell is None else cell
            if table.texts is not None:
                texts = [text for text in table.texts[k] if text]
                if not texts or len(texts) < len(table.texts[k]):
                    self.empty.append(file)
                known = self.texts.setdefault(i, [])
                known += [text for text in dict.fromkeys(texts) if text not in known]
        for i, name in self.contradictions:
            self.columns[name][i] = None

    @staticmethod
    def _place(folder: str, file: str) -> str:
        return composed(folder + file.replace("\\", "/").removeprefix("./"))

    def result(self, tables: Sequence[_Table], asked: Asked, faults: list[str]) -> Annotations:
        """The attributes and captions of all images."""
        source = tables[0].source if len(tables) == 1 else f"{len(tables)} tables ({tables[0].source}, …)"
        reasons = {name: why for table in tables for name, why in table.reasons.items()}
        borders = {name: b for table in tables for name, b in table.borders.items()}
        columns = {name: cells for name, cells in self.columns.items() if name not in reasons}
        chosen = choose_columns(source, columns, asked, reasons, borders)
        features = chosen.features if chosen.attributes else np.zeros((len(self.names), 0), np.int64)
        found = Annotations(source, chosen.attributes, features, faults=[*faults, *self._faults(source)])
        if any(table.texts is not None for table in tables):
            found.texts = [self.texts.get(i, []) for i in range(len(self.names))]
            without = [name for name, texts in zip(self.names, found.texts) if not texts]
            note = f"{sum(map(len, found.texts)):,} captions of {len(self.names) - len(without):,} images"
            such_as = f"; none for {len(without):,} (such as {shown(without[0])})" if without else ""
            found.notes.append(note + such_as)
        if chosen.left_out:
            shown_ = [f"{name} {why}" for name, why in list(chosen.left_out.items())[:_SHOWN]]
            more = f"; and {len(chosen.left_out) - _SHOWN} more" if len(chosen.left_out) > _SHOWN else ""
            found.notes.append(f"columns that are no attributes: {'; '.join(shown_)}{more}")
        return found

    def _faults(self, source: str) -> Iterator[str]:
        """What is wrong with the rows, and how often."""
        if self.missing:
            such_as = f"such as {shown(self.missing[0])}"
            yield f"the file is not there for {_rows(len(self.missing))} of {source} ({such_as})"
        if self.nameless:
            yield f"no file is named in {_rows(self.nameless)} of {source}: fill the column {FILE}"
        without = len(self.names) - len(self.rows)
        if without:
            first = next(name for i, name in enumerate(self.names) if i not in self.rows)
            yield (
                f"there is no row in {source} for {without:,} of {len(self.names):,} images (such as {shown(first)}): "
                "nothing is known of them"
            )
        twice = [i for i, n in self.rows.items() if n > 1]
        if twice:
            images = len({i for i, _ in self.contradictions})
            what = ", ".join(dict.fromkeys(name for _, name in self.contradictions))
            against = f"; for {images:,} they contradict each other ({what}), and that is taken as not known"
            captions = ": their captions are joined" if self.texts else ""
            such_as = f"such as {shown(self.names[twice[0]])}"
            many = f"{len(twice):,} image{'s' * (len(twice) > 1)}"
            yield f"there are several rows in {source} for {many} ({such_as}){captions}{against if images else ''}"
        if self.empty:
            yield f"a caption is empty in {_rows(len(self.empty))} of {source} (such as that of {shown(self.empty[0])})"


def _rows(n: int) -> str:
    return f"{n:,} row" if n == 1 else f"{n:,} rows"


def _unique_files(paths: Iterable[str]) -> dict[str, str]:
    """File name -> path, of the files whose name occurs once."""
    found: dict[str, str | None] = {}
    for path in paths:
        file = path.rpartition("/")[2]
        found[file] = None if file in found else path
    return {file: path for file, path in found.items() if path is not None}
