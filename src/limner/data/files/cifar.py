"""The binary version of CIFAR-10 (Krizhevsky 2009): rows of one label byte and 3072 pixel bytes.

The other versions of the set are pickles, which can run code; this one has only numbers. The members of the tar are
read as a stream, by their known names and lengths. No file is unpacked to disk.
"""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.errors import LimnerError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]

_ROW = 1 + 3 * 32 * 32
_LARGEST = 10_000 * _ROW


def read(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """Reads images (N,32,32,3), labels (N,) and a mask (N,) that is True for the official test images.

    Raises:
        LimnerError: the archive is damaged or lacks a batch.
    """
    import numpy as np

    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                stream = archive.extractfile(member) if name in BATCHES and member.isfile() else None
                if stream is not None and member.size <= _LARGEST:
                    contents[name] = stream.read(_LARGEST)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise LimnerError(f"{path.name} is damaged ({error}); delete it and fetch it again") from None
    missing = [n for n in BATCHES if not contents.get(n) or len(contents[n]) % _ROW]
    if missing:
        raise LimnerError(f"{path.name} has no complete {missing[0]}; give the binary version of CIFAR-10")
    rows = [np.frombuffer(contents[n], np.uint8).reshape(-1, _ROW) for n in BATCHES]
    table = np.concatenate(rows)
    images = table[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    test = np.concatenate([np.full(len(r), n == "test_batch.bin") for n, r in zip(BATCHES, rows)])
    return images, table[:, 0].astype(np.int64), test
