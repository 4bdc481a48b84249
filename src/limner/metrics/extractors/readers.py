"""Readers: classifiers of images with a head for each attribute, which judge whether samples have what was asked for.

A pinned reader belongs to a data set (`READERS`). Where there is none, `SmallReader.trained` learns one from labelled
images of the user. It is a small net, so its accuracy on held-out images is part of whatever it judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.batch import to_float
from limner.core.errors import LimnerError
from limner.metrics.extractors.attributes import KEYS, attribute_reader
from limner.metrics.extractors.features import resized

_BATCH = 500
_SIDES = (28, 56)  # pixels of a side that the small net looks at: for images up to 28 pixels, and for larger ones
UNKNOWN = -1
"""The index of a value that a label does not tell."""


@runtime_checkable
class ReadsAttributes(Protocol):
    """Reads the attributes of images.

    Attributes:
        key: name and version, for the names of scores.
        values: names of the values of each attribute, in the order of its logits.
        about: how it was trained; ``accuracy_test`` is its accuracy on held-out images for each attribute.
    """

    @property
    def key(self) -> str: ...

    @property
    def values(self) -> Mapping[str, Sequence[str]]: ...

    @property
    def about(self) -> Mapping[str, Any]: ...

    def logits(self, x: Tensor, *, batch: int = 256) -> dict[str, Tensor]:
        """Logits (B,K) by attribute of images x (B,C,H,W), uint8 or in [-1,1], `batch` at a time."""
        ...


@runtime_checkable
class ReadsQuantities(ReadsAttributes, Protocol):
    """Reads attributes of which some are quantities: the names of their values are numbers, in order.

    Attributes:
        quantities: the attributes that are quantities, each with the period after which it repeats, as an angle does;
            None for one that does not.
    """

    @property
    def quantities(self) -> Mapping[str, float | None]: ...


@runtime_checkable
class Recognises(Protocol):
    """Knows images again by features through which gradients reach the images."""

    def recognise(self, x: Tensor) -> Tensor:
        """Features (B,d) of images (B,C,H,W) in [-1,1], differentiable in them."""
        ...


READERS: dict[str, Callable[[torch.device | str], ReadsAttributes]] = {
    name: partial(attribute_reader, key) for name, key in KEYS.items()
}
"""The pinned reader for a data set, by the name of the set; each is called with a device."""


def pinned_reader(
    name: str, values: Mapping[str, Sequence[str]], device: torch.device | str = "cpu"
) -> ReadsAttributes | None:
    """The pinned reader of a data set; None if there is none, or if it does not know one of the values."""
    if name not in READERS:
        return None
    reader = READERS[name](device)
    return reader if knows(reader.values, values) else None


def knows(known: Mapping[str, Sequence[str]], values: Mapping[str, Sequence[str]]) -> bool:
    """Whether each of the attributes and of their values is among those that are known.

    >>> knows({"hair": ["red", "grey"]}, {"hair": ["grey"]}), knows({"hair": ["red", "grey"]}, {"eyes": ["open"]})
    (True, False)
    """
    return all(set(names) <= set(known.get(attribute, ())) for attribute, names in values.items())


def reading(
    logits: Mapping[str, Tensor], known: Mapping[str, Sequence[str]], values: Mapping[str, Sequence[str]]
) -> Tensor:
    """What a reader reads, (N,F) int64, as indices into `values`; `UNKNOWN` for a value that is not among them.

    >>> logits = {"hair": torch.tensor([[0.0, 1.0]])}
    >>> reading(logits, {"hair": ["red", "grey"]}, {"hair": ["grey", "red"]})
    tensor([[0]])

    Args:
        logits: (N,K) by attribute.
        known: the reader's names of values, in the order of its logits.
        values: the attributes to read, with names of values in their own order; the reader knows all of them.
    """
    columns = []
    for attribute, names in values.items():
        places = [list(names).index(name) if name in names else UNKNOWN for name in known[attribute]]
        columns.append(torch.tensor(places)[logits[attribute].argmax(1).cpu()])
    return torch.stack(columns, 1)


class _SmallNet(nn.Module):
    """Images (B,C,side,side) -> logits (B,outputs)."""

    def __init__(self, channels: int, outputs: int, side: int) -> None:
        super().__init__()
        first = [nn.Conv2d(channels, 16, 3, stride=2, padding=1), nn.ReLU()] if side > _SIDES[0] else []
        self.features = nn.Sequential(
            *first,
            nn.Conv2d(16 if first else channels, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 128),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(128, outputs))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


@dataclass(frozen=True, eq=False)
class SmallReader:
    """A small net trained on labelled images: a few convolutions and two linear layers, with a head for each attribute.

    Attributes:
        values: names of the values of each attribute.
        about: how it was trained.
    """

    values: Mapping[str, Sequence[str]]
    about: Mapping[str, Any]
    _net: _SmallNet = field(repr=False)
    _side: int = field(repr=False)
    key: str = "small-v1"

    @classmethod
    def trained(
        cls,
        x: Tensor,
        labels: Tensor,
        values: Mapping[str, Sequence[str]],
        *,
        epochs: int = 10,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> SmallReader:
        """A reader trained on images x (N,C,H,W), uint8 or in [-1,1], with labels (N,F), `UNKNOWN` where not known.

        Images of one attribute are looked at in 28×28 pixels; those of several, with sides above 28, in 56×56.

        Args:
            x: the images.
            labels: indices of their values, a column for each attribute.
            values: names of the values of each attribute.
            epochs: passes over the images, with a learning rate that falls to 0.
            seed: seed of the weights and of the order.
            device: where it is trained.

        Raises:
            LimnerError: there are fewer than 2 images, or labels that do not fit.
        """
        sizes = [len(names) for names in values.values()]
        if labels.shape != (len(x), len(sizes)):
            raise LimnerError(
                f"{len(x)} images with {len(sizes)} attributes need labels ({len(x)}, {len(sizes)}), got"
                f" {tuple(labels.shape)}"
            )
        if len(x) < 2:
            raise LimnerError(f"training needs at least 2 images, there are {len(x)}; give more")
        side = _SIDES[len(sizes) > 1 and min(x.shape[2:]) > _SIDES[0]]
        inputs = torch.cat([_prepared(part, side, device) for part in x.split(_BATCH)])
        y, batch = labels.to(device), min(64, len(x))
        generator = torch.Generator().manual_seed(seed)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for _ in range(epochs):
                order = torch.randperm(len(x), generator=generator).to(device)
                for ids in order.split(batch)[: len(x) // batch]:
                    yield inputs[ids], y[ids]

        steps = epochs * (len(x) // batch)
        return cls.taught(
            batches(), steps, x.shape[1], values, {"trained_on": len(x)}, side=side, seed=seed, device=device
        )

    @classmethod
    def taught(
        cls,
        batches: Iterable[tuple[Tensor, Tensor]],
        steps: int,
        channels: int,
        values: Mapping[str, Sequence[str]],
        about: Mapping[str, Any],
        *,
        side: int = _SIDES[0],
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> SmallReader:
        """A reader trained with one step of Adam on each of some batches.

        Args:
            batches: images (B,C,H,W) in [-1,1] and their labels (B,F).
            steps: number of the batches, over which the learning rate falls to 0.
            channels: C of the images.
            values: names of the values of each attribute.
            about: what the reader says about its training.
            side: pixels of a side that it looks at: 28 or 56.
            seed: seed of the weights.
            device: where it is trained.
        """
        sizes = [len(names) for names in values.values()]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = _SmallNet(channels, sum(sizes), side)
        net = net.to(device)
        adam = torch.optim.Adam(net.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / max(steps, 1))
        with torch.inference_mode(False), torch.enable_grad():
            for x, y in batches:
                loss = cross_entropies(net(_prepared(x, side, device)), y.to(device), sizes)
                adam.zero_grad()
                loss.backward()
                adam.step()
                schedule.step()
        return cls(values, about, net.eval().requires_grad_(False), side)

    def recognise(self, x: Tensor) -> Tensor:
        """Values (B,128) before the last ReLU of images (B,C,H,W) in [-1,1], with gradients of the images."""
        with torch.inference_mode(False):
            features: Tensor = self._net.features(_prepared(x, self._side, next(self._net.parameters()).device))
            return features

    @torch.inference_mode()
    def logits(self, x: Tensor, *, batch: int = _BATCH) -> dict[str, Tensor]:
        """Logits (B,K) by attribute, on the CPU, of images x (B,C,H,W), uint8 or in [-1,1]."""
        device = next(self._net.parameters()).device
        joined = torch.cat([self._net(_prepared(part, self._side, device)) for part in x.split(batch)]).cpu()
        sizes = [len(names) for names in self.values.values()]
        return dict(zip(self.values, joined.split(sizes, 1), strict=True))


def _prepared(x: Tensor, side: int, device: torch.device | str) -> Tensor:
    return resized(to_float(x.to(device)).float(), (side, side))


def cross_entropies(logits: Tensor, labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """The sum over attributes of the mean cross-entropy of the images whose value is known.

    Args:
        logits: (B,ΣK), those of all attributes side by side.
        labels: (B,F) int64, `UNKNOWN` where a value is not known.
        sizes: number K of values of each attribute.
    """
    total = logits.new_zeros(())
    for part, y in zip(logits.split(list(sizes), 1), labels.unbind(1), strict=True):
        total = total + F.cross_entropy(part, y, ignore_index=UNKNOWN, reduction="sum") / (y != UNKNOWN).sum().clamp(
            min=1
        )
    return total
