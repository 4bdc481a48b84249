"""What a model can be asked for: a class.

A condition stands between people and numbers. It reads what a user writes (``-y 3``), says what is drawn when nobody
asks, and turns labels into what nets take. A data set has one when it is labelled; a conditional model has one, too,
and keeps it in its checkpoint, so that a model alone knows its classes by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.errors import LimnerError


class Condition(Protocol):
    """A way to ask a model for something.

    Attributes:
        size: how many numbers a net gets for each image.
        names: names of the classes, in order; None where there are no classes.
    """

    size: int
    names: list[str] | None

    def encode(self, y: Tensor) -> Tensor:
        """What nets take, (B,size) float32, of labels y (B,…)."""
        ...

    def default(self, n: int) -> Tensor:
        """Labels (n,…) of n samples that nobody chose."""
        ...

    def read(self, y: Any, n: int) -> Tensor:
        """Labels (n,…) of what a user asks for: one for all samples, or one for each.

        Raises:
            LimnerError: it means nothing here; the message says what would.
        """
        ...

    def header(self) -> dict[str, Any]:
        """Everything that a checkpoint has to keep, as plain values; `from_header` reads it."""
        ...


class Classes:
    """One of K classes. Labels are (B,) int64 class indices.

    Args:
        names: of the classes in order, or their number.
    """

    def __init__(self, names: Sequence[str] | int) -> None:
        self.names: list[str] | None = [str(n) for n in (range(names) if isinstance(names, int) else names)]
        self.size = len(self.names)

    def encode(self, y: Tensor) -> Tensor:
        """One-hot vectors (B,K) of class indices (B,).

        >>> Classes(3).encode(torch.tensor([2]))
        tensor([[0., 0., 1.]])
        """
        return F.one_hot(y, self.size).float()

    def default(self, n: int) -> Tensor:
        """All classes in turn, (n,)."""
        return torch.arange(n) % self.size

    def read(self, y: Any, n: int) -> Tensor:
        """Class indices (n,) of a name, of an index, or of n indices; a text that is both is a name.

        >>> Classes(["cat", "dog"]).read("dog", 2)
        tensor([1, 1])

        Raises:
            LimnerError: there is no such class, or there are not n of them.
        """
        names = self.names or []
        if isinstance(y, str):
            if y not in names and not y.isdecimal():
                raise LimnerError(f"there is no class {y!r}; choose from: {_listed(names)}")
            y = names.index(y) if y in names else int(y)
        labels = torch.as_tensor(y)
        labels = labels.expand(n) if labels.dim() == 0 else labels
        if (
            labels.shape != (n,)
            or labels.is_floating_point()
            or int(labels.min()) < 0
            or int(labels.max()) >= self.size
        ):
            raise LimnerError(f"class labels must be {n} integers from 0 to {self.size - 1}")
        return labels.long()

    def header(self) -> dict[str, Any]:
        """The names."""
        return {"kind": "classes", "names": self.names}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Classes) and self.names == other.names

    def __hash__(self) -> int:
        return hash(tuple(self.names or ()))


KINDS = {"classes": lambda header: Classes(header["names"])}


def from_header(header: Mapping[str, Any]) -> Condition:
    """The condition that `header` was written by.

    Raises:
        ValueError: it is no such description.
    """
    try:
        return KINDS[header["kind"]](header)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{dict(header)!r} describes no condition that this limner knows") from error


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" … ({len(names)} in all)" if len(names) > most else "")
