"""Translation of image files of any size: names, transparency and EXIF are kept.

An image goes through the net whole. One that has more pixels than `LARGE` is cut into tiles that overlap and are
blended into each other, so memory does not grow with it; nets with instance norm then normalise each tile by itself
rather than the whole image.
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

from limner.apply.images import ImageSource, encode, nothing_readable, output_path
from limner.core.batch import to_float
from limner.core.capabilities import Translates
from limner.core.errors import LimnerError
from limner.core.inference import translated
from limner.core.rng import keys
from limner.data import degradations
from limner.data.files import decode

LARGE = 1024 * 1024
"""Pixels above which an image is translated in tiles."""
_TILE, _OVERLAP = 512, 64
_KEPT_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"))
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class ImageFile:
    """A decoded image file.

    Attributes:
        name: path relative to the folder.
        image: the image, upright, 8 bits, sRGB, of mode L, LA, RGB or RGBA.
        exif: the EXIF block, which the result gets too.
    """

    name: str
    image: Image.Image
    exif: Image.Exif

    @property
    def size(self) -> tuple[int, int]:
        """(H,W)."""
        return self.image.height, self.image.width

    def tensor(self, channels: int) -> Tensor:
        """(1,channels,H,W) in [-1,1]; without an alpha channel, transparent parts are laid over white."""
        return to_float(torch.from_numpy(decode.pixels(decode.channelled(self.image, channels)).copy()))[None]

    @property
    def alpha(self) -> Tensor | None:
        """(1,1,H,W) in [-1,1], or None for an image without transparency."""
        if self.image.mode not in ("LA", "RGBA"):
            return None
        return to_float(torch.from_numpy(np.asarray(self.image.getchannel("A")).copy()))[None, None]


@dataclass(frozen=True)
class Translation:
    """A model that translates, with its settings.

    Args:
        model: in evaluation mode.
        to: the domain of the results.
        mask: a file, or a folder of files named like the images: white where something is missing. For `inpaint`;
            without one, transparent parts are filled.
        degrade: degrade whole images first, as in training.
        tile: side of a tile in pixels; by default 512 for images above `LARGE`, and no tiles below.
        seed: seed of the noise, for nets that keep dropout in evaluation mode.
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
        if self.mask is not None and not self._inpaints:
            raise LimnerError("a mask is for models trained to inpaint; leave --mask out")
        if self.degrade and self.task is None:
            raise LimnerError("this model learnt from given pairs and knows no way to degrade; leave --degrade out")

    @property
    def task(self) -> degradations.Degradation | None:
        """The degradation that made the sources in training; None if the pairs were given."""
        pairing = self.model.pairing
        return None if pairing is None else degradations.make(str(pairing["name"]), pairing["amount"])

    def __call__(self, file: ImageFile) -> Tensor:
        """The translation (1,C,H,W) in [-1,1] of an image, with its transparency where the model has none.

        Raises:
            LimnerError: the mask is missing or of another size.
        """
        a = self.source(file)
        y = self.run(a)
        if self.task is not None:
            y = self.task.finish(a, y)
        alpha_is_mask = self._inpaints and self.mask is None
        alpha = file.alpha if y.shape[1] in (1, 3) and not alpha_is_mask else None
        if alpha is None:
            return y
        if alpha.shape[2:] != y.shape[2:]:
            alpha = F.interpolate(alpha, y.shape[2:], mode="bicubic", antialias=True).clamp(-1, 1)
        return torch.cat([y, alpha], 1)

    def source(self, file: ImageFile) -> Tensor:
        """The net's input (1,C',H,W) for an image."""
        task = self.task
        if task is None:
            return file.tensor(self.model.source[0] if self.to == "b" else self.model.shape[0])
        x = file.tensor(self.model.shape[0])
        if self.degrade:
            zero = torch.zeros(1, dtype=torch.int64)
            return task(x, keys(self.seed, zero, zero))
        return task.prepare(x, self._read_mask(file) if self._inpaints else None)

    def run(self, a: Tensor) -> Tensor:
        """Translations (1,C,H,W) of sources (1,C',H,W), in tiles where they are large."""
        side = self.tile or (_TILE if a.shape[2] * a.shape[3] > LARGE else None)
        net = partial(translated, self.model, to=self.to, seed=self.seed)
        return net(a).cpu() if side is None else tiled(lambda part: net(part).cpu(), a, side, _OVERLAP)

    @property
    def _inpaints(self) -> bool:
        return self.task is not None and self.task.name == "inpaint"

    def _read_mask(self, file: ImageFile) -> Tensor:
        """(1,1,H,W), 1 where something is missing."""
        if self.mask is not None:
            return read_mask(self.mask, file)
        alpha = file.alpha
        if alpha is None:
            raise LimnerError(f"which parts of {file.name} are missing? Give --mask FILE, white where they are")
        return (alpha < 0).float()


def read_mask(path: Path, file: ImageFile) -> Tensor:
    """The mask (1,1,H,W) of an image, 1 where it is white.

    Args:
        path: the mask, or a folder that holds one of the image's name.
        file: the image.

    Raises:
        LimnerError: the mask does not exist, cannot be read, or has another size.
    """
    stem = Path(file.name).stem
    masks = sorted(p for p in path.glob("*") if p.stem == stem) if path.is_dir() else [path]
    if not masks or not masks[0].is_file():
        raise LimnerError(f"there is no mask for {file.name} in {path.name}; give it the same name")
    mask = masks[0]
    try:
        with decode.strict(), mask.open("rb") as stream:
            image = decode.picture(stream)
    except Exception as error:
        raise LimnerError(f"the mask {mask.name} cannot be used: {decode.reason(error)}") from None
    if (image.height, image.width) != file.size:
        h, w = file.size
        raise LimnerError(
            f"the mask {mask.name} is {image.height}×{image.width} and {file.name} {h}×{w}; make them the same size"
        )
    return torch.from_numpy((decode.pixels(decode.channelled(image, 1)) > 127).astype(np.float32))[None]


def tiled(net: Callable[[Tensor], Tensor], x: Tensor, side: int, overlap: int) -> Tensor:
    """`net` over x (1,C,H,W) in square tiles that overlap and fade into each other.

    If the receptive field of `net` reaches no farther than a quarter of the overlap, the result equals `net(x)`.

    Args:
        net: keeps height and width.
        x: an image.
        side: side of a tile in pixels.
        overlap: least number of pixels that neighbours share.
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
    """First pixels of evenly spaced tiles of `side` that cover n pixels and overlap by at least `overlap`.

    >>> _starts(1000, 512, 64), _starts(300, 512, 64)
    ([0, 244, 488], [0])
    """
    if n <= side:
        return [0]
    count = -(-(n - overlap) // (side - overlap))
    return [round(i * (n - side) / (count - 1)) for i in range(count)]


def _fade(n: int, overlap: int, start: int, total: int) -> Tensor:
    """Weights (n,) of a tile that begins at `start` of `total` pixels: 0 for a quarter of the overlap, then up to 1.

    The first quarter is left out because the net sees the tile's edge there; edges of the image itself are not faded.
    """
    index, margin = torch.arange(n), overlap // 4
    before = index if start else torch.full((n,), total)
    after = n - 1 - index if start + n < total else torch.full((n,), total)
    return ((torch.minimum(before, after) + 1 - margin) / (overlap - 2 * margin)).clamp(0, 1)


def read_images(source: str, bad: list[tuple[str, str]]) -> Iterator[ImageFile]:
    """The images of a file, a folder or a ZIP; (name, reason) of those that cannot be read goes into `bad`.

    Raises:
        LimnerError: the source is missing.
    """
    for name, open_file in ImageSource(source, (3, 1, 1), bad).files():
        try:
            yield read_image(name, open_file)
        except LimnerError as error:
            bad.append((name, str(error)))


def read_image(name: str, open_file: Callable[[], BinaryIO]) -> ImageFile:
    """One image.

    Raises:
        LimnerError: it cannot be read; the message is the reason.
    """
    try:
        with decode.strict(), open_file() as stream:
            image = decode.picture(stream)
        with decode.strict(), open_file() as stream:
            exif = Image.open(stream).getexif()
    except Exception as error:  # a damaged or hostile file may raise anything
        raise LimnerError(decode.reason(error)) from None
    if _ORIENTATION in exif:
        exif[_ORIENTATION] = 1  # the pixels have been turned upright
    return ImageFile(name, image, exif)


def write_image(y: Tensor, file: ImageFile, out: Path, single: bool) -> Path:
    """Writes a result (1,C,H,W) with the name, format and EXIF block of its image.

    Args:
        y: the result, in [-1,1].
        file: the image that it was made of.
        out: a folder, or a file name for a single image.
        single: whether the image is the only one.

    Raises:
        LimnerError: the format cannot be written.
    """
    path = output_path(out, file.name, single)
    suffix = Path(file.name).suffix
    if not (single and out.suffix) and suffix.lower() in _KEPT_SUFFIXES:
        path = path.with_suffix(suffix)
    options: dict[str, Any] = {"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    return encode(y[0], path, exif=file.exif.tobytes() if len(file.exif) else b"", **options)


def translate(translation: Translation, source: str, out: Path, bad: list[tuple[str, str]]) -> list[Path]:
    """Translates every image of a source.

    Args:
        translation: the model and its settings.
        source: an image, a folder or a ZIP.
        out: a folder (names are kept), or a file name for one image.
        bad: a list to which (name, reason) of each image that cannot be read is added.

    Returns:
        The files that were written.

    Raises:
        LimnerError: nothing could be read, or a mask does not fit.
    """
    single = ImageSource(source, (3, 1, 1)).single
    written = [write_image(translation(file), file, out, single) for file in read_images(source, bad)]
    if not written:
        raise nothing_readable(source, bad)
    return written
