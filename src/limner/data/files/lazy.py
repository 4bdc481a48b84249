"""Data sets that are read from files while training, because they do not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from limner.core.batch import Augment, ImageSet
from limner.core.condition import Condition
from limner.core.errors import LimnerError
from limner.data.datasets import Pixels
from limner.data.files import decode, limits
from limner.data.files.index import index_of
from limner.data.files.shaped import fit, read_at
from limner.data.files.store import Store
from limner.data.files.threads import in_threads
from limner.data.steps import binarised, captions, fingerprint

BadFile = tuple[str, str]  # path and reason


def first_readable(
    read: Callable[[int], NDArray[np.uint8] | BadFile], indices: Iterable[int], quarantine: list[BadFile]
) -> NDArray[np.uint8] | None:
    """The first item that `read` can read, or None; adds the bad files before it to `quarantine`."""
    for i in indices:
        result = read(i)
        if not isinstance(result, tuple):
            return result
        if result not in quarantine:
            quarantine.append(result)
    return None


def decode_all(
    read: Callable[[int], NDArray[np.uint8] | BadFile], n: int, shape: tuple[int, ...]
) -> tuple[Tensor, list[int], list[BadFile]]:
    """The items 0 to n-1 that `read` can read, (K,C,H,W) uint8, their indices, and the bad files."""
    pixels = torch.empty((n, *shape), dtype=torch.uint8)
    indices: list[int] = []
    bad: list[BadFile] = []
    with decode.strict():
        for i, result in enumerate(in_threads(read, range(n))):
            if isinstance(result, tuple):
                bad.append(result)
            else:
                pixels[len(indices)] = torch.from_numpy(result)
                indices.append(i)
    return pixels[: len(indices)], indices, bad


class Files(ImageSet):
    """A set read from a folder or ZIP. Satisfies `limner.core.batch.Dataset`; picklable for data loader workers.

    A file whose pixels cannot be decoded stays in the set: it is added to `quarantine`, and the next readable image of
    its class, or with its attributes, replaces it.

    Args:
        name: the name of the set.
        store: has the files.
        paths: the images in the store, in order.
        shape: (C,H,W) of every item.
        labels: (N,…), as the condition reads them.
        condition: what the labels are.
        texts: the captions of each image, none or several.
        ids: (N,) int64 sample ids where images are binarised statically, else None.
        augment: functions applied to each training batch.
        notes: messages for the user.
        quarantine: (path, reason) of each file that was left out.
        prepared: text that becomes part of the fingerprint, such as the options.
        rows: (N,) where the paths are among the names of the store; found out if it is needed.
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
        condition: Condition | None = None,
        texts: Sequence[Sequence[str]] | None = None,
        ids: Tensor | None = None,
        augment: tuple[Augment, ...] = (),
        notes: Sequence[str] = (),
        quarantine: Sequence[tuple[str, str]] = (),
        prepared: str = "",
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._rows = rows
        self.name, self.store, self.paths, self.shape = name, store, paths, shape
        self.labels, self.ids, self.augment = labels, ids, augment
        self._kinds = labels  # the classes or attributes, also where captions are the labels
        self.condition, self.texts = condition, texts
        self.notes, self.quarantine = list(notes), list(quarantine)
        self.prepared = prepared

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self)} × {self.shape})"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of paths, sizes, checksums, labels and options. The first access reads what is not in the index."""
        lines = "".join(f"{p}\0{size}\0{crc:08x}\n" for p, (size, crc) in zip(self.paths, self.stamps()))
        labels = None if self._kinds is None else self._kinds.numpy()
        return fingerprint(self.prepared, repr(self.shape), lines, labels, *captions(self.texts))

    def stamps(self) -> Iterable[tuple[int, int]]:
        """Size in bytes and CRC-32 of each image file."""
        return index_of(self.store).checksums(self.paths, self._rows)

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Items as (B,C,H,W) uint8."""
        with decode.strict():
            x = torch.from_numpy(np.stack([self._image(int(i)) for i in indices]))
        return x if self.ids is None else binarised(x, self.ids[torch.as_tensor(indices, dtype=torch.int64)])

    def _image(self, index: int) -> NDArray[np.uint8]:
        """One image (C,H,W), or the image that replaces it."""
        following = ((index + step) % len(self) for step in range(len(self)))
        y = self._kinds
        alike = (i for i in following if y is None or torch.equal(y[i], y[index]))
        image = first_readable(self.read_or_reason, alike, self.quarantine)
        if image is None:
            same = "of the class" if y is None or self.classes else "with the attributes"
            raise LimnerError(f"{self.name}: no image {same} of {self.paths[index]} is readable; restore the files")
        return image

    def read_or_reason(self, index: int) -> NDArray[np.uint8] | BadFile:
        """One image (C,H,W), or its path and the reason why it cannot be read. Call it under `decode.strict`."""
        try:
            with limits.share():
                return self.read(self.paths[index])
        except Exception as error:  # a hostile file may raise anything, and must not stop a training
            return self.paths[index], decode.reason(error)

    def read(self, path: str) -> NDArray[np.uint8]:
        """Reads one image (C,H,W). Call it under `decode.strict`; a bad file may raise any exception."""
        with self.store.open(path) as stream:
            return read_at(stream, self.shape)

    def fit(self, image: Image.Image) -> NDArray[np.uint8]:
        """Makes (C,H,W) of an image of any size and mode."""
        return fit(image, self.shape)

    def in_memory(self) -> Pixels:
        """Decodes all images into memory, without the files that cannot be decoded.

        Raises:
            LimnerError: no image is readable.
        """
        pixels, indices, bad = decode_all(self.read_or_reason, len(self), self.shape)
        if not indices:
            raise LimnerError(f"{self.name}: no image is readable; run 'limner data check' on it to see why")
        return Pixels(
            self.name,
            pixels if self.ids is None else binarised(pixels, self.ids[indices]),
            labels=None if self.labels is None else self.labels[indices],
            condition=self.condition,
            texts=None if self.texts is None else [self.texts[i] for i in indices],
            augment=self.augment,
            notes=self.notes,
            quarantine=[*self.quarantine, *bad],
            paths=[self.paths[i] for i in indices],
            prepared=self.prepared,
        )
