"""Decodes a set of images once, to one size, into a store that any number of trainings read through memory maps."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import filelock
import numpy as np
from numpy.typing import NDArray

from limner.core.durable import sync_folder, write_durably
from limner.core.errors import LimnerError
from limner.core.paths import user_path
from limner.data.files import decode, prepared
from limner.data.files.lazy import Files
from limner.data.files.prepared import HEADER, Header
from limner.data.files.store import open_store
from limner.data.files.threads import in_threads
from limner.data.options import Options
from limner.data.sources import folder

SUFFIX = ".limner"
_PARTIAL = ".{}.partial"
_EVERY = 4096  # images; so many are decoded again at most when a preparation goes on after an interruption
_SPARE = 64 << 20


def prepare(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    channels: Literal[1, 2, 3, 4] | None = None,
    attributes: list[str] | None = None,
    bins: dict[str, list[float]] | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Decodes all images of a folder, a ZIP or a data set into ``out.limner``, from which ``data=out.limner`` trains.

    The images, their order, splits and classes are those of the source at this size. If it is interrupted, the same
    call goes on where it stopped, unless a file has changed.

    Args:
        path: a folder, a ZIP, Parquet files, a Hugging Face data set on the disk, or WebDataset tars.
        out: the new folder, whose name ends in ``.limner``.
        size: side in pixels, or (height, width), as the option of the same name of data; by default what it would be.
        channels: 1 grey, 2 grey with alpha, 3 RGB, 4 RGB with alpha; by default what the images have.
        attributes: columns of the table to take as attributes; by default all that can be.
        bins: borders of intervals for columns of numbers, such as `{age: [20, 40, 60]}`.
        on_image: receives the number of decoded images and the number of all images.

    Returns:
        The path, the number of images, their shape, classes, attributes, size in bytes, notes, and what was left out
        and why.

    Raises:
        LimnerError: the images cannot be read, `out` exists, or the disk has not enough room.
    """
    target = user_path(out)
    if target.suffix != SUFFIX:
        raise LimnerError(f"out={target}: the name of a prepared store ends in {SUFFIX}; write {target.name}{SUFFIX}")
    if target.exists():
        raise LimnerError(f"{target} exists already; remove it or choose another name")
    options = Options(split="all", size=size, channels=channels)
    source = user_path(path)
    if prepared.is_prepared(source):
        raise LimnerError(f"{source.name} is prepared already; give the folder that it was made from")
    store = open_store(source)
    found = folder.find(store, str(path), options, folder.asked_of(attributes, bins))
    rows, facts = folder.select(found, options)
    files = Files(store=store, paths=[found.names[i] for i in rows], rows=found.rows[rows], **facts)
    partial = target.with_name(_PARTIAL.format(target.name))
    partial.mkdir(parents=True, exist_ok=True)
    with _alone(partial):
        header = _header(files, options)
        header.attributes = found.layout.attributes
        _write(partial, files, header, on_image or (lambda done, total: None))
        splits = np.stack([found.layout.train[rows], found.layout.test[rows]], axis=1).astype(np.uint8)
        _save(partial / "splits.npy", splits)
        if found.layout.labels is not None:
            _save(partial / "labels.npy", found.layout.labels[rows].astype(np.int64))
        write_durably(partial / HEADER, header.to_json().encode())
        sync_folder(partial)
        (partial / "done.json").unlink(missing_ok=True)
        (partial / "lock").unlink(missing_ok=True)
        partial.rename(target)
    sync_folder(target.parent)
    return {
        "path": str(target),
        "images": len(files),
        "shape": list(files.shape),
        "classes": header.classes,
        "attributes": header.attributes,
        "bytes": len(files) * math.prod(files.shape),
        "notes": header.notes,
        "left_out": [*header.quarantine, *((files.paths[row], reason) for row, reason in header.bad.items())],
    }


def _alone(partial: Path) -> filelock.BaseFileLock:
    """The lock of an unfinished store, taken."""
    lock = filelock.FileLock(partial / "lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise LimnerError(f"{partial} is being written by another process; wait for it") from None
    return lock


def _header(files: Files, options: Options) -> Header:
    source = hashlib.sha256(f"{files.fingerprint} {files.shape} {options.text()}".encode()).hexdigest()
    return Header(
        title=files.name,
        names=files.paths,
        shape=files.shape,
        size=options.size,
        channels=options.channels,
        classes=files.classes,
        notes=files.notes,
        quarantine=files.quarantine,
        source=source,
        texts=None if files.texts is None else [list(texts) for texts in files.texts],
    )


def _write(partial: Path, files: Files, header: Header, on_image: Callable[[int, int], None]) -> None:
    """Decodes all images into ``pixels.npy``, and adds those that cannot be decoded to the header."""
    n, state = len(files), partial / "done.json"
    done, header.bad = _done(state, header.source)
    if not done:
        for file in partial.glob("*.*"):  # of another preparation
            file.unlink()
    blank = np.zeros(files.shape, np.uint8)
    _save(partial / "checksums.npy", np.array(list(files.stamps()), np.int64).reshape(n, 2))
    with decode.strict(), _pixels(partial / "pixels.npy", (n, *files.shape), done) as stream:
        for row, image in enumerate(in_threads(files.read_or_reason, range(done, n)), done):
            if isinstance(image, tuple):
                header.bad[row], image = image[1], blank
            stream.write(image.data)
            if (row + 1) % _EVERY == 0 or row + 1 == n:
                stream.flush()
                os.fsync(stream.fileno())
                write_durably(state, json.dumps([header.source, row + 1, header.bad]).encode())
                on_image(row + 1, n)
    if 2 * len(header.bad) > n:
        raise LimnerError(
            f"{files.name}: {len(header.bad)} of {n} images cannot be decoded; 'limner data check' lists them"
        )


def _done(state: Path, source: str) -> tuple[int, dict[int, str]]:
    """How many images an interrupted preparation of the same files has decoded, and which of them are bad."""
    try:
        before, done, bad = json.loads(state.read_bytes())
    except (OSError, ValueError, TypeError):
        return 0, {}
    if before != source or not (state.parent / "pixels.npy").is_file():
        return 0, {}
    return int(done), {int(row): str(reason) for row, reason in bad.items()}


def _pixels(file: Path, shape: tuple[int, ...], done: int) -> BinaryIO:
    """The file of an array (N,C,H,W) uint8, opened for writing behind the images that are done.

    Raises:
        LimnerError: the disk has not enough room.
    """
    size, each = math.prod(shape), math.prod(shape[1:])
    free = shutil.disk_usage(file.parent).free
    if free < size - done * each + _SPARE:
        raise LimnerError(
            f"{size >> 20} MiB are needed and {free >> 20} MiB are free in {file.parent.parent}; "
            "choose a smaller size or another disk"
        )
    stream = file.open("r+b" if done else "wb")
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    stream.truncate(stream.seek(done * each, os.SEEK_CUR))
    return stream


def _save(file: Path, values: NDArray[Any]) -> None:
    with file.open("wb") as stream:
        np.save(stream, values)
        stream.flush()
        os.fsync(stream.fileno())
