"""Safe reading of published weights from ``.safetensors`` or ``.pth`` files, with their checksums.

This is the only module that reads pickles. It reads tensors only and executes no code of the file.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from limner.core.errors import LimnerError

_VGG19 = "dcbb9e9d"  # start of the SHA-256 of torchvision's file


class Weights(NamedTuple):
    """The content of a file.

    Attributes:
        tensors: the tensors by name.
        digits: the first eight digits of the file's SHA-256, by which results name the file.
    """

    tensors: dict[str, Tensor]
    digits: str


def read(path: str | os.PathLike[str]) -> Weights:
    """Reads the tensors of a file.

    Raises:
        LimnerError: the file does not exist, cannot be read safely, or is not a flat dict of tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise LimnerError(f"there is no file {path}; give a .pth or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                tensors: Any = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - it is no dict
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # a damaged pickle raises any exception
        reason = " ".join(str(error).split())[:100]
        raise LimnerError(f"{path.name} holds no weights that can be read safely: {reason}") from None
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise LimnerError(f"{path.name} is no state dict of one net; save net.state_dict() and give that file")
    return Weights({str(k).removeprefix("module."): t for k, t in tensors.items()}, digits_of(path))


def vgg19(file: str) -> dict[str, Tensor]:
    """The tensors of VGG-19, from a file, or for "vgg19" from torchvision's download (548 MB, once).

    Raises:
        LimnerError: the file cannot be read or downloaded.
    """
    if file == "vgg19":
        name = f"vgg19-{_VGG19}.pth"
        file = str(fetch(name, f"https://download.pytorch.org/models/{name}", _VGG19, "weights"))
    return read(file).tensors


def describe_vgg19(file: str) -> str:
    """The name of the file that `vgg19` reads, and the first eight digits of its SHA-256."""
    path = Path(file).expanduser()
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
