"""Values that are not finite, put into trainings with ``train.guard=true``: each must end by itself, and be finite.

    python benchmarks/rollback.py                 30 faults in six models, each also without the guard
    python benchmarks/rollback.py --cost 10       gan-mnist with the guard and without, ten pairs
    python benchmarks/rollback.py --look gan-mnist dcgan-mnist       what every training does at a line of the log

A fault lasts from a random step on for a random number of steps, in which it is put into a loss, a gradient, the pixels
of a batch, or the statistics of batch norm. It is a part of the course of the training, like a batch that breaks it:
it comes back at the same place until the training has been rolled back, once or twice. A training ends well if it has
seen all images, all tensors of all checkpoints that were ever written are finite, and the number of roll-backs is that
of the fault. The recipes are small versions of the shipped ones (`limner.bench.shrink`), 24 steps long.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import limner
from limner import api
from limner.bench.shrink import BATCH, shrunk
from limner.config import catalogue
from limner.config import recipe as recipes
from limner.core import checkpoint
from limner.core.checkpoint import pack
from limner.core.errors import LimnerError
from limner.core.graph import Steps
from limner.core.rollback import trouble
from limner.core.stream import Stream
from limner.core.update import Updates, all_finite

STEPS, LOG, SAVE = 24, 4, 6  # of a training; steps between lines of the log, and between checkpoints
PATIENCE = 3  # skipped updates in a row that are trouble

PLACES = {  # recipes, and where a fault can be put into them
    "dcgan-mnist": ("loss", "gradient", "input", "norm"),
    "infogan-mnist": ("loss", "input", "norm"),
    "conv-vae-mnist": ("loss", "gradient", "input", "norm"),
    "vae-mnist": ("loss", "gradient", "input"),
    "r3gan-mnist": ("loss", "gradient", "input"),
    "ddpm-mnist": ("loss", "gradient", "input"),
}


@dataclass(frozen=True)
class Fault:
    """Where a value is put, and when.

    Args:
        place: loss, gradient, input or norm.
        value: what is put there: NaN or infinity.
        group: the group of parameters whose loss or gradient it is.
        first: the step at which it begins.
        last: the step at which it ends.
        times: roll-backs after which it does not come back.
    """

    place: str
    value: float
    group: str
    first: int
    last: int
    times: int = 1

    def strikes(self, data: Any) -> bool:
        """Whether it is there in the coming step of a stream."""
        return self.first <= data.position // data.batch <= self.last and data.salt < self.times


class _Data:
    """A stream whose batches have a bad pixel."""

    def __init__(self, data: Any, value: float) -> None:
        self.data, self.value = data, value

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def __next__(self) -> Any:
        batch = next(self.data)
        x = batch[0].clone()
        x[0, 0, 5, 5] = self.value
        return batch._replace(**{batch._fields[0]: x})


class _Update:
    """An update whose loss or gradient is bad for one group."""

    def __init__(self, update: Any, fault: Fault) -> None:
        self.update, self.fault = update, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self.update, name)

    def __call__(self, group: str, loss: Any) -> None:
        self.update(group, self.broken(loss) if group == self.fault.group else loss)

    def broken(self, loss: Any) -> Any:
        """The loss with the value in it, or with a gradient that is not finite: the root at 0."""
        if callable(loss):
            return lambda: self.broken(loss())
        if self.fault.place == "loss":
            return loss * self.fault.value
        return loss + (loss - loss.detach()).abs().sqrt()


@contextmanager
def planted(model: type, fault: Fault) -> Iterator[None]:
    """Lets a fault happen in the steps of a model."""
    step = model.step  # type: ignore[attr-defined]

    def faulty(self: nn.Module, data: Any, update: Any) -> Any:
        if not fault.strikes(data):
            return step(self, data, update)
        logs = step(
            self,
            _Data(data, fault.value) if fault.place == "input" else data,
            _Update(update, fault) if fault.place in ("loss", "gradient") else update,
        )
        if fault.place == "norm":
            norms = [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            norms[fault.first % len(norms)].running_var[0] = fault.value
        return logs

    model.step = faulty  # type: ignore[attr-defined]
    try:
        yield
    finally:
        model.step = step  # type: ignore[attr-defined]


@contextmanager
def witnessed() -> Iterator[list[str]]:
    """Lists the checkpoints with values that are not finite, of all that are written meanwhile."""
    write, poisoned = checkpoint.write, []

    def read_back(folder: Path, *rest: Any) -> Path:
        write(folder, *rest)
        found = checkpoint.read(folder)
        moments = pack({k: v for k, v in found.trainer.items() if k != "meters"})[0]
        if not all_finite([*found.model.values(), *moments.values()]):
            poisoned.append(folder.name)
        return folder

    checkpoint.write = read_back
    try:
        yield poisoned
    finally:
        checkpoint.write = write


def small(recipe: str, **more: Any) -> dict[str, Any]:
    """A small version of a recipe, with the guard."""
    every = {"log_images": LOG * BATCH, "checkpoint_images": SAVE * BATCH, "sample_images": 20 * BATCH}
    return shrunk(recipe, **{"images": STEPS * BATCH, "guard": True, **every, **more}).to_dict()


def fault_of(recipe: str, place: str, value: float, random_: random.Random) -> Fault:
    """A random fault that a training of the recipe meets and that is trouble."""
    groups = {"dcgan-mnist": "GD", "infogan-mnist": "GD", "r3gan-mnist": "GD", "ddpm-mnist": "F"}.get(recipe, ("VAE",))
    first = random_.randrange(STEPS - PATIENCE - LOG)
    # a line of the log must come while updates are skipped; statistics stay bad by themselves
    length = 1 if place == "norm" else PATIENCE + LOG
    return Fault(place, value, random_.choice(groups), first, first + length - 1, random_.choice([1, 1, 2]))


def outcome(recipe: str, fault: Fault, out: Path, **more: Any) -> str:
    """How a training with a fault ends: "ended well", or what is wrong."""
    tree = small(recipe, **more)
    with planted(catalogue.find("model", tree["model"]["name"]), fault), witnessed() as poisoned:
        try:
            run = limner.train(tree, out=out)
        except LimnerError as error:
            return f"poisoned checkpoint {poisoned[0]}" if poisoned else f"error: {error}"
    if poisoned:
        return f"poisoned checkpoint {poisoned[0]}"
    if run.events()[-1]["event"] != "done" or int(run.latest.name) != tree["train"]["images"]:
        return "not finished"
    if not all_finite(limner.load(run.latest).state_dict().values()):
        return "weights are not finite"
    back = sum(e["event"] == "rollback" for e in run.events())
    return "ended well" if back == fault.times else f"{back} roll-backs instead of {fault.times}"


def faults(times: int, seed: int) -> Iterator[tuple[str, Fault]]:
    """Recipes and faults: each place of each recipe in turn, and NaN as often as infinity."""
    pairs = [(recipe, place) for recipe, places in PLACES.items() for place in places]
    for i in range(times):
        recipe, place = pairs[i % len(pairs)]
        value = (float("nan"), float("nan"), float("inf"), -float("inf"))[i % 4]
        yield recipe, fault_of(recipe, place, value, random.Random(f"{seed} {i}"))


def trials(times: int, seed: int) -> dict[str, Any]:
    """Runs so many faults with the guard and without, prints each, and counts."""
    good, without = Counter[str](), 0
    for i, (recipe, fault) in enumerate(faults(times, seed)):
        with tempfile.TemporaryDirectory() as folder:
            found = outcome(recipe, fault, Path(folder) / "guarded")
            bare = outcome(recipe, fault, Path(folder) / "bare", guard=False)
        good[found] += 1
        without += not bare.startswith("error")
        steps = f"steps {fault.first} to {fault.last}, {fault.times} times"
        print(f"{i + 1:>3} {recipe:<15} {fault.place:<9}{fault.value:>5} {fault.group:<4}{steps}: {found}", flush=True)
    poisoned = sum(n for text, n in good.items() if text.startswith("poisoned"))
    print(f"{good['ended well']} of {times} ended well, {poisoned} poisoned checkpoints; without the guard {without}")
    return {"well": good["ended well"], "of": times, "poisoned": poisoned, "without_guard": without}


def check_cost(recipe: str) -> dict[str, Any]:
    """Processor time of the look for trouble at a line of the log, and of the 50 steps between two of them."""
    setup = api.prepare(recipes.load(recipe, {"data": "digits", "device": "cpu", "threads": 1}))
    model, stream = setup.model.train(), Stream(setup.dataset, setup.options.batch)
    update = Updates(model.groups(), setup.optimisers)
    step = Steps(model, update, stream)
    seconds: dict[str, list[float]] = {"steps": [], "look": []}
    for _ in range(10):
        start = time.process_time()
        for _ in range(50):
            stream.begin()
            step()
        middle = time.process_time()
        for _ in range(50):
            trouble(model, update, stream.device)
        seconds["steps"].append(middle - start)
        seconds["look"].append((time.process_time() - middle) / 50)
    steps, look = (statistics.median(values) for values in seconds.values())
    print(f"{recipe}: 50 steps take {steps * 1e3:.0f} ms, a look for trouble {look * 1e3:.2f} ms: {look / steps:.2%}")
    return {"recipe": recipe, "steps": steps, "look": look}


def cost(pairs: int, images: int) -> dict[str, Any]:
    """Processor time of gan-mnist with the guard and without: their ratio in so many pairs."""

    def seconds(guard: bool) -> float:
        with tempfile.TemporaryDirectory() as folder:
            quiet = {"samples": 4, "sample_images": 10**9, "checkpoint_images": 10**9, "threads": 1, "device": "cpu"}
            start = time.process_time()
            limner.train("gan-mnist", out=Path(folder) / "run", data="digits", images=images, guard=guard, **quiet)
            return time.process_time() - start

    seconds(True)  # the first training of a process reads data and compiles kernels
    ratios = []
    for i in range(pairs):
        order: tuple[bool, ...] = (False, True) if i % 2 else (True, False)
        took = {guard: seconds(guard) for guard in order}
        ratios.append(took[True] / took[False])
        print(f"without {took[False]:.2f} s, with the guard {took[True]:.2f} s: {ratios[-1] - 1:+.2%}", flush=True)
    error = statistics.stdev(ratios) / len(ratios) ** 0.5 if pairs > 1 else float("nan")
    print(f"mean {statistics.mean(ratios) - 1:+.2%} ± {error:.2%}, median {statistics.median(ratios) - 1:+.2%}")
    return {"mean": statistics.mean(ratios), "error": error, "median": statistics.median(ratios), "pairs": pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=30, help="number of faults")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--cost", type=int, default=0, metavar="PAIRS", help="measure the cost instead")
    parser.add_argument("--look", nargs="+", default=[], metavar="RECIPE", help="measure the look for trouble instead")
    parser.add_argument("--images", type=int, default=64_000, help="images of each training that is measured")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.look:
        found: dict[str, Any] = {"looks": [check_cost(recipe) for recipe in chosen.look]}
    else:
        found = cost(chosen.cost, chosen.images) if chosen.cost else trials(chosen.times, chosen.seed)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.exit(bool(found.get("of", 0) - found.get("well", 0) + found.get("poisoned", 0)))


if __name__ == "__main__":
    main()
