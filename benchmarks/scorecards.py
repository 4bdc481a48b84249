"""A scorecard for every family: trains recipes for a few minutes each, evaluates them, and sets the cards side by side.

    python benchmarks/scorecards.py --out runs/cards                              (all recipes below, 3 minutes each)
    python benchmarks/scorecards.py --out runs/cards --recipes vae-mnist dcgan-mnist --time 10m
    python benchmarks/scorecards.py --out runs/cards --report                     the table of what is there

Each run is the same as `limner train RECIPE time=3m train.threads=1` and `limner evaluate RUN seeds=3`. What is trained
already is not trained again. The table has the headline of each property and where it lies between noise (0 %) and real
images (100 %); three minutes are enough for none of the large ones, and the images seen stand beside.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import limner
from limner.metrics.scorecard import base

FAMILIES = (
    "ae-mnist", "deep-ae-mnist", "sparse-ae-mnist", "conv-ae-mnist", "denoising-ae-mnist",
    "vae-mnist", "conv-vae-mnist", "cvae-mnist",
    "gan-mnist", "dcgan-mnist", "lsgan-mnist", "sngan-mnist", "r1gan-mnist",
    "wgan-mnist", "wgan-gp-mnist", "unrolled-mnist", "r3gan-mnist", "progressive-mnist",
)  # fmt: skip
COLUMNS = ("clipped_density", "clipped_coverage", "fd", "interpolation", "throughput", "bits_per_dim", "copying")


def made(name: str, chosen: argparse.Namespace) -> None:
    """Trains and evaluates one recipe, as far as that is not done."""
    folder = chosen.out / name
    if not (folder / "scores.json").is_file():
        limner.train(name, out=folder, time=chosen.time, threads=1)
    card = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    if not any(base(key) == "throughput" for key in card):
        limner.evaluate(folder, seeds=chosen.seeds)
    print(row(folder), flush=True)


def cell(score: dict[str, Any] | None) -> str:
    if score is None or score["value"] is None:
        return "n/a"
    if isinstance(score["value"], str):
        return str(score["value"])
    value = f"{score['value']:,.0f}" if abs(score["value"]) >= 1000 else f"{score['value']:.3g}"
    return value if score.get("norm") is None else f"{value} ({100 * score['norm']:.0f} %)"


def row(folder: Path) -> str:
    card = {base(key): score for key, score in json.loads((folder / "scores.json").read_text(encoding="utf-8")).items()}
    last = limner.Run(folder).metrics()[-1]
    cells = [f"`{folder.name}`", f"{last['images'] / 1000:,.0f}k", *(cell(card.get(key)) for key in COLUMNS)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", default=list(FAMILIES))
    parser.add_argument("--time", default="3m")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report", action="store_true")
    chosen = parser.parse_args()
    print(f"| recipe | images seen | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 2)}", flush=True)
    for name in chosen.recipes:
        if chosen.report:
            if (chosen.out / name / "scores.json").is_file():
                print(row(chosen.out / name), flush=True)
        else:
            made(name, chosen)


if __name__ == "__main__":
    main()
