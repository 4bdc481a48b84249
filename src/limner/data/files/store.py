"""Where image files lie: a folder, or a ZIP that is read in place and never unpacked.

A store lists its image members by relative path and hands out their bytes. Whatever a ZIP claims, nothing is
written anywhere, and no more is read of a member than it declared.
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
        title: the folder's or file's own name, without the way to it.
        names: relative paths of the images, sorted, with ``/`` between the parts.
        ignored: how many other files there are, by suffix.
        quarantine: (path, reason) of what was left out while listing.
    """

    title: str
    names: list[str]
    ignored: Counter[str]
    quarantine: list[tuple[str, str]]

    def open(self, name: str) -> BinaryIO:
        """A member for reading."""
        ...

    def stamp(self, name: str) -> tuple[int, int]:
        """Size in bytes and CRC-32 of a member's content."""
        ...

    def metadata(self) -> bytes | None:
        """The content of ``dataset.json`` at the top, or None."""
        ...


def open_store(path: str | os.PathLike[str]) -> Store:
    """The folder or ZIP at a path.

    Raises:
        LimnerError: there is nothing, it cannot be read, or it is neither.
    """
    place = Path(path).expanduser()
    try:
        if place.is_dir():
            return Folder(place)
        if not place.exists():
            raise LimnerError(f"there is no folder or ZIP {str(path)!r}; check the path")
        if zipfile.is_zipfile(place):
            return Archive(place)
        place.open("rb").close()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise LimnerError(f"{str(path)!r} cannot be read ({why}); check the path and its permissions") from None
    if place.suffix.lower() in SUFFIXES:
        raise LimnerError(f"{str(path)!r} is one image and a model needs many; give the folder or a ZIP of images")
    if place.suffix.lower() == ".zip":
        raise LimnerError(f"{str(path)!r} is no whole ZIP; pack or fetch it again")
    raise LimnerError(f"{str(path)!r} is neither a folder nor a ZIP; give a folder or a ZIP of images")


class _Listing:
    """Sorts relative paths into images, other files and what goes too deep."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.names: list[str] = []
        self.ignored: Counter[str] = Counter()
        self.quarantine: list[tuple[str, str]] = []

    def _enter(self, paths: Iterable[str]) -> None:
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
    """A folder and what lies below it. Links are followed, each folder once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root.resolve().name or str(root))
        self.root = root
        os.scandir(root).close()  # the folder itself must be readable; one below it may fail
        self._enter(self._walk())

    def _walk(self) -> Iterable[str]:
        seen: set[tuple[int, int]] = set()

        def unreadable(error: OSError) -> None:
            place = Path(error.filename or self.root)
            shown = place.relative_to(self.root).as_posix() if place.is_relative_to(self.root) else place.name
            self.quarantine.append((shown, f"folder cannot be read ({error.strerror})"))

        for here, folders, files in os.walk(self.root, followlinks=True, onerror=unreadable):
            status = Path(here).stat()
            below = len(Path(here).relative_to(self.root).parts)
            if (status.st_dev, status.st_ino) in seen or below > MAX_DEPTH:
                if below > MAX_DEPTH:
                    self.quarantine.append((Path(here).relative_to(self.root).as_posix(), _TOO_DEEP))
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            yield from (Path(here, f).relative_to(self.root).as_posix() for f in files)

    def open(self, name: str) -> BinaryIO:
        """A file for reading."""
        path = self.root / name
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("not a regular file")  # a pipe would wait for ever
        if status.st_size > MAX_BYTES:
            raise BadImage(f"larger than {MAX_BYTES >> 20} MiB")
        return path.open("rb")

    def stamp(self, name: str) -> tuple[int, int]:
        """Size and CRC-32 of a file; (0, 0) if it cannot be read."""
        size = crc = 0
        try:
            with self.open(name) as stream:
                while block := stream.read(1 << 20):
                    size, crc = size + len(block), zlib.crc32(block, crc)
        except (OSError, BadImage):
            return 0, 0
        return size, crc

    def metadata(self) -> bytes | None:
        """``dataset.json`` beside the images."""
        path = self.root / "dataset.json"
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_METADATA:
            raise LimnerError(f"{self.title}: dataset.json is larger than {MAX_METADATA >> 20} MiB; leave it out")
        return path.read_bytes()


class Archive(_Listing):
    """A ZIP of images. It is opened anew in each process, so that data loader workers may share it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.stem)
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        try:
            infos = [i for i in self._zip().infolist() if not i.is_dir()]
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise LimnerError(f"{path.name} is no readable ZIP ({error}); pack it again") from None
        _refuse_evil(path, infos)
        self._infos = {i.filename: i for i in infos}
        self._enter(self._infos)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def _zip(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.path)
        return self._opened[1]

    def open(self, name: str) -> BinaryIO:
        """A member, read whole; never more of it than it declares."""
        info = self._infos[name]
        if info.file_size > MAX_BYTES:
            raise BadImage(f"larger than {MAX_BYTES >> 20} MiB")
        try:
            return io.BytesIO(self._zip().read(info))
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise BadImage("damaged inside the ZIP") from error
        except (NotImplementedError, RuntimeError) as error:
            raise BadImage("packed in a way that cannot be read") from error

    def stamp(self, name: str) -> tuple[int, int]:
        """Size and CRC-32 as the ZIP's directory gives them."""
        return self._infos[name].file_size, self._infos[name].CRC

    def metadata(self) -> bytes | None:
        """``dataset.json`` at the top of the ZIP."""
        info = self._infos.get("dataset.json")
        if info is None:
            return None
        if info.file_size > MAX_METADATA:
            raise LimnerError(f"{self.title}: dataset.json is larger than {MAX_METADATA >> 20} MiB; leave it out")
        try:
            return self._zip().read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise LimnerError(f"{self.title}: dataset.json cannot be read ({error}); pack it again") from None


def _refuse_evil(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Refuses what no honest archive of images contains.

    Raises:
        LimnerError: too many members, a bomb, a link, encryption, or a member outside the archive's own folder.
    """
    if len(infos) > MAX_MEMBERS:
        raise LimnerError(f"{path.name} has more than {MAX_MEMBERS} members; unpack it and give the folder")
    unpacked = sum(i.file_size for i in infos)
    if unpacked > MAX_RATIO * path.stat().st_size:
        raise LimnerError(f"{path.name} unpacks to more than {MAX_RATIO} times its size, as a ZIP bomb does; refused")
    seen: set[str] = set()
    for info in infos:
        if stat.S_ISLNK(info.external_attr >> 16):
            raise LimnerError(f"{path.name} contains the link {info.filename!r}; pack the files themselves")
        if info.flag_bits & 1:
            raise LimnerError(f"{path.name} is encrypted; unpack it and give the folder")
        if _outside(info.filename) or _outside(info.orig_filename):
            raise LimnerError(f"{path.name} contains {info.filename!r}, which leads out of the archive; refused")
        if info.filename in seen:
            raise LimnerError(f"{path.name} contains {info.filename!r} twice; pack it again")
        seen.add(info.filename)


def _outside(name: str) -> bool:
    """Whether a member's name is no plain relative path on every system."""
    plain = name.replace("\\", "/")
    return plain.startswith("/") or ".." in plain.split("/") or "\0" in name or bool(re.match(r"[A-Za-z]:", plain))
