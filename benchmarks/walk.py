"""Seconds of a walk of 120 frames through the latent space of a model of 3×32×32 pictures, one family a line.

    python benchmarks/walk.py
    python benchmarks/walk.py --recipes glow-64 --threads 2

The nets are those of the recipes, with random weights, as speed does not depend on training. Each walk is a process of
its own, `limner latent walk FILE walk.webp n=120`; its time is that of the processor, with the start of Python, torch
and limner in it, which is the first line.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from limner.config import recipe as recipes
from limner.config.spec import Spec
from limner.core import checkpoint
from limner.core.condition import Classes

RECIPES = (
    "ae-mnist", "conv-vae-mnist", "dcgan-32", "r3gan-fashion", "cgan-mnist", "infogan-mnist",
    "stylegan2-avatars", "stylegan2-32", "glow-mnist", "realnvp-mnist", "rectified-flow-mnist", "ddpm-mnist",
)  # fmt: skip


def model_file(recipe: str, folder: Path) -> Path:
    """The file of an untrained model of a recipe, for pictures of 3×32×32 with ten classes."""
    facts = {"shape": (3, 32, 32), "classes": 10, "condition": Classes(10).header()}
    spec = Spec.parse("model", recipes.load(recipe).to_dict()["model"]).resolve(**facts)
    torch.manual_seed(0)
    model = spec.build()
    model.spec = spec
    return checkpoint.export(model.eval(), folder / f"{recipe}.safetensors")


def seconds(words: list[str], threads: int) -> float:
    """Processor seconds of a call of limner."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, "-m", "limner", *words], check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        few = ["latent", "walk", str(model_file("ae-mnist", place)), f"{folder}/start.webp", "n=4", "stops=2"]
        print(f"four frames of ae-mnist: {seconds([*few, 'device=cpu'], args.threads):.1f} s")
        for recipe in args.recipes:
            words = ["latent", "walk", str(model_file(recipe, place)), f"{folder}/{recipe}.webp", f"n={args.frames}"]
            print(f"{recipe}: {seconds([*words, 'device=cpu'], args.threads):.1f} s", flush=True)


if __name__ == "__main__":
    main()
