"""The headers of many images, as columns: a million of them take 12 MB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from limner.data.files.decode import Header


class Headers:
    """A sequence of `Header`. Images differ in their size, and have one of a few kinds: mode, format, transparency, ….

    Args:
        sizes: (N,2) int32, height and width when upright.
        kind: (N,) int32, an index into `kinds`.
        kinds: the different headers, each without its size.
    """

    def __init__(self, sizes: NDArray[np.int32], kind: NDArray[np.int32], kinds: list[Header]) -> None:
        self.sizes, self.kind, self.kinds = sizes, kind, kinds

    @classmethod
    def of(cls, headers: Iterable[Header]) -> Headers:
        """The columns of some headers."""
        numbers: dict[Header, int] = {}
        sizes, kind = [], []
        for header in headers:
            sizes.append(header.size)
            kind.append(numbers.setdefault(without_size(header), len(numbers)))
        return cls(np.array(sizes, np.int32).reshape(-1, 2), np.array(kind, np.int32), list(numbers))

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, i: int) -> Header:
        return replace(self.kinds[self.kind[i]], size=(int(self.sizes[i, 0]), int(self.sizes[i, 1])))

    def __iter__(self) -> Iterator[Header]:
        return (self[i] for i in range(len(self)))

    def take(self, rows: NDArray[np.integer] | list[int]) -> Headers:
        """The headers of some rows, in that order."""
        return Headers(self.sizes[rows], self.kind[rows], self.kinds)

    def halved(self) -> Headers:
        """The same headers, of images half as wide."""
        return Headers(self.sizes // np.array([1, 2], np.int32), self.kind, self.kinds)

    def count(self, field: str) -> int:
        """The number of images whose field, such as "grey" or "alpha", is true."""
        is_so = np.array([bool(getattr(kind, field)) for kind in self.kinds], dtype=bool)
        return int(is_so[self.kind].sum()) if len(self) else 0

    def distinct_sizes(self) -> list[tuple[tuple[int, int], int]]:
        """The different sizes (H,W) and how many images have each, most frequent first; ties as they first occur."""
        values, first, counts = np.unique(
            self.sizes[:, 0].astype(np.int64) << 32 | self.sizes[:, 1], return_index=True, return_counts=True
        )
        order = np.lexsort((first, -counts))
        return [((int(values[k] >> 32), int(values[k] & 0xFFFFFFFF)), int(counts[k])) for k in order]


def without_size(header: Header) -> Header:
    """The same header with the size (0,0)."""
    return replace(header, size=(0, 0))
