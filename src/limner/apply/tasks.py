"""Tasks on the user's own images; the capabilities of a model decide which of them it can do.

=============  ==========================================  =============================================
task           needs                                       gives
=============  ==========================================  =============================================
reconstruct    `Reconstructs`                              decode(encode(image))
interpolate    `Reconstructs`                              images on the way from one to another
denoise        `Denoises`, or `Reconstructs` and           the denoised image
               `Corrupts`
inpaint, edit  `Denoises`                                  `limner.apply.restore` says what: no model was
upscale,                                                   trained for these tasks
colourise
relabel        `Conditional` and `Generates`               the picture with another label: `limner.apply.relabel`
anomaly        `ScoresSamples`                             scores.csv, the lowest score first
translate      `Translates`                                the translated image; a model that learnt to undo a
                                                           degradation has its task: colourise, upscale, inpaint …
blend          `Denoises`, or `Translates` and trained     two images as one, and the same by Poisson blending
               to inpaint
=============  ==========================================  =============================================
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limner.apply import blend as blending
from limner.apply import outputs, transparency
from limner.apply.files import Written, find, read_file
from limner.apply.images import ImageSource, save
from limner.apply.masks import Masks
from limner.apply.relabel import nearest_codes, of_features, pixels
from limner.apply.restore import Restorer
from limner.apply.translate import Translation, kept_suffixes, translate
from limner.apply.untrained import Restoration, restore_files
from limner.config.load import load_model
from limner.core.capabilities import Conditional, Corrupts, Denoises, Generates, Reconstructs, ScoresSamples, Translates
from limner.core.device import pick
from limner.core.errors import LimnerError, unknown
from limner.core.grid import make_grid
from limner.core.inference import reconstruct
from limner.core.interpolation import interpolation_for
from limner.core.model import GenerativeModel
from limner.core.paths import user_path
from limner.metrics.extractors.attributes import AttributeReader, attribute_reader
from limner.metrics.extractors.readers import knows, reading

_RESTORES = ("inpaint", "edit", "upscale", "colourise", "denoise")
_ASKED = ("y", "steps", "guidance")  # settings of every task of a model that denoises
_OWN = {
    "translate": ("to", "mask", "blend", "degrade", "tile"),
    "inpaint": (*_ASKED, "mask", "blend", "degrade", "side"),
    "edit": (*_ASKED, "strength", "side"),
    "upscale": (*_ASKED, "scale", "degrade"),
    "colourise": (*_ASKED, "side", "degrade"),
    "denoise": (*_ASKED, "noise", "degrade"),
    "reconstruct": ("y", "steps"),
    "interpolate": ("y", "steps", "to", "n"),
    "relabel": ("y", "was", "keep"),
    "anomaly": (),
}
"""The settings that a task takes; of `denoise`, with a model that denoises."""
_MEANT = {"mask": "inpaint", "blend": "inpaint", "strength": "edit", "scale": "upscale", "noise": "denoise"}
"""The task that a setting alone tells."""
_MOST = 1000  # pictures of an interpolation


def apply(
    path: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    task: str | None = None,
    to: str | None = None,
    mask: str | Path | None = None,
    blend: str | Path | None = None,
    degrade: bool = False,
    tile: int | None = None,
    y: str | int | None = None,
    was: str | int | None = None,
    keep: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    strength: float | None = None,
    scale: int | None = None,
    noise: float | None = None,
    side: int | None = None,
    n: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Applies a trained model to pictures.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        source: a picture, a folder, a ZIP, or a named data set (its held-out part).
        out: a folder, or a file name for one picture. Results keep their names, and models that translate or denoise
            the formats; no result replaces another one or a file that is there already.
        task: with a diffusion or flow-matching model inpaint, edit, upscale, colourise, denoise, reconstruct,
            interpolate or anomaly; with an autoencoder reconstruct, denoise, interpolate or anomaly, by default denoise
            where it was trained for that, else reconstruct. Models that translate have one task only.
        to: for models that translate both ways, the domain of the results: a or b (the default). To interpolate, the
            picture at the other end.
        mask: to inpaint, a picture, or a folder or a ZIP of pictures with the same names, white where something is
            missing (luminance times alpha); by default transparent parts are missing. With `blend`, white where that
            picture is wanted.
        blend: a picture to paste into `source` where the mask is white, or all of a cut-out that is transparent; the
            model paints the seam.
        degrade: degrade whole pictures first, as in training, to see how well the model restores them.
        tile: for models that translate, side in pixels of the tiles that a large picture is cut into; by default 512
            for pictures above a megapixel, and no tiles below.
        y: for models with classes, the class of the pictures by its name or its index. To relabel, the class or the
            attributes that they shall have.
        was: to relabel, the class or the attributes that the pictures have; by default what the net of `keep` reads.
        keep: to relabel, the net that knows whose face it is, such as avatars-v1 for cartoon faces: the result is near
            the picture in its features. By default pixels are compared.
        steps: for diffusion and flow-matching models, evaluations on the way from noise to a picture (20 by default).
            Raise it for finer results. Lower it for speed. To denoise, one is enough for the mean of what may be under
            the noise; if you write steps, one example is drawn, which is sharper.
        guidance: for such a model of classes, how much stronger than in training the class counts (1 by default). Raise
            it if results do not look like the class. Lower it if they look alike.
        strength: to edit, from 0, where nothing changes, to 1, where a new picture is drawn (0.5 by default).
        scale: to upscale with such a model, the factor (2 by default).
        noise: to denoise with such a model, the standard deviation of the noise on the [0,1] scale; by default it is
            estimated of each picture.
        side: with such a model, the shorter side in pixels at which pictures are inpainted, edited or colourised; by
            default that of the pictures it knows. Raise it for finer results on large pictures, of which it then sees
            parts.
        n: to interpolate, the number of pictures (8 by default).
        seed: seed of the noise; for models that translate, of their dropout.
        overwrite: replace earlier results; pictures that are read are never replaced.
        device: auto, cpu, cuda or mps.

    Returns:
        ``{"task", "n", "written", "skipped": [[name, reason], …], "notes": [sentence, …]}``.

    Raises:
        LimnerError: no such model, picture or task, or a task or a setting the model does not have.
    """
    model = load_model(user_path(path), pick(device))
    settings: dict[str, Any] = {
        "to": to, "mask": mask, "blend": blend, "degrade": degrade or None, "tile": tile, "y": y, "was": was,
        "keep": keep, "steps": steps, "guidance": guidance, "strength": strength, "scale": scale, "noise": noise,
        "side": side, "n": n,
    }  # fmt: skip
    settings = {key: value for key, value in settings.items() if value is not None}
    if isinstance(model, Translates):
        _check_settings(model, "translate", settings)
        masks = None if mask is None else Masks(mask)
        translation = Translation(model, to or "b", None if blend else masks, degrade, tile, seed)
        task = _check_translation_task(translation, task)
        if blend is not None:
            _check_inpaints(translation)
            return _blend(translation.inpaint, model.shape[0], source, blend, masks, out, overwrite).document("blend")
        return translate(translation, find(source), out, overwrite=overwrite).document(task)
    if task is None and isinstance(model, Denoises):
        task = _task_of_settings(model, settings)
    if task in _RESTORES and isinstance(model, Denoises):
        _check_settings(model, task, settings)
        return _restore(model, task, settings, source, out, seed, overwrite)
    task = _check_task(model, task, y)
    _check_settings(model, task, settings)
    model = model if steps is None else model.at(steps=steps)
    images = ImageSource(source, image_shape(model))
    if task == "anomaly":
        written = _score(model, images, out, overwrite)
    elif task == "relabel":
        written = _relabel(model, images, y, was, keep, seed, out, overwrite)
    elif task == "interpolate":
        written = _interpolate(model, images, to, 8 if n is None else n, y, out, overwrite)
    else:
        written = _reconstruct(model, images, y, out, overwrite)
    return Written(written, images.skipped, images.told()).document(task)


def text(document: dict[str, Any], out: str | Path) -> str:
    """The document of `apply` in lines: what was written, what was left out and why, and what else is to be said."""
    n = document["n"]
    first = f"{document['task']}: {n} picture{'s' * (n != 1)}, written to {out}"
    return "\n".join([first, *outputs.left_out(document["skipped"], document["notes"])])


def _check_settings(model: GenerativeModel, task: str, settings: dict[str, Any]) -> None:
    """Refuses settings that would have no effect."""
    allowed = () if task == "denoise" and not isinstance(model, Denoises) else _OWN[task]
    for key in settings:
        if key not in allowed:
            what = "a model that translates" if task == "translate" else task
            raise LimnerError(f"{key} is not for {what}, as {model.spec.name} does it; leave {key} out")


def _check_translation_task(translation: Translation, task: str | None) -> str:
    """The task of a model that translates, if it is the one asked for."""
    trained = translation.task.name if translation.task else "translate"
    if task not in (None, trained, "translate"):
        raise LimnerError(f"this model was trained to {trained}, not to {task}; leave --task out")
    return trained


def _task_of_settings(model: GenerativeModel, settings: dict[str, Any]) -> str:
    """The task that is meant where a model that can do many is given none."""
    for task, keys in {
        "inpaint": ("mask", "blend"),
        "edit": ("strength",),
        "upscale": ("scale",),
        "denoise": ("noise",),
    }.items():
        if any(key in settings for key in keys):
            return task
    raise LimnerError(f"{model.spec.name} can do many tasks; name one: --task {', '.join(_RESTORES)} or reconstruct")


def _restore(
    model: GenerativeModel,
    task: str,
    settings: dict[str, Any],
    source: str | Path,
    out: str | Path,
    seed: int,
    overwrite: bool,
) -> dict[str, Any]:
    """Restores pictures with a model that denoises."""
    asked = {key: settings[key] for key in _ASKED if key in settings}
    restorer = Restorer(model, seed=seed, **asked)
    masks = Masks(settings["mask"]) if "mask" in settings else None
    if "blend" in settings:
        if settings.get("degrade"):
            raise LimnerError("two pictures that are blended are not degraded; leave degrade out")

        def inpaint(x: Tensor, holes: Tensor) -> Tensor:
            return restorer.inpaint(x, holes, settings.get("side"))

        written = _blend(inpaint, restorer.shape[0], source, settings["blend"], masks, out, overwrite)
        return written.document("blend")
    own = {key: settings[key] for key in ("strength", "scale", "noise", "side", "degrade") if key in settings}
    restoration = Restoration(restorer, task, masks, mean="steps" not in settings, **own)
    return restore_files(restoration, find(source), out, overwrite=overwrite).document(task)


def _blend(
    inpaint: blending.Inpaint,
    channels: int,
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
    by_model = partial(blending.blend, inpaint, channels)
    images = [transparency.to_image(f(back, fore, mask)[0]) for f in (by_model, blending.poisson)]
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


def _check_inpaints(translation: Translation) -> None:
    if translation.task is None or translation.task.name != "inpaint":
        raise LimnerError("blending needs a model trained to inpaint; train one: limner train inpaint data=FOLDER")


def _check_task(model: GenerativeModel, task: str | None, y: str | int | None) -> str:
    """The task asked for, or the default of a model that does not translate."""
    capabilities = {
        **dict.fromkeys(_RESTORES, isinstance(model, Denoises)),
        "colourise": isinstance(model, Denoises) and model.shape[0] == 3,
        "denoise": isinstance(model, Denoises) or (isinstance(model, Reconstructs) and isinstance(model, Corrupts)),
        "reconstruct": isinstance(model, Reconstructs),
        "interpolate": isinstance(model, Reconstructs),
        "relabel": isinstance(model, Conditional) and isinstance(model, Generates) and not isinstance(model, Denoises),
        "anomaly": isinstance(model, ScoresSamples),
    }
    possible = [name for name, able in capabilities.items() if able]
    if task is not None and task not in capabilities:
        raise unknown("task", task, tuple(capabilities))
    if not possible:
        raise LimnerError(f"{model.spec.name} makes pictures but takes none; use limner sample, or an autoencoder here")
    if task is not None and task not in possible:
        others = "" if isinstance(model, Denoises) or task not in _RESTORES else "; a diffusion model can"
        raise LimnerError(f"{model.spec.name} cannot {task}; it can {' or '.join(possible)}{others}")
    task = task or possible[0]
    if not isinstance(model, Conditional):
        if y is not None:
            raise LimnerError(f"{model.spec.name} is not conditional; leave y out")
    elif y is None and task != "anomaly" and not isinstance(model, Denoises):  # a score is over all classes
        raise LimnerError(
            f"{model.spec.name} needs the class of each picture, and files do not tell it; write y=CLASS, "
            "or use limner sample"
        )
    return task


@torch.inference_mode()
def _reconstruct(
    model: GenerativeModel, images: ImageSource, y: str | int | None, out: str | Path, overwrite: bool
) -> list[Path]:
    assert isinstance(model, Reconstructs)
    return _changed(images, out, overwrite, lambda x: reconstruct(model, x, _labels(model, y, len(x))), model.device)


def _relabel(
    model: GenerativeModel,
    images: ImageSource,
    y: str | int | None,
    was: str | int | None,
    keep: str | None,
    seed: int,
    out: str | Path,
    overwrite: bool,
) -> list[Path]:
    """Writes each picture with another label: G(z*, y) for the z* whose picture with its own label is nearest."""
    assert isinstance(model, Generates)
    reader = None if keep is None else attribute_reader(keep, model.device)
    distance = pixels if reader is None else of_features(reader.recognise)
    values = _told_by(model, reader) if was is None else {}

    def relabelled(x: Tensor) -> Tensor:
        read = reading(reader.logits(x), reader.values, values) if reader and values else None
        before, after = _labels(model, was if read is None else read, len(x)), _labels(model, y, len(x))
        assert before is not None
        with torch.no_grad():
            return model.decode(nearest_codes(model, x, before, distance, seed=seed).z, after)

    _labels(model, was, 1), _labels(model, y, 1)  # refuses wrong words before anything is written
    return _changed(images, out, overwrite, relabelled, model.device)


def _told_by(model: GenerativeModel, reader: AttributeReader | None) -> Mapping[str, Sequence[str]]:
    """The attributes of a model's labels, where a reader can tell them all of a picture."""
    values = model.condition.values if isinstance(model, Conditional) else {}
    if reader is None or not values or not knows(reader.values, values):
        raise LimnerError("relabel needs the label that the pictures have, which files do not tell; write was=LABEL")
    return values


def _changed(
    images: ImageSource,
    out: str | Path,
    overwrite: bool,
    change: Callable[[Tensor], Tensor],
    device: torch.device,
) -> list[Path]:
    """Writes what `change` makes of the pictures (B,C,H,W), a batch at a time, under their names."""
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
        for name, result in zip(names, change(x.to(device)), strict=True):
            written.append(save(result, plan.paths[name]))
    return written


@torch.inference_mode()
def _interpolate(
    model: GenerativeModel,
    images: ImageSource,
    to: str | None,
    n: int,
    y: str | int | None,
    out: str | Path,
    overwrite: bool,
) -> list[Path]:
    """Writes n pictures on the way from one to another: one row in a file, or one file for each in a folder."""
    assert isinstance(model, Reconstructs)
    if to is None or not images.single:
        raise LimnerError("interpolation takes two pictures; give the first as the source and the other with --to FILE")
    if not 2 <= n <= _MOST:
        raise LimnerError(f"n={n} is not possible; write 2 to {_MOST} pictures, both ends among them")
    read_file(to)  # refuses what is no picture
    ends = [images, ImageSource(to, images.shape)]
    folder, target = outputs.is_folder(out), user_path(out)
    files = [target / f"{i:04d}.png" for i in range(n)] if folder else [outputs.check_file(out)]
    outputs.refuse_existing(files, overwrite, [p for end in ends if end.files for p in end.files.paths()])
    pair = torch.cat([x for end in ends for _, x in end.batches()]).to(model.device)
    codes = model.encode(pair, _labels(model, y, 2))
    t = torch.linspace(0, 1, n, device=codes.device)
    between = interpolation_for(getattr(model, "prior", None))
    z = between(codes[:1].expand(n, *codes.shape[1:]), codes[1:].expand(n, *codes.shape[1:]), t)
    x = model.decode(z, _labels(model, y, n))
    if folder:
        return [save(image, file) for image, file in zip(x, files, strict=True)]
    return [outputs.write(make_grid(x, n), files[0])]


def _labels(model: GenerativeModel, y: str | int | Tensor | None, n: int) -> Tensor | None:
    """The labels of n pictures, if a class was said."""
    return model.condition.read(y, n).to(model.device) if y is not None and isinstance(model, Conditional) else None


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
