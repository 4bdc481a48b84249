"""Images inside a page: data URIs within limits on their number and size."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

T = TypeVar("T")

_SERIES = ("samples", "reconstructions", "paths", "details")
MAX_STEPS = 60
TIMELINE_BYTES = 6_500_000  # of all images of the timeline together; base64 makes them a third larger
IMAGE_BYTES = 700_000
_MAX_SIDE = 1600
_SMALL = 700  # pixels; narrower images are shown enlarged, with square pixels
_MIME = {"PNG": "image/png", "WEBP": "image/webp", "JPEG": "image/jpeg"}


@dataclass(frozen=True)
class InlineImage:
    """An image as a data URI; `small` asks for square pixels when it is enlarged."""

    uri: str
    width: int
    height: int
    small: bool
    lossy: bool = False


def _uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def inline(source: bytes | Path, limit: int = IMAGE_BYTES) -> InlineImage | None:
    """A PNG, WebP, JPEG or SVG image for a page, or None when it cannot be read.

    Args:
        source: the file, or its bytes.
        limit: a larger file is encoded again as lossy WebP, at most 1600 pixels a side. A larger SVG is refused.
    """
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        if b"<svg" in data[:2000]:  # inside <img> it can neither run scripts nor load anything
            return InlineImage(_uri("image/svg+xml", data), 0, 0, small=False) if len(data) <= limit else None
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=list(_MIME)) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image.load()
            if len(data) <= limit:
                return InlineImage(_uri(_MIME[str(image.format)], data), *image.size, small=image.width < _SMALL)
            reduced = image.convert("RGBA" if image.has_transparency_data else "RGB")
            reduced.thumbnail((_MAX_SIDE, _MAX_SIDE))
            buffer = io.BytesIO()
            reduced.save(buffer, "WEBP", quality=90)
            uri = _uri("image/webp", buffer.getvalue())
            return InlineImage(uri, *reduced.size, small=reduced.width < _SMALL, lossy=True)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def evenly_spaced(items: Sequence[T], limit: int) -> list[T]:
    """At most `limit` of the items (2 or more): the first, the last and evenly spaced ones between.

    >>> evenly_spaced(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(items) <= limit:
        return list(items)
    return [items[round(i * (len(items) - 1) / (limit - 1))] for i in range(limit)]


def _numbered(folder: Path) -> dict[int, Path]:
    """The images of a folder by the number of images seen in their names: ``00012800.webp`` -> 12800."""
    try:
        paths = [p for p in folder.iterdir() if p.suffix == ".webp" and p.stem.isascii() and p.stem.isdigit()]
    except OSError:
        return {}
    return {int(p.stem): p for p in sorted(paths)}


@dataclass(frozen=True)
class Timeline:
    """For each of `steps` a grid of samples, of reconstructions, of paths from noise to samples, or several of them.

    `details` are a grid of a model's own, which it describes in the fact ``details`` of its previews.

    `saved` counts the steps on disk, `unreadable` the images that could not be decoded, and `lossy` says that some
    were encoded again to keep the page small.
    """

    steps: list[int]
    samples: dict[int, InlineImage]
    reconstructions: dict[int, InlineImage]
    paths: dict[int, InlineImage]
    details: dict[int, InlineImage]
    saved: int
    unreadable: int
    lossy: bool


def _total(paths: Iterable[Path]) -> int:
    return sum(p.stat().st_size for p in paths)


def read_timeline(folder: Path) -> Timeline:
    """Select and inline the sampled images of a run within `MAX_STEPS` and `TIMELINE_BYTES`."""
    files = {name: _numbered(folder / name) for name in _SERIES}
    saved = sorted(set().union(*files.values()))
    steps = evenly_spaced(saved, MAX_STEPS)
    large = _total(paths[s] for paths in files.values() for s in steps if s in paths) > TIMELINE_BYTES
    while True:
        inlined = {
            name: {s: inline(paths[s], 30_000 if large else IMAGE_BYTES) for s in steps if s in paths}
            for name, paths in files.items()
        }
        images = [image for series in inlined.values() for image in series.values()]
        size = sum(len(image.uri) for image in images if image) * 3 // 4
        if size <= TIMELINE_BYTES or len(steps) <= 2:
            break
        steps = evenly_spaced(steps, max(2, min(len(steps) - 1, len(steps) * TIMELINE_BYTES // size)))
    shown = {name: {step: image for step, image in series.items() if image} for name, series in inlined.items()}
    return Timeline(
        steps=[step for step in steps if any(step in series for series in shown.values())],
        **shown,
        saved=len(saved),
        unreadable=sum(image is None for image in images),
        lossy=any(image.lossy for image in images if image),
    )
