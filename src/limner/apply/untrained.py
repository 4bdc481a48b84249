"""Picture files restored by a model that denoises; names, formats, transparency and metadata are kept as elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from limner.apply import transparency
from limner.apply.files import ImageFile, PictureFiles, Written
from limner.apply.masks import Masks
from limner.apply.restore import Restorer, noise_level
from limner.apply.translate import convert, kept_suffixes
from limner.core.errors import LimnerError
from limner.core.rng import keys
from limner.data import degradations

_OPAQUE = 0.9  # softer edges are painted beneath
_GREY = 2  # levels by which the channels of a picture without colours may differ


@dataclass(frozen=True)
class Restoration:
    """A task for picture files, with its settings.

    Args:
        restorer: the model.
        task: inpaint, edit, upscale, colourise or denoise.
        masks: for `inpaint`, white where something is missing; without them, transparent parts are.
        strength: for `edit`, from 0 to 1.
        scale: for `upscale`, the factor.
        noise: for `denoise`, its standard deviation on the [0,1] scale; by default that of each picture is estimated.
        mean: for `denoise`, whether to give the mean of what may be under the noise, or one example.
        side: for tasks that see a picture as a whole, the shorter side in pixels at which they do.
        degrade: degrade whole pictures first, to see how well they are restored.
        remark: takes what is to be said of a picture.

    Attributes:
        estimates: the noise that was estimated, one number for each picture.

    Raises:
        LimnerError: a setting is not possible.
    """

    restorer: Restorer
    task: str
    masks: Masks | None = None
    strength: float = 0.5
    scale: int = 2
    noise: float | None = None
    mean: bool = True
    side: int | None = None
    degrade: bool = False
    remark: Callable[[str], object] = str  # says it to nobody
    estimates: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.degrade and self.masks is not None:
            raise LimnerError("degrade makes holes of its own; leave mask out")
        self.restorer.check(self.task, strength=self.strength, scale=self.scale, noise=self.noise, side=self.side)

    @property
    def fills_transparency(self) -> bool:
        """Whether transparent parts of pictures are holes to be filled, so that results have none."""
        return self.task == "inpaint" and self.masks is None and not self.degrade

    def __call__(self, file: ImageFile) -> Tensor:
        """The result (1,C,H,W) in [-1,1] for a picture, with its transparency.

        Raises:
            LimnerError: the model does not know the picture's colours, or a mask is missing or of another size.
        """
        channels, is_colour = self.restorer.shape[0], _has_colours(file)
        if channels in (1, 2) and is_colour:
            raise LimnerError(f"{file.name} has colours, and this model knows grey pictures alone; make it grey first")
        try:
            y = self._method(file, file.tensor(channels))
        except (MemoryError, torch.OutOfMemoryError):
            raise LimnerError(
                f"too little memory for a picture of {file.size[0]}×{file.size[1]}; make it smaller"
            ) from None
        if channels == 3 and not is_colour and self.task in ("inpaint", "upscale", "denoise"):
            y = y.mean(1, keepdim=True)  # a picture without colours gets none
        if not self.fills_transparency or file.alpha is None or channels in (2, 4):
            return transparency.with_alpha(y, file.alpha)
        opacity = (file.alpha + 1) / 2
        return transparency.over(file.tensor(y.shape[1]), opacity, y, torch.ones_like(opacity))[0]

    @property
    def _method(self) -> Callable[[ImageFile, Tensor], Tensor]:
        return {
            "inpaint": self._inpaint,
            "edit": self._edit,
            "upscale": self._upscale,
            "colourise": self._colourise,
            "denoise": self._denoise,
        }[self.task]

    def _inpaint(self, file: ImageFile, x: Tensor) -> Tensor:
        mask = degradations.Inpaint().holes(self._key, file.size) if self.degrade else self._read_mask(file)
        self._tell_size(file, "holes were filled at {}")
        return self.restorer.inpaint(x, mask, self.side)

    def _edit(self, file: ImageFile, x: Tensor) -> Tensor:
        self._tell_size(file, "resized to {}, as the model draws pictures of its own size")
        return self.restorer.edit(x, self.strength, self.side)

    def _upscale(self, file: ImageFile, x: Tensor) -> Tensor:
        if self.degrade and min(file.size) < self.scale:
            raise LimnerError(f"{file.name} is too small to be made {self.scale} times smaller")
        return self.restorer.upscale(F.avg_pool2d(x, self.scale) if self.degrade else x, self.scale)

    def _colourise(self, file: ImageFile, x: Tensor) -> Tensor:
        self._tell_size(file, "colours were found at {}")
        return self.restorer.colourise(x, self.side)

    def _denoise(self, file: ImageFile, x: Tensor) -> Tensor:
        x = degradations.Denoise(self.noise)(x, self._key) if self.degrade else x
        noise = self.noise
        if noise is None:
            noise = max(float(noise_level(x)), 1e-3)
            self.estimates.append(noise)
        return self.restorer.denoise(x, noise, mean=self.mean)

    @property
    def _key(self) -> Tensor:
        zero = torch.zeros(1, dtype=torch.int64)
        return keys(self.restorer.seed, zero, zero)

    def _read_mask(self, file: ImageFile) -> Tensor:
        """(1,1,H,W), 1 where something is missing."""
        if self.masks is not None:
            return self.masks.read(file)
        if file.alpha is None:
            raise LimnerError(f"which parts of {file.name} are missing? Give --mask FILE, white where they are")
        return (file.alpha < 2 * _OPAQUE - 1).float()

    def _tell_size(self, file: ImageFile, text: str) -> None:
        size = self.restorer.working_size(file.size, self.side)
        if size != file.size:
            self.remark(text.format("{}×{}".format(*size)))


def restore_files(
    restoration: Restoration, files: PictureFiles, out: str | Path, *, overwrite: bool = False
) -> Written:
    """Restores every picture of a source.

    Args:
        restoration: the model, the task and its settings.
        files: the pictures.
        out: a folder (names are kept), or a file name for one picture.
        overwrite: replace earlier results.

    Returns:
        The files that were written.

    Raises:
        LimnerError: a file is in the way, nothing could be read, or a mask does not fit.
    """
    restoration = replace(restoration, remark=files.remark)
    masks, c = restoration.masks, restoration.restorer.shape[0]
    if masks is not None:
        masks.expect(files.names)
        files.require(lambda name: masks.name_for(name))
    keeps_alpha = c in (1, 3) and not restoration.fills_transparency
    suffixes = kept_suffixes(files, out, lambda name: c in (2, 4) or (keeps_alpha and files.has_alpha(name)))
    written = convert(files, out, suffixes, restoration, overwrite, read=[] if masks is None else masks.paths())
    if restoration.estimates:
        low, high = (f"{level:.2g}" for level in (min(restoration.estimates), max(restoration.estimates)))
        between = low if low == high else f"{low} to {high}"
        written.notes.append(f"noise was estimated: {between} on the [0,1] scale; write noise=NUMBER if you know it")
    return written


def _has_colours(file: ImageFile) -> bool:
    """Whether any pixel that can be seen has a colour other than grey."""
    if file.image.mode in ("L", "LA"):
        return False
    values = np.asarray(transparency.opaque(file.image)).astype(np.int16)
    return bool((values.max(2) - values.min(2)).max() > _GREY)
