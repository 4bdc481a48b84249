"""Translation of image files of any size: names, transparency and metadata are kept.

An image goes through the net whole. One that has more pixels than `LARGE` is cut into tiles that overlap and are
blended into each other, so memory does not grow with it; nets with instance norm then normalise each tile by itself
rather than the whole image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.apply import outputs, transparency
from limner.apply.files import ImageFile, PictureFiles, Written
from limner.apply.masks import Masks
from limner.apply.tiles import tiled
from limner.core.capabilities import Translates
from limner.core.errors import LimnerError
from limner.core.inference import translated
from limner.core.paths import user_path
from limner.core.rng import keys
from limner.data import degradations

LARGE = 1024 * 1024
"""Pixels above which an image is translated in tiles."""
_TILE, _OVERLAP = 512, 64
_LEAST = 16  # pixels a side: nets that halve pictures and reflect their edges need some


@dataclass(frozen=True)
class Translation:
    """A model that translates, with its settings.

    Args:
        model: in evaluation mode.
        to: the domain of the results.
        masks: white where something is missing. For `inpaint`; without them, transparent parts are filled.
        degrade: degrade whole images first, as in training.
        tile: side of a tile in pixels; by default 512 for images above `LARGE`, and no tiles below.
        seed: seed of the noise, for nets that keep dropout in evaluation mode.
    """

    model: Translates
    to: str = "b"
    masks: Masks | None = None
    degrade: bool = False
    tile: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.to not in self.model.domains:
            raise LimnerError(f"this model translates to {' or '.join(self.model.domains)} only; leave --to out")
        if self.tile is not None and self.tile < 2 * _OVERLAP:
            raise LimnerError(f"tile={self.tile} is too small; tiles overlap by {_OVERLAP} pixels, so take 128 or more")
        if self.masks is not None and not self._inpaints:
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
        raw = self.run(a)
        y = raw if self.task is None else self.task.finish(a, raw)
        if not self.fills_transparency or file.alpha is None or y.shape[1] not in (1, 3):
            return transparency.with_alpha(y, file.alpha)
        colours, opacity = file.tensor(y.shape[1]), (file.alpha + 1) / 2
        return transparency.over(colours, opacity, torch.where(opacity < 0.5, y, raw), torch.ones_like(opacity))[0]

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
        """Translations (1,C,H,W) of sources (1,C',H,W), in tiles where they are large.

        Raises:
            LimnerError: there is too little memory.
        """
        side = self.tile or (_TILE if a.shape[2] * a.shape[3] > LARGE else None)
        try:
            return self._net(a) if side is None else tiled(self._net, a, side, _OVERLAP)
        except (MemoryError, torch.OutOfMemoryError):
            raise LimnerError("too little memory for a picture of this size; write tile=256, or less") from None

    def inpaint(self, x: Tensor, mask: Tensor) -> Tensor:
        """Images x (1,C,H,W) whose holes, where mask (1,1,H,W) is 1, are filled by a model trained to inpaint."""
        assert self.task is not None
        a = self.task.prepare(x, mask)
        return self.task.finish(a, self.run(a))

    def _net(self, a: Tensor) -> Tensor:
        """The net on sources (1,C',H,W), on the CPU; the edges of a picture smaller than `_LEAST` are repeated."""
        h, w = a.shape[2:]
        padded = F.pad(a, (0, max(0, _LEAST - w), 0, max(0, _LEAST - h)), mode="replicate")
        return translated(self.model, padded, to=self.to, seed=self.seed)[..., :h, :w].cpu()

    @property
    def _inpaints(self) -> bool:
        return self.task is not None and self.task.name == "inpaint"

    @property
    def fills_transparency(self) -> bool:
        """Whether transparent parts of images are holes to be filled, so that results have none."""
        return self._inpaints and self.masks is None and not self.degrade

    def _read_mask(self, file: ImageFile) -> Tensor:
        """(1,1,H,W), 1 where something is missing."""
        if self.masks is not None:
            return self.masks.read(file)
        if file.alpha is None:
            raise LimnerError(f"which parts of {file.name} are missing? Give --mask FILE, white where they are")
        return (file.alpha < 0).float()


def translate(translation: Translation, files: PictureFiles, out: str | Path, *, overwrite: bool = False) -> Written:
    """Translates every image of a source.

    Args:
        translation: the model and its settings.
        files: the images.
        out: a folder (names are kept), or a file name for one image.
        overwrite: replace earlier results.

    Returns:
        The files that were written.

    Raises:
        LimnerError: a file is in the way, nothing could be read, or a mask does not fit.
    """
    masks, c = translation.masks, translation.model.shape[0]
    if masks is not None:
        masks.expect(files.names)
        files.require(lambda name: masks.name_for(name))
    keeps_alpha = c in (1, 3) and not translation.fills_transparency
    suffixes = kept_suffixes(files, out, lambda name: c in (2, 4) or (keeps_alpha and files.has_alpha(name)))
    return convert(files, out, suffixes, translation, overwrite, read=[] if masks is None else masks.paths())


def kept_suffixes(files: PictureFiles, out: str | Path, transparent: Callable[[str], bool]) -> dict[str, str]:
    """The suffix of each result: that of its picture where it can be written and has room for alpha, else .png.

    Args:
        files: the pictures.
        out: where they go; inside of a source it is left out of it.
        transparent: whether the result of a picture has alpha.
    """
    files.leave_out(user_path(out))

    def suffix(name: str) -> str:
        own = PurePosixPath(name).suffix
        fits = outputs.writable(own) and (outputs.keeps_alpha(own) or not transparent(name))
        return own if fits else ".png"

    return {name: suffix(name) for name in files.names}


def convert(
    files: PictureFiles,
    out: str | Path,
    suffixes: dict[str, str],
    function: Callable[[ImageFile], Tensor],
    overwrite: bool,
    *,
    read: list[Path],
    description: str = "",
) -> Written:
    """Writes `function` of each picture, (1,C,H,W) in [-1,1], with the metadata of the picture.

    Args:
        files: the pictures.
        out: a folder, or a file name for one picture.
        suffixes: the suffix of the result of each picture.
        function: called for one picture after the other; where it raises a `LimnerError`, the picture is left out.
        overwrite: replace earlier results.
        read: other files that are read, which no result replaces.
        description: of results whose pictures have none.

    Raises:
        LimnerError: a file is in the way, or no result could be written.
    """
    plan = outputs.plan(out, suffixes, single=files.single)
    outputs.refuse_existing(plan.paths.values(), overwrite, [*files.paths(), *read])
    outputs.sweep(plan.paths.values())
    files.notes += plan.notes
    written, failure = [], None
    for file in files:
        path = plan.paths[file.name]
        try:
            image = transparency.to_image(function(file)[0])
            tags = file.metadata.described(description) if description else file.metadata
            written.append(outputs.write(image, path, tags))
        except outputs.CannotWrite as error:
            raise LimnerError(f"{error}; {len(written)} pictures were written before") from None
        except LimnerError as error:
            failure = failure or error
            files.skip(file.name, error)
            continue
        if transparency.has_alpha(image) and not outputs.keeps_alpha(path.suffix):
            files.remark(outputs.over_white_note(path))
    if not written:
        raise failure or files.nothing_readable()
    return Written(written, files.skipped, files.told())
