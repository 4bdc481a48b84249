"""Lists the images of an Arrow file of a Hugging Face data set (`Dataset.save_to_disk`); it is then read in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limner.core.errors import LimnerError
from limner.data.files.shard import Shard
from limner.data.files.table import arrow, columns, labelled, row_names

_STATE_BYTES = 1 << 20


def read(path: Path, unpacked: Path) -> Shard:
    """The listing of an Arrow file; `unpacked` is not needed.

    Raises:
        LimnerError: pyarrow is missing, or the file is damaged, compressed or has no images.
    """
    pa = arrow()
    _refuse_indices(path)
    try:
        with pa.memory_map(str(path)) as file:
            buffer = file.read_buffer(file.size())
            batches = _batches(pa, buffer)
            found = columns(path, batches.schema)
            extents, values = [], []
            for batch in batches:
                extents.append(_extents(path, batch.column(found.image), buffer))
                if found.label is not None:
                    column = batch.column(found.label)
                    column.validate(full=True)
                    values += column.to_pylist()
                else:
                    values += [None] * batch.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise LimnerError(f"{path.name} is not a readable Arrow file ({_first(error)}); save it again") from None
    labels, classes = labelled(path, found, values)
    place = np.concatenate([*extents, np.zeros((0, 2), np.int64)])
    return Shard(path.resolve(), row_names(len(place)), place, labels, classes, found.classes is not None)


def _batches(pa: Any, buffer: Any) -> Any:
    """The batches of a stream, which `datasets` writes, or of a file."""
    if buffer[:6].to_pybytes() != b"ARROW1":
        return pa.ipc.open_stream(buffer)
    reader = pa.ipc.open_file(buffer)

    class Batches:
        schema = reader.schema

        def __iter__(self) -> Any:
            return (reader.get_batch(i) for i in range(reader.num_record_batches))

    return Batches()


def _extents(path: Path, column: Any, buffer: Any) -> NDArray[np.int64]:
    """Offset in the file and length (N,2) of each value; a length of -1 where there is none."""
    pa, n = arrow(), len(column)
    absent = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_struct(column.type):
        column = column.field("bytes")
        absent = absent | column.is_null().to_numpy(zero_copy_only=False)
    column.validate(full=True)
    _, offsets, values = column.buffers()
    kind = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    if values is None or offsets is None:
        return np.full((n, 2), (0, -1), np.int64)
    ends = np.frombuffer(offsets, kind)[column.offset : column.offset + n + 1].astype(np.int64)
    start = values.address - buffer.address
    if start < 0 or start + values.size > buffer.size:
        raise LimnerError(f"{path.name} is compressed and cannot be read in place; save it without compression")
    lengths = np.diff(ends)
    if len(ends) != n + 1 or ends[0] < 0 or ends[-1] > values.size or (lengths < 0).any():
        raise ValueError("offsets lead out of the file")
    return np.stack([start + ends[:-1], np.where(absent, -1, lengths)], axis=1)


def _refuse_indices(path: Path) -> None:
    """Refuses a data set whose rows are to be taken in another order, which old versions of `datasets` wrote."""
    state = path.with_name("state.json")
    try:
        document = json.loads(state.read_bytes()) if state.stat().st_size <= _STATE_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(document, dict) and (document.get("_indices_data_files") or document.get("_indices_files")):
        raise LimnerError(
            f"{path.parent.name} has indices beside its rows; load it, flatten_indices() and save it again"
        )


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
