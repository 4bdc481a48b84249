"""Stores of image files: a folder, or a ZIP that is read in place and never unpacked.

A store lists its images by relative path and opens them for reading. Whatever a ZIP contains, nothing is written to
disk, and no more of a member is read than it declares.
"""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from limner.core.errors import LimnerError
from limner.data.files.decode import MAX_BYTES, SUFFIXES, BadImage

MAX_DEPTH = 16
MAX_MEMBERS = 100_000
MAX_RATIO = 100
MAX_METADATA = 64 << 20

_TOO_DEEP = f"more than {MAX_DEPTH} folders deep"


class Store(Protocol):
    """Image files by name.

    Attributes:
        title: the name of the folder or file, without its parent folders.
        names: relative paths of the images, sorted, with ``/`` between the parts.
        ignored: the number of other files, by suffix.
        quarantine: (path, reason) of what could not be listed.
    """

    title: str
    names: list[str]
    ignored: Counter[str]
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
        """The content of ``dataset.json`` at the top, or None."""
        ...


def open_store(path: str | os.PathLike[str]) -> Store:
    """Opens the folder or ZIP at a path.

    Raises:
        LimnerError: there is no file, it cannot be read, or it is neither a folder nor a ZIP.
    """
    location = Path(path).expanduser()
    try:
        if location.is_dir():
            return Folder(location)
        if not location.exists():
            raise LimnerError(f"there is no folder or ZIP {str(path)!r}; check the path")
        if zipfile.is_zipfile(location):
            return Archive(location)
        location.open("rb").close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LimnerError(f"{str(path)!r} cannot be read ({reason}); check the path and its permissions") from None
    if location.suffix.lower() in SUFFIXES:
        raise LimnerError(f"{str(path)!r} is one image and a model needs many; give the folder or a ZIP of images")
    if location.suffix.lower() == ".zip":
        raise LimnerError(f"{str(path)!r} is not a complete ZIP; create or download it again")
    raise LimnerError(f"{str(path)!r} is neither a folder nor a ZIP; give a folder or a ZIP of images")


class _Listing:
    """Sorts relative paths into images, other files, and images in too many nested folders."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.names: list[str] = []
        self.ignored: Counter[str] = Counter()
        self.quarantine: list[tuple[str, str]] = []

    def _add(self, paths: Iterable[str]) -> None:
        for path in paths:
            parts = PurePosixPath(path).parts
            if any(p.startswith(".") or p == "__MACOSX" for p in parts):
                continue
            suffix = PurePosixPath(path).suffix.lower()
            if suffix not in SUFFIXES:
                self.ignored[suffix or "no suffix"] += 1
            elif len(parts) - 1 > MAX_DEPTH:
                self.quarantine.append((path, _TOO_DEEP))
            else:
                self.names.append(path)
        self.names.sort()


class Folder(_Listing):
    """A folder with its sub-folders. Links are followed; each folder is visited once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root.resolve().name or str(root))
        self.root = root
        os.scandir(
            root
        ).close()  # raises where the folder itself cannot be read; an unreadable sub-folder goes into the quarantine
        self._add(self._walk())

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
                    self.quarantine.append((inner.as_posix(), _TOO_DEEP))
                folders.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            yield from ((inner / f).as_posix() for f in files)

    def state(self) -> str:
        """The path of the folder, and the inode, size and times of each image."""
        return repr((str(self.root.resolve()), [_status(self.root / name) for name in self.names]))

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
        """The content of ``dataset.json`` in the folder, or None."""
        path = self.root / "dataset.json"
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_METADATA:
            raise LimnerError(f"{self.title}: dataset.json is larger than {MAX_METADATA >> 20} MiB; leave it out")
        return path.read_bytes()


class Archive(_Listing):
    """A ZIP of images. Each process opens it for itself, so that data loader workers can share the object."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.stem)
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        try:
            infos = [i for i in self._zip().infolist() if not i.is_dir()]
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise LimnerError(f"{path.name} is not a readable ZIP ({error}); create it again") from None
        _refuse_hostile(path, infos)
        self._infos = {i.filename: i for i in infos}
        self._add(self._infos)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def _zip(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.path)
        return self._opened[1]

    def state(self) -> str:
        """The path, inode, size and times of the ZIP."""
        return repr((str(self.path.resolve()), _status(self.path)))

    def open(self, name: str) -> BinaryIO:
        """Reads a member whole, but never more of it than it declares."""
        info = self._infos[name]
        if info.file_size > MAX_BYTES:
            raise BadImage(f"larger than {MAX_BYTES >> 20} MiB")
        try:
            return io.BytesIO(self._zip().read(info))
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise BadImage("damaged inside the ZIP") from error
        except (NotImplementedError, RuntimeError) as error:
            raise BadImage("compressed by an unknown method") from error

    def stamp(self, name: str) -> tuple[int, int]:
        """Size and CRC-32 from the directory of the ZIP."""
        return self._infos[name].file_size, self._infos[name].CRC

    def metadata(self) -> bytes | None:
        """The content of ``dataset.json`` at the top of the ZIP, or None."""
        info = self._infos.get("dataset.json")
        if info is None:
            return None
        if info.file_size > MAX_METADATA:
            raise LimnerError(f"{self.title}: dataset.json is larger than {MAX_METADATA >> 20} MiB; leave it out")
        try:
            return self._zip().read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise LimnerError(f"{self.title}: dataset.json cannot be read ({error}); create the ZIP again") from None


def _status(path: Path) -> tuple[int | None, ...]:
    """What changes when a file is replaced or rewritten: its inode, size and times; only the error where it fails."""
    try:
        status = path.stat()
    except OSError as error:
        return (error.errno,)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _refuse_hostile(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Refuses archives that may attack the machine or cannot be read.

    Raises:
        LimnerError: the archive has too many members, is a ZIP bomb, has links, is encrypted, or names a path outside.
    """
    if len(infos) > MAX_MEMBERS:
        raise LimnerError(f"{path.name} has more than {MAX_MEMBERS} members; unpack it and give the folder")
    unpacked = sum(i.file_size for i in infos)
    if unpacked > MAX_RATIO * path.stat().st_size:
        raise LimnerError(f"{path.name} unpacks to more than {MAX_RATIO} times its size, as a ZIP bomb does; refused")
    visited: set[str] = set()
    for info in infos:
        if stat.S_ISLNK(info.external_attr >> 16):
            raise LimnerError(f"{path.name} contains the link {info.filename!r}; put the file itself into the ZIP")
        if info.flag_bits & 1:
            raise LimnerError(f"{path.name} is encrypted; unpack it and give the folder")
        if _outside(info.filename) or _outside(info.orig_filename):
            raise LimnerError(f"{path.name} contains {info.filename!r}, which leads out of the archive; refused")
        if info.filename in visited:
            raise LimnerError(f"{path.name} contains {info.filename!r} twice; create it again")
        visited.add(info.filename)


def _outside(name: str) -> bool:
    plain = name.replace("\\", "/")
    return plain.startswith("/") or ".." in plain.split("/") or "\0" in name or bool(re.match(r"[A-Za-z]:", plain))
