"""The film of a toy run: points, D's field and G's pull over training, from the numbers in ``frames/``."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from limner.core.durable import replace_file
from limner.core.errors import LimnerError
from limner.core.run import Run

_MILLISECONDS, _LAST = 250, 2000  # of a frame; the last one stays
_MOST = 40  # frames of a film
_ARROWS = 64  # samples that have one
_REACH = 0.12  # of the picture's width: the arrow of a pull that 95 % of all do not exceed
_STRIP = 0.16  # of the tallest bar: the room below a line's densities, where its arrows are
_GOLDEN = 0.618034
_GREY, _RED, _BLUE, _INK = "0.45", "#c22", "#26a", "0.1"
_ARROW: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.004, "color": _INK}
_CAPTION = (
    "Grey: data. Red: samples of the same noise each time. Background: D, the bluer the more real, about its middle in"
    " this frame. Arrows: where G's loss moves the samples; all frames have one scale."
)
_CAPTION_LINE = (
    "Grey: density of the data. Red: density of the samples. Blue: D's logit less its mean over the line, so that what"
    " counts is its slope. Arrows: where G's loss moves the samples. Curve and arrows have one scale in all frames."
)
_PARTS = {"fake", "real", "pull", "places", "logits"}

Frame = dict[str, Any]


def film(run_folder: str | Path, out: str | Path | None = None) -> Path | None:
    """Draws the film of a run.

    Args:
        run_folder: the folder of a run.
        out: where to write it, ``.webp`` or ``.gif``; default ``figures/animation.webp`` in the run folder.

    Returns:
        The file, or None when the run has no frames (only GANs on points of one or two numbers have). The run's own
        film is also left out when it cannot be written: a lost picture does not end a training.

    Raises:
        LimnerError: the suffix of `out` is another one, or it cannot be written.
    """
    path = Path(out) if out else Path(run_folder) / "figures" / "animation.webp"
    if path.suffix not in (".webp", ".gif"):
        raise LimnerError(f"cannot write a film to {path.name}; give a name that ends in .webp or .gif")
    frames = _frames(Run(run_folder))
    if not frames:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, _encoded(_pictures(frames), path.suffix))
        if out is None:
            _describe(path.parent, _CAPTION if frames[0][1]["real"].shape[1] == 2 else _CAPTION_LINE)
    except OSError as error:
        if out is None:
            return None
        raise LimnerError(f"cannot write {path.name}: {error.strerror or error}; choose another folder") from error
    return path


def _frames(run: Run) -> list[tuple[int, Frame]]:
    """(points seen, numbers) of at most `_MOST` frames, evenly over the run; without those that cannot be drawn."""
    found = run.frames()
    kept = [found[round(i * (len(found) - 1) / (_MOST - 1))] for i in range(_MOST)] if len(found) > _MOST else found
    frames = []
    for images, file in kept:
        try:
            with np.load(file, allow_pickle=False) as numbers:
                frame = dict(numbers)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
            continue
        if frame.keys() >= _PARTS and all(np.isfinite(frame[k]).all() for k in _PARTS):
            frames.append((images, frame))
    return frames


def _encoded(pictures: list[Image.Image], suffix: str) -> bytes:
    """An animation that runs for ever."""
    content = io.BytesIO()
    lasting = [_MILLISECONDS] * (len(pictures) - 1) + [_LAST]
    options: dict[str, Any] = (
        {"format": "WEBP", "quality": 70, "method": 4} if suffix == ".webp" else {"format": "GIF", "disposal": 2}
    )
    pictures[0].save(content, save_all=True, append_images=pictures[1:], duration=lasting, loop=0, **options)
    return content.getvalue()


def _describe(folder: Path, caption: str) -> None:
    """Enters the caption beside those of other figures."""
    file = folder / "captions.json"
    captions = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(captions | {"animation": caption}, indent=1) + "\n")


def _pictures(frames: list[tuple[int, Frame]]) -> list[Image.Image]:
    """Every frame on the same axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second that only toys pay
    from matplotlib.figure import Figure

    plane = frames[0][1]["real"].shape[1] == 2
    pulls = np.concatenate([np.linalg.norm(f["pull"], axis=1) for _, f in frames])
    longest = float(np.quantile(pulls, 0.95)) or 1.0
    largest = max(float(np.abs(_slope(f)).max()) for _, f in frames) or 1.0
    figure = Figure((4.6, 4.6) if plane else (5.6, 3.8), dpi=90, layout="tight")
    canvas, axes, drawn = FigureCanvasAgg(figure), figure.subplots(), []
    for images, f in frames:
        axes.clear()
        _plane(axes, f, longest) if plane else _line(axes, f, longest, largest)
        axes.set_title(f"{images:,} points seen{_outside(f)}", loc="left", fontsize=9)
        axes.tick_params(labelsize=8)
        canvas.draw()
        drawn.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    return drawn


def _slope(f: Frame) -> Any:
    """D's logits without the constant that no sample feels."""
    return f["logits"] - f["logits"].mean()


def _outside(f: Frame) -> str:
    """What share of the samples the picture does not show."""
    low, high = f["places"].min(0), f["places"].max(0)
    share = float(((f["fake"] < low) | (f["fake"] > high)).any(1).mean())
    return f", {share:.0%} of samples beyond the edge" if share >= 0.005 else ""


def _some(f: Frame, wanted: int) -> slice:
    """The samples that get an arrow."""
    return slice(None, None, max(1, len(f["fake"]) // wanted))


def _plane(axes: Any, f: Frame, longest: float) -> None:
    side = round(len(f["places"]) ** 0.5)
    low, high = f["places"].min(0), f["places"].max(0)
    field = np.tanh((f["logits"] - np.median(f["logits"])) / (np.std(f["logits"]) + 1e-9)).reshape(side, side)
    edges = (low[0], high[0], low[1], high[1])
    axes.imshow(field, origin="lower", extent=edges, cmap="RdBu", alpha=0.45, vmin=-1, vmax=1, interpolation="bilinear")
    axes.plot(*f["real"].T, ".", color=_GREY, markersize=2)
    axes.plot(*f["fake"].T, ".", color=_RED, markersize=2.5)
    some = _some(f, _ARROWS)
    arrows = f["pull"][some] / longest * _REACH * float((high - low).max())
    axes.quiver(*f["fake"][some].T, *arrows.T, **_ARROW)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")


def _line(axes: Any, f: Frame, longest: float, largest: float) -> None:
    """Densities, D's curve over them, and below them some samples with their arrows, each at a height of its own."""
    x = f["places"][:, 0]
    bins = np.linspace(x[0], x[-1], 61)
    heights = {
        k: np.histogram(f[k][:, 0], bins)[0] / len(f[k]) / (bins[1] - bins[0]) for k in ("real", "fake")
    }  # shares of all, also of those beyond the edge
    tallest = max(float(h.max()) for h in heights.values()) or 1.0
    for name, colour in (("real", _GREY), ("fake", _RED)):
        axes.stairs(heights[name], bins, fill=True, color=colour, alpha=0.45)
    axes.axhline(tallest / 2, color="0.8", linewidth=0.6)
    axes.plot(x, tallest / 2 * (1 + _slope(f) / largest), color=_BLUE, linewidth=1.5)
    some = _some(f, _ARROWS // 2)
    at = f["fake"][some, 0]
    below = -_STRIP * tallest * (0.2 + 0.7 * (_GOLDEN * np.arange(len(at)) % 1))
    arrows = f["pull"][some, 0] / longest * _REACH * float(x[-1] - x[0])
    axes.plot(at, below, ".", color=_RED, markersize=2.5)
    axes.quiver(at, below, arrows, np.zeros(len(at)), **_ARROW)
    axes.set(xlim=(x[0], x[-1]), ylim=(-_STRIP * tallest, 1.04 * tallest), yticks=[])
