"""What a trained model can do with pictures, chosen by its capabilities.

=============  ==========================================  =============================================
task           needs                                       gives
=============  ==========================================  =============================================
reconstruct    `Reconstructs`                              decode(encode(picture))
denoise        `Reconstructs` and `Corrupts`               the clean picture of a noisy one
anomaly        `ScoresSamples`                             scores.csv, the least ordinary picture first
translate      `Translates`                                the picture of a picture; what a model of a degradation
                                                           undoes has that name: colourise, upscale, inpaint …
blend          `Translates`, trained to inpaint            two pictures as one, and the same by Poisson blending
=============  ==========================================  =============================================
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limner.apply import blend as blends
from limner.apply.pictures import Pictures, binary, destination, save
from limner.apply.translate import Translation, read, translate, write
from limner.config.load import load_model
from limner.core.capabilities import Conditional, Corrupts, Reconstructs, ScoresSamples, Translates
from limner.core.device import pick
from limner.core.errors import LimnerError, unknown
from limner.core.inference import reconstruct
from limner.core.model import GenerativeModel


def apply(
    path: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    task: str | None = None,
    to: str = "b",
    mask: str | Path | None = None,
    blend: str | Path | None = None,
    degrade: bool = False,
    tile: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, Any]:
    """Runs a task on pictures.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        source: a picture, a folder, a ZIP, or a named data set (its held-out part).
        out: a folder (names are kept, as PNG), or a file name for one picture.
        task: reconstruct, denoise or anomaly; default denoise where the model was trained for it, else reconstruct.
            Models that translate have one task only.
        to: of a model that translates both ways, the domain wanted: b, or a.
        mask: of a model that inpaints, a file (or a folder of files with the pictures' names), white where something is
            missing; transparent parts are missing by default. With `blend`, white where that picture is wanted.
        blend: a picture that is laid into `source` where the mask is white; the seam is painted by the model.
        degrade: make sources of whole pictures first, as in training, to see what the model makes of them.
        tile: side of the tiles that a large picture is translated in; by default 512 from a megapixel on.
        seed: of noise in use, for nets with dropout.
        device: auto, cpu, cuda or mps.

    Returns:
        ``{"task", "n", "written", "skipped": [[name, reason], …]}``.

    Raises:
        LimnerError: no such model, picture or task, or a task the model is not able to do.
    """
    model = load_model(path, pick(device))
    if isinstance(model, Translates):
        how = Translation(model, to, None if mask is None or blend else Path(mask), degrade, tile, seed)
        return _translate(how, str(source), Path(out), task, blend, mask)
    if any(v is not None for v in (mask, blend, tile)) or degrade or to != "b":
        raise LimnerError(f"{model.spec.name} does not translate; to, mask, blend, degrade and tile mean nothing to it")
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


def _translate(
    how: Translation, source: str, out: Path, task: str | None, foreground: str | Path | None, mask: str | Path | None
) -> dict[str, Any]:
    """What `apply` does with a model that translates."""
    own = how.task.name if how.task else "translate"
    if task not in (None, own, "translate"):
        raise LimnerError(f"this model was trained to {own}, not to {task}; leave --task out")
    bad: list[tuple[str, str]] = []
    if foreground is None:
        written = translate(how, source, out, bad)
    elif mask is None:
        raise LimnerError("to blend two pictures give --mask FILE too, white where the second is wanted")
    else:
        own = "blend"
        written = _blend(how, Path(source), Path(foreground), Path(mask), out)
    return {
        "task": own,
        "n": len(written),
        "written": [str(w) for w in written],
        "skipped": [list(b) for b in bad],
    }


def _blend(how: Translation, background: Path, foreground: Path, mask: Path, out: Path) -> list[Path]:
    """The composite at `out`, and the Poisson blend beside it."""
    both = []
    for path in (background, foreground):
        if not path.is_file():
            raise LimnerError(f"there is no picture {path}; blending takes two files")
        both.append(read(path.name, partial(binary, path)))
    place = out if out.suffix else out / background.name
    classic = place.with_stem(f"{place.stem}-poisson")
    written = [write(blends.blend(how, both[0], both[1], mask), both[0], place, single=True)]
    return [*written, write(blends.poisson(both[0], both[1], mask), both[0], classic, single=True)]


def able(model: GenerativeModel) -> list[str]:
    """The tasks that a model can do."""
    checks = {
        "denoise": isinstance(model, Reconstructs) and isinstance(model, Corrupts),
        "reconstruct": isinstance(model, Reconstructs),
        "anomaly": isinstance(model, ScoresSamples),
        "translate": isinstance(model, Translates),
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
    if isinstance(model, Conditional):
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
