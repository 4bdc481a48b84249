"""The doctor's findings as a part of the report, from ``doctor.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.core.errors import LimnerError
from limner.core.records import read_json
from limner.report.facts import Facts, Row
from limner.report.images import InlineImage, inline
from limner.report.words import number, public

_PICTURE_BYTES = 150_000
_TRIED = 4  # remedies that are shown


@dataclass(frozen=True)
class Shown:
    """A finding that fails or is watched, with its pictures.

    Attributes:
        row: the finding.
        pictures: (image, caption) of the sheet of that moment, the one before, and the evidence.
    """

    row: Row
    pictures: list[tuple[InlineImage, str]]

    @property
    def remedies(self) -> list[Row]:
        """What helps, the best first."""
        return list(self.row.get("remedies", []))[:_TRIED]


@dataclass(frozen=True)
class Findings:
    """All findings of a run.

    Attributes:
        all: each of them, failures first.
        shown: those that fail or are watched.
        rest: (state, reason, names) of the others.
        notes: what must be known of the examination.
    """

    all: list[Row]
    shown: list[Shown]
    rest: list[tuple[str, str, list[str]]]
    notes: list[str]

    @property
    def onsets(self) -> list[dict[str, Any]]:
        """Name and images of the beginning of each trouble that has one, for the charts."""
        return [
            {"name": f.row["check"], "images": f.row["since"]} for f in self.shown if f.row.get("since") is not None
        ]


def findings(facts: Facts) -> Findings | None:
    """The findings of a run; None where the doctor has not looked at it."""
    rows: list[Row] = facts.doctor.get("findings", [])
    if not rows:
        return None
    loud = [row for row in rows if row["state"] in ("fail", "watch")]
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row not in loud:
            reason = "" if row["state"] == "pass" else row["sentence"]
            groups.setdefault((row["state"], reason), []).append(row["check"])
    rest = [(state, reason, names) for (state, reason), names in groups.items()]
    return Findings(rows, [Shown(row, _pictures(facts.folder, row)) for row in loud], rest, facts.doctor["notes"])


def _pictures(folder: Path, row: Row) -> list[tuple[InlineImage, str]]:
    try:
        known = read_json(folder, "figures/captions.json") or {}
    except LimnerError:
        known = {}
    captions = (
        ("good_sheet", "the last samples from before"),
        ("sheet", f"samples when it began, after {number(row.get('since'))} images"),
        ("picture", public(known.get(Path(row.get("picture", "")).stem, "what shows it"))),
    )
    found = []
    for key, caption in captions:
        name = row.get(key, "")
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            continue
        image = inline(folder / name, limit=_PICTURE_BYTES)
        if image is not None:
            found.append((image, caption))
    return found


def line(facts: Facts) -> str:
    """The findings in a line, for the model card; "" where the doctor has not looked at the run."""
    rows: list[Row] = facts.doctor.get("findings", [])
    parts = [
        f"{row['check']} {'fails' if row['state'] == 'fail' else 'is watched'}"
        + (f" since image {number(row['since'])}" if row.get("since") is not None else "")
        for row in rows
        if row["state"] in ("fail", "watch")
    ]
    passing = sum(row["state"] == "pass" for row in rows)
    parts += [f"{passing} check{'s' * (passing != 1)} pass{'es' * (passing == 1)}"] if rows else []
    return "; ".join(parts)
