"""What a trained model can do with pictures, chosen by its capabilities.

=============  ==========================================  =============================================
task           needs                                       gives
=============  ==========================================  =============================================
reconstruct    `Reconstructs`                              decode(encode(picture))
denoise        `Reconstructs` and `Corrupts`               the clean picture of a noisy one
anomaly        `ScoresSamples`                             scores.csv, the least ordinary picture first
=============  ==========================================  =============================================
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limner.apply.pictures import Pictures, destination, save
from limner.core import checkpoint
from limner.core.device import pick
from limner.core.errors import LimnerError, unknown
from limner.core.model import Conditions, Corrupts, GenerativeModel, Reconstructs, ScoresSamples, reconstruct


def apply(
    path: str | Path, source: str | Path, out: str | Path, *, task: str | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Runs a task on pictures.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        source: a picture, a folder, a ZIP, or a named data set (its held-out part).
        out: a folder (names are kept, as PNG), or a file name for one picture.
        task: reconstruct, denoise or anomaly; default denoise where the model was trained for it, else reconstruct.
        device: auto, cpu, cuda or mps.

    Returns:
        ``{"task", "n", "written", "skipped": [[name, reason], …]}``.

    Raises:
        LimnerError: no such model, picture or task, or a task the model is not able to do.
    """
    model = checkpoint.load(path, pick(device))
    chosen = _chosen(model, task)
    pictures = Pictures(str(source), image_shape(model))
    out = Path(out)
    written = _anomaly(model, pictures, out) if chosen == "anomaly" else _map(_maps(model), pictures, out)
    return {
        "task": chosen,
        "n": len(written),
        "written": [str(w) for w in written],
        "skipped": [list(b) for b in pictures.bad],
    }


def able(model: GenerativeModel) -> list[str]:
    """The tasks that a model can do."""
    checks = {
        "denoise": isinstance(model, Reconstructs) and isinstance(model, Corrupts),
        "reconstruct": isinstance(model, Reconstructs),
        "anomaly": isinstance(model, ScoresSamples),
    }
    return [name for name, possible in checks.items() if possible]


def image_shape(model: GenerativeModel) -> tuple[int, int, int]:
    """(C,H,W) of the pictures a model was trained on."""
    shape = next(s for s in _shapes(model.spec.to_dict()) if s)
    return shape[0], shape[1], shape[2]


def _shapes(tree: dict[str, Any]) -> list[list[int]]:
    own = [tree["shape"]] if "shape" in tree else []
    return own + [s for v in tree.values() if isinstance(v, dict) for s in _shapes(v)]


def _chosen(model: GenerativeModel, task: str | None) -> str:
    possible = able(model)
    if task is not None and task not in ("reconstruct", "denoise", "anomaly"):
        raise unknown("task", task, ("reconstruct", "denoise", "anomaly"))
    if isinstance(model, Conditions):
        raise LimnerError(
            f"{model.spec.name} needs the class of each picture, which files do not tell; use limner sample"
        )
    if not possible:
        raise LimnerError(f"{model.spec.name} makes pictures but takes none; use limner sample, or an autoencoder here")
    if task is not None and task not in possible:
        raise LimnerError(f"{model.spec.name} cannot {task}; it can {' or '.join(possible)}")
    return task or possible[0]


def _maps(model: GenerativeModel) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        if not isinstance(model, Reconstructs):
            raise LimnerError(f"{model.spec.name} has no codes to rebuild pictures from")
        return reconstruct(model, x.to(model.device))

    return run


@torch.inference_mode()
def _map(run: Callable[[Tensor], Tensor], pictures: Pictures, out: Path) -> list[Path]:
    written = []
    for names, x in pictures.batches():
        for name, y in zip(names, run(x), strict=True):
            written.append(save(y, destination(out, name, pictures.single)))
    return written


@torch.inference_mode()
def _anomaly(model: GenerativeModel, pictures: Pictures, out: Path) -> list[Path]:
    """Writes ``scores.csv``: name and score, the least ordinary first."""
    if not isinstance(model, ScoresSamples):
        raise LimnerError(f"{model.spec.name} scores no samples")
    rows: list[tuple[str, float]] = [
        (name, float(score))
        for names, x in pictures.batches()
        for name, score in zip(names, model.score_samples(x.to(model.device)).tolist(), strict=True)
    ]
    ordered = sorted(rows, key=itemgetter(1))
    out = out if out.suffix == ".csv" else out / "scores.csv"
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["picture", "score"])
        table.writerows(ordered)
    return [out] * len(rows)
