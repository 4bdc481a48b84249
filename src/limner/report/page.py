"""HTML pages in one file: the templates shared by reports and labs, and the page of a lab.

A page needs no other file and no network. Its content security policy forbids everything that is not inside the page,
and Jinja escapes every text, so text of unknown origin can be shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from limner.core.durable import replace_file
from limner.core.errors import LimnerError
from limner.report.images import InlineImage, inline
from limner.report.words import duration, number, public

_FIGURE_BYTES = 1_500_000


@dataclass(frozen=True)
class Figure:
    """An image with its caption.

    Attributes:
        image: bytes or path of a PNG, WebP, JPEG or SVG image.
        alt: a description of the image, for readers who cannot see it.
    """

    image: bytes | Path
    caption: str
    alt: str


@dataclass(frozen=True)
class Table:
    """A table; numbers in `rows` are formatted and aligned to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Check:
    """An expected number beside the measured one; `ok` says whether they agree."""

    name: str
    expected: object
    measured: object
    ok: bool


@dataclass(frozen=True)
class Section:
    """A section of a page; empty lines in `text` separate paragraphs."""

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
    for name in ("style.css", "report.js"):  # they are part of the package, so they are not escaped
        env.globals[name.replace(".", "_")] = Markup((templates / name).read_text("utf-8"))
    return env


def render(template: str, **context: Any) -> str:
    """The HTML of a page from a template of this package."""
    return _environment().get_template(template).render(**context)


def save(path: Path, text: str) -> Path:
    """Write `text` to a temporary file and move it to `path`, so that the file is always complete.

    Raises:
        LimnerError: the disk is full or the folder cannot be written to.
    """
    path = Path(path)
    try:
        replace_file(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise LimnerError(
            f"cannot write {path.name}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    return path


def write_page(path: Path, title: str, sections: Sequence[Section], kind: str = "lab") -> Path:
    """Write a self-contained page of text, images, tables and checks, in the design of the reports.

    Args:
        path: the HTML file to write or replace.
        title: the heading.
        sections: the sections in order.
        kind: lab, bench or comparison; shown in the corner.

    Returns:
        `path`.

    Raises:
        LimnerError: an image cannot be read, or the page cannot be written.
    """
    rendered: list[tuple[Section, list[tuple[Figure, InlineImage]]]] = []
    for section in sections:
        figures = []
        for i, figure in enumerate(section.figures, 1):
            image = inline(figure.image, _FIGURE_BYTES)
            if image is None:
                raise LimnerError(
                    f"picture {i} of section {section.title!r} cannot be read; give a PNG, WebP, JPEG or SVG"
                )
            figures.append((figure, image))
        rendered.append((section, figures))
    checks = [c for s in sections for c in s.checks]
    return save(Path(path), render("page.html", kind=kind, title=title, sections=rendered, checks=checks))
