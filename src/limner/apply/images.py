"""Images at the shape of a model, from a file, a folder, a ZIP or a named data set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from limner import data
from limner.apply import outputs, transparency
from limner.apply.files import Skipped, find
from limner.apply.metadata import Metadata
from limner.core.batch import to_float
from limner.core.paths import BUILTIN, named
from limner.data.files import decode
from limner.data.files.shaped import read_at


class ImageSource:
    """Named images at one shape, prepared as for training; files that cannot be read are skipped and listed.

    Args:
        source: an image file, a folder, a ZIP, or a name of `limner list data` (its held-out part).
        shape: (C,H,W) of the images; a file is resized to the shorter side and cropped in the centre.

    Attributes:
        files: the files; None for a named data set.
        single: whether the source is one image file.

    Raises:
        LimnerError: the source does not exist.
    """

    def __init__(self, source: str | Path, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._set = None
        name = named(source, data.list_sources(), "data set")
        if name is not None:
            self.files, self.single = None, False
            self._set = data.load(f"{BUILTIN}{name}", split="test", size=shape[1:], channels=shape[0])
        else:
            self.files = find(source)
            self.single = self.files.single

    @property
    def names(self) -> list[str]:
        """The names of the images."""
        if self.files is not None:
            return self.files.names
        return [f"{i:05d}.png" for i in range(len(self._set or ()))]

    @property
    def skipped(self) -> Skipped:
        """(name, reason) of every file that was left out so far."""
        return [] if self.files is None else self.files.skipped

    def told(self) -> list[str]:
        """Sentences for the user."""
        return [] if self.files is None else self.files.told()

    def batches(self, size: int = 256) -> Iterator[tuple[list[str], Tensor]]:
        """Names and images (B,C,H,W) in [-1,1], a batch at a time.

        Raises:
            LimnerError: no image can be read.
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
        if empty and self.files is not None:
            raise self.files.nothing_readable()

    def _read(self) -> Iterator[tuple[str, Tensor]]:
        """(name, (C,H,W) uint8) of each image."""
        if self._set is not None:
            for i, name in enumerate(self.names):
                yield name, self._set.fetch([i])[0]
        elif self.files is not None:
            for name in self.files.names:
                try:
                    with decode.strict(), self.files.open(name) as stream:
                        x = torch.from_numpy(read_at(stream, self.shape))
                        with suppress(Exception):  # a picture that can be read is not lost for a remark
                            self._remark(decode.header(stream))
                    yield name, x
                except Exception as error:  # a damaged file may raise anything; the other files are still read
                    self.files.skip(name, decode.reason(error))

    def _remark(self, header: decode.Header) -> None:
        """Counts what training did to such a picture too."""
        assert self.files is not None
        c, h, w = self.shape
        if header.size != (h, w):
            self.files.remark(f"resized and cropped to {h}×{w}, as for training")
        if header.alpha and c in (1, 3):
            self.files.remark("transparency is laid over white, as for training")


def save(x: Tensor, path: Path, description: str = "") -> Path:
    """Writes one image (C,H,W) in [-1,1] in the format of the suffix, with a description in its EXIF block.

    Raises:
        LimnerError: the format cannot be written.
    """
    tags = Metadata().described(description) if description else Metadata()
    return outputs.write(transparency.to_image(x), outputs.check_file(path), tags)
