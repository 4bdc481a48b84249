"""Conditions: what images are asked for by, in data sets and in conditional models.

A condition reads what a user writes (``y=3``, ``y="hair=red glasses=round"``, a caption), gives default labels, names
labels in figures and encodes them for nets. Data sets with labels and conditional models have one. A model saves it in
its checkpoint, so that it knows its classes and attributes by name.

Labels are class indices (B,) int64, or vectors (B,size) float32 that nets take as they are.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import accumulate, pairwise
from numbers import Integral
from typing import Any, Protocol

import numpy as np
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
        values: the names of the values of each feature that a label tells: one feature ``class`` for classes, the
            attributes, or none for vectors of any meaning.
    """

    size: int
    names: list[str] | None
    values: Mapping[str, Sequence[str]]

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

    def name(self, y: Tensor) -> list[str]:
        """What each of the labels (B,…) says, as `read` reads it."""
        ...

    def features(self, y: Tensor) -> Tensor:
        """Indices (B,F) int64 into `values` for each feature of labels (B,…); -1 where a label leaves it open."""
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
        self.values: Mapping[str, Sequence[str]] = {"class": self.names}

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
        labels = _numbers(y)
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
        raise LimnerError(f"there is no class {label!r}{_nearest(text, names)}; choose from: {_listed(names)}")

    @property
    def _choices(self) -> str:
        names = self.names or []
        return "" if names == [str(k) for k in range(self.size)] else f", or names: {_listed(names)}"

    def name(self, y: Tensor) -> list[str]:
        """The names of classes (B,)."""
        return [(self.names or [])[k] for k in y.tolist()]

    def features(self, y: Tensor) -> Tensor:
        """The classes (B,) as (B,1)."""
        return y[:, None]

    def header(self) -> dict[str, Any]:
        """The kind of the condition and the names of the classes."""
        return {"kind": "classes", "names": self.names}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Classes) and self.names == other.names

    def __hash__(self) -> int:
        return hash(tuple(self.names or ()))


_ROWS = 512  # labels of the data that a condition keeps, so that default labels are as frequent as in the data


class Attributes:
    """Several named features at once, such as hair and glasses.

    Labels are (B,size) float32: for each attribute in order a one-hot vector of its value, or zeros where the value is
    not known. What a user leaves open is filled in as the data have it, from rows that agree with what was asked for:
    a model has seen only combinations that occur (glasses on a bald head, but no beard on a child).

    Args:
        values: names of the values of each attribute.
        rows: value indices (N,F) of labels of the data, -1 where unknown; `sampled_rows` chooses them. Without rows
            every value of an attribute is equally likely.
    """

    names: list[str] | None = None

    def __init__(self, values: Mapping[str, Sequence[str]], rows: Iterable[Sequence[int]] = ()) -> None:
        self.values: Mapping[str, Sequence[str]] = {str(k): [str(v) for v in known] for k, known in values.items()}
        counts = [len(known) for known in self.values.values()]
        if not counts or min(counts) < 1 or sum(counts) > _MOST:
            raise ValueError(f"attributes need 1 to {_MOST} values; got {counts or 'no attribute'}")
        self.size = sum(counts)
        self._bounds = list(pairwise(accumulate(counts, initial=0)))
        table = torch.tensor([list(row) for row in rows], dtype=torch.int64)
        if not len(table):
            generator = torch.Generator().manual_seed(0)
            columns = [(torch.arange(_ROWS) % k)[torch.randperm(_ROWS, generator=generator)] for k in counts]
            table = torch.stack(columns, 1)
        if table.shape[1:] != (len(counts),) or bool(((table < -1) | (table >= torch.tensor(counts))).any()):
            raise ValueError("rows do not fit the attributes")
        self.rows = table[:_ROWS]

    @staticmethod
    def sampled_rows(features: Tensor) -> Tensor:
        """At most 512 of the rows of (N,F), drawn at random; always the same."""
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
        return features[order[:_ROWS]]

    def vectors(self, features: Tensor) -> Tensor:
        """Labels (B,size) float32 of value indices (B,F), where -1 gives zeros.

        >>> Attributes({"hair": ["red", "grey"], "glasses": ["none", "round"]}).vectors(torch.tensor([[1, -1]]))
        tensor([[0., 1., 0., 0.]])
        """
        columns = zip(features.unbind(1), self._bounds, strict=True)
        return torch.cat([(v[:, None] == torch.arange(b - a, device=v.device)).float() for v, (a, b) in columns], dim=1)

    def encode(self, y: Tensor) -> Tensor:
        """The labels (B,size) themselves."""
        return y

    def features(self, y: Tensor) -> Tensor:
        """Value indices (B,F) of labels (B,size); -1 where a value is not known."""
        parts = [y[:, a:b] for a, b in self._bounds]
        return torch.stack([torch.where(part.amax(1) > 0, part.argmax(1), -1) for part in parts], 1)

    def default(self, n: int) -> Tensor:
        """Labels (n,size) of the data, as frequent as there."""
        return self.vectors(self.rows[torch.arange(n) % len(self.rows)])

    def read(self, y: Any, n: int) -> Tensor:
        """Labels (n,size) of what was asked for.

        This is text such as ``hair=red glasses=round``, a dictionary, a list of n of them, or a tensor (n,size) of
        labels or (n,F) of value indices.

        Raises:
            LimnerError: there is no such attribute or value, or the number of labels is not n.
        """
        if isinstance(y, (str, Mapping)):
            return self.vectors(self._completed(self.asked(y), n))
        if isinstance(y, (list, tuple)) and y and all(isinstance(label, (str, Mapping)) for label in y):
            if len(y) != n:
                raise LimnerError(f"there are {len(y)} labels for {n} images; write one, or one for each")
            # each row has its own place in the table, so that equal texts do not give equal images
            return self.vectors(torch.cat([self._completed(self.asked(v), n)[i : i + 1] for i, v in enumerate(y)]))
        if isinstance(y, Integral):
            raise LimnerError(f"{y} names no attribute; write for example {self._example}")
        labels = _numbers(y)
        if labels.shape == (n, len(self.values)) and not labels.is_floating_point():
            counts = torch.tensor([b - a for a, b in self._bounds], device=labels.device)
            if bool(((labels < -1) | (labels >= counts)).any()):
                raise LimnerError("an attribute has no value of such an index; write -1 to leave it open")
            return self.vectors(labels.long())
        if labels.shape != (n, self.size) or not labels.is_floating_point():
            raise LimnerError(f"labels must be text such as {self._example}, or vectors ({n}, {self.size})")
        return labels.float()

    def asked(self, y: str | Mapping[str, Any]) -> dict[str, int]:
        """The index of each value that a text or a dictionary asks for, by attribute.

        >>> Attributes({"hair": ["red", "grey"], "glasses": ["none", "round"]}).asked("glasses=round")
        {'glasses': 1}

        Raises:
            LimnerError: there is no such attribute or value.
        """
        asked: dict[str, int] = {}
        for attribute, value in y.items() if isinstance(y, Mapping) else self._pairs(y):
            attribute = str(attribute)
            known = self.values.get(attribute)
            if known is None:
                raise LimnerError(
                    f"there is no attribute {attribute!r}{_nearest(attribute, self.values)}; "
                    f"choose from: {_listed(list(self.values))}"
                )
            if str(value) not in known:
                near = _nearest(str(value), known)
                raise LimnerError(f"{attribute} has no value {str(value)!r}{near}; choose from: {_listed(known)}")
            if attribute in asked:
                raise LimnerError(f"{attribute} is asked for twice; write it once")
            asked[attribute] = list(known).index(str(value))
        return asked

    def _pairs(self, text: str) -> Iterable[tuple[str, str]]:
        """``hair=red glasses=very round`` -> (hair, red), (glasses, very round); a comma may stand between them."""
        found = list(re.finditer(r"(?:^|(?<=[\s,;]))([^\s=,;]+)\s*=\s*", text))
        if not found or text[: found[0].start()].strip(" ,;"):
            first = repr(text.strip()) if text.strip() else "an empty text"
            raise LimnerError(f"{first} names no attribute; write for example {self._example}")
        ends = [*(m.start() for m in found[1:]), len(text)]
        return [(m[1], text[m.end() : end].strip(" ,;")) for m, end in zip(found, ends, strict=True)]

    def _completed(self, asked: Mapping[str, int], n: int) -> Tensor:
        """Value indices (n,F): rows of the data with the values that were asked for, or with most of them, replaced."""
        names = list(self.values)
        agreement = torch.zeros(len(self.rows), dtype=torch.int64)
        for attribute, index in asked.items():
            agreement += self.rows[:, names.index(attribute)] == index
        nearest = self.rows[agreement == agreement.max()]
        rows = nearest[torch.arange(n) % len(nearest)].clone()
        for attribute, index in asked.items():
            rows[:, names.index(attribute)] = index
        return rows

    @property
    def _example(self) -> str:
        """How two attributes are asked for."""
        return repr(" ".join(f"{attribute}={known[-1]}" for attribute, known in list(self.values.items())[:2]))

    def name(self, y: Tensor) -> list[str]:
        """The known attributes of labels (B,size), such as ``hair=red glasses=round``."""
        known = [(attribute, list(values)) for attribute, values in self.values.items()]
        return [
            " ".join(f"{attribute}={values[k]}" for (attribute, values), k in zip(known, row, strict=True) if k >= 0)
            for row in self.features(y).tolist()
        ]

    def header(self) -> dict[str, Any]:
        """The attributes with their values, and labels of the data."""
        return {"kind": "attributes", "values": dict(self.values), "rows": self.rows.tolist()}

    def __eq__(self, other: object) -> bool:
        # in the same order too, because that of the vectors depends on it
        return isinstance(other, Attributes) and list(self.values.items()) == list(other.values.items())

    def __hash__(self) -> int:
        return hash(tuple(self.values))


TextEncoder = Callable[[Sequence[str]], Tensor]
"""``encode(texts) -> (N,size)``: vectors float32 of N texts, on the CPU."""

ENCODERS: dict[str, TextEncoder] = {}
"""Text encoders by name. `core` has none; `limner.data.texts` adds its own."""

_TEXTS = 64  # captions that a condition keeps


class Vectors:
    """Captions. Labels are their vectors (B,size) float32, as a text encoder gives them.

    Some captions of the data are kept with their vectors, so that sheets and default labels need no encoder.

    Args:
        encoder: the name of the text encoder.
        texts: captions of the data.
        vectors: (N,size) their vectors; of more than 64, evenly spaced ones are kept.
    """

    names: list[str] | None = None

    def __init__(self, encoder: str, texts: Sequence[str], vectors: Tensor) -> None:
        if not len(texts) or vectors.dim() != 2 or len(texts) != len(vectors) or not 1 <= vectors.shape[1] <= _MOST:
            raise ValueError("captions need one vector each, and there must be a caption")
        kept = [k * len(texts) // min(_TEXTS, len(texts)) for k in range(min(_TEXTS, len(texts)))]
        self.encoder, self.size = encoder, vectors.shape[1]
        self.texts, self.vectors = [str(texts[k]) for k in kept], vectors[kept].float().cpu()
        self.values: Mapping[str, Sequence[str]] = {}
        self._known = dict(zip(self.texts, self.vectors, strict=True))  # also texts that were read, for `name`

    def encode(self, y: Tensor) -> Tensor:
        """The labels (B,size) themselves."""
        return y

    def default(self, n: int) -> Tensor:
        """Vectors (n,size) of captions of the data in turn."""
        return self.vectors[torch.arange(n) % len(self.texts)]

    def read(self, y: Any, n: int) -> Tensor:
        """Vectors (n,size) of a text, of a list of n texts, or of a tensor of n vectors.

        Raises:
            LimnerError: a text is empty or cannot be encoded here, or the number of labels is not n.
        """
        if isinstance(y, str):
            return self._encoded([y]).expand(n, -1)
        if isinstance(y, (list, tuple)) and y and all(isinstance(text, str) for text in y):
            if len(y) != n:
                raise LimnerError(f"there are {len(y)} texts for {n} images; write one, or one for each")
            return self._encoded(y)
        if isinstance(y, Tensor) and y.shape == (n, self.size) and y.is_floating_point():
            return y.float()
        raise LimnerError(f"labels must be text such as {self.texts[0]!r}, or vectors ({n}, {self.size})")

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        """Vectors (N,size) of texts; those of known ones need no encoder."""
        if not all(text.strip() for text in texts):
            raise LimnerError(f"an empty text says nothing; write for example {self.texts[0]!r}")
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new and self.encoder not in ENCODERS:
            known = _listed([repr(text) for text in self.texts], 2)
            raise LimnerError(
                f"there is no text encoder {self.encoder!r} in this version of limner; write one of {known}"
            )
        if new:
            self._known |= dict(zip(new, ENCODERS[self.encoder](new).float().cpu(), strict=True))
        return torch.stack([self._known[text] for text in texts])

    def name(self, y: Tensor) -> list[str]:
        """For each of the labels (B,size) the nearest text, of those that were read and of those of the data."""
        known = F.normalize(torch.stack(list(self._known.values())), dim=1)
        texts = list(self._known)
        return [texts[k] for k in (F.normalize(y.float().cpu(), dim=1) @ known.T).argmax(1).tolist()]

    def features(self, y: Tensor) -> Tensor:
        """A caption has no features: (B,0)."""
        return torch.empty(len(y), 0, dtype=torch.int64, device=y.device)

    def header(self) -> dict[str, Any]:
        """The encoder's name, and captions with their vectors as little-endian float32 in base 64."""
        content = base64.b64encode(self.vectors.numpy().astype("<f4").tobytes()).decode("ascii")
        return {"kind": "vectors", "encoder": self.encoder, "size": self.size, "texts": self.texts, "vectors": content}

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> Vectors:
        """The condition of a header.

        Raises:
            ValueError: the vectors are not those of the texts.
        """
        try:
            content = base64.b64decode(header["vectors"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"the vectors of captions cannot be read: {error}") from None
        size, texts = int(header["size"]), list(header["texts"])
        if size < 1 or len(content) != 4 * size * len(texts):
            raise ValueError(f"there are {len(content)} bytes for the vectors of {len(texts)} captions")
        numbers = np.frombuffer(content, "<f4").astype(np.float32)
        return cls(str(header["encoder"]), texts, torch.from_numpy(numbers).view(len(texts), size))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vectors) and (self.encoder, self.size) == (other.encoder, other.size)

    def __hash__(self) -> int:
        return hash((self.encoder, self.size))


KINDS: dict[str, Any] = {
    "classes": lambda header: Classes(header["names"]),
    "attributes": lambda header: Attributes(header["values"], header["rows"]),
    "vectors": Vectors.from_header,
}


def from_header(header: Mapping[str, Any]) -> Condition:
    """The condition of which `Condition.header` returned `header`.

    Raises:
        ValueError: `header` describes no condition.
    """
    try:
        condition: Condition = KINDS[header["kind"]](header)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(dict(header))[:200]!r} describes no condition of this version of limner") from error
    return condition


def choices(condition: Condition) -> str:
    """What a user may write as ``y``, in one line.

    >>> choices(Classes(["cat", "dog"])), choices(Attributes({"hair": ["red", "grey"], "glasses": ["none", "round"]}))
    ('a class: cat, dog', "attributes such as 'hair=grey glasses=round': hair (red, grey), glasses (none, round)")
    """
    if condition.names is not None:
        return f"a class: {_listed(condition.names)}"
    known = [f"{attribute} ({_listed(values)})" for attribute, values in condition.values.items()]
    example = " ".join(f"{attribute}={values[-1]}" for attribute, values in list(condition.values.items())[:2])
    return f"attributes such as {example!r}: {', '.join(known)}" if known else "a text"


def required(header: Mapping[str, Any] | None, classes: int) -> Condition:
    """The condition of a model that needs labels, from the facts of its data.

    Args:
        header: what `Condition.header` returned; None for classes without names.
        classes: length of the labels' vectors.

    Raises:
        ValueError: the data have no labels, or only one class.
    """
    if classes < 2:
        raise ValueError("this model needs data with labels; use class sub-folders, attributes or a labelled set")
    return from_header(header) if header else Classes(classes)


def _numbers(y: Any) -> Tensor:
    """Labels as a tensor; an empty one, which is of no label's shape, of what is not made of numbers."""
    try:
        return torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError):
        return torch.empty(0)


def _listed(names: Sequence[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f" … ({len(names)} in all)" if len(names) > limit else "")


def _nearest(word: str, known: Iterable[str]) -> str:
    """``, did you mean 'red'?``, or nothing where no known word is near."""
    near = get_close_matches(word, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
