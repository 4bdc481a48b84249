"""A prepared store: images decoded once to one size, in a folder ``NAME.limner`` of plain arrays that are mapped.

    header.json      version, shape, classes, names of the images and what was found out about them
    pixels.npy       (N,C,H,W) uint8
    checksums.npy    (N,2) int64, size and CRC-32 of each image file
    splits.npy       (N,2) bool, whether an image is trained on and whether it is tested on
    labels.npy       (N,) int64 class indices; or (N,F) the index of the value of each attribute, -1 where unknown

A set read from it equals the set read from the folder at that size: the same pixels, order, splits and fingerprint.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limner.core.errors import LimnerError
from limner.data.files.lazy import BadFile, Files
from limner.data.steps import binarised

HEADER = "header.json"
_FORMAT, _VERSION = "limner prepared images", 1
_MAX_HEADER = 1 << 30
_MAX_IMAGES, _MAX_SIDE = 1 << 40, 8192


@dataclass
class Header:
    """What a store holds beside its arrays.

    Args:
        title: the name of the folder or file that it was made from.
        names: (N,) the path of each image there.
        shape: (C,H,W).
        size: the option `size` that it was made with.
        channels: the option `channels` that it was made with.
        classes: names of the classes, or None.
        notes: messages for the user.
        quarantine: (path, reason) of each file that was left out.
        bad: row -> reason, of images whose pixels could not be decoded.
        source: identifies the files and options that it was made of.
        attributes: the names of the values of each attribute, or None.
        texts: the captions of each image, none or several; or None.
    """

    title: str
    names: list[str]
    shape: tuple[int, int, int]
    size: int | tuple[int, int] | None
    channels: int | None
    classes: list[str] | None
    notes: list[str] = field(default_factory=list)
    quarantine: list[tuple[str, str]] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    source: str = ""
    attributes: dict[str, list[str]] | None = None
    texts: list[list[str]] | None = None

    def to_json(self) -> str:
        """The header as JSON."""
        facts = {f.name: getattr(self, f.name) for f in fields(self)}
        # versions of limner without attributes read what has none
        facts = {k: v for k, v in facts.items() if not (k in ("attributes", "texts") and v is None)}
        return json.dumps({"format": _FORMAT, "version": _VERSION} | facts)


def is_prepared(path: Path) -> bool:
    """Whether a path is that of a prepared store."""
    return (path / HEADER).is_file() and (path / "pixels.npy").is_file()


class Prepared:
    """A store that is read through memory maps.

    Args:
        path: the folder.

    Raises:
        LimnerError: it is damaged, or not a prepared store.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.header = path, _header(path)
        n, shape = len(self.header.names), tuple(self.header.shape)
        self.pixels, self._pages = _mapped(path / "pixels.npy", np.dtype(np.uint8), (n, *shape))
        self.checksums = _read(path / "checksums.npy", np.dtype(np.int64), (n, 2))
        splits = _read(path / "splits.npy", np.dtype(np.uint8), (n, 2)).astype(bool)
        self.train, self.test = splits[:, 0], splits[:, 1]
        self.labels: NDArray[np.int64] | None = None
        if self.header.classes is not None:
            self.labels = _read(path / "labels.npy", np.dtype(np.int64), (n,))
            if n and not 0 <= self.labels.min() <= self.labels.max() < len(self.header.classes):
                raise _damaged(path, "a label is not that of a class")
        elif self.header.attributes:
            counts = np.array([len(values) for values in self.header.attributes.values()])
            self.labels = _read(path / "labels.npy", np.dtype(np.int64), (n, len(counts)))
            if (self.labels < -1).any() or (self.labels >= counts).any():
                raise _damaged(path, "a label is not that of a value")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # a mapped array would be copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def at_random(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images (K,C,H,W) of any rows; the system is told which pages it will need, and reads no others."""
        if self._pages is not None and hasattr(self._pages, "madvise"):
            start, each = len(self._pages) - self.pixels.nbytes, self.pixels[:1].nbytes
            self._pages.madvise(mmap.MADV_RANDOM)
            for row in rows.tolist():
                first = (start + row * each) // mmap.PAGESIZE * mmap.PAGESIZE
                self._pages.madvise(mmap.MADV_WILLNEED, first, start + (row + 1) * each - first)
        return np.take(self.pixels, rows, axis=0)

    @property
    def title(self) -> str:
        """The name of the folder or file that it was made from."""
        return self.header.title


class PreparedFiles(Files):
    """Images of a prepared store, in the order and with the replacements of the `Files` that it was made from.

    Args:
        mapped: the store.
        rows: (K,) the images that are taken.
        **facts: as for `Files`.
    """

    def __init__(self, mapped: Prepared, rows: NDArray[np.int64], **facts: Any) -> None:
        names = mapped.header.names
        super().__init__(
            store=mapped,  # type: ignore[arg-type]  # no file is opened
            paths=[names[row] for row in rows],
            **facts,
        )
        self.mapped, self.rows = mapped, rows
        bad = np.zeros(len(names), dtype=bool)
        bad[list(mapped.header.bad)] = True
        self.is_bad = bad[rows]

    def stamps(self) -> list[tuple[int, int]]:
        """Size and CRC-32 of the image files."""
        return [(size, crc) for size, crc in self.mapped.checksums[self.rows].tolist()]

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Items as (B,C,H,W) uint8."""
        chosen = np.asarray(indices, dtype=np.int64)
        if self.is_bad[chosen].any():
            return super().fetch(indices)
        x = torch.from_numpy(self.mapped.at_random(self.rows[chosen]))
        return x if self.ids is None else binarised(x, self.ids[torch.from_numpy(chosen)])

    def read_or_reason(self, index: int) -> NDArray[np.uint8] | BadFile:
        """One image (C,H,W), or its path and the reason why it could not be decoded."""
        row = int(self.rows[index])
        if self.is_bad[index]:
            return self.paths[index], self.mapped.header.bad[row]
        return np.array(self.mapped.pixels[row])


def _header(path: Path) -> Header:
    file = path / HEADER
    try:
        if file.stat().st_size > _MAX_HEADER:
            raise _damaged(path, f"{HEADER} is larger than {_MAX_HEADER >> 20} MiB")
        facts = json.loads(file.read_text(encoding="utf-8"))
        if facts.pop("format") != _FORMAT:
            raise _damaged(path, f"{HEADER} is not that of a prepared store")
        if facts.pop("version") != _VERSION:
            raise LimnerError(f"{path.name} was prepared by another version of limner; prepare it again")
        if isinstance(facts["size"], list):
            facts["size"] = tuple(facts["size"])
        header = Header(**facts)
        header.bad = {int(row): str(reason) for row, reason in header.bad.items()}
        header.quarantine = [(str(name), str(reason)) for name, reason in header.quarantine]
        header.shape = (int(header.shape[0]), int(header.shape[1]), int(header.shape[2]))
        _check(header)
    except OSError as error:
        raise LimnerError(f"{path.name} cannot be read ({error.strerror}); check its permissions") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"{HEADER} has another form ({type(error).__name__})") from None
    return header


def _check(header: Header) -> None:
    """Raises a `ValueError` where the values of a header have another type or range."""
    texts: list[Any] = [header.title, header.source, *header.names, *header.notes, *(header.classes or [])]
    lists: list[Any] = [header.names, header.notes, header.classes or []]
    c, h, w = header.shape
    sides: tuple[Any, ...] = header.size if isinstance(header.size, tuple) else (header.size,)
    for names in (header.attributes or {}).values():
        texts, lists = [*texts, *names], [*lists, names]
    for captions in header.texts or ():
        lists.append(captions)
        texts += captions
    fits = (
        all(isinstance(text, str) for text in texts)
        and (header.texts is None or len(header.texts) == len(header.names))
        and all(isinstance(values, list) for values in lists)
        and 1 <= c <= 4
        and 1 <= min(h, w) <= max(h, w) <= _MAX_SIDE
        and all(s is None or isinstance(s, int) for s in (*sides, header.channels))
        and all(0 <= row < len(header.names) for row in header.bad)
    )
    if not fits:
        raise ValueError("a value has another type or range")


def _read(file: Path, kind: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of a plain .npy, in memory."""
    return _mapped(file, kind, shape)[0].copy()


def _mapped(file: Path, kind: np.dtype[Any], shape: tuple[int, ...]) -> tuple[NDArray[Any], mmap.mmap | None]:
    """An array of a plain .npy, mapped for reading, and the map; header and size of the file are checked before.

    Raises:
        LimnerError: the file holds something else.
    """
    try:
        with file.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            if version != (1, 0):
                raise _damaged(file.parent, f"{file.name} is not a plain array")
            found, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            offset = stream.tell()
            size = file.stat().st_size
    except OSError as error:
        raise LimnerError(
            f"{file.parent.name}: {file.name} cannot be read ({error.strerror}); prepare it again"
        ) from None
    except ValueError:
        raise _damaged(file.parent, f"{file.name} is not a plain array") from None
    if found != shape or fortran or dtype != kind:
        raise _damaged(file.parent, f"{file.name} holds {dtype} {found} and not {kind} {shape}")
    if size != offset + int(np.prod(shape, dtype=object)) * kind.itemsize:
        raise _damaged(file.parent, f"{file.name} is not as long as its header says")
    if not size - offset:
        return np.zeros(shape, kind), None
    with file.open("rb") as stream:
        pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(pages, kind, offset=offset).reshape(shape), pages


def _damaged(path: Path, reason: str) -> LimnerError:
    return LimnerError(f"{path.name} is damaged: {reason}; prepare it again with 'limner data prepare'")
