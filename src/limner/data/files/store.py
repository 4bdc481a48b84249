"""Stores of image files: a folder, or a ZIP (`limner.data.files.archive`).

A store lists its images by relative path and opens them for reading.
"""

from __future__ import annotations

import os
import stat
import time
import zipfile
import zlib
from array import array
from collections import Counter
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from limner.core.errors import LimnerError
from limner.core.paths import user_path
from limner.data.files import shards
from limner.data.files.archive import Archive
from limner.data.files.decode import MAX_BYTES, SUFFIXES, BadImage
from limner.data.files.listing import MAX_DEPTH, MAX_METADATA, TOO_DEEP, Listing
from limner.data.files.looks import seen
from limner.data.files.reading import LATEST

_INT64 = (1 << 63) - 1


class Store(Protocol):
    """Image files by name.

    Attributes:
        title: the name of the folder or file, without its parent folders.
        reading: as in `limner.data.files.reading`.
        names: relative paths of the images, sorted, with ``/`` between the parts.
        ignored: the number of other files, by suffix.
        examples: the paths of the first few of them, by suffix.
        hidden: names of hidden files and folders and of those of the system, which are passed over.
        quarantine: (path, reason) of what could not be listed.
        tables: the paths of tables of attributes (`limner.data.files.table_names`).
        key: where it is; no other store has the same.
        looked: when the images were listed, in nanoseconds since 1970.
    """

    key: str
    looked: int
    title: str
    reading: int
    names: list[str]
    ignored: Counter[str]
    examples: dict[str, list[str]]
    hidden: set[str]
    quarantine: list[tuple[str, str]]
    tables: list[str]

    def open(self, name: str) -> BinaryIO:
        """Opens an image for reading."""
        ...

    def stamps(self) -> NDArray[np.int64]:
        """(N,4) for each name: a row that changes when the image is rewritten. Its second number is the size."""
        ...

    def stamp(self, name: str) -> tuple[int, int]:
        """Size in bytes and CRC-32 of an image file."""
        ...

    def metadata(self) -> bytes | None:
        """The content of ``dataset.json`` at the top, or in the folder that holds everything; or None."""
        ...

    def table(self, path: str) -> bytes:
        """The content of one of the tables."""
        ...


def open_store(path: str | os.PathLike[str], reading: int = LATEST) -> Store:
    """Opens the folder or ZIP at a path.

    Args:
        path: the folder or ZIP.
        reading: as in `limner.data.files.reading`.

    Raises:
        LimnerError: there is no file, it cannot be read, or it is neither a folder nor a ZIP.
    """
    location = user_path(path, "a folder or ZIP")
    return seen(("store", str(location), reading), lambda: _opened(path, location, reading))


def _opened(path: str | os.PathLike[str], location: Path, reading: int) -> Store:
    try:
        if (location / "header.json").is_file() and (location / "pixels.npy").is_file():
            raise LimnerError(f"{location.name} is a prepared store of images; give the folder that it was made from")
        if found := shards.find(location):
            return shards.Shards(location, found)
        if location.is_dir():
            return Folder(location, reading)
        if not location.exists():
            raise LimnerError(f"there is no folder or ZIP {str(path)!r}; check the path")
        if zipfile.is_zipfile(location):
            return Archive(location, reading)
        location.open("rb").close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LimnerError(f"{str(path)!r} cannot be read ({reason}); check the path and its permissions") from None
    if location.suffix.lower() in SUFFIXES:
        raise LimnerError(f"{str(path)!r} is one image and a model needs many; give the folder or a ZIP of images")
    if location.suffix.lower() == ".zip":
        raise LimnerError(f"{str(path)!r} is not a complete ZIP; create or download it again")
    raise LimnerError(f"{str(path)!r} is neither a folder nor a ZIP; give a folder or a ZIP of images")


class Folder(Listing):
    """A folder with its sub-folders. Links are followed; each folder is visited once."""

    def __init__(self, root: Path, reading: int = LATEST) -> None:
        super().__init__(root.resolve().name or str(root), reading)
        self.root, self.key, self.looked = root, str(root.resolve()), time.time_ns()
        os.scandir(
            root
        ).close()  # raises where the folder itself cannot be read; an unreadable sub-folder goes into the quarantine
        stamps = self._walk()
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        self.names = [self.names[i] for i in order]
        self._stamps = np.frombuffer(stamps, np.int64).reshape(-1, 4)[order]
        self._metadata = self.choose_labels()

    def _walk(self) -> array[int]:
        """Lists the images, in no order, and returns their `stamps`. It asks for a million files in some seconds."""
        stamps = array("q")
        visited: set[tuple[int, int]] = set()
        waiting = [""]
        while waiting:
            inner, folders = waiting.pop(), []
            try:
                status = (self.root / inner).stat()
                if (status.st_dev, status.st_ino) in visited:
                    continue
                if inner.count("/") > MAX_DEPTH:
                    self.quarantine.append((inner[:-1], TOO_DEEP))
                    continue
                visited.add((status.st_dev, status.st_ino))
                with os.scandir(self.root / inner) as entries:
                    for entry in entries:
                        name = entry.name
                        if entry.is_dir():
                            folders.append(name)
                        elif (name[name.rfind(".") :] in self.usual and name[0] != ".") or self.is_image(inner + name):
                            self.names.append(inner + name)
                            stamps.extend(_stamp(entry))
            except OSError as error:
                self.quarantine.append((inner[:-1], f"folder cannot be read ({error.strerror})"))
            waiting += [f"{inner}{f}/" for f in sorted(folders, reverse=True) if not self.passes_over(f)]
        return stamps

    def stamps(self) -> NDArray[np.int64]:
        """(N,4): inode, size, time of the last change of the content and of the status of each image."""
        return self._stamps.copy()

    def open(self, name: str) -> BinaryIO:
        """Opens an image for reading."""
        path = self.root / name
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("not a regular file")  # opening a named pipe would block
        if status.st_size > MAX_BYTES:
            raise BadImage(f"larger than {MAX_BYTES >> 20} MiB")
        return path.open("rb")

    def stamp(self, name: str) -> tuple[int, int]:
        """Size and CRC-32 of an image file; (0, 0) if it cannot be read."""
        size = crc = 0
        try:
            with self.open(name) as stream:
                while block := stream.read(1 << 20):
                    size, crc = size + len(block), zlib.crc32(block, crc)
        except (OSError, BadImage):
            return 0, 0
        return size, crc

    def metadata(self) -> bytes | None:
        """The content of ``dataset.json`` at the top, or in the folder that holds everything; or None."""
        if self._metadata is None or not (path := self.root / self._metadata).is_file():
            return None
        if path.stat().st_size > MAX_METADATA:
            raise LimnerError(f"{self.title}: dataset.json is larger than {MAX_METADATA >> 20} MiB; leave it out")
        return path.read_bytes()

    def table(self, path: str) -> bytes:
        """The content of one of the tables."""
        file = self.root / path
        try:
            if not stat.S_ISREG(file.stat().st_mode):
                raise LimnerError(f"{self.title}: {path} is not a regular file; remove it")
            if file.stat().st_size > MAX_METADATA:
                raise LimnerError(f"{self.title}: {path} is larger than {MAX_METADATA >> 20} MiB; divide it by folders")
            return file.read_bytes()
        except OSError as error:
            raise LimnerError(f"{self.title}: {path} cannot be read ({error.strerror}); check it") from None


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int, int, int]:
    """What changes when a file is replaced or rewritten: its inode, size and times; zeros for a broken link."""
    try:
        status = entry.stat()
    except OSError:
        return 0, 0, 0, 0
    return status.st_ino & _INT64, status.st_size, status.st_mtime_ns, status.st_ctime_ns
