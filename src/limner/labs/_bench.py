"""The bench of a lab: its folder, its trainings, and the page that grows as it works."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure as Plot
from PIL import Image
from torch import Tensor

from limner import api, report
from limner.config import recipe
from limner.config.spec import Spec
from limner.core.batch import Dataset, to_float
from limner.core.durable import replace_file
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.progress import Progress, Silent
from limner.core.run import Run, relative
from limner.core.units import clock
from limner.labs import _figures
from limner.report import Check, Figure, Section, Table

_SHAPE = (1, 28, 28)  # what the lectures' nets take
_SOME = 5000  # images of a larger set that are looked at; trainings see them all


@dataclass(frozen=True)
class Claim:
    """A statement of the lecture, what was measured of it, and whether it holds here."""

    claim: str
    measured: str
    holds: bool


@dataclass(frozen=True)
class Reals:
    """Images x (N,1,28,28) in [-1,1], their classes y (N,) and the names of the classes."""

    x: Tensor
    y: Tensor
    classes: list[str]

    def __len__(self) -> int:
        return len(self.x)

    def spread(self, n: int) -> Reals:
        """At most n of them, evenly spread over the set."""
        keep = torch.linspace(0, len(self) - 1, min(n, len(self))).round().long()
        return Reals(self.x[keep], self.y[keep], self.classes)

    def one_of_each(self) -> Reals:
        """The first image of each of the first ten classes that occur."""
        keep = torch.stack([(self.y == c).nonzero()[0, 0] for c in self.y.unique()[:10]])
        return Reals(self.x[keep], self.y[keep], self.classes)


class Bench:
    """One lab at work.

    Args:
        lab: its name.
        title: what its page says first.
        images: that each training sees, unless it says otherwise; None for a lab without images.
        data: a named set, a path, or a mapping with options of the source.
        seed: of every training and measurement; None for a lab that draws nothing.
        out: the folder; default ``runs/lab-NAME``, numbered if taken.
        progress: who is told how training goes.
        **own: settings that this lab alone has.

    Attributes:
        own: those settings.
        train_set: images of the training split (at most 5,000).
        test_set: held-out images (at most 5,000).

    Raises:
        LimnerError: the folder is in use, or the data are not labelled grey images of 28×28.
    """

    def __init__(
        self,
        lab: str,
        title: str,
        *,
        images: int | None = None,
        data: str | Path | Mapping[str, Any] = "mnist-5k",
        seed: int | None = 0,
        out: str | Path | None = None,
        progress: Progress | None = None,
        **own: Any,
    ) -> None:
        self.lab, self.title, self.images, self.seed, self.own = lab, title, images or 0, seed or 0, own
        self.chance = {"seed": seed} if seed is not None else {}
        self.data = dict(data) if isinstance(data, Mapping) else {"name": str(data)}
        self.progress = progress or Silent()
        self.began = time.monotonic()
        if images:
            self.train_set, self.test_set = self._reals("train"), self._reals("test")
        self.out = _folder(lab, out)
        self.runs: dict[str, Run] = {}
        self.sections: list[Section] = []
        self.claims: list[Claim] = []
        self.figures: dict[str, Path] = {}
        self.results: dict[str, Any] = {}

    # -- data and trainings --------------------------------------------------------------------------------

    def dataset(self, split: str, data: Mapping[str, Any] | None = None, **options: Any) -> Dataset:
        """A split of the lab's data, or of other data."""
        chosen = recipe.load("ae-mnist", {"data": dict(data or self.data) | options}).data
        made: Dataset = Spec(chosen.kind, chosen.name, chosen.kwargs | {"split": split}).build()
        return made

    def pixels(self, split: str, data: Mapping[str, Any], limit: int = 500, **options: Any) -> Tensor:
        """Images (N,C,H,W) in [-1,1] of other data, for a model that never saw any."""
        dataset = self.dataset(split, data, **options)
        keep = torch.linspace(0, len(dataset) - 1, min(limit, len(dataset))).round().long().tolist()
        return to_float(dataset.fetch(keep))

    def _reals(self, split: str) -> Reals:
        dataset = self.dataset(split)
        if tuple(dataset.shape) != _SHAPE or dataset.labels is None or not dataset.classes:
            what = "×".join(map(str, dataset.shape)) + ("" if dataset.classes else " without labels")
            raise LimnerError(
                f"lab {self.lab} takes labelled grey images of 28×28, and {dataset.name} has {what};"
                " use mnist-5k, mnist, kmnist or fashion-mnist, or data={name: …, size: 28, channels: 1}"
            )
        keep = torch.linspace(0, len(dataset) - 1, min(_SOME, len(dataset))).round().long()
        return Reals(to_float(dataset.fetch(keep.tolist())), dataset.labels[keep], dataset.classes)

    def train(
        self,
        label: str,
        name: str,
        changes: Mapping[str, Any] | None = None,
        *,
        images: int | None = None,
        without: Sequence[str] = (),
    ) -> GenerativeModel:
        """Trains a recipe into the folder ``runs/LABEL`` of the lab; gives the model, on the CPU, ready to use.

        Args:
            label: names the run.
            name: the recipe.
            changes: keys of the recipe, dotted or bare, and their values.
            images: that it sees; default the lab's.
            without: classes it never sees.
        """
        self.progress.say(f"lab {self.lab}: training {label}")
        data = self.data | ({"without": list(without)} if without else {})
        chosen = {"data": data, "seed": self.seed, "images": images or self.images} | dict(changes or {})
        run = api.train(name, out=self.out / "runs" / label, progress=self.progress, **chosen)
        self.runs[label] = run
        return api.load(run.latest)

    # -- what goes on the page -----------------------------------------------------------------------------

    def figure(self, name: str, drawn: Plot | Image.Image, caption: str, alt: str) -> Figure:
        """Saves ``figures/NAME.png`` and gives it with its caption, for a section."""
        path = self.out / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        _figures.save(drawn, path)
        self.figures[name] = path
        return Figure(path, caption, alt)

    def section(
        self,
        title: str,
        text: str = "",
        *figures: Figure,
        table: Table | None = None,
        checks: Sequence[Check] = (),
    ) -> None:
        """Adds a part to the page."""
        self.sections.append(Section(title, text, figures, table, checks))

    def claim(self, claim: str, measured: str, holds: bool) -> None:
        """Notes a statement of the lecture beside what was measured."""
        self.claims.append(Claim(claim, measured, bool(holds)))

    def finish(self) -> dict[str, Any]:
        """Writes ``index.html`` and ``results.json``; gives what `limner.labs.run` returns."""
        if self.claims:
            rows = [(c.claim, c.measured, c.holds) for c in self.claims]
            self.section(
                "What the lecture says, measured",
                "Statements rather than numbers: whether one holds can depend on how long was trained.",
                table=Table(("statement", "measured here", "holds"), rows),
            )
        self.section("How this was made", self._made(), table=self._runs() if self.runs else None)
        checks = [c for s in self.sections for c in s.checks]
        seconds = round(time.monotonic() - self.began, 1)
        content = {
            "lab": self.lab,
            "settings": self._settings(),
            "seconds": seconds,
            "checks": [asdict(c) for c in checks],
            "claims": [asdict(c) for c in self.claims],
            "results": self.results,
        }
        replace_file(self.out / "results.json", (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
        page = report.write_page(self.out / "index.html", self.title, self.sections)
        return content | {
            "page": relative(page),
            "run": [relative(run.path) for run in self.runs.values()],
            "figures": {name: relative(path) for name, path in self.figures.items()},
        }

    def _settings(self) -> dict[str, Any]:
        """What was chosen, and what was left as it is."""
        images = {"images": self.images, "data": self.data} if self.images else {}
        return images | self.chance | self.own

    def _made(self) -> str:
        chosen = {k: v for k, v in self._settings().items() if v != {"name": "mnist-5k"}}
        words = {k: (json.dumps(v) if len(v) > 1 else v["name"]) if k == "data" else v for k, v in chosen.items()}
        again = " ".join([f"limner lab {self.lab}", *(f"{k}={v}" for k, v in words.items())])
        made = f"{again} makes this page again, in {clock(time.monotonic() - self.began)} here."
        trained = " Each training is a whole run with a report of its own, in the folder runs beside this page."
        return made + (trained if self.runs else "")

    def _runs(self) -> Table:
        rows: list[tuple[object, ...]] = []
        for label, run in self.runs.items():
            last = (run.metrics() or [{}])[-1]
            scores = run.read_json("scores.json") or {}
            shown = "; ".join(f"{n.replace('_', ' ')} {s['value']:.4g}" for n, s in scores.items())
            rows.append((label, str(run.recipe["name"]), last.get("images"), last.get("seconds"), shown or "–"))
        return Table(("run", "recipe", "images seen", "seconds", "scores on held-out images"), rows)


def check(name: str, expected: object, measured: object, ok: bool | None = None) -> Check:
    """A number of the lecture beside ours; they must be equal unless `ok` says otherwise."""
    return Check(name, expected, measured, expected == measured if ok is None else bool(ok))


def _folder(lab: str, out: str | Path | None) -> Path:
    """The lab's folder: `out`, which must be empty or new, or the next free ``runs/lab-NAME``."""
    try:
        if out is not None:
            path = Path(out)
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise LimnerError(f"{path} exists and is not an empty folder; choose another out=DIR")
            path.mkdir(parents=True, exist_ok=True)
            return path
        Path("runs").mkdir(exist_ok=True)
        number = 1
        while True:
            path = Path("runs") / (f"lab-{lab}" if number == 1 else f"lab-{lab}-{number}")
            try:
                path.mkdir()  # two labs at once: one of them tries the next number
                return path
            except FileExistsError:
                number += 1
    except OSError as error:
        raise LimnerError(f"cannot make the lab's folder: {error.strerror}; choose another out=DIR") from error
