"""Style transfer in one call, from a picture and a painting to the result.

    image = limner.stylise("photo.jpg", "painting.jpg", size=512)      # a PIL image

Each scale is an ordinary run, with checkpoints, previews (``samples/``) and a report, so it can be interrupted and
resumed (`limner resume`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import Field
from torch import Tensor

from limner import api
from limner.apply import outputs, transparency, video
from limner.apply import paint as one_pass
from limner.apply.files import ImageFile, Written
from limner.apply.images import save
from limner.apply.paint import STYLE_SIZE
from limner.apply.translate import convert, kept_suffixes
from limner.config import recipe
from limner.config.call import checked
from limner.core import weights as weight_files
from limner.core.batch import to_float
from limner.core.errors import LimnerError
from limner.core.grid import make_grid
from limner.core.model import GenerativeModel
from limner.core.paths import as_text, plain_name, user_path
from limner.core.progress import Progress, Silent
from limner.core.run import Run
from limner.core.units import shares
from limner.data.degradations import transfer_lightness

_STYLE_WEIGHT = 100.0  # β at strength 1
_RESULT = "result.png"
_MIN_SIDE = 128  # pixels of the longer side at the coarsest of several scales

Side = Annotated[int, Field(ge=16, le=8192)]
"""The longer side of a picture in pixels."""
Strength = Annotated[float, Field(ge=0)]


@checked
def stylise(
    content: str | Path,
    style: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    size: Side = 512,
    strength: Strength = 1.0,
    iterations: Annotated[int, Field(ge=1)] = 300,
    optimiser: Literal["lbfgs", "adam"] = "lbfgs",
    start: Literal["content", "style", "noise"] = "content",
    scales: Annotated[int, Field(ge=1, le=16)] = 1,
    keep_colours: bool = False,
    style_shares: Sequence[float] | None = None,
    masks: Sequence[str | Path] | None = None,
    style_size: Side | None = None,
    weights: str | Path = "vgg19",
    run: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **overrides: Any,
) -> Image.Image:
    """Paints the content of one picture in the style of another, or of several (Gatys et al. 2016).

    Args:
        content: a picture.
        style: a picture, or several.
        out: where to save the result, a file or a folder. Its EXIF description names the pictures and weights that made
            it. It is returned in any case.
        size: longer side of the result in pixels.
        strength: strength of the style: 1 is balanced, 0.1 a touch, 10 nearly all style, 0 content alone.
        iterations: optimisation steps at each scale.
        optimiser: lbfgs comes closer in the same number of iterations; adam is steadier.
        start: image that the optimisation starts from: content, style or noise.
        scales: number of sizes, from coarse to fine, each twice the last; 2 or 3 give large pictures larger strokes and
            take less time.
        keep_colours: keep the colours of the content and take the lightness of the result (Gatys et al. 2016,
            arXiv:1606.05897).
        style_shares: weights of several styles, such as 3,1; equal by default.
        masks: for each style a picture that is white where the style is wanted.
        style_size: longer side to which styles are resized; that of the content by default.
        weights: file of VGG-19's weights; vgg19 downloads them.
        run: run folder; the next number under ``runs/`` by default.
        overwrite: replace `out` if it exists; pictures that are read are never replaced.
        progress: receives messages and steps while it runs.
        **overrides: keys of the recipe, such as model.smoothness=1 or device=cuda.

    Returns:
        The result.

    Raises:
        LimnerError: a setting is out of range, or a picture or the weights are missing or cannot be used.
    """
    styles = _names(style)
    shares(style_shares, len(styles), "style_shares")
    if one_pass.photograph(content) is None and user_path(content).is_dir():
        raise LimnerError(f"{content} is a folder; name one picture, or paint a folder in one pass with model=RUN")
    saved = None if out is None else single_output(out, content)
    if saved is not None:
        outputs.refuse_existing([saved], overwrite, [user_path(p) for p in (content, *styles, *(masks or ()))])
    data: dict[str, Any] = {"name": "styled", "path": as_text(content), "style": styles, "style_size": style_size}
    if masks is not None:
        data["masks"] = [as_text(m) for m in masks]
    beta = _STYLE_WEIGHT * strength
    model = {"name": "style_transfer", "weights": str(weights), "style_weight": beta, "start": start}
    if style_shares is not None:
        model["style_shares"] = list(style_shares)
    optim = {"picture": {"name": "lbfgs"} if optimiser == "lbfgs" else {"name": "adam", "lr": 0.04}}
    train = {"images": iterations, "batch": 1, "samples": 1, "log_images": 10, "checkpoint_images": 50}
    trained: Run | None = None
    for side in _sides(size, scales):
        if trained is not None:
            coarse = save(api.load(trained.path).sample(1)[0], trained.path / _RESULT)
            data["first"], model["start"] = str(coarse), "first"
        settings = {"name": "stylise", "model": model, "data": data | {"size": side}, "optim": optim, "train": train}
        folder = run if side == size or run is None else Path(run).with_name(f"{Path(run).name}-{side}")
        checked_settings = recipe.load(settings, overrides).to_dict()  # a wrong key is refused before a word is said
        (progress or Silent()).say(f"stylise: {side} pixels")
        trained = api.train(checked_settings, out=folder, progress=progress)
    assert trained is not None
    result = api.load(trained.path).sample(1)
    if keep_colours:
        x = to_float(recipe.of_run(trained.recipe).data.build().fetch([0]))  # (1,3,H,W), the content
        result = transfer_lightness(result.cpu(), x)
    names = f"{_joined([as_text(content)])} in the style of {_joined(styles)}"
    description = f"limner stylise: {names}; VGG-19 of {weight_files.describe_vgg19(str(weights))}"
    for path in (trained.path / _RESULT, *([] if saved is None else [saved])):
        save(result[0], path, description)
    return make_grid(result, 1)


@checked
def paint(
    model: str | Path,
    source: str | Path,
    out: str | Path,
    style: str | Path | Sequence[str | Path] = (),
    *,
    strength: Strength = 1.0,
    style_shares: Sequence[float] | None = None,
    style_size: Side = STYLE_SIZE,
    keep_colours: bool = False,
    size: Side | None = None,
    overwrite: bool = False,
    device: str = "auto",
) -> Written:
    """Paints a picture, a folder or a ZIP in one pass, with a model that was trained for it.

    Args:
        model: run folder of `fast_style` (one style, which it learnt), or of `adain` or `wct` (any style).
        source: a picture, a folder or a ZIP, or the name of a photograph. Results keep names, formats, transparency
            and what EXIF says of author, time, place and camera; those without an EXIF description get one that names
            the model and the weights.
        out: a folder, or a file for one picture. No result replaces another one or a file that is there already.
        style: a picture, or several; for models of any style.
        strength: strength of the style, for models of any style; 1 is full strength.
        style_shares: weights of several styles, such as 3,1; equal by default.
        style_size: longer side to which styles are resized; smaller makes finer strokes.
        keep_colours: keep the colours of the picture and take the lightness of the result.
        size: longer side to which pictures are resized first; by default they keep their size.
        overwrite: replace earlier results; pictures that are read are never replaced.
        device: auto, cpu, cuda or mps.

    Returns:
        The files that were written, as a list; its `skipped` has (name, reason) of the pictures that were left out, its
        `notes` say what was converted or renamed.

    Raises:
        LimnerError: the model does not paint, a style is missing, a file is in the way, or no picture can be read.
    """
    painter = _make_painter(model, style, device, strength, style_shares, style_size, keep_colours)
    description, files = _describe(painter.model, _names(style)), one_pass.find_sources(source)

    def painted(original: ImageFile) -> Tensor:
        file = one_pass.resize(original, size)
        return transparency.with_alpha(painter(file.tensor(3)), file.alpha)

    suffixes, read = kept_suffixes(files, out, files.has_alpha), [user_path(s) for s in _names(style)]
    return convert(files, out, suffixes, painted, overwrite, read=read, description=description)


@checked
def paint_clip(
    model: str | Path,
    source: str | Path,
    out: str | Path,
    style: str | Path | Sequence[str | Path] = (),
    *,
    steady: Annotated[float, Field(ge=0, le=1)] = 0.6,
    start: Annotated[float, Field(ge=0)] = 0.0,
    end: Annotated[float, Field(gt=0)] | None = None,
    sound: bool = True,
    size: Side | None = None,
    strength: Strength = 1.0,
    style_shares: Sequence[float] | None = None,
    style_size: Side = STYLE_SIZE,
    keep_colours: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    on_frame: Callable[[int, float, float], None] = lambda frames, seconds, total: None,
) -> video.Clip:
    """Paints a clip frame by frame, and keeps its sound; needs ``limner[video]``.

    Args:
        model: run folder of `fast_style` (one style, which it learnt), or of `adain` or `wct` (any style).
        source: an MP4, MOV, MKV, WebM or AVI file.
        out: the file to write, of one of these kinds. Ctrl-C leaves a playable clip of the frames so far beside it.
        style: a picture, or several; for models of any style.
        steady: how much of the last frame each frame keeps where optical flow finds the same point; 0 paints frames
            independently. Raise it if the clip flickers; lower it if movements leave traces.
        start: where to begin, in seconds of the clip.
        end: where to end, in seconds of the clip; by default at its end.
        sound: copy the sound.
        size: longer side of the result; by default that of the clip.
        strength: strength of the style, for models of any style; 1 is full strength.
        style_shares: weights of several styles, such as 3,1; equal by default.
        style_size: longer side to which styles are resized; smaller makes finer strokes.
        keep_colours: keep the colours of the clip and take the lightness of the result.
        overwrite: replace `out` if it exists; the clip that is read is never replaced.
        device: auto, cpu, cuda or mps.
        on_frame: called after each frame with the number of frames, the seconds of the clip so far, and its length.

    Raises:
        LimnerError: the model does not paint, a style is missing, or the clip cannot be read or written.
    """
    painter = _make_painter(model, style, device, strength, style_shares, style_size, keep_colours)
    options: dict[str, Any] = {"start": start, "end": end, "sound": sound, "overwrite": overwrite}
    clip, result = user_path(source), user_path(out)
    return video.paint(painter, clip, result, steady=steady, size=size, on_frame=on_frame, **options)


def default_output(content: str | Path) -> str:
    """A name in the current folder that does not exist: photo-stylised.png, clip-stylised.mp4, or a folder."""
    path = user_path(plain_name(as_text(content)))
    many = path.is_dir() or path.suffix.lower() == ".zip"
    suffix = path.suffix if video.is_clip(path) else "" if many else ".png"
    return str(outputs.numbered(Path(f"{path.resolve().name if path.is_dir() else path.stem}-stylised{suffix}")))


def single_output(out: str | Path, content: str | Path) -> Path:
    """The file of one result: `out`, or in the folder `out` one that is named after the content."""
    name = f"{Path(plain_name(as_text(content))).stem}.png"
    return outputs.plan(out, {name: ".png"}, single=True).paths[name]


def _names(style: str | Path | Sequence[str | Path]) -> list[str]:
    return [as_text(s) for s in ([style] if isinstance(style, (str, Path)) else style)]


def _joined(paths: Sequence[str]) -> str:
    return ", ".join(Path(plain_name(p)).name for p in paths)


def _make_painter(
    model: str | Path,
    style: str | Path | Sequence[str | Path],
    device: str,
    strength: float,
    style_shares: Sequence[float] | None,
    style_size: int,
    keep_colours: bool,
) -> one_pass.Painter:
    options: dict[str, Any] = {"strength": strength, "shares": style_shares, "keep_colours": keep_colours}
    return one_pass.make_painter(api.load(model, device), _names(style), style_size=style_size, **options)


def _describe(model: GenerativeModel, styles: Sequence[str]) -> str:
    """The EXIF description of a result: the model, the paintings, and VGG-19's weights."""
    call = model.spec.to_dict()
    style = f"in the style of {_joined(styles)}" if styles else "in the style that it learnt"
    if "weights" not in call:  # an imported net, which others trained
        return f"limner stylise: {model.spec.name} {style}"
    weights = str(call["weights"])
    exists = weights == "vgg19" or user_path(weights).is_file()  # `fast_style` needs the file in training only
    vgg = weight_files.describe_vgg19(weights) if exists else Path(weights).name
    return f"limner stylise: {model.spec.name} {style}; VGG-19 of {vgg}"


def _sides(size: int, scales: int) -> list[int]:
    """Longer sides from coarse to fine, each twice the last.

    >>> _sides(512, 3), _sides(200, 3)
    ([128, 256, 512], [200])
    """
    return [s for s in (size >> k for k in reversed(range(scales))) if s >= _MIN_SIDE or s == size]
