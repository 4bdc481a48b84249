"""Walks through latent space: between two codes, along one dimension, over a two-dimensional space, from stop to stop.

A straight line between Gaussian codes passes near the origin, where hardly any code lies; the arc of `slerp` stays at
the norms that codes have (White 2016, *Sampling generative networks*, arXiv:1609.04468, section 2.1). How far a walk
leads is its feature path length (Karras, Laine and Aila 2019, arXiv:1812.04948, section 4.1). The grid of `manifold`
is that of Kingma and Welling 2013 (arXiv:1312.6114), figure 4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from limner.config.call import checked
from limner.core import interpolation
from limner.core.capabilities import Decodes
from limner.core.errors import LimnerError
from limner.core.grid import make_grid
from limner.evaluation.smoothness import evenness, path_lengths
from limner.latent.judges import extractor
from limner.latent.project import pictures as read_pictures
from limner.latent.results import Shown, Target, frames, opened
from limner.latent.spaces import Label, Space, require_place
from limner.metrics.extractors.features import Extractor
from limner.report.explorer import Axis, Panel
from limner.report.images import evenly_spaced

_STRIP = 12  # pictures of a strip
_STOPS = 4
_MOST = 1000  # pictures of a walk
_SAMPLES = 128  # of the model, to which features without labels are fitted
_PLACES = 8  # of each part of a walk, at which its length is measured
_MILLISECONDS = 60


def lerp(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """`steps` codes (steps,…) on the straight line from code a (…) to code b (…), both ends included.

    >>> lerp(torch.tensor([0.0]), torch.tensor([1.0]), 3).flatten()
    tensor([0.0000, 0.5000, 1.0000])
    """
    return _interpolate(interpolation.lerp, a, b, steps)


def slerp(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """`steps` codes (steps,…) on the arc from code a (…) to code b (…), both ends included.

    If a and b have the same norm, all codes have it. If a and b are parallel, no arc is unique and the straight line is
    used.
    """
    return _interpolate(interpolation.slerp, a, b, steps)


def _interpolate(between: interpolation.Interpolation, a: Tensor, b: Tensor, steps: int) -> Tensor:
    if steps < 2:
        raise LimnerError(f"a walk has at least 2 steps, its ends; got {steps}")
    t = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device)
    return between(a.expand(steps, *a.shape), b.expand(steps, *b.shape), t)


@torch.inference_mode()
def traverse(model: Decodes, z: Tensor, dim: int, values: Tensor, y: Tensor | None = None) -> Tensor:
    """Images (T,C,H,W) of code z (…) as dimension `dim` takes each value and all others stay the same.

    Args:
        model: anything that decodes.
        z: one code.
        dim: index into the flattened code.
        values: (T,) values of that dimension.
        y: (T,) classes, for conditional models.

    Raises:
        LimnerError: the code has no such dimension.
    """
    if not 0 <= dim < z.numel():
        raise LimnerError(f"dim={dim} is out of range; this code has dimensions 0 to {z.numel() - 1}")
    codes = z.repeat(len(values), *[1] * z.dim())  # (T,…)
    codes.flatten(1)[:, dim] = values
    return model.decode(codes, y)


def quantile_grid(n: int) -> Tensor:
    """Codes (n·n,2) at quantiles of N(0, I): z1 grows to the right, z2 upwards, rows from the top.

    Coordinates are the inverse normal distribution function at (i + ½)/n, so each cell of the grid has probability 1/n²
    and the grid is denser where codes are more frequent.

    >>> quantile_grid(2)
    tensor([[-0.6745,  0.6745],
            [ 0.6745,  0.6745],
            [-0.6745, -0.6745],
            [ 0.6745, -0.6745]])
    """
    if n < 1:
        raise LimnerError(f"a grid has at least 1 row, got {n}")
    line = torch.special.ndtri((torch.arange(n) + 0.5) / n)
    z2, z1 = torch.meshgrid(line.flip(0), line, indexing="ij")
    return torch.stack([z1.flatten(), z2.flatten()], 1)


@torch.inference_mode()
def manifold(model: Decodes, n: int = 20, device: torch.device | str = "cpu") -> Tensor:
    """Images (n·n,C,H,W) over a two-dimensional latent space, in the order of `quantile_grid`.

    Raises:
        LimnerError: the model's codes have another size.
    """
    try:
        return model.decode(quantile_grid(n).to(device), None)
    except (RuntimeError, ValueError):
        raise LimnerError("a manifold needs a model with two latent dimensions; train one with model.z=2") from None


def through(space: Space, stops: Tensor, n: int, *, closed: bool = False) -> Tensor:
    """Points (n,…) on the way from stop to stop, at equal parts of each way.

    Args:
        space: interpolates.
        stops: (K,…) points, K at least 2.
        n: number of points. An open way begins at the first stop and ends at the last one.
        closed: whether the way leads back to the first stop, which then is not repeated at the end.

    Raises:
        LimnerError: there are fewer than two stops, or fewer points than stops.
    """
    if len(stops) < 2:
        raise LimnerError(f"a walk has at least 2 stops, got {len(stops)}")
    if n < len(stops):
        raise LimnerError(f"{n} pictures are too few for {len(stops)} stops; write n={len(stops)} or more")
    parts = len(stops) if closed else len(stops) - 1
    place = torch.arange(n, dtype=torch.float64) * parts / (n if closed else n - 1)
    k = place.long().clamp(max=parts - 1)
    t = (place - k).to(stops)
    return space.between(stops[k], stops[(k + 1) % len(stops)], t)


def length(space: Space, stops: Tensor, rest: Tensor | None, eye: Extractor) -> tuple[float, float]:
    """Feature path length of the ways between consecutive stops (K,…), with one standard error.

    Args:
        space: decodes.
        stops: (K,…) points; the way leads back to the first.
        rest: that of one image, (1,…), or None.
        eye: computes the features; lengths of different ones cannot be compared.
    """
    a, b = (stops.repeat_interleave(_PLACES, 0) for stops in (stops, stops.roll(-1, 0)))
    t = ((torch.arange(len(a), dtype=torch.float64) % _PLACES + 0.5) / _PLACES).to(a)
    with torch.no_grad():
        lengths = path_lengths(lambda p: space.images(p, rest), eye.features, a, b, t, between=space.between).cpu()
    return float(lengths.mean()), float(lengths.std() / len(lengths) ** 0.5)


@checked
def walk(
    path: str | Path,
    out: str | Path,
    *,
    space: str | None = None,
    stops: Annotated[int, Field(ge=2, le=100)] | None = None,
    n: Annotated[int, Field(ge=2, le=_MOST)] = 60,
    pictures: str | Path | None = None,
    y: str | int | None = None,
    to: str | int | None = None,
    seed: int = 0,
    page: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    **options: Any,
) -> Shown:
    """Walks through a latent space of a trained model, from stop to stop and back to the first.

    The way is an arc (slerp) where noise is normal and a straight line (lerp) elsewhere.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        out: a folder, for walk.png, walk.webp and walk.json; or one file: a strip (.png), a loop (.webp, .gif) or a
            page with a slider (.html).
        space: the space; the first that the model has by default.
        stops: points of the model's own that the walk passes through; 4 by default.
        n: pictures of the whole walk.
        pictures: a picture, a folder or a ZIP of pictures to pass through instead, for models that encode.
        y: for conditional models, the label, which stays; in the space y the label that the walk begins with.
        to: in the space y, the label that the walk leads to; without both it passes all labels.
        seed: seed of the stops.
        page: write a page with a slider too.
        overwrite: replace files that exist.
        device: auto, cpu, cuda or mps.
        **options: sampling options of the model, such as truncation=0.7, or psi=0.7 of a model with styles.

    Raises:
        LimnerError: there is no such model, space, label or picture, or a file exists.
    """
    place = opened(path, space, device, options, walk)
    target = Target(out, "walk", (".png", ".webp", ".gif", ".html"), page=page, overwrite=overwrite)
    if to is not None and not (isinstance(place, Label) and y is not None):
        raise LimnerError(
            "to= is the label that a walk leads to, with y= and space=y; leave it out, or write all three"
        )
    if stops is not None and (pictures is not None or to is not None):
        raise LimnerError("a walk through pictures, or from y= to to=, has its stops; leave stops out")
    rest = place.rest(1, None if isinstance(place, Label) else y, seed)
    points = _stops(place, stops or _STOPS, n, pictures, y, to, seed, rest)
    way = through(place, points, n, closed=True)
    x = place.images(way, rest)
    samples = _SAMPLES // 4 if place.is_slow else _SAMPLES
    samples_rest = place.rest(samples, None, seed + 1)
    eye = extractor(path, place.images(place.draw(samples, seed + 1, samples_rest), samples_rest), place.model.device)
    value, error = length(place, points, rest, eye)
    steps = float(evenness(eye.features(torch.cat([x, x[:1]])).cpu()[None])[0])
    name = place.between.__name__
    numbers = {
        "stops": len(points), "n": n, "between": name, "features": eye.key,
        "path_length": value, "path_length_error": error, "evenness": steps,
    }  # fmt: skip
    title = f"A walk in {place.name} of {place.model.title}"
    lines = [
        f"{title}: {len(points)} stops, {n} pictures, {name}",
        f"feature path length {value:.4g} ± {error:.2g} ({eye.key}); largest step {steps:.2f} × the mean step",
    ]
    shown = frames(x)
    target.sheet(make_grid(x[evenly_spaced(range(n), _STRIP)], min(n, _STRIP)), f"limner latent walk: {lines[0]}")
    target.loop(shown, _MILLISECONDS)
    ticks = [f"{i * len(points) / n:.2f}" for i in range(n)]
    target.page(title, [Panel("From stop to stop", [Axis("stop", ticks)], shown)], "\n\n".join(lines[1:]))
    result = Shown(target.written, place.model.title, place.name, numbers, lines)
    target.numbers(result.document())
    return result


def _stops(
    space: Space,
    count: int,
    most: int,
    pictures: str | Path | None,
    y: Any,
    to: Any,
    seed: int,
    rest: Tensor | None,
) -> Tensor:
    """The points (K,…) that a walk of `most` pictures passes through."""
    if pictures is not None:
        require_place(space, y)
        _, x = read_pictures(pictures, space.shape, True, most + 1)
        if len(x) < 2:
            raise LimnerError(f"a walk passes through at least 2 pictures; {pictures} has {len(x)}")
        if len(x) > most:
            raise LimnerError(f"{pictures} has more than {most} pictures; raise n, up to {_MOST}, or give fewer")
        codes = space.points(x, None if rest is None else rest.expand(len(x), *rest.shape[1:]))
        if codes is None:
            raise LimnerError(
                f"{space.model.title} has no encoder, so that pictures have no place in {space.name};"
                " leave pictures out"
            )
        return codes
    if isinstance(space, Label):
        if (y is None) != (to is None):
            raise LimnerError("a walk in y leads from one label to another; write y=LABEL to=LABEL, or neither")
        if y is not None:
            return torch.cat([space.vectors(y, 1), space.vectors(to, 1)])
        names = space.model.condition.names
        return space.vectors(None, count if names is None else max(2, min(len(names), most)))
    return space.draw(count, seed, None if rest is None else rest.expand(count, *rest.shape[1:]))
