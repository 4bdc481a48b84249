"""How often the doctor's remedies help: trainings of failing beds with and without them, over equal seeds.

    python benchmarks/doctor_remedies.py [--beds ring,minimax] [--seeds 10] [--first 3] [--jobs 1]

A bed (``src/limner/doctor/remedies.yaml``) is a training that fails. It is trained with each seed as it is, and with
each remedy of the checks that it belongs to; a remedy has helped where the bed's metric is better than that of the same
seed without it. The counts are written into ``src/limner/doctor/measured.json``, which `limner doctor` reads. Values of
single trainings are kept in a file, `--values`: one with the same recipe is not repeated, and all are counted.

Metrics: ``energy``, the energy distance of 2,000 samples to held-out images or points, 2 E|x - y| - E|x - x'| -
E|y - y'| (Székely and Rizzo 2013), near 0 where both are alike, and large also where modes are missing; ``error``, the
mean squared error of reconstructions of held-out images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from limner import api
from limner.config import recipe as recipes
from limner.config.recipe import Recipe
from limner.core.batch import to_float
from limner.core.durable import replace_file
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.run import Run
from limner.core.train import fit
from limner.doctor import remedies
from limner.evaluation.subjects import heldout_of

_SAMPLES = 2000
_MOST_SEEDS = 20
_FAILED = 1e9  # of a training that did not end


def energy(model: GenerativeModel, recipe: Recipe) -> float:
    """The energy distance of samples to held-out images or points."""
    heldout = heldout_of(recipe.data)
    assert heldout is not None
    y = heldout.fetch(range(min(_SAMPLES, len(heldout))))
    x = model.sample(_SAMPLES, seed=0).cpu()
    x, y = (each.flatten(1).double() for each in (x, to_float(y) if y.dtype == torch.uint8 else y))
    value = float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())
    return value if math.isfinite(value) else _FAILED


def error(model: GenerativeModel, recipe: Recipe) -> float:
    """Mean squared error of reconstructions of held-out images in [-1,1]."""
    heldout = heldout_of(recipe.data)
    assert heldout is not None
    x = to_float(heldout.fetch(range(len(heldout))))
    with torch.inference_mode():
        return float((model.decode(model.encode(x)) - x).square().mean())  # type: ignore[attr-defined, operator]


METRICS = {"energy": ("energy distance", energy), "error": ("error of reconstructions", error)}
"""The name of a metric and how it is computed; lower is better."""


def measure(recipe: Recipe, metric: str) -> float:
    """The metric after a training, without scores and report."""
    torch.set_num_threads(1)
    prepared = api.prepare(recipe)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(recipes.record(recipe), Path(folder) / "run")
        options = prepared.options
        options.sample_images = options.checkpoint_images = options.images
        try:
            model = fit(options, prepared.model, prepared.dataset, prepared.optimisers, run, device=prepared.device)
        except LimnerError:  # it diverged
            return _FAILED
    return METRICS[metric][1](model, recipe)


@dataclass(frozen=True)
class Training:
    """A training to be measured: a bed, a change ("" for none), a seed, and their recipe."""

    bed: str
    change: str
    seed: int
    recipe: Recipe

    @property
    def key(self) -> str:
        """A name of the recipe, by its content."""
        return hashlib.sha256(json.dumps(self.recipe.to_dict(), default=str).encode()).hexdigest()[:16]


def plan(bed: str, seeds: int, first: int) -> list[Training]:
    """The trainings of a bed, with the first so many remedies of each check."""
    described = remedies.beds()[bed]
    quiet = {"train.device": "cpu", "train.threads": 1, "train.doctor": False, "train.samples": 4}
    plain = recipes.load(described.recipe)
    settings = remedies.Change("", described.set).settings(plain) | quiet
    found = []
    for seed in range(seeds):
        base = recipes.load(described.recipe, settings | {"train.seed": seed})
        found.append(Training(bed, "", seed, base))
        for change in remedies.of_bed(bed, first):
            try:
                changed = remedies.changed(base, change)
            except LimnerError:  # the bed does not take it
                continue
            found.append(Training(bed, change.words, seed, changed))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beds", default=",".join(remedies.beds()))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=99, help="remedies of each check that are measured")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--values", type=Path, default=Path(tempfile.gettempdir()) / "limner-doctor-remedies.json")
    arguments = parser.parse_args()
    values: dict[str, float] = _read(arguments.values) or {}
    rows = {(row["bed"], row["change"]): row for row in _read(remedies.MEASURED) or []}
    for bed in arguments.beds.split(","):
        trainings = plan(bed, arguments.seeds, arguments.first)
        missing = [t for t in trainings if t.key not in values]
        with ProcessPoolExecutor(arguments.jobs) if arguments.jobs > 1 else _Here() as pool:
            metric = [remedies.beds()[bed].metric] * len(missing)
            start = time.monotonic()
            for training, value in zip(missing, pool.map(measure, [t.recipe for t in missing], metric), strict=True):
                values[training.key] = round(value, 6)
                print(f"{time.monotonic() - start:6.0f} s  {bed} seed {training.seed} {training.change}: {value:.4g}")
                sys.stdout.flush()
                _write(arguments.values, values)
        every = [t for t in plan(bed, _MOST_SEEDS, 99) if t.key in values]
        rows = {key: row for key, row in rows.items() if key[0] != bed} | counted(bed, every, values)
        _write(remedies.MEASURED, list(rows.values()))
    for row in rows.values():
        effect = f"{row['before']:8.3g} → {row['after']:<8.3g}"
        print(f"{row['bed']:<10} {row['helped']:>2}/{row['of']:<3} {effect} {row['change']}")


class _Here:
    """A pool of no process."""

    map = staticmethod(map)

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *error: object) -> None: ...


def counted(bed: str, trainings: list[Training], values: dict[str, float]) -> dict[tuple[str, str], dict[str, Any]]:
    """How often each change of a bed has helped, and the median of its metric without and with it."""
    metric = METRICS[remedies.beds()[bed].metric][0]
    of = {(t.change, t.seed): values[t.key] for t in trainings}
    found = {}
    for change in dict.fromkeys(t.change for t in trainings if t.change):
        seeds = [seed for known, seed in of if known == change and ("", seed) in of]
        pairs = [(of["", seed], of[change, seed]) for seed in seeds]
        before, after = (sorted(side)[len(pairs) // 2] for side in zip(*pairs, strict=True))
        found[bed, change] = {
            "bed": bed,
            "change": change,
            "helped": sum(with_it < without for without, with_it in pairs),
            "of": len(pairs),
            "metric": metric,
            "before": before,
            "after": after,
        }
    return found


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _write(path: Path, content: Any) -> None:
    replace_file(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
