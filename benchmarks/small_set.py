"""A GAN on 1,000 images: as it is, with DiffAugment (whole or without colour), and with ADA: only what D sees differs.

    LIMNER_DATA=FOLDER python benchmarks/small_set.py --out runs/small               (FOLDER/mnist.npz, or downloaded)
    python benchmarks/small_set.py --out runs/small --report                         the table of what is there

Every run has the same nets, optimiser, order of images and number of images. It is scored at ten checkpoints, by the
Fréchet distance between 5,000 of its samples and the held-out test images, in the features of the classifier that
knows the set (`fd@lenet64-v1[n=5000]` for digits).
The table has the distance at the last checkpoint and at the best one, mean ± standard error
over seeds, and the ratio to training without a transform. "Best" is chosen by the same test images, for each run alone;
"last" chooses nothing.

A run that is finished is not done again. Results stay in OUT/<name>-<seed>/small_set.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import limner
import limner.data
from limner.core.checkpoint import folders
from limner.core.run import Run
from limner.metrics.extractors.features import KEYS, Classifier, classifier
from limner.metrics.frechet import Moments, floor, frechet_distance
from limner.metrics.sets import name

SAMPLES, CHECKPOINTS = 5000, 10
TRANSFORMS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "diffaugment": {"name": "augment.DiffAugment"},
    "translation-cutout": {"name": "augment.DiffAugment", "policy": ["translation", "cutout"]},
    "ada": {"name": "augment.ADA", "speed_images": 100_000},
}


def recipe(options: argparse.Namespace, transform: str, seed: int) -> dict[str, Any]:
    """The whole of a run; only the transform and the seed differ."""
    nets = {
        "dcgan": {
            "G": {"name": "dcgan.Generator", "z": 64, "width": options.width},
            "D": {"name": "dcgan.Discriminator", "width": options.d_width or options.width, "norm": options.d_norm},
        },
        "mlp": {
            "G": {"name": "mlp.Decoder", "z": 64, "widths": [256, 512], "norm": "batch"},
            "D": {"name": "mlp.Discriminator", "widths": [512, 256]},
        },
    }
    model: dict[str, Any] = {"name": "gan", **nets[options.nets]}
    if TRANSFORMS[transform] is not None:
        model["transform"] = TRANSFORMS[transform]
    adam = {"lr": 2e-4, "betas": [0.5, 0.999]}
    return {
        "model": model,
        "data": {"name": options.data, "limit": options.limit, "size": options.size},
        "optim": {"G": adam, "D": adam},
        "train": {
            "images": options.images,
            "batch": 64,
            "ema_images": 5000,
            "seed": seed,
            "threads": 1,
            "checkpoint_images": options.images // CHECKPOINTS,
            "keep": CHECKPOINTS + 2,
            "sample_images": options.images // 4,
            "channels_last": True,
            "precision": options.precision,
        },
    }


def score_checkpoints(run: Run, reference: Moments, scorer: Classifier, device: str) -> list[dict[str, float]]:
    """The distance at each checkpoint, and what D and the transform were like."""
    found = []
    for folder in folders(run.checkpoints):
        model = limner.load(folder, device)
        features = scorer.features(model.sample(SAMPLES, seed=0).clamp(-1, 1))
        fd = frechet_distance(*Moments().update(features).compute(), *reference.compute())
        p = getattr(getattr(model, "transform", None), "p", None)
        found.append({"images": int(folder.name), "fd": fd} | ({} if p is None else {"p": float(p)}))
    return found


def train(options: argparse.Namespace, transform: str, seed: int, reference: Moments, scorer: Classifier) -> None:
    folder = options.out / f"{transform}-{seed}"
    if (folder / "small_set.json").is_file():
        return
    began = time.monotonic()
    run = limner.train(recipe(options, transform, seed), out=folder)
    seconds = time.monotonic() - began
    rows = score_checkpoints(run, reference, scorer, options.device)
    about = {"transform": transform, "seed": seed, "seconds": round(seconds, 1), "rows": rows}
    (folder / "small_set.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    curve = "  ".join(f"{r['images'] // 1000}k {r['fd']:.2f}" for r in rows)
    print(f"{transform:<18} seed {seed}  {seconds:5.0f} s  {curve}", flush=True)


def summary(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return statistics.fmean(values), error


def report(options: argparse.Namespace, reference: Moments) -> None:
    level = floor(reference.covariance, SAMPLES, reference.n)
    print(f"\n{name('fd', KEYS[options.data], SAMPLES)} against {reference.n} held-out images of {options.data}")
    print(f"two sets of one Gaussian with the covariance of those would lie {level:.3f} apart")
    print(f"{'':<18} {'seeds':>5}  {'last':>16} {'ratio':>6}  {'best':>16} {'ratio':>6}  at images")
    bases: dict[str, float] = {}
    for transform in TRANSFORMS:
        runs = [
            json.loads(f.read_text(encoding="utf-8")) for f in sorted(options.out.glob(f"{transform}-*/small_set.json"))
        ]
        if not runs:
            continue
        best = [min(r["rows"], key=lambda row: row["fd"]) for r in runs]
        columns = []
        for kind, values in (("last", [r["rows"][-1]["fd"] for r in runs]), ("best", [b["fd"] for b in best])):
            mean, error = summary(values)
            base = bases.setdefault(kind, mean)
            columns.append(f"{mean:7.2f} ± {error:6.2f} {mean / base:6.2f}")
        print(f"{transform:<18} {len(runs):>5}  {'  '.join(columns)}  {', '.join(str(b['images']) for b in best)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--nets", choices=["dcgan", "mlp"], default="dcgan")
    parser.add_argument("--d-width", type=int, default=None, help="width of D, if it is not that of G")
    parser.add_argument("--d-norm", default="batch")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--transforms", nargs="+", choices=TRANSFORMS, default=list(TRANSFORMS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    test = limner.data.load(options.data, split="test", size=options.size)  # resizing alone moves features far
    assert test.pixels is not None
    scorer = classifier(KEYS[options.data], options.device)
    reference = Moments().update(scorer.features(test.pixels))
    if not options.report:
        for seed in options.seeds:
            for transform in options.transforms:
                train(options, transform, seed, reference, scorer)
    report(options, reference)


if __name__ == "__main__":
    main()
