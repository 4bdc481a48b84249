"""Directions of a latent space: where an attribute grows, and where pictures change most.

=========  ========================================================================================================
method     direction
=========  ========================================================================================================
means      μ₊ - μ₋, the mean of points with an attribute less that of points without
logistic   normal of the boundary of logistic regression
svm        normal of the boundary of a linear support vector machine, fitted to the draws that a reader is surest of
           (Shen et al. 2020, *Interpreting the latent space of GANs*, arXiv:1907.10786, section 3.1)
sefa       right singular vectors of the first linear maps of the points, which move their outputs most (Shen and Zhou
           2021, *Closed-form factorization of latent semantics*, arXiv:2007.06600, eq. 6)
pca        principal components of the points; of noise, which has none, the directions that explain the principal
           components of the pictures by least squares (Härkönen et al. 2020, *GANSpace*, arXiv:2004.02546, section 2)
=========  ========================================================================================================

The first three learn from a reader, which says what is in the model's own samples; how well they tell that is measured
on draws that they did not learn from. Points of a model with classes have the mean of their class taken away before.
The others need no labels, and have the name of an attribute only with a measured correlation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from limner.config.call import checked
from limner.core.capabilities import HasStyles
from limner.core.errors import LimnerError, unknown
from limner.core.grid import make_grid
from limner.latent.judges import correlation, reader, scores
from limner.latent.results import TENSORS, Shown, Target, frames, opened, pack, unpack
from limner.latent.spaces import Label, LayerStyles, Measured, Space, Style
from limner.latent.traverse import REACH, Slider, along
from limner.metrics.extractors.readers import ReadsAttributes
from limner.report.explorer import Axis, Panel

Method = Literal["means", "logistic", "svm", "sefa", "pca"]
_LABELLED = ("means", "logistic", "svm")
_LEAST = 10  # examples with a value, and as many without, from which a direction is learnt
_SURE = 50  # draws that a support vector machine learns from on each side, at least
_BASES = 4  # points of which directions without labels are moved, to be named
_SHOWN = 12  # directions on a sheet
_EXTREME = 0.02  # share of the draws at either end that a support vector machine learns from
_FOUND = 10  # directions without labels
_ALL = "all"
_RIDGE = 0.25  # of λ in `Directions.apart_from_all`


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions of one space of one model.

    Attributes:
        space: name of the space.
        method: how they were found.
        names: what each is called: ``glasses=round``, or ``component 1``.
        vectors: (K,D) unit vectors.
        sigma: (K,) standard deviation of the draws of the space along each.
        mean: (D,) mean of the draws.
        accuracy: of each, balanced accuracy on draws that it did not learn from; None where nothing was learnt.
        named: of each, what a reader sees change; None where it has learnt its name.
        normals: (K,D) normals of the boundaries, divided by the standard deviation of the draws along them; None where
            they are the vectors.
    """

    space: str
    method: str
    names: list[str]
    vectors: Tensor
    sigma: Tensor
    mean: Tensor
    accuracy: list[float | None]
    named: list[str | None]
    normals: Tensor | None = None

    def index(self, name: str) -> int:
        """The place of a direction by its name.

        Raises:
            LimnerError: there is none of that name.
        """
        if name not in self.names:
            raise unknown("direction", name, self.names)
        return self.names.index(name)

    def sliders(self, steps: int, limits: tuple[float, float] | None) -> list[Slider]:
        """A slider for each, from -3 to 3 standard deviations of the draws."""
        t = torch.linspace(-REACH, REACH, steps).to(self.mean)
        return [along(n, v, self.mean, float(s), t, limits) for n, v, s in zip(self.names, self.vectors, self.sigma)]

    def positions(self, points: Tensor, i: int) -> Tensor:
        """Where points (B,…) lie across the boundary of direction i, (B,) in standard deviations of the draws."""
        return (points.flatten(1) - self.mean) @ self._across(i)

    def step(self, i: int, points: Tensor, amount: float, to: float | None = None) -> Tensor:
        """Steps (B,D) along direction i from points (B,…).

        Args:
            i: which direction.
            points: the points.
            amount: the length of all steps, in standard deviations of the draws.
            to: the position at which all steps end instead. Points that lie beyond it stay: those above a positive
                position, and those below a negative one.
        """
        v = self.vectors[i]
        if to is None:
            return (amount * self.sigma[i] * v).expand(len(points), -1)
        missing = to - self.positions(points, i)
        missing = missing.clamp_min(0) if to >= 0 else missing.clamp_max(0)
        return missing[:, None] / (self._across(i) @ v) * v

    def _across(self, i: int) -> Tensor:
        """The vector (D,) by which points less the mean are multiplied for their position."""
        return self.vectors[i] / self.sigma[i].clamp_min(1e-12) if self.normals is None else self.normals[i]

    def apart(self, names: Sequence[str]) -> Directions:
        """The same without what lies along some of them: n - V (V⁺ n) with V the named ones (InterFaceGAN, eq. 8).

        The named ones stay, and so do directions that lie among them. Normals stay.
        """
        V = torch.stack([self.vectors[self.index(name)] for name in names], 1).double()  # (D,k)
        n = self.vectors.double()
        rest = n - (V @ torch.linalg.lstsq(V, n.T).solution).T
        lengths = rest.norm(dim=1, keepdim=True)
        others = torch.tensor([name not in names for name in self.names])[:, None]
        moved = torch.where(others & (lengths > 1e-6), rest / lengths.clamp_min(1e-12), n)
        return self._along(moved)

    def apart_from_all(self) -> Directions:
        """The same with as little as can be along the directions of all other attributes.

        There are often more of these than numbers in a point, so that nothing would be left if all of their share
        were taken out. Instead a direction is the δ with

            m · δ = 1  and  1/B Σ_b (m_b · δ)² + λ |δ|²  as small as possible,

        where m is its own normal, the m_b are those of the values of other attributes, and λ is a quarter of the mean
        eigenvalue of 1/B Σ_b m_b m_bᵀ. Normals stay.
        """
        m = torch.stack([self._across(i) for i in range(len(self.names))]).double()
        attributes = [name.partition("=")[0] for name in self.names]
        moved = []
        for own, n in zip(attributes, m, strict=True):
            others = m[[a != own for a in attributes]]
            if len(others):
                A = others.T @ others / len(others)
                n = torch.linalg.solve(A + _RIDGE * A.diagonal().mean() * torch.eye(len(A)).to(A), n)
            moved.append(n / n.norm())
        return self._along(torch.stack(moved))

    def _along(self, vectors: Tensor) -> Directions:
        """The same boundaries with other vectors (K,D)."""
        normals = torch.stack([self._across(i) for i in range(len(self.names))])
        return replace(self, vectors=vectors.to(self.vectors.dtype), normals=normals)

    def file(self, space: Space) -> bytes:
        """The content of ``directions.safetensors``."""
        facts = {"method": self.method, "names": self.names, "accuracy": self.accuracy, "named": self.named}
        tensors = {"vectors": self.vectors, "sigma": self.sigma, "mean": self.mean}
        tensors |= {} if self.normals is None else {"normals": self.normals}
        return pack(tensors, "directions", space, facts)

    def rows(self) -> list[dict[str, Any]]:
        """A document for each direction."""
        each = zip(self.names, self.sigma.tolist(), self.accuracy, self.named, strict=True)
        return [{"direction": n, "sigma": s, "held_out_accuracy": a, "correlates": c} for n, s, a, c in each]


def read_directions(path: str | Path, model: Any) -> Directions:
    """Directions from a file of `limner latent directions`.

    Raises:
        LimnerError: there is no such file, it is damaged, or it belongs to another model.
    """

    def check(about: dict[str, Any], tensors: dict[str, Tensor]) -> bool:
        k, d = tensors["vectors"].shape
        lists = [about["names"], about["accuracy"], about["named"]]
        is_text = all(isinstance(name, str) for name in about["names"])
        is_sized = tensors["sigma"].shape == (k,) and tensors["mean"].shape == (d,)
        is_sized = is_sized and tensors.get("normals", tensors["vectors"]).shape == (k, d)
        return is_sized and is_text and {*map(len, lists)} == {k}

    tensors, about = unpack(path, "directions", model, check)
    vectors, sigma, mean = (tensors[name].to(model.device) for name in ("vectors", "sigma", "mean"))
    normals = tensors["normals"].to(model.device) if "normals" in tensors else None
    found = (about["names"], vectors, sigma, mean, about["accuracy"], about["named"], normals)
    return Directions(about["space"], str(about["method"]), *found)


# ---- with labels ---------------------------------------------------------------------------------------------------


def normal(points: Tensor, positive: Tensor, score: Tensor, method: Method, extreme: float = _EXTREME) -> Tensor:
    """The unit vector (D,) along which points (N,D) gain an attribute.

    Args:
        points: the points.
        positive: (N,) bool, whether a point has it.
        score: (N,) how sure the reader is that it has.
        method: means, logistic or svm.
        extreme: share of the points at either end of the scores that a support vector machine learns from.
    """
    x = points.double()
    if method == "means":
        n = x[positive].mean(0) - x[~positive].mean(0)
        return (n / n.norm().clamp_min(1e-30)).to(points.dtype)
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    labels = positive
    if method == "svm":
        k = max(1, min(max(_SURE, round(extreme * len(x))), int(positive.sum()), int((~positive).sum())))
        order = score.argsort(stable=True)
        ids = torch.cat([order[:k], order[-k:]])
        x, labels = x[ids], torch.arange(2 * k) >= k
    scale = x.std(0).clamp_min(1e-12)
    table, y = ((x - x.mean(0)) / scale).cpu().numpy(), labels.cpu().numpy()
    machine = LinearSVC(C=0.1) if method == "svm" else LogisticRegression(C=0.1, max_iter=500, class_weight="balanced")
    n = torch.from_numpy(machine.fit(table, y).coef_[0]).to(x) / scale
    return (n / n.norm().clamp_min(1e-30)).to(points.dtype)


def ridge(points: Tensor, targets: Tensor, strength: float = 1e-2) -> Tensor:
    """The unit vectors (q,D) along which a linear map of points grows that is fitted to targets.

    W = (XᵀX/N + λI)⁻¹ XᵀY/N of centred points, whose numbers have variance 1 (Hoerl and Kennard 1970, *Ridge
    regression*).

    Args:
        points: (N,D).
        targets: (N,q) numbers, such as amounts of known factors.
        strength: λ. Raise it if there are few points.
    """
    x, y = points.flatten(1).double(), targets.double()
    scale = x.std(0).clamp_min(1e-12)
    x, y = (x - x.mean(0)) / scale, y - y.mean(0)
    gram = x.T @ x / len(x) + strength * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    W = (torch.linalg.solve(gram, x.T @ y / len(x)) / scale[:, None]).T
    return (W / W.norm(dim=1, keepdim=True).clamp_min(1e-30)).to(points.dtype)


def balanced_accuracy(t: Tensor, positive: Tensor, learnt: Tensor) -> float:
    """Balanced accuracy of positions t (N,) on a direction, of points that no threshold was learnt from.

    Args:
        t: positions.
        positive: (N,) bool.
        learnt: (N,) bool, the points from which the best threshold is taken.

    >>> t, y = torch.arange(8.0), torch.arange(8) >= 4
    >>> balanced_accuracy(t, y, torch.arange(8) % 2 == 0)
    1.0
    """
    own, y = t[learnt], positive[learnt]
    order = own.argsort()
    up = (~y[order]).double().cumsum(0) / (~y).sum() + y[order].flip(0).double().cumsum(0).flip(0) / y.sum()
    up = up - y[order].double() / y.sum()  # a point at the threshold is below it
    k = int(up.argmax())
    after = own[order[min(k + 1, len(own) - 1)]]
    threshold = (own[order[k]] + after) / 2
    t, y = t[~learnt] > threshold, positive[~learnt]
    return float(0.5 * ((t & y).sum() / y.sum().clamp_min(1) + (~t & ~y).sum() / (~y).sum().clamp_min(1)))


def by_reader(
    space: Space,
    found: Measured,
    rest: Tensor | None,
    table: Mapping[str, Tensor],
    values: Mapping[str, Sequence[str]],
    method: Method,
    asked: str | None = None,
    extreme: float = _EXTREME,
) -> tuple[Directions, list[str]]:
    """A direction for each value of each attribute, and the values that too few draws have.

    Args:
        space: the space of the draws.
        found: the draws.
        rest: their labels; those of classes have the mean of their class taken away.
        table: log probabilities (N,K) by attribute that a reader gives to the pictures of the draws.
        values: names of the values.
        method: means, logistic or svm.
        asked: one attribute, or one value ``attribute=value``; all by default.
        extreme: as for `normal`.

    Raises:
        LimnerError: there is no such attribute or value, or too few draws have it or have it not.
    """
    points = _centred(found, rest)
    learnt = _learnt_from(len(points))
    names, vectors, accuracies, rare = [], [], [], []
    for attribute, k in _asked(values, asked):
        positive = table[attribute].argmax(1) == k
        name = f"{attribute}={values[attribute][k]}"
        counts = [int(v.sum()) for v in (positive, ~positive)]
        if min(counts) < _LEAST or min(int((positive & ~learnt).sum()), int((~positive & ~learnt).sum())) < 1:
            rare.append(f"{name} ({counts[0]} of {sum(counts)})")
            continue
        n = normal(points[learnt], positive[learnt], table[attribute][learnt, k], method, extreme)
        names.append(name)
        vectors.append(n)
        accuracies.append(balanced_accuracy((points @ n).cpu(), positive, learnt))
    if not names:
        raise LimnerError(
            f"too few samples have what is asked for, or have it not: {', '.join(rare[:6])}; a direction needs"
            f" {_LEAST} of either, so raise samples, or ask for another attribute"
        )
    V = torch.stack(vectors)
    nones: list[str | None] = [None] * len(names)
    return Directions(space.name, method, names, V, found.sigma_along(V), found.mean, [*accuracies], nones), rare


def _centred(found: Measured, rest: Tensor | None) -> Tensor:
    """Points (N,D) less their mean, or that of what is learnt from of their class."""
    points = found.points.flatten(1)
    if rest is None or rest.dim() > 1:
        return points - found.mean
    centred, learnt = points.clone(), _learnt_from(len(points)).to(rest.device)
    for k in rest.unique():
        own = rest == k
        known = own & learnt if bool((own & learnt).any()) else own
        centred[own] -= points[known].mean(0)
    return centred


def _learnt_from(n: int) -> Tensor:
    """The draws (n,) that directions are learnt from: the first three quarters, as labels come in turn."""
    return torch.arange(n) < 3 * n // 4


def _asked(values: Mapping[str, Sequence[str]], asked: str | None) -> list[tuple[str, int]]:
    """Attributes with the index of each value for which a direction is made; of two values that is the second."""
    if asked is None:
        return [(a, k) for a, names in values.items() for k in range(len(names)) if len(names) != 2 or k == 1]
    attribute, _, value = asked.partition("=")
    if attribute not in values:
        raise unknown("attribute", attribute, values)
    names = list(map(str, values[attribute]))
    if not value:
        return [(attribute, k) for k in range(len(names))]
    if value not in names:
        raise unknown(f"value of {attribute}", value, names)
    return [(attribute, names.index(value))]


# ---- without labels ------------------------------------------------------------------------------------------------


def sefa(space: Space, k: int) -> Tensor:
    """The unit vectors (k,D) that move the outputs of the first linear maps of points most, by singular values.

    The maps of a model with styles are those that it names (`HasStyles.modulations`). Of others they are found: every
    layer whose input is the point itself, and which is linear, whatever its kind. Labels beside the point stay.

    Raises:
        LimnerError: no linear layer takes the points.
    """
    if isinstance(space, Style) and isinstance(space.model, HasStyles):
        maps = space.model.modulations()
        if isinstance(space, LayerStyles):
            raise LimnerError("sefa moves all layers alike, in w; write space=w, and choose layers when you edit")
        A = torch.cat([m / m.norm(dim=1, keepdim=True).clamp_min(1e-12) for m in maps]).double()
    else:
        A = torch.cat(_first_maps(space)).double()
    vectors = torch.linalg.svd(A, full_matrices=False)[2]
    vectors = vectors * vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()
    return vectors[:k].float()


@torch.no_grad()
def _first_maps(space: Space) -> list[Tensor]:
    """The matrices (out,D) of the linear layers that take a point itself, found by what their inputs are."""
    rest = space.rest(1, None, 0)
    point = space.draw(1, 0, rest)
    flat = point.flatten().float()
    seen: list[tuple[nn.Module, tuple[Any, ...]]] = []

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and len(inputs[0]) == 1:
            x = inputs[0].flatten().float()
            if len(x) >= len(flat) and torch.equal(x[: len(flat)], flat):
                seen.append((module, inputs))

    hooks = [
        m.register_forward_pre_hook(look)
        for m in space.model.modules()
        if any(p.dim() > 1 for p in m.parameters(recurse=False))
    ]
    try:
        space.decode(point, rest)
    finally:
        for hook in hooks:
            hook.remove()
    maps = []
    for module, inputs in seen:
        x, others = inputs[0], inputs[1:]
        d, units = len(flat), torch.eye(len(flat)).to(x)
        padded = torch.cat([units, units.new_zeros(d, x.numel() - d)], 1).view(d, *x.shape[1:])

        def through(
            step: float, module: nn.Module = module, x: Tensor = x, others: Any = others, by: Tensor = padded
        ) -> Tensor:
            return torch.cat([module(x + step * row[None], *others).flatten(1) for row in by])

        once, twice = through(1.0), through(2.0)
        zero = module(x, *others).flatten(1)
        if torch.allclose(twice - zero, 2 * (once - zero), rtol=1e-3, atol=1e-4 * float(once.abs().max())):
            maps.append((once - zero).T)
    if not maps:
        raise LimnerError(
            f"sefa: no linear layer of {space.model.title} takes its {space.name} as it is; use method=pca"
        )
    return maps


def pca(space: Space, found: Measured, rest: Tensor | None, k: int) -> Tensor:
    """The unit vectors (k,D) of principal components: of the points, or of noise those that explain the pictures'."""
    if space.name != "z" or getattr(space.model.prior, "kind", None) not in ("normal", "uniform"):
        return found.components(k)[0]
    images = Measured.of(space.images(found.points, rest).flatten(1).double())
    components, sigmas = images.components(min(k, found.mean.numel()))
    targets = ((images.points - images.mean) @ components.T / sigmas).to(found.mean.device)  # (N,k)
    points = (found.points.flatten(1) - found.mean).double()
    vectors = torch.linalg.lstsq(points, targets).solution.T
    return (vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-30)).to(found.mean.dtype)


def without_labels(
    space: Space, found: Measured, rest: Tensor | None, method: Method, k: int, eye: ReadsAttributes | None
) -> Directions:
    """The k directions of sefa or pca, with what a reader sees change along each."""
    vectors = (sefa(space, k) if method == "sefa" else pca(space, found, rest, k)).to(found.mean)
    names = [f"component {i + 1}" for i in range(len(vectors))]
    none: list[Any] = [None] * len(names)
    result = Directions(space.name, method, names, vectors, found.sigma_along(vectors), found.mean, none, none)
    if eye is None:
        return result
    base_rest = None if rest is None else rest[:_BASES]
    named: list[str | None] = []
    for slider in result.sliders(7, space.limits):
        points = slider.move(found.points[:_BASES])
        each = None if base_rest is None else base_rest.repeat_interleave(points.shape[1], 0)
        x = space.images(points.flatten(0, 1), each).unflatten(0, points.shape[:2])
        named.append(str(correlation(eye, slider.t, x)))
    return replace(result, named=named)


# ---- the verb ------------------------------------------------------------------------------------------------------


@checked
def directions(
    path: str | Path,
    out: str | Path,
    *,
    method: Method = "logistic",
    space: str | None = None,
    attribute: str | None = None,
    apart: str | None = None,
    k: Annotated[int, Field(ge=1, le=256)] | None = None,
    samples: Annotated[int, Field(ge=20, le=200_000)] = 4000,
    extreme: Annotated[float, Field(gt=0, le=0.5)] | None = None,
    data: str | None = None,
    y: str | int | None = None,
    steps: Annotated[int, Field(ge=3, le=101)] = 7,
    seed: int = 0,
    page: bool = False,
    overwrite: bool = False,
    device: str = "auto",
) -> Shown:
    """Finds directions of a latent space and measures how well they tell an attribute; limner latent edit goes along.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        out: a folder, for directions.safetensors, .png and .json; or one file: directions (.safetensors), a sheet
            (.png) or a page with sliders (.html).
        method: means, logistic or svm, which learn from a reader; sefa or pca, which need no labels.
        space: the space; the first that the model has by default.
        attribute: one attribute, or one value such as glasses=round; all by default.
        apart: directions whose share is taken out of the others, such as "hair=red, glasses=round"; or all, which
            leaves each direction as little as can be of those of all other attributes.
        k: number of directions of sefa and pca; 10 by default.
        samples: samples of the model that are read. Raise it for values that are rare.
        extreme: share of the samples at either end that svm learns from; 0.02 by default.
        data: labelled pictures, a folder or a named set, from which a reader learns; by default the run's own.
        y: for conditional models, the label of all samples; all labels in turn by default.
        steps: pictures of a row of the sheet.
        seed: seed of the samples.
        page: write a page with sliders too.
        overwrite: replace files that exist.
        device: auto, cpu, cuda or mps.

    Raises:
        LimnerError: there is no such model, space, attribute or set, nothing reads the pictures, too few samples have
            the attribute, or a file exists.
    """
    place = opened(path, space, device)
    if isinstance(place, Label):
        raise LimnerError("points of y are labels, which have their directions already; write space=z")
    if attribute is not None and method not in _LABELLED:
        raise LimnerError(f"{method} finds directions without labels; leave attribute out, or use method=logistic")
    if k is not None and method in _LABELLED:
        raise LimnerError(f"{method} finds a direction for each value of an attribute; leave k out, or use method=sefa")
    if extreme is not None and method != "svm":
        raise LimnerError(f"{method} does not look at the ends alone; leave extreme out, or use method=svm")
    if apart == _ALL and (attribute is not None or method not in _LABELLED):
        raise LimnerError(
            "apart=all needs the directions of all attributes; leave attribute out and use means, logistic or svm"
        )
    target = Target(out, "directions", (TENSORS, ".png", ".html"), page=page, overwrite=overwrite)
    eye = reader(path, place.shape, data, place.model.device)
    rest = place.rest(samples, y, seed)
    found = Measured.of(place.draw(samples, seed, rest))
    rare: list[str] = []
    if method in _LABELLED:
        if eye is None:
            raise LimnerError(
                f"nothing is known of the pictures of {place.model.title}, so that {method} has nothing to learn from;"
                " name labelled pictures, data=FOLDER, or use method=sefa"
            )
        table = scores(eye, place.images(found.points, rest))
        result, rare = by_reader(place, found, rest, table, eye.values, method, attribute, extreme or _EXTREME)
    else:
        result = without_labels(place, found, rest, method, k or _FOUND, eye)
    if apart is not None:
        names = [name.strip() for name in apart.split(",")]
        result = result.apart_from_all() if apart == _ALL else result.apart(names)
        result = replace(result, sigma=found.sigma_along(result.vectors))
        if method in _LABELLED:
            result = replace(result, accuracy=_again(result, _centred(found, rest), table, eye.values if eye else {}))
    title = f"Directions in {place.name} of {place.model.title}"
    lines = [f"{title}, by {method} from {samples} samples{'' if eye is None else f' as {eye.key} reads them'}"]
    lines += [_said(row) for row in result.rows()]
    lines += [f"left out, as too few samples have it or have it not: {', '.join(rare)}"] if rare else []
    numbers = {
        "method": method,
        "samples": samples,
        "reader": eye.key if eye else None,
        "directions": result.rows(),
        "rare": rare,
    }
    target.tensors(result.file(place))
    if {".png", ".html"} & target.files.keys():
        order = sorted(range(len(result.names)), key=lambda i: -(result.accuracy[i] or 0))[:_SHOWN]
        moves = result.sliders(steps, place.limits)
        rows = {i: place.images(moves[i].move(found.points[:1])[0], None if rest is None else rest[:1]) for i in order}
        headings = [label.removesuffix(" σ") for label in moves[order[0]].labels]
        sheet = make_grid(torch.cat([*rows.values()]), steps, headings=headings, names=[result.names[i] for i in order])
        target.sheet(sheet, f"limner latent directions: {lines[0]}")
        panels = [
            Panel(_said(result.rows()[i]), [Axis(result.names[i], moves[i].labels, moves[i].start)], frames(x))
            for i, x in rows.items()
        ]
        target.page(title, panels, "\n\n".join(lines[:1]))
    shown = Shown(target.written, place.model.title, place.name, numbers, lines)
    target.numbers(shown.document())
    return shown


def _again(
    result: Directions, points: Tensor, table: Mapping[str, Tensor], values: Mapping[str, Sequence[str]]
) -> list[float | None]:
    """The accuracies of directions that were changed after they were learnt."""
    learnt, accuracies = _learnt_from(len(points)), list[float | None]()
    for name, n in zip(result.names, result.vectors, strict=True):
        attribute, _, value = name.partition("=")
        positive = table[attribute].argmax(1) == list(map(str, values[attribute])).index(value)
        accuracies.append(balanced_accuracy((points @ n).cpu(), positive, learnt))
    return accuracies


def _said(row: Mapping[str, Any]) -> str:
    accuracy = row["held_out_accuracy"]
    measured_ = f"held-out accuracy {accuracy:.3f}" if accuracy is not None else row["correlates"] or "unnamed"
    return f"{row['direction']}: {measured_}"
