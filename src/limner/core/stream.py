"""Endless, seeded, stateless batches.

The i-th image that training sees is a function of (seed, i): epoch i // N, place i % N in that epoch's
permutation. Augmentation is a function of (seed, epoch, sample), noise of (seed, position of the step). So a
stream has one number to remember, its position; the number of workers cannot change a batch, and two ranks
draw between them exactly what one rank would.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from limner.core.batch import Dataset, Images, to_float
from limner.core.chance import keys, seed_of
from limner.core.errors import LimnerError

_ORDER, _NOISE, _RANK = 1, 2, 3  # lanes of the seed


class Stream:
    """Batches of a data set for one rank.

    Args:
        dataset: where the images come from.
        batch: images per step over all ranks.
        seed: decides order, augmentation and noise.
        device: where batches arrive.
        rank: this process among `world`.
        world: number of processes.
        workers: processes that read files ahead; 0 reads in this one. Unused for sets held in memory.
        position: images already seen, over all ranks.
        channels_last: memory format of `x`.
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
        if len(dataset) < 1:
            raise LimnerError(f"{dataset.name} is empty; give it images")
        self.dataset, self.batch, self.seed = dataset, batch, seed
        self.device, self.rank, self.world, self.workers = torch.device(device), rank, world, workers
        self.position = position
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.pixels = None if dataset.pixels is None else dataset.pixels.to(self.device)
        self.labels = None if dataset.labels is None else dataset.labels.to(self.device)
        self.generator = torch.Generator(self.device)
        self._permutation: tuple[int, Tensor] = (-1, torch.empty(0))
        self._reader: Iterator[Any] | None = None
        self.begin()

    @property
    def epoch(self) -> float:
        """Epochs seen."""
        return self.position / len(self.dataset)

    def begin(self) -> None:
        """Ties all noise of the coming step to its position. The loop calls it before each step.

        The default generators (dropout) differ by rank; `randn` and `rand` draw for all ranks and keep a share.
        """
        seed = seed_of(self.seed, _RANK, self.rank, self.position)
        torch.default_generator.manual_seed(
            seed
        )  # torch.manual_seed would also note a traceback for every kind of device
        if self.device.type in ("cuda", "mps"):
            getattr(torch, self.device.type).manual_seed(seed)
        self.generator.manual_seed(seed_of(self.seed, _NOISE, self.position))

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Images:
        epochs, ids = self.share(self.position)
        if self.pixels is not None:
            x = to_float(self.pixels[ids])
        else:
            x = to_float(self._read().to(self.device, non_blocking=True))
        if self.dataset.augment:
            sample_keys = keys(self.seed, epochs, ids)
            for augment in self.dataset.augment:
                x = augment(x, sample_keys)
        self.position += self.batch
        y = None if self.labels is None else self.labels[ids]
        return Images(x.contiguous(memory_format=self.format), y)

    def share(self, position: int) -> tuple[Tensor, Tensor]:
        """Epochs and sample ids (B,) int64 of this rank's part of the batch at `position`."""
        local = self.batch // self.world
        start = position + self.rank * local
        n = len(self.dataset)
        epoch, offset = divmod(start, n)
        if offset + local <= n:
            ids = self.permutation(epoch)[offset : offset + local]
            return torch.full_like(ids, epoch), ids
        places = torch.arange(start, start + local, device=self.device)
        epochs, offsets = places // n, places % n
        ids = torch.cat([self.permutation(int(e))[offsets[epochs == e]] for e in epochs.unique()])
        return epochs, ids

    def permutation(self, epoch: int) -> Tensor:
        """The order (N,) of one epoch."""
        if self._permutation[0] != epoch:
            generator = torch.Generator().manual_seed(seed_of(self.seed, _ORDER, epoch))
            order = torch.randperm(len(self.dataset), generator=generator).to(self.device)
            self._permutation = (epoch, order)
        return self._permutation[1]

    def randn(self, *size: int) -> Tensor:
        """Standard normal noise on this rank."""
        return self._own(torch.randn(size[0] * self.world, *size[1:], generator=self.generator, device=self.device))

    def rand(self, *size: int) -> Tensor:
        """Uniform noise in [0,1) on this rank."""
        return self._own(torch.rand(size[0] * self.world, *size[1:], generator=self.generator, device=self.device))

    def _own(self, noise: Tensor) -> Tensor:
        share = len(noise) // self.world
        return noise[self.rank * share : (self.rank + 1) * share]

    def _read(self) -> Tensor:
        """The next batch from files, read ahead by workers."""
        if self._reader is None:
            cpu = Stream.__new__(Stream)  # the order alone, on the CPU, for the sampler
            cpu.__dict__ = self.__dict__ | {"device": torch.device("cpu"), "pixels": None, "_permutation": (-1, None)}
            loader = DataLoader(
                _Batches(self.dataset),
                sampler=_Places(cpu, self.position),
                batch_size=None,
                num_workers=self.workers,
                prefetch_factor=4 if self.workers else None,
                pin_memory=self.device.type == "cuda",
            )
            self._reader = iter(loader)
        batch: Tensor = next(self._reader)
        return batch


class _Places:
    """Lists of sample ids from `position` on, without end."""

    def __init__(self, stream: Stream, position: int) -> None:
        self.stream, self.position = stream, position

    def __iter__(self) -> Iterator[list[int]]:
        position = self.position
        while True:
            yield self.stream.share(position)[1].tolist()
            position += self.stream.batch


class _Batches(TorchDataset[Tensor]):
    """Lets a `DataLoader` worker fetch a whole batch at once."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, ids: list[int]) -> Tensor:
        return self.dataset.fetch(ids)
