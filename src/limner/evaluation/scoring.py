"""Judging what was trained: the scorecard of runs, and of folders of pictures that came from anywhere.

    import limner
    cards = limner.evaluate("runs/0007-vae-mnist", "runs/0008-dcgan-mnist")
    cards["runs/0007-vae-mnist"]["clipped_density@lenet64-v1[n=4500]"]["value"]

A card goes into the run's ``scores.json``, its report and its model card.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from limner import report
from limner.config import recipe
from limner.config.call import checked
from limner.config.load import load_model
from limner.config.spec import Spec, arguments
from limner.core.batch import Dataset, Images, to_float
from limner.core.capabilities import Translates
from limner.core.device import pick
from limner.core.errors import LimnerError, unknown
from limner.core.frame import drawable
from limner.core.grid import make_grid, save_grid
from limner.core.model import GenerativeModel
from limner.core.progress import Progress, Silent
from limner.core.run import Run
from limner.core.units import Count
from limner.evaluation import properties, translation
from limner.evaluation.capabilities import of_capabilities
from limner.evaluation.real_features import images
from limner.evaluation.reference_set import ReferenceSet
from limner.metrics import scorecard
from limner.metrics.extractors import features, pretrained
from limner.metrics.extractors.features import Extractor
from limner.metrics.paired import Perceptual
from limner.metrics.scorecard import PROPERTIES, Card

_ON_THE_WAY = ("fd", "clipped_density", "clipped_coverage")  # the first one chooses the best checkpoint
_QUICK = 2000  # samples of a score during training and at its end
_SHOWN = 12  # samples beside their nearest training images


@dataclass(frozen=True)
class Subject:
    """What is judged: a model of a run, or the pictures of a folder.

    Attributes:
        name: how the user called it.
        model: None for a folder.
        pictures: (N,C,H,W) uint8 of a folder, else None.
        run: None for a folder.
        train: images that models were trained on.
        heldout: images that they were not.
    """

    name: str
    model: GenerativeModel | None
    pictures: Tensor | None
    run: Run | None
    train: Dataset
    heldout: Dataset


def heldout_of(data: Spec) -> Dataset | None:
    """The test split of the same data; None when there is none, or when training uses it."""
    if "split" not in arguments(data.kind, data.name) or data.get("split") != "train":
        return None
    plain = {k: v for k, v in data.kwargs.items() if k != "limit"}
    try:
        heldout: Dataset = Spec(data.kind, data.name, plain | {"split": "test"}).build()
    except LimnerError:  # too few images to hold any back: training goes on, unscored
        return None
    return heldout


def quick(train: Dataset, heldout: Dataset | None, device: torch.device | str) -> ReferenceSet | None:
    """A judge for scores during training; None where samples cannot be compared with the data."""
    if heldout is None or drawable(train.shape) or train.batch_type is not Images:
        return None
    try:
        return ReferenceSet(train, heldout, n=_QUICK, device=device)
    except LimnerError:  # too few or too small images: training goes on without
        return None


def during_training(judge: ReferenceSet | None, heldout: Dataset | None) -> Callable[[Any], dict[str, float]] | None:
    """What the loop asks every `train.score_images`; None where nothing can be scored.

    Of samples the Fréchet distance, which chooses the best, and two shares; of translations their error.
    """
    if heldout is not None and heldout.batch_type is not Images:
        return translation.on_the_way(heldout)
    if judge is None:
        return None

    def score(model: GenerativeModel) -> dict[str, float]:
        found = judge(model.sample(judge.n, seed=0)).scores
        return {name: found[name] for name in _ON_THE_WAY}

    return score


def at_the_end(
    model: GenerativeModel, train: Dataset, heldout: Dataset, judge: ReferenceSet | None, device: torch.device | str
) -> dict[str, Any]:
    """The scores that training leaves: all that take seconds."""
    if isinstance(model, Translates):
        card = translation.TranslationEvaluator(train, heldout, translation.Effort.at_the_end(heldout)).card(
            model, device
        )
        return {name: score.to_dict() for name, score in card.items()}
    card = of_capabilities(model, heldout, device)
    if judge is not None:
        found, _ = properties.of_images(judge, [0], lambda n, seed: model.sample(n, seed=seed))
        names = {f"{name}{judge.conditions}" for name in _ON_THE_WAY}
        card |= {name: score for name, score in found.items() if name in names}
    return {name: score.to_dict() for name, score in card.items()}


def before_after(run: Run, model: GenerativeModel, train: Dataset, heldout: Dataset) -> None:
    """A translator's held-out pictures beside what it makes of them, into the run's figures; of others nothing."""
    if isinstance(model, Translates):
        rows, columns, names = translation.before_after(model, heldout, train)
        _figure(run, "before-after", rows, columns, f"A row for each held-out picture. Columns: {names}.")


@checked
def evaluate(
    *paths: str | Path,
    n: Annotated[Count, Field(ge=2)] = 10_000,
    seeds: Annotated[Count, Field(ge=1)] = 5,
    only: str | Sequence[str] = tuple(PROPERTIES),
    data: str | Path | dict[str, Any] | None = None,
    extractor: str | None = None,
    weights: str | Path | None = None,
    which: str = "latest",
    likelihood: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """The scorecards of runs, or of folders of pictures, all measured alike.

    Args:
        *paths: run folders; or folders (or ZIPs) of generated pictures, which need `data`.
        n: generated images per comparison, at most as many as there are training images; of translators, held-out
            pictures that are translated.
        seeds: of the noise; intervals come from them. Lower it if sampling is slow. Of translators, how many
            translations of one source are compared for diversity.
        only: properties such as quality,coverage; all of `limner.metrics.scorecard.PROPERTIES` by default.
        data: real images to compare with; default what each run was trained on.
        extractor: ``random`` for features without labels, or one of `limner.metrics.extractors.pretrained.NAMES`; default the
            classifier that knows the data, if there is one, else ``random``, or ``effnet-lite0`` for translators of
            colour pictures.
        weights: a local file for a pretrained extractor.
        which: checkpoint of a run: latest, best, or its number.
        likelihood: ``AIS`` bounds the likelihood of a decoder by annealed importance sampling, with Gaussian noise on
            its pixels: minutes for 50 images. By default only models with a likelihood or a bound have a number.
        device: auto, cpu, cuda or mps.
        progress: who is told.

    Returns:
        For each path the scores by name, as in ``scores.json``.

    Raises:
        LimnerError: no such run, different data, too few images, an unknown property or extractor.
    """
    told, chosen, place = progress or Silent(), _properties(only), pick(device)
    if not paths:
        raise LimnerError("nothing to evaluate; name a run folder, or a folder of pictures with data=NAME")
    if likelihood not in (None, "AIS"):
        raise unknown("likelihood", str(likelihood), ["AIS"])
    subjects = [_subject(path, data, which, place) for path in paths]
    eyes = extractor_for(extractor, weights, place)
    judges = _judges(subjects, n, eyes, place, {"quality", "coverage", "latent", "copying"} & set(chosen))
    cards = {}
    for subject, judge in zip(subjects, judges, strict=True):
        told.say(f"evaluate: {subject.name}")
        if isinstance(subject.model, Translates):
            held = translation.TranslationEvaluator(
                subject.train, subject.heldout, translation.Effort(n, n, seeds=seeds), eyes(subject.train),
                _perceptual(subject.heldout, extractor, weights, place),
            )  # fmt: skip
            cards[subject.name] = _translations(subject, held, chosen)
        else:
            cards[subject.name] = _evaluated(subject, judge, chosen, seeds, place, told, likelihood)
    scorecard.comparable([{k: v for k, v in card.items() if v["value"] is not None} for card in cards.values()])
    return cards


def _evaluated(
    subject: Subject,
    judge: ReferenceSet | str,
    chosen: Sequence[str],
    seeds: int,
    device: torch.device,
    told: Progress,
    likelihood: str | None,
) -> dict[str, Any]:
    """One card, written where it belongs."""
    card: Card = {}
    seen = None
    if isinstance(judge, ReferenceSet):
        draw = _drawing(subject)
        if {"quality", "coverage", "copying"} & set(chosen):
            several = subject.model is not None and bool({"quality", "coverage"} & set(chosen))
            counted = range(seeds if several else 1)
            told.say(f"evaluate: {judge.n} samples, {judge.extractor.key}, seeds: {len(counted)}")
            found, seen = properties.of_images(judge, counted, draw)
            card |= {name: score for name, score in found.items() if score.property in chosen}
            card |= properties.of_first(judge, seen, subject.model, chosen)
        if "copying" in chosen and seen is not None:
            told.say("evaluate: copying")
            card |= properties.of_copies(judge, seen)
    elif {"quality", "coverage"} & set(chosen):
        card |= {k: scorecard.missing(k, judge) for k in ("quality", "coverage") if k in chosen}
    if subject.model is not None:
        card |= properties.of_model(
            subject.model, chosen, subject.train, subject.heldout, judge if isinstance(judge, ReferenceSet) else None, seen,
            device, subject.run, likelihood,
        )  # fmt: skip
    done = _ordered(card)
    if subject.run is not None and isinstance(judge, ReferenceSet) and seen is not None:
        rows, columns = properties.gallery(judge, seen, _SHOWN)
        caption = (
            "A column for each of the samples (top row) that lie nearest to training images, and below it those images,"
            f" nearest first, by {judge.extractor.key}. Rows that look the same are copies."
        )
        _figure(subject.run, "neighbours", to_float(rows), columns, caption)
    if subject.run is not None:
        _write(subject.run, done)
    return done


def _translations(subject: Subject, held: translation.TranslationEvaluator, chosen: Sequence[str]) -> dict[str, Any]:
    """The card of a model that makes pictures of pictures, written where it belongs."""
    model, run = subject.model, subject.run
    assert isinstance(model, Translates)
    assert run is not None
    card = translation.cannot(model.spec.name, chosen)
    if {"quality", "coverage"} & set(chosen):
        card |= held.card(model, model.device)
    if "sampling" in chosen:
        found = properties.of_sampling(translation.Repeated(model, held.heldout), held.train, run)
        card |= {k: replace(score, on=score.on.replace("from noise", "from source")) for k, score in found.items()}
    done = _ordered({name: score for name, score in card.items() if score.property in chosen})
    before_after(run, model, held.train, held.heldout)
    _write(run, done)
    return done


def _perceptual(
    heldout: Dataset, extractor: str | None, weights: str | Path | None, device: torch.device
) -> Perceptual:
    """The distance of features that goes with a choice of an extractor."""
    if extractor == "random":
        return Perceptual.random(heldout.shape[0], device)
    return Perceptual.best(heldout.shape[0], device, weights if extractor == "effnet-lite0" else None)


def _ordered(card: Card) -> dict[str, Any]:
    """Scores as they are written, one property after the other."""
    return {name: score.to_dict() for p in PROPERTIES for name, score in card.items() if score.property == p}


def _figure(run: Run, name: str, x: Tensor, columns: int, caption: str) -> None:
    """Pictures in the run's figures, with their caption."""
    (run.path / "figures").mkdir(exist_ok=True)
    save_grid(make_grid(x, columns), run.path / "figures" / f"{name}.webp")
    captions = run.read_json("figures/captions.json") or {}
    run.write_json("figures/captions.json", captions | {name: caption})


def _write(run: Run, card: dict[str, Any]) -> None:
    """Scores, report and model card of a run."""
    kept = {k: v for k, v in (run.read_json("scores.json") or {}).items() if _kept(k, v, card)}
    run.write_json("scores.json", kept | card)
    report.write_card(run.path, report.about(run.recipe["model"]["name"]))
    report.write(run.path)


def _kept(name: str, old: Any, card: dict[str, Any]) -> bool:
    """Whether a score of before stays beside a new card: not one of a property that was measured anew."""
    measured = {score.get("property") for score in card.values()}
    return isinstance(old, dict) and old.get("property") not in measured and name not in card


def _properties(names: str | Sequence[str]) -> list[str]:
    words = [w.strip() for w in (names.split(",") if isinstance(names, str) else names)]
    for word in words:
        if word not in PROPERTIES:
            raise unknown("property", word, PROPERTIES)
    return [p for p in PROPERTIES if p in words]


def _subject(path: str | Path, data: str | Path | dict[str, Any] | None, which: str, device: torch.device) -> Subject:
    place = Path(path)
    if not (place / "recipe.yaml").is_file():
        return _folder(place, data)
    run = Run(place)
    folder = {"latest": lambda: run.latest, "best": lambda: run.best}.get(which, lambda: run.checkpoints / which)()
    model = load_model(folder, device)
    told = dict(run.recipe["data"])
    if data is not None and isinstance(model, Translates):
        spec = recipe.load(run.recipe, {"data": data}).data  # a path is of pairs or of domains, as in training
    else:
        spec = Spec.parse("data", told) if data is None else _data(data, told)
    train: Dataset = spec.build()
    heldout = heldout_of(spec)
    if heldout is None:
        raise LimnerError(
            f"{run.name} was trained on all of {train.name}, so nothing is held out to compare with; name other real"
            " images with data=FOLDER"
        )
    return Subject(str(path), model, None, run, train, heldout)


def _data(data: str | Path | dict[str, Any], told: dict[str, Any]) -> Spec:
    """Real images named by the user, at the size that the run's images have."""
    spec = Spec.parse("data", data if isinstance(data, dict) else str(data))
    known = arguments("data", spec.name)
    same = {k: told[k] for k in ("size", "channels") if k in known and told.get(k) is not None and spec.get(k) is None}
    return Spec("data", spec.name, spec.kwargs | same)


def _folder(place: Path, data: str | Path | dict[str, Any] | None) -> Subject:
    """Pictures that came from anywhere, made as large as the real ones."""
    if not place.exists():
        raise LimnerError(f"there is no {place}; give a run folder, or a folder of pictures with data=NAME")
    if data is None:
        raise LimnerError(f"{place} is no run folder; to judge the pictures in it, name real ones with data=NAME")
    spec = Spec.parse("data", data if isinstance(data, dict) else str(data))
    train: Dataset = spec.build()
    heldout = heldout_of(spec)
    if heldout is None:
        raise LimnerError(f"{train.name} holds no images back to compare with; leave split out")
    c, h, w = train.shape
    made: Dataset = Spec("data", "folder", {"path": str(place), "split": "all", "size": [h, w], "channels": c}).build()
    return Subject(str(place), None, images(made)[0], None, train, heldout)


ExtractorFor = Callable[[Dataset], Extractor | None]
"""The extractor for what models were trained on; None leaves the choice to the judge."""


def extractor_for(extractor: str | None, weights: str | Path | None, device: torch.device) -> ExtractorFor:
    """What a user's choice of an extractor means for each set of training images.

    Raises:
        LimnerError: an unknown extractor, a missing extra or missing weights.
    """
    if extractor in (None, "auto"):
        return lambda train: None
    if extractor == "random":
        return lambda train: features.fitted(train, device)
    if extractor not in pretrained.NAMES:
        raise unknown("extractor", str(extractor), ["auto", "random", *pretrained.NAMES])
    found = pretrained.pretrained(str(extractor), device, weights)
    return lambda train: found


def _judges(
    subjects: Sequence[Subject], n: int, eyes: ExtractorFor, device: torch.device, wanted: set[str]
) -> list[ReferenceSet | str]:
    """A judge for each subject, shared where the training data are; or why there is none.

    Raises:
        LimnerError: held-out images differ between subjects.
    """
    hashes = [_content(s.heldout) for s in subjects]
    for other, content in zip(subjects[1:], hashes[1:], strict=True):
        if content != hashes[0]:
            raise LimnerError(
                f"{subjects[0].name} and {other.name} have different data ({_named(subjects[0].heldout)} and"
                f" {_named(other.heldout)}), so their scores do not compare; name one for both with data=NAME, or"
                " evaluate them one at a time"
            )
    made: dict[str, ReferenceSet | str] = {}
    found = []
    for subject in subjects:
        if isinstance(subject.model, Translates):
            found.append("translations are held against their targets")
            continue
        there = n if subject.pictures is None else min(n, len(subject.pictures))
        key = f"{_content(subject.train)} {there}"
        if key not in made:
            made[key] = _judge(subject, there, eyes, device) if wanted else ""
        found.append(made[key])
    return found


def _judge(subject: Subject, n: int, eyes: ExtractorFor, device: torch.device) -> ReferenceSet | str:
    if drawable(subject.train.shape):
        return "these are points, not images; their modes are counted instead"
    return ReferenceSet(subject.train, subject.heldout, n=n, extractor=eyes(subject.train), device=device)


def _drawing(subject: Subject) -> Any:
    if subject.pictures is not None:
        pictures = subject.pictures
        return lambda n, seed: pictures[:n]
    model = subject.model
    assert model is not None
    return lambda n, seed: model.sample(n, seed=seed)


def _content(dataset: Dataset) -> str:
    """What a set holds, however it was asked for."""
    parts = dataset.parts()
    if len(parts) > 1 or parts[0] is not dataset:
        return " ".join([*map(_content, parts), repr(sorted(dataset.facts().items(), key=str))])
    x, _ = images(dataset)
    return hashlib.sha256(repr(tuple(x.shape)).encode() + x.numpy().tobytes()).hexdigest()


def _named(dataset: Dataset) -> str:
    c, h, w = dataset.shape
    return f"{dataset.name}, {len(dataset)} of {c}×{h}×{w}"


def table(cards: dict[str, dict[str, Any]]) -> str:
    """Cards side by side for a terminal: a line for each score, a column for each run."""
    names = list(cards)
    labels = [Path(name).name for name in names]
    rows: list[list[str]] = [["", *labels]]
    for key, title in PROPERTIES.items():
        own = list(dict.fromkeys(k for card in cards.values() for k, s in card.items() if s.get("property") == key))
        if not own:
            continue
        rows.append([title, *[""] * len(names)])
        for k in own:
            cells = [_cell(card.get(k)) for card in cards.values()]
            rows.append([f"  {k}", *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(names) + 1)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    whys = _whys(cards)
    return "\n".join([*lines, *whys])


def _cell(score: dict[str, Any] | None) -> str:
    if score is None:
        return "–"
    value = score["value"]
    if value is None:
        return "n/a"
    if isinstance(value, str):
        return value
    error = f" ± {score['error']:.2g}" if score.get("error") else ""
    unit = f" {score['unit']}" if score.get("unit") else ""
    norm = f"  ({100 * score['norm']:.0f} %)" if score.get("norm") is not None else ""
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{number}{error}{unit}{norm}"


def _whys(cards: dict[str, dict[str, Any]]) -> Iterable[str]:
    said = dict.fromkeys(
        f"n/a: {score['why']}" for card in cards.values() for score in card.values() if score.get("why")
    )
    return ["", *said] if said else []
