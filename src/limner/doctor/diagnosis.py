"""The doctor's diagnosis of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from limner.config.load import load_model
from limner.core.errors import LimnerError
from limner.core.run import Run
from limner.doctor.abilities import abilities
from limner.doctor.checks import CHECKS
from limner.doctor.checks._check import Check
from limner.doctor.finding import ORDER, Finding
from limner.doctor.history import History, read


@dataclass(frozen=True)
class Diagnosis:
    """The findings of a run, failures first.

    Attributes:
        run: name of the run.
        images: images that it has seen.
        findings: a finding for each check.
    """

    run: str
    images: int
    findings: Sequence[Finding]

    @property
    def failed(self) -> bool:
        """Whether a check fails."""
        return any(finding.state == "fail" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as plain values."""
        return {"run": self.run, "images": self.images, "findings": [f.to_dict() for f in self.findings]}

    @property
    def text(self) -> str:
        """The diagnosis for a terminal: failures with what else they look like and where they began, then the rest."""
        lines = [f"{self.run}, {self.images:,} images"]
        quiet: dict[str, list[str]] = {}
        for finding in self.findings:
            if finding.state in ("pass", "n/a"):
                quiet.setdefault(finding.state, []).append(finding.check)
            else:
                lines += _block(finding)
        lines += [f"{state}: {', '.join(checks)}" for state, checks in quiet.items()]
        return "\n".join(lines)


def _block(finding: Finding) -> list[str]:
    """Some lines about one finding."""
    state = finding.state.upper() if finding.state == "fail" else finding.state
    lines = [f"{state} {finding.check}: {finding.sentence}"]
    if finding.since is not None:
        good = f"; last good checkpoint {finding.last_good:08d}" if finding.last_good is not None else ""
        lines.append(f"    since image {finding.since:,}{good}")
    if finding.looks_like:
        lines.append(f"    looks like {', '.join(finding.looks_like)}")
    return lines


def diagnose(path: str | Path) -> Diagnosis:
    """Reads a run and says what is wrong with it.

    Raises:
        LimnerError: it is not a run, is damaged, or has no checkpoint yet.
    """
    run = Run(path)
    history = read(run, abilities(load_model(run.latest)))
    images = max((row["images"] for row in (*history.metrics, *history.checks)), default=0)
    return Diagnosis(run.name, images, sorted_findings([found(check, history) for check in CHECKS.values()]))


def found(check: Check, history: History) -> Finding:
    """The finding of a check, with what can be said of all findings; an exception of the check is a finding too."""
    try:
        finding = check(history)
    except (LimnerError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        return Finding(check.name, "error", f"this check failed: {error}")
    if finding.state not in ("fail", "watch"):
        return finding
    return replace(finding, last_good=history.last_good(finding.since), looks_like=check.looks_like)


def sorted_findings(findings: Sequence[Finding]) -> list[Finding]:
    """Failures first; else in the order of the checks."""
    return sorted(findings, key=lambda finding: ORDER.index(finding.state))
