"""What is known of a file that holds many images: where each of them is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass
class Shard:
    """The listing of a file that holds many images.

    Args:
        path: the file that the images are read from.
        names: (N,) a name for each image, unique in the shard.
        extents: (N,2) int64, offset and length of each image in bytes; a length of -1 stands for an absent image.
        labels: (N,) int64, index into `classes`; -1 for none.
        classes: names of the classes.
        ordered: whether the file states the order of the classes.
        ignored: number of other items, by kind.
        quarantine: (name, reason) of what could not be listed.
    """

    path: Path
    names: list[str]
    extents: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: list[str] = field(default_factory=list)
    ordered: bool = False
    ignored: dict[str, int] = field(default_factory=dict)
    quarantine: list[tuple[str, str]] = field(default_factory=list)
