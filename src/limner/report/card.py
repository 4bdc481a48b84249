"""The model card of a run: README.md, in plain Markdown.

After Mitchell et al. 2019, *Model cards for model reporting* (arXiv:1810.03993), cut to what the files of a run tell.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from limner.config import catalogue
from limner.metrics.scorecard import base
from limner.report import findings
from limner.report.facts import Facts, Row, as_number, read
from limner.report.page import save
from limner.report.run_page import command
from limner.report.words import duration, number, public, title

_CLASSES, _ATTRIBUTES, _VALUES = 200, 50, 20  # names that the card lists
_USE = """\
- Meant for study, teaching and experiments with small images. It was not tested for any other use.
- What it makes looks like its training data, with that data's gaps and biases. Look at many samples before you
  rely on any of them, and do not use them as evidence about the world or about a person.
- It can repeat training images almost as they are. If the data holds faces or other personal or licensed
  pictures, compare samples with their nearest training images before you share the model or what it made.
- Say that a picture was generated where you publish it."""


def _plain(value: object) -> str:
    """Untrusted text for one line of Markdown: no markup, no line breaks, no table bars."""
    text = re.sub(r"\s+", " ", public(str(value))).strip()
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(value: object) -> str:
    """Untrusted text as inline code."""
    return "`" + re.sub(r"[\s`]+", " ", public(str(value))).strip() + "`"


def _fenced(text: str, language: str) -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _name(part: object) -> str:
    return str(part.get("name") or "") if isinstance(part, dict) else str(part or "")


def _data(facts: Facts) -> list[str]:
    """Lines on the data, from the recipe and the start event."""
    items, shape, fingerprint = as_number(facts.last("items")), facts.last("shape"), facts.last("fingerprint")
    lines = [f"- Name: {_code(facts.data_name)}"] if facts.data_name else []
    if items is not None:
        lines.append(f"- Size: {number(items)} images")
    if isinstance(shape, list):
        lines.append(f"- Shape: {_plain(' × '.join(map(str, shape)))} (channels × height × width)")
    if facts.classes:
        shown = ", ".join(f"{k} {_code(name)}" for k, name in enumerate(facts.classes[:_CLASSES]))
        more = len(facts.classes) - _CLASSES
        lines.append(
            f"- Classes by number: {shown}" + (f", and {more} more (events.jsonl lists all)" if more > 0 else "")
        )
    if facts.attributes:
        named = [
            f"{_code(a)} ({', '.join(map(_code, v[:_VALUES]))}{', …' if len(v) > _VALUES else ''})"
            for a, v in facts.attributes.items()
        ]
        rest = len(named) - _ATTRIBUTES
        others = f", and {rest} more (events.jsonl lists all)" if rest > 0 else ""
        lines.append(f"- Attributes: {', '.join(named[:_ATTRIBUTES])}{others}")
    lines += [f"- {_plain(note)}" for note in facts.data_notes]
    if fingerprint:
        lines.append(f"- Fingerprint (SHA-256 of what it holds): {_code(fingerprint)}")
    licence = (
        facts.last("licence") or "not recorded; check the source before you share the data, the model or its samples"
    )
    return [*lines, f"- Licence: {_plain(licence)}"]


def _training(facts: Facts) -> list[str]:
    env: Row = facts.env
    device = env.get("device_name") or env.get("device")
    lines = [f"- State: {facts.state} after {number(facts.images)} images"]
    if facts.seconds:
        lines.append(f"- Time: {duration(facts.seconds)}, {number(facts.rate)} images a second, all included")
    lines += [f"- {name}: {_plain(words)}" for name, words in facts.profile]
    if found := findings.line(facts):
        lines.append(f"- Findings of the doctor: {_plain(found)}")
    if counts := facts.parameters:
        lines.append(f"- Parameters: {', '.join(f'{_plain(k)} {number(n)}' for k, n in counts)}")
    if device:
        threads = f", {number(n)} threads" if (n := as_number(env.get("threads"))) is not None else ""
        lines.append(f"- Device: {_plain(device)}{threads}")
    joules = as_number(facts.last("energy_joules"))
    energy = (
        f"{number(joules / 3600)} Wh, measured"
        if joules is not None
        else "not measured; the time and device above bound it"
    )
    lines.append(f"- Energy: {energy}")
    versions = [f"{k} {_plain(env[k])}" for k in ("limner", "python", "torch") if env.get(k)]
    return lines + ([f"- Software: {', '.join(versions)}"] if versions else [])


def _scores(facts: Facts) -> list[str]:
    if not facts.scores:
        return ["None measured."]
    rows = [
        f"| {_plain(title(base(s.key), s.unit) + s.key.removeprefix(base(s.key)))}"
        f" | {_plain(s.text) or number(s.value)} {_plain(s.unit)} | {_plain(s.on)}"
        f" | {_plain(s.how)} |"
        for s in facts.scores
        if s.value is not None or s.text or not s.why
    ]
    missing = [f"- n/a: {_plain(s.why)}" for s in facts.scores if s.why]
    return ["| score | value | on | how |", "| --- | ---: | --- | --- |", *rows, *([""] if missing else []), *missing]


def _example(facts: Facts) -> str:
    lines = ["import limner", "", f'model = limner.load("{facts.name}")']
    if (facts.folder / "reconstructions").is_dir() and not (facts.folder / "samples").is_dir():
        lines.append("codes = model.encode(images)  # (B,C,H,W) in [-1,1] -> codes")
    elif facts.last("rows"):
        lines.append("images = model.translate(sources)  # (B,C,H,W) in [-1,1] of (B,C',H,W), any height and width")
    else:
        lines.append("images = model.sample(16)  # (16,C,H,W) in [-1,1]")
    return "\n".join(lines)


def about(name: str) -> str:
    """The first paragraph of a model's documentation."""
    doc = inspect.getdoc(inspect.getmodule(catalogue.find("model", name))) or ""
    return " ".join(doc.split("\n\n")[0].split())


def write_card(run_folder: Path, about: str = "") -> Path:
    """Write the model card ``README.md`` into a run folder.

    Args:
        run_folder: the folder of a run.
        about: what the model is, e.g. the first paragraph of its module's docstring.

    Returns:
        The path of the card.

    Raises:
        LimnerError: there is no such folder, or the card cannot be written.
    """
    facts = read(run_folder)
    model = _name(facts.recipe.get("model"))
    introduction = [_plain(p) for p in re.split(r"\n\s*\n", about) if p.strip()]
    if model:
        introduction.append(f"Model {_code(model)}, trained with limner.")
    parts = [
        f"# {_plain(facts.recipe_name)}",
        *introduction,
        "[The full report](report.html) has samples over time, curves and settings.",
        "## Data",
        "\n".join(_data(facts)),
        "## Training",
        "\n".join(_training(facts)),
        "To train it again, from the folder that holds this run:",
        _fenced(command(facts), "sh"),
        "## Scores",
        "\n".join(_scores(facts)),
        "## Intended use and limits",
        _USE,
        "## Use it in Python",
        "From the same folder:",
        _fenced(_example(facts), "python"),
        "## Recipe",
        _fenced(facts.recipe_text, "yaml") if facts.recipe_text else "Not recorded.",
    ]
    return save(facts.folder / "README.md", "\n\n".join(parts) + "\n")
