"""The loop: step, average, log, sample, save. It knows no model."""

from __future__ import annotations

import signal
import time as clock_
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from limner.core import checkpoint, dist
from limner.core.batch import Dataset, evenly_spaced, examples, to_float
from limner.core.capabilities import HasCritic
from limner.core.checkpoint import Checkpoint
from limner.core.device import describe, make_deterministic
from limner.core.ema import EMA
from limner.core.errors import LimnerError
from limner.core.frame import POINTS, drawable, frame
from limner.core.graph import Steps
from limner.core.model import GenerativeModel, load_weights, parameters
from limner.core.optimisers import Optimiser
from limner.core.options import TrainOptions
from limner.core.previews import COLUMNS, Grid
from limner.core.progress import Meters, Progress, Silent
from limner.core.run import Run
from limner.core.signals import stop_signals
from limner.core.stream import Stream
from limner.core.update import Updates, finite

Scorer = Callable[[GenerativeModel], dict[str, float]]
"""Scores of a model in evaluation mode, by name."""

_PATIENCE = 3  # skipped updates in a row, seen at a log step, that end the training


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal, after everything was saved.

    Attributes:
        signum: the signal.
        run: the run, ready to be resumed.
    """

    def __init__(self, signum: int, run: Run) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; saved")
        self.signum, self.run = signum, run


def fit(
    options: TrainOptions,
    model: GenerativeModel,
    dataset: Dataset,
    optimisers: Mapping[str, Optimiser],
    run: Run,
    *,
    device: torch.device,
    heldout: Dataset | None = None,
    scorer: Scorer | None = None,
    start: Checkpoint | None = None,
    progress: Progress | None = None,
) -> GenerativeModel:
    """Trains to the end, or to the time limit; returns the model for use (averaged, if it averages).

    Args:
        options: the section ``train`` of a recipe.
        model: on `device`, with its `spec`.
        dataset: what to learn.
        optimisers: one for each group of the model.
        run: where to write; this process must hold its lock (rank 0).
        device: where to compute.
        heldout: images never trained on, for pictures of reconstructions.
        scorer: scores the model every `score_images`; the first of its scores, the lower the better, chooses the
            best checkpoint.
        start: a checkpoint to go on from.
        progress: who is told.

    Raises:
        Interrupted: SIGINT or SIGTERM came; everything was saved.
        LimnerError: the loss stopped being finite, or the disk is full; checkpoints are intact.
    """
    told = progress or Silent()
    return _Training(options, model, dataset, optimisers, run, device, heldout, scorer, start, told).loop()


class _Training:
    """The state of one `fit`."""

    def __init__(
        self,
        options: TrainOptions,
        model: GenerativeModel,
        dataset: Dataset,
        optimisers: Mapping[str, Optimiser],
        run: Run,
        device: torch.device,
        heldout: Dataset | None,
        scorer: Scorer | None,
        start: Checkpoint | None,
        progress: Progress,
    ) -> None:
        self.options, self.run, self.progress, self.device = options, run, progress, device
        self.first = dist.rank() == 0
        if options.deterministic:
            make_deterministic()
        self.model = model.to(memory_format=torch.channels_last) if options.channels_last else model  # type: ignore[call-overload]
        self.model.train()
        self.update = Updates(model.groups(), optimisers)
        self.ema = EMA(model, options.ema_images, options.batch) if options.ema_images else None
        self.meters = Meters()
        self.stream = Stream(
            dataset,
            options.batch,
            options.seed,
            device=device,
            rank=dist.rank(),
            world=dist.world(),
            workers=options.workers,
            channels_last=options.channels_last,
        )
        self.heldout, self.scorer = heldout, scorer
        self.best: dict[str, float] = {}  # images and score of the best checkpoint so far
        self.scores: dict[str, float] = {}  # measured since the last line of metrics
        self.extent = _extent(dataset)
        self.steps, self.seconds, self.logged_at, self.signum = 0, 0.0, (0, 0.0), 0
        self.resumed = start is not None
        if start is not None:
            self.restore(start)
        self.step = Steps(
            self.model,
            self.update,
            self.stream,
            bf16=options.precision == "bf16",
            graph=options.graph,
            warn=self.warn,
        )

    # -- state ---------------------------------------------------------------------------------------------

    def restore(self, start: Checkpoint) -> None:
        """Takes up where a checkpoint stopped."""
        trainer, state = start.trainer, start.state
        load_weights(self.model, trainer["model"])
        if self.ema is not None:
            load_weights(self.ema.model, start.model)
        self.update.load_state(trainer["update"])
        meters = trainer["meters"]
        self.meters = Meters(
            meters["names"], None if meters["sums"] is None else meters["sums"].to(self.device), meters["steps"]
        )
        self.stream.position, self.steps, self.seconds = state["images"], state["steps"], state["seconds"]
        self.logged_at = (state["logged_images"], state["logged_seconds"])
        self.best = state.get("best", {})
        self.run.rewind(self.stream.position, self.logged_at[0]) if self.first else None
        now = describe(self.device)
        for key in ("torch", "threads", "device", "cpu_capability"):
            if state["env"].get(key) != now[key]:
                self.warn(f"{key} was {state['env'].get(key)} and is {now[key]}: results need not be the same bits")
        if state["data"] != self.stream.dataset.fingerprint:
            self.warn("the data have changed since this run began: results differ from an uninterrupted run")

    def save(self) -> None:
        """Writes a checkpoint, then forgets old ones."""
        if self.meters.sums is not None:
            dist.average_([self.meters.sums])  # what the first rank saves stands for all of them
        if not self.first:
            return
        began = clock_.monotonic()
        usable = self.ema.averaged_model() if self.ema is not None else self.model
        if not finite([*self.model.state_dict().values(), *usable.state_dict().values()]):
            raise self.diverged()
        position = self.stream.position
        trainer = {"model": self.model.state_dict(), "update": self.update.state(), "meters": vars(self.meters)}
        state = {
            "images": position,
            "steps": self.steps,
            "seconds": self.seconds,
            "logged_images": self.logged_at[0],
            "logged_seconds": self.logged_at[1],
            "env": describe(self.device),
            "data": self.stream.dataset.fingerprint,
            "best": self.best,
        }
        folder = checkpoint.write(self.run.checkpoints / f"{position:08d}", usable, trainer, state)
        if self.best.get("images") == position:
            checkpoint.point(self.run.checkpoints, checkpoint.BEST, folder)
        checkpoint.prune(self.run.checkpoints, self.options.keep, self.options.milestone_images)
        self.event("checkpoint", took=round(clock_.monotonic() - began, 3))

    # -- loop ----------------------------------------------------------------------------------------------

    def loop(self) -> GenerativeModel:
        options, stream = self.options, self.stream
        began = clock_.monotonic() - self.seconds
        session = clock_.monotonic()
        saved = stream.position if self.resumed else -1
        self.begin()
        try:
            with self.signals():
                while stream.position < options.images:
                    before = stream.position
                    stream.begin()
                    self.update.begin(before, options.images)
                    logs = self.step()
                    if self.ema is not None:
                        self.ema.update()
                    self.meters.add(logs)
                    self.steps += 1
                    self.seconds = clock_.monotonic() - began
                    self.progress.step(stream.position)
                    crossed = _Crossed(before, stream.position)
                    scored = bool(options.score_images) and crossed(options.score_images)
                    if scored:
                        self.score()
                    if scored or crossed(options.log_images):
                        self.log()
                    if crossed(options.sample_images):
                        self.sample()
                    if crossed(options.checkpoint_images) or self.best.get("images") == stream.position:
                        self.save()
                        saved = stream.position
                    if self.must_stop(crossed(options.log_images), clock_.monotonic() - session):
                        break
                if self.signum:
                    self.save() if saved != stream.position else None
                    self.event("stop", message=f"stopped by {signal.Signals(self.signum).name}")
                    raise Interrupted(self.signum, self.run)
                self.finish(saved)
        finally:
            self.progress.stop()
        return self.usable()

    def begin(self) -> None:
        """Opens the run, or reopens it."""
        position = self.stream.position
        self.progress.start(self.run, position, self.options.images)
        if not self.first:
            return
        data = self.stream.dataset
        facts = {"data": data.name, "items": len(data), "shape": list(data.shape), "fingerprint": data.fingerprint}
        sizes = {group: n["total"] for group, n in parameters(self.model).items()}
        facts |= self.model.preview_facts
        self.event("resume" if self.resumed else "start", **facts, parameters=sizes)
        for note in data.notes:
            self.progress.say(note)
        if not self.resumed:
            self.run.write_json("env.json", describe(self.device))
            if data.quarantine:
                self.run.write_json("quarantine.json", data.quarantine)
            reals = to_float(data.fetch(evenly_spaced(len(data), self.options.samples)))
            self.draw("data/reals.png", Grid(reals))
            self.sample()

    def finish(self, saved: int) -> None:
        """Logs, draws and saves whatever the end has not yet seen."""
        position = self.stream.position
        if position not in [seen for seen, _ in self.run.samples()]:
            self.sample()
        if saved != position:
            self.save()
        if self.meters.steps:  # after the checkpoint: whoever trains on continues this mean instead
            self.log()
        if position < self.options.images:
            self.event("stop", message="the time limit was reached")

    def must_stop(self, at_log: bool, session: float) -> bool:
        """Whether a signal came or the time is up; ranks agree at log steps."""
        flag = bool(self.signum) or (self.options.time is not None and session >= self.options.time)
        if dist.world() == 1:
            return flag
        return at_log and dist.any_rank(flag, self.device)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM finish the step and save; a second one ends at once."""

        def note(signum: int) -> None:
            self.signum = signum
            self.progress.say("finishing the step and saving; once more to stop at once")

        with stop_signals(note):
            yield

    # -- what it writes ------------------------------------------------------------------------------------

    def usable(self) -> GenerativeModel:
        """The model that samples are drawn from."""
        return (self.ema.averaged_model() if self.ema is not None else self.model).eval()

    def log(self) -> None:
        """A line of metrics; the end of a training whose loss is no longer finite."""
        means = self.meters.take()
        position, (images, seconds) = self.stream.position, self.logged_at
        elapsed = max(self.seconds - seconds, 1e-9)
        line = {
            "images": position,
            "step": self.steps,
            "epoch": round(self.stream.epoch, 4),
            "seconds": round(self.seconds, 3),
            "images_per_second": round((position - images) / elapsed, 2),
            **means,
            **{f"score/{name}": value for name, value in self.scores.items()},
        }
        self.scores = {}
        self.logged_at = (position, self.seconds)
        if self.first:
            self.run.log(line)
            self.progress.log(line)
        skipped = float(self.update.skipped)
        if skipped:
            self.event("skip", total=int(skipped), message=f"{int(skipped)} updates were not finite and were skipped")
        if float(self.update.streak) >= _PATIENCE:
            raise self.diverged()

    def score(self) -> None:
        """How good the samples are now; the best checkpoint is remembered, by all ranks alike."""
        position, better = self.stream.position, False
        if self.first and self.scorer is not None:
            began = clock_.monotonic()
            self.scores = self.scorer(self.usable())
            self.model.train()
            self.event("score", took=round(clock_.monotonic() - began, 3))
            value = next(iter(self.scores.values()))
            better = value < self.best.get("score", float("inf"))
        if dist.any_rank(better, self.device):
            self.best = {"images": position, "score": next(iter(self.scores.values()), float("-inf"))}

    def diverged(self) -> LimnerError:
        """The error of a training that lost its numbers."""
        self.event("stop", message="the loss is not finite")
        saved = checkpoint.folders(self.run.checkpoints)
        where = f"checkpoint {saved[-1].name} is whole" if saved else "nothing had been saved yet"
        group = next(iter(self.update.optimisers))
        lr = self.update.optimisers[group].param_groups[0]["lr"]
        return LimnerError(
            f"the loss or the weights are not finite at image {self.stream.position}; {where}. Lower the learning rate,"
            f" e.g. optim.{group}.lr={lr / 10:g}, or look at the data"
        )

    @torch.inference_mode()
    def sample(self) -> None:
        """The model's previews: what it makes of the same noise and the same images each time."""
        if not self.first:
            return
        began = clock_.monotonic()
        model = self.usable()
        batch = examples(self.heldout or self.stream.dataset, COLUMNS, self.device)
        for name, grid in model.preview(batch, self.options.samples, self.options.seed).items():
            self.draw(f"{name}/{self.stream.position:08d}.webp", grid)
        self.frame(model)
        self.model.train()
        self.event("sample", took=round(clock_.monotonic() - began, 3))

    def frame(self, model: GenerativeModel) -> None:
        """What the samples, the critic and its pull are now, for the animation of a toy."""
        data = self.stream.dataset
        if isinstance(model, HasCritic) and drawable(data.shape):
            real = to_float(data.fetch(evenly_spaced(len(data), POINTS))).to(self.device)
            fake = model.sample(POINTS, seed=self.options.seed)
            try:
                self.run.save_frame(self.stream.position, frame(model, fake, real))
            except OSError as error:
                self.warn(f"a frame was not written: {error.strerror or error}")

    def draw(self, name: str, grid: Grid) -> None:
        """Saves a grid; a failing disk must not end the training, a lost image is a warning."""
        columns = grid.columns or max(1, round(len(grid.images) ** 0.5))
        try:
            self.run.save_grid(name, grid.images, columns, self.extent)
        except OSError as error:
            self.warn(f"image {name} was not written: {error.strerror or error}")

    def event(self, event: str, **more: Any) -> None:
        if self.first:
            self.run.event(event, self.stream.position, self.seconds, **more)

    def warn(self, message: str) -> None:
        """A warning for the log and the user."""
        if self.first:
            self.event("warning", message=message)
            self.progress.say(message)


@dataclass(frozen=True)
class _Crossed:
    """Whether a step from `before` to `after` images passed a multiple of something."""

    before: int
    after: int

    def __call__(self, every: int) -> bool:
        return self.after // every != self.before // every


def _extent(data: Dataset) -> float | None:
    """Half the side of the square in which points are drawn: half as large again as the data. None for images."""
    if not drawable(data.shape):
        return None
    return max(1e-6, 1.5 * float(to_float(data.fetch(evenly_spaced(len(data), POINTS))).abs().max()))
