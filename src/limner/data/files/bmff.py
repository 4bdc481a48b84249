"""Reads from an AVIF or HEIC what its colours mean, which Pillow does not say (ISO/IEC 14496-12 and 23008-12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

_MAX_META = 1 << 20
_MAX_BOXES = 10_000


def numbers(stream: BinaryIO) -> tuple[int, int] | None:
    """Primaries and transfer (ITU-T H.273) of the primary picture; None where it has none or has an ICC profile."""
    stream.seek(0)
    meta = next((body for name, body in _boxes(stream.read(_MAX_META)) if name == b"meta"), None)
    if meta is None:
        return None
    inner = dict(_boxes(meta[4:]))
    properties = dict(_boxes(inner.get(b"iprp", b"")))
    colours = []
    own = _associated(properties.get(b"ipma", b""), _primary(inner.get(b"pitm", b"")))
    for i, (name, body) in enumerate(_boxes(properties.get(b"ipco", b"")), start=1):
        if name == b"colr" and i in own:
            colours.append(body)
    if any(body[:4] in (b"prof", b"rICC") for body in colours):
        return None
    return next(
        ((int.from_bytes(c[4:6]), int.from_bytes(c[6:8])) for c in colours if c[:4] == b"nclx" and len(c) >= 10), None
    )


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    for _ in range(_MAX_BOXES):
        if at + 8 > len(data):
            return
        size, start = int.from_bytes(data[at : at + 4]), 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16]), 16
        end = len(data) if size == 0 else at + size
        if end < at + start:
            return
        yield data[at + 4 : at + 8], data[at + start : end]
        at = end


def _primary(pitm: bytes) -> int:
    return int.from_bytes(pitm[4:6] if pitm[:1] == b"\0" else pitm[4:8])


def _associated(ipma: bytes, item: int) -> set[int]:
    """The properties of an item, counted from 1."""
    if len(ipma) < 8:
        return set()
    wide_items, wide_indices = ipma[0] > 0, bool(ipma[3] & 1)
    at, width = 8, 2 if wide_indices else 1
    found: set[int] = set()
    for _ in range(min(int.from_bytes(ipma[4:8]), _MAX_BOXES)):
        size = 4 if wide_items else 2
        name, n = int.from_bytes(ipma[at : at + size]), int.from_bytes(ipma[at + size : at + size + 1])
        at += size + 1
        if name == item:
            entries = (int.from_bytes(ipma[at + width * k : at + width * (k + 1)]) for k in range(n))
            found |= {entry & (0x7FFF if wide_indices else 0x7F) for entry in entries}
        at += width * n
        if at > len(ipma):
            break
    return found
