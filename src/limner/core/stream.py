"""Endless, seeded, stateless batches.

The i-th image that training sees is a function of (seed, i): epoch i // N, place i % N in that epoch's
permutation. Augmentation is a function of (seed, epoch, sample), noise of (seed, position of the step). So a
stream has one number to remember, its position; the number of workers cannot change a batch, and two ranks
draw between them exactly what one rank would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from limner.core.batch import Dataset, Domains, Images, Paired, Pairs, Styled, Styles, Unpaired, to_float
from limner.core.chance import keys, seed_of
from limner.core.errors import LimnerError

_ORDER, _NOISE, _RANK, _ORDER_A = 1, 2, 3, 5  # lanes of the seed; 4 draws the first weights


class Stream:
    """Batches of a data set for one rank: `Images`, `Paired`, `Unpaired` or `Styled`, as the set has them.

    Args:
        dataset: where the images come from.
        batch: images (or pairs) per step over all ranks.
        seed: decides order, augmentation and noise.
        device: where batches arrive.
        rank: this process among `world`.
        world: number of processes.
        workers: processes that read files ahead; 0 reads in this one. Unused for sets held in memory.
        position: images already seen, over all ranks.
        channels_last: memory format of images.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch: int,
        seed: int = 0,
        *,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        position: int = 0,
        channels_last: bool = False,
    ) -> None:
        if batch < 1 or batch % world:
            raise LimnerError(
                f"train.batch: {batch} images cannot be shared by {world} ranks; use a multiple of {world}"
            )
        self.dataset, self.batch, self.seed = dataset, batch, seed
        self.device, self.rank, self.world = torch.device(device), rank, world
        self.position = position
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.generator = torch.Generator(self.device)
        place = _Place(batch, rank, world, self.device, workers)
        self.pairs = dataset if isinstance(dataset, Pairs) else None
        sets = [(self.pairs.joined if self.pairs else dataset, _ORDER)]
        if isinstance(dataset, Domains):
            sets = [(dataset.a, _ORDER_A), (dataset.b, _ORDER)]
        self.styles = _styles(dataset, self.device) if isinstance(dataset, Styles) else None
        self.shelves = [_Shelf(one, seed, lane, place) for one, lane in sets]
        self.begin()

    @property
    def epoch(self) -> float:
        """Epochs seen."""
        return self.position / len(self.dataset)

    def begin(self, position: int | None = None) -> None:
        """Ties all noise of the coming step to its position. The loop calls it before each step.

        The default generators (dropout) differ by rank; `randn` and `rand` draw for all ranks and keep a share.

        Args:
            position: where the step begins, if its batches have been drawn already; by default, where the stream is.
        """
        position = self.position if position is None else position
        seed = seed_of(self.seed, _RANK, self.rank, position)
        torch.default_generator.manual_seed(
            seed
        )  # torch.manual_seed would also note a traceback for every kind of device
        if self.device.type in ("cuda", "mps"):
            getattr(torch, self.device.type).manual_seed(seed)
        self.generator.manual_seed(seed_of(self.seed, _NOISE, position))

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        taken = [shelf.take(self.position) for shelf in self.shelves]
        self.position += self.batch
        if len(taken) == 2:
            return Unpaired(*(self._laid(x) for x, _, _ in taken))
        x, y, sample_keys = taken[0]
        if self.pairs is not None:
            return Paired(*map(self._laid, self.pairs.part(x, sample_keys)))
        return Images(self._laid(x), y) if self.styles is None else Styled(self._laid(x), *self.styles)

    def _laid(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=self.format)

    def randn(self, *size: int) -> Tensor:
        """Standard normal noise on this rank."""
        return self._own(torch.randn(size[0] * self.world, *size[1:], generator=self.generator, device=self.device))

    def rand(self, *size: int) -> Tensor:
        """Uniform noise in [0,1) on this rank."""
        return self._own(torch.rand(size[0] * self.world, *size[1:], generator=self.generator, device=self.device))

    def scalar(self, schedule: Callable[[int], float]) -> Tensor:
        """A number () that depends on the images drawn so far, without waiting for the device."""
        return torch.full((), schedule(self.position), device=self.device)

    def _own(self, noise: Tensor) -> Tensor:
        share = len(noise) // self.world
        return noise[self.rank * share : (self.rank + 1) * share]


def _styles(
    dataset: Styles, device: torch.device
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...], Tensor | None]:
    """Styles in [-1,1], masks in [0,1] and the first picture, on a device."""
    styles = tuple(to_float(s.to(device)) for s in dataset.styles)
    masks = tuple(None if m is None else m.to(device).float() / 255 for m in dataset.masks)
    return styles, masks, None if dataset.first is None else to_float(dataset.first.to(device))


class _Place(NamedTuple):
    """Where batches are wanted."""

    batch: int
    rank: int
    world: int
    device: torch.device
    workers: int


class _Shelf:
    """One set of images in the order that a seed gives it."""

    def __init__(self, dataset: Dataset, seed: int, lane: int, place: _Place) -> None:
        if len(dataset) < 1:
            raise LimnerError(f"{dataset.name} is empty; give it images")
        self.dataset, self.seed, self.lane, self.place = dataset, seed, lane, place
        self.pixels = None if dataset.pixels is None else dataset.pixels.to(place.device)
        self.labels = None if dataset.labels is None else dataset.labels.to(place.device)
        self._permutation: tuple[int, Tensor] = (-1, torch.empty(0))
        self._reader: Iterator[Any] | None = None

    def take(self, position: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """This rank's augmented images (B,C,H,W) of the batch at `position`, their classes and their keys (B,)."""
        epochs, ids = self.share(position)
        if self.pixels is not None:
            x = to_float(self.pixels[ids])
        else:
            x = to_float(self._read(position).to(self.place.device, non_blocking=True))
        sample_keys = keys(self.seed, epochs, ids)
        for augment in self.dataset.augment:
            x = augment(x, sample_keys)
        return x, None if self.labels is None else self.labels[ids], sample_keys

    def share(self, position: int) -> tuple[Tensor, Tensor]:
        """Epochs and sample ids (B,) int64 of this rank's part of the batch at `position`."""
        local = self.place.batch // self.place.world
        start = position + self.place.rank * local
        n = len(self.dataset)
        epoch, offset = divmod(start, n)
        if offset + local <= n:
            ids = self.permutation(epoch)[offset : offset + local]
            return torch.full_like(ids, epoch), ids
        places = torch.arange(start, start + local, device=self.place.device)
        epochs, offsets = places // n, places % n
        ids = torch.cat([self.permutation(int(e))[offsets[epochs == e]] for e in epochs.unique()])
        return epochs, ids

    def permutation(self, epoch: int) -> Tensor:
        """The order (N,) of one epoch."""
        if self._permutation[0] != epoch:
            generator = torch.Generator().manual_seed(seed_of(self.seed, self.lane, epoch))
            order = torch.randperm(len(self.dataset), generator=generator).to(self.place.device)
            self._permutation = (epoch, order)
        return self._permutation[1]

    def _read(self, position: int) -> Tensor:
        """The batch at `position` from files, read ahead by workers: each call is one batch further."""
        if self._reader is None:
            cpu = _Shelf.__new__(_Shelf)  # the order alone, on the CPU, for the sampler
            cpu.__dict__ = self.__dict__ | {"place": self.place._replace(device=torch.device("cpu")), "pixels": None}
            cpu._permutation = (-1, torch.empty(0))
            workers = self.place.workers
            loader = DataLoader(
                _Batches(self.dataset),
                sampler=_Places(cpu, position),
                batch_size=None,
                num_workers=workers,
                prefetch_factor=4 if workers else None,
                pin_memory=self.place.device.type == "cuda",
            )
            self._reader = iter(loader)
        batch: Tensor = next(self._reader)
        return batch


class _Places:
    """Lists of sample ids from `position` on, without end."""

    def __init__(self, shelf: _Shelf, position: int) -> None:
        self.shelf, self.position = shelf, position

    def __iter__(self) -> Iterator[list[int]]:
        position = self.position
        while True:
            yield self.shelf.share(position)[1].tolist()
            position += self.shelf.place.batch


class _Batches(TorchDataset[Tensor]):
    """Lets a `DataLoader` worker fetch a whole batch at once."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, ids: list[int]) -> Tensor:
        return self.dataset.fetch(ids)
