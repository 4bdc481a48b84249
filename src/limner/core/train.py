"""The training loop: step, average the weights, log, sample, save.

It works with any `GenerativeModel` and contains no code for a particular one. `fit` is the entry point.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import torch

from limner.core import checkpoint, dist, rollback, trainer_state
from limner.core.batch import Dataset, HasDensity, evenly_spaced, examples, to_float
from limner.core.checkpoint import Checkpoint
from limner.core.device import describe, lacks_bfloat16, make_deterministic
from limner.core.ema import EMA
from limner.core.errors import LimnerError
from limner.core.examiner import Examiner
from limner.core.frame import POINTS, drawable, frame, is_drawn
from limner.core.graph import Steps
from limner.core.model import GenerativeModel, load_weights, parameters
from limner.core.optimisers import Optimiser
from limner.core.options import TrainOptions
from limner.core.previews import COLUMNS, Grid
from limner.core.profile import profile
from limner.core.progress import Meters, Progress, Silent
from limner.core.run import Run
from limner.core.signals import stop_signals
from limner.core.stream import Stream
from limner.core.update import Updates

Scorer = Callable[[GenerativeModel], dict[str, float]]
"""Computes the scores of a model in evaluation mode, by name; lower is better."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped the training, after everything was saved.

    Attributes:
        signum: the number of the signal.
        run: the run, which `limner.resume` continues.
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
    examiner: Examiner | None = None,
    start: Checkpoint | None = None,
    progress: Progress | None = None,
) -> GenerativeModel:
    """Trains a model until all images are seen or the time limit is reached.

    Args:
        options: the section ``train`` of a recipe.
        model: the model to train, on `device`, with its `spec`.
        dataset: the training data.
        optimisers: one optimiser for each group of the model.
        run: the run folder to write to; rank 0 must hold its lock.
        device: the device to train on.
        heldout: data that are not trained on, for previews.
        scorer: computes scores every `score_images`; the checkpoint with the lowest first score is the best one.
        examiner: examines the model every `doctor_images`, on rank 0.
        start: a checkpoint to resume from.
        progress: receives the progress.

    Returns:
        The model to use, in evaluation mode: the averaged one if `ema_images` is not 0.

    Raises:
        Interrupted: SIGINT or SIGTERM was received; everything was saved.
        LimnerError: the loss is no longer finite, and `guard` is off or has gone back three times; or the disk is full.
            Earlier checkpoints are intact.
    """
    return _Training(
        options, model, dataset, optimisers, run, device, heldout, scorer, examiner, start, progress or Silent()
    ).loop()


@dataclass
class _Training:
    """One training: its model, optimisers, data and counters, and the loop over its steps."""

    options: TrainOptions
    model: GenerativeModel
    dataset: Dataset
    optimisers: Mapping[str, Optimiser]
    run: Run
    device: torch.device
    heldout: Dataset | None
    scorer: Scorer | None
    examiner: Examiner | None
    start: Checkpoint | None
    progress: Progress

    def __post_init__(self) -> None:
        options = self.options
        self.is_main = dist.rank() == 0  # the process that writes files
        if options.deterministic:
            make_deterministic()
        if options.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.train()
        self.update = Updates(self.model.groups(), self.optimisers)
        self.meters = Meters()
        self.stream = Stream(
            self.dataset,
            options.batch,
            options.seed,
            device=self.device,
            rank=dist.rank(),
            world=dist.world(),
            workers=options.workers,
            channels_last=options.channels_last,
        )
        if self.start is None:
            with self.stream.ahead():
                self.model.warm_up(self.stream)
        self.ema = EMA(self.model, options.ema_images, options.ema_ramp) if options.ema_images else None
        self.best: dict[str, float] = {}  # position and score of the best checkpoint
        self.scores: dict[str, float] = {}  # computed since the last line of metrics
        self.extent = _extent(self.dataset)
        self.steps, self.seconds, self.signum = 0, 0.0, 0
        self.rollbacks = 0
        self.saved_at = -1  # position of the newest checkpoint
        self.left_out: list[tuple[str, str]] = []  # the bad files that the data had at the start
        self.logged_at = (0, 0.0)  # position and seconds of the last line of metrics
        if self.start is not None:
            self.restore(self.start, self.start.state.get("rollbacks", 0))
            self.say_what_changed(self.start.state)
        reason = lacks_bfloat16(self.device) if options.bf16 else None
        if reason:
            self.warn(f"{reason}: it is emulated, and this training is several times slower than in float32")
        self.step = self.new_steps()

    def new_steps(self) -> Steps:
        """The steps of the training, of which none is recorded yet."""
        options = self.options
        return Steps(self.model, self.update, self.stream, bf16=options.bf16, graph=options.graph, warn=self.warn)

    # -- state ---------------------------------------------------------------------------------------------

    def restore(self, start: Checkpoint, rollbacks: int) -> None:
        """Restores the state that a checkpoint saved, for a training that was rolled back so many times until now."""
        trainer, state = start.trainer, start.state
        trainer_state.check(start, self.model, self.update)
        self.model.rules = state.get("rules", 1)
        load_weights(self.model, trainer["model"])
        if self.ema is not None:
            load_weights(self.ema.model, start.model)
        self.update.load_state(trainer["update"])
        names, sums, steps = (trainer["meters"][k] for k in ("names", "sums", "steps"))
        self.meters = Meters(names, None if sums is None else sums.to(self.device), steps)
        self.saved_at, self.rollbacks = state["images"], rollbacks
        self.stream.move(self.saved_at, salt=rollbacks)
        self.update.slow_down(rollback.RATE**rollbacks)
        self.steps, self.seconds = state["steps"], state["seconds"]
        self.logged_at = (state["logged_images"], state["logged_seconds"])
        self.best = state.get("best", {})
        if self.is_main:
            self.run.rewind(self.stream.position, self.logged_at[0])
            if self.examiner is not None:
                self.examiner.begin(self.run.metrics(), self.run.checks())
            self.prune()  # a killed process may not have come to it

    def say_what_changed(self, state: Mapping[str, Any]) -> None:
        """Warns if the machine or the data are not those that a checkpoint was written with."""
        environment = describe(self.device)
        for key in ("torch", "threads", "device", "cpu_capability"):
            before, now = state["env"].get(key), environment[key]
            if before != now:
                self.warn(f"{key} was {before} and is {now}: results may differ in their last bits")
        if state["data"] != self.dataset.fingerprint:
            self.warn("the data have changed since this run began: results will differ from an uninterrupted run")

    def prune(self) -> None:
        """Marks the best checkpoint, and deletes those that are no longer kept."""
        checkpoint.mark_best(self.run.checkpoints, self.best.get("images"))
        checkpoint.prune(self.run.checkpoints, self.options.keep, self.options.milestone_images)

    def save(self, planned: bool = False) -> None:
        """Writes a checkpoint and deletes old ones.

        Args:
            planned: whether an uninterrupted training saves here too.
        """
        if not rollback.is_finite(self.model, self.averaged_model(), self.update, self.device):
            self.roll_back(rollback.BROKEN)
            return
        position = self.saved_at = self.stream.position
        if self.meters.sums is not None:
            dist.average_([self.meters.sums])  # rank 0 saves for all ranks
        if not self.is_main:
            return
        start = monotonic()
        trainer = {"model": self.model.state_dict(), "update": self.update.state(), "meters": vars(self.meters)}
        state = {
            "images": position,
            "steps": self.steps,
            "seconds": self.seconds,
            "logged_images": self.logged_at[0],
            "logged_seconds": self.logged_at[1],
            "env": describe(self.device),
            "data": self.dataset.fingerprint,
            "best": self.best,
            "planned": planned and not self.update.streak,  # else a roll-back might come back to the trouble
            "rules": self.model.rules,
            "rollbacks": self.rollbacks,
        }
        checkpoint.write(self.run.checkpoints / f"{position:08d}", self.averaged_model(), trainer, state)
        self.prune()
        self.event("checkpoint", took=round(monotonic() - start, 3))

    def has_gone_back(self) -> bool:
        """Rolls the training back if it has diverged, and says whether it has."""
        trouble = rollback.trouble(self.model, self.update, self.device)
        if trouble:
            self.roll_back(trouble)
        return trouble is not None

    def roll_back(self, reason: str, since: int | None = None) -> None:
        """Goes back to the last healthy checkpoint, with other noise and lower rates; all ranks must call it.

        Args:
            reason: what is wrong, for the user.
            since: the position at which it began, where that is known; no later checkpoint is healthy.

        Raises:
            LimnerError: `train.guard` is off, there were too many roll-backs, or no checkpoint is healthy.
        """
        if self.meters.steps:
            self.log()
        allowed = self.options.guard and self.rollbacks < rollback.MOST
        start = rollback.last_healthy(self.run.checkpoints, since) if allowed else None
        dist.barrier()  # all ranks have read it before the first one deletes those after it
        if start is None:
            raise self.diverged(reason)
        count, images = self.rollbacks + 1, start.state["images"]
        rates = {group: recipe[0] * rollback.RATE**count for group, recipe in self.update.rates.items()}
        message = rollback.message(reason, self.stream.position, images, count)
        self.event("rollback", message=message, reason=reason, **{"from": self.stream.position}, to=images, rates=rates)
        if self.is_main:
            self.progress.say(message)
            checkpoint.rewind(self.run.checkpoints, start.path)
        self.restore(start, count)
        self.scores = {}
        self.step = self.new_steps()  # a recorded step would go on with the old moments and rates
        self.began = monotonic() - self.seconds

    # -- loop ----------------------------------------------------------------------------------------------

    def loop(self) -> GenerativeModel:
        """Trains to the end and returns the model to use."""
        options, stream = self.options, self.stream
        session_start = monotonic()
        self.began = session_start - self.seconds
        self.begin()
        try:
            with stop_signals(self.request_stop):
                if options.guard and self.saved_at < 0:
                    self.save(planned=True)  # to go back to, until there is a better one
                while not self.is_over:
                    before = stream.position
                    self.take_step()
                    self.seconds = monotonic() - self.began
                    self.progress.step(stream.position)
                    crossed = partial(_crossed, before, stream.position)
                    at_log = crossed(options.score_images) or crossed(options.log_images)
                    if (at_log or self.is_over) and self.has_gone_back():
                        continue
                    if crossed(options.score_images):
                        self.score()
                    if at_log:
                        self.log()
                    if crossed(options.doctor_images):
                        self.examine()
                    if crossed(options.sample_images):
                        self.sample()
                    if crossed(options.checkpoint_images) or self.best.get("images") == stream.position:
                        self.save(planned=True)
                    if self.must_stop(crossed(options.log_images), monotonic() - session_start):
                        break
                if self.signum:
                    if self.saved_at != stream.position:
                        self.save()
                    self.say_new_bad_files()
                    self.event("stop", message=f"stopped by {signal.Signals(self.signum).name}")
                    raise Interrupted(self.signum, self.run)
                self.finish()
        finally:
            self.progress.stop()
        return self.averaged_model().eval()

    @property
    def is_over(self) -> bool:
        """Whether all images are seen."""
        return self.stream.position >= self.options.images

    def take_step(self) -> None:
        """Updates the weights once, and then their average."""
        self.stream.begin()
        before = self.stream.position
        self.update.begin(before, self.options.images)
        self.meters.add(self.step())
        if self.ema is not None:
            # Before rule 2, a step counted as one batch, however many it took.
            position = self.stream.position
            self.ema.update(self.options.batch if self.model.rules < 2 else position - before, position)
        self.steps += 1

    def begin(self) -> None:
        """Records the start of the run, with previews of the untrained model, or its continuation."""
        position = self.stream.position
        self.progress.start(self.run, position, self.options.images)
        if not self.is_main:
            return
        data = self.dataset
        self.left_out = self.bad_files()
        facts = {"data": data.name, "items": len(data), "shape": list(data.shape), "fingerprint": data.fingerprint}
        notes = list(data.notes)
        if self.left_out and all(part.pixels is None for part in data.parts()):  # scores have read more of the files
            reasons = Counter(reason for _, reason in self.left_out)
            notes.append(f"left out so far: {', '.join(f'{n} {reason}' for reason, n in reasons.most_common())}")
        known = {"classes": data.classes, "attributes": data.attributes}
        facts |= {"notes": notes} | {key: names for key, names in known.items() if names}
        sizes = {group: n["total"] for group, n in parameters(self.model).items()}
        facts |= {**self.model.preview_facts, **profile(self.model)}
        self.event("resume" if self.start else "start", **facts, parameters=sizes)
        for note in notes:
            self.progress.say(note)
        if self.start is None:
            self.run.write_json("env.json", describe(self.device))
            if self.left_out:
                self.run.write_json("quarantine.json", self.left_out)
            reals = to_float(data.fetch(evenly_spaced(len(data), self.options.samples)))
            self.save_grid("data/reals.png", Grid(reals))
            self.sample()

    def bad_files(self) -> list[tuple[str, str]]:
        """(path, reason) of each file that the data leave out; more may be found while they are read."""
        datasets = [self.dataset, *([] if self.heldout is None else [self.heldout])]
        found = [bad for whole in datasets for each in (whole, *whole.parts()) for bad in each.quarantine]
        return list(dict.fromkeys((path, reason) for path, reason in found))

    def say_new_bad_files(self) -> None:
        """Says which files could not be read since the start, and were replaced by others of their class."""
        bad = self.bad_files() if self.is_main else []
        new = [path for path, _ in bad if path not in dict(self.left_out)]
        if new:
            self.run.write_json("quarantine.json", bad)
            examples = ", ".join(new[:3]) + (" …" if len(new) > 3 else "")
            self.warn(
                f"{len(new)} files could not be read while training, and others were taken for them: {examples}"
                " (quarantine.json says why)"
            )

    def finish(self) -> None:
        """Samples, saves and logs at the last position, where this has not been done."""
        self.has_gone_back()  # the time limit may have come before the next line of metrics
        position = self.stream.position
        self.say_new_bad_files()
        if position not in [images for images, _ in self.run.samples()]:
            self.sample()
        if self.saved_at != position:
            self.save()
        if self.meters.steps:  # after the checkpoint, because a longer training continues this mean
            self.log()
        if position < self.options.images:
            self.event("stop", message="the time limit was reached")

    def must_stop(self, at_log: bool, session: float) -> bool:
        """Whether a signal was received or the time is up after `session` seconds; ranks agree at log steps."""
        flag = bool(self.signum) or (self.options.time is not None and session >= self.options.time)
        if dist.world() == 1:
            return flag
        return at_log and dist.any_rank(flag, self.device)

    def request_stop(self, signum: int) -> None:
        """Notes a signal, so that the loop stops after the current step."""
        self.signum = signum
        self.progress.say("finishing this step and saving; interrupt again to stop at once")

    # -- output --------------------------------------------------------------------------------------------

    def averaged_model(self) -> GenerativeModel:
        """The model with averaged weights, or the model itself if nothing is averaged."""
        return self.model if self.ema is None else self.ema.averaged_model()

    def log(self) -> None:
        """Writes a line of metrics, and an event if updates have been skipped."""
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
        if self.is_main:
            self.run.log(line)
            self.progress.log(line)
            if self.examiner is not None:
                self.examiner.log(line)
        skipped = int(self.update.skipped)
        if skipped:
            self.event("skip", total=skipped, message=f"{skipped} updates were not finite and were skipped")

    def score(self) -> None:
        """Scores the model; all ranks note whether this is the best position so far."""
        better = False
        if self.is_main and self.scorer is not None:
            start = monotonic()
            self.scores = self.scorer(self.averaged_model().eval())
            self.model.train()
            self.event("score", took=round(monotonic() - start, 3))
            value = next(iter(self.scores.values()))
            better = value < self.best.get("score", float("inf"))
        if dist.any_rank(better, self.device):
            self.best = {"images": self.stream.position, "score": next(iter(self.scores.values()), float("-inf"))}

    def examine(self) -> None:
        """Lets the examiner measure the model, and says what it has found that is new."""
        if self.examiner is None or not self.is_main:
            return
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            line, found = self.examiner.examine(self.model, self.stream.position, self.steps)
        self.model.train()
        self.run.log_check(line)
        for news in found:
            self.event("finding", message=news.message, **news.facts)
            if news.message:
                self.progress.say(news.message)
            self.progress.finding(news.facts["check"], news.facts["state"])

    def diverged(self, reason: str) -> LimnerError:
        """The error for a training that cannot go on."""
        self.event("stop", message=reason)
        saved = checkpoint.folders(self.run.checkpoints)
        state = f"checkpoint {saved[-1].name} is intact" if saved else "nothing was saved yet"
        group = next(iter(self.update.optimisers))
        lr = self.update.rates[group][0]
        done = f"it was rolled back {self.rollbacks} times; " if self.rollbacks else ""
        other = "" if self.options.guard else ", or go on with train.guard=true, which lowers it by itself"
        return LimnerError(
            f"{reason} at image {self.stream.position}; {done}{state}. Lower the learning rate, e.g."
            f" optim.{group}.lr={lr / 10:g}, check the data{other}"
        )

    @torch.inference_mode()
    def sample(self) -> None:
        """Saves the model's previews, which use the same noise and the same images each time."""
        if not self.is_main:
            return
        start = monotonic()
        model = self.averaged_model().eval()
        batch = examples(self.heldout or self.dataset, COLUMNS, self.device)
        for name, grid in model.preview(batch, self.options.samples, self.options.seed).items():
            self.save_grid(f"{name}/{self.stream.position:08d}.webp", grid)
        self.save_frame(model)
        self.model.train()
        self.event("sample", took=round(monotonic() - start, 3))

    def save_frame(self, model: GenerativeModel) -> None:
        """Saves the state of a model of points for its animation."""
        data = self.dataset
        if drawable(data.shape) and is_drawn(model):
            real = to_float(data.fetch(evenly_spaced(len(data), POINTS))).to(self.device)
            truth = data.log_density if isinstance(data, HasDensity) else lambda x: None
            tensors = frame(model, real, self.options.seed, truth)
            try:
                self.run.save_frame(self.stream.position, tensors)
            except OSError as error:
                self.warn(f"a frame was not written: {error.strerror or error}")

    def save_grid(self, name: str, grid: Grid) -> None:
        """Saves a grid, or warns if it cannot: a lost image must not end the training."""
        columns = grid.columns or max(1, round(len(grid.images) ** 0.5))
        try:
            self.run.save_grid(name, grid.images, columns, self.extent, grid.headings)
        except OSError as error:
            self.warn(f"image {name} was not written: {error.strerror or error}")

    def event(self, event: str, **more: Any) -> None:
        if self.is_main:
            self.run.event(event, self.stream.position, self.seconds, **more)

    def warn(self, message: str) -> None:
        """Writes a warning to the log and shows it to the user."""
        if self.is_main:
            self.event("warning", message=message)
            self.progress.say(message)


def _crossed(before: int, after: int, every: int) -> bool:
    """Whether a step from `before` to `after` images passed a multiple of `every`; it never does where that is 0."""
    return every > 0 and after // every > before // every


def _extent(data: Dataset) -> float | None:
    """Half the side of the square in which points are plotted, 1.5 times the extent of the data; None for images."""
    if not drawable(data.shape):
        return None
    return max(1e-6, 1.5 * float(to_float(data.fetch(evenly_spaced(len(data), POINTS))).abs().max()))
