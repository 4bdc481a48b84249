"""An endless stream of batches, whose only state is its position.

The i-th image of a training is a function of (seed, i): epoch i // N, index i % N in the permutation of that epoch.
Augmentation is a function of (seed, epoch, sample), noise of (seed, position of the step). So a resumed training needs
the position only, the number of workers does not change a batch, and two ranks together draw exactly what one rank
draws alone. A training that was rolled back (`limner.core.rollback`) has another seed for all of these, made of its own
and of a salt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from limner.core.ahead import read_ahead
from limner.core.batch import Dataset, Part, to_float
from limner.core.errors import LimnerError
from limner.core.rng import seed_of

# Stream ids of a training's seed; 4 is for the initial weights. The sets of a batch have the orders 1, 5, 6, …
_NOISE, _RANK, _ORDERS, _SALT = 2, 3, (1, *range(5, 64)), 64


_AHEAD = 4  # batches that each worker reads before they are asked for


class Shard(NamedTuple):
    """The part of every batch that one process works on."""

    batch: int
    rank: int = 0
    world: int = 1

    @property
    def size(self) -> int:
        """Images per batch on this process."""
        return self.batch // self.world


class Stream:
    """Batches of a data set for one rank.

    Args:
        dataset: the data set, whose `collate` makes the batches.
        batch: images (or pairs) per step over all ranks.
        seed: decides order, augmentation and noise.
        device: device of the batches.
        rank: index of this process among `world`.
        world: number of processes.
        workers: processes that read files ahead; 0 reads ahead with threads of this process, which is as fast unless
            the files are large. Data sets in memory use none.
        position: images already seen, over all ranks.
        channels_last: memory format of images.

    Attributes:
        salt: 0, or the number that `move` was given to tell this stream from the others of the seed.

    Raises:
        LimnerError: the ranks cannot share a batch evenly, or the data set is empty.
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
        self.dataset, self.batch = dataset, batch
        self.seed, self.salt = seed, 0
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
    def salted_seed(self) -> int:
        """The seed of order, augmentation and noise: a function of seed and salt."""
        return seed_of(self.seed, _SALT, self.salt) if self.salt else self.seed

    @property
    def epoch(self) -> float:
        """Epochs seen so far."""
        return self.position / len(self.dataset)

    def begin(self, position: int | None = None) -> None:
        """Seeds all noise of the coming step by its position; call it before each step.

        Each rank seeds the default generators (dropout) differently. `randn` and `rand` draw the noise of all ranks and
        return the part of this one.

        Args:
            position: position of the step, if its batches have been drawn already; default the stream's position.
        """
        position = self.position if position is None else position
        seed = seed_of(self.salted_seed, _RANK, self.shard.rank, position)
        # torch.manual_seed is slower: it also records a traceback for every device type.
        torch.default_generator.manual_seed(seed)
        if self.device.type in ("cuda", "mps"):
            getattr(torch, self.device.type).manual_seed(seed)
        self.generator.manual_seed(seed_of(self.salted_seed, _NOISE, position))

    def move(self, position: int, salt: int = 0) -> None:
        """Goes to a position, in a stream of the same images whose order, augmentation and noise depend on `salt`.

        Args:
            position: images seen, over all ranks.
            salt: 0 stands for the stream of the seed itself.
        """
        self.position, self.salt = position, salt
        for reader in self.readers:
            reader.sampler.reseed(self.salted_seed)
            reader.restart()

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """Lets the caller draw batches, and then goes back to the position before."""
        position = self.position
        self.begin()
        yield
        self.position = position
        for reader in self.readers:
            reader.restart()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        parts = [reader.read(self.position) for reader in self.readers]
        self.position += self.batch
        batch = self.dataset.collate(parts)
        return type(batch)(*map(self._formatted, batch))

    def _formatted(self, value: Any) -> Any:
        """Images in the memory format of this stream; other values unchanged."""
        is_images = isinstance(value, Tensor) and value.dim() == 4
        return value.contiguous(memory_format=self.format) if is_images else value

    def randn(self, *size: int) -> Tensor:
        """Standard normal noise on this rank."""
        return self._shard(torch.randn(self._global(size), generator=self.generator, device=self.device))

    def rand(self, *size: int) -> Tensor:
        """Uniform noise in [0,1) on this rank."""
        return self._shard(torch.rand(self._global(size), generator=self.generator, device=self.device))

    def scalar(self, schedule: Callable[[int], float]) -> Tensor:
        """`schedule(position)` as a tensor (), made without waiting for the device."""
        return torch.full((), schedule(self.position), device=self.device)

    def _global(self, size: Sequence[int]) -> tuple[int, ...]:
        return size[0] * self.shard.world, *size[1:]

    def _shard(self, noise: Tensor) -> Tensor:
        return noise.chunk(self.shard.world)[self.shard.rank]


class EpochSampler:
    """Endless indices of one data set, in a new permutation for each epoch.

    Args:
        n: number of items.
        seed: seed of the training.
        order: a number that differs between the data sets of one training.
        shard: the part of each batch to return.
        position: position at which iteration starts.
    """

    def __init__(self, n: int, seed: int, order: int, shard: Shard, position: int = 0) -> None:
        self.n, self.order, self.shard, self.position = n, order, shard, position
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Takes the permutations of another seed."""
        self.seed = seed
        self._permutation: tuple[int, Tensor] = (-1, torch.empty(0))

    def indices(self, position: int) -> tuple[Tensor, Tensor]:
        """Epochs and indices (B,) int64 of this rank's part of the batch at `position`, on the CPU."""
        start = position + self.shard.rank * self.shard.size
        epoch, offset = divmod(start, self.n)
        if offset + self.shard.size <= self.n:
            ids = self.permutation(epoch)[offset : offset + self.shard.size]
            return torch.full_like(ids, epoch), ids
        positions = torch.arange(start, start + self.shard.size)
        epochs, offsets = positions // self.n, positions % self.n
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
    """Reads one data set in the order of its sampler, from memory or from files."""

    def __init__(self, dataset: Dataset, sampler: EpochSampler, device: torch.device, workers: int) -> None:
        if len(dataset) < 1:
            raise LimnerError(f"{dataset.name} has no images; choose another data set or a folder with images")
        self.dataset, self.sampler, self.device, self.workers = dataset, sampler, device, workers
        self.pixels = None if dataset.pixels is None else dataset.pixels.to(device)
        self.labels = None if dataset.labels is None else dataset.labels.to(device)
        self._batches: Iterator[Tensor] | None = None

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

    def restart(self) -> None:
        """Forgets what was read ahead, so that the next call may be for any position."""
        self._batches = None

    def _next(self, position: int) -> Tensor:
        """The batch at `position` from files, read ahead. Each call must be for the batch after the last."""
        if self._batches is None:
            sampler = EpochSampler(self.sampler.n, self.sampler.seed, self.sampler.order, self.sampler.shard, position)
            pinned = self.device.type == "cuda"
            self._batches = (
                _in_processes(self.dataset, sampler, self.workers, pinned)
                if self.workers
                else read_ahead(self.dataset, sampler, pinned)
            )
        return next(self._batches)


def _in_processes(dataset: Dataset, sampler: EpochSampler, workers: int, pinned: bool) -> Iterator[Tensor]:
    return iter(
        DataLoader(
            _Batches(dataset),
            sampler=sampler,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=_AHEAD,
            pin_memory=pinned,
        )
    )


class _Batches(TorchDataset[Tensor]):
    """Lets a `DataLoader` worker fetch a whole batch at once."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, ids: list[int]) -> Tensor:
        return self.dataset.fetch(ids)
