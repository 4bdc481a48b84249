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
import io
from collections.abc import Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from limner.apply import blend as blending
from limner.apply import outputs, transparency
from limner.apply.files import Written, find, read_file
from limner.apply.images import ImageSource, save
from limner.apply.masks import Masks
from limner.apply.translate import Translation, kept_suffixes, translate
from limner.config.load import load_model
from limner.core.capabilities import Conditional, Corrupts, Reconstructs, ScoresSamples, Translates
from limner.core.device import pick
from limner.core.errors import LimnerError, unknown
from limner.core.inference import reconstruct
from limner.core.model import GenerativeModel
from limner.core.paths import user_path


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
    overwrite: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Applies a trained model to pictures.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        source: a picture, a folder, a ZIP, or a named data set (its held-out part).
        out: a folder, or a file name for one picture. Results keep their names, and models that translate the formats;
            no result replaces another one or a file that is there already.
        task: reconstruct, denoise or anomaly; default denoise where the model was trained for it, else reconstruct.
            Models that translate have one task only.
        to: for models that translate both ways, the domain of the results: a or b.
        mask: for models that inpaint, a picture, or a folder or a ZIP of pictures with the same names, white where
            something is missing (luminance times alpha); by default transparent parts are missing. With `blend`, white
            where that picture is wanted.
        blend: a picture to paste into `source` where the mask is white, or all of a cut-out that is transparent; the
            model paints the seam.
        degrade: degrade whole pictures first, as in training, to see how well the model restores them.
        tile: side in pixels of the tiles that a large picture is cut into; by default 512 for pictures above a
            megapixel, and no tiles below.
        seed: seed of the noise, for models that use dropout.
        overwrite: replace earlier results; pictures that are read are never replaced.
        device: auto, cpu, cuda or mps.

    Returns:
        ``{"task", "n", "written", "skipped": [[name, reason], …], "notes": [sentence, …]}``.

    Raises:
        LimnerError: no such model, picture or task, or a task the model is not able to do.
    """
    model = load_model(user_path(path), pick(device))
    if isinstance(model, Translates):
        masks = None if mask is None else Masks(mask)
        translation = Translation(model, to, None if blend else masks, degrade, tile, seed)
        task = _check_translation_task(translation, task)
        if blend is not None:
            return _blend(translation, source, blend, masks, out, overwrite).document("blend")
        return translate(translation, find(source), out, overwrite=overwrite).document(task)
    if any(v is not None for v in (mask, blend, tile)) or degrade or to != "b":
        raise LimnerError(f"{model.spec.name} does not translate; leave to, mask, blend, degrade and tile out")
    task = _check_task(model, task)
    images = ImageSource(source, image_shape(model))
    written = (_score if task == "anomaly" else _reconstruct)(model, images, out, overwrite)
    return Written(written, images.skipped, images.told()).document(task)


def text(document: dict[str, Any], out: str | Path) -> str:
    """The document of `apply` in lines: what was written, what was left out and why, and what else is to be said."""
    n = document["n"]
    first = f"{document['task']}: {n} picture{'s' * (n != 1)}, written to {out}"
    return "\n".join([first, *outputs.left_out(document["skipped"], document["notes"])])


def _check_translation_task(translation: Translation, task: str | None) -> str:
    """The task of a model that translates, if it is the one asked for."""
    trained = translation.task.name if translation.task else "translate"
    if task not in (None, trained, "translate"):
        raise LimnerError(f"this model was trained to {trained}, not to {task}; leave --task out")
    return trained


def _blend(
    translation: Translation,
    background: str | Path,
    foreground: str | Path,
    mask: Masks | None,
    out: str | Path,
    overwrite: bool,
) -> Written:
    """Writes the composite to `out` and the Poisson blend beside it."""
    for path in (background, foreground):
        if not user_path(path).is_file():
            raise LimnerError(f"there is no picture {path}; blending takes two files")
    files = find(background)
    plan = outputs.plan(out, kept_suffixes(files, out, files.has_alpha), single=True)
    composite = plan.paths[files.names[0]]
    paths = [composite, composite.with_stem(f"{composite.stem}-poisson")]
    read = [*files.paths(), user_path(foreground), *([] if mask is None else mask.paths())]
    outputs.refuse_existing(paths, overwrite, read)
    back, fore = read_file(background), read_file(foreground)
    if mask is None and fore.alpha is None:
        raise LimnerError("to blend two pictures give --mask FILE too, white where the second is wanted")
    images = [
        transparency.to_image(f(back, fore, mask)[0]) for f in (partial(blending.blend, translation), blending.poisson)
    ]
    for path, image in zip(paths, images):
        outputs.write(image, path, back.metadata)
    notes = [f"{file.name}: {what}" for file in (back, fore) for what in file.conversions]
    if transparency.has_alpha(images[0]) and not outputs.keeps_alpha(composite.suffix):
        notes.append(outputs.over_white_note(composite))
    return Written(paths, notes=notes)


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
def _reconstruct(model: GenerativeModel, images: ImageSource, out: str | Path, overwrite: bool) -> list[Path]:
    assert isinstance(model, Reconstructs)
    if images.files is not None:
        images.files.leave_out(user_path(out))
    plan = outputs.plan(out, dict.fromkeys(images.names, ".png"), single=images.single)
    read = [] if images.files is None else images.files.paths()
    outputs.refuse_existing(plan.paths.values(), overwrite, read)
    outputs.sweep(plan.paths.values())
    if images.files is not None:
        images.files.notes += plan.notes
    written = []
    for names, x in images.batches():
        for name, y in zip(names, reconstruct(model, x.to(model.device)), strict=True):
            written.append(save(y, plan.paths[name]))
    return written


@torch.inference_mode()
def _score(model: GenerativeModel, images: ImageSource, out: str | Path, overwrite: bool) -> list[Path]:
    """Writes ``scores.csv``: names and scores, the lowest (least ordinary) first."""
    assert isinstance(model, ScoresSamples)
    path = user_path(out)
    path = path if path.suffix == ".csv" and not path.is_dir() else path / "scores.csv"
    outputs.refuse_existing([path], overwrite)
    rows: list[tuple[str, float]] = [
        (name, float(score))
        for names, x in images.batches()
        for name, score in zip(names, model.score_samples(x.to(model.device)).tolist(), strict=True)
    ]
    rows.sort(key=itemgetter(1))
    file = io.StringIO(newline="")
    table = csv.writer(file)
    table.writerow(["picture", "score"])
    table.writerows(rows)
    outputs.write_whole(path, file.getvalue().encode("utf-8", "backslashreplace"))
    return [path] * len(rows)
