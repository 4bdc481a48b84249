"""Style transfer in one call: a picture, a painting, and what comes of the two.

    image = limner.stylise("photo.jpg", "painting.jpg", size=512)      # a PIL image

Each scale is an ordinary run, with checkpoints, previews (``samples/``) and a report, so it can be interrupted and gone
on with (`limner resume`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from limner import api
from limner.apply import paint as painting
from limner.apply import video
from limner.apply.paint import STYLE_SIZE
from limner.apply.pictures import DESCRIPTION, save, writable
from limner.apply.translate import write
from limner.config import recipe
from limner.config.call import checked
from limner.core import weights as files
from limner.core.batch import to_float
from limner.core.errors import LimnerError
from limner.core.grid import make_grid
from limner.core.model import GenerativeModel
from limner.core.progress import Progress, Silent
from limner.core.run import Run
from limner.core.units import shares
from limner.data.sources import photographs

_STYLE = 100.0  # β at strength 1
_RESULT = "result.png"
_LEAST = 128  # pixels of the longer side that the coarsest of several scales has at least


@checked
def stylise(
    content: str | Path,
    style: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    size: int = 512,
    strength: float = 1.0,
    iterations: int = 300,
    optimiser: Literal["lbfgs", "adam"] = "lbfgs",
    start: Literal["content", "style", "noise"] = "content",
    scales: int = 1,
    keep_colours: bool = False,
    style_shares: Sequence[float] | None = None,
    masks: Sequence[str | Path] | None = None,
    style_size: int | None = None,
    weights: str | Path = "vgg19",
    run: str | Path | None = None,
    progress: Progress | None = None,
    **overrides: Any,
) -> Image.Image:
    """The content of one picture in the style of another, or of several (Gatys et al. 2016).

    Args:
        content: a picture.
        style: a picture, or several.
        out: where to save the result, with a line in its EXIF description on the pictures and weights that made it; it
            is returned in any case.
        size: longer side in pixels.
        strength: how much paint: 1 is balanced; 0.1 a touch, 10 nearly all style. 0 content alone.
        iterations: descents at each scale.
        optimiser: lbfgs finds more in as many looks; adam is steadier.
        start: what the picture is at first.
        scales: from coarse to fine: 2 or 3 give large pictures large strokes, and are quicker.
        keep_colours: colours of the content, lightness of the result (Gatys et al. 2016, arXiv:1606.05897).
        style_shares: of several styles; equal by default.
        masks: for each style a picture, white where it belongs.
        style_size: longer side of the styles; that of the content by default.
        weights: file of VGG-19's weights, or "vgg19", which is downloaded.
        run: the run folder; default the next number under ``runs/``.
        progress: who is told.
        **overrides: keys of the recipe, such as ``**{"model.smoothness": 1}`` or ``device="cuda"``.

    Raises:
        LimnerError: a picture or the weights are missing or unfit.
    """
    if strength < 0 or scales < 1 or iterations < 1:
        raise LimnerError("strength must not be negative, scales and iterations are 1 or more")
    styles = _names(style)
    shares(style_shares, len(styles), "style_shares")
    if not photographs.known(str(content)) and Path(content).is_dir():
        raise LimnerError(f"{content} is a folder; name one picture, or paint a folder in one pass with model=RUN")
    if out is not None:
        writable(Path(out))
    data: dict[str, Any] = {"name": "styled", "path": str(content), "style": styles, "style_size": style_size}
    if masks is not None:
        data["masks"] = [str(m) for m in masks]
    model = {"name": "style_transfer", "weights": str(weights), "style_weight": _STYLE * strength, "start": start}
    if style_shares is not None:
        model["style_shares"] = list(style_shares)
    descend = {"name": "lbfgs"} if optimiser == "lbfgs" else {"name": "adam", "lr": 0.04}
    train = {"images": iterations, "batch": 1, "samples": 1, "log_images": 10, "checkpoint_images": 50}
    done: Run | None = None
    for side in _sides(size, scales):
        if done is not None:
            coarse = save(api.load(done.path).sample(1)[0], done.path / _RESULT)
            data["first"], model["start"] = str(coarse), "first"
        told = {"name": "stylise", "model": model, "data": data | {"size": side}, "optim": {"picture": descend}}
        where = run if side == size or run is None else Path(run).with_name(f"{Path(run).name}-{side}")
        (progress or Silent()).say(f"stylise: {side} pixels")
        done = api.train(told | {"train": train}, out=where, progress=progress, **overrides)
    assert done is not None
    result = api.load(done.path).sample(1)
    if keep_colours:
        result = painting.coloured_like(result.cpu(), _content(done))
    made = f"{Path(content).name} in the style of {', '.join(Path(s).name for s in styles)}"
    description = f"limner stylise: {made}; VGG-19 of {files.describe_vgg19(str(weights))}"
    for place in (done.path / _RESULT, *([] if out is None else [Path(out)])):
        save(result[0], place, description)
    return make_grid(result, 1)


@checked
def paint(
    model: str | Path,
    source: str | Path,
    out: str | Path,
    style: str | Path | Sequence[str | Path] = (),
    *,
    strength: float = 1.0,
    style_shares: Sequence[float] | None = None,
    style_size: int = STYLE_SIZE,
    keep_colours: bool = False,
    size: int | None = None,
    device: str = "auto",
) -> list[Path]:
    """Paints a picture, a folder or a ZIP in one pass, with a model that was trained for it.

    Args:
        model: run folder of `fast_style` (its own style), or of `adain` or `wct` (any style).
        source: what to paint, or the name of a photograph; names, formats, EXIF and transparency stay. A picture
            without an EXIF description gets one: what made it, and with which weights.
        out: a folder, or a file for one picture.
        style: a picture, or several; for models of any style.
        strength: of the style, for models of any style; 1 is all of it.
        style_shares: of several styles; equal by default.
        style_size: longer side that styles are looked at with; smaller makes finer strokes.
        keep_colours: colours of the picture, lightness of the painting.
        size: longer side of what is painted; by default pictures keep their size.
        device: auto, cpu, cuda or mps.

    Returns:
        What was written.

    Raises:
        LimnerError: the model does not paint, a style is missing, or a picture cannot be read.
    """
    painter = _painter(model, style, device, strength, style_shares, style_size, keep_colours)
    place, made = Path(out), _described(painter.model, _names(style))
    bad: list[tuple[str, str]] = []
    written = []
    single = Path(source).suffix.lower() != ".zip" and not Path(source).is_dir()
    for whole in painting.opened(str(source), bad):
        picture = painting.within(whole, size)
        y = painter(picture.tensor(3))
        picture.exif.setdefault(DESCRIPTION, made)
        written.append(write(y if picture.alpha is None else torch.cat([y, picture.alpha], 1), picture, place, single))
    if not written:
        raise LimnerError(f"no picture could be read from {source}; give PNG, JPEG, WebP, BMP, GIF or TIFF files")
    return written


@checked
def paint_clip(
    model: str | Path,
    source: str | Path,
    out: str | Path,
    style: str | Path | Sequence[str | Path] = (),
    *,
    steady: float = 0.6,
    start: float = 0.0,
    end: float | None = None,
    sound: bool = True,
    size: int | None = None,
    strength: float = 1.0,
    style_shares: Sequence[float] | None = None,
    style_size: int = STYLE_SIZE,
    keep_colours: bool = False,
    device: str = "auto",
    said: Callable[[int, float, float], None] = lambda frames, at, whole: None,
) -> video.Clip:
    """Paints a clip frame by frame, and keeps its sound; needs ``limner[video]``.

    Args:
        model: run folder of `fast_style` (its own style), or of `adain` or `wct` (any style).
        source: MP4, MOV, MKV, WebM or AVI.
        out: likewise. Ctrl-C leaves what is painted by then beside it, as a whole clip.
        style: a picture, or several; for models of any style.
        steady: how much each frame holds on to the last one where optical flow finds the same point; 0 paints frames
            one by one.
        start: seconds of the clip to begin with.
        end: seconds to end before.
        sound: copy the sound.
        size: longer side of the result; by default that of the clip.
        strength: of the style, for models of any style; 1 is all of it.
        style_shares: of several styles; equal by default.
        style_size: longer side that styles are looked at with; smaller makes finer strokes.
        keep_colours: colours of the clip, lightness of the painting.
        device: auto, cpu, cuda or mps.
        said: is told after each frame: how many are painted, seconds of the clip reached, and seconds in all.

    Raises:
        LimnerError: the model does not paint, a style is missing, or the clip cannot be read or written.
    """
    painter = _painter(model, style, device, strength, style_shares, style_size, keep_colours)
    times: dict[str, Any] = {"start": start, "end": end, "sound": sound}
    return video.paint(painter, Path(source), Path(out), steady=steady, size=size, said=said, **times)


def _names(style: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(s) for s in ([style] if isinstance(style, (str, Path)) else style)]


def _painter(
    model: str | Path,
    style: str | Path | Sequence[str | Path],
    device: str,
    strength: float,
    style_shares: Sequence[float] | None,
    style_size: int,
    keep_colours: bool,
) -> painting.Painter:
    how: dict[str, Any] = {"strength": strength, "shares": style_shares, "keep_colours": keep_colours}
    return painting.painter(api.load(model, device), _names(style), style_size=style_size, **how)


def _described(model: GenerativeModel, styles: Sequence[str]) -> str:
    """What made a picture, for its EXIF block: the model, the paintings, and VGG-19's weights."""
    weights = str(model.spec.to_dict().get("weights", "vgg19"))
    there = weights == "vgg19" or Path(weights).expanduser().is_file()  # a net for one style does not need them in use
    named = files.describe_vgg19(weights) if there else Path(weights).name
    own = f"in the style of {', '.join(Path(s).name for s in styles)}" if styles else "in the style that it learnt"
    return f"limner stylise: {model.spec.name} {own}; VGG-19 of {named}"


def _sides(size: int, scales: int) -> list[int]:
    """Longer sides from coarse to fine, each twice the last.

    >>> _sides(512, 3), _sides(200, 3)
    ([128, 256, 512], [200])
    """
    return [s for s in (size >> k for k in reversed(range(scales))) if s >= _LEAST or s == size]


def _content(run: Run) -> Tensor:
    """The picture (1,3,H,W) that a run began with."""
    return to_float(recipe.load(run.recipe).data.build().fetch([0]))
