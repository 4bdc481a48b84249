"""Style transfer in one pass, for image files and for the frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from limner.apply.files import ImageFile, PictureFiles, find, read_file
from limner.apply.translate import Translation
from limner.core import units
from limner.core.capabilities import Stylises, Translates
from limner.core.errors import LimnerError
from limner.core.inference import stylised
from limner.core.model import GenerativeModel
from limner.core.paths import named
from limner.data import degradations
from limner.data.sources import photographs

STYLE_SIZE = 512
"""Longer side in pixels to which a painting is resized, as in Huang and Belongie 2017."""


@dataclass(frozen=True)
class Painter:
    """A model that paints, with its settings.

    Args:
        model: in evaluation mode; paints in its own style (`Translates`) or in any (`Stylises`).
        styles: features of each painting (`encode_features`); none for a model of one style.
        shares: weight of each style; equal by default.
        strength: strength of the style, for models of any style.
        keep_colours: keep the colours of the image and take the lightness of the result (Gatys et al. 2016,
            arXiv:1606.05897).
    """

    model: GenerativeModel
    styles: tuple[Tensor, ...] = ()
    shares: Sequence[float] | None = None
    strength: float = 1.0
    keep_colours: bool = False

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """Painted images (1,3,H,W) in [-1,1], on the CPU, of images (1,3,H,W)."""
        if isinstance(self.model, Stylises):
            x_device = x.to(self.model.device)
            y = stylised(self.model, x_device, self.styles, strength=self.strength, shares=self.shares).cpu()
        else:
            assert isinstance(self.model, Translates)
            y = Translation(self.model).run(x).clamp(-1, 1)
        return degradations.transfer_lightness(y, x) if self.keep_colours else y


def make_painter(
    model: GenerativeModel,
    paintings: Sequence[str],
    *,
    style_size: int = STYLE_SIZE,
    shares: Sequence[float] | None = None,
    strength: float = 1.0,
    keep_colours: bool = False,
) -> Painter:
    """A painter of a model and the files of paintings, whose features are computed once.

    Args:
        model: in evaluation mode.
        paintings: image files; none for a model that has learnt one style.
        style_size: longer side to which paintings are resized; smaller makes finer strokes.
        shares: weight of each painting, not negative; equal by default.
        strength: strength of the style, for models of any style; 1 is full strength.
        keep_colours: keep the colours of the images.

    Raises:
        LimnerError: the model does not paint or does not have these settings, or a painting cannot be read.
    """
    if strength < 0:
        raise LimnerError(f"strength must not be negative, got {strength:g}")
    if isinstance(model, Translates):
        if paintings:
            raise LimnerError("this model paints in the one style that it learnt; leave the painting out")
        if strength != 1 or shares is not None:
            raise LimnerError("this model learnt how much to paint; strength and style_shares are for adain and wct")
        return Painter(model, keep_colours=keep_colours)
    if not isinstance(model, Stylises):
        raise LimnerError(f"{model.spec.name} does not paint; train fast-style, adain or wct, or leave model out")
    if not paintings:
        raise LimnerError("this model paints in any style; name a painting too")
    weights = units.shares(shares, len(paintings), "style_shares")
    with torch.inference_mode():
        features = tuple(model.encode_features(_read(p, style_size).tensor(3).to(model.device)) for p in paintings)
    return Painter(model, features, weights, strength, keep_colours)


def resize(file: ImageFile, side: int | None) -> ImageFile:
    """An image whose longer side is `side` pixels; the same image if that is None."""
    if side is None or max(file.size) == side:
        return file
    scale = side / max(file.size)
    w, h = (max(1, round(n * scale)) for n in file.image.size)
    return replace(file, image=file.image.resize((w, h), Image.Resampling.LANCZOS))


def find_sources(source: str | Path) -> PictureFiles:
    """The pictures of a file, a folder or a ZIP, or the named photograph (`limner explain photos`).

    Raises:
        LimnerError: the source is missing.
    """
    name = photograph(source)
    if name is not None:
        return PictureFiles(Path(name), [f"{name}.png"], image=photographs.opened(name))
    return find(source)


def photograph(source: str | Path) -> str | None:
    """The photograph that is meant; None for a path."""
    return named(source, [*photographs.PHOTOGRAPHS, *photographs.TEXTURES], "photograph")


def _read(path: str, side: int) -> ImageFile:
    """A painting, resized: a file or a named photograph."""
    name = photograph(path)
    return resize(read_file(path) if name is None else ImageFile(name, photographs.opened(name)), side)
