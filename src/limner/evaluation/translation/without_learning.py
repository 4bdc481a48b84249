"""Translations without learning, beside which those of a model are scored, and the model's own, finished alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.batch import Dataset, Paired, batch_of, drawn, to_float, to_uint8
from limner.core.capabilities import Translates
from limner.core.errors import LimnerError
from limner.core.inference import translated
from limner.data import degradations as tasks
from limner.data.degradations import Degradation
from limner.data.pairs import PairSet

BATCH = 16
"""Images that are translated at once."""
_SIDE = 64  # larger sources are reduced to this size to find the nearest
_CANDIDATES = 4
NAMES = {
    "nearest": "the nearest training source's target",
    "constant": "the mean colour",
    "median": "the median colour",
    "source": "the source itself",
    "identity": "no translation",
}
"""What a baseline is, in words."""

Method = Callable[[Tensor], Tensor]
"""Translates sources (B,C',H,W) to images (B,C,H,W)."""


class PairBaselines:
    """Baselines from training pairs: a constant colour, or the target of the nearest source.

    Args:
        train: a set of pairs.
        limit: largest number of pairs that are used, drawn at random.

    Attributes:
        mean: colour (C,) in [0,255], the best constant in squared error.
        median: colour (C,) in [0,255], the best constant in L1.
    """

    def __init__(self, train: Dataset, limit: int = 5000) -> None:
        self.train, self.ids = train, drawn(len(train), limit)
        counts = torch.zeros(train.shape[0], 256, dtype=torch.int64)
        sources = []
        for ids in chunks(self.ids, 64):
            a, b = batch_of(train, [ids])
            sources.append(_shrink(a).flatten(1))
            counts += torch.stack([c.bincount(minlength=256) for c in to_uint8(b).transpose(0, 1).flatten(1).int()])
        self._sources = torch.cat(sources)  # (N,C'·h·w)
        self._middle = self._sources.mean(0)
        self._lengths = (self._sources - self._middle).square().sum(1)
        total = counts.sum(1, keepdim=True)
        self.mean = (counts * torch.arange(256)).sum(1) / total[:, 0]
        self.median = (2 * counts.cumsum(1) >= total).int().argmax(1).float()

    def nearest_ids(self, a: Tensor) -> list[int]:
        """Indices of the training pairs whose sources are nearest to a (B,C',H,W) in L2.

        The four nearest by float32 products are compared exactly.
        """
        x = _shrink(a).flatten(1)
        rough = self._lengths - 2 * (x - self._middle) @ (self._sources - self._middle).T
        near = rough.topk(min(_CANDIDATES, len(self.ids)), largest=False).indices.sort().values
        exact = (self._sources[near] - x[:, None]).square().sum(2).argmin(1, keepdim=True)
        return [self.ids[i] for i in near.gather(1, exact)[:, 0].tolist()]

    def nearest(self, a: Tensor) -> Tensor:
        """Targets (B,C,H,W) of the nearest sources."""
        pairs: Paired = batch_of(self.train, [self.nearest_ids(a)])
        return pairs.b

    def constant(self, colour: Tensor) -> Method:
        """The method that always gives one colour (C,) in [0,255]."""
        return lambda a: (colour / 127.5 - 1)[None, :, None, None].expand(len(a), -1, *a.shape[2:])


def _shrink(a: Tensor) -> Tensor:
    size = (min(a.shape[2], _SIDE), min(a.shape[3], _SIDE))
    return a if tuple(a.shape[2:]) == size else F.interpolate(a, size, mode="area")


def baselines(heldout: Dataset, train: Dataset | None = None, references: int = 5000) -> dict[str, Method]:
    """Baselines by name: the classic method of a task, else the methods that follow from training pairs.

    Args:
        heldout: pairs.
        train: training pairs; without them, only the source itself is a baseline.
        references: largest number of training pairs that are used.
    """
    assert isinstance(heldout, PairSet)
    task = task_of(heldout)
    if task is not None and task.classic_name:
        return {"classic": lambda a: cast(Tensor, task.classic(a))}
    methods: dict[str, Method] = {}
    if isinstance(train, PairSet):
        pairs = PairBaselines(train, references)
        methods = {
            "nearest": pairs.nearest,
            "constant": pairs.constant(pairs.mean),
            "median": pairs.constant(pairs.median),
        }
    if heldout.source[0] in (1, heldout.shape[0]):
        methods["source"] = lambda a: a.expand(-1, heldout.shape[0], -1, -1)
    return methods


def task_of(heldout: Dataset) -> Degradation | None:
    """The task that makes the sources of such pairs from their targets; None where both were given."""
    pairing: dict[str, Any] | None = getattr(heldout, "pairing", None)
    return None if pairing is None else tasks.make(**pairing)


def translator(model: Translates, task: Degradation | None = None, seed: int = 0) -> Method:
    """The translation by a model, finished as the task requires."""

    def method(a: Tensor) -> Tensor:
        y = translated(model, a, seed=seed, batch=BATCH).cpu()
        return y if task is None else task.finish(a, y)

    return method


def rounded(x: Tensor) -> Tensor:
    """Images (B,C,H,W) in [-1,1] on the CPU, rounded to 8 bits as if they were saved.

    Raises:
        LimnerError: some values are not finite.
    """
    if not bool(torch.isfinite(x).all()):
        raise LimnerError("some translations are not finite; choose an earlier checkpoint with which=NUMBER")
    return to_float(to_uint8(x).cpu())


def chunks(ids: Sequence[int], size: int) -> Iterator[list[int]]:
    """The ids in order, at most `size` at a time."""
    for first in range(0, len(ids), size):
        yield list(ids[first : first + size])
