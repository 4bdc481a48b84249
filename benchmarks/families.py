"""Families of models on one data set with equal processor time: one table, with every seed.

    python benchmarks/families.py --out runs/families --data mnist --seconds 300
    python benchmarks/families.py --out runs/families --report                     the table of what is there

A budget of wall-clock time would depend on what else the machine does. So a recipe is first timed, in processor seconds
of one thread between two points of a short training; then it is trained on as many images as the budget has time for,
with its schedules spread over these. What is trained already is not trained again, so a run that was stopped goes on.

A row is a recipe with its sampling options: `rectified-flow-mnist:steps=10,guidance=1.5`. A recipe may be a YAML file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import limner
from limner.metrics.scorecard import base

ROWS = (
    "rectified-flow-small-mnist:steps=10",
    "rectified-flow-small-mnist:steps=10,guidance=1.5",
    "sngan-mnist",
    "r1gan-mnist",
    "cvae-mnist",
)
SCORES = ("fd", "clipped_density", "clipped_coverage", "gan_test", "cas")
QUIET: dict[str, Any] = {
    "threads": 1,
    "device": "cpu",
    "samples": 4,
    "sample_images": 10**9,
    "checkpoint_images": 10**9,
}


def seconds(recipe: str, data: str, images: int) -> float:
    """Processor seconds of a training on so many images, with its start and its end."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        limner.train(recipe, data=data, out=Path(folder) / "run", images=images, **QUIET)
        return time.process_time() - start


def speed(recipe: str, data: str, short: int = 1024, long: int = 4096) -> float:
    """Images per processor second of one thread, without what a training does once."""
    seconds(recipe, data, 256)  # the first training of a process loads data and compiles kernels
    return (long - short) / (seconds(recipe, data, long) - seconds(recipe, data, short))


def trained(recipe: str, seed: int, chosen: argparse.Namespace) -> Path:
    """The run of a recipe with one seed, trained now if it is not there."""
    name = Path(recipe).stem
    plan = chosen.out / name / "plan.json"
    if not plan.is_file():
        plan.parent.mkdir(parents=True, exist_ok=True)
        rate = speed(recipe, chosen.data)
        plan.write_text(json.dumps({"images": round(rate * chosen.seconds), "speed": rate}), encoding="utf-8")
    images = json.loads(plan.read_text(encoding="utf-8"))["images"]
    folder: Path = chosen.out / name / f"seed-{seed}"
    if (folder / "recipe.yaml").is_file() and not (folder / "scores.json").is_file():
        limner.resume(folder)  # it was stopped
    elif not (folder / "scores.json").is_file():
        limner.train(recipe, data=chosen.data, out=folder, images=images, seed=seed, **QUIET)
    return folder


def scores(row: str, seed: int, chosen: argparse.Namespace) -> dict[str, float]:
    """The scores of a row with one seed."""
    recipe, _, text = row.partition(":")
    folder = trained(recipe, seed, chosen)
    file = folder / f"row-{text or 'plain'}.json"
    if not file.is_file():
        options = dict(pair.split("=") for pair in text.split(",") if pair)
        (card,) = limner.evaluate(folder, only="quality,coverage", n=chosen.n, seeds=1, **options).values()
        found = {base(name): score["value"] for name, score in card.items()}
        file.write_text(json.dumps({k: found[k] for k in SCORES if found.get(k) is not None}), encoding="utf-8")
    values: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    return values


def cell(values: list[float | None]) -> str:
    """The mean of the seeds, and all of them if there are several."""
    known = [v for v in values if v is not None]
    if not known:
        return "n/a"
    mean = f"{statistics.mean(known):.3g}"
    return mean if len(known) == 1 else f"**{mean}** ({', '.join(f'{v:.3g}' for v in known)})"


def report(chosen: argparse.Namespace, rows: list[str]) -> None:
    """Prints the table of what is there."""
    print(f"| recipe | images | {' | '.join(SCORES)} |\n|{'---|' * (len(SCORES) + 2)}", flush=True)
    for row in rows:
        recipe, _, text = row.partition(":")
        folder = chosen.out / Path(recipe).stem
        files = sorted(folder.glob(f"seed-*/row-{text or 'plain'}.json"))
        if files:
            found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
            images = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["images"]
            cells = [cell([card.get(score) for card in found]) for score in SCORES]
            print(f"| `{Path(recipe).stem}` {text.replace(',', ' ')} | {images // 1000}k | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=list(ROWS))
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--report", action="store_true")
    chosen = parser.parse_args()
    for seed in range(0 if chosen.report else chosen.seeds):
        for row in chosen.rows:
            print(seed, row, scores(row, seed, chosen), flush=True)
    report(chosen, chosen.rows)


if __name__ == "__main__":
    main()
