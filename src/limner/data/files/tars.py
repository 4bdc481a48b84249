"""Lists the images of a WebDataset shard: a tar whose members ``0001.jpg`` and ``0001.cls`` belong together."""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np

from limner.core.errors import LimnerError
from limner.data.files.decode import SUFFIXES
from limner.data.files.shard import Shard

_LABEL_BYTES = 1 << 16
_HEADER_BYTES = 1 << 20
_KEYS = ("label", "cls", "class")  # of a label in a .json


def read(path: Path, unpacked: Path) -> Shard:
    """The listing of a tar; `unpacked` is not needed, because a tar is read in place.

    Raises:
        LimnerError: the tar is compressed, or has links, devices, or paths that lead out of it.
    """
    images: dict[str, tuple[str, int, int]] = {}  # key -> name, offset, size
    labels: dict[str, str] = {}
    ignored: Counter[str] = Counter()
    quarantine: list[tuple[str, str]] = []
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            bounded: Any = _Bounded(file)
            with tarfile.open(fileobj=bounded, mode="r:", errorlevel=1) as opened:
                tar: Any = opened
                for member in tar:
                    tar.members = []  # tarfile would keep all of them
                    _refuse_hostile(path, member)
                    if not member.isreg():
                        continue
                    folder, _, base = member.name.removeprefix("./").rpartition("/")
                    stem, _, kind = base.partition(".")
                    key, kind = f"{folder}/{stem}" if folder else stem, kind.lower()
                    if base.startswith(".") or member.offset_data + member.size > size:
                        if not base.startswith("."):
                            quarantine.append((member.name, "truncated"))
                    elif f".{kind}" in SUFFIXES:
                        if key in images:
                            raise LimnerError(
                                f"{path.name} contains two images of the key {key!r}; give each its own, or unpack it"
                            )
                        images[key] = member.name.removeprefix("./"), member.offset_data, member.size
                    elif kind in ("cls", "json") and member.size <= _LABEL_BYTES:
                        label = _label(kind, _content(tar, member))
                        if label is not None and (kind == "cls" or key not in labels):
                            labels[key] = label
                    else:
                        ignored[f".{kind}" if kind else "no suffix"] += 1
                file.seek(tar.offset)  # tarfile stops without a word where a header is damaged or cut off
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    quarantine.append(("…", "the tar ends without its end mark: it is damaged or cut off"))
        except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
            if not images:
                raise LimnerError(f"{path.name} is not a readable tar ({error}); {_remedy(path)}") from None
            quarantine.append(("…", f"the tar is damaged from here on ({type(error).__name__})"))
    keys = sorted(images)
    texts = [labels.get(key, "") for key in keys]
    classes = sorted({text for text in texts if text})
    number = {text: k for k, text in enumerate(classes)} | {"": -1}
    return Shard(
        path.resolve(),
        [images[key][0] for key in keys],
        np.array([images[key][1:] for key in keys], np.int64).reshape(-1, 2),
        np.array([number[text] for text in texts], np.int64),
        classes,
        ignored=dict(ignored),
        quarantine=quarantine,
    )


class _Bounded:
    """A file of which tarfile cannot read much at once: a header may say that it is larger than the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def read(self, n: int = -1) -> bytes:
        if not 0 <= n <= _HEADER_BYTES:
            raise tarfile.ReadError("a header of more than 1 MiB")
        return self.file.read(n)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()


def _refuse_hostile(path: Path, member: tarfile.TarInfo) -> None:
    """Raises a `LimnerError` for members that a set of images does not need."""
    parts = member.name.replace("\\", "/").split("/")
    if member.name.startswith(("/", "\\")) or ".." in parts or "\0" in member.name or parts[0][1:2] == ":":
        raise LimnerError(f"{path.name} contains {member.name!r}, which leads out of the archive; refused")
    if member.issym() or member.islnk():
        raise LimnerError(f"{path.name} contains the link {member.name!r}; put the file itself into the tar")
    if member.isdev() or member.issparse():
        raise LimnerError(f"{path.name} contains {member.name!r}, a device or a sparse file; refused")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read(_LABEL_BYTES)


def _label(kind: str, content: bytes) -> str | None:
    """The class that a .cls or a .json names, or None."""
    try:
        text = content.decode("utf-8").strip()
        value: Any = text
        if kind == "json":
            document = json.loads(text)
            value = next((document[k] for k in _KEYS if k in document), None) if isinstance(document, dict) else None
    except (ValueError, RecursionError):
        return None
    is_name = isinstance(value, (str, int)) and not isinstance(value, bool)
    return str(value).strip() or None if is_name else None


def _remedy(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(6)
    packed = (
        start[:2] == b"\x1f\x8b" or start[:3] == b"BZh" or start == b"\xfd7zXZ\0" or start[:4] == b"\x28\xb5\x2f\xfd"
    )
    return "it is compressed: unpack it to a plain .tar" if packed else "create it again"
