"""Traversals: one number of a point, or one principal component, moves as far as points go, and all else stays.

A coordinate goes from -3 to 3 of its standard deviation, *measured* over draws of the space: codes of an autoencoder
have their own. Numbers of a uniform prior stay in its range, and a categorical code or a label takes all its values
(Chen et al. 2016, arXiv:1606.03657, figure 2). Rows are sorted by how much the pictures change.

No number of a code has a meaning of its own accord. So a row has a name only with the correlation that was measured:
that of its position with the log probability that a reader gives to a value of an attribute, or with a quantity that it
reads, such as an angle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from limner.config.call import checked
from limner.core.errors import LimnerError
from limner.core.grid import make_grid
from limner.latent.judges import Correlation, correlation, reader
from limner.latent.results import Shown, Target, frames, opened
from limner.latent.spaces import Label, Measured, Space, code_names, measured
from limner.metrics.extractors.readers import ReadsAttributes
from limner.report.explorer import Axis, Panel

REACH = 3.0
"""How many standard deviations a coordinate moves to either side."""
_LOOKED_AT = 256  # coordinates of a point; of more, those with the largest deviations
_SLOW = 8  # part of them, and of other draws, where a picture takes many evaluations of nets
_BASES = 4  # points from which change and correlation are measured
_MILLISECONDS = 120


@dataclass(frozen=True, eq=False)
class Slider:
    """A way to move points.

    Attributes:
        name: which number, component, code or attribute it moves.
        labels: what each position is called.
        t: (T,) the positions.
        move: points (B,T,…) of points (B,…).
    """

    name: str
    labels: list[str]
    t: Tensor
    move: Callable[[Tensor], Tensor]

    @property
    def start(self) -> int:
        """The position in the middle."""
        return len(self.labels) // 2


def along(
    name: str, vector: Tensor, mean: Tensor, sigma: float, t: Tensor, limits: tuple[float, float] | None
) -> Slider:
    """A slider along a unit vector.

    The position of a point on the line is replaced: x + (m + t σ - x·v) v, with m the mean of the draws on it.

    Args:
        name: what it is called.
        vector: (D,) unit vector v.
        mean: (D,) mean of the draws.
        sigma: σ, their standard deviation along v.
        t: (T,) positions in standard deviations.
        limits: lowest and highest number of a point that the model knows; of a coordinate the positions stay within.
    """
    place = mean @ vector + t * sigma
    if limits is not None and int((vector != 0).sum()) == 1:
        low, high = (max(float(place.min()), limits[0]), min(float(place.max()), limits[1]))
        place = torch.linspace(low, high, len(t), dtype=t.dtype, device=t.device)
        t = (place - mean @ vector) / sigma if sigma > 0 else t

    def move(points: Tensor) -> Tensor:
        flat = points.flatten(1)
        moved = flat[:, None] + (place - (flat @ vector)[:, None])[..., None] * vector
        return moved.view(len(points), len(place), *points.shape[1:])

    return Slider(name, [f"{v:+.2g} σ" if abs(v) > 1e-6 else "0 σ" for v in t.tolist()], place, move)


def sliders(
    space: Space, found: Measured, steps: int, kind: str = "coordinates", rows: int = 10, most: int | None = None
) -> list[Slider]:
    """What can be moved in a space.

    Args:
        space: the space.
        found: what its draws are like.
        steps: positions of each slider; codes and labels with values have one for each.
        kind: coordinates, or components, the principal ones of the draws.
        rows: components to make.
        most: coordinates, of which those with the largest deviations are taken; 256 by default.

    Raises:
        LimnerError: the labels of the space have no values, or components of labels are asked for.
    """
    if isinstance(space, Label):
        if kind == "components":
            raise LimnerError("labels take their values, and have no components; leave along out")
        return _of_labels(space)
    t = torch.linspace(-REACH, REACH, steps).to(found.mean)
    if kind == "components":
        vectors, sigmas = found.components(rows)
        named = [(f"component {k + 1}", v, float(s)) for k, (v, s) in enumerate(zip(vectors, sigmas, strict=True))]
        return [along(name, v, found.mean, s, t, None) for name, v, s in named]
    result, skipped = _of_codes(space, steps)
    wide = (
        found.sigma.argsort(descending=True, stable=True)[: (most or _LOOKED_AT) + len(skipped)].sort().values.tolist()
    )
    for i in wide:
        if i not in skipped and float(found.sigma[i]) > 0:
            vector = torch.zeros_like(found.mean)
            vector[i] = 1
            result.append(along(f"{space.name}[{i}]", vector, found.mean, float(found.sigma[i]), t, space.limits))
    return result


def _of_codes(space: Space, steps: int) -> tuple[list[Slider], set[int]]:
    """Sliders of the named codes of a prior, and the coordinates that they are made of."""
    prior = code_names(space)
    if prior is None:
        return [], set()
    result: list[Slider] = []
    for name, code in zip(prior.names, prior.codes, strict=True):
        values = torch.linspace(-1, 1, steps) if code == "uniform" else torch.arange(float(code))

        def move(points: Tensor, name: str = name, values: Tensor = values) -> Tensor:
            repeated = points.repeat_interleave(len(values), 0)
            chosen = values.to(points.device).repeat(len(points))
            return prior.fixed(repeated, {name: chosen}).view(len(points), len(values), -1)

        result.append(Slider(name, [f"{v:.2g}" for v in values.tolist()], values, move))
    return result, {i for first, end in prior.bounds for i in range(first, end)}


def _of_labels(space: Label) -> list[Slider]:
    """A slider for each attribute, or one for all classes."""
    condition, result = space.model.condition, []
    if not condition.values:
        raise LimnerError("labels of this model are vectors without values to go through; walk between two: y= and to=")
    for k, (attribute, values) in enumerate(condition.values.items()):

        def move(points: Tensor, k: int = k, values: Any = values) -> Tensor:
            count = len(values)
            if condition.names is not None:
                return torch.eye(count).to(points).expand(len(points), count, count)
            features = condition.features(points).repeat_interleave(count, 0)
            features[:, k] = torch.arange(count, device=points.device).repeat(len(points))
            return condition.vectors(features).to(points).view(len(points), count, -1)

        result.append(Slider(attribute, list(map(str, values)), torch.arange(float(len(values))), move))
    return result


@dataclass(frozen=True, eq=False)
class Row:
    """What a slider does.

    Attributes:
        slider: the slider.
        change: mean absolute change of a pixel on [0,1] between its first and last position; of values, between
            neighbours.
        images: (T,C,H,W) of the first base point.
        named: what it changes as a reader reads it; None without a reader, and of values, which have their names.
    """

    slider: Slider
    change: float
    images: Tensor
    named: Correlation | None = None


def traversed(
    space: Space,
    moves: list[Slider],
    bases: Tensor,
    rest: Tensor | None,
    rows: int,
    reader: ReadsAttributes | None = None,
) -> list[Row]:
    """The sliders that change pictures most, largest change first.

    Args:
        space: decodes.
        moves: the sliders.
        bases: (B,…) points from which they move; the first one is shown.
        rest: (B,…), that of each base, or None.
        rows: at most so many are returned.
        reader: reads the pictures that are returned.
    """

    def images(points: Tensor) -> Tensor:
        b, t = points.shape[:2]
        each = None if rest is None else rest.repeat_interleave(t, 0)
        return space.images(points.flatten(0, 1), each).unflatten(0, (b, t))

    ends = []
    for slider in moves:
        points = slider.move(bases)
        x = images(points[:, [0, -1]] if _is_line(slider) else points)
        ends.append(float((x[:, 1:] - x[:, :-1]).abs().mean() / 2))
    order = sorted(range(len(moves)), key=lambda i: -ends[i])[:rows]
    result = []
    for i in order:
        x = images(moves[i].move(bases))
        is_named = reader is not None and _is_line(moves[i])
        result.append(Row(moves[i], ends[i], x[0], correlation(reader, moves[i].t, x) if is_named else None))  # type: ignore[arg-type]
    return result


def _is_line(slider: Slider) -> bool:
    """Whether its positions are numbers on a line, and no values."""
    return not slider.t.equal(torch.arange(float(len(slider.t))).to(slider.t))


@checked
def traverse(
    path: str | Path,
    out: str | Path,
    *,
    space: str | None = None,
    along: Literal["coordinates", "components"] = "coordinates",
    rows: Annotated[int, Field(ge=1, le=256)] = 10,
    steps: Annotated[int, Field(ge=3, le=101)] = 9,
    pad: bool = False,
    y: str | int | None = None,
    seed: int = 0,
    data: str | None = None,
    page: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    **options: Any,
) -> Shown:
    """Moves one number of a point, or one principal component, by ±3 measured standard deviations, and all else stays.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        out: a folder, for traverse.png, traverse.webp and traverse.json; or one file: a sheet (.png), a loop (.webp,
            .gif) or a page with sliders (.html).
        space: the space; the first that the model has by default.
        along: coordinates of a point, or principal components of the space's draws.
        rows: sliders to show, those that change the pictures most.
        steps: positions of a slider.
        pad: the page has a pad of the first two sliders as well.
        y: for conditional models, the label of the picture.
        seed: seed of the picture that is changed.
        data: labelled pictures, a folder or a named set, from which a reader learns that names the sliders; by default
            the run's own.
        page: write a page with sliders too.
        overwrite: replace files that exist.
        device: auto, cpu, cuda or mps.
        **options: sampling options of the model, such as truncation=0.7, or psi=0.7 of a model with styles.

    Raises:
        LimnerError: there is no such model, space, label or set, or a file exists.
    """
    place = opened(path, space, device, options, traverse)
    target = Target(out, "traverse", (".png", ".webp", ".gif", ".html"), page=page or pad, overwrite=overwrite)
    eye = reader(path, place.shape, data, place.model.device)
    count, draws = (2, 64) if place.is_slow else (_BASES, 500)
    rest = place.rest(count, y, seed)
    bases = place.draw(count, seed, rest)
    found = measured(place, draws, seed + 1, y)
    moves = sliders(place, found, steps, along, rows, max(1, _LOOKED_AT // _SLOW) if place.is_slow else None)
    table = traversed(place, moves, bases, rest, rows, eye)
    panels = _pad(place, table, bases, rest) if pad else []
    title = f"Traversals of {place.name} of {place.model.title}"
    lines = [f"{title}: {len(table)} of {len(moves)} sliders, those that change the pictures most"]
    lines += [f"{row.slider.name:<14} change {row.change:.3f}{_said(row)}" for row in table]
    numbers = {"reader": None if eye is None else eye.key, "sliders": [_document(row) for row in table]}
    longest = max(len(row.images) for row in table)
    padded = [torch.cat([r.images, torch.ones(longest - len(r.images), *place.shape)]) for r in table]
    sheet = make_grid(torch.cat(padded), longest, names=[_short(row) for row in table])
    target.sheet(sheet, f"limner latent traverse: {lines[0]}")
    if target.has_loop:
        target.loop(_moving(table, steps), _MILLISECONDS)
    if target.has_page:
        panels += [
            Panel(_heading(row), [Axis(row.slider.name, row.slider.labels, row.slider.start)], frames(row.images))
            for row in table
        ]
        target.page(title, panels, _ABOUT)
    result = Shown(target.written, place.model.title, place.name, numbers, lines)
    target.numbers(result.document())
    return result


_ABOUT = """Each slider moves one number of a point and leaves the others. A slider has the name of what a reader sees
change only with the correlation r that was measured; it has none where |r| is below 0.5, where the probability moves by
less than 0.1, or a quantity by less than a tenth of its range."""


def _said(row: Row) -> str:
    return "" if row.named is None else f"  {row.named}"


def _short(row: Row) -> str:
    """The slider, and what it is called if it has a name."""
    called = row.named is not None and row.named.is_name
    return f"{row.slider.name} {row.named.attribute}={row.named.value}" if called and row.named else row.slider.name


def _heading(row: Row) -> str:
    return f"{row.slider.name}{'' if row.named is None else f': {row.named}'}"


def _document(row: Row) -> dict[str, Any]:
    named = row.named
    return {
        "slider": row.slider.name,
        "change": row.change,
        **(
            {}
            if named is None
            else {
                "attribute": named.attribute,
                "value": named.value,
                "r": named.r,
                "effect": named.effect,
                "named": named.is_name,
            }
        ),
    }


def _moving(table: list[Row], steps: int) -> list[Image.Image]:
    """Frames in which all rows move at once, there and back."""
    columns = min(len(table), 5)
    way = [*range(steps), *range(steps - 2, 0, -1)]
    return [
        make_grid(torch.stack([r.images[round(i * (len(r.images) - 1) / (steps - 1))] for r in table]), columns)
        for i in way
    ]


def _pad(space: Space, table: list[Row], bases: Tensor, rest: Tensor | None) -> list[Panel]:
    """A pad of the first two sliders that are lines."""
    lines = [row for row in table if _is_line(row.slider)][:2]
    if len(lines) < 2:
        raise LimnerError(
            f"a pad needs two sliders that move on a line, and {space.name} has {len(lines)}; leave pad out"
        )
    first, second = (row.slider for row in lines)
    across = first.move(bases[:1])[0]  # (T,…)
    points = second.move(across).transpose(0, 1)  # (U,T,…)
    x = space.images(points.flatten(0, 1), None if rest is None else rest[:1])
    axes = [Axis(s.name, s.labels, s.start) for s in (first, second)]
    return [Panel(f"{first.name} across, {second.name} upwards", axes, frames(x))]
