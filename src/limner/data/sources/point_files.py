"""Points from a file: a table of coordinates, or a picture whose darkness is the density."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.errors import LimnerError
from limner.core.paths import user_path
from limner.core.units import Count
from limner.data.arrays import Cloud
from limner.data.options import Split
from limner.data.registry import source
from limner.data.sources.toys import check, generators

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TABLES = (".csv", ".tsv", ".txt", ".npy")
_MAX_SIDE = 2048  # larger pictures are reduced to this many pixels
_BACKGROUND = 0.1  # a smaller darkness counts as background, because scanned paper is not quite white


@source("points", images=False)
def points(path: str, sigma: float = 0.0, n: Count = 10_000, seed: int = 0, split: Split = "train") -> Cloud:
    """Your own points: a CSV or NPY of one or two numbers a row, or a picture with dark strokes on a light background.

    A table is centred and scaled to [-1,1] with its aspect ratio. In a picture, the darkness of a pixel is its density;
    the longer side spans [-1,1], and the second coordinate points up. Transparent pixels are light.

    Args:
        path: the file: .csv, .tsv, .txt or .npy for a table, any picture otherwise.
        sigma: standard deviation of the Gaussian noise on each point. Raise it for a smoother density.
        n: number of training points drawn, with repetition; the test split has a tenth of them.
        seed: seed of the random numbers.
        split: "train", "test" (new points of the same density) or "all".
    """
    import numpy as np

    check(sigma, n, split)
    file = user_path(path, "a table or a picture")
    if not file.is_file():
        raise LimnerError(f"{path} is no file; give a table of points or a picture")
    density = _table(file) if file.suffix.lower() in _TABLES else _Darkness(_darkness(file))
    parts = []
    for rng, count in generators(n, seed, split):
        sample = density.sample(rng, count)
        parts.append(sample + sigma * rng.standard_normal(sample.shape))
    return Cloud(np.concatenate(parts).astype(np.float32), sigma)


@dataclass(frozen=True)
class _Rows:
    """The uniform distribution over points (N,1) or (N,2)."""

    points: NDArray[np.float64]

    def sample(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        return self.points[rng.integers(len(self.points), size=count)]


@dataclass(frozen=True)
class _Darkness:
    """The distribution over a picture whose density is its darkness (H,W)."""

    darkness: NDArray[np.float64]

    def sample(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Points (count,2), uniformly distributed within their pixels."""
        import numpy as np

        h, w = self.darkness.shape
        total = np.cumsum(self.darkness)
        pixel = np.searchsorted(total, rng.random(count) * total[-1], side="right")
        xy = np.stack([pixel % w, pixel // w], axis=1) + rng.random((count, 2))
        return (2 * xy - np.array([w, h])) / max(h, w) * np.array([1.0, -1.0])


def _table(file: Path) -> _Rows:
    """The rows of a table, scaled to [-1,1]."""
    import numpy as np

    try:
        if file.suffix.lower() == ".npy":
            rows = np.load(file, allow_pickle=False)
        else:
            rows = _read_text(file.read_text(encoding="utf-8-sig"))
        rows = np.asarray(rows, dtype=np.float64)
    except (ValueError, TypeError, OSError, EOFError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise LimnerError(f"{file} is no table of numbers ({reason}); write one or two numbers a row") from None
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] not in (1, 2) or not len(rows):
        shape = "×".join(map(str, rows.shape))
        raise LimnerError(f"{file} holds {shape} numbers; write one or two columns, and a row for each point")
    if not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).all(1))[0]) + 1
        raise LimnerError(f"{file}: row {row} has a number that is not finite; remove it")
    low, high = rows.min(0) / 2, rows.max(0) / 2  # the difference of the halves cannot overflow
    return _Rows((rows - (low + high)) / (float((high - low).max()) or 1.0))


def _read_text(text: str) -> NDArray[np.float64]:
    """Numbers separated by commas, semicolons, tabs or blanks; a first line of words is a header."""
    import numpy as np

    lines = [line.replace(",", " ").replace(";", " ").split() for line in text.splitlines() if line.strip()]
    if lines and not _are_numbers(lines[0]):
        lines = lines[1:]
    if len({len(line) for line in lines}) > 1:
        raise ValueError("rows of different lengths")
    return np.array(lines, dtype=np.float64)


def _are_numbers(words: list[str]) -> bool:
    try:
        [float(w) for w in words]
    except ValueError:
        return False
    return True


def _darkness(file: Path) -> NDArray[np.float64]:
    """How much darker than its lightest pixel a picture is (H,W), in [0,1]."""
    import numpy as np

    from limner.data.files import decode

    try:
        with decode.strict(), file.open("rb") as stream:
            image = decode.channelled(decode.picture(stream, _MAX_SIDE), 1)
    except Exception as error:  # a bad file may raise anything
        raise LimnerError(
            f"{file} is neither a table ({', '.join(_TABLES)}) nor a picture: {decode.reason(error)}"
        ) from None
    image.thumbnail((_MAX_SIDE, _MAX_SIDE))
    grey = np.asarray(image, dtype=np.float64)
    darkness = (grey.max() - grey) / 255
    if darkness.max() < _BACKGROUND:
        raise LimnerError(f"{file} is blank; draw dark strokes on a light background")
    return np.where(darkness < _BACKGROUND, 0, darkness)
