"""Tasks on the user's own images; the capabilities of a model decide which of them it can do.

=============  ==========================================  =============================================
task           needs                                       gives
=============  ==========================================  =============================================
reconstruct    `Reconstructs`                              decode(encode(image))
denoise        `Reconstructs` and `Corrupts`               the denoised image
anomaly        `ScoresSamples`                             scores.csv, the lowest score first
translate      `Translates`                                the translated image; a model that learnt to undo a
                                                           degradation has its task: colourise, upscale, inpaint …
blend          `Translates`, trained to inpaint            two images as one, and the same by Poisson blending
=============  ==========================================  =============================================
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from limner.apply import blend as blending
from limner.apply.images import ImageSource, output_path, save
from limner.apply.translate import Translation, read_image, translate, write_image
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
    """Applies a trained model to pictures.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        source: a picture, a folder, a ZIP, or a named data set (its held-out part).
        out: a folder (names are kept, as PNG), or a file name for one picture.
        task: reconstruct, denoise or anomaly; default denoise where the model was trained for it, else reconstruct.
            Models that translate have one task only.
        to: for models that translate both ways, the domain of the results: a or b.
        mask: for models that inpaint, a file (or a folder of files with the pictures' names), white where something is
            missing; by default transparent parts are missing. With `blend`, white where that picture is wanted.
        blend: a picture to paste into `source` where the mask is white; the model paints the seam.
        degrade: degrade whole pictures first, as in training, to see how well the model restores them.
        tile: side in pixels of the tiles that a large picture is cut into; by default 512 for pictures above a
            megapixel, and no tiles below.
        seed: seed of the noise, for models that use dropout.
        device: auto, cpu, cuda or mps.

    Returns:
        ``{"task", "n", "written", "skipped": [[name, reason], …]}``.

    Raises:
        LimnerError: no such model, picture or task, or a task the model is not able to do.
    """
    model, out = load_model(path, pick(device)), Path(out)
    bad: list[tuple[str, str]] = []
    if isinstance(model, Translates):
        translation = Translation(model, to, None if mask is None or blend else Path(mask), degrade, tile, seed)
        task = _check_translation_task(translation, task)
        if blend is None:
            written = translate(translation, str(source), out, bad)
        elif mask is None:
            raise LimnerError("to blend two pictures give --mask FILE too, white where the second is wanted")
        else:
            task, written = "blend", _blend(translation, Path(source), Path(blend), Path(mask), out)
    elif any(v is not None for v in (mask, blend, tile)) or degrade or to != "b":
        raise LimnerError(f"{model.spec.name} does not translate; leave to, mask, blend, degrade and tile out")
    else:
        task = _check_task(model, task)
        images = ImageSource(str(source), image_shape(model), bad)
        written = _score(model, images, out) if task == "anomaly" else _reconstruct(model, images, out)
    return {
        "task": task,
        "n": len(written),
        "written": [str(w) for w in written],
        "skipped": [list(b) for b in bad],
    }


def _check_translation_task(translation: Translation, task: str | None) -> str:
    """The task of a model that translates, if it is the one asked for."""
    trained = translation.task.name if translation.task else "translate"
    if task not in (None, trained, "translate"):
        raise LimnerError(f"this model was trained to {trained}, not to {task}; leave --task out")
    return trained


def _blend(translation: Translation, background: Path, foreground: Path, mask: Path, out: Path) -> list[Path]:
    """Writes the composite to `out` and the Poisson blend beside it."""
    for path in (background, foreground):
        if not path.is_file():
            raise LimnerError(f"there is no picture {path}; blending takes two files")
    back = read_image(background.name, lambda: background.open("rb"))
    fore = read_image(foreground.name, lambda: foreground.open("rb"))
    out = out if out.suffix else out / background.name
    composite = write_image(blending.blend(translation, back, fore, mask), back, out, single=True)
    reference = blending.poisson(back, fore, mask)
    return [composite, write_image(reference, back, out.with_stem(f"{out.stem}-poisson"), single=True)]


def image_shape(model: GenerativeModel) -> tuple[int, int, int]:
    """(C,H,W) of the images a model was trained on."""
    c, h, w = next(_shapes(model.spec.to_dict()))
    return c, h, w


def _shapes(tree: dict[str, Any]) -> Iterator[list[int]]:
    """Every `shape` in the tree of a Spec, the outermost first."""
    if tree.get("shape"):
        yield tree["shape"]
    for value in tree.values():
        if isinstance(value, dict):
            yield from _shapes(value)


def _check_task(model: GenerativeModel, task: str | None) -> str:
    """The task asked for, or the default of a model that does not translate."""
    capabilities = {
        "denoise": isinstance(model, Reconstructs) and isinstance(model, Corrupts),
        "reconstruct": isinstance(model, Reconstructs),
        "anomaly": isinstance(model, ScoresSamples),
    }
    possible = [name for name, able in capabilities.items() if able]
    if task is not None and task not in capabilities:
        raise unknown("task", task, ("reconstruct", "denoise", "anomaly"))
    if isinstance(model, Conditional):
        raise LimnerError(
            f"{model.spec.name} needs the class of each picture, and files do not tell it; use limner sample"
        )
    if not possible:
        raise LimnerError(f"{model.spec.name} makes pictures but takes none; use limner sample, or an autoencoder here")
    if task is not None and task not in possible:
        raise LimnerError(f"{model.spec.name} cannot {task}; it can {' or '.join(possible)}")
    return task or possible[0]


@torch.inference_mode()
def _reconstruct(model: GenerativeModel, images: ImageSource, out: Path) -> list[Path]:
    assert isinstance(model, Reconstructs)
    written = []
    for names, x in images.batches():
        for name, y in zip(names, reconstruct(model, x.to(model.device)), strict=True):
            written.append(save(y, output_path(out, name, images.single)))
    return written


@torch.inference_mode()
def _score(model: GenerativeModel, images: ImageSource, out: Path) -> list[Path]:
    """Writes ``scores.csv``: names and scores, the lowest (least ordinary) first."""
    assert isinstance(model, ScoresSamples)
    rows: list[tuple[str, float]] = [
        (name, float(score))
        for names, x in images.batches()
        for name, score in zip(names, model.score_samples(x.to(model.device)).tolist(), strict=True)
    ]
    rows.sort(key=itemgetter(1))
    out = out if out.suffix == ".csv" else out / "scores.csv"
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["picture", "score"])
        table.writerows(rows)
    return [out] * len(rows)
