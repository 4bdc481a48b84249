"""Projection: the point of a space whose picture is nearest to a given one, with a report of how near that is.

    start  E(x), or the nearest of N draws
    p* = argmin_p  |x - G(p)|² / D + λ d(x, G(p))        by L-BFGS, each picture alone; or by Adam

d compares random convolutional features (`limner.metrics.paired.Perceptual.random`), and the judge of the result are
other features. Adam follows Karras et al. 2020 (arXiv:1912.04958, appendix D): the learning rate rises over the first
twentieth and falls over the last quarter, and noise that falls to 0 over three quarters is added to the point. The
weights of the model stay as they are.

A number alone says little: a point may give the picture and lie where the model never draws. So each projection has its
*place*, the share of draws that are nearer to the middle by Mahalanobis' distance, and beside all stands a floor: the
model's own samples, projected in the same way, which lie in the model for certain.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from limner.apply.images import ImageSource
from limner.apply.relabel import Distance, pixels, searched
from limner.config.call import checked
from limner.core.errors import LimnerError
from limner.core.grid import make_grid
from limner.data.files import decode as decoding
from limner.latent import judges
from limner.latent.encoder import Fitted, read_encoder
from limner.latent.results import Shown, Target, opened
from limner.latent.spaces import Measured, Space, measured, require_place
from limner.losses.reconstruction import psnr
from limner.metrics.extractors.features import Extractor
from limner.metrics.paired import Perceptual
from limner.report import Figure, Section, Table

Method = Literal["lbfgs", "adam"]
_DRAWS = 512  # from which features without labels, place and starts are taken
_LEAST_ERROR = 1e-10  # mean squared, so that equal pictures have a finite PSNR of 106 dB
_RAMP_UP, _RAMP_DOWN, _NOISY, _NOISE = 0.05, 0.25, 0.75, 0.05  # appendix D
_MOST = 64  # pictures at once


@dataclass(frozen=True, eq=False)
class Projected:
    """Projections of pictures.

    Attributes:
        points: (B,…) the points.
        images: (B,C,H,W) their pictures.
        psnr: (B,) in dB.
        features: (B,) distance of the judge's features.
        place: (B,) share of draws of the space that are nearer to the middle.
        curves: of each picture what was minimised, at every evaluation.
        start: how the points were found that the search began with.
    """

    points: Tensor
    images: Tensor
    psnr: Tensor
    features: Tensor
    place: Tensor
    curves: tuple[tuple[float, ...], ...]
    start: str

    def rows(self, names: list[str]) -> list[dict[str, Any]]:
        """A document for each picture."""
        each = zip(names, self.psnr.tolist(), self.features.tolist(), self.place.tolist(), strict=True)
        return [{"picture": name, "psnr_db": p, "feature_distance": f, "place": q} for name, p, f, q in each]


def looked_at(channels: int, weight: float, device: torch.device | str = "cpu") -> Distance:
    """What a projection minimises: the mean squared difference of pixels and `weight` times that of features."""
    if not weight:
        return pixels
    seen = Perceptual.random(channels, device)
    return lambda a, b: pixels(a, b) + weight * seen.toward(a, b)


def nearest(
    space: Space,
    x: Tensor,
    rest: Tensor | None,
    found: Measured,
    distance: Distance,
    *,
    steps: int = 100,
    method: Method = "lbfgs",
    encoder: Fitted | None = None,
    seed: int = 0,
) -> tuple[Tensor, tuple[tuple[float, ...], ...], str]:
    """Points (B,…) whose pictures are nearest to images x (B,C,H,W), the curves of the search, and how it began.

    Args:
        space: decodes; its model is in evaluation mode.
        x: the images, on the model's device.
        rest: the labels (B,…) of the images, or None.
        found: draws of the space, of which the nearest is a start where nothing encodes.
        distance: what is minimised.
        steps: iterations. Raise it if pictures are not found again.
        method: lbfgs or adam.
        encoder: encodes instead of the model.
        seed: seed of Adam's noise.

    """
    start, how = _start(space, x, rest, found, distance, encoder)
    if method == "adam":
        points, curves = _by_adam(space, start, x, rest, found, distance, steps, seed)
        return points, curves, how
    result = searched(
        lambda p, i: space.decode(p, None if rest is None else rest[i : i + 1]),
        start,
        x,
        distance,
        steps=steps,
        within=space.inside,
    )
    return result.z, result.curves, how


@torch.no_grad()
def _start(
    space: Space, x: Tensor, rest: Tensor | None, found: Measured, distance: Distance, encoder: Fitted | None
) -> tuple[Tensor, str]:
    if encoder is not None:
        return encoder(x).view(len(x), *found.points.shape[1:]), "the fitted encoder"
    encoded = space.points(x, rest)
    if encoded is not None:
        return encoded, "the model's encoder"
    best = []
    for i in range(len(x)):
        if i == 0 or not (rest is None or rest[i].equal(rest[i - 1])):  # the draws look the same with the same label
            drawn = space.images(found.points, None if rest is None else rest[i : i + 1]).to(x)
        far = torch.cat([distance(part, x[i : i + 1].expand_as(part)) for part in drawn.split(64)])
        best.append(found.points[int(far.argmin())])
    return torch.stack(best), f"the nearest of {len(found.points)} draws"


def _by_adam(
    space: Space,
    start: Tensor,
    x: Tensor,
    rest: Tensor | None,
    found: Measured,
    distance: Distance,
    steps: int,
    seed: int,
) -> tuple[Tensor, tuple[tuple[float, ...], ...]]:
    """All pictures at once, as no step of Adam depends on another picture; the best point of each is kept."""
    curves: list[list[float]] = []
    generator = torch.Generator(x.device).manual_seed(seed)
    sigma = float(found.sigma.mean())
    with torch.inference_mode(False), torch.enable_grad():
        x, p = x.clone(), start.clone().requires_grad_()
        adam = torch.optim.Adam([p], betas=(0.9, 0.999))
        best, least = start.clone(), torch.full((len(x),), torch.inf, device=x.device)
        for step in range(steps):
            t = step / steps
            adam.param_groups[0]["lr"] = 0.1 * max(sigma, 1e-8) * _ramp(t)
            noise = torch.randn(p.shape, generator=generator, device=p.device, dtype=p.dtype)
            moved = p + _NOISE * sigma * max(0.0, 1 - t / _NOISY) ** 2 * noise
            loss = distance(space.decode(space.inside(moved), rest), x)
            adam.zero_grad()
            loss.sum().backward(inputs=[p])
            curves.append(loss.detach().tolist())
            with torch.no_grad():
                nearer = (loss < least).view(-1, *[1] * (p.dim() - 1))
                best, least = (
                    torch.where(nearer, space.inside(moved.detach()), best),
                    torch.minimum(loss.detach(), least),
                )
            adam.step()
    return best, tuple(zip(*curves, strict=True))


def _ramp(t: float) -> float:
    """The factor of the learning rate at the share t of all steps."""
    down = 0.5 - 0.5 * cos(pi * min(1.0, (1 - t) / _RAMP_DOWN))
    return down * min(1.0, (t + 1e-3) / _RAMP_UP)


def places(points: Tensor, found: Measured) -> Tensor:
    """The share (B,) of draws that are nearer to the middle than points (B,…): about a half for a draw.

    The distance is Mahalanobis' with the covariance of one half of the draws, and compared with it are those of the
    other half, which the covariance does not know. Where a point has more numbers than a quarter of the draws, numbers
    are taken for independent.
    """
    fitted, others = found.points.flatten(1).double().chunk(2)
    mean, d = fitted.mean(0), fitted.shape[1]
    if 4 * d <= len(fitted):
        covariance = fitted.T.cov(correction=1).view(d, d)
        scale = covariance.diagonal().mean().clamp_min(1e-30)
        inverse = torch.linalg.pinv(covariance / scale, rtol=1e-8, hermitian=True) / scale
    else:
        inverse = (1 / fitted.var(0).clamp_min(1e-12)).diag()

    def far(p: Tensor) -> Tensor:
        centred = p - mean
        return ((centred @ inverse) * centred).sum(1)

    return (far(others)[None] < far(points.flatten(1).double())[:, None]).double().mean(1)


def projected(
    space: Space,
    x: Tensor,
    rest: Tensor | None,
    found: Measured,
    judge: Extractor,
    distance: Distance,
    *,
    of: Measured | None = None,
    **settings: Any,
) -> Projected:
    """Projects images x (B,C,H,W) and measures the result.

    The arguments are those of `nearest`, with the features that judge, and the draws among which points have their
    place; by default those that the search begins with.
    """
    points, curves, start = nearest(space, x.to(space.model.device), rest, found, distance, **settings)
    images = space.images(points, rest)
    difference = (images - x.cpu()).square().flatten(1).mean(1)
    value = torch.where(difference > _LEAST_ERROR, psnr(images, x.cpu().float()), psnr_of(_LEAST_ERROR))
    far = (judge.features(images) - judge.features(x.cpu())).norm(dim=1).cpu()
    return Projected(points, images, value, far, places(points, of or found).cpu(), curves, start)


def psnr_of(error: float) -> Tensor:
    """The PSNR in dB of a mean squared error on [-1,1].

    >>> psnr_of(4.0)
    tensor(0.)
    """
    return 10 * torch.log10(torch.tensor(4 / error))


def pictures(source: str | Path, shape: tuple[int, ...], fit: bool, most: int = _MOST) -> tuple[list[str], Tensor]:
    """Names and images (B,C,H,W) in [-1,1] of a file, a folder, a ZIP or a named set.

    Args:
        source: the pictures.
        shape: (C,H,W) that they shall have.
        fit: resize, crop and convert others, as in training; else they are refused.
        most: pictures that are read.

    Raises:
        LimnerError: there is no picture, or one has another size or mode.
    """
    images = ImageSource(source, shape)  # type: ignore[arg-type]
    if images.files is not None and not fit:
        for name in images.files.names[:most]:
            with decoding.strict(), images.files.open(name) as stream:
                _check(name, decoding.header(stream), shape)
    names, parts = [], []
    for some, x in images.batches(min(most, 64)):
        names += some
        parts.append(x)
        if len(names) >= most:
            break
    return names[:most], torch.cat(parts)[:most]


def _check(name: str, header: decoding.Header, shape: tuple[int, ...]) -> None:
    """Refuses a picture of another size, or with another number of channels."""
    c, h, w = shape
    kinds = {1: "grey", 2: "grey with alpha", 3: "colour", 4: "colour with alpha"}
    has = (1 if header.grey else 3) + header.alpha
    if header.size != (h, w) or has != c:
        is_wrong = f"{header.size[1]}×{header.size[0]} {kinds[has]}"
        raise LimnerError(
            f"{name} is {is_wrong}, and this model draws {w}×{h} {kinds[c]}; write fit=true to resize and convert it"
        )


@checked
def project(
    path: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    space: str | None = None,
    y: str | int | None = None,
    method: Method = "lbfgs",
    steps: Annotated[int, Field(ge=0, le=100_000)] = 100,
    features: Annotated[float, Field(ge=0, le=1000)] = 0.1,
    encoder: str | Path | None = None,
    own: Annotated[int, Field(ge=1, le=_MOST)] = 4,
    n: Annotated[int, Field(ge=1, le=_MOST)] = 8,
    fit: bool = False,
    seed: int = 0,
    page: bool = False,
    overwrite: bool = False,
    device: str = "auto",
) -> Shown:
    """Finds the points of a latent space whose pictures are nearest to given ones, and reports how near they are.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        source: a picture, a folder, a ZIP or a named set (its held-out part), of the size that the model draws.
        out: a folder, for project.png and project.json; or one file: a sheet (.png) of pictures above their
            projections, or a page with all numbers (.html).
        space: the space; the first that the model has by default.
        y: for conditional models, the label that the pictures have.
        method: lbfgs, each picture alone; or adam, all at once with noise that falls, for w.
        steps: iterations; adam needs about 1000.
        features: weight of random convolutional features beside pixels. Raise it for sharper pictures; 0 compares
            pixels alone.
        encoder: a file of `limner latent encoder`, for models without an encoder; by default the search begins at the
            nearest of 512 draws.
        own: samples of the model that are projected too, as the floor of the error.
        n: pictures to project at most.
        fit: resize and convert pictures of another size or mode, instead of refusing them.
        seed: seed of the draws.
        page: write a page too.
        overwrite: replace files that exist.
        device: auto, cpu, cuda or mps.

    Raises:
        LimnerError: there is no such model, space, label or picture, a picture does not fit, or a file exists.
    """
    place = opened(path, space, device)
    require_place(place, y)
    target = Target(out, "project", (".png", ".html"), page=page, overwrite=overwrite)
    fitted = None if encoder is None else read_encoder(encoder, place)
    names, x = pictures(source, place.shape, fit, n)
    draws = _DRAWS // 8 if place.is_slow else _DRAWS
    found = measured(place, draws, seed, y)
    judge = judges.extractor(path, place.images(found.points, place.rest(draws, y, seed)), place.model.device)
    distance = looked_at(place.shape[0], features, place.model.device)
    settings: dict[str, Any] = {"steps": steps, "method": method, "encoder": fitted, "seed": seed}
    result = projected(place, x, place.rest(len(x), y, seed), found, judge, distance, **settings)
    own_rest = place.rest(own, y, seed + 1)
    samples = place.images(place.draw(own, seed + 1, own_rest), own_rest)
    floor = projected(place, samples, own_rest, found, judge, distance, **settings)
    title = f"Projections into {place.name} of {place.model.title}"
    numbers = {
        "method": method, "steps": steps, "start": result.start, "features": judge.key,
        "pictures": result.rows(names), "own_samples": floor.rows([f"sample {i}" for i in range(own)]),
        "curves": [list(c) for c in result.curves],
    }  # fmt: skip
    lines = [
        f"{title}: {len(x)} pictures, by {method} from {result.start}",
        _line("pictures", result),
        _line("own samples, the floor", floor),
    ]
    names_of_rows = ("pictures", "projected", "samples", "projected")
    sheet = rows_of([x.float(), result.images, samples, floor.images], names_of_rows)
    target.sheet(sheet, f"limner latent project: {lines[0]}")
    if target.has_page:
        target.article(title, [_section(lines, sheet, numbers, result, judge.key)])
    shown = Shown(target.written, place.model.title, place.name, numbers, lines)
    target.numbers(shown.document())
    return shown


def _line(what: str, result: Projected) -> str:
    p, f, q = (float(v.median()) for v in (result.psnr, result.features, result.place))
    return f"{what}: PSNR {p:.1f} dB, feature distance {f:.3g}, place {q:.2f} (medians)"


def rows_of(rows: Sequence[Tensor], names: Sequence[str], headings: Sequence[str] | None = None) -> Image.Image:
    """A sheet with a row for each of some sets of images (N,C,H,W), with their names; shorter rows end in white."""
    columns = max(map(len, rows))
    return make_grid(torch.cat([_padded(x.cpu(), columns) for x in rows]), columns, headings=headings, names=names)


def _padded(x: Tensor, columns: int) -> Tensor:
    return torch.cat([x, x.new_ones(columns - len(x), *x.shape[1:])])


def _section(lines: list[str], sheet: Image.Image, numbers: Mapping[str, Any], result: Projected, key: str) -> Section:
    """The page's only section: numbers of each picture, the sheet, and the curves."""
    table = Table(
        ["picture", "PSNR, dB", f"distance ({key})", "place"],
        [list(row.values()) for row in (*numbers["pictures"], *numbers["own_samples"])],
    )
    file = io.BytesIO()
    sheet.save(file, "PNG")
    figures = [
        Figure(
            file.getvalue(),
            "Pictures, their projections, samples of the model, and the projections of these: the floor.",
            "Four rows: pictures, projections, samples, projections of samples",
        ),
        Figure(_curves(result.curves), "What was minimised, at every evaluation, a line a picture.", "Falling curves"),
    ]
    return Section("How near the nearest pictures are", "\n\n".join([*lines, _ABOUT]), figures, table)


_ABOUT = """The place is the share of the model's draws that are nearer to the middle: near 1 the point lies where the
model hardly ever draws. The floor says what the search itself loses on pictures that are in the model for certain."""


def _curves(curves: Sequence[Sequence[float]]) -> bytes:
    """A plot of curves, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # imported here because it takes half a second
    from matplotlib.figure import Figure as Plot

    plot = Plot((5, 3), dpi=100, layout="tight")
    FigureCanvasAgg(plot)
    axes = plot.subplots()
    for curve in curves:
        axes.plot(range(1, len(curve) + 1), curve, linewidth=1)
    axes.set(xlabel="evaluation", ylabel="distance", yscale="log")
    file = io.BytesIO()
    plot.savefig(file, format="png")
    return file.getvalue()
