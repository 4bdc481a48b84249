"""Docstrings as we write them, made fit for Sphinx.

Our docstrings are plain text for the terminal first: names stand in single backticks, an algorithm box is
simply indented. Two steps make reStructuredText of that: backticks become code and indented boxes become
literal blocks; and where a docstring still does not parse (``||w||`` is a substitution to Sphinx), all of it
is shown word for word, so that no docstring has to be written for the tool.
"""

from __future__ import annotations

import re

import docutils.frontend
import docutils.parsers.rst
import docutils.utils
from sphinx.application import Sphinx

_SINGLE = re.compile(r"(?<![`:\w])`([^`\n]+)`(?![`_\w])")
_SECTION = re.compile(r"^(Args|Attributes|Example|Examples|Note|Raises|References|Returns|Yields):$")
_OPENER = re.compile(r"^(?:[-*+] |\d+\. |\.\. |>>> |[=+|-]{3,}|:\w+)|.*::$")


def literal_boxes(lines: list[str]) -> list[str]:
    """Puts `::` before every indented block that follows a blank line and belongs to nothing.

    Sections such as ``Args:``, list items, directives, doctests and tables own what is indented below them.
    """
    out: list[str] = []
    owner = ""
    for i, line in enumerate(lines):
        indented = line.startswith("  ")
        if indented and i > 0 and not lines[i - 1].strip() and not owner:
            out += ["::", ""]
            owner = "::"
        if line.strip() and not indented:
            owner = line if _SECTION.match(line) or _OPENER.match(line) else ""
        out.append(line)
    return out


def tidy(lines: list[str]) -> list[str]:
    """One docstring as reStructuredText."""
    return literal_boxes([line if ">>>" in line else _SINGLE.sub(r"``\1``", line) for line in lines])


def parses(lines: list[str], app: Sphinx) -> bool:
    """Whether docutils reads the lines without a word of complaint."""
    complaints: list[str] = []
    settings = docutils.frontend.get_default_settings(docutils.parsers.rst.Parser)
    settings.report_level = 5
    settings.env = app.env
    document = docutils.utils.new_document("docstring", settings)
    document.reporter.attach_observer(lambda message: complaints.append(message.astext()))
    docutils.parsers.rst.Parser().parse("\n".join(lines), document)
    return not complaints


def before_napoleon(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    # Napoleon takes what stands before a colon in an attribute's first line for its type: show it an empty comment.
    lines[:] = [*(["..", ""] if what in ("attribute", "data") else []), *tidy(lines)]


def after_napoleon(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    if not parses(lines, app):
        lines[:] = ["::", "", *("   " + line for line in lines), ""]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", after_napoleon, priority=600)
    return {"parallel_read_safe": True}
