"""The pictures of an animation of a model with a density, or of one that moves points from noise to data."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

_GREY, _RED, _INK, _PALE = "0.45", "#c22", "0.1", "0.75"
_PANEL, _TITLES, _DPI = 3.3, 0.55, 96  # inches of a side, and above it
_SHADES = ("#ffffff", "#d6e6f4", "#91bfe0", "#3c82bd", "#15437f", "#0a1f44")  # of a density, from none to the highest
_TRAIL = ("#2b5fad", "#9a6fb0", "#cc2222")  # of a path, from noise to data
_FASTEST = 4.0  # longest arrow, as a velocity
_TAIL = 10  # kept positions that a moving point draws behind it

Frame = dict[str, Any]

CAPTION = (
    "Densities have one scale in all frames; the gap is the Kullback-Leibler divergence between data and model in nats,"
    " estimated on the training points shown."
)
CAPTION_PATHS = (
    " Paths: points on their way from noise (blue) to data (red). At the end the trained model moves them once more,"
    " with the velocity that it has learnt as arrows."
)
CAPTION_LINES = (
    " Lines: what the flow makes of circles and spokes around the middle of its noise; samples have the colour of their"
    " direction in the noise."
)
CAPTION_CURVE = " Curve: the point to which the flow maps each value of its noise."


def caption(frame: Frame) -> str:
    """The caption of an animation, by what its frames hold."""
    in_plane = frame["real"].shape[1] == 2
    text = CAPTION if "log_density" in frame else ""
    if "path" in frame:
        text += CAPTION_PATHS
    elif "lines" in frame:
        text += CAPTION_LINES if in_plane else CAPTION_CURVE
    return text.strip()


def draw(frames: list[tuple[int, Frame]]) -> tuple[list[Image.Image], int]:
    """An image of every frame, and after them those of the last model's points on their way from noise to data.

    Returns:
        The images, and the number of those at the end that show the points on their way.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # imported here because it takes half a second
    from matplotlib.figure import Figure

    scale = _Scale(frames)
    panels = _panels(frames[-1][1])
    width, height = _PANEL * len(panels), _PANEL + _TITLES
    figure = Figure((width, height), dpi=_DPI)
    canvas, axes = FigureCanvasAgg(figure), figure.subplots(1, len(panels), squeeze=False)[0]
    in_plane = frames[0][1]["real"].shape[1] == 2
    gap = 0.08 if in_plane else 0.45  # inches, for the numbers of an axis
    figure.subplots_adjust(
        left=gap / width, right=1 - 0.08 / width, bottom=gap / height, top=1 - _TITLES / height, wspace=gap / _PANEL
    )  # fixed, so that nothing moves but what is drawn
    images = []

    def picture(f: Frame, title: str, step: int | None = None) -> None:
        for panel, axis in zip(panels, axes, strict=True):
            axis.clear()
            panel(axis, f, scale, step)
        figure.suptitle(title, x=gap / width, y=1 - 0.08 / height, ha="left", va="top", fontsize=10)
        canvas.draw()
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))

    for seen, f in frames:
        picture(f, f"{seen:,} points seen")
    seen, last = frames[-1]
    moments = range(len(last["path"])) if "path" in last else ()
    for step in moments:
        picture(last, f"{seen:,} points seen", step)
    return images, len(moments)


class _Scale:
    """What all frames share: the axes and the highest density."""

    def __init__(self, frames: list[tuple[int, Frame]]) -> None:
        last = frames[-1][1]
        around = last.get("places", 1.5 * last["real"])
        self.low, self.high = around.min(0), around.max(0)
        name = "truth" if "truth" in last else "log_density"
        self.densest = float(np.exp(last[name][np.isfinite(last[name])].max())) if name in last else 1.0
        if "path" in last:
            self.noise = max(2.6, float(np.abs([self.low, self.high]).max()))


def _panels(f: Frame) -> list[Any]:
    """The drawing functions of the panels, from left to right."""
    if f["real"].shape[1] == 1:
        return ([_line_density] if "log_density" in f else []) + [_line_paths if "path" in f else _line_curve]
    panels: list[Any] = []
    if "log_density" in f:
        panels = [_truth, _model]
    return [*panels, _plane_paths if "path" in f else _plane_lines]


# ---- the plane ------------------------------------------------------------------------------------------------------


def _map(axis: Any, log_p: Any, scale: _Scale) -> None:
    """A density as shades."""
    from matplotlib.colors import LinearSegmentedColormap

    side = round(len(log_p) ** 0.5)
    p = np.exp(np.minimum(log_p, 80.0)).reshape(side, side) / scale.densest
    edges = (scale.low[0], scale.high[0], scale.low[1], scale.high[1])
    shades = LinearSegmentedColormap.from_list("density", _SHADES)
    axis.imshow(
        np.minimum(p, 1) ** 0.6, origin="lower", extent=edges, cmap=shades, vmin=0, vmax=1, interpolation="bicubic"
    )  # the power shows what is thin


def _square(axis: Any, scale: _Scale, title: str) -> None:
    axis.set(
        xlim=(scale.low[0], scale.high[0]), ylim=(scale.low[1], scale.high[1]), aspect="equal", xticks=[], yticks=[]
    )
    axis.spines[:].set_color(_PALE)
    axis.set_title(title, loc="left", fontsize=9)


def _truth(axis: Any, f: Frame, scale: _Scale, step: int | None) -> None:
    if "truth" in f:
        _map(axis, f["truth"], scale)
        _square(axis, scale, "density of the data")
    else:
        axis.plot(*f["real"].T, ".", color=_GREY, markersize=2)
        _square(axis, scale, "data")


def _model(axis: Any, f: Frame, scale: _Scale, step: int | None) -> None:
    _map(axis, f["log_density"], scale)
    _square(axis, scale, f"density of the model, {_measured(f)}")


def _measured(f: Frame) -> str:
    """The gap, or the cross-entropy where the density of the data is not known."""
    name, value = ("gap", float(f["gap"])) if "gap" in f else ("-log p(x) =", float(f["nats"]))
    return f"{name} {value:.2f} nats" if abs(value) < 1000 else f"{name} above 1,000 nats"


def _plane_lines(axis: Any, f: Frame, scale: _Scale, step: int | None) -> None:
    """Circles and spokes of the noise as the flow bends them, and samples coloured by their direction in the noise."""
    axis.plot(*f["real"].T, ".", color=_PALE, markersize=2)
    for line in f.get("lines", ()):
        axis.plot(*line.T, color=_INK, linewidth=0.5, alpha=0.5)
    axis.scatter(*f["fake"].T, s=4, c=_colours(f["hue"]) if "hue" in f else _RED, zorder=3)
    _square(axis, scale, "samples, and the bent noise" if "lines" in f else "samples")


def _colours(angles: Any) -> Any:
    """Colours (N,3) around a circle, of about equal lightness: three cosines a third of a turn apart."""
    return 0.48 + 0.4 * np.cos(angles[:, None] - 2 * np.pi / 3 * np.arange(3))


def _plane_paths(axis: Any, f: Frame, scale: _Scale, step: int | None) -> None:
    """Paths from noise to data: whole ones, or the points at one moment with a tail and the velocity."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap

    path, n = f["path"], len(f["path"])
    trail = LinearSegmentedColormap.from_list("trail", _TRAIL)
    first, last = (0, n - 1) if step is None else (max(0, step - _TAIL), step)
    some = path[first : last + 1, ::2] if step is None else path[first : last + 1]
    pieces = np.stack([some[:-1], some[1:]], 2)  # (T-1,N,2,2)
    at = np.repeat(np.arange(first, last) / max(1, n - 1), some.shape[1])
    if len(pieces):
        lines = LineCollection(list(pieces.reshape(-1, 2, 2)), colors=trail(at), linewidths=0.6, alpha=0.35)
        axis.add_collection(lines)
    if step is not None:
        nearest = int(np.abs(f["field_times"] - f["times"][step]).argmin())
        places, field = f["field_places"], f["field"][nearest]
        field = field * np.minimum(1, _FASTEST / (np.linalg.norm(field, axis=1, keepdims=True) + 1e-9))
        axis.plot(*f["real"].T, ".", color=_PALE, markersize=1.5)
        axis.quiver(*places.T, *field.T, color=_INK, alpha=0.35, width=0.003, scale=24, pivot="mid")
        axis.scatter(*path[step].T, s=6, color=trail(step / max(1, n - 1)), zorder=3)
    else:
        axis.scatter(*path[0].T, s=2, color=_TRAIL[0], alpha=0.35)
        axis.scatter(*path[-1].T, s=5, color=_TRAIL[-1], zorder=3)
    axis.set(xlim=(-scale.noise, scale.noise), ylim=(-scale.noise, scale.noise), aspect="equal", xticks=[], yticks=[])
    axis.spines[:].set_color(_PALE)
    moment = "" if step is None else f", t = {f['times'][step]:.2f}"
    axis.set_title(f"from noise (blue) to data (red){moment}", loc="left", fontsize=9)


# ---- a line ---------------------------------------------------------------------------------------------------------


def _line_density(axis: Any, f: Frame, scale: _Scale, step: int | None) -> None:
    """The density of the data in grey, that of the model in red."""
    x = f["places"][:, 0]
    if "truth" in f:
        axis.fill_between(x, np.exp(f["truth"]), color=_GREY, alpha=0.45, linewidth=0)
    else:
        axis.hist(f["real"][:, 0], 60, (x[0], x[-1]), density=True, color=_GREY, alpha=0.45)
    axis.plot(x, np.exp(np.minimum(f["log_density"], 80.0)), color=_RED, linewidth=1.5)
    axis.set(xlim=(x[0], x[-1]), ylim=(0, 1.3 * scale.densest), yticks=[])
    axis.tick_params(labelsize=8)
    axis.set_title(f"grey: data, red: model, {_measured(f)}", loc="left", fontsize=9)


def _line_curve(axis: Any, f: Frame, scale: _Scale, step: int | None) -> None:
    """The point of each value of the noise."""
    if "lines" in f:
        curve = f["lines"][0, :, 0]
        axis.plot(np.linspace(-3, 3, len(curve)), curve, color=_RED, linewidth=1.5)
        axis.set(xlabel="noise", ylabel="point", xlim=(-3, 3), ylim=(scale.low[0], scale.high[0]))
    axis.tick_params(labelsize=8)
    axis.set_title("where the noise goes", loc="left", fontsize=9)


def _line_paths(axis: Any, f: Frame, scale: _Scale, step: int | None) -> None:
    """Paths over time, noise above and data below."""
    last = len(f["path"]) - 1 if step is None else step
    axis.plot(f["path"][: last + 1, ::2, 0], f["times"][: last + 1], color=_TRAIL[0], linewidth=0.5, alpha=0.4)
    axis.plot(f["path"][last, :, 0], np.full(f["path"].shape[1], f["times"][last]), ".", color=_RED, markersize=2.5)
    axis.set(xlim=(-scale.noise, scale.noise), ylim=(-0.02, 1.02), ylabel="t")
    axis.tick_params(labelsize=8)
    axis.set_title("from noise (t = 1) to data (t = 0)", loc="left", fontsize=9)
