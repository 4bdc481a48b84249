"""Which columns of an Arrow or Parquet table hold images and classes, as Hugging Face's `datasets` writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limner.core.errors import LimnerError, extra

_IMAGES = ("image", "img", "picture", "pixel_values", "jpg", "jpeg", "png", "webp")
_LABELS = ("label", "labels", "class", "cls", "fine_label", "category")
_MOST_CLASSES = 100_000


@dataclass(frozen=True)
class Columns:
    """The columns that are read.

    Args:
        image: the name of the column of images: encoded files, or a struct of their bytes and paths.
        leaf: the name of the bytes themselves, as Parquet numbers its columns.
        label: the name of the column of classes, or None.
        classes: names of the classes where the schema states them.
    """

    image: str
    leaf: str
    label: str | None
    classes: list[str] | None


def arrow(module: str = "pyarrow") -> Any:
    """A module of pyarrow.

    Raises:
        LimnerError: it is not installed.
    """
    return extra(module, "datasets", "Hugging Face datasets and Parquet files need pyarrow")


def columns(path: Path, schema: Any) -> Columns:
    """Finds the columns by the features that `datasets` states in the schema, or else by their types and usual names.

    Raises:
        LimnerError: there is no column of images.
    """
    features = _features(schema)
    kinds = {name: kind.get("_type") for name, kind in features.items() if isinstance(kind, dict)}
    fields = {field.name: field.type for field in schema}
    found = [n for n, t in fields.items() if kinds.get(n) == "Image"]
    found += [n for n, t in fields.items() if _is_struct(t)]
    found += [n for n in _IMAGES if n in fields]
    images = [n for n in found if _is_bytes(fields[n]) or _is_struct(fields[n])]
    if not images:
        names = ", ".join(list(fields)[:8])
        raise LimnerError(f"{path.name} has no column of image files (its columns: {names}); give another data set")
    labels = [n for n in (*_LABELS, *fields) if kinds.get(n) == "ClassLabel" and n in fields]
    labels += [n for n in _LABELS if n in fields and _is_label(fields[n])]
    label = labels[0] if labels else None
    stated = features[label].get("names") if label is not None and kinds.get(label) == "ClassLabel" else None
    classes = [str(n) for n in stated] if isinstance(stated, list) and len(stated) <= _MOST_CLASSES else None
    image = images[0]
    return Columns(image, f"{image}.bytes" if _is_struct(fields[image]) else image, label, classes)


def labelled(path: Path, columns: Columns, values: list[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """The class (N,) of each row, -1 for none, and the names of the classes.

    Raises:
        LimnerError: a number is not that of a class.
    """
    if columns.classes is not None:
        labels = np.array([-1 if v is None else int(v) for v in values], np.int64)
        if len(labels) and not -1 <= labels.min() <= labels.max() < len(columns.classes):
            raise LimnerError(f"{path.name}: a label is not one of its {len(columns.classes)} classes; write it again")
        return labels, columns.classes
    texts = ["" if v is None else str(v) for v in values]
    names = sorted(set(texts) - {""})
    if len(names) > _MOST_CLASSES:
        return np.full(len(texts), -1), []
    number = {name: k for k, name in enumerate(names)} | {"": -1}
    return np.array([number[t] for t in texts], np.int64), names


def row_names(n: int) -> list[str]:
    """Names of rows, in the order of the rows when sorted."""
    return [f"{row:09d}" for row in range(n)]


def _features(schema: Any) -> dict[str, Any]:
    """The features that `datasets` writes into the metadata of a schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _is_bytes(kind: Any) -> bool:
    types = arrow("pyarrow.types")
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_struct(kind: Any) -> bool:
    if not arrow("pyarrow.types").is_struct(kind):
        return False
    index = kind.get_field_index("bytes")
    return index >= 0 and _is_bytes(kind.field(index).type)


def _is_label(kind: Any) -> bool:
    types = arrow("pyarrow.types")
    if types.is_dictionary(kind):
        return _is_label(kind.value_type)
    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))
