"""The run folder: plain files that the command line, Python and the report read.

``runs/0007-vae-mnist/`` holds ``recipe.yaml``, ``env.json``, ``metrics.jsonl`` (one line for each log step),
``events.jsonl`` (phases, checkpoints, warnings), ``checks.jsonl`` and ``doctor.json`` (what the doctor measured and
found), ``samples/`` (from the same noise each time), ``checkpoints/``, ``scores.json``, ``README.md`` (the model card)
and ``report.html``.
"""

from __future__ import annotations

import io
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from torch import Tensor

from limner.core import records
from limner.core.checkpoint import BEST, LATEST, folders, read_pointer
from limner.core.durable import is_litter, replace_file, sweep
from limner.core.errors import LimnerError, LimnerWarning
from limner.core.grid import make_grid, save_grid
from limner.core.paths import user_path
from limner.core.yaml_text import dump_yaml, read_yaml


class Run:
    """The folder of one training.

    Args:
        path: the run folder.

    Raises:
        LimnerError: `path` is not a run folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = user_path(path, "a run folder")
        self._lock: filelock.BaseFileLock | None = None
        self._said: set[str] = set()  # logs whose damage was told
        if not (self.path / "recipe.yaml").is_file():
            raise LimnerError(f"{self.path} is not a run folder (it has no recipe.yaml); see 'limner train --help'")

    @classmethod
    def create(cls, recipe: Mapping[str, Any], out: str | Path | None = None, root: str | Path = "runs") -> Run:
        """Creates a run folder: `out`, or the next number under `root`.

        Raises:
            LimnerError: `out` is not empty, or cannot be written.
        """
        try:
            path = cls._next(Path(root), str(recipe["name"])) if out is None else user_path(out, "a folder")
            if out is not None:
                _refuse_used(path)
                path.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(path / "lock", timeout=0):  # of two processes that create it, one is refused
                _refuse_used(path)
                sweep([path])
                # The recipe comes first: a folder without it is no run, and another training can begin in it.
                replace_file(path / "recipe.yaml", dump_yaml(recipe).encode())
                (path / "checkpoints").mkdir(exist_ok=True)
        except filelock.Timeout:
            raise LimnerError(f"{path} is in use by another process; choose another out=DIR") from None
        except OSError as error:
            raise LimnerError(f"cannot create a run: {error.strerror or error}; choose another out=DIR") from error
        return cls(path)

    @staticmethod
    def _next(root: Path, name: str) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        while True:
            numbers = [int(p.name[:4]) for p in root.iterdir() if records.is_position(p.name[:4])]
            path = root / f"{max(numbers, default=0) + 1:04d}-{name}"
            try:
                path.mkdir()  # fails if another process has just taken this number
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
        folder = read_pointer(self.checkpoints, BEST)
        if folder is None:
            raise LimnerError(
                f"{self.name} has no best checkpoint; train with train.score_images=20k, or use the latest one"
            )
        return folder

    def lock(self) -> None:
        """Makes this process the only writer. The operating system releases the lock when the process ends.

        Raises:
            LimnerError: another process has the lock.
        """
        self._lock = filelock.FileLock(self.path / "lock", timeout=0)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise LimnerError(
                f"{self.path} is in use by another process; wait for it or choose another out=DIR"
            ) from None
        except OSError as error:
            raise LimnerError(
                f"cannot lock {self.path}: {error.strerror or error}; check the permissions of {self.path / 'lock'}"
            ) from None

    def sweep(self) -> None:
        """Deletes files that processes left half written in this run; the caller must hold its lock."""
        sweep([self.path, *(p for p in self.path.iterdir() if p.is_dir() and not p.is_symlink())])

    def unlock(self) -> None:
        """Releases the lock."""
        if self._lock is not None:
            self._lock.release()

    def write_json(self, name: str, content: Any) -> None:
        """Writes a JSON file atomically."""
        replace_file(self.path / name, (json.dumps(content, indent=1) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Reads and checks a JSON file of the run, such as ``scores.json``; None if it does not exist.

        Raises:
            LimnerError: the file is damaged.
        """
        return records.read_json(self.path, name)

    def check(self) -> None:
        """Reads every plain file once, so that a damaged one is told before hours of work and not after them.

        Raises:
            LimnerError: a file is damaged.
        """
        for name in ("lock", f"checkpoints/{LATEST}", f"checkpoints/{BEST}"):
            records.check_regular(self.path / name)
        for name in records.FILES:
            self.read_json(name)
        self.metrics(), self.checks(), self.events()

    def log(self, line: Mapping[str, Any]) -> None:
        """Appends to ``metrics.jsonl``; numbers that are not finite become null."""
        self._append("metrics.jsonl", {k: _finite(v) for k, v in line.items()})

    def log_check(self, line: Mapping[str, Any]) -> None:
        """Appends to ``checks.jsonl``; signals that are not finite become null."""
        signals = {name: _finite(value) for name, value in line["signals"].items()}
        self._append("checks.jsonl", {**line, "signals": signals})

    def event(self, event: str, images: int, seconds: float, **more: Any) -> None:
        """Appends to ``events.jsonl``."""
        self._append("events.jsonl", {"event": event, "images": images, "seconds": round(seconds, 3), **more})

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        with (self.path / name).open("a+b") as file:
            end = file.seek(0, io.SEEK_END)
            file.seek(max(0, end - 1))
            cut = file.read(1) not in (b"", b"\n")  # a crash cut the last line short
            file.write((b"\n" if cut else b"") + json.dumps(line).encode() + b"\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of ``metrics.jsonl``. Damaged ones are left out, with a `LimnerWarning` that tells how many."""
        return self._lines("metrics.jsonl", records.METRICS)

    def checks(self) -> list[dict[str, Any]]:
        """All lines of ``checks.jsonl``. Damaged ones are left out, with a `LimnerWarning` that tells how many."""
        return self._lines("checks.jsonl", records.CHECKS)

    def events(self) -> list[dict[str, Any]]:
        """All lines of ``events.jsonl``. Damaged ones are left out, with a `LimnerWarning` that tells how many."""
        return self._lines("events.jsonl", records.EVENTS)

    def _lines(self, name: str, check: records.Check) -> list[dict[str, Any]]:
        rows, damaged = records.read_lines(self.path / name, check)
        if damaged and name not in self._said:
            self._said.add(name)
            lines = "1 damaged line was" if damaged == 1 else f"{damaged} damaged lines were"
            warnings.warn(f"{self.path / name}: {lines} left out", LimnerWarning, stacklevel=3)
        return rows

    def ended(self, images: int) -> bool:
        """Whether a training to `images` images was completed, with its final scores."""
        return any(e["event"] == "done" and e["images"] >= images for e in self.events())

    def rewind(self, images: int, logged: int) -> None:
        """Deletes metrics after `logged`, and checks and previews after `images`; resuming writes them again."""
        self._keep("metrics.jsonl", [line for line in self.metrics() if line["images"] <= logged])
        if (self.path / "checks.jsonl").exists():
            self._keep("checks.jsonl", [line for line in self.checks() if line["images"] <= images])
        for folder, suffix in (
            ("samples", "webp"),
            ("reconstructions", "webp"),
            ("paths", "webp"),
            ("details", "webp"),
            ("frames", "npz"),
        ):
            for position, file in self._numbered(folder, suffix):
                if position > images:
                    file.unlink()

    def _keep(self, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Writes a log anew, with these lines alone."""
        replace_file(self.path / name, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def samples(self) -> list[tuple[int, Path]]:
        """Position (images seen) and file of every saved sample grid, in order."""
        return self._numbered("samples", "webp")

    def frames(self) -> list[tuple[int, Path]]:
        """Position (images seen) and file of every saved frame of a run on points, in order."""
        return self._numbered("frames", "npz")

    def _numbered(self, folder: str, suffix: str) -> list[tuple[int, Path]]:
        return sorted((int(p.stem), p) for p in (self.path / folder).glob(f"*.{suffix}") if records.is_position(p.stem))

    def save_frame(self, images: int, tensors: Mapping[str, Tensor]) -> None:
        """Writes one frame of a run on points (`limner.core.frame`) to ``frames/``."""
        content = io.BytesIO()
        arrays: dict[str, Any] = {k: v.cpu().numpy() for k, v in tensors.items()}
        np.savez_compressed(content, **arrays)
        (self.path / "frames").mkdir(exist_ok=True)
        replace_file(self.path / "frames" / f"{images:08d}.npz", content.getvalue())

    def save_grid(
        self,
        name: str,
        x: Tensor,
        columns: int,
        extent: float | None = None,
        headings: Sequence[str] | None = None,
    ) -> Path:
        """Writes images (N,C,H,W) in [-1,1] as one grid; `name` ends in ``.webp`` (lossless) or ``.png``.

        Points are plotted within [-extent,extent]², which is the same for all grids of a run.
        """
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        save_grid(make_grid(x, columns, extent=extent, headings=headings), path)
        return path


def _refuse_used(path: Path) -> None:
    """Raises a `LimnerError` if a run or anything of the user's is in the way of a new run.

    A process that was killed before it wrote the recipe leaves a lock, an empty folder or half a file, which are not.
    """
    if (path / "recipe.yaml").exists():
        raise LimnerError(
            f"{path} holds a run already; continue it with 'limner resume {path}' or choose another out=DIR"
        )
    if path.exists() and not (path.is_dir() and all(_is_remnant(p) for p in path.iterdir())):
        raise LimnerError(f"{path} exists and is not an empty folder; choose another out=DIR")


def _is_remnant(path: Path) -> bool:
    if path.is_dir():
        return path.name == "checkpoints" and not any(path.iterdir())
    return is_litter(path) or (path.name == "lock" and path.stat().st_size == 0)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def relative(path: Path) -> str:
    """A path to show: relative to the working folder if possible."""
    try:
        return os.path.relpath(path)
    except ValueError:
        return str(path)
