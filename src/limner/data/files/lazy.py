"""Sets that are read from files while training: what does not fit in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from limner.core.batch import Augment, ImageSet
from limner.core.condition import Classes
from limner.core.errors import LimnerError
from limner.data.datasets import Pixels
from limner.data.files import decode
from limner.data.files.store import Store
from limner.data.prepare import binarised, fingerprint

T = TypeVar("T")
R = TypeVar("R")


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Maps in order with a few threads: Pillow works outside the interpreter lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(function, items)


class Files(ImageSet):
    """A set read from a folder or ZIP. Satisfies `limner.core.batch.Dataset`; picklable for data loader workers.

    A file that turns out to be damaged only when its pixels are decoded cannot be dropped any more: another
    image of its class stands in for it, always the same one, and it is entered in `quarantine`.

    Args:
        name: how a user calls it.
        store: where the files lie.
        paths: which of its members, in order.
        shape: (C,H,W) of every item.
        labels: (N,) int64 class indices.
        classes: names of the classes.
        ids: (N,) int64 sample ids; given where every image is to be binarised once and for all.
        augment: functions applied to each training batch.
        notes: sentences that say what was found and done.
        quarantine: (path, reason) of each file that was left out.
        prepared: whatever else makes this set what it is, for the fingerprint.
    """

    pixels: Tensor | None = None

    def __init__(
        self,
        name: str,
        store: Store,
        paths: list[str],
        shape: tuple[int, int, int],
        *,
        labels: Tensor | None = None,
        classes: list[str] | None = None,
        ids: Tensor | None = None,
        augment: tuple[Augment, ...] = (),
        notes: Sequence[str] = (),
        quarantine: Sequence[tuple[str, str]] = (),
        prepared: str = "",
    ) -> None:
        self.name, self.store, self.paths, self.shape = name, store, paths, shape
        self.labels, self.ids, self.augment = labels, ids, augment
        self.condition = None if classes is None else Classes(classes)
        self.notes, self.quarantine = list(notes), list(quarantine)
        self.prepared = prepared
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self)} × {self.shape})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of paths, sizes, checksums, labels and options; read once, on demand: it needs every byte."""
        if self._fingerprint is None:
            stamps = in_threads(self.store.stamp, self.paths)
            lines = "".join(f"{p}\0{size}\0{crc:08x}\n" for p, (size, crc) in zip(self.paths, stamps))
            marks = None if self.labels is None else self.labels.numpy()
            self._fingerprint = fingerprint(self.prepared, repr(self.shape), lines, marks)
        return self._fingerprint

    @fingerprint.setter
    def fingerprint(self, value: str) -> None:
        self._fingerprint = value

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Items as (B,C,H,W) uint8."""
        with decode.strict():
            x = torch.from_numpy(np.stack([self._image(int(i)) for i in indices]))
        return x if self.ids is None else binarised(x, self.ids[torch.as_tensor(indices, dtype=torch.int64)])

    def _image(self, index: int) -> NDArray[np.uint8]:
        """One image (C,H,W), or its stand-in."""
        for i in self._candidates(index):
            try:
                return self.decoded(self.paths[i])
            except Exception as error:  # whatever a hostile file provokes is that file's fault alone
                entry = (self.paths[i], decode.reason(error))
                if entry not in self.quarantine:
                    self.quarantine.append(entry)
        raise LimnerError(f"{self.name}: {self.paths[index]} and all that could stand in for it are unreadable")

    def _candidates(self, index: int) -> Iterator[int]:
        n = len(self)
        for i in ((index + step) % n for step in range(n)):
            if self.labels is None or self.labels[i] == self.labels[index]:
                yield i

    def decoded(self, path: str) -> NDArray[np.uint8]:
        """One image (C,H,W). Call it under `decode.strict`; it raises whatever a bad file provokes."""
        with self.store.open(path) as stream:
            return self.laid(decode.picture(stream, max(self.shape[1:])))

    def laid(self, image: Image.Image) -> NDArray[np.uint8]:
        """A picture of any size and mode as (C,H,W)."""
        c, h, w = self.shape
        # to the final size first: a mode change of the whole photograph would be wasted
        return decode.pixels(decode.channelled(decode.fitted(image, (h, w)), c))

    def in_memory(self) -> Pixels:
        """The same set decoded once, without the files that turn out to be bad.

        Raises:
            LimnerError: no file is left.
        """
        pixels = torch.empty((len(self), *self.shape), dtype=torch.uint8)
        good: list[int] = []
        bad: list[tuple[str, str]] = []
        with decode.strict():
            for i, found in enumerate(in_threads(self._decoded_or_why, self.paths)):
                if isinstance(found, str):
                    bad.append((self.paths[i], found))
                else:
                    pixels[len(good)] = torch.from_numpy(found)
                    good.append(i)
        if not good:
            raise LimnerError(f"{self.name}: no image is readable; run 'limner data check' on it to see why")
        kept = torch.tensor(good)
        held = pixels[: len(good)]
        return Pixels(
            self.name,
            held if self.ids is None else binarised(held, self.ids[kept]),
            labels=None if self.labels is None else self.labels[kept],
            classes=self.classes,
            augment=self.augment,
            notes=self.notes,
            quarantine=[*self.quarantine, *bad],
            paths=[self.paths[i] for i in good],
            prepared=self.prepared,
        )

    def _decoded_or_why(self, path: str) -> NDArray[np.uint8] | str:
        try:
            return self.decoded(path)
        except Exception as error:  # see _image
            return decode.reason(error)
