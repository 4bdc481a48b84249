"""What is known of the images of a folder or an archive, kept from one start to the next in the user's cache.

Headers, checksums and the reasons why files are bad are read once. At the next start a file is read again only if its
inode, size or times have changed. The index of a place is one file under ``index`` in limner's cache; nothing is
written where the images are. A damaged or old index counts as none, and without a cache that can be written everything
is read again. Two processes may write at once: each index is whole, and the last one stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL
from numpy.typing import NDArray

from limner.core.errors import LimnerError
from limner.data.files import decode
from limner.data.files.decode import Header
from limner.data.files.download import cache_folder, replacing
from limner.data.files.headers import Headers, without_size
from limner.data.files.threads import in_threads

FEWEST = 256
"""Smaller sets are not kept on the disk: reading them again is as fast."""

FRESH = 2_000_000_000
"""Nanoseconds. What was written so shortly before it was looked at could change again without another time."""

_READERS = ("pillow_heif", "imagecodecs", "tifffile", "pyvips")
_UNKNOWN = -1
_SMALL = 1 << 16  # bytes
_SAVED_EVERY = 200_000  # files; so much is not lost when a first look at a large set is interrupted
_KEPT_DAYS = 120


class Files(Protocol):
    """What an index needs to know of a `Store`."""

    names: list[str]
    key: str
    looked: int

    def open(self, name: str) -> Any: ...
    def stamp(self, name: str) -> tuple[int, int]: ...
    def stamps(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class _Facts:
    """What was read of one file: its header or the reason why it is bad, and (size, CRC-32)."""

    kind: Header | str | None = None
    checksum: tuple[int, int] | None = None
    is_sure: bool = True  # a file that a passing fault made unreadable is read again at the next start


class Index:
    """Facts of all files of a store, one row for each of its names.

    Args:
        store: has the files.
        earlier: an index of the same place; its facts of unchanged files are taken. By default it is that of the cache.
    """

    def __init__(self, store: Files, earlier: Index | None = None) -> None:
        self.store, n = store, len(store.names)
        self.stamps = store.stamps()
        self.sizes = np.zeros((n, 2), np.int32)
        self.kind = np.full(n, _UNKNOWN, np.int32)
        self.crc = np.full(n, _UNKNOWN, np.int64)
        self.kinds: list[Header | str] = []  # of a bad file, the reason
        self._numbers: dict[Header | str, int] = {}
        self._unsure: set[int] = set()
        if earlier is not None:
            self._adopt(earlier.store.names, earlier._rows(fresh=True))
        else:
            self._load()

    # --- facts ---------------------------------------------------------------------------------------

    def headers(self) -> tuple[NDArray[np.int64], Headers, list[tuple[str, str]]]:
        """The rows (K,) of the readable images, their headers, and (path, reason) of the other files."""
        self._complete(np.flatnonzero(self.kind == _UNKNOWN), self._read_header)
        is_bad = np.array([isinstance(kind, str) for kind in self.kinds], dtype=bool)
        bad = is_bad[self.kind] if len(self.kind) else np.zeros(0, bool)
        good = np.flatnonzero(~bad)
        blank = Header((0, 0), "", "", False, False, False, False)
        kinds = [blank if isinstance(kind, str) else kind for kind in self.kinds]
        reasons = [(self.store.names[i], str(self.kinds[self.kind[i]])) for i in np.flatnonzero(bad)]
        return good, Headers(self.sizes[good], self.kind[good], kinds), reasons

    def checksums(self, names: list[str], rows: NDArray[np.int64] | None = None) -> Iterator[tuple[int, int]]:
        """The size in bytes and the CRC-32 of some files; (0, 0) of one that cannot be read.

        Args:
            names: the files.
            rows: (N,) where they are among the names of the store; found out by default.
        """
        if rows is None:
            rows = np.array([bisect_left(self.store.names, name) for name in names], np.int64)
        self._complete(rows[self.crc[rows] == _UNKNOWN], self._read_checksum)
        return zip(self.stamps[rows, 1].tolist(), self.crc[rows].tolist())

    def _complete(self, rows: NDArray[np.int64], read: Callable[[int], _Facts]) -> None:
        """Reads facts of some rows, and keeps them even if it is interrupted."""
        if not len(rows):
            return
        try:
            with decode.strict():
                for done, (row, facts) in enumerate(zip(rows.tolist(), in_threads(read, rows.tolist()))):
                    self._take(row, facts)
                    if (done + 1) % _SAVED_EVERY == 0:
                        self._save()
        finally:
            self._save()

    def _take(self, row: int, facts: _Facts) -> None:
        if facts.kind is not None:
            self.sizes[row] = (0, 0) if isinstance(facts.kind, str) else facts.kind.size
            self.kind[row] = self._number(facts.kind if isinstance(facts.kind, str) else without_size(facts.kind))
        if facts.checksum is not None:
            size, self.crc[row] = facts.checksum
            if size != self.stamps[row, 1]:  # it has changed since, or cannot be read
                self._unsure.add(row)
                self.stamps[row, 1] = size
        if not facts.is_sure:
            self._unsure.add(row)

    def _read_header(self, row: int) -> _Facts:
        """The header of a file; of a small one, which is read whole, the checksum too."""
        checksum = None
        try:
            with self.store.open(self.store.names[row]) as stream:
                if 0 < self.stamps[row, 1] <= _SMALL:
                    content = stream.read()
                    checksum = len(content), zlib.crc32(content)
                    stream.seek(0)
                    return _Facts(decode.header(stream), checksum)
                return _Facts(decode.header(stream))
        except Exception as error:  # a hostile file may raise anything, and must not affect the others
            is_passing = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)
            return _Facts(decode.reason(error), checksum, is_sure=not is_passing)

    def _read_checksum(self, row: int) -> _Facts:
        return _Facts(checksum=self.store.stamp(self.store.names[row]))

    def _number(self, kind: Header | str) -> int:
        number = self._numbers.setdefault(kind, len(self._numbers))
        if number == len(self.kinds):
            self.kinds.append(kind)
        return number

    # --- from one start to the next ------------------------------------------------------------------

    def _rows(self, fresh: bool) -> dict[str, Any]:
        """The facts that are sure to belong to the stamps; with those of files that were written just before."""
        kind, crc = self.kind.copy(), self.crc.copy()
        written = np.maximum(self.stamps[:, 2], self.stamps[:, 3])
        unsure = np.zeros(len(kind), bool) if fresh else written > self.store.looked - FRESH
        unsure[list(self._unsure)] = True
        kind[unsure] = crc[unsure] = _UNKNOWN
        return {"stamps": self.stamps, "sizes": self.sizes, "kind": kind, "crc": crc, "kinds": self.kinds}

    def _adopt(self, names: list[str], rows: dict[str, Any]) -> None:
        """Takes the facts of files whose stamps are unchanged; `names` are sorted."""
        old = _matched(names, self.store.names)
        same = np.flatnonzero(old >= 0)
        same = same[(rows["stamps"][old[same]] == self.stamps[same]).all(1)]
        old = old[same]
        numbers = np.array([self._number(kind) for kind in rows["kinds"]] + [_UNKNOWN], np.int32)
        self.sizes[same], self.crc[same] = rows["sizes"][old], rows["crc"][old]
        self.kind[same] = numbers[rows["kind"][old]]  # -1 stays -1

    def _path(self) -> Path | None:
        if len(self.store.names) < FEWEST:
            return None
        try:
            folder = cache_folder("index")
        except LimnerError:
            return None
        return folder / f"{hashlib.sha256(self.store.key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.npz"

    def _load(self) -> None:
        path = self._path()
        if path is None or not path.is_file():
            return
        try:
            with np.load(path, allow_pickle=False) as file:
                if bytes(file["reader"]).decode() != reader():
                    return
                rows = {name: file[name] for name in ("stamps", "sizes", "kind", "crc")}
                kinds = json.loads(bytes(file["kinds"]))
                names = self._named(bytes(file["names"]))
            rows["kinds"] = [k if isinstance(k, str) else _header(k) for k in kinds]
            _check(rows, len(names))
            self._adopt(names, rows)
            os.utime(path)
        except Exception:  # whatever is wrong with it, everything can be read again
            return

    def _named(self, raw: bytes) -> list[str]:
        """The names of an index; mostly they are those of the store, which then exist once."""
        return self.store.names if raw == self._raw_names() else raw.decode("utf-8", "surrogateescape").split("\0")

    def _raw_names(self) -> bytes:
        return "\0".join(self.store.names).encode("utf-8", "surrogateescape")

    def _save(self) -> None:
        path = self._path()
        if path is None:
            return
        rows = self._rows(fresh=False)
        kinds = [k if isinstance(k, str) else asdict(k) for k in rows.pop("kinds")]
        texts: dict[str, bytes] = {
            "names": self._raw_names(),
            "kinds": json.dumps(kinds).encode(),
            "reader": reader().encode(),
        }
        rows |= {k: np.frombuffer(v, np.uint8) for k, v in texts.items()}
        try:
            with replacing(path) as new, new.open("wb") as file:
                np.savez(file, **rows)
            prune(path.parent)
        except OSError:  # read-only or full: the next start reads everything again
            return


def _header(fields: dict[str, Any]) -> Header:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Header(**values)


def _matched(old: list[str], new: list[str]) -> NDArray[np.int64]:
    """For each of the sorted names `new` its row among the sorted names `old`, or -1."""
    if old == new:
        return np.arange(len(new))
    rows = np.full(len(new), -1, np.int64)
    at = 0
    for row, name in enumerate(new):
        while at < len(old) and old[at] < name:
            at += 1
        if at < len(old) and old[at] == name:
            rows[row] = at
    return rows


def _check(rows: dict[str, Any], n: int) -> None:
    """Raises a `ValueError` where the columns do not fit together."""
    shapes = {"stamps": (n, 4), "sizes": (n, 2), "kind": (n,), "crc": (n,)}
    fits = all(rows[name].shape == shape and rows[name].dtype.kind == "i" for name, shape in shapes.items())
    if not fits or rows["kind"].min() < _UNKNOWN or rows["kind"].max() >= len(rows["kinds"]):
        raise ValueError("the columns do not fit together")


@cache
def reader() -> str:
    """What headers and reasons depend on beside the files: this code, Pillow, and the extras that read more formats."""
    extras = [name for name in _READERS if find_spec(name) is not None]
    digest = hashlib.sha256(repr((PIL.__version__, extras)).encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def prune(folder: Path) -> None:
    """Removes files of the cache that were not used for months."""
    oldest = time.time() - _KEPT_DAYS * 86400
    for file in folder.iterdir():
        if file.stat().st_mtime < oldest:
            file.unlink(missing_ok=True)


_RECENT: dict[str, Index] = {}
"""The indices of the last two sets, because training and held-out split need the same one."""


def index_of(store: Files) -> Index:
    """The index of a store: that of the same place in this process, or else that of the cache."""
    earlier = _RECENT.pop(store.key, None)
    index = earlier if earlier is not None and earlier.store is store else Index(store, earlier)
    _RECENT[store.key] = index
    if len(_RECENT) > 2:
        _RECENT.pop(next(iter(_RECENT)))
    return index
