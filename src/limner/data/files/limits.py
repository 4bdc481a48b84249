"""Limits on what one image file may cost in memory and time, so that a hostile one stops nobody.

Pillow reads most formats in C and stops at the size that the header declares. What is left are costs that grow with
something else than the pixels: scans of a JPEG, blocks of a GIF, chunks of a PNG, runs that Pillow reads in Python.
They are counted before anything is decoded.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from PIL import Image, ImageFile

MAX_PIXELS = 200_000_000
"""Pixels of the largest picture that is read."""

MAX_BYTES = 256 << 20
"""Bytes of the largest file that is read."""

MAX_HELD = 64 << 20
"""Bytes of the largest AVIF, HEIC or WebP, whose readers hold the whole file."""

IN_FLIGHT = 100_000_000
"""Pixels that all threads of a process hold at a time; a larger picture is read alone."""

_MAX_SCANS, _MAX_SCANNED = 100, 2_000_000_000
_MAX_BLOCKS, _MAX_PARTS = 100_000, 1_000_000
_START_OF_SCAN, _BLOCK = 0xDA, 1 << 20
_MAX_RUNS = 16 << 20  # bytes of a run-length BMP or of a PPM as text, which Pillow reads in Python


class BadImage(Exception):
    """A file that cannot be used; the message is the reason."""


TOO_LARGE = f"larger than {MAX_PIXELS // 1_000_000} megapixels"


_LOCK = threading.Lock()
_LIMITS: list[ExitStack] = []  # of each `strict` that is being executed; the first one set the limits


@contextmanager
def strict() -> Iterator[None]:
    """Sets hard limits in Pillow while files of unknown origin are read.

    A decompression bomb is an error, not a warning, and a truncated file is not padded with grey. Pillow has these
    limits in module variables, which all threads share. They are restored when the last thread no longer needs them.
    """
    with _LOCK:
        _LIMITS.append(_LIMITS[0] if _LIMITS else _limited())
    try:
        yield
    finally:
        with _LOCK:
            stack = _LIMITS.pop()
            if not _LIMITS:
                stack.close()


def _limited() -> ExitStack:
    """Sets the limits; closing the result restores what was before."""
    before, limits = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES), ExitStack()

    def restore() -> None:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before

    limits.callback(restore)
    limits.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = MAX_PIXELS, False
    return limits


class _Flight:
    """Pixels in flight, counted over the threads that hold a share."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets what is held, as a forked process must: the threads that would give it back are not in it."""
        self.changed = threading.Condition()
        self.pixels = 0
        self.mine = threading.local()

    @contextmanager
    def share(self) -> Iterator[None]:
        """What this thread takes inside is given back at the end of the outermost share."""
        if hasattr(self.mine, "pixels"):
            yield
            return
        self.mine.pixels = 0
        try:
            yield
        finally:
            with self.changed:
                self.pixels -= getattr(self.mine, "pixels", 0)
                self.changed.notify_all()
            self.mine.__dict__.clear()

    def take(self, pixels: int) -> None:
        """Waits until there is room. A thread that already holds pixels does not wait, so none waits for itself."""
        held = getattr(self.mine, "pixels", None)
        if held is None:
            return
        pixels = min(pixels, IN_FLIGHT)
        with self.changed:
            if not held:
                self.changed.wait_for(lambda: self.pixels + pixels <= IN_FLIGHT)
            self.pixels += pixels
            self.mine.pixels = held + pixels


_FLIGHT = _Flight()
share, take = _FLIGHT.share, _FLIGHT.take
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_FLIGHT.reset)


def check_size(width: int, height: int) -> None:
    """Raises `BadImage` where a picture has no pixels or too many."""
    if min(width, height) < 1:
        raise BadImage("has no pixels")
    if width * height > MAX_PIXELS:
        raise BadImage(TOO_LARGE)


def check_jpeg(stream: BinaryIO, pixels: int) -> None:
    """Refuses a JPEG whose scans would take minutes: each scan goes over all pixels, and costs a few bytes.

    Raises:
        BadImage: more than 100 scans, or more scans times pixels than ten scans of the largest picture.
    """
    for marker, _ in _segments(stream):
        if marker == _START_OF_SCAN:
            break
    scans, end = 1, b""
    while block := end + stream.read(_BLOCK):  # in coded data FF is followed by 00 or a marker
        if len(block) == len(end):
            break
        scans += block.count(bytes([0xFF, _START_OF_SCAN]))
        end = b"\xff" if block[-1] == 0xFF else b""
    if scans > _MAX_SCANS or scans * pixels > _MAX_SCANNED:
        raise BadImage(f"a JPEG of {scans} scans, which would take minutes to read; save it again")


def jpeg_kind(stream: BinaryIO) -> str | None:
    """Why a JPEG is of a kind that is not read: "a 12-bit JPEG", "a lossless JPEG"; None if it is not."""
    for marker, start in _segments(stream):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker in (0xC3, 0xC7, 0xCB, 0xCF):
                return "a lossless JPEG"
            return f"a {start[0]}-bit JPEG" if start and start[0] != 8 else None
    return None


def _segments(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The marker and the first byte of each segment up to the first scan, behind which the stream then stands."""
    stream.seek(0)
    if stream.read(2) != b"\xff\xd8":
        return
    for _ in range(_MAX_BLOCKS):
        start = stream.read(2)
        while start == b"\xff\xff":  # fill bytes
            start = b"\xff" + stream.read(1)
        if len(start) < 2 or start[0] != 0xFF:
            return
        if start[1] == 0x01 or 0xD0 <= start[1] <= 0xD8:
            continue
        size = int.from_bytes(stream.read(2))
        here = stream.tell()
        yield start[1], stream.read(1)
        stream.seek(here + max(size - 2, 0))
        if start[1] == _START_OF_SCAN:
            return


def check_gif(stream: BinaryIO) -> None:
    """Refuses a GIF with too many blocks before the end of its second frame, which Pillow looks at in Python.

    Raises:
        BadImage: there are so many blocks.
    """
    stream.seek(0)
    start = stream.read(13)
    if len(start) < 13:
        return
    stream.seek(3 << (start[10] & 7) + 1 if start[10] & 0x80 else 0, 1)
    frames = parts = 0
    while parts < _MAX_PARTS:
        parts += 10  # a block costs more than one of its parts
        mark = stream.read(1)
        if mark == b"\x2c":
            frames += 1
            flags = stream.read(9)
            if frames > 2 or len(flags) < 9:
                return
            stream.seek((3 << (flags[8] & 7) + 1 if flags[8] & 0x80 else 0) + 1, 1)
        elif mark == b"\x21":
            stream.seek(1, 1)
        elif mark in (b"", b"\x3b"):
            return
        else:
            continue
        while parts < _MAX_PARTS and (size := stream.read(1)) not in (b"", b"\0"):
            parts += 1
            stream.seek(size[0], 1)
    raise BadImage("a GIF of too many blocks; save it again")


def check_ppm(stream: BinaryIO) -> None:
    """Refuses a PPM whose header takes more than 64 KiB, which Pillow would read byte by byte.

    Raises:
        BadImage: the remarks in its header are too long.
    """
    stream.seek(2)
    if len(re.sub(rb"#[^\r\n]*[\r\n]", b"", stream.read(1 << 16)).split(maxsplit=2)) < 3:
        raise BadImage("damaged (the header of a PPM)")


def check_runs(image: Image.Image, stream: BinaryIO) -> None:
    """Refuses large files of the two kinds that Pillow reads in Python: run-length BMP, and PPM as text or rescaled.

    Raises:
        BadImage: the file is too large for it.
    """
    kind = image.tile[0].codec_name if isinstance(image, ImageFile.ImageFile) and image.tile else ""
    if kind not in ("bmp_rle", "ppm", "ppm_plain"):
        return
    size = stream.seek(0, 2)
    if max(size, image.width * image.height) > _MAX_RUNS:
        raise BadImage(f"a {image.format} of runs or text, larger than {_MAX_RUNS >> 20} megapixels; save it as PNG")
