"""Pictures inside a page: data URIs, how many of them, and how large."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MAX_STEPS = 60
REEL_BYTES = 6_500_000  # of all pictures of the timeline together; a third more as base64
PICTURE_BYTES = 700_000
_MAX_SIDE = 1600
_SMALL = 700  # pixels; narrower pictures are shown enlarged, with their pixels left square
_MIME = {"PNG": "image/png", "WEBP": "image/webp", "JPEG": "image/jpeg"}


@dataclass(frozen=True)
class Picture:
    """A picture to be inlined: `uri` is a data URI; `small` asks for square pixels when enlarged."""

    uri: str
    width: int
    height: int
    small: bool
    lossy: bool = False

    @property
    def size(self) -> int:
        """Characters that it takes on the page."""
        return len(self.uri)


def _uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def picture(source: bytes | Path, limit: int = PICTURE_BYTES, quality: int = 90) -> Picture | None:
    """A PNG, WebP, JPEG or SVG picture for a page, or None when it cannot be read.

    Args:
        source: the file, or its bytes.
        limit: bytes above which it is stored again as lossy WebP, at most 1600 pixels a side. A larger SVG is refused.
        quality: of that WebP.
    """
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        if b"<svg" in data[:2000]:  # as an <img> it can neither run scripts nor load anything
            return Picture(_uri("image/svg+xml", data), 0, 0, small=False) if len(data) <= limit else None
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=list(_MIME)) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image.load()
            if len(data) <= limit:
                return Picture(_uri(_MIME[str(image.format)], data), *image.size, small=image.width < _SMALL)
            small = image.convert("RGBA" if image.has_transparency_data else "RGB")
            small.thumbnail((_MAX_SIDE, _MAX_SIDE))
            out = io.BytesIO()
            small.save(out, "WEBP", quality=quality)
            return Picture(_uri("image/webp", out.getvalue()), *small.size, small.width < _SMALL, lossy=True)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def spread(items: Sequence[int], limit: int) -> list[int]:
    """At most `limit` of the items: the first, the last and evenly spaced ones between.

    >>> spread(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(items) <= limit:
        return list(items)
    if limit < 2:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (limit - 1))] for i in range(limit)]


def numbered(folder: Path) -> dict[int, Path]:
    """The pictures of a folder by the images seen that their names give: ``00012800.webp`` -> 12800."""
    try:
        paths = [p for p in folder.iterdir() if p.suffix == ".webp" and p.stem.isascii() and p.stem.isdigit()]
    except OSError:
        return {}
    return {int(p.stem): p for p in sorted(paths)}


@dataclass(frozen=True)
class Reels:
    """The timeline: for each of `steps` a sample, a reconstruction, or both.

    `saved` counts the steps on disk, `unreadable` the chosen pictures that could not be decoded, and `lossy`
    says that they were stored again to keep the page small.
    """

    steps: list[int]
    samples: dict[int, Picture]
    reconstructions: dict[int, Picture]
    saved: int
    unreadable: int
    lossy: bool


def _total(paths: Iterable[Path]) -> int:
    return sum(p.stat().st_size for p in paths)


def reels(folder: Path) -> Reels:
    """Choose and inline the pictures of a run's timeline within `MAX_STEPS` and `REEL_BYTES`."""
    sources = {name: numbered(folder / name) for name in ("samples", "reconstructions")}
    saved = sorted(set().union(*sources.values()))
    chosen = spread(saved, MAX_STEPS)
    heavy = _total(p for pictures in sources.values() for s, p in pictures.items() if s in set(chosen)) > REEL_BYTES
    while True:
        got = {
            name: {s: picture(found[s], limit=30_000 if heavy else PICTURE_BYTES) for s in chosen if s in found}
            for name, found in sources.items()
        }
        pictures = [p for reel in got.values() for p in reel.values()]
        size = sum(p.size for p in pictures if p) * 3 // 4
        if size <= REEL_BYTES or len(chosen) <= 2:
            break
        chosen = spread(chosen, max(2, min(len(chosen) - 1, len(chosen) * REEL_BYTES // size)))
    samples, reconstructions = ({s: p for s, p in reel.items() if p} for reel in got.values())
    return Reels(
        steps=[s for s in chosen if s in samples or s in reconstructions],
        samples=samples,
        reconstructions=reconstructions,
        saved=len(saved),
        unreadable=sum(p is None for p in pictures),
        lossy=any(p.lossy for p in pictures if p),
    )
