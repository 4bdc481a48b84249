"""The animation of a run on points, from ``frames/``: of a GAN samples, D's logits and G's gradient over training.

`limner.report.density_film` draws the frames of models with a density, and of those that move points from noise to
data.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from limner.core.durable import replace_file
from limner.core.errors import LimnerError
from limner.core.paths import user_path
from limner.core.run import Run
from limner.report import density_film
from limner.report.images import evenly_spaced

_FRAME_MS, _LAST_FRAME_MS, _MOVING_MS = 250, 2000, 90
_MAX_FRAMES = 40
_ARROWS = 64  # samples with an arrow
_ARROW_LENGTH = 0.12  # share of the plot's width: length of the arrow at the 95 % quantile of all gradients
_STRIP = 0.16  # share of the tallest bar: height of the strip below the densities of a line, where its arrows are
_GOLDEN_RATIO = 0.618034
_GREY, _RED, _BLUE, _INK = "0.45", "#c22", "#26a", "0.1"
_ARROW: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.004, "color": _INK}
_CAPTION = (
    "Grey: data. Red: samples, of the same noise in all frames. Background: D's logit relative to its median in the"
    " frame; blue means real. Arrows: where G's loss moves the samples, on one scale in all frames."
)
_CAPTION_LINE = (
    "Grey: density of the data. Red: density of the samples. Blue: D's logit less its mean; only its slope"
    " matters to G. Arrows: where G's loss moves the samples. Curve and arrows have one scale in all frames."
)
_KEYS = {"fake", "real", "pull", "places", "logits"}  # of a GAN
_DRAWN = {"log_density", "path"}  # other models have one of these, or both
_FINITE = _KEYS | {"path", "field", "lines"}

Frame = dict[str, Any]


def film(run_folder: str | Path, out: str | Path | None = None) -> Path | None:
    """Draws the animation of a run.

    Args:
        run_folder: the folder of a run.
        out: where to write it, ``.webp`` or ``.gif``; default ``figures/animation.webp`` in the run folder.

    Returns:
        The file, or None when the run has no frames (only models of points of one or two numbers have). None, too, when
        the run's own animation cannot be written, so that a full disk does not end a training.

    Raises:
        LimnerError: `out` has another suffix or cannot be written.
    """
    path = user_path(out) if out else Path(run_folder) / "figures" / "animation.webp"
    if path.suffix not in (".webp", ".gif"):
        raise LimnerError(f"cannot write an animation to {path.name}; give a name that ends in .webp or .gif")
    run = Run(run_folder)
    frames = _frames(run)
    if not frames:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        images, moving = (_draw(frames), 0) if _is_of_gan(frames[0][1]) else density_film.draw(frames)
        replace_file(path, _encode(images, moving, path.suffix))
        if out is None:
            _add_caption(run, _caption(frames[0][1]))
    except OSError as error:
        if out is None:
            return None
        raise LimnerError(f"cannot write {path.name}: {error.strerror or error}; choose another folder") from error
    return path


def _frames(run: Run) -> list[tuple[int, Frame]]:
    """(points seen, arrays) of at most `_MAX_FRAMES` evenly spaced frames, without those that cannot be drawn."""
    frames = []
    for images, file in evenly_spaced(run.frames(), _MAX_FRAMES):
        try:
            with np.load(file, allow_pickle=False) as arrays:
                frame = dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
            continue
        if _is_whole(frame):
            frames.append((images, frame))
    return [(images, frame) for images, frame in frames if frame.keys() == frames[-1][1].keys()]


def _is_of_gan(frame: Frame) -> bool:
    return frame.keys() >= _KEYS


def _is_whole(frame: Frame) -> bool:
    """Whether a frame has all that is drawn, in finite numbers; only a density may be 0."""
    known = _is_of_gan(frame) or (frame.keys() >= {"fake", "real"} and bool(frame.keys() & _DRAWN))
    finite = all(np.isfinite(frame[k]).all() for k in _FINITE & frame.keys())
    return known and finite and not np.isnan(frame.get("log_density", 0)).any()


def _caption(frame: Frame) -> str:
    if not _is_of_gan(frame):
        return density_film.caption(frame)
    return _CAPTION if frame["real"].shape[1] == 2 else _CAPTION_LINE


def _encode(images: list[Image.Image], moving: int, suffix: str) -> bytes:
    """The frames of a training as an animation; the last `moving` images pass faster."""
    durations = [_FRAME_MS] * (len(images) - moving) + [_MOVING_MS] * moving
    durations[len(images) - moving - 1] = durations[-1] = _LAST_FRAME_MS
    return loop(images, durations, suffix)


def loop(images: Sequence[Image.Image], milliseconds: int | Sequence[int], suffix: str, quality: int = 70) -> bytes:
    """An animated WebP or GIF that repeats without end.

    Args:
        images: the frames, of one size and mode.
        milliseconds: how long each is shown, or all.
        suffix: ``.webp`` or ``.gif``.
        quality: of a WebP, up to 100.
    """
    buffer = io.BytesIO()
    duration = milliseconds if isinstance(milliseconds, int) else list(milliseconds)
    options: dict[str, Any] = (
        {"format": "WEBP", "quality": quality, "method": 4} if suffix == ".webp" else {"format": "GIF", "disposal": 2}
    )
    images[0].save(buffer, save_all=True, append_images=images[1:], duration=duration, loop=0, **options)
    return buffer.getvalue()


def _add_caption(run: Run, caption: str) -> None:
    """Adds the caption to those of the other figures."""
    captions = run.read_json("figures/captions.json") or {}
    run.write_json("figures/captions.json", captions | {"animation": caption})


def _draw(frames: list[tuple[int, Frame]]) -> list[Image.Image]:
    """An image of every frame, all on the same axes and scales."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # imported here because it takes half a second
    from matplotlib.figure import Figure

    in_plane = frames[0][1]["real"].shape[1] == 2
    norms = np.concatenate([np.linalg.norm(f["pull"], axis=1) for _, f in frames])
    max_norm = float(np.quantile(norms, 0.95)) or 1.0
    max_logit = max(float(np.abs(_centred_logits(f)).max()) for _, f in frames) or 1.0
    figure = Figure((4.6, 4.6) if in_plane else (5.6, 3.8), dpi=90, layout="tight")
    canvas, axes, images = FigureCanvasAgg(figure), figure.subplots(), []
    for seen, f in frames:
        axes.clear()
        _draw_plane(axes, f, max_norm) if in_plane else _draw_line(axes, f, max_norm, max_logit)
        axes.set_title(f"{seen:,} points seen{_outside(f)}", loc="left", fontsize=9)
        axes.tick_params(labelsize=8)
        canvas.draw()
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    return images


def _centred_logits(f: Frame) -> Any:
    """D's logits less their mean, which has no effect on G."""
    return f["logits"] - f["logits"].mean()


def _outside(f: Frame) -> str:
    """The share of the samples outside the plot, in words; empty below half a percent."""
    low, high = f["places"].min(0), f["places"].max(0)
    share = float(((f["fake"] < low) | (f["fake"] > high)).any(1).mean())
    return f", {share:.0%} of samples beyond the edge" if share >= 0.005 else ""


def _with_arrows(f: Frame, n: int) -> slice:
    """About n of the samples, which get an arrow."""
    return slice(None, None, max(1, len(f["fake"]) // n))


def _draw_plane(axes: Any, f: Frame, max_norm: float) -> None:
    side = round(len(f["places"]) ** 0.5)
    low, high = f["places"].min(0), f["places"].max(0)
    field = np.tanh((f["logits"] - np.median(f["logits"])) / (np.std(f["logits"]) + 1e-9)).reshape(side, side)
    edges = (low[0], high[0], low[1], high[1])
    axes.imshow(field, origin="lower", extent=edges, cmap="RdBu", alpha=0.45, vmin=-1, vmax=1, interpolation="bilinear")
    axes.plot(*f["real"].T, ".", color=_GREY, markersize=2)
    axes.plot(*f["fake"].T, ".", color=_RED, markersize=2.5)
    some = _with_arrows(f, _ARROWS)
    arrows = f["pull"][some] / max_norm * _ARROW_LENGTH * float((high - low).max())
    axes.quiver(*f["fake"][some].T, *arrows.T, **_ARROW)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")


def _draw_line(axes: Any, f: Frame, max_norm: float, max_logit: float) -> None:
    """Densities, D's logits above them, and below them some samples with their arrows, at heights that differ."""
    x = f["places"][:, 0]
    bins = np.linspace(x[0], x[-1], 61)
    heights = {
        k: np.histogram(f[k][:, 0], bins)[0] / len(f[k]) / (bins[1] - bins[0]) for k in ("real", "fake")
    }  # densities are relative to all points, also those outside the plot
    tallest = max(float(h.max()) for h in heights.values()) or 1.0
    for name, colour in (("real", _GREY), ("fake", _RED)):
        axes.stairs(heights[name], bins, fill=True, color=colour, alpha=0.45)
    axes.axhline(tallest / 2, color="0.8", linewidth=0.6)
    axes.plot(x, tallest / 2 * (1 + _centred_logits(f) / max_logit), color=_BLUE, linewidth=1.5)
    some = _with_arrows(f, _ARROWS // 2)
    fake = f["fake"][some, 0]
    y = -_STRIP * tallest * (0.2 + 0.7 * (_GOLDEN_RATIO * np.arange(len(fake)) % 1))
    arrows = f["pull"][some, 0] / max_norm * _ARROW_LENGTH * float(x[-1] - x[0])
    axes.plot(fake, y, ".", color=_RED, markersize=2.5)
    axes.quiver(fake, y, arrows, np.zeros(len(fake)), **_ARROW)
    axes.set(xlim=(x[0], x[-1]), ylim=(-_STRIP * tallest, 1.04 * tallest), yticks=[])
