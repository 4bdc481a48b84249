"""Translating whole pictures: any size, kept names, alpha and EXIF; large ones in tiles, holes by a mask.

A picture goes through the net as it is. One that has more pixels than `LARGE` goes through in tiles that overlap and
are blended into each other, so memory does not grow with it; nets with instance norm then see the contrast of each tile
rather than of the whole picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from limner.apply.pictures import Pictures, destination
from limner.core.batch import to_float, to_uint8
from limner.core.capabilities import Translates
from limner.core.errors import LimnerError
from limner.core.inference import translated
from limner.core.rng import keys
from limner.data import degradations as tasks
from limner.data.files import decode

LARGE = 1024 * 1024
"""Pixels above which a picture is translated in tiles."""
_TILE, _OVERLAP = 512, 64
_KEPT = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"))
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Picture:
    """One picture as it came.

    Attributes:
        name: relative to the folder.
        image: upright, 8 bits, sRGB, mode L, LA, RGB or RGBA.
        exif: its EXIF block, for the result.
    """

    name: str
    image: Image.Image
    exif: Image.Exif

    @property
    def size(self) -> tuple[int, int]:
        """(H,W)."""
        return self.image.height, self.image.width

    def tensor(self, channels: int) -> Tensor:
        """(1,channels,H,W) in [-1,1]; transparency is laid over white where it is not asked for."""
        return to_float(torch.from_numpy(decode.pixels(decode.channelled(self.image, channels)).copy()))[None]

    @property
    def alpha(self) -> Tensor | None:
        """(1,1,H,W) in [-1,1], or None for a picture without transparency."""
        if self.image.mode not in ("LA", "RGBA"):
            return None
        return to_float(torch.from_numpy(np.asarray(self.image.getchannel("A")).copy()))[None, None]


@dataclass(frozen=True)
class Translation:
    """How pictures are translated.

    Args:
        model: in evaluation mode.
        to: the domain wanted.
        mask: a file, or a folder of files named like the pictures: white where something is missing. For `inpaint`;
            without one, transparent parts are the holes.
        degrade: make the source of a whole picture first, as in training.
        tile: side of a tile in pixels; by default 512 for pictures above `LARGE`, and none below.
        seed: of noise, for nets that have some in use (dropout).
    """

    model: Translates
    to: str = "b"
    mask: Path | None = None
    degrade: bool = False
    tile: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.to not in self.model.domains:
            raise LimnerError(f"this model translates to {' or '.join(self.model.domains)} only; leave --to out")
        if self.tile is not None and self.tile < 2 * _OVERLAP:
            raise LimnerError(f"tile={self.tile} is too small; tiles overlap by {_OVERLAP} pixels, so take 128 or more")
        if self.mask is not None and (self.task is None or self.task.name != "inpaint"):
            raise LimnerError("a mask is for models trained to inpaint; leave --mask out")
        if self.degrade and self.task is None:
            raise LimnerError("this model learnt from pairs that were given, so nothing is degraded; leave it out")

    @property
    def task(self) -> tasks.Degradation | None:
        """What made the sources in training."""
        pairing = self.model.pairing
        return None if pairing is None else tasks.make(str(pairing["name"]), pairing["amount"])

    def __call__(self, picture: Picture) -> Tensor:
        """The translation (1,C,H,W) in [-1,1] of a picture, with its transparency where the model has none.

        Raises:
            LimnerError: the mask is missing or of another size.
        """
        a = self.source(picture)
        y = self.run(a)
        if self.task is not None:
            y = self.task.finish(a, y)
        alpha = picture.alpha if y.shape[1] in (1, 3) and not self._fills_holes(picture) else None
        if alpha is None:
            return y
        if alpha.shape[2:] != y.shape[2:]:
            alpha = F.interpolate(alpha, y.shape[2:], mode="bicubic", antialias=True).clamp(-1, 1)
        return torch.cat([y, alpha], 1)

    def source(self, picture: Picture) -> Tensor:
        """What the net is given for a picture: (1,C',H,W)."""
        task = self.task
        if task is None:
            return picture.tensor(self.model.source[0] if self.to == "b" else self.model.shape[0])
        x = picture.tensor(self.model.shape[0])
        if self.degrade:
            zero = torch.zeros(1, dtype=torch.int64)
            return task(x, keys(self.seed, zero, zero))
        return task.prepare(x, self._hole(picture))

    def run(self, a: Tensor) -> Tensor:
        """Translations (1,C,H,W) of sources (1,C',H,W), in tiles where they are large."""
        side = self.tile or (_TILE if a.shape[2] * a.shape[3] > LARGE else None)
        net = partial(translated, self.model, to=self.to, seed=self.seed)
        return net(a).cpu() if side is None else tiled(lambda part: net(part).cpu(), a, side, _OVERLAP)

    def _fills_holes(self, picture: Picture) -> bool:
        return self.task is not None and self.task.name == "inpaint" and self.mask is None

    def _hole(self, picture: Picture) -> Tensor | None:
        """(1,1,H,W), 1 where something is missing; None for tasks without holes."""
        if self.task is None or self.task.name != "inpaint":
            return None
        if self.mask is None:
            alpha = picture.alpha
            if alpha is None:
                raise LimnerError(f"where are the holes of {picture.name}? Give --mask FILE, white where it has some")
            return (alpha < 0).float()
        return mask_of(self.mask, picture)


def mask_of(place: Path, picture: Picture) -> Tensor:
    """The mask (1,1,H,W) of a picture, 1 where the file is white: the file itself, or the one of its name in a folder.

    Raises:
        LimnerError: it is not there, cannot be read, or has another size.
    """
    stem = Path(picture.name).stem
    found = sorted(p for p in place.glob("*") if p.stem == stem) if place.is_dir() else [place]
    if not found or not found[0].is_file():
        raise LimnerError(f"there is no mask for {picture.name} in {place.name}; give it the same name")
    try:
        with decode.strict(), found[0].open("rb") as stream:
            image = decode.picture(stream)
    except Exception as error:
        raise LimnerError(f"the mask {found[0].name} cannot be used: {decode.reason(error)}") from None
    if (image.height, image.width) != picture.size:
        h, w = picture.size
        raise LimnerError(
            f"the mask {found[0].name} is {image.height}×{image.width} and {picture.name} {h}×{w}; make them alike"
        )
    return torch.from_numpy((decode.pixels(decode.channelled(image, 1)) > 127).astype(np.float32))[None]


def tiled(net: Callable[[Tensor], Tensor], x: Tensor, side: int, overlap: int) -> Tensor:
    """`net` over x (1,C,H,W) in square tiles that overlap and fade into each other.

    Where `net` looks no farther than a quarter of the overlap, this is `net(x)`.

    Args:
        net: keeps height and width.
        x: a picture.
        side: of a tile.
        overlap: pixels that neighbours share at least.
    """
    h, w = x.shape[2:]
    rows, columns = _starts(h, side, overlap), _starts(w, side, overlap)
    total: Tensor | None = None
    weights = torch.zeros(1, 1, h, w)
    for top in rows:
        for left in columns:
            y = net(x[..., top : top + side, left : left + side])
            fade = _fade(y.shape[2], overlap, top, h)[:, None] * _fade(y.shape[3], overlap, left, w)[None]
            total = torch.zeros(1, y.shape[1], h, w) if total is None else total
            total[..., top : top + side, left : left + side] += fade * y
            weights[..., top : top + side, left : left + side] += fade
    assert total is not None
    return total / weights


def _starts(n: int, side: int, overlap: int) -> list[int]:
    """Where tiles of `side` begin that cover n pixels, evenly spread, overlapping by at least `overlap`.

    >>> _starts(1000, 512, 64), _starts(300, 512, 64)
    ([0, 244, 488], [0])
    """
    if n <= side:
        return [0]
    count = -(-(n - overlap) // (side - overlap))
    return [round(i * (n - side) / (count - 1)) for i in range(count)]


def _fade(n: int, overlap: int, start: int, whole: int) -> Tensor:
    """Weights (n,) of a tile that begins at `start` of `whole` pixels: 0 for a quarter of the overlap, then up to 1.

    There the net sees the tile's edge and not what lies beyond; at the edges of the picture nothing lies beyond.
    """
    places, blind = torch.arange(n), overlap // 4
    before = places if start else torch.full((n,), whole)
    after = n - 1 - places if start + n < whole else torch.full((n,), whole)
    return ((torch.minimum(before, after) + 1 - blind) / (overlap - 2 * blind)).clamp(0, 1)


def pictures(source: str, bad: list[tuple[str, str]]) -> Iterator[Picture]:
    """Pictures of a file, a folder or a ZIP as they are, one after the other; what cannot be read goes into `bad`.

    Raises:
        LimnerError: the source is missing.
    """
    for name, opened in Pictures(source, (3, 1, 1), bad).streams():
        try:
            yield read(name, opened)
        except LimnerError as error:
            bad.append((name, str(error)))


def read(name: str, opened: Callable[[], BinaryIO]) -> Picture:
    """One picture.

    Raises:
        LimnerError: it cannot be used; the message is the reason.
    """
    try:
        with decode.strict(), opened() as stream:
            image = decode.picture(stream)
        with decode.strict(), opened() as stream:
            exif = Image.open(stream).getexif()
    except Exception as error:  # whatever a hostile file provokes is that file's fault alone
        raise LimnerError(decode.reason(error)) from None
    if _ORIENTATION in exif:
        exif[_ORIENTATION] = 1  # it is upright now
    return Picture(name, image, exif)


def write(y: Tensor, picture: Picture, out: Path, single: bool) -> Path:
    """Writes a translation (1,C,H,W) under the name, in the format and with the EXIF of its picture.

    Raises:
        LimnerError: the format cannot be written.
    """
    path = destination(out, picture.name, single)
    suffix = Path(picture.name).suffix.lower()
    if not (single and out.suffix) and suffix in _KEPT:
        path = path.with_suffix(Path(picture.name).suffix)
    planes = to_uint8(y[0]).permute(1, 2, 0).numpy()
    image = Image.fromarray(np.ascontiguousarray(planes[..., 0] if planes.shape[2] == 1 else planes))
    if path.suffix.lower() in (".jpg", ".jpeg", ".bmp") and image.mode in ("LA", "RGBA"):
        image = decode.channelled(image, 3 if image.mode == "RGBA" else 1)
    options: dict[str, Any] = {"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        image.save(path, exif=picture.exif.tobytes() if len(picture.exif) else b"", **options)
    except (ValueError, OSError) as error:
        raise LimnerError(f"cannot write {path.name}: {error}; use a name that ends in .png, .jpg or .webp") from None
    return path


def translate(translation: Translation, source: str, out: Path, bad: list[tuple[str, str]]) -> list[Path]:
    """Translates every picture of a source.

    Args:
        translation: how.
        source: a picture, a folder or a ZIP.
        out: a folder (names are kept), or a file name for one picture.
        bad: takes (name, reason) of pictures that could not be read.

    Returns:
        What was written.

    Raises:
        LimnerError: nothing could be read, or a mask does not fit.
    """
    single = Path(source).is_file() and Path(source).suffix.lower() != ".zip"
    written = [write(translation(picture), picture, out, single) for picture in pictures(source, bad)]
    if not written:
        why = f": {bad[0][0]} is {bad[0][1]}" if bad else ""
        raise LimnerError(f"no picture could be read from {source}{why}; give PNG, JPEG, WebP, BMP, GIF or TIFF files")
    return written
