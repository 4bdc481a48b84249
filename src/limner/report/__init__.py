"""The report of a run, its model card and animation, and the pages of labs and benches."""

from __future__ import annotations

from limner.report.animation import film
from limner.report.card import about, write_card
from limner.report.page import Check, Figure, Section, Table, write_page
from limner.report.run_page import write

__all__ = ["Check", "Figure", "Section", "Table", "about", "film", "write", "write_card", "write_page"]
