"""Test likelihood of a VAE on binary MNIST, beside the figures that pythae publishes for the same set-up.

Train first, then measure:

    LIMNER_DATA=FOLDER limner train benchmarks/vae-binary-mnist.yaml time=2h out=runs/vae      (FOLDER/mnist.npz)
    python benchmarks/likelihood.py runs/vae --draws 200
    LIMNER_DATA=FOLDER limner train benchmarks/iwae-binary-mnist.yaml time=6h out=runs/iwae
    python benchmarks/likelihood.py runs/iwae --draws 5000 --images 1000

Of the checkpoints that the run kept, the one with the best ELBO on 2,000 of the training images that were not used is
measured on the 10,000 test images, or on so many of them, evenly spaced: some files of MNIST are sorted by class, and
the zeros and ones that come first are 16 nats easier than the rest. pythae (github.com/clementchadebec/benchmark_VAE,
its reproducibility scripts) reports minus log p(x) by importance sampling: VAE 89.78 with 200 draws, IWAE-50 86.82 with
5,000. Its binary images are Larochelle's, drawn once from the same digits; ours are another such draw.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import limner
import limner.data
from limner.core.batch import Dataset, evenly_spaced
from limner.core.checkpoint import folders
from limner.core.run import Run
from limner.data.datasets import Pixels
from limner.evaluation.likelihood import Likelihood, bounds

PUBLISHED = {1: ("pythae's VAE", 89.78, 200), 50: ("pythae's IWAE-50", 86.82, 5000)}
"""By the draws in training: whose, minus log p(x) in nats, and its draws."""


def part(dataset: Dataset, ids: list[int], name: str) -> Pixels:
    """Some images of a set."""
    pixels = dataset.fetch(ids)
    assert bool(((pixels == 0) | (pixels == 255)).all()), "these images are not black and white"
    return Pixels(name, pixels)


def held_out(data: dict[str, Any]) -> tuple[Pixels, Dataset]:
    """2,000 of the training images that training left out, and the test images."""
    options = {k: v for k, v in data.items() if k not in ("name", "limit", "split")}
    whole = limner.data.load(data["name"], **options, split="train")
    unused = np.setdiff1d(np.arange(len(whole)), evenly_spaced(len(whole), data["limit"]))
    return part(whole, unused[evenly_spaced(len(unused), 2000)].tolist(), "validation"), limner.data.load(
        data["name"], **options, split="test"
    )


def best(run: Run, validation: Pixels) -> tuple[Path, dict[str, float]]:
    """The checkpoint with the best validation ELBO, and that of each."""
    found = {f.name: bounds(limner.load(f), validation, k=1).elbo for f in folders(run.checkpoints)}
    name = max(found, key=lambda n: found[n])
    return run.checkpoints / name, found


def report(found: Likelihood, dims: int, seconds: float) -> str:
    def line(name: str, nats: float, error: float) -> str:
        return f"  {name:<12} {-nats:8.3f} ± {error:.3f} nats   {-nats / dims / math.log(2):.5f} bits/dim"

    return "\n".join(
        [
            line("-ELBO", found.elbo, found.elbo_error),
            line(f"-IWAE-{found.k}", found.iwae, found.iwae_error),
            f"  on {found.n} test images (± one standard error over images), {seconds:.0f} s",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--draws", type=int, default=200, help="K of the importance-weighted bound")
    parser.add_argument("--images", type=int, default=10_000, help="test images")
    parser.add_argument("--mnist", type=Path, help="mnist.npz; default $LIMNER_DATA/mnist.npz")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.mnist:
        os.environ["LIMNER_DATA"] = str(options.mnist.resolve().parent)
    run = Run(options.run)
    trained_with = int(run.recipe["model"].get("importance", 1))
    validation, test = held_out(run.recipe["data"])
    folder, tried = best(run, validation)
    seen, last = int(folder.name), run.metrics()[-1]
    print(f"{run.name}: trained on {last['images']:,} images ({last['epoch']:.1f} epochs) in {last['seconds']:.0f} s")
    print(
        f"measured at {seen:,} images, the best of {len(tried)} checkpoints by validation ELBO"
        f" ({tried[folder.name]:.2f})"
    )
    began = time.monotonic()
    chosen = part(test, evenly_spaced(len(test), options.images), "test")
    found = bounds(limner.load(folder), chosen, k=options.draws)
    print(report(found, math.prod(chosen.shape), time.monotonic() - began))
    whose, nats, draws = PUBLISHED.get(trained_with, PUBLISHED[1])
    gap = -found.iwae - nats
    print(f"  {whose}: {nats} nats with {draws} draws after thousands of epochs; here {gap:+.2f} nats")
    if options.json:
        figures = {"images": seen, "validation": tried, **vars(found), "published": nats, "published_draws": draws}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
