"""Conditions: the labels of data sets and of conditional models.

A condition reads the label that a user writes (``y=3``), gives default labels and encodes labels for nets. Labelled
data sets and conditional models have one. A model saves it in its checkpoint, so that it knows its classes by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.errors import LimnerError

_WHOLE = re.compile(r"-?[0-9]{1,18}")


class Condition(Protocol):
    """A kind of labels.

    Attributes:
        size: length of the vector that a net takes for each image.
        names: names of the classes, in order; None if the labels are no classes.
    """

    size: int
    names: list[str] | None

    def encode(self, y: Tensor) -> Tensor:
        """Encodes labels y (B,…) as vectors (B,size) float32 for nets."""
        ...

    def default(self, n: int) -> Tensor:
        """Labels (n,…) for n samples if the user chooses none."""
        ...

    def read(self, y: Any, n: int) -> Tensor:
        """Labels (n,…) from a user's value `y`: one label for all samples, or one for each.

        Raises:
            LimnerError: the value is no label; the message says which values are.
        """
        ...

    def header(self) -> dict[str, Any]:
        """The condition as plain values for a checkpoint; `from_header` reads them."""
        ...


_MOST = 1 << 17  # classes; their names take time and memory


class Classes:
    """One of K classes. Labels are (B,) int64 class indices.

    Args:
        names: names of the classes in order, or their number.
    """

    def __init__(self, names: Sequence[str] | int) -> None:
        number = names if isinstance(names, int) else len(names)
        if not 0 <= number <= _MOST:
            raise ValueError(f"there cannot be {number} classes; 0 to {_MOST} are possible")
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
        """Class indices (n,) of a name or a number, of a list of n of them, or of a tensor of n indices.

        A whole number is the name of a class where a class has that name, else its index. Where all names are whole
        numbers it is always a name.

        >>> Classes(["cat", "dog"]).read("dog", 2), Classes(["cat", "dog"]).read(0, 1)
        (tensor([1, 1]), tensor([0]))
        >>> Classes(["2", "10"]).read(10, 1)
        tensor([1])

        Raises:
            LimnerError: there is no such class, or the number of labels is not n.
        """
        if isinstance(y, (str, Integral)):
            return torch.tensor(self._index(y)).expand(n).long()
        if isinstance(y, (list, tuple)) and y and all(isinstance(label, (str, Integral)) for label in y):
            y = [self._index(label) for label in y]
        labels = torch.as_tensor(y)
        labels = labels.expand(n) if labels.dim() == 0 else labels
        is_valid = labels.shape == (n,) and not labels.is_floating_point()
        if not is_valid or int(labels.min()) < 0 or int(labels.max()) >= self.size:
            raise LimnerError(f"class labels must be {n} integers from 0 to {self.size - 1}{self._choices}")
        return labels.long()

    def _index(self, label: str | Integral) -> int:
        """The index of a class by its name or its number."""
        names, text = self.names or [], str(label).strip()
        if text in names:
            return names.index(text)
        number = int(text) if _WHOLE.fullmatch(text) else None
        if names and all(_WHOLE.fullmatch(name) for name in names):
            same = [k for k, name in enumerate(names) if int(name) == number]
            if len(same) == 1:
                return same[0]
        elif number is not None:
            if 0 <= number < self.size:
                return number
            raise LimnerError(f"class labels must be names or integers from 0 to {self.size - 1}{self._choices}")
        raise LimnerError(f"there is no class {label!r}; choose from: {_listed(names)}")

    @property
    def _choices(self) -> str:
        names = self.names or []
        return "" if names == [str(k) for k in range(self.size)] else f", or names: {_listed(names)}"

    def header(self) -> dict[str, Any]:
        """The kind of the condition and the names of the classes."""
        return {"kind": "classes", "names": self.names}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Classes) and self.names == other.names

    def __hash__(self) -> int:
        return hash(tuple(self.names or ()))


KINDS = {"classes": lambda header: Classes(header["names"])}


def from_header(header: Mapping[str, Any]) -> Condition:
    """The condition of which `Condition.header` returned `header`.

    Raises:
        ValueError: `header` describes no condition.
    """
    try:
        return KINDS[header["kind"]](header)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{dict(header)!r} describes no condition of this version of limner") from error


def _listed(names: Sequence[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f" … ({len(names)} in all)" if len(names) > limit else "")
