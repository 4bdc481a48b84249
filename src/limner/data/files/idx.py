"""The IDX format of MNIST and similar sets: a big-endian header and raw numbers.

Bytes 0 and 1 are zero, byte 2 is the type (8 is uint8) and byte 3 the number of dimensions. One 32-bit size for each
dimension follows. The MNIST page describes the format (LeCun, Cortes and Burges).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.errors import LimnerError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_BYTES = 2 << 30
"""Larger unpacked files are refused; the largest known one has 0.6 GB."""


def read(path: Path) -> NDArray[np.uint8]:
    """Reads the array of an ``idx`` or ``idx.gz`` file.

    Raises:
        LimnerError: the file is truncated or damaged, or it is not an IDX file of type uint8.
    """
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(path) as stream:
                raw = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise LimnerError(f"{path.name} cannot be read ({error}); fetch it again") from None
    return parse(raw, path.name)


def parse(raw: bytes, name: str) -> NDArray[np.uint8]:
    """Reads the array from the content of an IDX file; `name` is for error messages."""
    import numpy as np

    if len(raw) > MAX_BYTES:
        raise LimnerError(f"{name} unpacks to more than 2 GiB; it is none of the known sets; fetch it again")
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or not 1 <= raw[3] <= 4:
        raise LimnerError(f"{name} is not an IDX file of bytes; fetch it again")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise LimnerError(f"{name} is truncated; fetch it again")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    if len(raw) - start != math.prod(shape):
        raise LimnerError(
            f"{name} holds {len(raw) - start} values and its header says {math.prod(shape)}; fetch it again"
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)
