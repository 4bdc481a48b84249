"""The directory of a ZIP, read without an object for each member, so that a ZIP may have millions of them.

`zipfile` needs 600 bytes and 10 µs for each member. This reader yields one plain tuple at a time, and the caller keeps
what it needs. The layout is that of APPNOTE.TXT 6.3.10 of PKWARE: the end record (4.3.16), ZIP64 (4.3.14, 4.3.15) and
the central directory (4.3.12).
"""

from __future__ import annotations

import bz2
import lzma
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

MAX_DIRECTORY = 1 << 30

_END, _LOCATOR, _END64, _ENTRY, _LOCAL = b"PK\5\6", b"PK\6\7", b"PK\6\6", b"PK\1\2", b"PK\3\4"
_END_SIZE, _LOCATOR_SIZE, _ENTRY_SIZE, _LOCAL_SIZE = 22, 20, 46, 30
_UTF8, _ENCRYPTED = 0x800, 1
_STORED, _DEFLATED, _BZIP2, _LZMA = 0, 8, 12, 14
_SLACK = 1 << 16  # a compressed member may be this much larger than its content


class BadZip(Exception):
    """A file that is no readable ZIP; the message is the reason."""


class TooLarge(BadZip):
    """A ZIP with more members than are read."""


class BadMember(Exception):
    """A member that cannot be read; the message is the reason."""


class Member(NamedTuple):
    """A file or folder in a ZIP.

    Attributes:
        name: as it is written, without the changes that `limner.data.files.store` makes.
        size: bytes of its content, as it declares.
        packed: bytes in the ZIP.
        crc: CRC-32 of its content.
        method: how it is compressed.
        offset: where its header lies in the file.
        mode: the mode of a Unix file, 0 where there is none.
        encrypted: whether it needs a password.
    """

    name: str
    size: int
    packed: int
    crc: int
    method: int
    offset: int
    mode: int
    encrypted: bool


def members(path: Path, most: int, as_before: bool = False) -> Iterator[Member]:
    """The members of a ZIP, in the order of its directory.

    Args:
        path: the ZIP.
        most: a ZIP with more members is refused.
        as_before: read names as limner 0.1 did: every name that does not say that it is UTF-8 is CP437.

    Raises:
        BadZip: it is no ZIP, or it is damaged; `TooLarge` for more than `most` members.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        count, size, start, shift = _end(file)
        if count > most:
            raise TooLarge(f"it has more than {most} members")
        if size > MAX_DIRECTORY:
            raise TooLarge(f"its directory is larger than {MAX_DIRECTORY >> 20} MiB")
        file.seek(start)
        directory = file.read(size)
    if len(directory) < size:
        raise BadZip("its directory is cut short")
    at, found = 0, 0
    entry = struct.Struct("<8xHH4xLLLHHHxxxxLL")
    while at + _ENTRY_SIZE <= size and directory[at : at + 4] == _ENTRY:
        flags, method, crc, packed, plain, *lengths, attributes, offset = entry.unpack_from(directory, at)
        first = at + _ENTRY_SIZE
        middle = first + lengths[0]
        at = middle + lengths[1] + lengths[2]
        if at > size:
            raise BadZip("its directory is damaged")
        raw, extra = directory[first:middle], directory[middle : middle + lengths[1]]
        if 0xFFFFFFFF in (packed, plain, offset):
            plain, packed, offset = _zip64(extra, plain, packed, offset)
        found += 1
        if found > most:
            raise TooLarge(f"it has more than {most} members")
        name = _name(raw, flags, extra, as_before)
        mode = attributes >> 16
        yield Member(name, plain, packed, crc, method, offset + shift, mode, bool(flags & _ENCRYPTED))
    if at != size:
        raise BadZip("its directory is damaged")


def read(path: Path, size: int, packed: int, crc: int, method: int, offset: int) -> bytes:
    """The content of a member: never more than `size` bytes, with the right checksum.

    Raises:
        BadMember: it is damaged, or compressed in an unknown way.
        OSError: the ZIP cannot be read.
    """
    if packed > size + size // 8 + _SLACK:
        raise BadMember("damaged inside the ZIP")
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        header = file.read(_LOCAL_SIZE)
        if len(header) < _LOCAL_SIZE or header[:4] != _LOCAL:
            raise BadMember("damaged inside the ZIP")
        file.seek(sum(struct.unpack_from("<HH", header, 26)), os.SEEK_CUR)
        raw = file.read(packed)
    try:
        content = _unpacked(raw, size, method)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, struct.error):
        raise BadMember("damaged inside the ZIP") from None
    if len(content) != size or zlib.crc32(content) != crc:
        raise BadMember("damaged inside the ZIP")
    return content


def start_of(path: Path, packed: int, method: int, offset: int) -> bytes:
    """At most the first 64 bytes of a member's content; none where it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            header = file.read(_LOCAL_SIZE)
            file.seek(sum(struct.unpack_from("<HH", header, 26)), os.SEEK_CUR)
            return _unpacked(file.read(min(packed, 1024)), 63, method)[:64]
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, struct.error, BadMember):
        return b""


def _unpacked(raw: bytes, size: int, method: int) -> bytes:
    """At most `size` bytes and one more of the content."""
    if method == _STORED:
        return raw
    if method == _DEFLATED:
        return zlib.decompressobj(-15).decompress(raw, size + 1)
    if method == _BZIP2:
        return bz2.BZ2Decompressor().decompress(raw, size + 1)
    if method == _LZMA:
        # Two bytes of version, the length of the properties, and the properties: lc + 9 (lp + 5 pb), dictionary size.
        length, packing, dictionary = struct.unpack_from("<xxHBL", raw)
        lp_pb, lc = divmod(packing, 9)
        pb, lp = divmod(lp_pb, 5)
        options = {"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": min(dictionary, size + 4096)}
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[options]).decompress(raw[4 + length :], size + 1)
    raise BadMember("compressed by an unknown method")


def _end(file: BinaryIO) -> tuple[int, int, int, int]:
    """The number of members, the size of the directory, where it starts, and how many bytes lie before the ZIP."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _END_SIZE - 0xFFFF))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or at + _END_SIZE > len(tail):
        raise BadZip("it has no directory")
    disk, first_disk, _, count, size, offset = struct.unpack_from("<4xHHHHLL", tail, at)
    end = length - len(tail) + at
    locator = tail[at - _LOCATOR_SIZE : at] if at >= _LOCATOR_SIZE else b""
    if locator[:4] == _LOCATOR:
        file.seek(struct.unpack_from("<8xQ", locator)[0])
        record = file.read(56)
        if len(record) < 56 or record[:4] != _END64:
            raise BadZip("its ZIP64 record is damaged")
        disk, first_disk, _, count, size, offset = struct.unpack_from("<16xLLQQQQ", record)
        end -= _LOCATOR_SIZE + 12 + struct.unpack_from("<Q", record, 4)[0]
    if disk or first_disk:
        raise BadZip("it is one of several parts")
    start = end - size
    if start < offset or size > length:
        raise BadZip("its directory is damaged")
    return count, size, start, start - offset


def _zip64(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Size, packed size and offset, of which those that do not fit in 32 bits are in the extra field (4.5.3)."""
    values = [size, packed, offset]
    field = _extra_field(extra, 1)
    at = 0
    for k, value in enumerate(values):
        if value == 0xFFFFFFFF:
            if at + 8 > len(field):
                raise BadZip("its directory is damaged")
            values[k] = struct.unpack_from("<Q", field, at)[0]
            at += 8
    return values[0], values[1], values[2]


def _extra_field(extra: bytes, number: int) -> bytes:
    """The content of an extra field, empty where there is none."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        if tag == number:
            return extra[at + 4 : at + 4 + length]
        at += 4 + length
    return b""


def _name(raw: bytes, flags: int, extra: bytes, as_before: bool) -> str:
    """The name of a member: UTF-8 where a flag, an extra field (4.6.9) or the bytes themselves say so, else CP437."""
    if raw.isascii():
        return raw.decode("ascii")
    if flags & _UTF8:
        return raw.decode("utf-8", "surrogateescape")
    if not as_before:
        field = _extra_field(extra, 0x7075)
        if len(field) > 5 and field[0] == 1 and struct.unpack_from("<L", field, 1)[0] == zlib.crc32(raw):
            return field[5:].decode("utf-8", "surrogateescape")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return raw.decode("cp437")
