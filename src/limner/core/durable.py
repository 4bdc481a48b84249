"""Files that are written completely or not at all, even if the process or the machine stops."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

_OURS = re.compile(r"\..+\.(\d+)\.tmp|\.\d+\.old")  # the names that `temporary_name` and a checkpoint's removal give
_STALE = 3600  # seconds after which a temporary file belongs to nobody, whoever has its process number now


def temporary_name(path: Path) -> Path:
    """The hidden name beside `path` under which this process writes it."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def replace_file(path: Path, content: bytes) -> None:
    """Replaces a file atomically: a reader sees all of the old or all of the new content."""
    temporary = temporary_name(path)
    try:
        write_durably(temporary, content)
        temporary.replace(path)
    except BaseException:  # a full disk, or Ctrl-C
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk, on systems that can."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_litter(path: Path) -> bool:
    """Whether a process that has ended left `path` behind, half written or half deleted."""
    match = _OURS.fullmatch(path.name)
    if match is None:
        return False
    if match[1] is None or int(match[1]) == os.getpid() or not _lives(int(match[1])):
        return True
    try:
        return time.time() - path.lstat().st_mtime > _STALE
    except OSError:
        return False


def sweep(folders: Iterable[Path]) -> None:
    """Deletes what processes that have ended left behind in these folders; other files are not touched."""
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            if is_litter(path):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    """Whether a process of this number may live."""
    if os.name != "posix":  # elsewhere signal 0 is no question
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it lives and is another user's
        return True
    return True
