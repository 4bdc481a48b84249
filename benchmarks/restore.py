"""Restoration by a diffusion model, untrained for the task, beside the classic methods, on held-out images of its run.

    python benchmarks/restore.py RUN
    python benchmarks/restore.py RUN --tasks inpaint=0.5 --picture restored.png

A task is written as NAME or NAME=AMOUNT, with the amounts of `limner.data.degradations`: the share of holes, the
factor, the standard deviation of the noise. The classic methods are Telea's inpainting, bicubic interpolation, grey and
a median filter of 3×3. Each row has the mean with one standard error over images, and the 95 % interval of the paired
gain over the classic method. `perceptual` is the distance of `limner.metrics.paired.Perceptual.best`. For `upscale` the
model and bicubic interpolation are given the same means over squares of pixels. `denoise` is told the level of the
noise, which is cut off at black and white as in any file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import limner
from limner.apply.restore import Restorer, noise_level
from limner.config import recipe as recipes
from limner.config.spec import Spec
from limner.core.batch import drawn, to_float
from limner.core.grid import make_grid, save_grid
from limner.core.rng import keys
from limner.data import degradations
from limner.evaluation.translation.measures import MEASURES, Measurements
from limner.evaluation.translation.without_learning import rounded
from limner.metrics.paired import Perceptual
from limner.metrics.scorecard import interval

BATCH = 50
Method = Callable[[Tensor], Tensor]


def methods(task: str, amount: float | None, restorer: Restorer, x: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """What is given of images x (B,C,H,W), and what the classic method and the model make of it."""
    degradation = degradations.make(task, amount)
    a = degradation(x, ids)
    if task == "inpaint":
        known, mask = a[:, :-1], (a[:, -1:] > 0).float()
        return {
            "source": torch.where(mask > 0, torch.zeros_like(known), known),
            "classic": degradation.classic(a),
            "model": restorer.inpaint(known, mask),
        }
    if task == "upscale":
        scale = int(degradation.strength)
        small = F.avg_pool2d(x, scale)
        size = (x.shape[2], x.shape[3])
        return {
            "source": F.interpolate(small, size, mode="nearest"),
            "classic": F.interpolate(small, size, mode="bicubic").clamp(-1, 1),
            "model": restorer.upscale(small, scale),
        }
    if task == "denoise":
        return {
            "source": a,
            "classic": degradation.classic(a),
            "model": restorer.denoise(a, degradation.strength),
            "estimated": torch.cat(
                [restorer.denoise(one[None], max(float(noise_level(one[None])), 1e-3)) for one in a]
            ),
            "example": restorer.denoise(a, degradation.strength, mean=False),
        }
    grey = degradation.classic(a)
    return {"source": grey, "classic": grey, "model": restorer.colourise(x)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--n", type=int, default=500, help="held-out images")
    parser.add_argument(
        "--tasks", nargs="+", help="default: inpaint, upscale, denoise, and colourise where there are colours"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="a grid of 12 images: source, classic, model, image")
    chosen = parser.parse_args()
    run, model = limner.Run(chosen.run), limner.load(chosen.run)
    source = recipes.load(run.recipe).data
    heldout = Spec(source.kind, source.name, source.kwargs | {"split": "test"}).build()
    restorer = Restorer(model, steps=chosen.steps, seed=chosen.seed)
    perceptual = Perceptual.best(heldout.shape[0])
    tasks = chosen.tasks or ["inpaint", "upscale", "denoise", *(["colourise"] if heldout.shape[0] == 3 else [])]
    ids, rows = drawn(len(heldout), chosen.n), []
    print(f"{len(ids)} held-out images of {heldout.name}, {perceptual.key}, {chosen.steps} steps")
    for text in tasks:
        task, _, amount = text.partition("=")
        results, targets, seconds = {}, [], 0.0
        for part in torch.tensor(ids).split(BATCH):
            x = to_float(heldout.fetch(part.tolist()))
            start = time.process_time()
            made = methods(task, float(amount) if amount else None, restorer, x, keys(0, torch.zeros_like(part), part))
            seconds += time.process_time() - start
            targets.append(x)
            for name, y in made.items():
                results.setdefault(name, []).append(rounded(y))
        target = rounded(torch.cat(targets))
        layers = perceptual.layers(target)
        values = {}
        for name, parts in results.items():
            y, measured = torch.cat(parts), Measurements()
            measured.compare(y, target)
            measured.add("perceptual", perceptual.between(perceptual.layers(y), layers))
            values[name] = measured.values
        for name in values.keys() - {"source", "classic"}:
            print(f"{text:<14} {name:<10}", end="")
            for measure, about in MEASURES.items():
                ours, theirs = values[name][measure], values["classic"][measure]
                sign = 1 if about.better == "higher" else -1
                mean, error, *_ = interval(ours)
                gain, _, low, high = interval([sign * (o - t) for o, t in zip(ours, theirs, strict=True)])
                classic = sum(theirs) / len(theirs)
                print(
                    f"  {measure} {mean:.4f} ± {error:.4f} ({classic:.4f}; gain {gain:.4f}, {low:.4f} to {high:.4f})",
                    end="",
                )
            print(f"  {seconds / len(ids):.2f} CPU-s an image")
        shown = slice(0, None, max(1, len(ids) // 12))
        rows += [torch.cat(results[name])[shown][:12] for name in ("source", "classic", "model")] + [target[shown][:12]]
    if chosen.picture:
        save_grid(make_grid(torch.cat(rows), len(rows[0])), chosen.picture)


if __name__ == "__main__":
    main()
