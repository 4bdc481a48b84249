"""The mask of a picture: a file, or the one of its name in a folder or a ZIP of masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from limner.apply import files as picture_files
from limner.apply.files import ImageFile
from limner.core.errors import LimnerError
from limner.core.paths import user_path
from limner.data.files import decode
from limner.data.files.masks import whiteness
from limner.data.files.splits import unwrapped


class Masks:
    """Masks by the names of their pictures.

    In a folder or a ZIP, the mask of `more/a.jpg` is `more/a.png`, with any suffix; where there is none at that place,
    the only mask that is named `a`, if only one picture is.

    Args:
        path: one mask, or a folder or a ZIP of masks.

    Raises:
        LimnerError: the path does not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = user_path(path)
        try:
            self._files = picture_files.find(self.path)
        except LimnerError:
            raise LimnerError(f"there is no mask {str(path)!r}; check the path") from None
        self._places: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        for name in self._files.names:
            self._places.setdefault(_place(name), []).append(name)
            self._stems.setdefault(PurePosixPath(name).stem, []).append(name)
        self._inner: dict[str, list[str]] = {}  # without the folders that all share, as in a ZIP of one folder
        for name, inner in zip(self._files.names, unwrapped(self._files.names)):
            self._inner.setdefault(_place(inner), []).append(name)
        self._pictures: Counter[str] = Counter()

    def expect(self, pictures: Sequence[str]) -> None:
        """Tells the names of all pictures, so that a name that two of them share is not taken for one of them."""
        self._pictures = Counter(PurePosixPath(name).stem for name in pictures)

    def paths(self) -> list[Path]:
        """The files on the disk that are read."""
        return self._files.paths()

    def name_for(self, picture: str) -> str:
        """The name of the mask of a picture.

        Raises:
            LimnerError: there is none, or it is not clear which.
        """
        if self._files.single:
            return self._files.names[0]
        stem = PurePosixPath(picture).stem
        found = self._places.get(_place(picture), []) or self._inner.get(_place(picture), [])
        if not found and self._pictures[stem] <= 1:
            found = self._stems.get(stem, [])
        exact = [n for n in found if n == picture or n.endswith(f"/{picture}")]
        if len(exact) == 1:
            return exact[0]
        if len(found) > 1:
            raise LimnerError(f"{picture} has several masks in {self.path.name}, such as {found[0]} and {found[1]}")
        if not found:
            raise LimnerError(f"there is no mask for {picture} in {self.path.name}; give it the same name")
        return found[0]

    def read(self, file: ImageFile) -> Tensor:
        """The mask (1,1,H,W) of an image, 1 where it is white; transparent parts are black.

        Raises:
            LimnerError: there is none, it cannot be read, has another size, or has nothing white where it is drawn.
        """
        name = self.name_for(file.name)
        try:
            image = self._files.read(name).image
        except LimnerError as error:
            raise LimnerError(f"the mask {name} cannot be used: {error}") from None
        if (image.height, image.width) != file.size:
            (h, w), size = file.size, f"{image.height}×{image.width}"
            raise LimnerError(f"the mask {name} is {size} and {file.name} {h}×{w}; make them the same size")
        bright = decode.pixels(whiteness(image))
        white = bright > 127
        if not white.any() and image.mode in ("LA", "RGBA") and np.ptp(np.asarray(image.getchannel("A"))) > 127:
            raise LimnerError(f"the mask {name} has dark colours alone on a transparent ground; paint it white")
        if not white.any() and bright.any():  # of a mask of 0 and 1, one would see nothing
            raise LimnerError(f"the mask {name} has nothing white (at most {bright.max()} of 255); paint it white")
        return torch.from_numpy(white.astype(np.float32))[None]


def _place(name: str) -> str:
    """A path without its suffix."""
    return str(PurePosixPath(name).with_suffix(""))
