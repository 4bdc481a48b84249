"""Endless, seeded, stateless batches.

The i-th image that training sees is a function of (seed, i): epoch i // N, place i % N in that epoch's
permutation. Augmentation is a function of (seed, epoch, sample), noise of (seed, position of the step). So a
stream has one number to remember, its position; the number of workers cannot change a batch, and two ranks
draw between them exactly what one rank would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from limner.core.batch import Dataset, Part, to_float
from limner.core.errors import LimnerError
from limner.core.rng import seed_of

# What a seed is used for. 4 draws the first weights. The first set of a batch has order 1, further ones 5, 6, …
_NOISE, _RANK, _ORDERS = 2, 3, (1, *range(5, 64))


class Shard(NamedTuple):
    """Which part of every batch a process works on."""

    batch: int
    rank: int = 0
    world: int = 1

    @property
    def size(self) -> int:
        """Images of a batch that this process has."""
        return self.batch // self.world


class Stream:
    """Batches of a data set for one rank, as the set collates them.

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
        self.device, self.shard = torch.device(device), Shard(batch, rank, world)
        self.position = position
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.generator = torch.Generator(self.device)
        self.readers = [
            _Reader(part, EpochSampler(len(part), seed, order, self.shard), self.device, workers)
            for part, order in zip(dataset.parts(), _ORDERS)
        ]
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
        seed = seed_of(self.seed, _RANK, self.shard.rank, position)
        # torch.manual_seed would also note a traceback for every kind of device
        torch.default_generator.manual_seed(seed)
        if self.device.type in ("cuda", "mps"):
            getattr(torch, self.device.type).manual_seed(seed)
        self.generator.manual_seed(seed_of(self.seed, _NOISE, position))

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        parts = [reader.read(self.position) for reader in self.readers]
        self.position += self.batch
        batch = self.dataset.collate(parts)
        return type(batch)(*map(self._formatted, batch))

    def _formatted(self, value: Any) -> Any:
        """Images in the memory format that was asked for; anything else as it is."""
        is_images = isinstance(value, Tensor) and value.dim() == 4
        return value.contiguous(memory_format=self.format) if is_images else value

    def randn(self, *size: int) -> Tensor:
        """Standard normal noise on this rank."""
        return self._own(torch.randn(self._all(size), generator=self.generator, device=self.device))

    def rand(self, *size: int) -> Tensor:
        """Uniform noise in [0,1) on this rank."""
        return self._own(torch.rand(self._all(size), generator=self.generator, device=self.device))

    def scalar(self, schedule: Callable[[int], float]) -> Tensor:
        """A number () that depends on the images drawn so far, without waiting for the device."""
        return torch.full((), schedule(self.position), device=self.device)

    def _all(self, size: Sequence[int]) -> tuple[int, ...]:
        return size[0] * self.shard.world, *size[1:]

    def _own(self, noise: Tensor) -> Tensor:
        return noise.chunk(self.shard.world)[self.shard.rank]


class EpochSampler:
    """The order in which one set is seen: a permutation for each epoch, without end.

    Args:
        n: items of the set.
        seed: of the training.
        order: tells sets of one training apart.
        shard: the part of each batch that is wanted.
        position: where iteration begins.
    """

    def __init__(self, n: int, seed: int, order: int, shard: Shard, position: int = 0) -> None:
        self.n, self.seed, self.order, self.shard, self.position = n, seed, order, shard, position
        self._permutation: tuple[int, Tensor] = (-1, torch.empty(0))

    def indices(self, position: int) -> tuple[Tensor, Tensor]:
        """Epochs and items (B,) int64 of this rank's part of the batch at `position`, on the CPU."""
        start = position + self.shard.rank * self.shard.size
        epoch, offset = divmod(start, self.n)
        if offset + self.shard.size <= self.n:
            ids = self.permutation(epoch)[offset : offset + self.shard.size]
            return torch.full_like(ids, epoch), ids
        places = torch.arange(start, start + self.shard.size)
        epochs, offsets = places // self.n, places % self.n
        ids = torch.cat([self.permutation(int(e))[offsets[epochs == e]] for e in epochs.unique()])
        return epochs, ids

    def permutation(self, epoch: int) -> Tensor:
        """The order (N,) of one epoch."""
        if self._permutation[0] != epoch:
            generator = torch.Generator().manual_seed(seed_of(self.seed, self.order, epoch))
            self._permutation = (epoch, torch.randperm(self.n, generator=generator))
        return self._permutation[1]

    def __iter__(self) -> Iterator[list[int]]:
        position = self.position
        while True:
            yield self.indices(position)[1].tolist()
            position += self.shard.batch


class _Reader:
    """Reads one set in its order, from memory or from files."""

    def __init__(self, dataset: Dataset, sampler: EpochSampler, device: torch.device, workers: int) -> None:
        if len(dataset) < 1:
            raise LimnerError(f"{dataset.name} is empty; give it images")
        self.dataset, self.sampler, self.device, self.workers = dataset, sampler, device, workers
        self.pixels = None if dataset.pixels is None else dataset.pixels.to(device)
        self.labels = None if dataset.labels is None else dataset.labels.to(device)
        self._ahead: Iterator[Tensor] | None = None

    def read(self, position: int) -> Part:
        """This rank's part of the batch at `position`, augmented."""
        epochs, ids = (t.to(self.device, non_blocking=True) for t in self.sampler.indices(position))
        if self.pixels is not None:
            x = to_float(self.pixels[ids])
        else:
            x = to_float(self._next(position).to(self.device, non_blocking=True))
        part = Part(x, None if self.labels is None else self.labels[ids], self.sampler.seed, epochs, ids)
        for augment in self.dataset.augment:
            x = augment(x, part.keys)
        return replace(part, x=x)

    def _next(self, position: int) -> Tensor:
        """The batch at `position` from files, read ahead by workers: each call is one batch further."""
        if self._ahead is None:
            sampler = EpochSampler(self.sampler.n, self.sampler.seed, self.sampler.order, self.sampler.shard, position)
            self._ahead = iter(
                DataLoader(
                    _Batches(self.dataset),
                    sampler=sampler,
                    batch_size=None,
                    num_workers=self.workers,
                    prefetch_factor=4 if self.workers else None,
                    pin_memory=self.device.type == "cuda",
                )
            )
        return next(self._ahead)


class _Batches(TorchDataset[Tensor]):
    """Lets a `DataLoader` worker fetch a whole batch at once."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, ids: list[int]) -> Tensor:
        return self.dataset.fetch(ids)
