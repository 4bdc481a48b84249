"""The files of a run folder, read for its report; missing, truncated and damaged files are tolerated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limner.core.errors import LimnerError
from limner.core.records import DOCTOR, parse_json, read_bytes, read_lines
from limner.core.yaml_text import parse_written, plain
from limner.report.words import is_absolute, last_name, public, public_value, strings

Row = dict[str, Any]

_MAX_TEXT = 256_000  # characters of a recipe; the longest shipped one has a few hundred


@dataclass(frozen=True)
class Score:
    """An entry of scores.json; `value` is None when it was not finite or could not be measured, and `why` the reason.

    Attributes:
        text: the value where it is a word, such as a verdict.
        property: the property of a generative model that it measures.
        low, high: ends of the 95 % interval; `error` is one standard error.
        options: sampling options that were chosen for it; empty for the model's defaults.
        ceiling: score of real images; `floor`: score of noise; `norm`: position between them, from 0 to 1.
    """

    key: str
    value: float | None
    unit: str = ""
    on: str = ""
    how: str = ""
    text: str = ""
    property: str = ""
    error: float | None = None
    low: float | None = None
    high: float | None = None
    ceiling: float | None = None
    floor: float | None = None
    norm: float | None = None
    why: str = ""
    options: Row = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """The contents of a run folder, without absolute paths.

    Attributes:
        name: name of the run folder, e.g. ``"0007-gan-mnist"``.
        recipe: the resolved recipe; `recipe_text` is the same as YAML.
        metrics: one dict for each log step, in order of images seen; steps that a resumed run repeated are here once.
        notes: one line for each file or line that could not be read.
        doctor: the content of doctor.json; empty where there is none.
    """

    folder: Path
    name: str
    recipe: Row
    recipe_text: str
    env: Row
    metrics: list[Row]
    events: list[Row]
    scores: list[Score]
    notes: list[str] = field(default_factory=list)
    doctor: Row = field(default_factory=dict)

    @property
    def recipe_name(self) -> str:
        """The recipe's name, else the folder's name without its number."""
        name = self.recipe.get("name")
        if isinstance(name, str) and name:
            return name
        head, _, tail = self.name.partition("-")
        return tail if head.isdigit() and tail else self.name

    @property
    def images(self) -> int:
        """Images seen."""
        return int(max(last_number(self.metrics, "images") or 0, last_number(self.events, "images") or 0))

    @property
    def seconds(self) -> float:
        """Seconds of training in all sessions."""
        return max(last_number(self.metrics, "seconds") or 0.0, last_number(self.events, "seconds") or 0.0)

    @property
    def rate(self) -> float | None:
        """Images a second over the whole run, saving and sampling included."""
        return self.images / self.seconds if self.seconds > 0 and self.images else None

    @property
    def state(self) -> str:
        """``"done"``, ``"stopped"``, ``"interrupted"`` (or still running), or ``"not started"``."""
        for event in reversed(self.events):
            if event["event"] == "done":
                return "done"
            if event["event"] == "stop":
                return "stopped"
            if event["event"] in ("start", "resume"):
                break
        return "interrupted" if self.metrics or self.events else "not started"

    @property
    def data_name(self) -> str:
        """The name of the data, from the start event, else from the recipe."""
        name, data = self.last("data"), self.recipe.get("data")
        if isinstance(name, str):
            return name
        return str((data.get("name") if isinstance(data, dict) else data) or "")

    @property
    def parameters(self) -> list[tuple[str, float]]:
        """(group, number of parameters) from the start event, where it has them."""
        counts = self.last("parameters")
        items = counts.items() if isinstance(counts, dict) else ()
        return [(str(k), n) for k, v in items if (n := as_number(v)) is not None]

    @property
    def classes(self) -> list[str]:
        """The names of the classes, by their number."""
        names = self.last("classes")
        return [str(name) for name in names] if isinstance(names, list) else []

    @property
    def attributes(self) -> dict[str, list[str]]:
        """The names of the values of each attribute."""
        known = self.last("attributes")
        items = known.items() if isinstance(known, dict) else ()
        return {str(name): [str(v) for v in values] for name, values in items if isinstance(values, list)}

    @property
    def data_notes(self) -> list[str]:
        """How the data were read and what was left out, in sentences."""
        notes = self.last("notes")
        return [str(note) for note in notes] if isinstance(notes, list) else []

    @property
    def profile(self) -> list[tuple[str, str]]:
        """What the model is, in pairs of a heading and words: its family, how it draws, how its likelihood is known."""
        sampling = self.last("sampling")
        options = sampling.items() if isinstance(sampling, dict) else ()
        shown = ((key, f"{value:g}" if isinstance(value, float) else value) for key, value in options)
        rows = [
            ("Family", self.last("family")),
            ("Draws with", ", ".join(f"{key} {value}" for key, value in shown)),
            ("Likelihood", self.last("likelihood")),
        ]
        return [(name, str(words)) for name, words in rows if words]

    def last(self, key: str) -> Any:
        """The last value of `key` in the events, or None."""
        return next((e[key] for e in reversed(self.events) if e.get(key) is not None), None)


def as_number(value: object) -> float | None:
    """A finite float, or None for anything else (booleans are not numbers here)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def last_number(rows: list[Row], key: str) -> float | None:
    """The last finite value of `key`."""
    return next((n for row in reversed(rows) if (n := as_number(row.get(key))) is not None), None)


def _text(path: Path, notes: list[str]) -> str:
    """The file's text, or "" with a note when it is there but cannot be read."""
    try:
        return path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        notes.append(f"{path.name} could not be read ({error.strerror or type(error).__name__}).")
        return ""


def _json(path: Path, notes: list[str]) -> Row:
    if not path.is_file():
        return {}
    try:
        value = parse_json(read_bytes(path))
    except (ValueError, LimnerError):
        notes.append(f"{path.name} is not valid JSON and was left out.")
        return {}
    return value if isinstance(value, dict) else {}


def _doctor(path: Path, notes: list[str]) -> Row:
    """The findings of the doctor, with the keys that every page needs."""
    value = _json(path, notes)
    if not value:
        return {}
    if not DOCTOR(value):
        notes.append(f"{path.name} is not what limner writes and was left out.")
        return {}
    return {"notes": []} | _as_row(public_value(value))


def _jsonl(path: Path, notes: list[str]) -> list[Row]:
    """The lines that are JSON objects. A truncated last line is left by a killed run, so it gets no note."""
    try:
        rows, bad = read_lines(path, lambda row: isinstance(row, dict))
    except LimnerError:
        notes.append(f"{path.name} could not be read.")
        return []
    if bad:
        notes.append(f"{path.name}: {bad} unreadable line{'s' * (bad != 1)} left out.")
    return rows


def _recipe(path: Path, notes: list[str]) -> tuple[Row, str]:
    """The recipe as a dict and as text, both without absolute paths."""
    text = _text(path, notes)
    if len(text) > _MAX_TEXT:
        notes.append("recipe.yaml is too long to be shown.")
    if not text.strip() or len(text) > _MAX_TEXT:
        return {}, ""
    try:
        raw = parse_written(text, path)
        for value in sorted(set(strings(raw)), key=len, reverse=True):  # `public` misses paths with spaces
            if is_absolute(value):
                text = text.replace(value, last_name(value))
        text = public(text)
        value = plain(parse_written(text, path))
    except LimnerError:
        notes.append("recipe.yaml is not valid YAML.")
        return {}, public(text)
    return value, text.strip("\n")


def merge_sessions(rows: list[Row]) -> list[Row]:
    """The metrics of all sessions in order of images seen, with one clock.

    A run that is killed after its last checkpoint repeats some steps when it is resumed; the repeated lines replace the
    earlier ones. If the clock of the later session starts at 0, the time of the earlier sessions is added.
    """
    merged: list[Row] = []
    offset = 0.0
    for row in rows:
        images = as_number(row.get("images"))
        if images is None:
            continue
        while merged and merged[-1]["images"] >= images:
            merged.pop()
        row = {**row, "images": int(images)}
        seconds = as_number(row.get("seconds"))
        if seconds is not None:
            before = last_number(merged[-1:], "seconds") or 0.0
            if seconds + offset < before:
                offset = before
            row["seconds"] = seconds + offset
        merged.append(row)
    return merged


def _scores(raw: Row) -> list[Score]:
    scores = []
    for key, entry in raw.items():
        fields = entry if isinstance(entry, dict) else {"value": entry}
        values: dict[str, Any] = {k: str(fields.get(k) or "") for k in ("unit", "on", "how", "property", "why")}
        values |= {k: as_number(fields.get(k)) for k in ("value", "error", "low", "high", "ceiling", "floor", "norm")}
        values["on"] = "; ".join(filter(None, (values["on"], *strings(fields.get("notes")))))
        values["options"] = _as_row(fields.get("options"))
        value = fields.get("value")
        scores.append(Score(key, text=value if isinstance(value, str) else "", **values))
    return scores


def _as_row(value: object) -> Row:
    return value if isinstance(value, dict) else {}


def read(run_folder: Path) -> Facts:
    """Read the files of a run folder, as far as they exist.

    Args:
        run_folder: the folder of a run, complete or not.

    Raises:
        LimnerError: the folder does not exist.
    """
    folder = Path(run_folder)
    if not folder.is_dir():
        raise LimnerError(
            f"there is no run folder {str(run_folder)!r}; give the path of one, such as runs/0001-gan-mnist"
        )
    notes: list[str] = []
    recipe, text = _recipe(folder / "recipe.yaml", notes)
    events = [_as_row(public_value(e)) for e in _jsonl(folder / "events.jsonl", notes)]
    return Facts(
        folder=folder,
        name=folder.resolve().name,
        recipe=recipe,
        recipe_text=text,
        env=_as_row(public_value(_json(folder / "env.json", notes))),
        metrics=merge_sessions(_jsonl(folder / "metrics.jsonl", notes)),
        events=[{**e, "event": str(e.get("event", "event"))} for e in events],
        scores=_scores(_as_row(public_value(_json(folder / "scores.json", notes)))),
        notes=notes,
        doctor=_doctor(folder / "doctor.json", notes),
    )
