"""What limner does, as Python calls: train, resume, load, sample, and the lists.

import limner
run = limner.train("dcgan-mnist", data="photos/", size=64, time="20m")
G = limner.load(run.latest)
images = G.sample(16, seed=0)                       # (16,C,H,W) in [-1,1]
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from limner import report
from limner.apply.draw import draw
from limner.config import catalogue, recipe
from limner.config.explain import explain
from limner.config.load import load_model
from limner.config.recipe import Recipe
from limner.config.spec import Spec
from limner.core import checkpoint, dist, graph
from limner.core.batch import KINDS, Dataset, Images
from limner.core.checkpoint import Checkpoint
from limner.core.device import devices, make_deterministic, pick
from limner.core.durable import replace_file
from limner.core.ema import EMA
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel, parameters
from limner.core.optimisers import Optimiser
from limner.core.options import TrainOptions
from limner.core.progress import Progress, Silent
from limner.core.rng import seed_of
from limner.core.run import Run
from limner.core.stream import Stream
from limner.core.train import fit
from limner.core.update import Updates
from limner.core.yaml_text import dump_yaml
from limner.evaluation import scoring

__all__ = ["demo", "dry_run", "explain", "load", "prepare", "resume", "sample", "train"]

_INIT = 4  # the stream id of initial weights


@dataclass(frozen=True)
class Prepared:
    """Everything a recipe asks for, made and on its device."""

    recipe: Recipe
    spec: Spec
    model: GenerativeModel
    dataset: Dataset
    heldout: Dataset | None
    options: TrainOptions
    optimisers: dict[str, Optimiser]
    device: torch.device


def prepare(chosen: Recipe) -> Prepared:
    """Makes data, model, optimisers and options of a recipe.

    Raises:
        LimnerError: the recipe cannot be made, with the reason.
    """
    options: TrainOptions = chosen.train.build()
    if len(devices(options.device)) > 1 and not dist.under_torchrun():
        raise LimnerError("several devices need one process each: use the command line, limner train … device=0,1")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = pick(dist.own_device(options.device))
    dist.join(device)
    dataset: Dataset = chosen.data.build()
    if options.batch > len(dataset):
        raise LimnerError(
            f"train.batch={options.batch} is larger than the {len(dataset)} images of {dataset.name};"
            f" use train.batch={max(1, len(dataset) // 2)} or give more images"
        )
    _refuse_unfit(chosen.model.name, dataset)
    torch.manual_seed(seed_of(options.seed, _INIT))
    spec = chosen.model.resolve(**dataset.facts())
    model: GenerativeModel = spec.build()
    model.spec = spec
    try:
        model.check_batch(options.batch // dist.world())
    except ValueError as error:
        raise LimnerError(f"train.batch={options.batch}: {error}") from None
    optimisers = {g: s.build() for g, s in chosen.optim.items()}
    model = model.to(device)
    update = Updates(model.groups(), optimisers)  # refuses what does not fit, before anything is written
    graph.check(options.graph, model, update, device)
    return Prepared(chosen, spec, model, dataset, scoring.heldout_of(chosen.data), options, optimisers, device)


def _refuse_unfit(model: str, dataset: Dataset) -> None:
    """Raises a `LimnerError` where the data are not of the kind that the model takes."""
    wanted = getattr(catalogue.find("model", model), "batch_type", Images)
    if dataset.batch_type is not wanted:
        has, example = KINDS[dataset.batch_type].contents, KINDS[wanted].example
        raise LimnerError(f"{model} does not learn from {dataset.name}, which has {has}; give it {example}")


def train(
    source: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    config: str | Path | None = None,
    progress: Progress | None = None,
    **overrides: Any,
) -> Run:
    """Trains a recipe into a run folder, judges the result and writes its report.

    Args:
        source: a recipe's name, a YAML file, or a mapping.
        out: the run folder; default the next number under ``runs/``.
        config: a YAML file merged over the recipe.
        progress: who is told how it goes; default nobody.
        **overrides: keys of the recipe, dotted or bare, such as train.batch=32, time=20m or data=photos/; in Python a
            dotted key is written ``**{"train.batch": 32}``. `limner explain RECIPE` lists them.

    Returns:
        The finished run.

    Raises:
        LimnerError: wrong recipe, data or device; a loss that is not finite; a full disk.
        Interrupted: SIGINT or SIGTERM; everything is saved and `resume` goes on.
    """
    prepared = prepare(recipe.load(source, overrides, config))
    run = _open(prepared, out)
    return _fit(prepared, run, None, progress or Silent())


def _open(prepared: Prepared, out: str | Path | None) -> Run:
    """The run folder: made by rank 0, shared with the others."""
    if dist.world() == 1:
        run = Run.create(prepared.recipe.to_dict(), out)
    else:
        import torch.distributed as td

        path = [str(Run.create(prepared.recipe.to_dict(), out).path) if dist.rank() == 0 else None]
        td.broadcast_object_list(path)
        run = Run(str(path[0]))
    if dist.rank() == 0:
        run.lock()
    return run


def resume(path: str | Path, *, progress: Progress | None = None, **overrides: Any) -> Run:
    """Goes on with a run from its newest whole checkpoint, as if it had never stopped.

    Args:
        path: the run folder.
        progress: who is told how it goes.
        **overrides: keys of ``train`` and ``optim`` to change from here on, such as images=2M.

    Raises:
        LimnerError: no run, no usable checkpoint, in use, or already finished.
    """
    run = Run(path)
    told = progress or Silent()
    wrong = [k for k in overrides if k.split(".")[0] in ("model", "data")]
    if wrong:
        raise LimnerError(f"{wrong[0]} cannot change in a run; start a new one with limner train")
    prepared = prepare(recipe.load(run.recipe, overrides))
    if dist.rank() == 0:
        run.lock()
    if not checkpoint.folders(run.checkpoints):  # stopped before its first checkpoint
        run.rewind(-1, -1)
        return _fit(prepared, run, None, told)
    start, problems = checkpoint.newest(run.checkpoints)
    for problem in problems:
        told.say(f"{problem}; going on from {start.path.name}")
        run.event("warning", start.state["images"], start.state["seconds"], message=problem)
    if not prepared.spec.agrees(start.description):
        run.unlock()
        raise LimnerError(f"the checkpoint of {run.name} holds another model than its recipe.yaml; restore the recipe")
    if start.state["images"] >= prepared.options.images and run.ended(prepared.options.images):
        run.unlock()
        raise LimnerError(
            f"{run.name} is finished at {start.state['images']} images; to train longer add"
            f" images={2 * prepared.options.images}"
        )
    if dist.rank() == 0 and overrides:
        replace_file(run.path / "recipe.yaml", dump_yaml(prepared.recipe.to_dict()).encode())
    return _fit(prepared, run, start, told)


def _fit(prepared: Prepared, run: Run, start: Checkpoint | None, progress: Progress) -> Run:
    """Trains, judges, reports; frees the folder whatever happens."""
    try:
        judge = (
            scoring.training_reference(prepared.dataset, prepared.heldout, prepared.device)
            if dist.rank() == 0
            else None
        )
        scored = scoring.during_training(judge, prepared.heldout) if dist.rank() == 0 else None
        if scored is None and prepared.options.score_images and dist.rank() == 0:
            progress.say("nothing is held out that samples could be compared with: train.score_images does nothing")
        model = fit(
            prepared.options,
            prepared.model,
            prepared.dataset,
            prepared.optimisers,
            run,
            device=prepared.device,
            heldout=prepared.heldout,
            scorer=scored,
            start=start,
            progress=progress,
        )
        if dist.rank() == 0 and prepared.heldout is not None:
            progress.say("scoring on held-out images")
            held, device = prepared.heldout, prepared.device
            run.write_json("scores.json", scoring.final_scores(model, prepared.dataset, held, judge, device))
            scoring.before_after(run, model, prepared.dataset, held)
        if dist.rank() == 0 and int(run.latest.name) >= prepared.options.images:
            # Said last, so that resume goes on with whatever was cut off.
            run.event("done", int(run.latest.name), run.events()[-1]["seconds"], message="finished")
    finally:
        try:
            if dist.rank() == 0:
                report.film(run.path)
                report.write_card(run.path, report.about(prepared.model.spec.name))
                report.write(run.path)
        finally:
            run.unlock()  # a report that cannot be written keeps no lock
        dist.barrier()
    return run


def dry_run(
    source: str | Path | Mapping[str, Any], *, config: str | Path | None = None, **overrides: Any
) -> dict[str, Any]:
    """What training would do: resolved recipe, parameters, and an estimate from three real steps.

    Returns:
        ``recipe``, ``images``, ``data``, ``parameters`` (per group: total, trainable, buffers; nets by name), and
        ``estimate``: ``seconds`` for the whole training (without sampling and saving) and ``bytes`` of memory for
        data, weights, gradients, moments, average and activations.
    """
    prepared = prepare(recipe.load(source, overrides, config))
    options, model, dataset = prepared.options, prepared.model, prepared.dataset
    if options.deterministic:
        make_deterministic()
    stream = Stream(dataset, options.batch, options.seed, device=prepared.device, channels_last=options.channels_last)
    update = Updates(model.groups(), prepared.optimisers)
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = EMA(model, options.ema_images, options.batch) if options.ema_images else None
    saved: dict[int, int] = {}

    def remember(t: torch.Tensor) -> torch.Tensor:
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    def step() -> None:
        stream.begin()
        with torch.autocast(prepared.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            model.step(stream, update)
        if ema is not None:
            ema.update()

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda t: t):
        step()
    seen, began = stream.position, time.perf_counter()
    for _ in range(3):
        step()
    if prepared.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) / (stream.position - seen) * options.images
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    moments = sum(
        t.numel() * t.element_size() for o in update.optimisers.values() for s in o.state.values() for t in s.values()
    )
    data = 0 if dataset.pixels is None else dataset.pixels.numel() * dataset.pixels.element_size()
    resolved = prepared.recipe.to_dict() | {"model": prepared.model.spec.to_dict()}
    return {
        "recipe": resolved,
        "images": options.images,
        "steps": -(-options.images // max(1, (stream.position - seen) // 3)),
        "data": {"name": dataset.name, "items": len(dataset), "shape": list(dataset.shape), "classes": dataset.classes},
        "parameters": parameters(model),
        "estimate": {
            "seconds": round(seconds, 2),
            "bytes": 2 * weights + moments + (weights if ema else 0) + sum(saved.values()) + data,
            "device": str(prepared.device),
        },
    }


def demo(out: str | Path = "runs/demo", *, time: str = "4m", progress: Progress | None = None) -> Run:
    """Learns the embedded digits by class, and draws a sheet of samples: a row of styles, a column a digit.

    Args:
        out: the run folder; numbered when it is taken.
        time: longest training time.
        progress: who is told how it goes.
    """
    place, number = Path(out), 1
    while place.exists() and any(place.iterdir()):
        number += 1
        place = Path(f"{out}-{number}")
    run = train("cvae-mnist", out=place, time=time, progress=progress)
    draw(run.path, run.path / "samples.png", n=100)
    return run


def load(path: str | Path, device: str = "cpu") -> GenerativeModel:
    """A trained model from a run folder, a checkpoint folder or a ``model.safetensors`` file, ready to use.

    Raises:
        LimnerError: there is none, or it is damaged.
    """
    return load_model(path, pick(device))


def sample(
    path: str | Path,
    n: int = 64,
    *,
    seed: int = 0,
    y: Any = None,
    device: str = "cpu",
    **options: Any,
) -> torch.Tensor:
    """`n` samples (n,C,H,W) in [-1,1] of a trained model; arguments as those of `GenerativeModel.sample`.

    Raises:
        LimnerError: there is no such model, or it has no such option.
    """
    return load(path, device).sample(n, y=y, seed=seed, **options)
