"""The pictures of a file, a folder or a ZIP, and how one is read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import torch
from PIL import Image
from torch import Tensor

from limner.apply import metadata, transparency
from limner.apply.metadata import Metadata
from limner.core.batch import to_float
from limner.core.errors import LimnerError, unknown
from limner.core.paths import user_path
from limner.data import list_sources
from limner.data.files import decode, png
from limner.data.files.formats import KNOWN
from limner.data.files.left_out import other_files
from limner.data.files.store import Store, open_store

Skipped = list[tuple[str, str]]
"""(name, reason) of each picture that was left out."""


@dataclass(frozen=True)
class ImageFile:
    """A decoded image file.

    Attributes:
        name: path relative to the folder.
        image: the image, upright, 8 bits, sRGB, of mode L, LA, RGB or RGBA.
        metadata: what the result takes over.
        conversions: what was changed on reading, in words.
    """

    name: str
    image: Image.Image
    metadata: Metadata = field(default_factory=Metadata)
    conversions: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(H,W)."""
        return self.image.height, self.image.width

    def tensor(self, channels: int) -> Tensor:
        """(1,channels,H,W) in [-1,1]; for 1 or 3 channels colours without alpha (`limner.apply.transparency`)."""
        image = transparency.opaque(self.image) if channels in (1, 3) else self.image
        return to_float(torch.from_numpy(decode.pixels(decode.channelled(image, channels)).copy()))[None]

    @cached_property
    def alpha(self) -> Tensor | None:
        """(1,1,H,W) in [-1,1], or None for an image without transparency."""
        return transparency.alpha_of(self.image)


class Written(list[Path]):
    """The files that were written.

    Attributes:
        skipped: (name, reason) of each picture that was left out.
        notes: sentences for the user about what was ignored, converted or renamed.
    """

    def __init__(
        self, paths: Iterable[Path], skipped: Iterable[tuple[str, str]] = (), notes: Iterable[str] = ()
    ) -> None:
        super().__init__(paths)
        self.skipped, self.notes = list(skipped), list(notes)

    def document(self, task: str) -> dict[str, Any]:
        """The same for ``--json``."""
        return {
            "task": task,
            "n": len(self),
            "written": [str(path) for path in self],
            "skipped": [list(each) for each in self.skipped],
            "notes": self.notes,
        }


@dataclass
class PictureFiles:
    """The pictures of a source; those that cannot be read are skipped and listed.

    Args:
        path: an image file, a folder or a ZIP.
        names: the pictures, as paths relative to the source.
        store: the folder or the ZIP; None for one picture.
        image: the picture itself where it is no file.

    Attributes:
        skipped: (name, reason) of every picture that was left out.
        notes: sentences for the user.
    """

    path: Path
    names: list[str]
    store: Store | None = None
    image: Image.Image | None = None
    skipped: Skipped = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _remarks: Counter[str] = field(default_factory=Counter)

    @property
    def single(self) -> bool:
        """Whether the source is one picture."""
        return self.store is None

    def remark(self, text: str) -> None:
        """Counts a picture of which something is to be said."""
        self._remarks[text] += 1

    def told(self) -> list[str]:
        """`notes`, and what was said of pictures, with their number."""
        return [*self.notes, *(f"{what} ({n} picture{'s' * (n > 1)})" for what, n in self._remarks.items())]

    def require(self, check: Callable[[str], object]) -> None:
        """Leaves out the pictures, by name, for which `check` raises a `LimnerError`; for one picture it is raised.

        Raises:
            LimnerError: no picture is left.
        """
        left = []
        for name in self.names:
            try:
                check(name)
                left.append(name)
            except LimnerError as error:
                if len(self.names) == 1:
                    raise
                self.skip(name, error)
        self.names = left
        if not left:
            raise self.nothing_readable()

    def leave_out(self, out: Path) -> None:
        """Leaves out what lies in the folder of the results, where that is inside the source: earlier results.

        Raises:
            LimnerError: the results would lie in the very folder that is read.
        """
        if self.single or not self.path.is_dir():
            return
        root, inner = os.path.realpath(self.path), os.path.realpath(out)
        if root == inner:
            raise LimnerError(f"{out} is the folder that is read; choose another out, so that no picture is replaced")
        if not inner.startswith(root + os.sep):
            return
        prefix = Path(inner).relative_to(root).as_posix() + "/"
        inside = [name for name in self.names if name.startswith(prefix)]
        if inside:
            self.names = [name for name in self.names if not name.startswith(prefix)]
            self.skipped = [(name, reason) for name, reason in self.skipped if not name.startswith(prefix)]
            self.notes.append(f"{len(inside)} pictures in {prefix} are results and were not read")

    def open(self, name: str) -> BinaryIO:
        """Opens a picture for reading."""
        return self.path.open("rb") if self.store is None else self.store.open(name)

    def paths(self) -> list[Path]:
        """The files on the disk that are read."""
        return [self.path / name for name in self.names] if self.path.is_dir() else [self.path]

    def __iter__(self) -> Iterator[ImageFile]:
        """The pictures that can be read, in order."""
        for name in self.names:
            try:
                file = self.read(name)
            except LimnerError as error:
                self.skip(name, error)
                continue
            self._remarks.update(file.conversions)
            yield file

    def read(self, name: str) -> ImageFile:
        """One picture.

        Raises:
            LimnerError: it cannot be read; the message is the reason.
        """
        if self.image is not None:
            return ImageFile(name, self.image)
        try:
            with decode.strict(), self.open(name) as stream:
                image = decode.picture(stream)
                facts = _conversions(stream)
                tags = metadata.read(stream)
        except Exception as error:  # a damaged or hostile file may raise anything
            raise LimnerError(decode.reason(error)) from None
        if tags.damaged:
            facts = (*facts, "EXIF is damaged: results get what can be read of it")
        return ImageFile(name, image, tags, facts)

    def has_alpha(self, name: str) -> bool:
        """Whether a picture is transparent, as far as its header tells."""
        try:
            with decode.strict(), self.open(name) as stream:
                return decode.header(stream).alpha
        except Exception:  # it will be left out when it is read
            return False

    def skip(self, name: str, reason: Exception | str) -> None:
        """Notes that a picture was left out."""
        self.skipped.append((name, str(reason)))

    def nothing_readable(self) -> LimnerError:
        """The error for a source of which no result was written: why the first one was left out, or what is there."""
        said = [f"{name} is left out ({reason})" for name, reason in self.skipped[:1]] or self.notes[:1]
        reason = f": {said[0]}" if said else ""
        return LimnerError(f"no picture could be read from {self.path}{reason}; give {KNOWN} files")


def find(source: str | Path) -> PictureFiles:
    """The pictures of a file, a folder or a ZIP; ~ is the home folder.

    Raises:
        LimnerError: the source does not exist.
    """
    path = user_path(source)
    if not path.exists():
        if "/" in str(source) or "." in str(source):
            raise LimnerError(f"there is no picture, folder or ZIP {str(source)!r}; check the path")
        if str(source) in list_sources():
            raise LimnerError(
                f"{source} is a data set, and this model takes picture files; give a file, a folder or a ZIP"
            )
        raise unknown("picture, folder or data set", str(source), list_sources())
    if path.is_file() and path.suffix.lower() != ".zip":
        return PictureFiles(path, [path.name])
    store = open_store(path)
    notes = other_files(store.ignored, store.hidden, store.examples)
    return PictureFiles(path, list(store.names), store, skipped=list(store.quarantine), notes=notes)


def read_file(path: str | Path) -> ImageFile:
    """One image file.

    Raises:
        LimnerError: there is no such file, or it cannot be read.
    """
    location = user_path(path)
    if not location.is_file():
        raise LimnerError(f"there is no picture {str(path)!r}; check the path")
    try:
        return PictureFiles(location, [location.name]).read(location.name)
    except LimnerError as error:
        raise LimnerError(f"{location.name} cannot be used: {error}") from None


def _conversions(stream: BinaryIO) -> tuple[str, ...]:
    """What is changed on reading an image file, beyond its size and orientation."""
    header = decode.header(stream)
    facts = []
    if header.mode.startswith("I") or header.mode.endswith(";16") or (header.format == "PNG" and _is_wide(stream)):
        facts.append("16 bits a channel become 8")
    if header.mode.startswith("CMYK"):
        facts.append("CMYK becomes RGB")
    if header.animated:
        facts.append("of several frames or pages only the first is used")
    return tuple(facts)


def _is_wide(stream: BinaryIO) -> bool:
    return png.is_wide(png.chunks(stream))
