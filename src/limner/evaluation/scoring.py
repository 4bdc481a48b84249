"""Scorecards of runs, and of folders of generated images from any source.

    import limner
    cards = limner.evaluate("runs/0007-vae-mnist", "runs/0008-dcgan-mnist")
    cards["runs/0007-vae-mnist"]["clipped_density@lenet64-v1[n=4500]"]["value"]

The card of a run is written to its ``scores.json``, its report and its model card. Sampling options make further cards,
whose scores have the options in their names:

    cards = limner.evaluate("runs/0012-edm-mnist", steps=[1, 5, 20])
    cards["runs/0012-edm-mnist steps=5"]["fd@lenet64-v1[n=4500,steps=5]"]["value"]
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from limner import report
from limner.config import recipe
from limner.config.call import checked
from limner.core.batch import KINDS, Dataset, Images, to_float, to_uint8
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
from limner.evaluation.capabilities import capability_scores, sampled_domain
from limner.evaluation.cost import FULL, SLOW, Effort, is_slow
from limner.evaluation.draws import batches
from limner.evaluation.reference_set import ReferenceSet
from limner.evaluation.subjects import Data, Subject, load_subjects
from limner.evaluation.translation import TranslationEvaluator
from limner.metrics import scorecard
from limner.metrics.extractors import features, pretrained
from limner.metrics.extractors.features import Extractor
from limner.metrics.paired import Perceptual
from limner.metrics.scorecard import PROPERTIES, Card, Score
from limner.report.words import aligned

_TRAINING_SCORES = ("fd", "clipped_density", "clipped_coverage")  # the first one selects the best checkpoint
_GALLERY_COLUMNS = 12
_ROWS = ("sampling", "quality", "coverage")
"""The properties that are measured by default for several rows of sampling options."""
_COLUMNS = (
    "evaluations", "throughput", "fd", "clipped_density", "clipped_coverage", "interpolation", "mig", "bits_per_dim",
    "copying",
)  # fmt: skip
"""The scores in the table of such rows."""


def training_reference(
    model: GenerativeModel, train: Dataset, heldout: Dataset | None, device: torch.device | str
) -> ReferenceSet | None:
    """The reference for scores during training; None where samples cannot be compared with the data."""
    if heldout is None:
        return None
    train, heldout = sampled_domain(model, train), sampled_domain(model, heldout)
    try:
        return ReferenceSet(train, heldout, n=effort_for([model]).training_samples, device=device)
    except LimnerError:  # these are no images, or too few or too small ones: training continues without scores
        return None


def effort_for(models: Iterable[GenerativeModel]) -> Effort:
    """The same effort for all of some models, that of the slowest."""
    return SLOW if any(is_slow(model) for model in models) else FULL


def during_training(
    reference: ReferenceSet | None, heldout: Dataset | None
) -> Callable[[Any], dict[str, float]] | None:
    """The function that scores a model every `train.score_images`; None where nothing can be scored.

    It gives the Fréchet distance of samples, which selects the best checkpoint, and their clipped density and
    coverage; of a translator, it gives the error of its translations.
    """
    scorer = None if heldout is None else translation.training_scorer(heldout)
    if scorer is not None or reference is None:
        return scorer

    def score(model: GenerativeModel) -> dict[str, float]:
        scores = reference(model.sample(reference.n, seed=0)).scores
        return {name: scores[name] for name in _TRAINING_SCORES}

    return score


def final_scores(
    model: GenerativeModel, train: Dataset, heldout: Dataset, reference: ReferenceSet | None, device: torch.device | str
) -> dict[str, Any]:
    """The scores that are written at the end of a training: those that take seconds."""
    if isinstance(model, Translates):
        effort = translation.Effort.for_training(heldout)
        card = TranslationEvaluator(train, heldout, effort).card(model, device)
    else:
        card = capability_scores(model, heldout, device)
        if reference is not None:
            samples, _ = properties.image_scores(reference, [0], lambda n, seed: model.sample(n, seed=seed))
            names = {f"{name}{reference.conditions}" for name in _TRAINING_SCORES}
            card |= {name: score for name, score in samples.items() if name in names}
    return {name: score.to_dict() for name, score in card.items()}


def before_after(run: Run, model: GenerativeModel, train: Dataset, heldout: Dataset) -> None:
    """Saves held-out images and their translations as a figure of the run; does nothing for other models."""
    if isinstance(model, Translates):
        rows, columns, names = translation.before_after(model, heldout, train)
        _save_figure(run, "before-after", rows, columns, f"A row for each held-out picture. Columns: {names}.")


@checked
def evaluate(
    *paths: str | Path,
    n: Annotated[Count, Field(ge=2)] = 10_000,
    seeds: Annotated[Count, Field(ge=1)] = 5,
    only: str | Sequence[str] | None = None,
    data: Data = None,
    extractor: str | None = None,
    weights: str | Path | None = None,
    which: str = "latest",
    likelihood: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, dict[str, Any]]:
    """The scorecards of runs, or of folders of pictures, all measured in the same way.

    Sampling options of the models may be given, too: ``steps=1,5,20`` makes three rows, one for each value, and several
    such lists a row for each combination.

    Args:
        *paths: run folders; or folders (or ZIPs) of generated pictures, for which `data` has to be given.
        n: generated images per comparison, at most as many as there are training images; for translators, the number
            of held-out pictures that are translated.
        seeds: number of seeds of the noise, from which intervals are computed. Lower it if sampling is slow. For
            translators, the number of translations of one source that are compared for diversity.
        only: properties, separated by commas: sampling, quality, coverage, latent, disentangled, likelihood, copying.
            By default all, or sampling, quality and coverage where lists of sampling options make several rows.
        data: real images to compare with: a named set, or a folder or ZIP; by default the data that each run was
            trained on.
        extractor: the net whose features are compared: auto, random (needs no labels), effnet-lite0, inception or
            dinov2. By default (auto) the classifier for the data if there is one, effnet-lite0 for translators of
            colour pictures, else random.
        weights: a local file with the weights of effnet-lite0 or inception.
        which: checkpoint of a run: latest, best, or its number.
        likelihood: AIS estimates the likelihood of a decoder by annealed importance sampling, with Gaussian noise on
            its pixels, and takes minutes for 50 images. ODE adds that of the flow of a diffusion model to its bound,
            and takes minutes for 64 images. By default only models with a likelihood or a bound have one.
        device: auto, cpu, cuda or mps.
        progress: receives messages on the progress.
        **options: sampling options of the model, one value or several with commas, such as steps=1,5,20,50,
            sampler=heun or guidance=2 of a diffusion model, temperature=0.8 of a flow and truncation=0.7 of a model
            that decodes noise; limner sample RUN takes the same.

    Returns:
        For each path, with the sampling options that were given (``runs/mine steps=5``), the scores by name, as in
        ``scores.json``.

    Raises:
        LimnerError: there is no such run, data differ, there are too few images, or a property, an extractor or an
            option is unknown.
    """
    progress, torch_device = progress or Silent(), pick(device)
    selected = None if only is None else _parse_properties(only)
    if not paths:
        raise LimnerError("there is nothing to evaluate; name a run folder, or a folder of pictures with data=NAME")
    if likelihood not in (None, "AIS", "ODE"):
        raise unknown("likelihood", str(likelihood), ["AIS", "ODE"])
    choose = extractor_for(extractor, weights, torch_device)

    def number_of_features(train: Dataset) -> int:
        return (choose(train) or features.fitted(train, torch_device)).dims

    settings = inspect.signature(evaluate).parameters
    subjects = load_subjects(
        paths, data, which, n, torch_device, number_of_features, selected == ["likelihood"], options, settings
    )
    rows = [subject.rows(options) for subject in subjects]
    if selected is None:
        selected = [*PROPERTIES] if all(len(own) == 1 for own in rows) else [*_ROWS]
    _refuse_different_data(subjects)
    compares = bool({"quality", "coverage", "latent", "copying"} & set(selected))
    references = _references(subjects, n, choose, torch_device) if compares else [None] * len(subjects)
    effort = effort_for(row.model for own in rows for row in own if row.model is not None)
    cards = {}
    for subject, reference in [(row, ref) for own, ref in zip(rows, references, strict=True) for row in own]:
        progress.say(f"evaluate: {subject.row}")
        if isinstance(subject.model, Translates):
            evaluator = TranslationEvaluator(
                subject.train, subject.heldout, translation.Effort(n, n, seeds=seeds), choose(subject.train),
                _perceptual(subject.heldout, extractor, weights, torch_device),
            )  # fmt: skip
            cards[subject.name] = _evaluate_translator(subject, evaluator, selected)
        else:
            cards[subject.row] = _evaluate_images(
                subject, reference, selected, seeds, torch_device, progress, likelihood, effort
            )  # fmt: skip
    scorecard.comparable([_plain({k: v for k, v in card.items() if v["value"] is not None}) for card in cards.values()])
    return cards


def _evaluate_images(
    subject: Subject,
    reference: ReferenceSet | None,
    selected: Sequence[str],
    seeds: int,
    device: torch.device,
    progress: Progress,
    likelihood: str | None,
    effort: Effort,
) -> dict[str, Any]:
    """The card of a model that draws images, or of a folder; for a run, it is written too."""
    card: Card = {}
    scored = None
    if reference is None:
        why = (
            "these are points, not images; their modes are counted instead"
            if subject.train.batch_type is Images
            else f"samples are compared with images alone, and {subject.train.name} has"
            f" {KINDS[subject.train.batch_type].contents}"
        )
        card |= {k: scorecard.missing(k, why) for k in ("quality", "coverage") if k in selected}
    elif {"quality", "coverage", "copying"} & set(selected):
        several = subject.model is not None and bool({"quality", "coverage"} & set(selected))
        n_seeds = seeds if several else 1
        progress.say(f"evaluate: {reference.n} samples, {reference.extractor.key}, seeds: {n_seeds}")
        samples, scored = properties.image_scores(reference, range(n_seeds), subject.draw)
        card |= scorecard.select(samples, selected)
        card |= properties.first_seed_scores(reference, scored, subject.model, subject.heldout, selected)
        if "copying" in selected:
            progress.say("evaluate: copying")
            card |= properties.copying_scores(reference, scored)
    if reference is not None:
        card = {name: _with_conditions(score, subject, reference.n) for name, score in card.items()}
    if subject.model is not None:
        card |= properties.model_scores(
            subject.model, selected, subject.train, subject.heldout, reference, scored, device, subject.run, likelihood,
            subject.learnt, effort,
        )  # fmt: skip
    if subject.model is not None and subject.options and "sampling" not in selected:
        card |= properties.evaluation_scores(subject.model)
    scores = _by_property(
        {
            scorecard.named(name, subject.options): replace(score, options=subject.options)
            for name, score in card.items()
        }
    )
    if subject.run is not None:
        if reference is not None and scored is not None and not subject.options:
            rows, columns = properties.gallery(reference, scored, _GALLERY_COLUMNS)
            caption = (
                "A column for each of the samples (top row) that lie nearest to training images, and below it those"
                f" images, nearest first, by {reference.extractor.key}. Rows that look the same are copies."
            )
            _save_figure(subject.run, "neighbours", to_float(rows), columns, caption)
        _write_scores(subject.run, scores, selected, subject.options)
    return scores


def _with_conditions(score: Score, subject: Subject, n: int) -> Score:
    """A score of images, with what was drawn, prepared and left out."""
    on = score.on.replace(f"{n} samples", subject.samples(n))
    of = None if subject.pictures is None else subject.pictures.of
    return replace(score, on=on, drawn=None if of is None else n, of=of, notes=subject.notes)


def _evaluate_translator(subject: Subject, evaluator: TranslationEvaluator, selected: Sequence[str]) -> dict[str, Any]:
    """The card of a model that translates images, which is also written to its run."""
    model, run = subject.model, subject.run
    assert isinstance(model, Translates)
    assert run is not None
    card = translation.missing_scores(model.spec.name, selected)
    if {"quality", "coverage"} & set(selected):
        compared = evaluator.card(model, model.device)
        card |= {name: replace(score, notes=subject.notes) for name, score in compared.items()}
    if "sampling" in selected:
        costs = properties.sampling_scores(translation.Repeated(model, evaluator.heldout), evaluator.train, run)
        card |= {k: replace(score, on=score.on.replace("from noise", "from source")) for k, score in costs.items()}
    scores = _by_property(scorecard.select(card, selected))
    before_after(run, model, evaluator.train, evaluator.heldout)
    _write_scores(run, scores, selected)
    return scores


def _perceptual(
    heldout: Dataset, extractor: str | None, weights: str | Path | None, device: torch.device
) -> Perceptual:
    """The perceptual distance that belongs to the user's choice of an extractor."""
    if extractor == "random":
        return Perceptual.random(heldout.shape[0], device)
    return Perceptual.best(heldout.shape[0], device, weights if extractor == "effnet-lite0" else None)


def _by_property(card: Card) -> dict[str, Any]:
    """Scores as they are written, ordered by property."""
    return {name: score.to_dict() for p in PROPERTIES for name, score in card.items() if score.property == p}


def _save_figure(run: Run, name: str, x: Tensor, columns: int, caption: str) -> None:
    (run.path / "figures").mkdir(exist_ok=True)
    save_grid(make_grid(x, columns), run.path / "figures" / f"{name}.webp")
    captions = run.read_json("figures/captions.json") or {}
    run.write_json("figures/captions.json", captions | {name: caption})


def _write_scores(
    run: Run, card: dict[str, Any], measured: Sequence[str], options: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Writes scores, report and model card of a run.

    Older scores are kept, except those of the measured properties with the same options.
    """
    chosen = _written(options)
    older = {
        name: score
        for name, score in (run.read_json("scores.json") or {}).items()
        if isinstance(score, dict)
        and (score.get("property") not in measured or _written(score.get("options") or {}) != chosen)
    }
    run.write_json("scores.json", older | card)
    report.write_card(run.path, report.about(recipe.of_run(run.recipe).model.name))
    report.write(run.path)


def _written(options: Any) -> str:
    return scorecard.words(options) if isinstance(options, Mapping) else ""


def _parse_properties(names: str | Sequence[str]) -> list[str]:
    words = [w.strip() for w in (names.split(",") if isinstance(names, str) else names)]
    for word in words:
        if word not in PROPERTIES:
            raise unknown("property", word, PROPERTIES)
    return [p for p in PROPERTIES if p in words]


ExtractorFor = Callable[[Dataset], Extractor | None]
"""Gives the extractor for a set of training images; None stands for the default."""


def extractor_for(extractor: str | None, weights: str | Path | None, device: torch.device) -> ExtractorFor:
    """The function that gives the extractor of the user's choice for a set of training images.

    Raises:
        LimnerError: the extractor is unknown, or its extra or its weights are missing.
    """
    if extractor in (None, "auto"):
        return lambda train: None
    if extractor == "random":
        return lambda train: features.fitted(train, device)
    if extractor not in pretrained.NAMES:
        raise unknown("extractor", str(extractor), ["auto", "random", *pretrained.NAMES])
    net = pretrained.pretrained(str(extractor), device, weights)
    return lambda train: net


def _refuse_different_data(subjects: Sequence[Subject]) -> None:
    """Raises where held-out images differ between subjects."""
    if len(subjects) == 1:
        return
    first = _content_hash(subjects[0].heldout)
    for other in subjects[1:]:
        if _content_hash(other.heldout) != first:
            raise LimnerError(
                f"{subjects[0].name} and {other.name} have different data ({_describe(subjects[0].heldout)} and"
                f" {_describe(other.heldout)}), so their scores cannot be compared; name one for both with data=NAME,"
                " or evaluate them one at a time"
            )


def _references(
    subjects: Sequence[Subject], n: int, choose: ExtractorFor, device: torch.device
) -> list[ReferenceSet | None]:
    """The reference set of each subject, shared between equal training data; None for points, translators and domains.

    All of them compare the same number of images: at most n, and as many as every subject has.
    """
    train = {id(s): sampled_domain(s.model, s.train) for s in subjects}
    scored = [
        s
        for s in subjects
        if (s.model is None or train[id(s)].batch_type is Images)
        and not (drawable(s.train.shape) or isinstance(s.model, Translates))
    ]
    sizes = [len(train[id(s)]) for s in scored]
    count = min([n, *sizes, *(len(s.pictures) for s in scored if s.pictures is not None)])
    references: dict[str, ReferenceSet] = {}
    result: list[ReferenceSet | None] = []
    for subject in subjects:
        if subject not in scored:
            result.append(None)
            continue
        real, heldout = train[id(subject)], sampled_domain(subject.model, subject.heldout)
        key = "" if len(scored) == 1 else _content_hash(real)
        if key not in references:
            references[key] = ReferenceSet(real, heldout, n=count, extractor=choose(real), device=device)
        result.append(references[key])
    return result


def _content_hash(dataset: Dataset) -> str:
    """A hash of the images of a set; equal for equal images, whatever the name and the settings of the set."""
    parts = dataset.parts()
    if len(parts) > 1 or parts[0] is not dataset:
        return " ".join([*map(_content_hash, parts), repr(sorted(dataset.facts().items(), key=str))])
    digest = hashlib.sha256(repr((len(dataset), *dataset.shape)).encode())
    for x, _, _ in batches(dataset, len(dataset), 500, "cpu"):
        digest.update(to_uint8(x).numpy().tobytes())
    return digest.hexdigest()


def _describe(dataset: Dataset) -> str:
    c, h, w = dataset.shape
    return f"{dataset.name}, {len(dataset)} of {c}×{h}×{w}"


def table(cards: dict[str, dict[str, Any]]) -> str:
    """Cards for a terminal: a line for each score and a column for each run, side by side.

    Where a run has several rows of sampling options, there is a line for each row and a column for each main score.
    """
    if len({_path(name, card) for name, card in cards.items()}) < len(cards):
        return _rows_table(cards)
    plain = {name: _plain(card) for name, card in cards.items()}
    rows = [["", *map(_title, cards.items())]]
    for key, title in PROPERTIES.items():
        names = dict.fromkeys(k for card in plain.values() for k, s in card.items() if s.get("property") == key)
        if names:
            rows.append([title, *[""] * len(cards)])
        rows += [[f"  {k}", *[_cell(card.get(k)) for card in plain.values()]] for k in names]
    return "\n".join([*aligned(rows), *_reasons(cards), *_conditions(cards)])


def _rows_table(cards: dict[str, dict[str, Any]]) -> str:
    plain = {name: _plain(card) for name, card in cards.items()}
    names = {scorecard.base(k): k for card in plain.values() for k, score in card.items() if "why" not in score}
    columns = [name for name in _COLUMNS if name in names]
    rows = [["", *columns]]
    rows += [[_title((row, cards[row])), *[_cell(card.get(names[c])) for c in columns]] for row, card in plain.items()]
    conditions: dict[str, list[str]] = {}
    for column in columns:
        conditions.setdefault(names[column].removeprefix(column), []).append(column)
    said = [f"{', '.join(of)}: {condition.lstrip('@')}" for condition, of in conditions.items() if condition]
    return "\n".join([*aligned(rows), "", *said, *_conditions(cards)])


def _plain(card: dict[str, Any]) -> dict[str, Any]:
    """A card whose names do not have the sampling options, so that it can be compared with others."""
    return {scorecard.unnamed(name, score.get("options", {})): score for name, score in card.items()}


def _path(row: str, card: dict[str, Any]) -> str:
    """The path of a row, without its options."""
    options: dict[str, Any] = next((score["options"] for score in card.values() if "options" in score), {})
    return row.removesuffix(scorecard.words(options)).rstrip()


def _title(item: tuple[str, dict[str, Any]]) -> str:
    """The name of a run or a folder, with the options of this row."""
    path = _path(*item)
    return f"{Path(path).name}{item[0].removeprefix(path)}"


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


def _reasons(cards: dict[str, dict[str, Any]]) -> Iterable[str]:
    reasons = dict.fromkeys(
        f"n/a: {score['why']}" for card in cards.values() for score in card.values() if score.get("why")
    )
    return ["", *reasons] if reasons else []


def _conditions(cards: dict[str, dict[str, Any]]) -> Iterable[str]:
    """How pictures were drawn and prepared, and what was left out."""
    said: dict[str, None] = {}
    for name, card in cards.items():
        drawn = next((score["on"] for score in card.values() if "drawn" in score), None)
        said |= {} if drawn is None else {f"{_title((name, card))}: {drawn}": None}
        said |= dict.fromkeys(note for score in card.values() for note in score.get("notes", ()))
    return ["", *said] if said else []
