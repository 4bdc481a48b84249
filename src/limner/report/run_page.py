"""The report of a run: one HTML page made from the files of its folder."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.core.errors import LimnerError
from limner.core.records import read_json
from limner.metrics.scorecard import base
from limner.report import curves, scores
from limner.report.facts import Facts, Row, as_number, read
from limner.report.findings import findings
from limner.report.images import InlineImage, inline, read_timeline
from limner.report.page import render, save
from limner.report.words import number, public, title

_MAX_EVENTS = 200
_CLASSES, _ATTRIBUTES, _VALUES = 200, 50, 20
_MAX_FIGURES = 24
_ANIMATION_BYTES = 3_000_000  # larger than other images, because an animation cannot be encoded again
_WARNINGS = ("warning", "skip", "rollback")  # events of these kinds come first
_SHOWN_ELSEWHERE = frozenset(
    {"event", "images", "seconds", "message", "command", "data", "items", "shape", "fingerprint", "licence"}
    | {"parameters", "rows", "details", "learnt", "classes", "attributes", "notes", "family", "sampling", "likelihood"}
    | {"reason", "from", "to"}
)
_YAML_LINE = re.compile(r"^(\s*(?:- )*)([\w./-]+:)(?=\s|$)(.*)$")


@dataclass(frozen=True)
class EventRow:
    """An event as a row of the page's table."""

    kind: str
    images: float | None
    seconds: float | None
    text: str
    details: str

    @property
    def is_warning(self) -> bool:
        return self.kind in _WARNINGS


def _event_row(event: Row) -> EventRow:
    extra = {k: v for k, v in event.items() if k not in _SHOWN_ELSEWHERE}
    parts = (
        f"{k} {v if isinstance(v, (str, int, float)) else json.dumps(v, ensure_ascii=False)}" for k, v in extra.items()
    )
    details = ", ".join(parts)
    return EventRow(
        kind=event["event"],
        images=as_number(event.get("images")),
        seconds=as_number(event.get("seconds")),
        text=str(event.get("message") or ""),
        details=details if len(details) <= 240 else details[:239] + "…",
    )


def _event_rows(events: list[Row]) -> tuple[list[EventRow], int]:
    """At most `_MAX_EVENTS` events, warnings first, and the number of events left out."""
    rows = sorted((_event_row(e) for e in events), key=lambda row: not row.is_warning)
    return rows[:_MAX_EVENTS], max(len(rows) - _MAX_EVENTS, 0)


def _phases(facts: Facts) -> list[tuple[str, float, float]]:
    """(phase, seconds, share) from the durations of events; the remaining time is training."""
    seconds: dict[str, float] = {}
    for event in facts.events:
        took = as_number(event.get("took"))
        if took is not None and took > 0:
            seconds[event["event"]] = seconds.get(event["event"], 0.0) + took
    training = facts.seconds - sum(seconds.values())
    if not seconds or training <= 0:  # no event has a duration, or events of repeated steps count twice
        return []
    seconds["training"] = training
    return [(k, s, s / facts.seconds) for k, s in sorted(seconds.items(), key=lambda kv: -kv[1])]


def _reals(folder: Path) -> InlineImage | None:
    """The grid of real images."""
    return inline(folder / "data" / "reals.webp") or inline(folder / "data" / "reals.png")


def _figures(folder: Path) -> list[tuple[InlineImage, str]]:
    """The images of ``figures/`` with their captions, or their names where they have none."""
    try:
        paths = sorted(p for p in (folder / "figures").iterdir() if p.suffix in (".png", ".svg", ".webp"))
        paths = [p for p in paths if not p.name.startswith("doctor-")]  # they stand beside the findings
    except OSError:
        return []
    try:
        captions = read_json(folder, "figures/captions.json") or {}
    except LimnerError:
        captions = {}
    figures = []
    for path in paths[:_MAX_FIGURES]:
        image = inline(path, limit=_ANIMATION_BYTES if path.stem == "animation" else 150_000)
        caption = captions.get(path.stem)
        if image is not None:
            figures.append((image, public(caption) if caption else title(path.stem.replace("-", "_"))))
    return figures


def _settings(text: str) -> list[tuple[str, str, str]]:
    """Each line of the recipe as (indent, key, rest), so that the page can highlight keys."""
    lines = []
    for line in text.splitlines():
        match = _YAML_LINE.match(line)
        lines.append((match[1], match[2], match[3]) if match else ("", "", line))
    return lines


def _environment(env: Row) -> list[tuple[str, str]]:
    """(name, value) of every plain value of env.json."""
    rows = []
    for key, value in env.items():
        if isinstance(value, dict):
            rows += [
                (f"{title(key)}, {title(k)}", str(v)) for k, v in value.items() if isinstance(v, (str, int, float))
            ]
        elif isinstance(value, list):
            rows.append((title(key), ", ".join(map(str, value))))
        elif value is not None:
            rows.append((title(key), ("no", "yes")[value] if isinstance(value, bool) else str(value)))
    return [(k, v if len(v) <= 300 else v[:299] + "…") for k, v in rows]


def _some(values: list[str]) -> str:
    """The first of many names."""
    return ", ".join(values[:_VALUES]) + (", …" if len(values) > _VALUES else "")


def _size(facts: Facts) -> list[tuple[str, str]]:
    """(name, value) of the model, the data and the parameters, as far as they are known."""
    items, shape = as_number(facts.last("items")), facts.last("shape")
    data = [
        facts.data_name,
        f"{number(items)} images" if items is not None else "",
        " × ".join(map(str, shape)) if isinstance(shape, list) else "",
    ]
    classes = ", ".join(f"{k} {name}" for k, name in enumerate(facts.classes[:_CLASSES]))
    more = len(facts.classes) - _CLASSES
    attributes = [f"{name} ({_some(values)})" for name, values in facts.attributes.items()]
    others = len(attributes) - _ATTRIBUTES
    rows = [
        *facts.profile,
        ("Data", ", ".join(filter(None, data))),
        ("Classes by number", classes + (f", and {more} more" if more > 0 else "")),
        ("Attributes", ", ".join(attributes[:_ATTRIBUTES]) + (f", and {others} more" if others > 0 else "")),
        ("How the data were read", "; ".join(facts.data_notes)),
        ("Parameters", ", ".join(f"{name} {number(n)}" for name, n in facts.parameters)),
    ]
    return [(name, value) for name, value in rows if value]


def command(facts: Facts) -> str:
    """The command that trains the run again: from the start event, else with the resolved recipe."""
    recorded = facts.last("command")
    return recorded if isinstance(recorded, str) and recorded else f"limner train {shlex.quote(facts.name)}/recipe.yaml"


def write(run_folder: Path) -> Path:
    """Write ``report.html`` into a run folder, from the files that are there; an older report is replaced.

    The run need not be finished. The page needs no other file and holds no absolute path.

    Args:
        run_folder: the folder of a run.

    Returns:
        The path of the page.

    Raises:
        LimnerError: there is no such folder, or the page cannot be written.
    """
    facts = read(run_folder)
    timeline = read_timeline(facts.folder)
    charts, left_out = curves.charts(facts.metrics)
    speed = curves.speed(facts.metrics)
    event_rows, more = _event_rows(facts.events)
    found = findings(facts)
    text = render(
        "run.html",
        title=facts.recipe_name,
        facts=facts,
        timeline=timeline,
        reals=_reals(facts.folder),
        doctor=found,
        figures=_figures(facts.folder),
        charts=charts,
        curves_left_out=left_out,
        speed=speed,
        phases=_phases(facts),
        score_title=title,
        score_base=base,
        tiles=scores.tiles(facts.scores),
        radar=scores.radar(facts.scores),
        score_groups=scores.groups(facts.scores),
        size=_size(facts),
        settings=_settings(facts.recipe_text),
        command=command(facts),
        environment=_environment(facts.env),
        event_rows=event_rows,
        more_events=more,
        page_data=_page_data(timeline.steps, charts + ([speed] if speed else []), found.onsets if found else []),
    )
    return save(facts.folder / "report.html", text)


def _page_data(steps: list[int], charts: list[dict[str, Any]], onsets: list[dict[str, Any]]) -> dict[str, Any]:
    """The data of the page's script: the timeline's steps, where troubles begin, and the curves without summaries."""
    plotted = [
        {**chart, "curves": [{k: c[k] for k in ("name", "x", "y", "s", "gaps")} for c in chart["curves"]]}
        for chart in charts
    ]
    return {"steps": steps, "charts": plotted, "onsets": onsets}
