"""Lists the images of a Parquet file. Rows cannot be read one by one, so they are unpacked once into limner's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from limner.core.errors import LimnerError
from limner.data.files.decode import MAX_BYTES
from limner.data.files.download import replacing
from limner.data.files.shard import Shard
from limner.data.files.table import arrow, columns, labelled, row_names

_ROWS = 64  # unpacked at a time
_MOST_ROWS = 100_000_000
_RATIO, _FLOOR = 100, 1 << 30


def read(path: Path, unpacked: Path) -> Shard:
    """The listing of a Parquet file, whose image files are written one after the other to `unpacked`.

    Raises:
        LimnerError: pyarrow is missing, the file is damaged or has no images, or the cache cannot be written.
    """
    pa, parquet = arrow(), arrow("pyarrow.parquet")
    try:
        table = parquet.ParquetFile(path)
        found = columns(path, table.schema_arrow)
        _refuse_bomb(path, table.metadata)
        # A value that is repeated is stored once, and stays so: a small file cannot become a large one.
        table = parquet.ParquetFile(path, read_dictionary=[found.leaf], memory_map=True)
        wanted = [found.leaf, *([found.label] if found.label else [])]
        places: list[tuple[int, int]] = []
        values: list[Any] = []
        with replacing(unpacked) as new, new.open("wb") as file:
            for batch in table.iter_batches(_ROWS, columns=wanted, use_threads=False):
                written: dict[int, tuple[int, int]] = {}
                column = batch.column(found.image)
                column = column.field("bytes") if pa.types.is_struct(column.type) else column
                for number in column.indices.to_pylist():
                    if number is not None and number not in written:
                        written[number] = _append(file, column.dictionary[number])
                    places.append((0, -1) if number is None else written[number])
                if file.tell() > _most(path):
                    raise _bomb(path)
                values += batch.column(found.label).to_pylist() if found.label else [None] * batch.num_rows
    except pa.ArrowException as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise LimnerError(f"{path.name} is not a readable Parquet file ({reason}); write it again") from None
    except OSError as error:
        raise LimnerError(
            f"{path.name} cannot be unpacked into limner's cache ({error.strerror or error}); set LIMNER_CACHE to a "
            "folder with as much room as the file has"
        ) from None
    labels, classes = labelled(path, found, values)
    place = np.array(places, np.int64).reshape(-1, 2)
    return Shard(unpacked, row_names(len(place)), place, labels, classes, found.classes is not None)


def _append(file: Any, value: Any) -> tuple[int, int]:
    """Writes a value at the end of a file; returns its offset and its length."""
    content = value.as_buffer()
    if content.size > MAX_BYTES:
        return 0, content.size  # refused when it is opened, by its length
    offset = file.tell()
    file.write(content)
    return offset, content.size


def _refuse_bomb(path: Path, metadata: Any) -> None:
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if metadata.num_rows > _MOST_ROWS or size > _most(path):
        raise _bomb(path)


def _most(path: Path) -> int:
    """Bytes that a file may unpack to."""
    return max(_FLOOR, _RATIO * path.stat().st_size)


def _bomb(path: Path) -> LimnerError:
    return LimnerError(f"{path.name} unpacks to more than {_RATIO} times its size, as a bomb does; refused")
