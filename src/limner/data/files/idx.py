"""The IDX format of MNIST and its family: a big-endian header and raw numbers.

Bytes 0 and 1 are zero, byte 2 names the type (8 is uint8), byte 3 the number of dimensions; then one 32-bit
size for each dimension. Described on the MNIST page (LeCun, Cortes and Burges).
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.errors import LimnerError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_BYTES = 2 << 30
"""A file that unpacks to more than this is refused: the largest of the family has 0.6 GB."""


def read(path: Path) -> NDArray[np.uint8]:
    """The array in an ``idx`` or ``idx.gz`` file.

    Raises:
        LimnerError: the file is truncated, damaged or no IDX file of bytes.
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
    """The array in the bytes of an IDX file called `name`."""
    import numpy as np

    if len(raw) > MAX_BYTES:
        raise LimnerError(f"{name} unpacks to more than 2 GiB; it is not one of the known sets")
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or not 1 <= raw[3] <= 4:
        raise LimnerError(f"{name} is not an IDX file of bytes; fetch it again")
    dimensions = raw[3]
    start = 4 + 4 * dimensions
    if len(raw) < start:
        raise LimnerError(f"{name} is truncated; fetch it again")
    shape = struct.unpack(f">{dimensions}I", raw[4:start])
    size = 1
    for n in shape:
        size *= n
    if len(raw) - start != size:
        raise LimnerError(f"{name} holds {len(raw) - start} values where its header says {size}; fetch it again")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)
