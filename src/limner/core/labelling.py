"""Labels that are drawn anew each time: one of an image's captions, and a label that does not describe it.

What is drawn for an image is a function of its key, so of (seed, epoch, image): the batch, the rank and what was drawn
before change nothing, and a resumed training draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limner.core.rng import uniform

_CAPTION, _WRONG, _WRONG_CAPTION = 111, 112, 113  # stream ids: no two draws share random numbers


class _OnDevice:
    """Tensors by name, copied to each device when they are first asked for there."""

    def __init__(self, **tensors: Tensor) -> None:
        self._tensors = {torch.device("cpu"): tensors}

    def on(self, device: torch.device) -> dict[str, Tensor]:
        """The tensors on a device."""
        if device not in self._tensors:
            self._tensors[device] = {k: v.to(device) for k, v in self._tensors[torch.device("cpu")].items()}
        return self._tensors[device]


class Captions:
    """The captions of all images, as vectors.

    Args:
        vectors: (M,size) float32, of M different texts.
        texts: for each image the indices of its captions, one or more.
    """

    def __init__(self, vectors: Tensor, texts: Sequence[Sequence[int]]) -> None:
        counts = torch.tensor([len(t) for t in texts])
        flat = torch.tensor([i for t in texts for i in t])
        self._table = _OnDevice(vectors=vectors, flat=flat, counts=counts, first=counts.cumsum(0) - counts)

    @property
    def first(self) -> Tensor:
        """The vectors (N,size) of the first caption of each image."""
        table = self._table.on(torch.device("cpu"))
        return table["vectors"][table["flat"][table["first"]]]

    def draw(self, ids: Tensor, keys: Tensor, stream_id: int = _CAPTION) -> Tensor:
        """The vectors (B,size) of a caption of each of the images `ids` (B,), drawn by their keys (B,)."""
        table = self._table.on(ids.device)
        chosen = _whole(uniform(keys, stream_id), table["counts"][ids])
        return table["vectors"][table["flat"][table["first"][ids] + chosen]]


class Mismatches:
    """For each image, labels that do not describe it: those of the images with another one.

    Args:
        groups: (N,) int64; a label of an image describes the images of its group and no others.
        labels: (N,…) of the images, or their captions.

    Raises:
        ValueError: all images are of one group.
    """

    def __init__(self, groups: Tensor, labels: Tensor | Captions) -> None:
        order = groups.argsort(stable=True)
        counts = groups[order].unique_consecutive(return_counts=True)[1]
        if len(counts) < 2:
            raise ValueError("all images have the same label")
        first = (counts.cumsum(0) - counts).repeat_interleave(counts)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        self._captions = labels if isinstance(labels, Captions) else None
        known = {} if isinstance(labels, Captions) else {"labels": labels}
        sizes = counts.repeat_interleave(counts)[back]
        self._table = _OnDevice(order=order, first=first[back], sizes=sizes, **known)

    def images(self, ids: Tensor, keys: Tensor) -> Tensor:
        """Images (B,) of other groups than the images `ids` (B,), drawn by their keys (B,); all are equally likely."""
        table = self._table.on(ids.device)
        first, size, n = table["first"][ids], table["sizes"][ids], len(table["order"])
        place = _whole(uniform(keys, _WRONG), n - size)  # among those outside the image's own group …
        return table["order"][place + size * (place >= first)]  # … which stands at first, …, first + size - 1

    def draw(self, ids: Tensor, keys: Tensor) -> Tensor:
        """Labels (B,…) of such images."""
        others = self.images(ids, keys)
        if self._captions is not None:
            return self._captions.draw(others, keys, _WRONG_CAPTION)
        return self._table.on(ids.device)["labels"][others]


def _whole(u: Tensor, n: Tensor) -> Tensor:
    """Whole numbers from 0 to n - 1 of uniform ones in [0,1)."""
    return torch.minimum((u.double() * n).long(), n - 1)
