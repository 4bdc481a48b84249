"""Do generated images help a classifier that has few real ones? Measured on held-out images, over seeds.

For each number of real images a class and each seed, a conditional recipe learns from exactly those images. Then the
same small classifier is trained in several ways, with the same initial weights, number of steps and size of batches:

==================  ==================================================================================================
way                 batches
==================  ==================================================================================================
real                the real images alone
moved               the real images, moved by a few pixels, and mirrored if asked for: the plain augmentation
generated S         a share S of the batch is generated, the rest is real
moved, generated S  the same, with every image moved
==================  ==================================================================================================

A generator knows nothing that its k real images a class do not tell; what it can add is variety between them, and moved
images add that too. So a gain is shown over both baselines. It is paired by seed: the real images, the weights and the
order are those of the baseline, and Student's interval is that of the differences. A seed changes all three.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limner import api, report
from limner.bench import _figures
from limner.bench._trainings import (
    Mean,
    check_same_settings,
    matching_recipes,
    positive_int,
    run_folder,
    split_names,
    train,
)
from limner.config import recipe
from limner.config.recipe import Recipe
from limner.core.batch import Dataset, Images, to_float, to_uint8
from limner.core.capabilities import Conditional
from limner.core.device import pick
from limner.core.durable import replace_file
from limner.core.errors import LimnerError
from limner.core.frame import drawable
from limner.core.model import GenerativeModel
from limner.core.paths import user_path
from limner.core.progress import Progress, Silent
from limner.core.records import parse_json, read_bytes
from limner.core.run import Run, relative
from limner.core.train import Interrupted
from limner.data.augment import flip as mirrored
from limner.data.augment import shift as moved
from limner.evaluation.subjects import heldout_of
from limner.metrics.conditions import agreement
from limner.metrics.extractors.readers import SmallReader, reading
from limner.report import Figure, Section, Table
from limner.report.words import aligned

_BATCH = 64  # images of a step of the classifier
_TESTED = 10_000  # held-out images
REAL, MOVED = "real", "moved"


@dataclass(frozen=True)
class Cell:
    """The classifiers of one number of real images and one seed.

    Attributes:
        per_class: real images a class.
        seed: seed of the choice of images, of the generator and of the classifiers.
        accuracies: accuracy on held-out images by the way of training.
        run: folder of the generator's run, relative to the bench's; "" for a run that was given.
    """

    per_class: int
    seed: int
    accuracies: dict[str, float]
    run: str


@dataclass(frozen=True)
class _Data:
    """Labelled images to choose from, and held-out ones (N,C,H,W) uint8 with their classes (N,)."""

    train: Dataset
    x: Tensor
    y: Tensor

    @property
    def classes(self) -> list[str]:
        return self.train.classes or []


@dataclass(frozen=True)
class _Settings:
    """What decides the accuracies of a cell, beside the generator."""

    steps: int
    generated: int
    shares: tuple[float, ...]
    shift: int
    flip: bool

    @property
    def ways(self) -> dict[str, tuple[float, bool]]:
        """The share of generated images, and whether images are moved, by the name of the way."""
        shares = {f"generated {share:g}": share for share in self.shares}
        with_moves = {f"{MOVED}, {name}": (share, True) for name, share in shares.items()}
        return {REAL: (0.0, False), MOVED: (0.0, True)} | {k: (v, False) for k, v in shares.items()} | with_moves


def run(
    *,
    progress: Progress | None = None,
    recipe: str | Path = "cvae-mnist",
    run: str | Path | None = None,
    data: str | Path | dict[str, Any] | None = None,
    per_class: int | str | Sequence[int] = "10,20,50",
    seeds: int | str = 3,
    shares: float | str | Sequence[float] = "0.5",
    images: int | str = "60k",
    steps: int | str = 600,
    generated: int | str = 200,
    shift: int = 2,
    flip: bool = False,
    out: str | Path = "runs/bench-augment",
    **overrides: Any,
) -> dict[str, Any]:
    """Trains generators and classifiers, and writes ``results.json`` and ``index.html`` into `out`.

    A bench that was interrupted continues: what is finished is not trained again. More seeds or more numbers of images
    continue from the existing ones, too.

    Args:
        progress: receives the progress of trainings and messages.
        recipe: a conditional recipe, which is trained on the real images that the classifier has.
        run: a conditional run that generates instead. It has seen its own training images, which are more than the
            classifier's, so its gain is not that of a small set.
        data: labelled images with held-out ones; default those of the recipe.
        per_class: numbers of real images a class.
        seeds: number of seeds, from 0. One gives no verdict.
        shares: shares of generated images in a batch.
        images: images that each generator sees in its training.
        steps: steps of each classifier, with batches of 64.
        generated: generated images a class.
        shift: pixels by which the plain augmentation moves an image at most.
        flip: whether it mirrors images, too. Set it if a mirrored image has the same class, as clothes have and digits
            have not.
        out: the folder.
        **overrides: keys of the generator's recipe, e.g. train.threads=1 or model.z=8.

    Returns:
        ``page``, ``rows`` (for each number and way: mean, interval, gains over both baselines), ``verdicts``,
        ``trainings`` (the accuracies of each seed) and ``conditions``.

    Raises:
        LimnerError: the data have no classes or nothing held out, a class has too few images, the model takes no
            labels, or the folder has results of other settings.
    """
    progress, folder = progress or Silent(), user_path(out, "a folder")
    n_seeds = positive_int("seeds", seeds)
    numbers = [positive_int("per_class", n) for n in _listed("per_class", per_class)]
    settings = _Settings(
        positive_int("steps", steps), positive_int("generated", generated), _shares(shares), int(shift), bool(flip)
    )
    if settings.shift < 0:
        raise LimnerError(f"shift: {shift} pixels are not possible; write 0 or more")
    if run is not None and overrides:
        key = next(iter(overrides))
        raise LimnerError(f"{key} is a key of a recipe, and run={run} is trained already; leave one out")
    name_of_recipe, n_images = _one(str(recipe)), positive_int("images", images)
    base = _base(name_of_recipe, data)
    found = _load(base, numbers)
    given = None if run is None else _given(run, found, str(base.train.get("device")))
    plan = [(n, seed) for seed in range(n_seeds) for n in numbers]
    generators: dict[tuple[int, int], Recipe] = {}
    if given is None:
        for n, seed in plan:
            planned = _generator(name_of_recipe, folder, found, n, seed, n_images, overrides)
            check_same_settings(run_folder(folder, f"{n}-{seed}"), planned)
            generators[n, seed] = planned
        _check_conditional(generators[plan[0]], found)
    what = {"run": str(run)} if run is not None else {"run": "", "images": n_images}
    _check_same(folder, asdict(settings) | what | {"data": base.data.to_dict()})
    for n, seed in generators:
        _write_images(_images_of(folder, n, seed), found, n, seed)
    cells: list[Cell] = []
    result: dict[str, Any] = {}
    for n, seed in plan:
        progress.say(f"bench augment: {n} real images a class, seed {seed}")
        model, name = given, ""
        if given is None:
            planned = generators[n, seed]
            try:
                trained = train(run_folder(folder, f"{n}-{seed}"), planned, progress)
            except Interrupted:
                progress.say("bench augment: stopped; the same command goes on from here")
                raise
            name = f"runs/{trained.path.name}"
            model = None if _cell_file(folder, n, seed).is_file() else api.load(trained.latest, _device(planned))
        cells.append(_cell(folder, found, n, seed, model, name, settings))
        result = _write(folder, cells, found, settings, str(recipe), run, len(plan), images)
    return result


# -- settings -----------------------------------------------------------------------------------------------


def _listed(key: str, values: Any) -> list[Any]:
    """The values of a list, of a text with commas, or a single one, without repetitions."""
    if isinstance(values, str):
        return list(split_names(key, values))
    return list(dict.fromkeys(values if isinstance(values, list | tuple) else [values]))


def _shares(values: Any) -> tuple[float, ...]:
    shares = []
    for value in _listed("shares", values):
        try:
            share = float(value)
        except (TypeError, ValueError):
            share = -1.0
        if not 0 < share < 1 or not 0 < round(share * _BATCH) < _BATCH:
            raise LimnerError(
                f"shares: {value!r} is not possible in batches of {_BATCH}; write numbers between 0 and 1, such as"
                " 0.25,0.5"
            )
        shares.append(share)
    return tuple(shares)


def _check_same(folder: Path, asked: Mapping[str, Any]) -> None:
    """Writes the settings of a new bench; raises an error if the folder has results of others."""
    file, wanted = folder / "settings.json", json.loads(json.dumps(asked))
    try:
        if file.is_file():
            if parse_json(read_bytes(file)) != wanted:
                raise LimnerError(f"{relative(folder)} has results of other settings; choose another out=DIR")
            return
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(file, (json.dumps(wanted, indent=1) + "\n").encode())
    except OSError as error:
        raise LimnerError(f"cannot write {relative(folder)}: {error.strerror}; choose another out=DIR") from None


def _one(name: str) -> str:
    """The recipe that a name, a pattern or a file stands for."""
    names = matching_recipes(name)
    if len(names) > 1:
        raise LimnerError(f"recipe: {name} stands for {len(names)} recipes; name one")
    return names[0]


def _base(name: str, data: Any) -> Recipe:
    return recipe.load(name, {} if data is None else {"data": data})


def _device(planned: Recipe) -> str:
    return str(pick(str(planned.train.get("device")).split(",")[0]))


def _load(base: Recipe, numbers: Sequence[int]) -> _Data:
    train: Dataset = base.data.build()
    if train.batch_type is not Images or drawable(train.shape) or train.labels is None or not train.classes:
        raise LimnerError(f"{train.name} has no images with classes; choose labelled ones, such as data=mnist-5k")
    heldout = heldout_of(base.data)
    if heldout is None:
        raise LimnerError(f"{train.name} has no held-out images to test classifiers on; leave data.split out")
    counts = torch.bincount(train.labels, minlength=len(train.classes))
    least = int(counts.argmin())
    if int(counts.min()) < max(numbers):
        raise LimnerError(
            f"class {train.classes[least]!r} of {train.name} has {int(counts.min())} images;"
            f" per_class={max(numbers)} needs as many of each"
        )
    ids = torch.linspace(0, len(heldout) - 1, min(len(heldout), _TESTED)).round().long()
    assert heldout.labels is not None
    return _Data(train, heldout.fetch(ids.tolist()), heldout.labels[ids])


def chosen(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Indices of `per_class` images of each class, drawn at random; those of a smaller number are among them.

    >>> labels = torch.arange(20) % 2
    >>> labels[chosen(labels, 3, 0)].tolist()
    [0, 0, 0, 1, 1, 1]
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    parts = [order[labels[order] == k][:per_class] for k in range(int(labels.max()) + 1)]
    return torch.cat(parts)


def _images_of(folder: Path, n: int, seed: int) -> Path:
    return folder / "images" / f"{n}-{seed}"


def _write_images(place: Path, found: _Data, n: int, seed: int) -> None:
    """Writes the real images of a cell as PNGs, a sub-folder for each class by its number, for the generator."""
    assert found.train.labels is not None
    ids = chosen(found.train.labels, n, seed)
    try:
        for i, x in zip(ids.tolist(), found.train.fetch(ids.tolist()), strict=True):
            file = place / f"{int(found.train.labels[i]):04d}" / f"{i:07d}.png"
            if not file.is_file():
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = (x if x.dtype == torch.uint8 else to_uint8(x)).permute(1, 2, 0).numpy()
                Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)).save(file)
    except OSError as error:
        raise LimnerError(f"cannot write {relative(place)}: {error.strerror}; choose another out=DIR") from None


def _generator(
    name: str, folder: Path, found: _Data, n: int, seed: int, images: int, overrides: Mapping[str, Any]
) -> Recipe:
    """The recipe of the generator on these images alone, without scores on the way.

    Raises:
        LimnerError: `overrides` change what the bench decides.
    """
    for key in overrides:
        if key.removeprefix("train.") in ("seed", "images", "time") or key.split(".")[0] == "data":
            raise LimnerError(f"{key} is set by the bench; write seeds=3, images=60k or data=NAME")
    c, h, w = found.train.shape
    data = {"name": "folder", "path": str(_images_of(folder, n, seed)), "size": [h, w], "channels": c, "split": "all"}
    fixed = {"data": data, "train.seed": seed, "train.images": images, "train.score_images": 0}
    planned = recipe.load(name, fixed | dict(overrides))
    batch = min(planned.train.get("batch"), n * len(found.classes))
    return recipe.load(name, fixed | dict(overrides) | {"train.batch": batch})


def _check_conditional(planned: Recipe, found: _Data) -> None:
    model = planned.model.build(**found.train.facts())
    if not isinstance(model, Conditional):
        raise LimnerError(f"{planned.name} takes no labels; choose a conditional recipe, such as recipe=cvae-mnist")


def _given(path: str | Path, found: _Data, device: str) -> GenerativeModel:
    model = api.load(path, str(pick(device.split(",")[0])))
    if not isinstance(model, Conditional) or model.condition.names != found.classes:
        raise LimnerError(
            f"{path} does not generate the classes of {found.train.name}; choose a run that was trained on it"
        )
    return model


# -- trainings -----------------------------------------------------------------------------------------------


def _cell_file(folder: Path, n: int, seed: int) -> Path:
    return folder / "cells" / f"{n}-{seed}.json"


def _cell(
    folder: Path,
    found: _Data,
    n: int,
    seed: int,
    model: GenerativeModel | None,
    name: str,
    settings: _Settings,
) -> Cell:
    """The accuracies of a cell, from its file if it is finished."""
    file = _cell_file(folder, n, seed)
    if file.is_file():
        try:
            content = parse_json(read_bytes(file))
            return Cell(n, seed, {way: float(content[way]) for way in settings.ways}, name)
        except (LimnerError, ValueError, TypeError, KeyError):
            raise LimnerError(
                f"{relative(file)} is damaged; delete it, and the same command measures it again"
            ) from None
    assert model is not None
    assert found.train.labels is not None
    ids = chosen(found.train.labels, n, seed)
    real, of_real = to_float(found.train.fetch(ids.tolist())), found.train.labels[ids]
    of_fake = torch.arange(settings.generated * len(found.classes)) % len(found.classes)
    fake = to_float(to_uint8(model.sample(len(of_fake), y=of_fake, seed=seed).clamp(-1, 1).cpu()))
    values = {"class": found.classes}
    accuracies = {}
    for way, (share, moves) in settings.ways.items():
        batches = mixed(
            (real, of_real), (fake, of_fake), share, settings.steps, seed, settings.shift if moves else 0,
            settings.flip and moves,
        )  # fmt: skip
        net = SmallReader.taught(batches, settings.steps, real.shape[1], values, {}, seed=seed)
        read = reading(net.logits(found.x), values, values)
        accuracies[way] = agreement(read, found.y[:, None]).value
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, (json.dumps(accuracies, indent=1) + "\n").encode())
    return Cell(n, seed, accuracies, name)


def mixed(
    real: tuple[Tensor, Tensor],
    fake: tuple[Tensor, Tensor],
    share: float,
    steps: int,
    seed: int,
    shift: int = 0,
    flip: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of 64 real and generated images, drawn with repetition, and their labels (B,1).

    The i-th real image of a batch is the same whatever the share, so that ways of training differ in nothing else.

    Args:
        real: images (N,C,H,W) in [-1,1] and classes (N,).
        fake: generated ones.
        share: share of generated images in each batch.
        steps: number of batches.
        seed: seed of the choice, and of how images are moved.
        shift: pixels by which each image is moved at most.
        flip: whether half of the images are mirrored.
    """
    choice, others = (torch.Generator().manual_seed(2 * seed + k) for k in (0, 1))
    n_fake = round(share * _BATCH)
    for _ in range(steps):
        ids = torch.randint(len(real[0]), (_BATCH,), generator=choice)[n_fake:]
        new = torch.randint(len(fake[0]), (_BATCH,), generator=others)[:n_fake]
        keys = torch.randint(1 << 62, (_BATCH,), generator=choice)
        x, y = torch.cat([fake[0][new], real[0][ids]]), torch.cat([fake[1][new], real[1][ids]])
        x = moved(x, keys, shift) if shift else x
        yield mirrored(x, keys) if flip else x, y[:, None]


# -- results ------------------------------------------------------------------------------------------------


def _rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """For each number of real images and each way: accuracy, and paired gains over both baselines."""
    rows = []
    for n in dict.fromkeys(cell.per_class for cell in cells):
        of_n = [cell.accuracies for cell in cells if cell.per_class == n]
        for way in of_n[0]:
            gains = {
                baseline: asdict(Mean.of([a[way] - a[baseline] for a in of_n]))
                for baseline in (REAL, MOVED)
                if way != baseline and not (baseline == MOVED and way == REAL)
            }
            values = [a[way] for a in of_n]
            rows.append({"per_class": n, "way": way, **asdict(Mean.of(values)), "values": values, "gains": gains})
    return rows


def _verdicts(rows: Sequence[Mapping[str, Any]], seeds: int) -> list[str]:
    """Sentences on whether generated images help, for each number of real images."""
    if seeds < 2:
        return ["One seed gives no verdict, as its random variation is unknown; write seeds=3."]
    sentences = []
    for row in rows:
        if "generated" not in row["way"]:
            continue
        baseline = MOVED if row["way"].startswith(MOVED) else REAL
        sentences.append(
            f"{row['per_class']} real images a class, {row['way']}: {verdict(row['gains'][baseline], baseline)}"
        )
        if baseline == REAL:
            sentences[-1] += f" Compared with moved images: {verdict(row['gains'][MOVED], MOVED)}"
    return sentences


def verdict(gain: Mapping[str, Any], baseline: str) -> str:
    """What a gain over a baseline says.

    >>> verdict({"mean": 0.031, "low": 0.01, "high": 0.052}, "real")
    'generated images help: +.031 (95 % +.010 to +.052) over real images alone.'
    >>> verdict({"mean": 0.004, "low": -0.01, "high": 0.018}, "moved")
    'generated images do not help as far as these seeds show: +.004 (95 % −.010 to +.018) over moved images.'
    """
    over = {REAL: "real images alone", MOVED: "moved images"}[baseline]
    numbers = f"{_signed(gain['mean'])} (95 % {_signed(gain['low'])} to {_signed(gain['high'])}) over {over}."
    if gain["low"] > 0:
        return f"generated images help: {numbers}"
    if gain["high"] < 0:
        return f"generated images do harm: {numbers}"
    return f"generated images do not help as far as these seeds show: {numbers}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−").replace("0.", ".", 1)


def _cells_text(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The rows of the table: images, way, accuracy, gain over real images alone, gain over moved images."""
    lines = []
    for row in rows:
        gains = [row["gains"].get(baseline) for baseline in (REAL, MOVED)]
        lines.append(
            (str(row["per_class"]), row["way"], _percent(row), *["–" if g is None else _points(g) for g in gains])
        )
    return lines


def _percent(mean: Mapping[str, Any]) -> str:
    half = "" if mean["low"] is None else f" ± {100 * (mean['mean'] - mean['low']):.1f}"
    return f"{100 * mean['mean']:.1f}{half} %"


def _points(mean: Mapping[str, Any]) -> str:
    half = "" if mean["low"] is None else f" ± {100 * (mean['mean'] - mean['low']):.1f}"
    return f"{100 * mean['mean']:+.1f}{half}".replace("-", "−")


_HEAD = ("real images a class", "trained on", "accuracy", "gain over real", "gain over moved")


def text(trained: Sequence[Mapping[str, Any]]) -> str:
    """The table and the verdicts of ``trainings`` in the result of `run`, for a terminal."""
    rows = _rows([Cell(**cell) for cell in trained])
    table = aligned([_HEAD, *_cells_text(rows)])
    return "\n".join([*table, "", *_verdicts(rows, len({cell["seed"] for cell in trained}))])


def _write(
    folder: Path,
    cells: Sequence[Cell],
    found: _Data,
    settings: _Settings,
    name: str,
    given: str | Path | None,
    planned: int,
    images: int | str,
) -> dict[str, Any]:
    rows, seeds = _rows(cells), len({cell.seed for cell in cells})
    done = len(cells) == planned
    verdicts = (
        _verdicts(rows, seeds) if done else [f"{len(cells)} of {planned} cells are done; verdicts come with the last."]
    )
    c, h, w = found.train.shape
    conditions = {
        "data": found.train.name, "size": [c, h, w], "classes": len(found.classes), "tested_on": len(found.y),
        "seeds": seeds, "generator": name if given is None else str(given),
        "trained_for": images if given is None else None, **asdict(settings),
    }  # fmt: skip
    content = {
        "conditions": conditions, "rows": rows, "verdicts": verdicts, "trainings": [asdict(cell) for cell in cells]
    }  # fmt: skip
    replace_file(folder / "results.json", (json.dumps(content, indent=1) + "\n").encode())
    page = report.write_page(
        folder / "index.html",
        "Do generated images help a classifier?",
        list(_sections(folder, content, cells)),
        "bench",
    )
    return content | {"page": relative(page)}


def _sections(folder: Path, content: Mapping[str, Any], cells: Sequence[Cell]) -> Iterator[Section]:
    conditions, rows = content["conditions"], content["rows"]
    yield Section("Verdict", "\n\n".join(content["verdicts"]))
    curves = {
        way: [(row["per_class"], row["mean"], row["low"], row["high"]) for row in rows if row["way"] == way]
        for way in dict.fromkeys(row["way"] for row in rows)
    }
    figure = Figure(
        _figures.lines(curves, "real images a class", "accuracy"),
        f"Accuracy on {conditions['tested_on']:,} held-out images; bars are Student's 95 % intervals over seeds.",
        "A line for each way of training, over the number of real images a class",
    )
    yield Section(
        "Accuracy",
        f"Mean ± half of Student's 95 % interval over {conditions['seeds']} seeds. Gains are in percentage points and"
        " paired by seed, which makes their intervals narrower than those of the accuracies. They are not corrected for"
        " the number of comparisons: of twenty without an effect, one looks like one.",
        (figure,),
        Table(_HEAD, _cells_text(rows)),
    )
    sheets = []
    for cell in cells:
        grids = Run(folder / cell.run).samples() if cell.run and cell.seed == 0 else []
        if grids:
            caption = f"The generator of {cell.per_class} real images a class, seed 0: not selected."
            sheets.append(Figure(grids[-1][1], caption, f"Samples of the generator of {cell.per_class} images a class"))
    if sheets:
        yield Section("What was generated", "", sheets)
    yield Section("Conditions", _conditions_text(conditions))


def _conditions_text(conditions: Mapping[str, Any]) -> str:
    source = (
        f"{conditions['generator']}, trained on exactly the real images of each row, for {conditions['trained_for']}"
        " images"
        if conditions["trained_for"]
        else f"{conditions['generator']}, a run that was given: it has seen more real images than the classifiers, so"
        " its gain is not that of a small set"
    )
    plain = f"moved by at most {conditions['shift']} pixels" + (" and mirrored" if conditions["flip"] else "")
    return (
        f"Data: {conditions['data']}, {conditions['classes']} classes. Generator: {source};"
        f" {conditions['generated']} images a class. Classifier: two convolutions and two linear layers on images of"
        f" 28×28, {conditions['steps']} steps of Adam with batches of {_BATCH} in every row. The plain augmentation:"
        f" {plain}. A seed chooses the real images, the generator's and the classifier's weights, and the order."
    )
