"""Safe reading of published weights from ``.safetensors`` files or files of `torch.save`, with their checksums."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from limner.core import checkpoint, foreign
from limner.core.errors import LimnerError
from limner.core.paths import user_path
from limner.core.records import parse_json

_VGG19 = "dcbb9e9d"  # start of the SHA-256 of torchvision's file
_PREFIX = re.compile(r"(module|_orig_mod)\.")  # of `DataParallel` and of `torch.compile`
_NAME_LIMIT, _HEADER_LIMIT = 200, 1 << 20
_DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


class Weights(NamedTuple):
    """The content of a file.

    Attributes:
        tensors: the tensors by name.
        digits: the first eight digits of the file's SHA-256, by which results name the file.
    """

    tensors: dict[str, Tensor]
    digits: str


def read(path: str | os.PathLike[str], part: str | None = None) -> Weights:
    """Reads the state dict in a file.

    Args:
        path: a ``.safetensors`` file, or one of `torch.save`, which is read in a process of its own (`foreign`).
        part: which state dict, if the file holds several, such as ``G_ema``; or the first part of its tensors' names.

    Raises:
        LimnerError: the file does not exist, cannot be read safely, or holds no state dict or several.
    """
    return read_all([path], part)[0]


def read_nets(path: str | os.PathLike[str]) -> dict[str, dict[str, Tensor]]:
    """Reads all state dicts in a file by their names, also those of whole modules that NVIDIA's code pickled.

    Tensors beside the state dicts have the name "". A file with settings beside its tensors is read as well, without
    them (`foreign.convert` with `objects`).

    Raises:
        LimnerError: the file does not exist, cannot be read safely, or holds no state dict.
    """
    file = user_path(path)
    if _is_safetensors(file):
        return {"": _checked(_bare(_nets(file, file)[""]), file.name)}
    with tempfile.TemporaryDirectory() as folder:
        (found,) = foreign.convert([file], Path(folder), objects=True)
        return {name: _checked(_bare(net), file.name) for name, net in _nets(file, found).items()}


def read_all(paths: Sequence[str | os.PathLike[str]], part: str | None = None) -> list[Weights]:
    """Reads the state dicts in several files, as `read` does, at once."""
    files = [user_path(path) for path in paths]
    pickled = [file for file in files if not _is_safetensors(file)]
    with tempfile.TemporaryDirectory() as folder:
        converted = dict(zip(pickled, foreign.convert(pickled, Path(folder)), strict=True))
        return [Weights(_tensors(file, converted.get(file, file), part), digits_of(file)) for file in files]


def _is_safetensors(file: Path) -> bool:
    if not file.is_file():
        raise LimnerError(f"there is no file {file}; give a .pth or .safetensors file")
    try:
        with file.open("rb") as stream:
            return file.suffix.lower() == ".safetensors" or stream.read(9)[8:] == b"{"
    except OSError as error:
        raise LimnerError(f"cannot read {file}: {error.strerror or error}") from None


def _tensors(file: Path, found: Path | LimnerError, part: str | None) -> dict[str, Tensor]:
    """The tensors of a file, which `found` holds as ``.safetensors``."""
    return _checked(_bare(_choose(_nets(file, found), file.name, part)), file.name)


def _nets(file: Path, found: Path | LimnerError) -> dict[str, dict[str, Tensor]]:
    """The state dicts of a file by name, which `found` holds as ``.safetensors``."""
    if isinstance(found, LimnerError):
        raise found
    if _stated_size(found) != found.stat().st_size:
        raise checkpoint.DamagedCheckpoint(f"{file.name} is no whole .safetensors file; download it again")
    if found.stat().st_size > 2 * foreign.FILE_LIMIT:
        raise LimnerError(f"{file.name} is too large; weights of up to {foreign.FILE_LIMIT >> 30} GiB are read")
    tensors, metadata = checkpoint.safetensors(found.read_bytes(), file.name)
    nets: dict[str, dict[str, Tensor]] = {"": tensors}
    if found is not file:
        names = json.loads(metadata["nets"])
        nets = {name: {} for name in names}
        for key, tensor in tensors.items():
            number, _, name = key.partition("/")
            nets[names[int(number)]][name] = tensor
    return nets


def _checked(tensors: dict[str, Tensor], file: str) -> dict[str, Tensor]:
    """The tensors, if they are what a net can have."""
    for name, tensor in tensors.items():
        if len(name) > _NAME_LIMIT or not name.isprintable():
            raise LimnerError(f"{file} has a tensor with an unreadable name of {len(name):,} characters")
        if not tensor.numel():
            raise LimnerError(f"{file}: {name} is empty; save the net again")
        if tensor.dtype not in _DTYPES or tensor.ndim > 8:
            raise LimnerError(f"{file}: {name} is {tensor.dtype} {tuple(tensor.shape)}; save it as float32")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise LimnerError(f"{file}: {name} has values that are not finite; the training that made it diverged")
    return tensors


def _stated_size(file: Path) -> int:
    """Bytes that a ``.safetensors`` file has according to its header; 0 if there is none."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = parse_json(stream.read(min(length, _HEADER_LIMIT)))
        ends = [int(t["data_offsets"][1]) for name, t in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError):
        return 0
    return 8 + length + max(ends, default=0)


def _choose(nets: dict[str, dict[str, Tensor]], file: str, part: str | None) -> dict[str, Tensor]:
    """The state dict that is meant: the only one, or `part`."""
    if part is not None:
        for name, net in nets.items():
            if part in (name, name.rpartition(".")[2]):
                return net
        for net in nets.values():
            within = {k[len(part) + 1 :]: t for k, t in _bare(net).items() if k.startswith(f"{part}.")}
            if within:
                return within
        raise LimnerError(
            f"{file} has no part {part!r}; it has {foreign.plain(', '.join(filter(None, nets)) or 'one net')}"
        )
    if len(nets) == 1:
        return next(iter(nets.values()))
    raise LimnerError(f"{file} holds several nets; name one: part={foreign.plain(' or '.join(nets))}")


def _bare(net: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the name of a wrapper, which all of them have then."""
    while net and all(_PREFIX.match(name) for name in net):
        net = {_PREFIX.sub("", name, count=1): tensor for name, tensor in net.items()}
    return net


def vgg19(file: str) -> dict[str, Tensor]:
    """The tensors of VGG-19, from a file, or for "vgg19" from torchvision's download (548 MB, once).

    Raises:
        LimnerError: the file cannot be read or downloaded.
    """
    if file == "vgg19":
        name = f"vgg19-{_VGG19}.pth"
        file = str(fetch(name, f"https://download.pytorch.org/models/{name}", _VGG19, "weights"))
        return torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251 - its digits are known
    if not user_path(file).is_file():
        raise LimnerError(
            f"there is no file {file} with VGG-19's weights, which this model needs; put it there (the path counts from"
            " where you are), or import or train with another"
        )
    return read(file).tensors


def describe_vgg19(file: str) -> str:
    """The name of the file that `vgg19` reads, and the first eight digits of its SHA-256."""
    path = user_path(file)
    name, digits = (f"vgg19-{_VGG19}.pth", _VGG19) if file == "vgg19" else (path.name, digits_of(path))
    return f"{name}, whose SHA-256 begins with {digits}"


def digits_of(path: Path) -> str:
    """The first eight digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def fetch(file: str, url: str, digits: str, folder: str) -> Path:
    """The path of a published file, whose SHA-256 begins with `digits`, in ``$LIMNER_DATA/FOLDER/`` or the cache.

    Raises:
        LimnerError: the download failed; the message names the file, its checksum and where to put it.
    """
    import pooch

    data = os.environ.get("LIMNER_DATA")
    cache = Path(os.environ.get("LIMNER_CACHE") or pooch.os_cache("limner")).expanduser() / folder
    for path in [*([Path(data).expanduser() / folder / file] if data else []), cache / file]:
        if path.is_file() and digits_of(path) == digits:
            return path
    try:
        cache.mkdir(parents=True, exist_ok=True)
        pooch.HTTPDownloader(timeout=30)(url, str(cache / file), None)
        if digits_of(cache / file) == digits:
            return cache / file
        (cache / file).unlink()
        reason = "the file has another checksum"
    except Exception as error:  # downloads fail with many types of errors
        reason = f"no connection ({type(error).__name__})"
    raise LimnerError(
        f"cannot download {url}: {reason}; download it elsewhere (its SHA-256 begins with {digits}), set LIMNER_DATA to"
        f" a folder and put it there as {folder}/{file}, or give the path of your own file"
    )
