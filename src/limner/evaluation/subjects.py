"""What is evaluated: the model of a run, or the pictures of a folder; and the real images that it is compared with.

Pictures are drawn at random from all of a folder, not taken from its start, where the first class lies. The draw
depends on the number of pictures and a seed alone, so it is the same for a folder and a ZIP of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from limner.config import recipe, run_data
from limner.config.load import load_model
from limner.config.spec import Spec, arguments
from limner.core.batch import Dataset, Images, ImageSet, shuffled
from limner.core.capabilities import Translates
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.paths import shown, user_path
from limner.core.run import Run
from limner.evaluation.draws import asked_labels, counted
from limner.evaluation.rows import combinations
from limner.metrics.scorecard import words

_SEED, _HALVES = 0, 1  # of the draw of pictures, and of that of half of the real ones: they share no order
_BATCH = 256
_LISTED = 10  # files named one by one
_LISTED_BY_NAME = ("bad files", "lie beside")  # words of the notes on files that `left_out` names


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures drawn from a folder.

    Attributes:
        images: (N,C,H,W) uint8, in the order in which they were drawn.
        indices: (N,) their places in the folder.
        of: number of usable pictures in the folder.
        notes: how they were prepared, and what was left out and why.
    """

    images: Tensor
    indices: Tensor
    of: int
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def take(self, n: int) -> Tensor:
        """The first n that were drawn, in the order of the folder."""
        return self.images[self.indices[:n].argsort()]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is evaluated.

    Attributes:
        name: the path, as the user wrote it.
        model: None for a folder.
        pictures: those of a folder, else None.
        run: None for a folder.
        train: training images.
        heldout: images that were not trained on.
        learnt: whether the model was trained on `train`, and not on other data.
        options: sampling options of the model that the user chose.
        notes: sentences on the pictures and the real images that every score should carry.
    """

    name: str
    model: GenerativeModel | None
    pictures: Pictures | None
    run: Run | None
    train: Dataset
    heldout: Dataset
    learnt: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def rows(self, written: Mapping[str, Any]) -> list[Subject]:
        """This subject with each combination of the sampling options that a user wrote (`rows.combinations`).

        Raises:
            LimnerError: it has no such option, or a value is not possible.
        """
        if not written:
            return [self]
        if self.model is None:
            raise LimnerError(f"{self.name} is a folder of pictures, which has no {next(iter(written))}; leave it out")
        chosen = combinations(self.model, written)
        return [replace(self, model=self.model.at(**options), options=options) for options in chosen]

    @property
    def row(self) -> str:
        """The path and the options, as a user would write them."""
        return f"{self.name} {words(self.options)}".rstrip()

    def draw(self, n: int, seed: int) -> Tensor:
        """`n` pictures of the folder, the same for every seed; or samples of the model with `asked_labels`."""
        if self.model is not None:
            return self.model.sample(n, seed=seed, y=asked_labels(self.model, self.heldout, n))
        assert self.pictures is not None
        return self.pictures.take(n)

    def samples(self, n: int) -> str:
        """What `draw` gives, in words."""
        if self.pictures is None:
            return f"{n} samples with {words(self.options)}" if self.options else f"{n} samples"
        return counted(n, self.pictures.of, f"pictures of {_title(self.name)}")


def heldout_of(data: Spec) -> Dataset | None:
    """The test split of the same data; None when there is none, or when it is trained on."""
    if "split" not in arguments(data.kind, data.name) or data.get("split") != "train":
        return None
    settings = {k: v for k, v in data.kwargs.items() if k != "limit"}
    try:
        heldout: Dataset = Spec(data.kind, data.name, settings | {"split": "test"}).build()
    except LimnerError:  # there are too few images for a test split: training continues without scores
        return None
    return heldout


Data = str | Path | dict[str, Any] | None
"""Real images as a user names them: a named set, a path, or a data section of a recipe."""


def load_subjects(
    paths: Sequence[str | Path],
    data: Data,
    which: str,
    n: int,
    device: torch.device | str,
    features: Callable[[Dataset], int],
    all_of_data: bool = False,
    options: Mapping[str, Any] = MappingProxyType({}),
    settings: Iterable[str] = (),
) -> list[Subject]:
    """The runs and folders to evaluate.

    Args:
        paths: run folders, and folders or ZIPs of pictures.
        data: real images to compare with; by default the data that each run was trained on.
        which: checkpoint of a run: latest, best, or its number.
        n: largest number of pictures that are drawn from a folder.
        device: where models are put.
        features: how many features the extractor has that is used for some training images.
        all_of_data: a run needs nothing but images that it was not trained on, so that a folder of other ones is used
            as a whole, unless it has a test split.
        options: sampling options of all models, as a user wrote them; wrong ones are refused before data are read.
        settings: names that a wrong option may be a misspelling of.

    Raises:
        LimnerError: a path is neither, there is no checkpoint, or no real images can be compared with.
    """
    places = [user_path(path, "a run or a folder of pictures") for path in paths]
    runs = [(place / "recipe.yaml").is_file() for place in places]
    real = None if all(runs) else _real_images(places[runs.index(False)], data, not any(runs), features)
    return [
        _load_run(str(path), Run(place), data, which, device, all_of_data, options, settings)
        if is_run or real is None
        else _load_folder(str(path), place, *real, n)
        for path, place, is_run in zip(paths, places, runs, strict=True)
    ]


def _load_run(
    name: str,
    run: Run,
    data: Data,
    which: str,
    device: torch.device | str,
    all_of_data: bool,
    options: Mapping[str, Any],
    settings: Iterable[str],
) -> Subject:
    run.check()  # before hours of measuring, not when the scores are written
    model = load_model(getattr(run, which) if which in ("latest", "best") else run.checkpoints / which, device)
    combinations(model, options, settings)
    trained_on = recipe.of_run(run.recipe).data
    if data is None:
        spec = run_data.located(run, trained_on, "evaluate")
    elif same := run_data.same_elsewhere(run, trained_on, data):
        spec = same
    elif isinstance(model, Translates):
        spec = recipe.of_run(run.recipe, {"data": data}).data  # a path holds pairs or domains, as in training
    else:
        spec = _sized(recipe.data_of(data, model.batch_type), model, trained_on)
    train: Dataset = spec.build()
    learnt, heldout = data is None or _is_learnt(run, train), heldout_of(spec)
    if not learnt and all_of_data and spec.name == "folder" and (heldout is None or _chosen_by_limner(heldout)):
        train = heldout = Spec(spec.kind, spec.name, spec.kwargs | {"split": "all"}).build()
    if heldout is None and learnt:
        raise LimnerError(
            f"{run.name} was trained on all of {train.name}, so nothing is held out to compare with; name other real"
            " images with data=FOLDER"
        )
    if heldout is None:
        raise LimnerError(f"{train.name} has no held-out images to compare with; leave split out, or name other data")
    return Subject(name, model, None, run, train, heldout, learnt, notes=tuple(left_out(train, heldout)))


def _is_learnt(run: Run, train: Dataset) -> bool:
    """Whether a run was trained on these images."""
    try:
        run_data.refuse_others(run, train, train.name)
    except LimnerError:
        return False
    return True


def _sized(spec: Spec, model: GenerativeModel, trained_on: Spec) -> Spec:
    """Real images at the size, with the channels and by the reading of the model's own, unless the user gave others."""
    known = arguments("data", spec.name)
    if "size" not in known or "channels" not in known:
        return spec
    _, c, h, w = model.sample(1, seed=0).shape
    same = {"size": [h, w], "channels": c}
    if "reading" in known and "reading" in trained_on.kwargs:
        spec = Spec("data", spec.name, {"reading": trained_on.kwargs["reading"]} | spec.kwargs)
    return Spec("data", spec.name, spec.kwargs | {k: v for k, v in same.items() if spec.get(k) is None})


def _real_images(
    folder: Path, data: Data, alone: bool, features: Callable[[Dataset], int]
) -> tuple[Dataset, Dataset, list[str]]:
    """Training images, held-out images and notes, for pictures that no run of limner made.

    Where both are the same set, there are too few to halve.

    Args:
        folder: the pictures, for messages.
        data: as the user wrote it.
        alone: only folders are evaluated. A folder without a test split may then be halved, as nothing here was trained
            on either half; beside a run, its own small hold-out is compared with.
        features: as in `load_subjects`.
    """
    if not folder.exists():
        raise LimnerError(f"there is no {folder}; give a run folder, or a folder of pictures with data=NAME")
    if data is None:
        raise LimnerError(f"{folder} is no run folder; to evaluate the pictures in it, name real ones with data=NAME")
    spec = recipe.data_of(data, Images)
    train: Dataset = spec.build()
    heldout = heldout_of(spec)
    if heldout is None:
        raise LimnerError(f"{train.name} has no held-out images to compare with; leave split out, or name other data")
    whole: Dataset | None = None
    if alone and spec.name == "folder" and _chosen_by_limner(heldout):
        whole = Spec(spec.kind, spec.name, spec.kwargs | {"split": "all"}).build()
        order = shuffled(len(whole), _HALVES)
        heldout, train = (Part(whole, sorted(order[k::2])) for k in (0, 1))
        if features(train) >= len(train):
            heldout = train = whole
    notes = preparation(train, ("held out", *_LISTED_BY_NAME)) if spec.name == "folder" else []
    notes += left_out(train, heldout)
    if heldout is train:
        notes.append(
            f"{train.name} has {len(train)} pictures and no test folder, too few to halve: all are compared with, and"
            " none is left to show the best scores possible"
        )
    elif whole is not None:
        notes.append(
            f"{whole.name} has no test folder: {len(heldout)} of its {len(whole):,} pictures, drawn with seed"
            f" {_HALVES}, are compared with, and the other {len(train)} show the best scores possible"
        )
    return train, heldout, notes


def _chosen_by_limner(heldout: Dataset) -> bool:
    """Whether images are held out by a hash, because the folder has no split of its own."""
    return any("held out" in note for note in heldout.notes)


def preparation(dataset: Dataset, without: Sequence[str]) -> list[str]:
    """What was found in a folder and how it was prepared, for the user; leaves out notes with some words."""
    about = [note for note in dataset.notes if not any(words in note for words in (*without, "numbers of the classes"))]
    return [f"{dataset.name}: {note}" for note in about]


def left_out(*datasets: Dataset) -> list[str]:
    """The files that were left out of some sets, with the reasons."""
    bad = {(dataset.name, *file): None for dataset in datasets for file in dataset.quarantine}
    sentences = []
    for name in dict.fromkeys(dataset.name for dataset in datasets):
        files = [(path, reason) for owner, path, reason in bad if owner == name]
        if files:
            listed = ", ".join(f"{shown(path)} ({reason})" for path, reason in files[:_LISTED])
            more = f", and {len(files) - _LISTED} more" if len(files) > _LISTED else ""
            sentences.append(f"{name}: left out {len(files)} bad file{'s' * (len(files) > 1)}: {listed}{more}")
    return sentences


class Part(ImageSet):
    """Some images of a set. Satisfies `limner.core.batch.Dataset`.

    Args:
        whole: the set.
        ids: the indices of the images, ascending.
    """

    pixels: Tensor | None = None

    def __init__(self, whole: Dataset, ids: Sequence[int]) -> None:
        self.whole, self.ids = whole, list(ids)
        self.name, self.shape, self.augment = whole.name, whole.shape, whole.augment
        self.condition, self.notes, self.quarantine = whole.condition, whole.notes, whole.quarantine
        self.labels = None if whole.labels is None else whole.labels[torch.tensor(self.ids)]
        self.texts = None if whole.texts is None else [whole.texts[i] for i in self.ids]
        groups, described = getattr(whole, "groups", None), getattr(whole, "described", None)
        self.groups = None if groups is None else groups[torch.tensor(self.ids)]
        self.described = None if described is None else (described[0], described[1][torch.tensor(self.ids)])

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def fingerprint(self) -> str:
        """That of the whole set, with the indices."""
        return f"{self.whole.fingerprint} {self.ids}"

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Images (B,C,H,W) uint8."""
        return self.whole.fetch([self.ids[int(i)] for i in indices])


def _load_folder(name: str, place: Path, train: Dataset, heldout: Dataset, about: list[str], n: int) -> Subject:
    """Pictures from any source, prepared at the size and with the channels of the real ones."""
    if not place.exists():
        raise LimnerError(f"there is no {place}; give a run folder, or a folder of pictures with data=NAME")
    c, h, w = train.shape
    kwargs = {"path": str(place), "split": "all", "size": [h, w], "channels": c}
    source: Dataset = Spec("data", "folder", kwargs).build()
    pictures = _drawn_pictures(source, n)
    same = f"{source.name} and {train.name} are compared at {h}×{w} pixels with {c} channel{'s' * (c > 1)}"
    return Subject(name, None, pictures, None, train, heldout, notes=(same, *pictures.notes, *about))


def _drawn_pictures(source: Dataset, n: int) -> Pictures:
    """At most n pictures; one that turns out to be unreadable is left out, and the next of the draw takes its place."""
    order, taken, images, first = shuffled(len(source), _SEED), list[int](), list[Tensor](), 0
    paths: list[str] = getattr(source, "paths", None) or []
    while first < len(order) and len(taken) < n:
        ids = order[first : first + min(_BATCH, n - len(taken))]
        first += len(ids)
        x = source.fetch(ids)
        bad = {path for path, _ in source.quarantine}  # a set that is read from files notes them as it meets them
        good = [k for k, i in enumerate(ids) if not (paths and paths[i] in bad)]
        images.append(x[good])
        taken += [ids[k] for k in good]
    unreadable = len({path for path, _ in source.quarantine} & set(paths))
    notes = (*preparation(source, ("held out", *_LISTED_BY_NAME, "to train on", "in neither")), *left_out(source))
    return Pictures(torch.cat(images), torch.tensor(taken), len(source) - unreadable, notes)


def _title(path: str) -> str:
    return Path(path).name or path
