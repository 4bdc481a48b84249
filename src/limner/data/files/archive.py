"""A ZIP of images, which is read in place and never unpacked.

Whatever a ZIP contains, nothing is written to disk, and no more of a member is read than it declares.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import time
from array import array
from bisect import bisect_left
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from limner.core.errors import LimnerError
from limner.data.files import zip_directory
from limner.data.files.decode import MAX_BYTES, BadImage
from limner.data.files.listing import MAX_METADATA, Listing
from limner.data.files.reading import LATEST
from limner.data.files.zip_directory import BadMember, BadZip, Member, TooLarge

MAX_MEMBERS = 5_000_000
MAX_RATIO = 100
BOMB_MEMBER = 16 << 20
BOMB_TOTAL = 1 << 30
"""A ZIP is a bomb where a member has more than `BOMB_MEMBER` bytes, or all together more than `BOMB_TOTAL`, and that is
more than `MAX_RATIO` times what they take in the ZIP. Below, files may be of one colour, as masks in BMP files are. A
BMP file that is as large as its pixels need does not count."""


class Archive(Listing):
    """A ZIP of images. It holds no open file, so that threads and data loader workers can share it."""

    def __init__(self, path: Path, reading: int = LATEST) -> None:
        super().__init__(path.stem, reading)
        self.path, self.key, self.looked = path, str(path.resolve()), time.time_ns()
        status = path.stat()
        self._times = status.st_mtime_ns, status.st_ctime_ns
        places, names = array("q"), []
        offsets, ends = array("q"), array("q")
        unpacked = 0
        try:
            for m in zip_directory.members(path, MAX_MEMBERS, as_before=reading == 1):
                _refuse_hostile(path, m)
                if (
                    m.size > BOMB_MEMBER
                    and m.size > MAX_RATIO * m.packed
                    and not _is_bitmap(path, m.size, m.packed, m.method, m.offset)
                ):
                    raise _bomb(path, f"contains {m.name!r}, which unpacks to {m.size >> 20} MiB")
                unpacked += m.size
                offsets.append(m.offset)
                ends.append(m.offset + m.packed)
                name = m.name if reading == 1 else _plain(m.name)
                is_kept = bool(name) and not name.endswith("/") and self.is_image(name)
                if is_kept or (name and name in (*self.labels[-1:], *self.tables[-1:])):
                    names.append(name)
                    places.extend((m.size, m.packed, m.crc, m.method, m.offset))
        except TooLarge as error:
            raise LimnerError(f"{path.name} cannot be read ({error}); unpack it and give the folder") from None
        except (BadZip, OSError, OverflowError) as error:
            raise LimnerError(f"{path.name} is not a readable ZIP ({error}); create it again") from None
        limit = max(BOMB_TOTAL, MAX_RATIO * path.stat().st_size)
        if unpacked > limit and unpacked - self._bytes_of_bitmaps(np.array(places).reshape(-1, 5)) > limit:
            raise _bomb(path, f"unpacks to {unpacked >> 20} MiB")
        _refuse_shared_bytes(path, np.array(offsets), np.array(ends))
        order = sorted(range(len(names)), key=names.__getitem__)
        self.names = [names[k] for k in order]
        # Size, packed size, CRC-32, method and offset of each image: 40 bytes, where an object would take some 300.
        self._places = np.array(places).reshape(-1, 5)[order]
        twice = next((name for name, following in zip(self.names, self.names[1:]) if name == following), None)
        if twice is not None:
            raise LimnerError(f"{path.name} contains {twice!r} twice; create it again")
        self._others = {name: self._place(name) for name in (*self.labels, *self.tables)}
        if self._others:
            is_image = np.array([name not in self._others for name in self.names])
            self.names, self._places = [n for n in self.names if n not in self._others], self._places[is_image]
        self._metadata = self.choose_labels()

    def _bytes_of_bitmaps(self, places: NDArray[np.int64]) -> int:
        """The unpacked bytes of those images that are much larger than in the ZIP because they are of one colour."""
        flat = places[places[:, 0] > MAX_RATIO * places[:, 1]].tolist()
        return sum(size for size, packed, _, method, at in flat if _is_bitmap(self.path, size, packed, method, at))

    def stamps(self) -> NDArray[np.int64]:
        """(N,4): CRC-32 and size of each image, and times of the ZIP."""
        times = np.broadcast_to(np.array(self._times, np.int64), (len(self.names), 2))
        return np.concatenate([self._places[:, [2, 0]], times], axis=1)

    def _place(self, name: str) -> list[int]:
        at = bisect_left(self.names, name)
        if at == len(self.names) or self.names[at] != name:
            raise KeyError(name)
        place: list[int] = self._places[at].tolist()
        return place

    def open(self, name: str) -> BinaryIO:
        """Reads a member whole, but never more of it than it declares."""
        place = self._place(name)
        if place[0] > MAX_BYTES:
            raise BadImage(f"larger than {MAX_BYTES >> 20} MiB")
        try:
            return io.BytesIO(zip_directory.read(self.path, *place))
        except BadMember as error:
            raise BadImage(str(error)) from error

    def stamp(self, name: str) -> tuple[int, int]:
        """Size and CRC-32 from the directory of the ZIP."""
        size, _, crc, *_ = self._place(name)
        return size, crc

    def metadata(self) -> bytes | None:
        """The content of ``dataset.json`` at the top, or in the folder that holds everything; or None."""
        return None if self._metadata is None else self.table(self._metadata)

    def table(self, path: str) -> bytes:
        """The content of one of the tables."""
        place, name = self._others[path], path if path in self.tables else "dataset.json"
        if place[0] > MAX_METADATA:
            raise LimnerError(f"{self.title}: {name} is larger than {MAX_METADATA >> 20} MiB; leave it out")
        try:
            return zip_directory.read(self.path, *place)
        except (BadMember, OSError) as error:
            raise LimnerError(f"{self.title}: {name} cannot be read ({error}); create the ZIP again") from None


def _refuse_hostile(path: Path, member: Member) -> None:
    """Refuses a ZIP with a member that may attack the machine or cannot be read.

    Raises:
        LimnerError: the member is a link, is encrypted, or leads outside.
    """
    if member.mode and stat.S_ISLNK(member.mode):
        raise LimnerError(f"{path.name} contains the link {member.name!r}; put the file itself into the ZIP")
    if member.encrypted:
        raise LimnerError(f"{path.name} is encrypted; unpack it and give the folder")
    if _outside(member.name):
        raise LimnerError(f"{path.name} contains {member.name!r}, which leads out of the archive; refused")


def _is_bitmap(path: Path, size: int, packed: int, method: int, offset: int) -> bool:
    """Whether a member is a BMP file of the size that its pixels need, so that its limit is that of all images."""
    start = zip_directory.start_of(path, packed, method, offset)
    if len(start) < 54 or start[:2] != b"BM":
        return False
    at, width, height, bits = struct.unpack_from("<10xL4xLlxxH", start)
    return size <= at + abs(height) * ((width * bits + 31) // 32 * 4) + 4096


def _refuse_shared_bytes(path: Path, offsets: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
    """Refuses a ZIP whose members overlap, by which a bomb uses the same bytes for many of them."""
    order = offsets.argsort()
    if (ends[order][:-1] > offsets[order][1:]).any():
        raise LimnerError(f"{path.name} has members that share their bytes, as a ZIP bomb does; refused")


def _bomb(path: Path, what: str) -> LimnerError:
    return LimnerError(
        f"{path.name} {what}, more than {MAX_RATIO} times what it takes there, as a ZIP bomb does; refused: if you "
        "trust it, unpack it and give the folder"
    )


def _outside(name: str) -> bool:
    if name[:1] != "/" and name[1:2] != ":" and ".." not in name and "\\" not in name and "\0" not in name:
        return False  # most names, in a tenth of the time
    plain = name.replace("\\", "/")
    return plain.startswith("/") or ".." in plain.split("/") or "\0" in name or bool(re.match(r"[A-Za-z]:", plain))


def _plain(name: str) -> str:
    r"""A name with ``/`` between its parts, as Windows programs may write ``\``, and without ``./`` and ``//``."""
    if "\\" not in name and "//" not in name and "./" not in name:
        return name
    name = name.replace("\\", "/")
    if "//" in name or name.startswith("./") or "/./" in name:
        folder = "/" if name.endswith("/") else ""
        return "/".join(p for p in name.split("/") if p not in ("", ".")) + folder
    return name
