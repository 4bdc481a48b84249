"""The run folder: plain files that the command line, Python, the report and the studio all read.

``runs/0007-vae-mnist/`` holds ``recipe.yaml``, ``env.json``, ``metrics.jsonl`` (a line a log step),
``events.jsonl`` (phases, checkpoints, warnings), ``samples/`` (the same fixed noise each time), ``checkpoints/``,
``scores.json``, ``README.md`` (model card) and ``report.html``.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from torch import Tensor

from limner.core.checkpoint import BEST, folders, pointed
from limner.core.durable import replace_file
from limner.core.errors import LimnerError
from limner.core.grid import make_grid, save_grid
from limner.core.yaml_text import dump_yaml, read_yaml


class Run:
    """One training, on disk.

    Args:
        path: the run folder; it must exist.

    Raises:
        LimnerError: there is no run there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: filelock.BaseFileLock | None = None
        if not (self.path / "recipe.yaml").is_file():
            raise LimnerError(f"{self.path} is not a run folder (it has no recipe.yaml); see 'limner train --help'")

    @classmethod
    def create(cls, recipe: Mapping[str, Any], out: str | Path | None = None, root: str | Path = "runs") -> Run:
        """A new folder: `out`, or the next number under `root`.

        Raises:
            LimnerError: `out` holds something already, or cannot be written.
        """
        try:
            path = cls._next(Path(root), str(recipe["name"])) if out is None else Path(out)
            if out is not None:
                if (path / "recipe.yaml").exists():
                    raise LimnerError(
                        f"{path} holds a run already; continue it with 'limner resume {path}' or choose another out=DIR"
                    )
                if path.exists() and (not path.is_dir() or any(path.iterdir())):
                    raise LimnerError(f"{path} exists and is not an empty folder; choose another out=DIR")
                path.mkdir(parents=True, exist_ok=True)
            replace_file(
                path / "recipe.yaml", dump_yaml(recipe).encode()
            )  # first: without it a folder cannot be resumed
            (path / "checkpoints").mkdir()
        except OSError as error:
            raise LimnerError(f"cannot make a run folder: {error.strerror or error}; choose another out=DIR") from error
        return cls(path)

    @staticmethod
    def _next(root: Path, name: str) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        while True:
            taken = [int(p.name[:4]) for p in root.iterdir() if p.name[:4].isdigit()]
            path = root / f"{max(taken, default=0) + 1:04d}-{name}"
            try:
                path.mkdir()  # two starts at once: one of them tries the next number
                return path
            except FileExistsError:
                continue

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe."""
        return read_yaml(self.path / "recipe.yaml")

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def latest(self) -> Path:
        """The newest checkpoint folder.

        Raises:
            LimnerError: nothing has been saved yet.
        """
        saved = folders(self.checkpoints)
        if not saved:
            raise LimnerError(f"{self.name} has no checkpoint yet; let it train a little longer")
        return saved[-1]

    @property
    def best(self) -> Path:
        """The checkpoint folder with the best score during training.

        Raises:
            LimnerError: the run was not scored during training.
        """
        found = pointed(self.checkpoints, BEST)
        if found is None:
            raise LimnerError(
                f"{self.name} has no best checkpoint; train with train.score_images=20k, or take the latest"
            )
        return found

    def lock(self) -> None:
        """Makes this process the only writer until it ends (the system frees the lock of a dead process).

        Raises:
            LimnerError: another process writes here.
        """
        self._lock = filelock.FileLock(self.path / "lock", timeout=0)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise LimnerError(
                f"{self.path} is in use by another process; wait for it or choose another out=DIR"
            ) from None

    def unlock(self) -> None:
        """Gives the folder free."""
        if self._lock is not None:
            self._lock.release()

    def write_json(self, name: str, content: Any) -> None:
        """Writes a JSON file whole."""
        replace_file(self.path / name, (json.dumps(content, indent=1) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Reads a JSON file; None when it is not there."""
        file = self.path / name
        return json.loads(file.read_text()) if file.is_file() else None

    def log(self, line: Mapping[str, Any]) -> None:
        """Appends to ``metrics.jsonl``; numbers that are not finite become null."""
        self._append("metrics.jsonl", {k: _finite(v) for k, v in line.items()})

    def event(self, event: str, images: int, seconds: float, **more: Any) -> None:
        """Appends to ``events.jsonl``."""
        self._append("events.jsonl", {"event": event, "images": images, "seconds": round(seconds, 3), **more})

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        with (self.path / name).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of ``metrics.jsonl``; a last line cut short by a crash is left out."""
        return _lines(self.path / "metrics.jsonl")

    def events(self) -> list[dict[str, Any]]:
        """All lines of ``events.jsonl``."""
        return _lines(self.path / "events.jsonl")

    def ended(self, images: int) -> bool:
        """Whether a training to so many images has been through to its last score."""
        return any(e["event"] == "done" and e["images"] >= images for e in self.events())

    def rewind(self, images: int, logged: int) -> None:
        """Forgets metrics after `logged` and pictures after `images`: a resumed training writes them again."""
        kept = [line for line in self.metrics() if line["images"] <= logged]
        replace_file(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode())
        for folder, suffix in (("samples", "webp"), ("reconstructions", "webp"), ("frames", "npz")):
            for seen, file in self._numbered(folder, suffix):
                if seen > images:
                    file.unlink()

    def samples(self) -> list[tuple[int, Path]]:
        """(images seen, file) of every saved sample sheet, in order."""
        return self._numbered("samples", "webp")

    def frames(self) -> list[tuple[int, Path]]:
        """(images seen, file) of every saved frame of a toy run, in order."""
        return self._numbered("frames", "npz")

    def _numbered(self, folder: str, suffix: str) -> list[tuple[int, Path]]:
        found = (self.path / folder).glob(f"*.{suffix}")
        return sorted((int(p.stem), p) for p in found if p.stem.isdigit())

    def save_frame(self, images: int, numbers: Mapping[str, Tensor]) -> None:
        """Writes the numbers behind one moment of a toy run to ``frames/``, whole."""
        content = io.BytesIO()
        arrays: dict[str, Any] = {k: v.cpu().numpy() for k, v in numbers.items()}
        np.savez_compressed(content, **arrays)
        (self.path / "frames").mkdir(exist_ok=True)
        replace_file(self.path / "frames" / f"{images:08d}.npz", content.getvalue())

    def save_grid(self, name: str, x: Tensor, columns: int, extent: float | None = None) -> Path:
        """Writes images (N,C,H,W) in [-1,1] as one grid; `name` ends in ``.webp`` (lossless) or ``.png``.

        Points are shown within [-extent,extent], the same for all grids of a run.
        """
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        save_grid(make_grid(x, columns, extent=extent), path)
        return path


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue  # a line cut short by a crash
    return lines


def relative(path: Path) -> str:
    """A path for people: relative to the working folder where it can be."""
    try:
        return os.path.relpath(path)
    except ValueError:
        return str(path)
