"""Sorts the paths of a folder or a ZIP into images and other files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import takewhile

from limner.data.files import first_reading
from limner.data.files.formats import SUFFIXES
from limner.data.files.table_names import TABLES

MAX_DEPTH = 16
TOO_DEEP = f"more than {MAX_DEPTH} folders deep"
MAX_METADATA = 64 << 20

_LABELS = "dataset.json"
_EXAMPLES = 5
_SYSTEM = frozenset(
    (
        "__macosx",
        "icon\r",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "@eadir",
        "#recycle",
        "#snapshot",
        "@recycle",
        "@recently-snapshot",
    )
)
"""Files and folders that operating systems and file servers write beside pictures, in small letters."""


class Listing:
    """The files of a `limner.data.files.store.Store`.

    Args:
        title: the name of the folder or file, without its parent folders.
        reading: as in `limner.data.files.reading`.
    """

    def __init__(self, title: str, reading: int) -> None:
        self.title, self.reading = title, reading
        self.names: list[str] = []
        self.ignored: Counter[str] = Counter()
        self.hidden: set[str] = set()
        self.quarantine: list[tuple[str, str]] = []
        self.examples: dict[str, list[str]] = {}
        self.labels: list[str] = []
        self.tables: list[str] = []
        self.usual = SUFFIXES if reading > 1 else first_reading.SUFFIXES
        self._folders: dict[str, bool] = {}  # whether each folder is passed over

    def add(self, paths: Iterable[str]) -> None:
        """Lists the images among relative paths, and counts the other files."""
        for path in paths:
            if self.is_image(path):
                self.names.append(path)
        self.names.sort()

    def is_image(self, path: str) -> bool:
        """Whether a path is that of an image that can be used; counts the others."""
        folder, _, file = path.rpartition("/")  # a `PurePath` for each of millions of files would take seconds
        if folder and folder not in self._folders:
            self._folders[folder] = any(self.passes_over(part) for part in folder.split("/"))
        if (folder and self._folders[folder]) or self.passes_over(file):
            return False
        dot = file.rfind(".")
        suffix = file[dot:].lower() if dot > 0 else ""
        if suffix in self.usual:
            if path.count("/") <= MAX_DEPTH:
                return True
            self.quarantine.append((path, TOO_DEEP))
        elif file == _LABELS:
            self.labels.append(path)
        elif self.reading > 2 and file.lower() in TABLES:
            self.tables.append(path)
        else:
            self.ignored[suffix or "no suffix"] += 1
            if self.ignored[suffix or "no suffix"] <= _EXAMPLES:
                self.examples.setdefault(suffix or "no suffix", []).append(path)
        return False

    def passes_over(self, part: str) -> bool:
        """Whether a file or folder is hidden or of the system; remembers its name."""
        if self.reading == 1:
            return part.startswith(".") or part == "__MACOSX"
        if part.startswith(".") or part.lower() in _SYSTEM:
            self.hidden.add("._*" if part.startswith("._") else part)
            return True
        return False

    def choose_labels(self) -> str | None:
        """The ``dataset.json`` of all images: the one at the top, or below folders that all of them share."""
        below = [name for name in self.names if "/" in name]
        first, last = (below[k].split("/")[:-1] if below else [] for k in (0, -1))
        shared = [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last))]
        places = ["/".join([*shared[:k], _LABELS]) for k in range(len(shared) + 1 if self.reading > 1 else 1)]
        chosen = next((place for place in places if place in self.labels), None)
        others = len(self.labels) - (chosen is not None and self.reading > 1)
        if others:
            self.ignored[".json"] += others
        return chosen
