"""Painting pictures in one pass, one after the other: what is common to files and to the frames of a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from limner.apply.translate import Picture, Translation, pictures
from limner.core import units
from limner.core.capabilities import Stylises, Translates
from limner.core.errors import LimnerError
from limner.core.inference import stylised
from limner.core.model import GenerativeModel
from limner.data import degradations as tasks
from limner.data.sources import photographs

STYLE_SIZE = 512
"""Longer side in pixels that a painting is looked at with, as Huang and Belongie 2017 do."""


@dataclass(frozen=True)
class Painter:
    """A model that paints, and how it should.

    Args:
        model: in evaluation mode; paints in its own style (`Translates`) or in any (`Stylises`).
        styles: what the model sees in each painting; none for a model of one style.
        shares: of several styles; equal by default.
        strength: of the style, for models of any style.
        keep_colours: colours of the picture, lightness of the painting (Gatys et al. 2016, arXiv:1606.05897).
    """

    model: GenerativeModel
    styles: tuple[Tensor, ...] = ()
    shares: Sequence[float] | None = None
    strength: float = 1.0
    keep_colours: bool = False

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """Painted pictures (1,3,H,W) in [-1,1], on the CPU, of pictures (1,3,H,W)."""
        if isinstance(self.model, Stylises):
            on = x.to(self.model.device)
            y = stylised(self.model, on, self.styles, strength=self.strength, shares=self.shares).cpu()
        else:
            assert isinstance(self.model, Translates)
            y = Translation(self.model).run(x).clamp(-1, 1)
        return coloured_like(y, x) if self.keep_colours else y


def painter(
    model: GenerativeModel,
    paintings: Sequence[str],
    *,
    style_size: int = STYLE_SIZE,
    shares: Sequence[float] | None = None,
    strength: float = 1.0,
    keep_colours: bool = False,
) -> Painter:
    """A painter of a model and the files of paintings, each looked at once.

    Args:
        model: in evaluation mode.
        paintings: files; none for a model that has learnt a style.
        style_size: longer side that paintings are looked at with; smaller makes finer strokes.
        shares: of several paintings, not negative; equal by default.
        strength: of the style, for models of any style; 1 is all of it.
        keep_colours: colours of the pictures.

    Raises:
        LimnerError: the model does not paint, or not so; a painting is missing or cannot be read.
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
    parts = units.shares(shares, len(paintings), "style_shares")
    with torch.inference_mode():
        seen = tuple(model.encode_features(_read(p, style_size).tensor(3).to(model.device)) for p in paintings)
    return Painter(model, seen, parts, strength, keep_colours)


def coloured_like(y: Tensor, x: Tensor) -> Tensor:
    """The lightness of y with the colours of x, (B,3,H,W) in [-1,1] both."""
    task = tasks.make("colourise")
    return task.finish(task.prepare(y), x)


def within(picture: Picture, side: int | None) -> Picture:
    """A picture whose longer side is `side` pixels; as it is where that is None."""
    if side is None or max(picture.size) == side:
        return picture
    scale = side / max(picture.size)
    w, h = (max(1, round(n * scale)) for n in picture.image.size)
    return replace(picture, image=picture.image.resize((w, h), Image.Resampling.LANCZOS))


def opened(source: str, bad: list[tuple[str, str]]) -> Iterator[Picture]:
    """Pictures of a file, a folder or a ZIP, or the photograph of that name; what cannot be read goes into `bad`.

    Raises:
        LimnerError: the source is missing.
    """
    if photographs.known(source) and not Path(source).exists():
        yield Picture(f"{source}.png", photographs.opened(source), Image.Exif())
    else:
        yield from pictures(source, bad)


def _read(path: str, side: int) -> Picture:
    """The first picture of a file."""
    bad: list[tuple[str, str]] = []
    found = next(opened(path, bad), None)
    if found is None:
        raise LimnerError(f"{Path(path).name} cannot be used: {bad[0][1] if bad else 'it holds no picture'}")
    return within(found, side)
