"""The text of a diagnosis, in 80 columns where names of runs and commands allow it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from textwrap import wrap

from limner.doctor.finding import Finding, Remedy
from limner.doctor.remedies import words

_WIDTH = 80
_MARGIN = 5
_LABEL = 7
_TRIED = 3  # remedies that are shown; `limner explain doctor.CHECK` lists all


def block(place: str, heading: str, notes: Iterable[str], findings: Sequence[Finding]) -> str:
    """The text for a terminal: what fails or is watched in full, then the rest in short lines with reasons.

    Args:
        place: path of the run, for commands.
        heading: the first line.
        notes: what else must be known of the examination.
        findings: the findings, as they are to be listed.
    """
    lines = [heading, *(line for note in notes for line in wrap(note, _WIDTH))]
    for finding in findings:
        if finding.state in ("fail", "watch"):
            lines += ["", *_full(place, finding)]
    rest = [f for f in findings if f.state not in ("fail", "watch")]
    return "\n".join([*lines, "", *_short(rest)])


def _full(place: str, finding: Finding) -> list[str]:
    """Some lines about a finding that fails or is watched."""
    state = "FAIL" if finding.state == "fail" else "watch"
    limit = f" (threshold {finding.threshold:.3g})" if finding.threshold is not None else ""
    lines = _hung(f"{state} {finding.check}: {finding.sentence}{limit}", "")
    if finding.state == "watch":
        lines += _hung("bad, and not yet in enough examinations in a row to fail")
    if finding.since is not None:
        begins = f"since image {finding.since:,}"
        lines += _hung(f"{begins}: {finding.sheet}" if finding.sheet else begins)
        good = [finding.good_sheet, f"checkpoint {finding.last_good:08d}" if finding.last_good is not None else ""]
        if any(good):
            lines += _hung("good before: " + ", ".join(filter(None, good)))
    if finding.picture:
        lines += _hung(f"picture: {finding.picture}")
    if finding.looks_like:
        lines += _hung(f"looks like: {', '.join(finding.looks_like)}")
    for remedy in finding.remedies[:_TRIED]:
        lines += [_labelled("try", command(place, remedy)), *_hung(f"{remedy.text}; {remedy.rate}", " " * _LABEL)]
        if remedy.effect:
            lines += _hung(f"({remedy.effect} in the median)", " " * _LABEL)
    if finding.state == "fail" and not finding.remedies:
        lines += _hung("no remedy is known that this recipe takes")
    return [*lines, _labelled("more", f"limner explain doctor.{finding.check}")]


def _labelled(label: str, text: str) -> str:
    """A line that is not broken, so that it can be copied."""
    return f"{'':{_MARGIN}}{label:<{_LABEL}}{text}"


def _hung(text: str, indent: str = "") -> list[str]:
    """Text in lines that hang below the state of a finding."""
    first = "" if text.startswith(("FAIL", "watch ")) else " " * _MARGIN + indent
    return wrap(text, _WIDTH, initial_indent=first, subsequent_indent=" " * _MARGIN + indent, break_on_hyphens=False)


def _short(findings: Sequence[Finding]) -> list[str]:
    """Findings in a line for each state and reason; those that pass have no reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        reason = "" if finding.state == "pass" else finding.sentence
        groups.setdefault((finding.state, reason), []).append(finding.check)
    return [
        line
        for (state, reason), checks in groups.items()
        for line in wrap(
            f"{state} {', '.join(checks)}{f': {reason}' if reason else ''}",
            _WIDTH,
            subsequent_indent=" " * _MARGIN,
            break_on_hyphens=False,
        )
    ]


def command(place: str, remedy: Remedy) -> str:
    """The command that trains a run again with a remedy; `place` is the path of the run."""
    return " ".join(
        ["limner train", shlex.quote(f"{place}/recipe.yaml"), *words(remedy.settings), *_begin(place, remedy)]
    )


def _begin(place: str, remedy: Remedy) -> list[str]:
    if remedy.start is None:
        return []
    return [shlex.quote(f"train.init={place}/checkpoints/{remedy.start:08d}")]
