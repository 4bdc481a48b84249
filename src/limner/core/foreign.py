"""Safe reading of the files of `torch.save`, which are pickles.

A file is judged by its bytes first: its size, the directory of its archive, and the names that its pickle mentions,
which are read and not executed. A process of its own, with limits of memory and time, then turns the tensors into a
``.safetensors`` file (`foreign_process`). So neither code nor a bomb in a file can reach the process that asked.
"""

from __future__ import annotations

import json
import os
import pickletools
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from limner.core import foreign_process
from limner.core.errors import LimnerError

FILE_LIMIT = 2 << 30
"""Bytes of the largest file that is read. VGG-19 with its classifier has 0.55 GB."""
_DIRECTORY_LIMIT, _MEMBER_LIMIT = 4 << 20, 20_000  # of an archive: bytes of its directory, files in it
_PICKLE_LIMIT, _OPCODE_LIMIT = 16 << 20, 500_000  # of a pickle: bytes, operations; 10,000 tensors take 350,000
_WAIT = 1800  # seconds until a process that says nothing counts as hung

_LEGACY = re.compile(rb"\x80[\x02\x03]\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.")  # how `torch.save` began before version 1.6
_LEGACY_PICKLES = 5  # magic number, version, the machine, the object, the keys of the storages
_OTHERS = (  # how files begin that are often mistaken for weights
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself (git lfs pull)"),
    (b"<", "a web page, not the file that it links to; download it again"),
    (b"\x89HDF", "an HDF5 file of Keras or MATLAB; convert it to PyTorch where it was made"),
    (b"\x93NUMPY", "an array of NumPy; give a state dict"),
    (b"\x1f\x8b", "compressed by gzip; unpack it first"),
    (b"GGUF", "a GGUF file of a language model"),
    (b"\x04\x00\x00\x00", "a file of Lua Torch (.t7); convert it to PyTorch first"),
)
_TENSORS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor|tensor_v2|parameter|parameter_with_state)"
    r"|torch (Double|Float|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage|torch\.storage (Typed|Untyped)Storage"
    r"|torch\._tensor _rebuild_from_type_v2|torch(\.nn\.parameter)? (Tensor|Parameter|Size|device)"
    r"|torch (float64|float32|float16|bfloat16|int64|int32|int16|int8|uint8|bool)"
)
_SETTINGS = "argparse Namespace"  # the arguments of a training
_PROTOCOLS = b"\x02\x03\x04\x05"  # of pickles
_SPECIAL = (
    (re.compile("sparse|_get_layout"), "sparse"),
    (re.compile("qtensor|Q(U?Int|UInt)|qint|per_tensor_affine"), "quantised"),
    (re.compile("[Cc]omplex"), "complex"),
    (re.compile("meta_tensor"), "empty (meta)"),
)


def convert(files: Sequence[Path], folder: Path, *, objects: bool = False) -> list[Path | LimnerError]:
    """Turns files of `torch.save` into ``.safetensors`` files in a folder.

    Args:
        files: the files.
        folder: an existing folder for the results.
        objects: whether files may hold settings and modules beside tensors: the arguments of a training, or a whole net
            as NVIDIA's code pickles it. Of modules the tensors are taken, and nothing else is looked at.

    Returns:
        For each file the path of the result, or the reason why there is none. The metadata `nets` of a result are the
        names of the state dicts in the file, as JSON; ``0/conv.weight`` is a tensor of the first of them.
    """
    results: list[Path | LimnerError] = []
    for i, file in enumerate(files):
        try:
            check(file, objects=objects)
            results.append(folder / f"{i}.safetensors")
        except LimnerError as error:
            results.append(error)
    jobs = [(str(file), str(r)) for file, r in zip(files, results, strict=True) if isinstance(r, Path)]
    reasons = dict(zip((target for _, target in jobs), _run(jobs, objects), strict=True)) if jobs else {}
    for i, (file, result) in enumerate(zip(files, results, strict=True)):
        if isinstance(result, Path) and reasons[str(result)]:
            results[i] = LimnerError(f"{file.name} cannot be read: {plain(reasons[str(result)])}")
    return results


def plain(text: str, limit: int = 160) -> str:
    """One line of printable characters, cut between words."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    words = "".join(c if c.isprintable() else " " for c in text).split()
    line = " ".join(words)
    return line if len(line) <= limit else f"{line[:limit].rsplit(' ', 1)[0][:limit]} …"


def _run(jobs: list[tuple[str, str]], objects: bool) -> list[str]:
    """Converts in another process; for each file the reason why it failed, or nothing."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-P", foreign_process.__file__]
    try:
        done = subprocess.run(
            command,
            input=json.dumps([[*job, objects] for job in jobs]).encode(),
            capture_output=True,
            env=environment,
            timeout=_WAIT,
            check=False,
        )
        reasons = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return ["it takes too long"] * len(jobs)
    except ValueError:
        reasons = [f"the process that reads it failed: {done.stderr.decode(errors='replace')[-200:]}"] * len(jobs)
    return [str(r) for r in reasons]


def check(file: Path, *, objects: bool = False) -> None:
    """Checks what can be known of a file without reading its tensors.

    Args:
        file: the file.
        objects: as in `convert`. The names in a plain pickle are judged while it is read.

    Raises:
        LimnerError: it is too large, damaged, no file of `torch.save`, or holds more than tensors.
    """
    size = file.stat().st_size
    if size > FILE_LIMIT:
        raise LimnerError(f"{file.name} has {size / 2**30:.1f} GiB; weights of up to {FILE_LIMIT >> 30} GiB are read")
    with file.open("rb") as stream:
        head = stream.read(512)
        stream.seek(0)
        if head.startswith(b"PK\x03\x04"):
            names = _names_in_archive(file.name, stream, size)
        elif _LEGACY.match(head):
            names = _names(file.name, stream, _LEGACY_PICKLES)
        elif objects and head[:1] == b"\x80" and head[1:2] in _PROTOCOLS:
            return
        else:
            raise LimnerError(f"{file.name} {_what_else(head, stream)}")
    for pattern, kind in _SPECIAL:
        if any(pattern.search(name) for name in names):
            raise LimnerError(f"{file.name} holds {kind} tensors; save dense floating-point weights instead")
    others = [n for n in names if not (_TENSORS.fullmatch(n) or (objects and n == _SETTINGS))]
    if others:
        raise LimnerError(f"{file.name} {_no_tensors(others)}")


def _no_tensors(names: list[str]) -> str:
    """Why a pickle that mentions such names is not read."""
    what = f" (such as {plain(names[0].replace(' ', '.'), 60)})" if names else ""
    return (
        f"cannot be read safely: it holds Python objects{what}, which would run code; where it was made, write"
        " torch.save(net.state_dict(), 'weights.pth') and give that file"
    )


def _what_else(head: bytes, stream: BinaryIO) -> str:
    """What a file is that `torch.save` did not write."""
    if not head:
        return "is empty; download it again"
    for beginning, what in _OTHERS:
        if head.startswith(beginning):
            return f"is {what}"
    if head[257:262] == b"ustar" or head[:10].rstrip(b"\0") == b"storages":
        return "is a tar file of PyTorch before 0.2; save its state dict with a newer PyTorch"
    if head[:1] == b"\x80":
        try:
            names = _names("", stream, 1)
        except LimnerError:
            names = []
        return _no_tensors(names)
    return "holds no weights that can be read safely; give a .safetensors file or a state dict of torch.save"


def _names_in_archive(name: str, stream: BinaryIO, size: int) -> list[str]:
    """The names in the pickle of an archive, after a look at its directory."""
    damaged = LimnerError(f"{name} is a damaged archive; download it again")
    if _directory_size(stream, size) > _DIRECTORY_LIMIT:
        raise damaged
    try:
        archive = zipfile.ZipFile(stream)
        members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error, EOFError, UnicodeError):
        raise damaged from None
    names = [m.filename for m in members]
    pickles = [n for n in names if n.endswith("/data.pkl")]
    if any(n.endswith("/constants.pkl") or "/code/" in n for n in names):
        raise LimnerError(f"{name} is a TorchScript archive; give a state dict: torch.save(net.state_dict(), FILE)")
    if any(n.endswith(("models/model.json", "serialized_exported_program.json", "archive_format")) for n in names):
        raise LimnerError(f"{name} is an exported program (.pt2); give the state dict of the net that it was made of")
    if len(pickles) != 1:
        raise LimnerError(f"{name} is a ZIP that torch.save did not write; unpack it, and give the .pth that is in it")
    stored = sum(m.file_size for m in members)
    if (
        len(members) > _MEMBER_LIMIT
        or len(set(names)) != len(names)
        or stored > size
        or any(m.compress_type or m.compress_size != m.file_size or m.flag_bits & 1 for m in members)
    ):
        raise LimnerError(f"{name} is no archive as torch.save writes it (compressed or overlapping); save it anew")
    info = archive.getinfo(pickles[0])
    if info.file_size > _PICKLE_LIMIT:
        raise LimnerError(f"{name} describes its tensors in {info.file_size >> 20} MiB, which no state dict needs")
    try:
        with archive.open(info) as pickle:
            return _names(name, pickle, 1)  # type: ignore[arg-type]
    except (zipfile.BadZipFile, OSError, EOFError, struct.error, NotImplementedError):
        raise damaged from None


def _directory_size(stream: BinaryIO, size: int) -> int:
    """Bytes of an archive's directory as the end of the archive states them; more than any limit if it does not."""
    length = min(size, (1 << 16) + 22)
    stream.seek(size - length)
    tail = stream.read(length)
    stream.seek(0)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 22 > len(tail):
        return _DIRECTORY_LIMIT + 1
    entries, stated = struct.unpack("<HI", tail[at + 10 : at + 16])
    if 0xFFFFFFFF in (stated,) or entries == 0xFFFF:
        at = tail.rfind(b"PK\x06\x06")
        if at < 0 or at + 56 > len(tail):
            return _DIRECTORY_LIMIT + 1
        (stated,) = struct.unpack("<Q", tail[at + 40 : at + 48])
    return int(stated)


class _Bounded:
    """A stream that ends with an error after a number of bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.left = stream, _PICKLE_LIMIT

    def read(self, n: int) -> bytes:
        """N bytes."""
        self.left -= n
        if n < 0 or self.left < 0:
            raise ValueError("too long")
        return self.stream.read(n)

    def readline(self) -> bytes:
        """A line."""
        line = self.stream.readline(min(self.left, 1 << 16))
        self.left -= len(line)
        return line

    def tell(self) -> int:
        """The position."""
        return self.stream.tell()


def _names(name: str, stream: BinaryIO, pickles: int) -> list[str]:
    """The names ``module name`` that some pickles, one after the other, mention. Nothing of them is executed.

    Raises:
        LimnerError: a pickle is damaged, or larger than those of any state dict.
    """
    found: dict[str, None] = {}
    bounded, count, strings = _Bounded(stream), 0, ["", ""]
    try:
        for _ in range(pickles):
            for opcode, argument, _position in pickletools.genops(bounded):  # type: ignore[arg-type]
                count += 1
                if count > _OPCODE_LIMIT:
                    raise ValueError("too many operations")
                if opcode.name in ("GLOBAL", "INST"):
                    found[str(argument)] = None
                elif opcode.name == "STACK_GLOBAL":
                    found[" ".join(strings)] = None
                elif isinstance(argument, str):
                    strings = [strings[1], argument]
    except (ValueError, IndexError, OverflowError, MemoryError, struct.error, EOFError, UnicodeError, AttributeError):
        raise LimnerError(f"{name} is damaged or no state dict: its pickle cannot be read; download it anew") from None
    return list(found)
