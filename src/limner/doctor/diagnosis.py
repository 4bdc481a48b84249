"""The doctor's diagnosis of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from limner import report
from limner.config import recipe as recipes
from limner.config import run_data
from limner.config.load import load_model
from limner.core.batch import Dataset
from limner.core.checkpoint import folders
from limner.core.device import pick
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.run import Run, relative
from limner.doctor import pictures
from limner.doctor.abilities import abilities
from limner.doctor.block import block, command
from limner.doctor.checks import CHECKS
from limner.doctor.checks._check import Check
from limner.doctor.finding import ORDER, Finding
from limner.doctor.ground import Ground
from limner.doctor.history import History, read
from limner.doctor.remedies import remedies
from limner.doctor.signals import deep as deep_signals
from limner.doctor.watch import Watch
from limner.evaluation.subjects import heldout_of

FILE = "doctor.json"


@dataclass(frozen=True)
class Diagnosis:
    """The findings of a run, failures first.

    Attributes:
        run: name of the run.
        place: its path, for commands.
        images: images that it has seen.
        findings: a finding for each check.
        notes: what must be known of the examination.
    """

    run: str
    place: str
    images: int
    findings: Sequence[Finding]
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a check fails."""
        return any(finding.state == "fail" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as plain values, with the command of each remedy."""
        return self._as_seen_from(self.place)

    def _as_seen_from(self, place: str) -> dict[str, Any]:
        found = [f.to_dict() for f in self.findings]
        for finding, shown in zip(self.findings, found, strict=True):
            for remedy, entry in zip(finding.remedies, shown.get("remedies", ()), strict=True):
                entry["command"] = command(place, remedy)
        return {"run": self.run, "images": self.images, "notes": list(self.notes), "findings": found}

    @property
    def text(self) -> str:
        """The diagnosis for a terminal."""
        return block(self.place, f"{self.run}, {self.images:,} images", self.notes, self.findings)

    def save(self, run: Run) -> None:
        """Writes ``doctor.json`` into the run; its commands are for the folder that holds the run."""
        run.write_json(FILE, self._as_seen_from(self.run))


def diagnose(path: str | Path, *, deep: bool = False, device: str = "cpu") -> Diagnosis:
    """Reads a run and says what is wrong with it, since when, and what helps.

    What it finds is written into the run, as ``doctor.json`` and into its report. A run that was not examined while it
    trained is examined now, once, at its newest checkpoint.

    Args:
        path: run folder.
        deep: whether to draw 2,000 samples of the newest checkpoint and compare them with all training images, for
            copies and for batch norm that does not fit. It takes from half a minute on.
        device: auto, cpu, cuda, mps or a number, for the examination of a run that was not examined before.

    Raises:
        LimnerError: it is not a run, or is damaged.
    """
    run = Run(path)
    run.check()
    read_run = _read(run, pick(device))
    if deep:
        read_run = _looked_deeply(run, *read_run)
    diagnosis = _diagnosis(run, *read_run)
    try:
        diagnosis = _illustrated(run, diagnosis, *read_run)
        diagnosis.save(run)
        report.write_card(run.path, report.about(recipes.of_run(run.recipe).model.name))
        report.write(run.path)
    except OSError as error:  # a run that may only be read
        note = f"the report could not be written: {error.strerror or error}"
        diagnosis = replace(diagnosis, notes=(*diagnosis.notes, note))
    return diagnosis


def save_of(run: Run) -> None:
    """Writes ``doctor.json`` at the end of a training, also of one that was stopped, if there is something to say."""
    try:
        if run.checks() and folders(run.checkpoints):
            of_run(run).save(run)
    except LimnerError:  # a damaged file, which `limner doctor RUN` tells of
        return


def of_run(run: Run, device: Any = "cpu") -> Diagnosis:
    """The diagnosis of a run; nothing is written."""
    return _diagnosis(run, *_read(run, device))


_Read = tuple[GenerativeModel | None, History, tuple[str, ...]]


def _read(run: Run, device: Any) -> _Read:
    """The newest model of a run, its history, and what must be said of it."""
    saved = folders(run.checkpoints)
    model = load_model(run.path, device) if saved else None
    history = read(run, abilities(model) if model is not None else frozenset())
    if model is None:
        return None, history, ("it has no checkpoint yet; let it train a little longer",)
    return (model, history, ()) if history.checks else _examined(run, model, history, int(saved[-1].name))


def _diagnosis(run: Run, model: GenerativeModel | None, history: History, notes: tuple[str, ...]) -> Diagnosis:
    images = max((row["images"] for row in (*history.metrics, *history.checks)), default=0)
    findings = [_complete(run, found(check, history, model), history, model) for check in CHECKS.values()]
    return Diagnosis(run.name, relative(run.path), images, sorted_findings(findings), notes)


def _illustrated(
    run: Run, diagnosis: Diagnosis, model: GenerativeModel | None, history: History, notes: tuple[str, ...]
) -> Diagnosis:
    """The diagnosis with pictures of what fails or is watched, where the data are there to make them."""
    pictures.sweep(run)
    if model is None or not any(finding.state in ("fail", "watch") for finding in diagnosis.findings):
        return diagnosis
    try:
        train, heldout = _data(run)
        ground = Ground(train, heldout, model.device)
        findings = [
            pictures.save(run, f, model, ground, history) if f.state in ("fail", "watch") else f
            for f in diagnosis.findings
        ]
    except LimnerError as error:
        return replace(diagnosis, notes=(*notes, f"there are no pictures: {error}"))
    return replace(diagnosis, findings=findings)


def _data(run: Run) -> tuple[Dataset, Dataset | None]:
    """The images that a run trains on, and the held-out ones.

    Raises:
        LimnerError: they are gone.
    """
    data = run_data.located(run, recipes.of_run(run.recipe).data, "evaluate")
    return data.build(), heldout_of(data)


def _examined(run: Run, model: GenerativeModel, history: History, images: int) -> _Read:
    """A history with one examination of the newest checkpoint, and what must be said of it."""
    try:
        watch = Watch(run.recipe, *_data(run))
    except LimnerError as error:
        return model, history, (f"it was not examined while it trained, and cannot be now: {error}",)
    watch.begin(history.metrics, [])
    line, news = watch.examine(model, images, max((m.get("step", 0) for m in history.metrics), default=0))
    model.eval()
    note = (
        f"it was not examined while it trained: this is one examination, of checkpoint {images:08d}, and a failure"
        " takes several in a row, so that what is bad is watched"
    )
    wrong = tuple(each.message for each in news if each.facts.get("state") == "error")
    return model, replace(history, checks=[line]), (note, *wrong)


def _looked_deeply(run: Run, model: GenerativeModel | None, history: History, notes: tuple[str, ...]) -> _Read:
    """A history with what 2,000 samples of the newest model show, and what must be said of it."""
    if model is None:
        return model, history, notes
    try:
        train, heldout = _data(run)
        signals = deep_signals.measure(model, Ground(train, heldout, model.device, deep_signals.REALS)).signals
    except LimnerError as error:
        return model, history, (*notes, f"there is no deep look: {error}")
    last = history.checks[-1] if history.checks else {"images": 0, "step": 0}
    line = {"images": last["images"], "step": last["step"], "signals": signals}
    return model, replace(history, checks=[*history.checks, line]), notes


def found(check: Check, history: History, model: GenerativeModel | None) -> Finding:
    """The finding of a check; one that needs a model is unknown without."""
    if model is None and check.needs:
        return Finding(check.name, "unknown", "needs a checkpoint")
    return check(history)


def _complete(run: Run, finding: Finding, history: History, model: GenerativeModel | None) -> Finding:
    """A finding with what can be said of all that fail or are watched: sheets, checkpoint, remedies."""
    if finding.state not in ("fail", "watch"):
        return finding
    since, sheets = finding.since, run.samples()
    after = before = good = None
    if since is not None:
        after = next((path for at, path in sheets if at >= since), None)
        if (
            found(CHECKS[finding.check], history.until(since), model).state == "pass"
        ):  # else nobody knows of a good time
            before = next((path for at, path in reversed(sheets) if at < since), None)
            good = history.last_good(since)
    return replace(
        finding,
        last_good=good,
        sheet=f"samples/{after.name}" if after else "",
        good_sheet=f"samples/{before.name}" if before else "",
        looks_like=CHECKS[finding.check].looks_like,
        remedies=tuple(remedies(finding.check, run.recipe, model, good)) if model is not None else (),
    )


def sorted_findings(findings: Sequence[Finding]) -> list[Finding]:
    """Failures first; else in the order of the checks."""
    return sorted(findings, key=lambda finding: ORDER.index(finding.state))
