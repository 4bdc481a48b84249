"""Pictures in and out: a file, a folder, a ZIP or a named set, at the shape a model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limner import data
from limner.core.batch import to_float, to_uint8
from limner.core.errors import LimnerError, unknown
from limner.data.files import decode
from limner.data.files.store import open_store


@dataclass
class Pictures:
    """Pictures by name, each (C,H,W) float in [-1,1] at `shape`; bad files are skipped and listed.

    Args:
        source: a picture, a folder, a ZIP, or a name of `limner list data` (its held-out part).
        shape: (C,H,W) that the model takes; pictures are resized on the shorter side and cropped to it.
    """

    source: str
    shape: tuple[int, int, int]
    bad: list[tuple[str, str]] = field(default_factory=list)

    @property
    def single(self) -> bool:
        """Whether the source is one picture."""
        return Path(self.source).is_file() and Path(self.source).suffix.lower() != ".zip"

    def batches(self, size: int = 256) -> Iterator[tuple[list[str], Tensor]]:
        """Names and images (B,C,H,W), a batch at a time.

        Raises:
            LimnerError: the source is missing, or holds no readable picture.
        """
        names: list[str] = []
        images: list[Tensor] = []
        found = False
        for name, x in self._read():
            names.append(name)
            images.append(x)
            if len(names) == size:
                yield names, to_float(torch.stack(images))
                names, images = [], []
            found = True
        if names:
            yield names, to_float(torch.stack(images))
        if not found:
            why = f": {self.bad[0][0]} is {self.bad[0][1]}" if self.bad else ""
            raise LimnerError(
                f"no picture could be read from {self.source}{why}; give PNG, JPEG, WebP, BMP, GIF or TIFF files"
            )

    def _read(self) -> Iterator[tuple[str, Tensor]]:
        """(name, (C,H,W) uint8) one after the other."""
        if self.source in data.list_sources() and not Path(self.source).exists():
            held = data.load(self.source, split="test", size=self.shape[1:], channels=self.shape[0])
            for i in range(len(held)):
                yield f"{i:05d}.png", held.fetch([i])[0]
            return
        for name, stream in self.streams():
            try:
                with decode.strict(), stream() as opened:
                    image = decode.picture(opened, min(self.shape[1:]))
                    fitted = decode.fitted(decode.channelled(image, self.shape[0]), self.shape[1:])
                    yield name, torch.from_numpy(decode.pixels(fitted).copy())
            except Exception as error:  # a hostile file is its own fault alone
                self.bad.append((name, decode.reason(error)))

    def streams(self) -> Iterator[tuple[str, Callable[[], BinaryIO]]]:
        """Names and how to open them, for a picture, a folder or a ZIP.

        Raises:
            LimnerError: there is no such thing.
        """
        if not Path(self.source).exists():
            if "/" in self.source or "." in self.source:
                raise LimnerError(f"there is no picture, folder or ZIP {self.source!r}; check the path")
            raise unknown("picture, folder or data set", self.source, data.list_sources())
        path = Path(self.source)
        if self.single:
            yield path.name, partial(binary, path)
            return
        store = open_store(path)
        self.bad += store.quarantine
        for name in store.names:
            yield name, partial(store.open, name)


def binary(path: Path) -> BinaryIO:
    """A file, opened to read its bytes."""
    return path.open("rb")


DESCRIPTION = 0x010E  # of EXIF


def save(x: Tensor, path: Path, description: str = "") -> Path:
    """Writes one image (C,H,W) in [-1,1] as PNG or whatever the suffix says, with a sentence on how it came about.

    Raises:
        LimnerError: the format cannot be written.
    """
    pixels = to_uint8(x).permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".jpg", ".jpeg") and image.mode in ("LA", "RGBA"):
        image = decode.channelled(image, 3)
    exif = Image.Exif()
    if description:
        exif[DESCRIPTION] = description
    try:
        image.save(path, exif=exif)
    except (ValueError, OSError) as error:
        raise LimnerError(f"cannot write {path.name}: {error}; use a name that ends in .png, .jpg or .webp") from None
    return path


def writable(path: Path) -> None:
    """Asks before long work whether a picture can be written under this name.

    Raises:
        LimnerError: the suffix is that of no format.
    """
    if path.suffix.lower() not in decode.SUFFIXES:
        raise LimnerError(f"{path.name} is no name for a picture; use one that ends in .png, .jpg or .webp")


def destination(out: Path, name: str, single: bool) -> Path:
    """Where the result for a picture goes: `out` itself for one picture and a file name, else a PNG inside `out`."""
    if single and out.suffix:
        return out
    inside = PurePosixPath(name).with_suffix(".png")
    return out / Path(*[p for p in inside.parts if p not in ("..", "/")])
