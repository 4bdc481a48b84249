"""Weights that others trained, read safely: tensors by name from ``.safetensors`` or ``.pth``, known by a checksum.

This is the one place that opens a pickle, and it opens only tensors: nothing in the file can be executed.
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

_VGG19 = "dcbb9e9d"  # of torchvision's file


class Weights(NamedTuple):
    """What a file holds.

    Attributes:
        tensors: by name.
        digits: the first eight of the file's SHA-256: what a result says that it was made with.
    """

    tensors: dict[str, Tensor]
    digits: str


def read(path: str | os.PathLike[str]) -> Weights:
    """The tensors of a file.

    Raises:
        LimnerError: it is not there, cannot be read safely, or is no flat dict of tensors.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise LimnerError(f"there is no file {place}; give a .pth or .safetensors")
    try:
        if place.suffix == ".safetensors":
            with safe_open(place, "pt") as file:
                found: Any = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - it is no dict
        else:  # tensors alone, nothing is executed
            found = torch.load(place, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # a damaged pickle raises anything
        reason = " ".join(str(error).split())[:100]
        raise LimnerError(f"{place.name} holds no weights that can be read safely: {reason}") from None
    if not isinstance(found, dict) or not found or not all(isinstance(t, Tensor) for t in found.values()):
        raise LimnerError(f"{place.name} is no state dict of one net; save net.state_dict() and give that")
    return Weights({str(k).removeprefix("module."): t for k, t in found.items()}, digits_of(place))


def vgg19(file: str) -> dict[str, Tensor]:
    """The tensors of VGG-19: of a file, or for "vgg19" of torchvision's download (548 MB, once).

    Raises:
        LimnerError: they cannot be had.
    """
    if file == "vgg19":
        name = f"vgg19-{_VGG19}.pth"
        file = str(fetch(name, f"https://download.pytorch.org/models/{name}", _VGG19, "weights"))
    return read(file).tensors


def describe_vgg19(file: str) -> str:
    """Which weights `vgg19` reads: the file's name and the first eight digits of its SHA-256."""
    place = Path(file).expanduser()
    name, digits = (f"vgg19-{_VGG19}.pth", _VGG19) if file == "vgg19" else (place.name, digits_of(place))
    return f"{name}, whose SHA-256 begins with {digits}"


def digits_of(path: Path) -> str:
    """The first eight digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def fetch(file: str, url: str, digits: str, folder: str) -> Path:
    """A published file: from ``$LIMNER_DATA/FOLDER/``, the cache, or its host; its SHA-256 begins with `digits`.

    Raises:
        LimnerError: it cannot be had; the line names the file, its checksum and where to put it.
    """
    import pooch

    own = os.environ.get("LIMNER_DATA")
    cache = Path(os.environ.get("LIMNER_CACHE") or pooch.os_cache("limner")).expanduser() / folder
    places = [*([Path(own).expanduser() / folder / file] if own else []), cache / file]
    for place in places:
        if place.is_file() and digits_of(place) == digits:
            return place
    try:
        cache.mkdir(parents=True, exist_ok=True)
        pooch.HTTPDownloader(timeout=30)(url, str(cache / file), None)
        if digits_of(cache / file) == digits:
            return cache / file
        (cache / file).unlink()
        reason = "what arrived has another checksum"
    except Exception as error:  # a network fails in many ways
        reason = f"no connection ({type(error).__name__})"
    raise LimnerError(
        f"cannot download {url}: {reason}; fetch it elsewhere (its SHA-256 begins with {digits}), set LIMNER_DATA to a"
        f" folder and put it there as {folder}/{file}, or name weights of your own by path"
    )
