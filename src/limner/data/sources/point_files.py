"""Points that somebody drew: a table of coordinates, or a picture whose dark places are where the points lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner.core.errors import LimnerError
from limner.core.units import Count
from limner.data.arrays import Cloud
from limner.data.options import Split
from limner.data.registry import source
from limner.data.sources.toys import check, draws

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TABLES = (".csv", ".tsv", ".txt", ".npy")
_MOST = 2048  # pixels of a side that are looked at
_PAPER = 0.1  # what is not darker than this is paper, which is never quite white


@source("points", images=False)
def points(path: str, sigma: float = 0.0, n: Count = 10_000, seed: int = 0, split: Split = "train") -> Cloud:
    """Your own points: a CSV or NPY of one or two numbers a row, or a picture with dark strokes on a light ground.

    A table is scaled to [-1,1] about its middle and keeps its aspect. In a picture points lie where it is dark, the
    more the darker, and anywhere within a pixel; its longer side spans [-1,1], upwards is up. Transparent is light.

    Args:
        path: the file: .csv, .tsv, .txt or .npy for a table, any picture otherwise.
        sigma: standard deviation of Gaussian noise that is added to each point. Raise it for a smoother density.
        n: number of training points drawn, with repetition; the test split has a tenth of them.
        seed: decides the draw.
        split: "train", "test" (fresh draws of the same density) or "all".
    """
    import numpy as np

    check(sigma, n, split)
    file = Path(path)
    if not file.is_file():
        raise LimnerError(f"{path} is no file; give a table of points or a picture")
    known = _table(file) if file.suffix.lower() in _TABLES else _Ink(_darkness(file))
    parts = []
    for rng, count in draws(n, seed, split):
        some = known.draw(rng, count)
        parts.append(some + sigma * rng.standard_normal(some.shape))
    return Cloud(np.concatenate(parts).astype(np.float32), sigma)


@dataclass(frozen=True)
class _Rows:
    """Points (N,1) or (N,2), each as likely as any other."""

    points: NDArray[np.float64]

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        return self.points[rng.integers(len(self.points), size=count)]


@dataclass(frozen=True)
class _Ink:
    """The darkness (H,W) of a picture."""

    dark: NDArray[np.float64]

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Points (count,2) in proportion to darkness, anywhere within their pixel."""
        import numpy as np

        h, w = self.dark.shape
        total = np.cumsum(self.dark)
        place = np.searchsorted(total, rng.random(count) * total[-1], side="right")
        xy = np.stack([place % w, place // w], axis=1) + rng.random((count, 2))
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
        shown = "×".join(map(str, rows.shape))
        raise LimnerError(f"{file} holds {shown} numbers; a table of points has one or two columns and a row a point")
    if not np.isfinite(rows).all():
        place = int(np.flatnonzero(~np.isfinite(rows).all(1))[0]) + 1
        raise LimnerError(f"{file}: row {place} has a number that is not finite; take it out")
    low, high = rows.min(0) / 2, rows.max(0) / 2  # halves: their difference cannot overflow
    return _Rows((rows - (low + high)) / (float((high - low).max()) or 1.0))


def _read_text(text: str) -> NDArray[np.float64]:
    """Numbers parted by commas, semicolons, tabs or blanks; a first line of words is a header."""
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
    """What a picture has of ink (H,W), in [0,1]."""
    import numpy as np

    from limner.data.files import decode

    try:
        with decode.strict(), file.open("rb") as stream:
            picture = decode.channelled(decode.picture(stream, _MOST), 1)
    except Exception as error:  # Pillow raises what it likes on a bad file
        raise LimnerError(
            f"{file} is neither a table ({', '.join(_TABLES)}) nor a picture: {decode.reason(error)}"
        ) from None
    picture.thumbnail((_MOST, _MOST))
    grey = np.asarray(picture, dtype=np.float64)
    ink = (grey.max() - grey) / 255
    if ink.max() < _PAPER:
        raise LimnerError(f"{file} is blank; draw dark strokes on a light ground")
    return np.where(ink < _PAPER, 0, ink)
