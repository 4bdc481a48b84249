"""The bench of a lab: its folder, its trainings and its page."""

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
from limner.core.capabilities import Reconstructs
from limner.core.durable import replace_file
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.paths import BUILTIN, user_path
from limner.core.progress import Progress, Silent
from limner.core.run import Run, relative
from limner.core.units import clock
from limner.labs import _figures
from limner.report import Check, Figure, Section, Table

_SHAPE = (1, 28, 28)  # the input of the lectures' nets
_MAX_SCORED = 5000  # images of a larger set that are encoded and scored; trainings use all of them


@dataclass(frozen=True)
class Claim:
    """A statement of the lecture, what was measured, and whether the statement holds here."""

    claim: str
    measured: str
    holds: bool


@dataclass(frozen=True)
class LabelledImages:
    """Images x (N,1,28,28) in [-1,1], their classes y (N,) and the names of the classes."""

    x: Tensor
    y: Tensor
    classes: list[str]

    def __len__(self) -> int:
        return len(self.x)

    def evenly_spaced(self, n: int) -> LabelledImages:
        """At most n of the images, at evenly spaced positions of the set."""
        indices = spaced_indices(len(self), n)
        return LabelledImages(self.x[indices], self.y[indices], self.classes)

    def first_of_each_class(self) -> LabelledImages:
        """The first image of each of the first ten classes that occur."""
        indices = torch.stack([(self.y == c).nonzero()[0, 0] for c in self.y.unique()[:10]])
        return LabelledImages(self.x[indices], self.y[indices], self.classes)


def spaced_indices(total: int, n: int) -> Tensor:
    """At most n evenly spaced indices into a set of `total` items, as int64."""
    return torch.linspace(0, total - 1, min(n, total)).round().long()


class Bench:
    """The workplace of one lab: it trains, collects results, and writes the page.

    Args:
        lab: name of the lab.
        title: heading of its page.
        images: number of images that each training sees, unless it says otherwise; None for a lab without images.
        data: a named set, a path, or a mapping with options of the source.
        seed: seed of every training and measurement; None for a lab that uses no random numbers.
        out: the folder; default ``runs/lab-NAME``, numbered if that exists.
        progress: receives the progress of trainings and messages.
        own_data: the data of a lab that needs others than labelled grey images of 28×28, in place of `data`.
        **options: settings of this lab alone.

    Attributes:
        options: settings of this lab alone.
        train_set: images of the training split (at most 5,000), unless the lab has data of its own.
        test_set: held-out images (at most 5,000), likewise.

    Raises:
        LimnerError: the folder is in use, the data are not labelled grey images of 28×28, or the lab's own need an
            extra that is not installed.
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
        own_data: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.lab, self.title, self.images, self.seed, self.options = lab, title, images or 0, seed or 0, options
        self.seed_setting = {"seed": seed} if seed is not None else {}
        self.data, self.has_own_data = recipe.data_section(own_data or data), own_data is not None
        self.progress = progress or Silent()
        self.started = time.monotonic()
        if self.has_own_data:
            self.dataset("train")  # says what is not installed, before there is a folder
        elif images:
            self.train_set, self.test_set = self._load_images("train"), self._load_images("test")
        self.out = _folder(lab, out)
        self.runs: dict[str, Run] = {}
        self.sections: list[Section] = []
        self.claims: list[Claim] = []
        self.figures: dict[str, Path] = {}
        self.results: dict[str, Any] = {}

    # -- data and trainings --------------------------------------------------------------------------------

    def dataset(self, split: str, data: Mapping[str, Any] | None = None, **options: Any) -> Dataset:
        """A split of the lab's data, or of other data."""
        source = recipe.load("builtin:ae-mnist", {"data": dict(data or self.data) | options}).data
        dataset: Dataset = Spec(source.kind, source.name, source.kwargs | {"split": split}).build()
        return dataset

    def pixels(self, split: str, data: Mapping[str, Any], limit: int = 500, **options: Any) -> Tensor:
        """Images (N,C,H,W) in [-1,1] of other data, such as a model was not trained on."""
        dataset = self.dataset(split, data, **options)
        return to_float(dataset.fetch(spaced_indices(len(dataset), limit).tolist()))

    def _load_images(self, split: str) -> LabelledImages:
        dataset = self.dataset(split)
        if tuple(dataset.shape) != _SHAPE or dataset.labels is None or not dataset.classes:
            description = "×".join(map(str, dataset.shape)) + ("" if dataset.classes else " without labels")
            raise LimnerError(
                f"lab {self.lab} needs labelled grey images of 28×28, but {dataset.name} has {description};"
                " use mnist-5k, mnist, kmnist or fashion-mnist, or data={name: …, size: 28, channels: 1}"
            )
        indices = spaced_indices(len(dataset), _MAX_SCORED)
        return LabelledImages(to_float(dataset.fetch(indices.tolist())), dataset.labels[indices], dataset.classes)

    def train(
        self,
        label: str,
        name: str,
        changes: Mapping[str, Any] | None = None,
        *,
        images: int | None = None,
        without: Sequence[str] = (),
    ) -> GenerativeModel:
        """Trains a recipe into the folder ``runs/LABEL`` of the lab, and returns the model on the CPU, ready to use.

        Args:
            label: name of the run.
            name: name of the recipe.
            changes: keys of the recipe, dotted or bare, and their values.
            images: number of images that it sees; default the lab's.
            without: classes to leave out.
        """
        self.progress.say(f"lab {self.lab}: training {label}")
        data = self.data | ({"without": list(without)} if without else {})
        settings = {"data": data, "train.seed": self.seed, "train.images": images or self.images} | dict(changes or {})
        run = api.train(f"{BUILTIN}{name}", out=self.out / "runs" / label, progress=self.progress, **settings)
        self.runs[label] = run
        return api.load(run.latest)

    # -- what goes on the page -----------------------------------------------------------------------------

    def figure(self, name: str, image: Plot | Image.Image, caption: str, alt: str) -> Figure:
        """Saves ``figures/NAME.png`` and returns it with its caption, for a section."""
        path = self.out / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        _figures.save(image, path)
        self.figures[name] = path
        return Figure(path, caption, alt)

    def section(
        self, title: str, text: str = "", *figures: Figure, table: Table | None = None, checks: Sequence[Check] = ()
    ) -> None:
        """Adds a section to the page."""
        self.sections.append(Section(title, text, figures, table, checks))

    def claim(self, claim: str, measured: str, holds: bool) -> None:
        """Records a statement of the lecture beside what was measured."""
        self.claims.append(Claim(claim, measured, bool(holds)))

    def finish(self) -> dict[str, Any]:
        """Writes ``index.html`` and ``results.json``, and returns the result of `limner.labs.run`."""
        if self.claims:
            rows = [(c.claim, c.measured, c.holds) for c in self.claims]
            self.section(
                "What the lecture says, measured",
                "These are statements rather than numbers. Whether one holds can depend on the length of the training.",
                table=Table(("statement", "measured here", "holds"), rows),
            )
        self.section("How this was made", self._how_made(), table=self._runs() if self.runs else None)
        checks = [c for s in self.sections for c in s.checks]
        seconds = round(time.monotonic() - self.started, 1)
        content = {
            "lab": self.lab,
            "settings": self._settings(),
            "seconds": seconds,
            "checks": [asdict(c) for c in checks],
            "claims": [asdict(c) for c in self.claims],
            "results": self.results,
        }
        replace_file(
            self.out / "results.json",
            (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(errors="backslashreplace"),
        )
        page = report.write_page(self.out / "index.html", self.title, self.sections)
        return content | {
            "page": relative(page),
            "run": [relative(run.path) for run in self.runs.values()],
            "figures": {name: relative(path) for name, path in self.figures.items()},
        }

    def _settings(self) -> dict[str, Any]:
        images = {"images": self.images} if self.images else {}
        if self.images and not self.has_own_data:
            images |= {"data": self.data}
        return images | self.seed_setting | self.options

    def _how_made(self) -> str:
        settings = {k: v for k, v in self._settings().items() if v != {"name": "mnist-5k"}}
        values = {k: (json.dumps(v) if len(v) > 1 else v["name"]) if k == "data" else v for k, v in settings.items()}
        command = " ".join([f"limner lab {self.lab}", *(f"{k}={v}" for k, v in values.items())])
        text = f"{command} makes this page again, in {clock(time.monotonic() - self.started)} here."
        runs = " Each training is a whole run with a report of its own, in the folder runs beside this page."
        return text + (runs if self.runs else "")

    def _runs(self) -> Table:
        rows: list[tuple[object, ...]] = []
        for label, run in self.runs.items():
            last_line = (run.metrics() or [{}])[-1]
            scores = run.read_json("scores.json") or {}
            known = {n: s["value"] for n, s in scores.items() if s.get("value") is not None}
            text = "; ".join(f"{n.replace('_', ' ')} {value:.4g}" for n, value in known.items())
            rows.append(
                (label, str(run.recipe["name"]), last_line.get("images"), last_line.get("seconds"), text or "–")
            )
        return Table(("run", "recipe", "images seen", "seconds", "scores on held-out images"), rows)


@torch.inference_mode()
def encode(model: GenerativeModel, x: Tensor, y: Tensor | None = None) -> Tensor:
    """Codes of images (N,C,H,W) of classes y (N,)."""
    assert isinstance(model, Reconstructs)
    return model.encode(x, y)


@torch.inference_mode()
def decode(model: GenerativeModel, z: Tensor, y: Tensor | None = None) -> Tensor:
    """Images (N,C,H,W) of codes of classes y (N,)."""
    assert isinstance(model, Reconstructs)
    return model.decode(z, y)


def check(name: str, expected: object, measured: object, ok: bool | None = None) -> Check:
    """Compares a number of the lecture with ours: they must be equal, unless `ok` gives the verdict."""
    return Check(name, expected, measured, expected == measured if ok is None else bool(ok))


def check_close(name: str, expected: float, measured: float, tolerance: float, digits: int = 6) -> Check:
    """Compares two numbers, which may differ by less than `tolerance`; the page shows so many digits of them."""
    ok = abs(measured - expected) < tolerance
    return Check(name, f"{expected:.{digits}f}", f"{measured:.{digits}f}", ok)


def _folder(lab: str, out: str | Path | None) -> Path:
    """The lab's folder: `out`, which must be empty or new, or the next free ``runs/lab-NAME``."""
    try:
        if out is not None:
            path = user_path(out, "a folder")
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise LimnerError(f"{path} exists and is not an empty folder; choose another out=DIR")
            path.mkdir(parents=True, exist_ok=True)
            return path
        Path("runs").mkdir(exist_ok=True)
        number = 1
        while True:
            path = Path("runs") / (f"lab-{lab}" if number == 1 else f"lab-{lab}-{number}")
            try:
                path.mkdir()  # if two labs start at once, one of them tries the next number
                return path
            except FileExistsError:
                number += 1
    except OSError as error:
        raise LimnerError(f"cannot make the lab's folder: {error.strerror}; choose another out=DIR") from error
