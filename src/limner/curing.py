"""A failing training once more, with the remedy that has helped most often, and both side by side.

cure = limner.cure("runs/0007-gan-mnist")
print(cure.text)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner import api
from limner.config import recipe as recipes
from limner.config import run_data
from limner.core.progress import Progress, Silent
from limner.core.run import Run
from limner.doctor.diagnosis import Diagnosis, diagnose
from limner.doctor.finding import Finding, Remedy
from limner.report.words import aligned, number

_SCORES = 8  # lines of scores that are compared


@dataclass(frozen=True)
class Cure:
    """What a remedy has done.

    Attributes:
        before: the diagnosis of the failing run.
        finding: the failure that was treated; None where nothing fails or no remedy is known.
        remedy: the remedy; None where nothing was tried.
        after: the diagnosis of the new run; None where nothing was tried.
        scores: (name, before, after) of the scores of both runs; None where one was not measured.
    """

    before: Diagnosis
    finding: Finding | None = None
    remedy: Remedy | None = None
    after: Diagnosis | None = None
    scores: tuple[tuple[str, float | None, float | None], ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a check fails still."""
        return (self.after or self.before).failed

    def to_dict(self) -> dict[str, Any]:
        """Both diagnoses, the remedy and the scores as plain values."""
        scores = {name: {"before": a, "after": b} for name, a, b in self.scores}
        return {
            "before": self.before.to_dict(),
            "tried": None if self.remedy is None else self.remedy.settings,
            "check": None if self.finding is None else self.finding.check,
            "after": None if self.after is None else self.after.to_dict(),
            "scores": scores,
        }

    @property
    def text(self) -> str:
        """Findings and scores of both runs side by side."""
        if self.after is None or self.remedy is None or self.finding is None:
            failing = [f.check for f in self.before.findings if f.state == "fail"]
            reason = f"{', '.join(failing)}: no remedy is known that this recipe takes" if failing else "no check fails"
            return f"{self.before.text}\n\nthere is nothing to try: {reason}"
        after = {finding.check: finding for finding in self.after.findings}
        rows = [("", self.before.run, self.after.run)]
        rows += [
            (f.check, _shown(f), _shown(after[f.check]))
            for f in self.before.findings
            if {f.state, after[f.check].state} & {"fail", "watch"}
        ]
        rows += [(name, number(a), number(b)) for name, a, b in self.scores]
        state = after[self.finding.check].state
        verdict = {"fail": "fails still", "pass": "is cured", "watch": "is better, and watched"}.get(state, state)
        start = f", from checkpoint {self.remedy.start:08d}" if self.remedy.start is not None else ""
        tried = f"tried {self.remedy.text}{start}: {self.finding.check} {verdict}"
        return "\n".join([*aligned(rows), tried, self.after.place])


def _shown(finding: Finding) -> str:
    return finding.state if finding.value is None else f"{finding.state} {finding.value:.3g}"


def cure(
    path: str | Path, *, out: str | Path | None = None, progress: Progress | None = None, **overrides: Any
) -> Cure:
    """Trains a failing run once more, with the remedy that has helped most often, and compares both.

    The new training begins from the last checkpoint before the failure where there is one that fits, else from the
    start; it has the same seed and ends at as many images. A run in which no check fails is left as it is.

    Args:
        path: run folder.
        out: folder of the new run; default the next number under ``runs/``.
        progress: receives the progress; default none.
        **overrides: further keys of the recipe, such as train.images=200k.

    Raises:
        LimnerError: it is not a run, its data are gone, or a key or value is wrong.
    """
    run, progress = Run(path), progress or Silent()
    before = diagnose(path)
    finding = next((f for f in before.findings if f.state == "fail" and f.remedies), None)
    if finding is None:
        return Cure(before)
    remedy = finding.remedies[0]
    recipe = recipes.of_run(run.recipe)
    tree = recipe.to_dict() | {"data": run_data.located(run, recipe.data, "doctor").to_dict()}
    seen = min(before.images or recipe.train.get("images"), recipe.train.get("images"))
    settings: dict[str, Any] = {"train.images": seen} | remedy.settings
    if remedy.start is not None:
        init = str(run.checkpoints / f"{remedy.start:08d}")
        settings |= {"train.init": init, "train.images": max(1, seen - remedy.start)}
    progress.say(f"{finding.check}: trying {remedy.text} ({remedy.rate})")
    new = api.train(tree, out=out, progress=progress, **settings | overrides)
    return Cure(before, finding, remedy, diagnose(new.path), _scores(run, new))


def _scores(a: Run, b: Run) -> tuple[tuple[str, float | None, float | None], ...]:
    """The scores of two runs by name, those that both have."""
    before, after = a.read_json("scores.json") or {}, b.read_json("scores.json") or {}
    pairs = [(name, before[name]["value"], after[name]["value"]) for name in before if name in after]
    return tuple(p for p in pairs if all(isinstance(v, int | float) for v in p[1:]))[:_SCORES]
