"""Stores of image files: a folder, or a ZIP (`limner.data.files.archive`).

A store lists its images by relative path and opens them for reading.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Protocol

from limner.core.errors import LimnerError
from limner.data.files.archive import Archive
from limner.data.files.decode import MAX_BYTES, SUFFIXES, BadImage
from limner.data.files.listing import MAX_DEPTH, MAX_METADATA, TOO_DEEP, Listing, status
from limner.data.files.reading import LATEST


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
    """

    title: str
    reading: int
    names: list[str]
    ignored: Counter[str]
    examples: dict[str, list[str]]
    hidden: set[str]
    quarantine: list[tuple[str, str]]

    def open(self, name: str) -> BinaryIO:
        """Opens an image for reading."""
        ...

    def state(self) -> str:
        """Text that changes when an image is added, removed or rewritten; it does not depend on the content."""
        ...

    def stamp(self, name: str) -> tuple[int, int]:
        """Size in bytes and CRC-32 of an image file."""
        ...

    def metadata(self) -> bytes | None:
        """The content of ``dataset.json`` at the top, or in the folder that holds everything; or None."""
        ...


def open_store(path: str | os.PathLike[str], reading: int = LATEST) -> Store:
    """Opens the folder or ZIP at a path.

    Args:
        path: the folder or ZIP.
        reading: as in `limner.data.files.reading`.

    Raises:
        LimnerError: there is no file, it cannot be read, or it is neither a folder nor a ZIP.
    """
    location = Path(path).expanduser()
    try:
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
        self.root = root
        os.scandir(
            root
        ).close()  # raises where the folder itself cannot be read; an unreadable sub-folder goes into the quarantine
        self.add(self._walk())
        self._metadata = self.choose_labels()

    def _walk(self) -> Iterable[str]:
        visited: set[tuple[int, int]] = set()

        def unreadable(error: OSError) -> None:
            path = Path(error.filename or self.root)
            name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name
            self.quarantine.append((name, f"folder cannot be read ({error.strerror})"))

        for here, folders, files in os.walk(self.root, followlinks=True, onerror=unreadable):
            status = Path(here).stat()
            inner = Path(here).relative_to(self.root)
            if (status.st_dev, status.st_ino) in visited or len(inner.parts) > MAX_DEPTH:
                if len(inner.parts) > MAX_DEPTH:
                    self.quarantine.append((inner.as_posix(), TOO_DEEP))
                folders.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            folders[:] = sorted(f for f in folders if not self.passes_over(f))
            yield from ((inner / f).as_posix() for f in files)

    def state(self) -> str:
        """The path of the folder, and the inode, size and times of each image."""
        return repr((str(self.root.resolve()), [status(self.root / name) for name in self.names]))

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
