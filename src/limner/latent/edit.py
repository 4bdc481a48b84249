"""Edits: points moved along directions, and arithmetic of points, each with a proof of what it changed.

    p' = p + α σ n             along a direction n, α standard deviations of the draws
    p' = p + max(0, t - p·m) n / (m·n)     along n to the position t, with m the normal of the boundary: a point that
                               has much of what is wanted moves less than one that has nothing of it
    p' = mean(a) - mean(b) + mean(c)     arithmetic of examples (Radford, Metz and Chintala 2016, arXiv:1511.06434,
                                         section 6.3.2: single examples are unstable, means of three are not)

The proof of an edit is a *purity matrix*: of many samples, the share that the edit gave what it is for, and for every
attribute the share of samples that kept what they had. Beside it stands a random direction of equal length, since a
step of that length alone changes something. Readers judge both.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from limner.config.call import checked
from limner.core.condition import Attributes
from limner.core.errors import LimnerError
from limner.core.paths import exists
from limner.latent import judges
from limner.latent.directions import Directions, read_directions
from limner.latent.project import looked_at, nearest, pictures, rows_of
from limner.latent.results import Shown, Target, opened
from limner.latent.spaces import Measured, Space, Style, measured, require_label, require_place, space_of, spaces
from limner.metrics.extractors.readers import ReadsAttributes
from limner.report import Figure, Section, Table

_RANDOM = 3  # random directions beside one that was learnt
_CANDIDATES = 2000  # samples among which examples of a description are looked for
_AMOUNT, _EDITED, _ROWS, _EXAMPLES = 3.0, 8, 3, 3  # what is not asked for otherwise
_LEVELS = [k / 4 for k in range(1, 17)]  # positions that to=auto tries, in standard deviations
_ENOUGH = 0.9  # share of the samples that shall show what is wanted


@dataclass(frozen=True)
class Purity:
    """What moving samples did.

    Attributes:
        name: the direction.
        target: the attribute and the value that it is for; None where it has not learnt any.
        reached: of samples that had another value before, the share that a reader gives that value after; None without
            a target or such samples.
        kept: by attribute the share of samples whose value stayed.
    """

    name: str
    target: tuple[str, str] | None
    reached: float | None
    kept: dict[str, float]

    @property
    def others(self) -> float | None:
        """The mean of what the other attributes kept; None where there are none."""
        shares = [v for a, v in self.kept.items() if self.target is None or a != self.target[0]]
        return sum(shares) / len(shares) if shares else None

    def document(self) -> dict[str, Any]:
        """The same as plain values."""
        return {"direction": self.name, "reached": self.reached, "others_kept": self.others, "kept": self.kept}


def purity(
    name: str,
    target: tuple[str, str] | None,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    values: Mapping[str, Sequence[str]],
) -> Purity:
    """A row of a purity matrix from the value indices (N,) by attribute that a reader reads before and after."""
    kept = {a: float((before[a] == after[a]).double().mean()) for a in before}
    reached = None
    if target is not None:
        k = list(map(str, values[target[0]])).index(target[1])
        had_not = before[target[0]] != k
        if bool(had_not.any()):
            reached = float((after[target[0]][had_not] == k).double().mean())
    return Purity(name, target, reached, kept)


def target_of(name: str, values: Mapping[str, Sequence[str]]) -> tuple[str, str] | None:
    """The attribute and the value that a direction is called after, if a reader knows them."""
    attribute, _, value = name.partition("=")
    return (attribute, value) if value and value in map(str, values.get(attribute, ())) else None


def _read(reader: ReadsAttributes, x: Tensor) -> dict[str, Tensor]:
    return {a: logits.argmax(1) for a, logits in judges.scores(reader, x).items()}


def moved(space: Space, points: Tensor, step: Tensor, layers: Sequence[int] = ()) -> tuple[Space, Tensor]:
    """Points (B,…) plus a step (D,), or one for each (B,D), with the space that they lie in.

    Args:
        space: their space.
        points: the points.
        step: what is added.
        layers: of a space w, the layers whose style takes the step; the result then lies in w+. All by default.
    """
    steps = step.expand(len(points), -1).view_as(points)
    if not layers:
        return space, points + steps
    assert isinstance(space, Style)
    whole = space_of(space.model, "w+")
    if points.dim() == 2:
        points, steps = (p[:, None].expand(-1, space.layers, -1) for p in (points, steps))
    ws = points.clone()
    ws[:, list(layers)] += steps[:, list(layers)]
    return whole, ws


def matrix(
    space: Space,
    found: Directions,
    chosen: Sequence[int],
    amount: float,
    reader: ReadsAttributes,
    *,
    to: Sequence[float | None] | None = None,
    n: int = 128,
    layers: Sequence[int] = (),
    y: Any = None,
    seed: int = 0,
) -> list[tuple[Purity, Purity]]:
    """For each chosen direction what a step along it changes, and what a random one of equal length does on average.

    Args:
        space: the space of the directions.
        found: the directions.
        chosen: which of them.
        amount: length of the step in standard deviations along each.
        reader: reads what pictures show.
        to: for each, the position to which samples are moved instead, as for `Directions.step`.
        n: samples that are moved.
        layers: as for `moved`.
        y: the label of the samples.
        seed: seed of samples and random directions.
    """
    rest = space.rest(n, y, seed)
    points = space.draw(n, seed, rest)
    before = _read(reader, space.images(points, rest))
    generator = torch.Generator().manual_seed(seed)

    def row(name: str, target: tuple[str, str] | None, step: Tensor) -> Purity:
        place, changed = moved(space, points, step, layers)
        return purity(name, target, before, _read(reader, place.images(changed, rest)), reader.values)

    result = []
    for i, level in zip(chosen, to or [None] * len(chosen), strict=True):
        step, target = found.step(i, points, amount, level), target_of(found.names[i], reader.values)
        chance = []
        for _ in range(_RANDOM):
            u = torch.randn(found.vectors.shape[1], generator=generator).to(found.vectors)
            chance.append(row("random", target, step.norm(dim=1, keepdim=True) * u / u.norm()))
        reached = [c.reached for c in chance if c.reached is not None]
        mean = {a: sum(c.kept[a] for c in chance) / _RANDOM for a in before}
        at_random = Purity("random", target, sum(reached) / len(reached) if reached else None, mean)
        result.append((row(found.names[i], target, step), at_random))
    return result


def least(
    space: Space,
    found: Directions,
    i: int,
    reader: ReadsAttributes,
    *,
    n: int = 128,
    layers: Sequence[int] = (),
    y: Any = None,
    seed: int = 0,
) -> float:
    """The lowest of the positions .25, .5, … 4 at which nine in ten samples show what direction i is for.

    If there is none, that at which most samples do. The arguments are those of `matrix`.

    Raises:
        LimnerError: the direction is not called after a value of an attribute.
    """
    target = target_of(found.names[i], reader.values)
    if target is None:
        raise LimnerError(f"{found.names[i]} has learnt no value that {reader.key} reads; write to=2, or amount=2")
    rest = space.rest(n, y, seed)
    points = space.draw(n, seed, rest)
    before, best = _read(reader, space.images(points, rest)), (-1.0, 0.0)
    for level in _LEVELS:
        place, changed = moved(space, points, found.step(i, points, 0, level), layers)
        reached = purity("", target, before, _read(reader, place.images(changed, rest)), reader.values).reached
        best = max(best, (1.0 if reached is None else reached, -level))
        if best[0] >= _ENOUGH:
            break
    return -best[1]


# ---- arithmetic ----------------------------------------------------------------------------------------------------


def examples(
    space: Space,
    what: str,
    count: int,
    reader: ReadsAttributes | None,
    candidates: Measured,
    table: Mapping[str, Tensor] | None,
    fit: bool,
    y: Any = None,
) -> Tensor:
    """Points (K,…) of examples: of pictures of the user, or samples of the model that a reader finds described best.

    Args:
        space: the space.
        what: a picture, a folder or a ZIP; or a description such as ``glasses=round hair=red``.
        count: examples to take.
        reader: reads samples, for descriptions.
        candidates: the samples.
        table: log probabilities by attribute that the reader gives to them.
        fit: whether pictures of another size are made to fit.
        y: the label of the pictures.

    Raises:
        LimnerError: there are fewer examples, or nothing reads the samples.
    """
    if "=" in what and not exists(what):
        if reader is None or table is None:
            raise LimnerError(f"nothing reads {what!r} in pictures of this model; name labelled pictures: data=FOLDER")
        asked = _described(what, reader.values)
        total = torch.stack([table[a][:, k] for a, k in asked]).sum(0)
        has_all = torch.stack([table[a].argmax(1) == k for a, k in asked]).all(0)
        if int(has_all.sum()) < count:
            raise LimnerError(
                f"only {int(has_all.sum())} of {len(total)} samples show {what!r}, and {count} examples are asked for;"
                " ask for less, or give pictures"
            )
        return candidates.points[
            total.masked_fill(~has_all, -torch.inf).topk(count).indices.to(candidates.points.device)
        ]
    names, x = pictures(what, space.shape, fit, count)
    if len(names) < count:
        raise LimnerError(
            f"{what} has {len(names)} of the {count} examples; give more pictures, or write examples={len(names)}"
        )
    return located(space, x, candidates, y)


def _described(text: str, values: Mapping[str, Sequence[str]]) -> list[tuple[str, int]]:
    """``glasses=round hair=red`` as attributes with the indices of their values."""
    return list(Attributes(values).asked(text).items())


def located(space: Space, x: Tensor, found: Measured, y: Any = None) -> Tensor:
    """Points (B,…) of pictures x (B,C,H,W): their codes, or the nearest by projection where nothing encodes.

    Raises:
        LimnerError: the points of the space are labels, or the model is conditional and no label is given.
    """
    require_place(space, y)
    x = x.to(space.model.device).float()
    rest = space.rest(len(x), y, 0)
    codes = space.points(x, rest)
    if codes is not None:
        return codes
    return nearest(space, x, rest, found, looked_at(space.shape[0], 0.1, space.model.device))[0]


# ---- the verb ------------------------------------------------------------------------------------------------------


@checked
def edit(
    path: str | Path,
    out: str | Path,
    *,
    directions: str | Path | None = None,
    name: str | None = None,
    amount: Annotated[float, Field(ge=-100, le=100)] | None = None,
    to: Annotated[float, Field(ge=-100, le=100)] | Literal["auto"] | None = None,
    layers: str | None = None,
    a: str | None = None,
    b: str | None = None,
    c: str | None = None,
    examples: Annotated[int, Field(ge=2, le=1000)] | None = None,
    source: str | Path | None = None,
    space: str | None = None,
    n: Annotated[int, Field(ge=1, le=64)] | None = None,
    steps: Annotated[int, Field(ge=1, le=20)] | None = None,
    proof: Annotated[int, Field(ge=2, le=10_000)] = 128,
    data: str | None = None,
    y: str | int | None = None,
    fit: bool = False,
    seed: int = 0,
    page: bool = False,
    overwrite: bool = False,
    device: str = "auto",
) -> Shown:
    """Moves pictures along a direction, or adds and subtracts examples (a - b + c), and measures what changed.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        out: a folder, for edit.png and edit.json; or one file: a sheet (.png) or a page with the purity matrix (.html).
        directions: a file of `limner latent directions` of the same run.
        name: the direction to go along, such as glasses=round; without it the sheet shows the one that tells best, and
            the purity matrix has all.
        amount: how far along the direction, in standard deviations of the model's draws; 3 by default.
        to: instead of amount, the position along the direction, in standard deviations, to which all are moved; those
            beyond it stay. auto takes the lowest at which nine in ten samples, others than those of the proof, show
            what the direction is for. Less is changed in this way than by one amount for all.
        layers: for directions of w, the layers to change, such as 0-3 or 2,5.
        a: examples that have what is wanted: a picture folder, or a description such as "glasses=round hair=red".
        b: examples that are like a without it.
        c: examples that shall get it.
        examples: examples of each whose mean is taken; 3 by default.
        source: pictures to edit, a file, a folder or a ZIP; samples by default.
        space: for arithmetic, the space; the first that the model has by default.
        n: samples or pictures to edit along a direction; 8 by default.
        steps: rows of the sheet after the first, which go further and further along the direction; 3 by default.
        proof: samples that the purity matrix is measured on.
        data: labelled pictures, a folder or a named set, from which a reader learns; by default the run's own.
        y: for conditional models, the label.
        fit: resize and convert pictures of another size or mode, instead of refusing them.
        seed: seed of the samples.
        page: write a page too.
        overwrite: replace files that exist.
        device: auto, cpu, cuda or mps.

    Raises:
        LimnerError: there is no such model, space, direction or picture, the directions are of another run, there are
            too few examples, or a file exists.
    """
    is_sum = [v is not None for v in (a, b, c)]
    if any(is_sum) == (directions is not None) or (any(is_sum) and not all(is_sum)):
        raise LimnerError(
            "an edit goes along directions=FILE, or is arithmetic with a=, b= and c=; write one of the two"
        )
    if directions is None and any(v is not None for v in (name, layers, source, amount, to, n, steps)):
        raise LimnerError(
            "name, amount, to, layers, source, n and steps go with directions=FILE; leave them out of arithmetic"
        )
    if directions is not None and examples is not None:
        raise LimnerError("examples are those of arithmetic, a=, b= and c=; leave examples out of directions=FILE")
    if amount is not None and to is not None:
        raise LimnerError("amount moves all by the same length, and to moves all to the same position; write one")
    place = opened(path, space, device)
    found = None if directions is None else read_directions(directions, place.model)
    if found is not None:
        if space not in (None, found.space):
            raise LimnerError(f"these directions are of {found.space}, not of {space}; leave space out")
        place = spaces(place.model)[found.space]
    target = Target(out, "edit", (".png", ".html"), page=page, overwrite=overwrite)
    eye = judges.reader(path, place.shape, data, place.model.device)
    if found is not None:
        chosen = _layers(layers, place)
        sizes = (n or _EDITED, steps or _ROWS, proof)
        return _along(place, found, target, eye, name, amount, to, chosen, source, *sizes, y, fit, seed)
    return _arithmetic(place, target, eye, str(a), str(b), str(c), examples or _EXAMPLES, proof, fit, y, seed)


def _layers(text: str | None, space: Space) -> list[int]:
    """The layers that a user names: 0-3, or 2,5."""
    if text is None:
        return []
    if not isinstance(space, Style):
        raise LimnerError(f"{space.name} has no layers to choose; leave layers out")
    try:
        parts = [part.split("-") for part in text.split(",")]
        result = sorted({k for part in parts for k in range(int(part[0]), int(part[-1]) + 1)})
    except ValueError:
        result = []
    if not result or result[0] < 0 or result[-1] >= space.layers:
        raise LimnerError(f"layers={text}: write numbers from 0 to {space.layers - 1}, such as 0-2 or 1,3")
    return result


def _along(
    space: Space,
    found: Directions,
    target: Target,
    eye: ReadsAttributes | None,
    name: str | None,
    amount: float | None,
    to: float | Literal["auto"] | None,
    layers: list[int],
    source: str | Path | None,
    n: int,
    steps: int,
    proof: int,
    y: Any,
    fit: bool,
    seed: int,
) -> Shown:
    """An edit along directions."""
    best = max(range(len(found.names)), key=lambda i: found.accuracy[i] or 0)
    shown = best if name is None else found.index(name)
    if source is None:
        rest = space.rest(n, y, seed)
        points = space.draw(n, seed, rest)
    else:
        _, x = pictures(source, space.shape, fit, n)
        points, rest = located(space, x, measured(space, y=y), y), space.rest(len(x), y, seed)
    which = range(len(found.names)) if name is None and eye is not None else [shown]
    amount = _AMOUNT if amount is None else amount
    levels: list[float | None] = [None if to == "auto" else to] * len(which)
    if to == "auto":
        if eye is None:
            raise LimnerError("to=auto needs a reader of these pictures; name labelled ones, data=FOLDER, or a number")
        levels = [least(space, found, i, eye, n=proof, layers=layers, y=y, seed=seed + 2) for i in which]
    level = levels[list(which).index(shown)]
    step = found.step(shown, points, amount, level)
    rows, names = [space.images(points, rest)], ["before"]
    for k in range(1, steps + 1):
        names.append(f"{amount * k / steps:+.3g} SD" if level is None else f"{k}/{steps} of the way")
        place, changed = moved(space, points, k / steps * step, layers)
        rows.append(place.images(changed, rest))
    picture = rows_of(rows, names)
    title = f"{found.names[shown]} {_far(amount, level)} in {space.name} of {space.model.title}"
    lines = [f"{title}: {len(points)} {'samples' if source is None else 'pictures'}, {found.method}"]
    numbers: dict[str, Any] = {"direction": found.names[shown], "method": found.method}
    numbers |= {"amount": amount} if level is None else {"to": level}
    sections = [
        Section("Before and after", lines[0], [_figure(picture, "Before in the first row; each row goes further.")])
    ]
    if eye is None:
        lines.append("no purity matrix, as nothing reads these pictures; name labelled ones: data=FOLDER")
    else:
        table = matrix(space, found, which, amount, eye, to=levels, n=proof, layers=layers, y=y, seed=seed + 1)
        numbers["purity"] = [
            pure.document() | ({} if each is None else {"to": each}) | {"random": chance.document()}
            for (pure, chance), each in zip(table, levels, strict=True)
        ]
        numbers["reader"], numbers["proof"] = eye.key, proof
        lines += [f"{_pure_line(*pair)}, {_far(amount, each)}" for pair, each in zip(table, levels, strict=True)]
        how = "to one position along each direction" if to is not None else _far(amount, None)
        sections.append(_pure_section(table, eye, proof, how))
    target.sheet(picture, f"limner latent edit: {lines[0]}")
    target.article(title, sections)
    result = Shown(target.written, space.model.title, space.name, numbers, lines)
    target.numbers(result.document())
    return result


def _far(amount: float, to: float | None) -> str:
    return f"by {amount:+g} σ" if to is None else f"to {to:+g} σ"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _pure_line(pure: Purity, chance: Purity) -> str:
    return (
        f"{pure.name}: reached {_share(pure.reached)} (random {_share(chance.reached)}), others kept"
        f" {_share(pure.others)} (random {_share(chance.others)})"
    )


def _difference(space: Space, a: str, b: str, step: Tensor, found: Measured) -> Directions:
    """The step from b to a as a direction, called after the only value of a that b does not ask for."""
    only = [word for word in a.split() if word not in b.split()]
    name = only[0] if len(only) == 1 and "=" in only[0] else "a - b"
    vector, none = step.flatten(1), list[Any]([None])
    length = vector.norm(dim=1)
    return Directions(
        space.name, "arithmetic", [name], vector / length.clamp_min(1e-12), length, found.mean, none, none
    )


def _pure_section(table: list[tuple[Purity, Purity]], eye: ReadsAttributes, n: int, how: str) -> Section:
    attributes = list(table[0][0].kept)
    rows = [[p.name, _share(p.reached), *(_share(p.kept[k]) for k in attributes)] for pair in table for p in pair]
    text = f"""Of {n} samples moved {how}, as {eye.key} reads them: reached is the share of those that had
    another value and got the one that the direction is called after; the other columns are the shares that kept their
    value. The row below each direction is the mean of {_RANDOM} random directions of equal length."""
    return Section("What changed, and what stayed", text, table=Table(["direction", "reached", *attributes], rows))


def _figure(picture: Image.Image, caption: str) -> Figure:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return Figure(file.getvalue(), caption, caption)


def _arithmetic(
    space: Space,
    target: Target,
    eye: ReadsAttributes | None,
    a: str,
    b: str,
    c: str,
    count: int,
    proof: int,
    fit: bool,
    y: Any,
    seed: int,
) -> Shown:
    """Means of examples, added and subtracted; single examples beside them."""
    require_label(space, y)
    count_of = _CANDIDATES // 10 if space.is_slow else _CANDIDATES
    candidates = measured(space, count_of, seed, y)
    rest = space.rest(count_of, y, seed)
    table = None if eye is None else judges.scores(eye, space.images(candidates.points, rest))
    points = [examples(space, what, count, eye, candidates, table, fit, y) for what in (a, b, c)]
    one = space.rest(1, y, seed)
    means = [p.mean(0, keepdim=True) for p in points]
    singles = points[0] - points[1] + points[2]  # (K,…)
    total = means[0] - means[1] + means[2]
    rows = [space.images(torch.cat([p, m]), one) for p, m in zip(points, means, strict=True)]
    rows.append(space.images(torch.cat([singles, total]), one))
    picture = rows_of(rows, ("a", "b", "c", "a - b + c"), [*map(str, range(1, count + 1)), "mean"])
    title = f"a - b + c in {space.name} of {space.model.title}"
    lines = [f"{title}: a is {a}, b is {b}, c is {c}; {count} examples of each"]
    numbers: dict[str, Any] = {"a": a, "b": b, "c": c, "examples": count}
    if eye is not None:
        readings = _read(eye, rows[-1])
        said = [" ".join(f"{k}={eye.values[k][int(v[i])]}" for k, v in readings.items()) for i in range(len(rows[-1]))]
        numbers |= {"reader": eye.key, "singles": said[:-1], "of_means": said[-1]}
        lines += [f"of means: {said[-1]}", *(f"of single examples: {text}" for text in said[:-1])]
    caption = "Rows: a, b, c and a - b + c. The last column is of the means, the others are of single examples."
    sections = [Section("Arithmetic of points", "\n\n".join(lines), [_figure(picture, caption)])]
    if eye is not None:
        step = _difference(space, a, b, means[0] - means[1], candidates)
        table_of = matrix(space, step, [0], 1.0, eye, n=proof, y=y, seed=seed + 1)
        numbers["purity"] = [pure.document() | {"random": chance.document()} for pure, chance in table_of]
        lines += [_pure_line(pure, chance) for pure, chance in table_of]
        sections.append(_pure_section(table_of, eye, proof, "by a - b"))
    target.sheet(picture, f"limner latent edit: {lines[0]}")
    target.article(title, sections)
    result = Shown(target.written, space.model.title, space.name, numbers, lines)
    target.numbers(result.document())
    return result
