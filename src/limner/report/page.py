"""A page in one file: the design shared by reports and labs, and the page of a lab.

A page opens from disk with nothing beside it. Its content security policy forbids all but what is inside it, and
every text goes through Jinja's escaping, so what a file says can be shown whoever wrote it.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from limner.core.errors import LimnerError
from limner.report.pictures import Picture, picture
from limner.report.words import duration, number, public

_FIGURE_BYTES = 1_500_000


@dataclass(frozen=True)
class Figure:
    """A picture with its caption.

    Attributes:
        image: bytes or path of a PNG, WebP, JPEG or SVG picture.
        alt: what it shows, for a reader who cannot see it.
    """

    image: bytes | Path
    caption: str
    alt: str


@dataclass(frozen=True)
class Table:
    """A table; numbers in `rows` are formatted and set to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Check:
    """One number of a lab beside what was measured here; `ok` says whether they agree."""

    name: str
    expected: object
    measured: object
    ok: bool


@dataclass(frozen=True)
class Section:
    """A part of a page: `text` is plain paragraphs parted by empty lines."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    table: Table | None = None
    checks: Sequence[Check] = ()


def _paragraphs(text: str) -> list[str]:
    return [" ".join(p.split()) for p in re.split(r"\n\s*\n", public(text)) if p.strip()]


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return number(value)
    return public("–" if value is None else str(value))


def _slug(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-") or "section"


@cache
def _environment() -> Environment:
    env = Environment(
        loader=PackageLoader("limner.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}  # tojson escapes <, >, & and '
    env.filters |= {"number": number, "duration": duration, "cell": _cell, "slug": _slug, "paragraphs": _paragraphs}
    env.tests["numeric"] = lambda v: isinstance(v, (int, float)) and not isinstance(v, bool)
    templates = files("limner.report") / "templates"
    for name in ("style.css", "report.js"):  # our own files, inlined as they are
        env.globals[name.replace(".", "_")] = Markup((templates / name).read_text("utf-8"))
    return env


def render(template: str, **context: Any) -> str:
    """The text of a page from a template of this package."""
    return _environment().get_template(template).render(**context)


def save(path: Path, text: str) -> Path:
    """Write `text` whole or not at all: a reader sees the old file or the new one.

    Raises:
        LimnerError: the disk is full or the folder cannot be written to.
    """
    path = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="\n", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # a temporary file is its owner's only; a report is meant to be shared
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise LimnerError(
            f"cannot write {path.name}: {error.strerror}; free some space or choose another folder"
        ) from error
    return path


def write_page(path: Path, title: str, sections: Sequence[Section], kind: str = "lab") -> Path:
    """Write a self-contained page of texts, pictures, tables and checks, in the design of the reports.

    Args:
        path: the HTML file to write; it is replaced in one go.
        title: the heading.
        sections: what to show, in order.
        kind: what the page is of, in a word: lab, bench or comparison.

    Returns:
        `path`.

    Raises:
        LimnerError: a picture cannot be read, or the page cannot be written.
    """
    shown: list[tuple[Section, list[tuple[Figure, Picture]]]] = []
    for section in sections:
        figures = []
        for i, figure in enumerate(section.figures, 1):
            image = picture(figure.image, _FIGURE_BYTES)
            if image is None:
                raise LimnerError(
                    f"picture {i} of section {section.title!r} cannot be read; give a PNG, WebP, JPEG or SVG"
                )
            figures.append((figure, image))
        shown.append((section, figures))
    checks = [c for s in sections for c in s.checks]
    return save(Path(path), render("page.html", kind=kind, title=title, sections=shown, checks=checks))
