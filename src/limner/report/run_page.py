"""The report of a run: one page from the plain files of its folder."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.metrics.scorecard import base
from limner.report import curves, pictures, scores
from limner.report.facts import Facts, Row, as_number, read
from limner.report.page import render, save
from limner.report.pictures import Picture
from limner.report.words import number, public, title

_MAX_EVENTS = 200
_MAX_FIGURES = 24
_FILM_BYTES = 3_000_000  # a moving picture cannot be stored again smaller
_NEWS = ("warning", "skip")  # kinds of event that are shown first
_TOLD_ELSEWHERE = frozenset(
    (
        "event",
        "images",
        "seconds",
        "message",
        "command",
        "data",
        "items",
        "shape",
        "fingerprint",
        "licence",
        "parameters",
        "rows",
        "learnt",
    )
)
_YAML_LINE = re.compile(r"^(\s*(?:- )*)([\w./-]+:)(?=\s|$)(.*)$")


@dataclass(frozen=True)
class Happening:
    """An event as the page lists it."""

    kind: str
    images: float | None
    seconds: float | None
    text: str
    details: str

    @property
    def is_warning(self) -> bool:
        return self.kind in _NEWS


def _happening(event: Row) -> Happening:
    extra = {k: v for k, v in event.items() if k not in _TOLD_ELSEWHERE}
    parts = (
        f"{k} {v if isinstance(v, (str, int, float)) else json.dumps(v, ensure_ascii=False)}" for k, v in extra.items()
    )
    details = ", ".join(parts)
    return Happening(
        kind=event["event"],
        images=as_number(event.get("images")),
        seconds=as_number(event.get("seconds")),
        text=str(event.get("message") or ""),
        details=details if len(details) <= 240 else details[:239] + "…",
    )


def _happenings(events: list[Row]) -> tuple[list[Happening], int]:
    """At most `_MAX_EVENTS` events, warnings first, and how many more there are."""
    every = sorted((_happening(e) for e in events), key=lambda h: not h.is_warning)
    return every[:_MAX_EVENTS], max(len(every) - _MAX_EVENTS, 0)


def _phases(facts: Facts) -> list[tuple[str, float, float]]:
    """(phase, seconds, share): what events say they took; the rest of the time is training."""
    seconds: dict[str, float] = {}
    for event in facts.events:
        took = as_number(event.get("took"))
        if took is not None and took > 0:
            seconds[event["event"]] = seconds.get(event["event"], 0.0) + took
    rest = facts.seconds - sum(seconds.values())
    if not seconds or rest <= 0:  # nothing to tell apart, or what was rolled back is counted too
        return []
    seconds["training"] = rest
    return [(k, s, s / facts.seconds) for k, s in sorted(seconds.items(), key=lambda kv: -kv[1])]


def _reals(folder: Path) -> Picture | None:
    """The sheet of real images, in either of the two lossless formats."""
    both = (pictures.picture(folder / "data" / name) for name in ("reals.webp", "reals.png"))
    return next((p for p in both if p is not None), None)


def _figures(folder: Path) -> list[tuple[Picture, str]]:
    """The pictures of ``figures/`` with their captions; one without a caption has its name."""
    try:
        found = sorted(p for p in (folder / "figures").iterdir() if p.suffix in (".png", ".svg", ".webp"))
    except OSError:
        return []
    try:
        captions = json.loads((folder / "figures" / "captions.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        captions = {}
    out = []
    for path in found[:_MAX_FIGURES]:
        image = pictures.picture(path, limit=_FILM_BYTES if path.stem == "animation" else 150_000)
        caption = captions.get(path.stem) if isinstance(captions, dict) else None
        if image is not None:
            out.append((image, public(str(caption)) if caption else title(path.stem.replace("-", "_"))))
    return out


def _settings(text: str) -> list[tuple[str, str, str]]:
    """Each line of the recipe as (indent, key, rest), so that the page can set keys apart."""
    lines = []
    for line in text.splitlines():
        match = _YAML_LINE.match(line)
        lines.append((match[1], match[2], match[3]) if match else ("", "", line))
    return lines


def _environment(env: Row) -> list[tuple[str, str]]:
    """(name, value) of all that env.json tells in plain values."""
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


def _size(facts: Facts) -> list[tuple[str, str]]:
    """(name, value) of the data and the parameters, as far as they are told."""
    items, shape = as_number(facts.told("items")), facts.told("shape")
    data = [
        facts.data_name,
        f"{number(items)} images" if items is not None else "",
        " × ".join(map(str, shape)) if isinstance(shape, list) else "",
    ]
    rows = [
        ("Data", ", ".join(filter(None, data))),
        ("Parameters", ", ".join(f"{name} {number(n)}" for name, n in facts.parameters)),
    ]
    return [(name, value) for name, value in rows if value]


def command(facts: Facts) -> str:
    """The one command that trains this again: as the start event tells it, else from the resolved recipe."""
    told = facts.told("command")
    return told if isinstance(told, str) and told else f"limner train {shlex.quote(facts.name)}/recipe.yaml"


def write(run_folder: Path) -> Path:
    """Write ``report.html`` into a run folder, from the plain files that are there.

    It works on a run that has only begun and on one that was killed. The page needs nothing beside it, holds no
    absolute path, and replaces an older one in one go.

    Args:
        run_folder: the folder of a run.

    Returns:
        The path of the page.

    Raises:
        LimnerError: there is no such folder, or the page cannot be written.
    """
    facts = read(run_folder)
    reels = pictures.reels(facts.folder)
    charts, left_out = curves.charts(facts.metrics)
    speed = curves.speed(facts.metrics)
    happenings, more = _happenings(facts.events)
    text = render(
        "run.html",
        title=facts.recipe_name,
        facts=facts,
        reels=reels,
        reals=_reals(facts.folder),
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
        happenings=happenings,
        more_happenings=more,
        page_data=_page_data(reels.steps, charts + ([speed] if speed else [])),
    )
    return save(facts.folder / "report.html", text)


def _page_data(steps: list[int], charts: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page's script draws: the timeline's steps, and the curves without what only the table needs."""
    drawn = [
        {**chart, "curves": [{k: c[k] for k in ("name", "x", "y", "s", "gaps")} for c in chart["curves"]]}
        for chart in charts
    ]
    return {"steps": steps, "charts": drawn}
