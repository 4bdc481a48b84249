"""Reading images from a file, a folder, a ZIP or a named data set, and writing single images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limner import data
from limner.core.batch import to_float, to_uint8
from limner.core.errors import LimnerError, unknown
from limner.data.files import decode
from limner.data.files.formats import KNOWN
from limner.data.files.store import open_store

DESCRIPTION = 0x010E
"""The EXIF tag ImageDescription."""


@dataclass
class ImageSource:
    """Named images at one shape; files that cannot be read are skipped and listed in `bad`.

    Args:
        source: an image file, a folder, a ZIP, or a name of `limner list data` (its held-out part).
        shape: (C,H,W) of the images; a file is resized to the shorter side and cropped in the centre.
        bad: (name, reason) of every file that could not be read.
    """

    source: str
    shape: tuple[int, int, int]
    bad: list[tuple[str, str]] = field(default_factory=list)

    @property
    def single(self) -> bool:
        """Whether the source is one image file."""
        return Path(self.source).is_file() and Path(self.source).suffix.lower() != ".zip"

    def batches(self, size: int = 256) -> Iterator[tuple[list[str], Tensor]]:
        """Names and images (B,C,H,W) in [-1,1], a batch at a time.

        Raises:
            LimnerError: the source is missing, or no image in it can be read.
        """
        names: list[str] = []
        images: list[Tensor] = []
        empty = True
        for name, x in self._read():
            names.append(name)
            images.append(x)
            if len(names) == size:
                yield names, to_float(torch.stack(images))
                names, images = [], []
            empty = False
        if names:
            yield names, to_float(torch.stack(images))
        if empty:
            raise nothing_readable(self.source, self.bad)

    def _read(self) -> Iterator[tuple[str, Tensor]]:
        """(name, (C,H,W) uint8) of each image."""
        if self.source in data.list_sources() and not Path(self.source).exists():
            heldout = data.load(self.source, split="test", size=self.shape[1:], channels=self.shape[0])
            for i in range(len(heldout)):
                yield f"{i:05d}.png", heldout.fetch([i])[0]
            return
        for name, open_file in self.files():
            try:
                with decode.strict(), open_file() as stream:
                    image = decode.picture(stream, min(self.shape[1:]))
                    image = decode.fitted(decode.channelled(image, self.shape[0]), self.shape[1:])
                    yield name, torch.from_numpy(decode.pixels(image).copy())
            except Exception as error:  # a damaged file may raise anything; the other files are still read
                self.bad.append((name, decode.reason(error)))

    def files(self) -> Iterator[tuple[str, Callable[[], BinaryIO]]]:
        """The name of each file and a function that opens it, for an image, a folder or a ZIP.

        Raises:
            LimnerError: the source does not exist.
        """
        path = Path(self.source)
        if not path.exists():
            if "/" in self.source or "." in self.source:
                raise LimnerError(f"there is no picture, folder or ZIP {self.source!r}; check the path")
            raise unknown("picture, folder or data set", self.source, data.list_sources())
        if self.single:
            yield path.name, lambda: path.open("rb")
            return
        store = open_store(path)
        self.bad += store.quarantine
        for name in store.names:
            yield name, partial(store.open, name)


def nothing_readable(source: str | Path, bad: list[tuple[str, str]]) -> LimnerError:
    """The error for a source in which no image can be read, with the reason for the first file."""
    reason = f": {bad[0][0]} is {bad[0][1]}" if bad else ""
    return LimnerError(f"no picture could be read from {source}{reason}; give {KNOWN} files")


def save(x: Tensor, path: Path, description: str = "") -> Path:
    """Writes one image (C,H,W) in [-1,1] in the format of the suffix, with a description in its EXIF block.

    Raises:
        LimnerError: the format cannot be written.
    """
    exif = Image.Exif()
    if description:
        exif[DESCRIPTION] = description
    return encode(x, path, exif=exif)


def encode(x: Tensor, path: Path, **options: Any) -> Path:
    """Writes one image (C,H,W) in [-1,1] with options of Pillow; JPEG and BMP get transparency laid over white.

    Raises:
        LimnerError: the format cannot be written.
    """
    pixels = to_uint8(x).permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    if path.suffix.lower() in (".jpg", ".jpeg", ".bmp") and image.mode in ("LA", "RGBA"):
        image = decode.channelled(image, 3 if image.mode == "RGBA" else 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        image.save(path, **options)
    except (ValueError, OSError) as error:
        raise LimnerError(f"cannot write {path.name}: {error}; use a name that ends in .png, .jpg or .webp") from None
    return path


def check_suffix(path: Path) -> None:
    """Checks before long work that an image can be written under this name.

    Raises:
        LimnerError: the suffix is that of no format.
    """
    if path.suffix.lower() not in decode.SUFFIXES:
        raise LimnerError(f"{path.name} is no name for a picture; use one that ends in .png, .jpg or .webp")


def output_path(out: Path, name: str, single: bool) -> Path:
    """The path of a result: `out` itself for a single image if that is a file name, else a PNG inside `out`."""
    if single and out.suffix:
        return out
    inside = PurePosixPath(name).with_suffix(".png")
    return out / Path(*[p for p in inside.parts if p not in ("..", "/")])
