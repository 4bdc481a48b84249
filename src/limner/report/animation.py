"""The film of a toy run: points, D's field and G's pull over training, from the numbers in ``frames/``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from limner.core.errors import LimnerError
from limner.core.run import Run

_SECONDS = 0.25  # of one frame; the last one stays
_ARROWS = 64
_MOST = 40  # frames of a film
_CAPTION = (
    "Grey: data. Red: samples of the same noise each time. Background: D, blue where it says real. Arrows: where G's"
    " loss moves the samples; all frames have one scale."
)
_CAPTION_LINE = (
    "Grey: density of the data. Red: density of the samples. Blue: what D gives along the line, as a share of its"
    " largest value. Arrows: where G's loss moves the samples; all frames have one scale."
)

Frame = dict[str, Any]


def film(run_folder: str | Path, out: str | Path | None = None) -> Path | None:
    """Draws the film of a run.

    Args:
        run_folder: the folder of a run.
        out: where to write it, ``.webp`` or ``.gif``; default ``figures/animation.webp`` in the run folder.

    Returns:
        The file, or None when the run has no frames (only GANs on points of one or two numbers have).

    Raises:
        LimnerError: the suffix of `out` is another one.
    """
    found = Run(run_folder).frames()
    if not found:
        return None
    path = Path(out) if out else Path(run_folder) / "figures" / "animation.webp"
    if path.suffix not in (".webp", ".gif"):
        raise LimnerError(f"cannot write a film to {path.name}; give a name that ends in .webp or .gif")
    kept = [found[round(i * (len(found) - 1) / (_MOST - 1))] for i in range(_MOST)] if len(found) > _MOST else found
    frames = [(images, dict(np.load(file))) for images, file in kept]
    pictures = _pictures(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    lasting = [int(1000 * _SECONDS)] * (len(pictures) - 1) + [2000]
    options: dict[str, Any] = {"quality": 70, "method": 4} if path.suffix == ".webp" else {"disposal": 2}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=lasting, loop=0, **options)
    if out is None:
        _describe(path.parent, _CAPTION if frames[0][1]["real"].shape[1] == 2 else _CAPTION_LINE)
    return path


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
    longest = max(float(np.quantile(np.linalg.norm(f["pull"], axis=1), 0.95)) for _, f in frames) or 1.0
    figure = Figure((4.6, 4.6) if plane else (5.6, 3.8), dpi=90, layout="tight")
    canvas, axes, drawn = FigureCanvasAgg(figure), figure.subplots(), []
    for images, f in frames:
        axes.clear()
        _plane(axes, f, longest) if plane else _line(axes, f, longest)
        axes.set_title(f"{images:,} images seen", loc="left", fontsize=9)
        canvas.draw()
        drawn.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    return drawn


def _plane(axes: Any, f: Frame, longest: float) -> None:
    side = round(len(f["places"]) ** 0.5)
    low, high = f["places"].min(0), f["places"].max(0)
    field = np.tanh((f["logits"] - np.median(f["logits"])) / (np.std(f["logits"]) + 1e-9)).reshape(side, side)
    edges = (low[0], high[0], low[1], high[1])
    axes.imshow(field, origin="lower", extent=edges, cmap="RdBu", alpha=0.45, vmin=-1, vmax=1, interpolation="bilinear")
    axes.plot(*f["real"].T, ".", color="0.45", markersize=2)
    axes.plot(*f["fake"].T, ".", color="#c22", markersize=2.5)
    some = slice(None, None, max(1, len(f["fake"]) // _ARROWS))
    arrows = f["pull"][some] / longest * 0.12 * float((high - low).max())
    axes.quiver(*f["fake"][some].T, *arrows.T, angles="xy", scale_units="xy", scale=1, width=0.004, color="0.1")
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")


def _line(axes: Any, f: Frame, longest: float) -> None:
    x, logits = f["places"][:, 0], f["logits"]
    bins = np.linspace(x[0], x[-1], 60)
    tallest = 1e-9
    for name, colour in (("real", "0.45"), ("fake", "#c22")):
        heights, _ = np.histogram(f[name][:, 0], bins, density=True)
        axes.stairs(heights, bins, fill=True, color=colour, alpha=0.45)
        tallest = max(tallest, float(heights.max()))
    size = float(np.abs(logits).max()) or 1.0
    axes.plot(x, tallest * (0.5 + 0.5 * logits / size), color="#26a", linewidth=1.5)
    some = slice(None, None, max(1, len(f["fake"]) // (_ARROWS // 2)))
    arrows = f["pull"][some, 0] / longest * 0.12 * float(x[-1] - x[0])
    axes.quiver(
        f["fake"][some, 0], np.full(len(arrows), -0.06 * tallest), arrows, np.zeros(len(arrows)),
        angles="xy", scale_units="xy", scale=1, width=0.004, color="0.1",
    )  # fmt: skip
    axes.set(xlim=(x[0], x[-1]), ylim=(-0.15 * tallest, 1.08 * tallest), yticks=[])
