"""The Python interface of limner: train, resume, load, sample and explain.

import limner
run = limner.train("dcgan-mnist", data="photos/", size=64, time="20m")
G = limner.load(run.latest)
images = G.sample(16, seed=0)                       # (16,C,H,W) in [-1,1]
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from limner import report
from limner.apply.draw import draw
from limner.config import catalogue, run_data
from limner.config import recipe as recipes
from limner.config.advice import Advice, is_data
from limner.config.advice import advise as advice_for
from limner.config.bounded import check_fits
from limner.config.call import read_options
from limner.config.explain import Explanation
from limner.config.explain import explain as explain_name
from limner.config.load import init_weights, load_model
from limner.config.recipe import Recipe
from limner.config.spec import Spec
from limner.core import checkpoint, dist, graph
from limner.core.batch import KINDS, Dataset, Images
from limner.core.checkpoint import Checkpoint
from limner.core.device import devices, lacks_bfloat16, pick
from limner.core.durable import replace_file
from limner.core.errors import LimnerError
from limner.core.forecast import forecast
from limner.core.model import GenerativeModel, parameters
from limner.core.optimisers import Optimiser
from limner.core.options import TrainOptions
from limner.core.paths import BUILTIN, exists, user_path
from limner.core.progress import Progress, Silent
from limner.core.rng import seed_of
from limner.core.run import Run
from limner.core.train import fit
from limner.core.update import Updates
from limner.core.workers import check_main_guard
from limner.core.yaml_text import dump_yaml
from limner.data.files.looks import one_look
from limner.doctor import diagnosis
from limner.doctor.explaining import explain as explain_check
from limner.doctor.watch import Watch
from limner.evaluation import scoring
from limner.evaluation.subjects import heldout_of

__all__ = ["advise", "demo", "dry_run", "explain", "load", "prepare", "resume", "sample", "train"]

_DRY_RUN, _BRIEF = 20.0, 4.0  # seconds of building and measuring: in a dry run, and of each recipe for advice
_INIT = 4  # the stream id of initial weights


@dataclass(frozen=True)
class Prepared:
    """The objects that a recipe describes, on their device."""

    recipe: Recipe
    spec: Spec
    model: GenerativeModel
    dataset: Dataset
    heldout: Dataset | None
    options: TrainOptions
    optimisers: dict[str, Optimiser]
    device: torch.device


def prepare(recipe: Recipe, start: Checkpoint | None = None) -> Prepared:
    """Builds data, model, optimisers and options of a recipe.

    Args:
        recipe: a checked recipe.
        start: the checkpoint that the model is for. It bounds the cost of building the model, and its training goes on
            also on a device that it would not begin on.

    Raises:
        LimnerError: the recipe cannot be built; the message gives the reason.
    """
    options: TrainOptions = recipe.train.build()
    if len(devices(options.device)) > 1 and not dist.under_torchrun():
        raise LimnerError("several devices need one process each: use the command line, limner train … device=0,1")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = pick(dist.device_of_rank(options.device))
    reason = lacks_bfloat16(device) if options.precision == "bf16" and start is None else None
    if reason:
        raise LimnerError(
            f"train.precision=bf16: {reason} and would emulate it, several times more slowly than float32; use"
            " train.precision=fp32, or insist with train.precision=bf16-emulated"
        )
    dist.join(device)
    dataset, heldout = dist.in_turn(lambda: _data(recipe))
    if options.batch > len(dataset):
        raise LimnerError(
            f"train.batch={options.batch} is larger than the {len(dataset)} images of {dataset.name};"
            f" use train.batch={max(1, len(dataset) // 2)} or give more images"
        )
    _check_batch_type(recipe.model.name, dataset)
    if any(part.pixels is None for part in dataset.parts()):  # read from files while training
        check_main_guard(options.workers)
    spec = recipe.model.resolve(**dataset.facts())
    if start is not None:
        if not spec.matches(start.description):
            raise LimnerError(
                f"checkpoint {start.path.name} holds another model than the run's recipe.yaml; restore the recipe"
            )
        check_fits(spec, start.model)
    torch.manual_seed(seed_of(options.seed, _INIT))
    model: GenerativeModel = spec.build()
    model.spec = spec
    if options.init is not None and start is None:
        init_weights(model, options.init)
    try:
        model.check_batch(options.batch // dist.world())
    except ValueError as error:
        raise LimnerError(f"train.batch={options.batch}: {error}") from None
    optimisers = {g: s.build() for g, s in recipe.optim.items()}
    model = model.to(device)
    update = Updates(model.groups(), optimisers)  # checks the optimisers before anything is written
    graph.check(options.graph, model, update, device)
    return Prepared(recipe, spec, model, dataset, heldout, options, optimisers, device)


def _data(recipe: Recipe) -> tuple[Dataset, Dataset | None]:
    """The images to train on and the held-out ones."""
    with one_look():
        dataset: Dataset = recipe.data.build()
        return dataset, heldout_of(recipe.data)


def _check_batch_type(model: str, dataset: Dataset) -> None:
    """Raises a `LimnerError` if the model does not take the batches of the data."""
    batch_type = getattr(catalogue.find("model", model), "batch_type", Images)
    if dataset.batch_type is not batch_type:
        contents, example = KINDS[dataset.batch_type].contents, KINDS[batch_type].example
        raise LimnerError(f"{model} does not learn from {dataset.name}, which has {contents}; give it {example}")


def train(
    source: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    config: str | Path | None = None,
    progress: Progress | None = None,
    **overrides: Any,
) -> Run:
    """Trains a recipe, scores the model and writes a report.

    Args:
        source: a recipe's name, a YAML file, or a mapping; or a folder or ZIP of images, for which `advise` then
            chooses the recipe.
        out: the run folder; default the next number under ``runs/``.
        config: a YAML file whose values replace those of the recipe.
        progress: receives the progress; default none.
        **overrides: keys of the recipe, with or without the section, such as train.batch=32, time=20m or data=photos/;
            in Python a key with a section is written ``**{"train.batch": 32}``. `limner explain RECIPE` lists them.

    Returns:
        The finished run.

    Raises:
        LimnerError: wrong recipe, data or device; a loss that is not finite; a full disk.
        Interrupted: SIGINT or SIGTERM was received; everything is saved, and `resume` continues the run.
    """
    progress = progress or Silent()
    if is_data(source):
        advice = advise(source, overrides)
        for reason in advice.reasons:
            progress.say(reason)
        source, overrides = BUILTIN + advice.recipe, advice.settings
    prepared = prepare(recipes.load(source, overrides, config))
    run = _open(prepared, out)
    return _fit(prepared, run, None, progress)


def advise(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Advice:
    """Says which recipe suits a folder or a ZIP of images, why, and what to expect; measures a few steps for it.

    Args:
        source: a folder, a ZIP or another file of images.
        overrides: settings that stay, such as ``{"time": "20m"}``, the time that may be spent (an hour by default).

    Returns:
        The recipe, its settings and the reasons; ``train(advice.recipe, **advice.settings)`` follows it.

    Raises:
        LimnerError: the data cannot be read, or no recipe can learn from them on this machine.
    """
    settings = dict(overrides or {})
    device = str(settings.get("device", settings.get("train.device", "auto")))
    if len(devices(device)) > 1:
        raise LimnerError(
            f"advice is measured on one device; see 'limner train {source} --dry-run', then name the recipe"
        )
    return advice_for(source, settings, lambda recipe, **own: _plan(recipe, own, limit=_BRIEF))


def _open(prepared: Prepared, out: str | Path | None) -> Run:
    """The run folder, which rank 0 creates for all ranks."""
    if dist.world() == 1:
        run = Run.create(recipes.record(prepared.recipe), out)
    else:
        import torch.distributed as td

        path = [str(Run.create(recipes.record(prepared.recipe), out).path) if dist.rank() == 0 else None]
        td.broadcast_object_list(path)
        run = Run(str(path[0]))
    if dist.rank() == 0:
        run.lock()
        run_data.remember(run, prepared.recipe.data)
    return run


def resume(path: str | Path, *, progress: Progress | None = None, **overrides: Any) -> Run:
    """Continues a run from its newest intact checkpoint; the result is that of an uninterrupted training.

    Args:
        path: the run folder.
        progress: receives the progress; default none.
        **overrides: new values for keys of ``train`` and ``optim``, such as images=2M; and data=PLACE where the data
            have moved, which is refused if their content is not the same.

    Raises:
        LimnerError: there is no run or no usable checkpoint, or the run is in use or finished; the data are gone.
        Interrupted: SIGINT or SIGTERM was received; everything is saved.
    """
    run = Run(path)
    progress = progress or Silent()
    places, settings = run_data.split(overrides)
    run.check()
    recipe, found = recipes.of_run(run.recipe, settings), checkpoint.folders(run.checkpoints)
    before = recipes.of_run(run.recipe)
    for key, value in settings.items():
        new = recipes.of_run(run.recipe, {key: value})
        if (new.model, new.data) != (before.model, before.data) or key.split(".")[0] in ("model", "data"):
            raise LimnerError(f"{key} cannot change in a run; start a new one with limner train")
    if places:
        recipe = replace(recipe, data=run_data.moved(run, recipe.data, places))
    start, problems = checkpoint.newest(run.checkpoints) if found else (None, [])
    here = recipe if places else replace(recipe, data=run_data.located(run, recipe.data, "resume"))
    prepared = prepare(here, start)
    if places:
        run_data.refuse_others(run, prepared.dataset, " and ".join(places.values()))
    if dist.rank() == 0:
        run.lock()
        run.sweep()
    if checkpoint.folders(run.checkpoints) != found:
        run.unlock()
        raise LimnerError(f"another process has just trained {run.name}; resume it again to train it longer")
    for problem in problems:
        assert start is not None
        progress.say(f"{problem}; going on from {start.path.name}")
        run.event("warning", start.state["images"], start.state["seconds"], message=problem)
    if start and start.state["images"] >= prepared.options.images and run.ended(prepared.options.images):
        run.unlock()
        raise LimnerError(
            f"{run.name} is finished at {start.state['images']} images; to train longer add"
            f" images={2 * prepared.options.images}"
        )
    if dist.rank() == 0 and overrides:
        replace_file(run.path / "recipe.yaml", dump_yaml(recipe.to_dict()).encode())
        run_data.remember(run, recipe.data)
    if start is None:
        run.rewind(-1, -1)
    return _fit(prepared, run, start, progress)


def _fit(prepared: Prepared, run: Run, start: Checkpoint | None, progress: Progress) -> Run:
    """Trains, scores and reports; always releases the lock."""
    dataset, heldout, device = prepared.dataset, prepared.heldout, prepared.device
    is_main = dist.rank() == 0
    try:
        reference = scoring.training_reference(prepared.model, dataset, heldout, device) if is_main else None
        scorer = scoring.during_training(reference, heldout) if is_main else None
        if scorer is None and prepared.options.score_images and is_main:
            progress.say("train.score_images has no effect: the data have no held-out images to compare samples with")
        watches = is_main and prepared.options.doctor
        examiner = Watch(prepared.recipe.to_dict(), dataset, heldout) if watches else None
        model = fit(
            prepared.options,
            prepared.model,
            dataset,
            prepared.optimisers,
            run,
            device=device,
            heldout=heldout,
            scorer=scorer,
            examiner=examiner,
            start=start,
            progress=progress,
        )
        if is_main and heldout is not None:
            progress.say("scoring on held-out images")
            run.write_json("scores.json", scoring.final_scores(model, dataset, heldout, reference, device))
            scoring.before_after(run, model, dataset, heldout)
        if is_main and int(run.latest.name) >= prepared.options.images:
            # This event comes last, so that `resume` repeats what was interrupted before it.
            run.event("done", int(run.latest.name), run.events()[-1]["seconds"], message="finished")
    finally:
        try:
            if is_main:
                if prepared.options.doctor:
                    diagnosis.save_of(run)
                report.film(run.path)
                report.write_card(run.path, report.about(prepared.model.spec.name))
                report.write(run.path)
        finally:
            run.unlock()
        dist.barrier()
    return run


def dry_run(
    source: str | Path | Mapping[str, Any], *, config: str | Path | None = None, **overrides: Any
) -> dict[str, Any]:
    """Describes the training that `train` would do, and forecasts its time and memory from a few steps.

    The steps are of small batches where those of the recipe would take long or much memory (`limner.core.forecast`).

    Returns:
        ``recipe``, ``images``, ``steps``, ``data``, ``parameters`` (per group: total, trainable, buffers) and
        ``estimate``: ``seconds`` for the whole training (without sampling and saving), ``bytes`` of memory at its peak
        (on a CPU of the whole process), and ``measured_steps`` of batches up to ``measured_batch``, from which both
        were extrapolated to ``batch``. For a folder or ZIP of images also ``advice``: the sentences of `advise`, whose
        recipe is described.
    """
    if not is_data(source):
        return _plan(source, overrides, config, _DRY_RUN)
    start = time.perf_counter()
    advice = advise(source, overrides)
    limit = _DRY_RUN - (time.perf_counter() - start)
    return {"advice": advice.reasons} | _plan(BUILTIN + advice.recipe, advice.settings, config, limit)


def _plan(
    source: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any],
    config: str | Path | None = None,
    limit: float = _DRY_RUN,
) -> dict[str, Any]:
    """What `dry_run` returns of a recipe, measured in about so many seconds, at least 2."""
    start = time.perf_counter()
    prepared = prepare(recipes.load(source, overrides, config))
    dataset, limit = prepared.dataset, max(2.0, limit - (time.perf_counter() - start))
    expected = forecast(prepared.options, prepared.model, dataset, prepared.optimisers, prepared.device, limit)
    return {
        "recipe": prepared.recipe.to_dict() | {"model": prepared.model.spec.to_dict()},
        "images": prepared.options.images,
        "steps": -(-prepared.options.images // expected.images),
        "data": {
            "name": dataset.name,
            "items": len(dataset),
            "shape": list(dataset.shape),
            "classes": dataset.classes,
            "attributes": dataset.attributes,
            "notes": list(dataset.notes),
            "left_out": list(dataset.quarantine),
        },
        "parameters": parameters(prepared.model),
        "estimate": {
            "seconds": round(expected.seconds, 2),
            "bytes": expected.bytes,
            "device": str(prepared.device),
            "batch": prepared.options.batch,
            "measured_batch": expected.batch,
            "measured_steps": expected.steps,
        },
    }


def demo(out: str | Path = "runs/demo", *, time: str = "150s", progress: Progress | None = None) -> Run:
    """Trains a conditional GAN on the digits that limner contains, and saves samples: a column for each digit.

    It is the recipe ``projection-mnist`` (Miyato and Koyama 2018) for a quarter of its images.

    Args:
        out: the run folder; a number is added if it is not empty.
        time: longest training time.
        progress: receives the progress; default none.
    """
    first, number = user_path(out, "a folder"), 1
    folder = first
    while exists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        number += 1
        folder = Path(f"{first}-{number}")
    run = train("builtin:projection-mnist", out=folder, images=150_000, time=time, progress=progress)
    draw(run.path, run.path / "samples.png", n=100)
    return run


def load(path: str | Path, device: str = "cpu") -> GenerativeModel:
    """Loads a trained model, in evaluation mode.

    Args:
        path: a run folder, a checkpoint folder or a ``model.safetensors`` file.
        device: auto, cpu, cuda, mps or a number.

    Raises:
        LimnerError: there is no model, or it is damaged.
    """
    return load_model(path, pick(device))


def explain(key: str) -> Explanation:
    """Explains a recipe, a model, a net, data, an option, a run, or a check of the doctor such as ``doctor.collapse``.

    `limner.config.explain.explain` and `limner.doctor.explaining.explain` say more of the names.

    Raises:
        LimnerError: the name is unknown; the message gives the nearest names.
    """
    return explain_check(key) if key.partition(".")[0] == "doctor" else explain_name(key)


def sample(
    path: str | Path,
    n: int = 64,
    *,
    seed: int = 0,
    y: Any = None,
    device: str = "cpu",
    **options: Any,
) -> torch.Tensor:
    """Draws `n` samples (n,C,H,W) in [-1,1] from a trained model.

    `path` and `device` are those of `load`, the other arguments those of `GenerativeModel.sample`.

    Raises:
        LimnerError: there is no such model, or it has no such option.
    """
    model = load(path, device)
    return model.sample(n, y=y, seed=seed, **read_options(model.sampling_options, options))
