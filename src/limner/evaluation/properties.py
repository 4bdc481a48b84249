"""The scores of each property, or the reason why a model has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

import torch
from torch import Tensor

from limner.config import recipe
from limner.core.batch import Dataset
from limner.core.capabilities import Decodes, Encodes, EstimatesCodes, Generates, HasPrior, Reconstructs
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.run import Run
from limner.data.sources.factors import NAMES as SPRITES
from limner.evaluation import smoothness
from limner.evaluation.capabilities import code_scores, known_mode_scores, reconstruction_scores
from limner.evaluation.conditional import condition_scores
from limner.evaluation.cost import FULL, Effort, cost, count_evaluations, training_cost
from limner.evaluation.domain_pairs import pair_scores, pixel_pair_scores
from limner.evaluation.draws import batches, counted
from limner.evaluation.factors import FactorReader, encoded_disentanglement, factor_reader, read_disentanglement
from limner.evaluation.likelihood_scores import likelihood_scores
from limner.evaluation.reference_set import MEASURES, ReferenceSet, ScoredImages
from limner.metrics.copies import copying, nearest
from limner.metrics.diversity import birthday, duplicate_threshold, ndb
from limner.metrics.extractors.attributes import KEYS, AttributeReader, attribute_reader
from limner.metrics.frechet import frechet_infinity
from limner.metrics.scorecard import Card, Score, missing, normalised, select

_DCGAN_SECONDS = 3.0  # for timing the DCGAN whose speed is the reference


def image_scores(
    reference: ReferenceSet, seeds: Iterable[int], draw: Callable[[int, int], Tensor]
) -> tuple[Card, ScoredImages]:
    """Quality and coverage of images, however they are made.

    Args:
        reference: the real images.
        seeds: one set of images is drawn for each.
        draw: `draw(n, seed) -> (n,C,H,W)` in [-1,1], or uint8.

    Returns:
        The scores, and the images of the first seed with their features.
    """
    seeds = list(seeds)
    first: ScoredImages | None = None
    values: dict[str, list[float]] = {}
    for seed in seeds:
        scored = reference(draw(reference.n, seed))
        first = first or scored
        for name, value in scored.scores.items():
            values.setdefault(name, []).append(value)
    if first is None:
        raise LimnerError("scores need at least one seed; give seeds=1 or more")
    what = f"{'held-out ' * reference.apart}images of {reference.real.name}"
    real, best = counted(len(reference.real), reference.real.of, what), reference.ceiling
    on = f"{reference.n} samples against {real}"
    on += f", {len(seeds)} seeds" if len(seeds) > 1 else ""
    card = {}
    for name in values:
        measure = MEASURES[name]
        how = measure.how + (f"; about {reference.floor:.3g} for a perfect sampler" if name == "fd" else "")
        card[f"{name}{reference.conditions}"] = Score.of_sample(
            values[name], unit=measure.unit, on=on, how=how, property=measure.property, better=measure.better,
            ceiling=None if best is None else best.scores[name], floor=reference.noise.scores[name],
            norm=reference.norm(name, fmean(values[name])),
        )  # fmt: skip
    if "sharpness" not in values:
        card[f"sharpness{reference.conditions}"] = missing("quality", "sharpness: each real image is of one colour")
    return card, first


def sampling_scores(model: GenerativeModel, train: Dataset, run: Run | None = None) -> Card:
    """The cost of drawing images, and of the training."""
    measured = cost(model)
    where = ", ".join(str(measured.where[k]) for k in ("device_name", "device") if measured.where.get(k))
    on = f"{where}, {_threads(measured.where.get('threads'))}, from noise to 8-bit image"
    reference = _dcgan_speed(train, model.device)
    norm = None if reference is None else min(max(math.log10(measured.throughput / reference) / 3 + 1, 0.0), 1.0)
    beside = "" if reference is None else f"; a DCGAN of these images draws {reference:,.0f} here, a thousandth is 0 %"
    speeds = ", ".join(f"{speed:,.0f} at {batch}" for batch, speed in measured.throughputs.items())
    groups = ", ".join(f"{name} {n:,}" for name, n in measured.groups.items())
    card = {
        "throughput": Score(
            measured.throughput, unit="images/s", on=on,
            how=f"at the best batch: {speeds}; evaluations of nets an image: {measured.evaluations}{beside}",
            property="sampling", better="higher", ceiling=reference,
            floor=None if reference is None else reference / 1000, norm=norm,
        ),
        "latency_ms": Score(
            measured.latency_p50_ms, unit="ms", on=on, property="sampling", better="lower",
            how=f"time of one image, median of {measured.repeats}; 95 % take at most {measured.latency_p95_ms:.3g} ms",
        ),
        **_evaluations(measured.evaluations),
        "parameters": Score(
            measured.parameters, on=f"{measured.weight_bytes / 2**20:.1f} MiB of weights", how=groups,
            property="sampling", better="lower",
        ),
    }  # fmt: skip
    if measured.peak_bytes is not None:
        card["peak_memory"] = Score(
            measured.peak_bytes / 2**20, unit="MiB", on=on, how=f"most memory held by the {measured.peak_of} so far",
            property="sampling", better="lower",
        )  # fmt: skip
    if run is not None:
        spent = training_cost(run)
        threads = f", {_threads(spent.threads)}" if spent.threads else ""
        card["training_seconds"] = Score(
            spent.seconds, unit="s", on=f"{spent.device}{threads}", property="sampling", better="lower",
            how=f"time of training on {spent.images:,} images; energy: {spent.energy}",
        )  # fmt: skip
    return card


def evaluation_scores(model: GenerativeModel) -> Card:
    """The number of evaluations of nets for one image, which is counted in a moment."""
    return _evaluations(count_evaluations(model))


def _evaluations(n: int) -> Card:
    how = "calls of nets to draw one image (NFE); a guided step, with and without the class, counts twice"
    return {"evaluations": Score(n, unit="per image", how=how, property="sampling")}


def _threads(n: int | None) -> str:
    return "1 thread" if n == 1 else f"{n} threads"


def _dcgan_speed(train: Dataset, device: torch.device) -> float | None:
    """Images a second of an untrained DCGAN for the same images on the same device; None where it cannot draw them."""
    try:
        model: GenerativeModel = recipe.load("builtin:dcgan-mnist").model.build(shape=tuple(train.shape))
    except (LimnerError, ValueError):
        return None
    return cost(model.eval().to(device), limit=_DCGAN_SECONDS).throughput


def first_seed_scores(
    reference: ReferenceSet,
    scored: ScoredImages,
    model: GenerativeModel | None,
    heldout: Dataset,
    properties: Sequence[str],
) -> Card:
    """Scores that need one set of samples only: extrapolated distance, bins, duplicates, agreement with labels."""
    card: Card = {}
    if "quality" in properties:
        card[f"fd_infinity{reference.conditions}"] = Score(
            frechet_infinity(scored.features, *reference.moments).value, on=f"{reference.n} samples, one seed",
            how="Fréchet distance extrapolated to infinitely many samples (Chong and Forsyth 2020)",
            property="quality", better="lower",
        )  # fmt: skip
    if "coverage" in properties:
        card |= _bins(reference, scored) | _birthday(reference, scored)
    if {"quality", "coverage"} & set(properties):
        card |= condition_scores(reference, scored, model, heldout, properties)
    return select(card, properties)


def _bins(reference: ReferenceSet, scored: ScoredImages) -> Card:
    try:
        bins = ndb(reference.trained_on.features, fake=scored.features)
    except LimnerError as error:
        return {f"ndb{reference.conditions}": missing("coverage", f"ndb: {error}")}
    on = f"{reference.n} samples in 100 bins of {len(reference.trained_on)} training images"
    how = "share of bins whose counts differ (Richardson and Weiss 2018); 0.05 for a perfect sampler"
    js = f"Jensen-Shannon divergence of the bins; about {bins.js_floor:.2g} for a perfect sampler"
    return {
        f"ndb{reference.conditions}": Score(bins.share, on=on, how=how, property="coverage", better="lower"),
        f"js{reference.conditions}": Score(bins.js, unit="nats", on=on, how=js, property="coverage", better="lower"),
    }


def _birthday(reference: ReferenceSet, scored: ScoredImages) -> Card:
    labels = reference.real.labels
    if labels is not None:
        labels = labels.unique(dim=0, return_inverse=True)[1]  # each combination of attributes is a class
    if labels is not None and int(labels.unique(return_counts=True)[1].min()) < 2:
        labels = None  # an image that is alone in its class has no neighbour there
    result = birthday(scored.features, duplicate_threshold(reference.real.features, labels))
    how = (
        f"{result.verdict} (Arora and Zhang 2017); two images are the same when they are nearer in features than all"
        " but 0.1 % of real images of a class, so look at them"
    )
    value, unit = (result.at_least, "images at least") if result.support is None else (result.support, "images")
    score = Score(value, unit=unit, on=f"{result.n} samples", how=how, property="coverage", better="higher")
    return {f"support{reference.conditions}": score}


def copying_scores(reference: ReferenceSet, scored: ScoredImages) -> Card:
    """Distances of samples to the training images, compared with those of held-out images."""
    if not reference.apart:
        why = "copies are told by comparing with new real images, and there are too few to keep some apart"
        return {"copying": missing("copying", why)}
    result = copying(train=reference.trained_on.features, test=reference.real.features, fake=scored.features)
    trained, real = reference.trained_on, reference.real
    on = f"{reference.n} samples, {counted(len(trained), trained.of, 'training images')} and "
    on += counted(len(real), real.of, "held-out images")
    at = reference.conditions
    return {
        f"copying{at}": Score(result.verdict, on=on, how=result.why, property="copying"),
        f"c_t{at}": Score(
            result.c_t.value, unit="standard errors", on=on, property="copying",
            how="C_T (Meehan et al. 2020): below -3 samples lie nearer to training images than new images do",
        ),
        f"authpct{at}": Score(
            result.authpct, unit="%", on=on, property="copying", ceiling=result.authpct_test,
            how=f"AuthPct (Alaa et al. 2022); held-out images have {result.authpct_test:.1f} %, and only the difference"
            " from them has a meaning",
        ),
        f"duplicates{at}": Score(
            result.duplicates.share, unit="of samples", on=on, property="copying", better="lower",
            how=f"as near to a training image as the nearest 0.1 % of those to each other; of held-out images"
            f" {result.duplicates_test:.2g}",
        ),
    }  # fmt: skip


def gallery(reference: ReferenceSet, scored: ScoredImages, columns: int, k: int = 3) -> tuple[Tensor, int]:
    """A row of the samples nearest to training images, and below each its k nearest: ((1+k)·columns,C,H,W)."""
    train = reference.trained_on
    neighbours = nearest(train=train.features, fake=scored.features, k=k)
    distances, indices = torch.as_tensor(neighbours.distances), torch.as_tensor(neighbours.indices)
    samples = distances[:, 0].argsort()[:columns]
    rows = [scored.images[samples], *(train.images[indices[samples, j]] for j in range(k))]
    return torch.cat(rows), len(samples)


def latent_scores(
    model: GenerativeModel,
    reference: ReferenceSet | None,
    scored: ScoredImages | None,
    heldout: Dataset,
    device: torch.device | str,
    effort: Effort,
) -> Card:
    """Whether the latent space is smooth and without holes, and whether codes of images follow the prior."""
    card: Card = {}
    if not (isinstance(model, HasPrior) and isinstance(model, Decodes)):
        return {
            "latent": missing("latent", f"{model.spec.name} decodes no draws of a prior, so it has no latent space")
        }
    if reference is not None:
        card |= _smoothness_scores(model, reference, scored, device, effort)
    if isinstance(model, Encodes):
        gap = smoothness.posterior_prior_gap(model, heldout, n=effort.codes, device=device)
        card["posterior_prior_gap"] = Score(
            gap.value, on=f"{gap.n} codes of held-out images and {gap.n} draws of the prior", property="latent",
            how=f"unbiased squared MMD, Gaussian kernel; {gap.noise:.1g} is the standard deviation for equal"
            " distributions", better="lower",
        )  # fmt: skip
    card |= reconstruction_scores(model, heldout, device, effort.reconstructions)
    if isinstance(model, Reconstructs):
        x, y = spaced_images(heldout, effort.round_trips, device)
        trip = smoothness.round_trip(model, x, y)
        card["round_trip"] = Score(
            trip.x_mean, unit="of [-1,1]", property="latent", better="lower",
            on=counted(len(x), len(heldout), "held-out images"),
            how=f"mean |x - decode(encode(x))|; at most {trip.x_max:.3g}",
        )  # fmt: skip
    return card


def _smoothness_scores(
    model: Generates,
    reference: ReferenceSet,
    scored: ScoredImages | None,
    device: torch.device | str,
    effort: Effort,
) -> Card:
    at, n = f"@{reference.extractor.key}", min(reference.n, effort.midpoints)
    between = smoothness.interpolation_fd(model, reference.extractor, real=reference.moments, n=n, device=device)
    path = smoothness.path_length(model, reference.extractor, n=effort.paths, device=device)
    even = smoothness.step_evenness(model, reference.extractor, paths=effort.even_paths, device=device)
    card = {
        f"interpolation{at}[n={n}]": Score(
            between.ratio, unit="× samples", on=f"{n} mid-points, {n} samples", property="latent", better="lower",
            how=f"Fréchet distance of images half-way between two draws ({between.midpoints:.3g}) over that of samples"
            f" ({between.samples:.3g}); 1 is as good. The norm is that of the mid-points' own distance",
            norm=reference.norm("fd", between.midpoints),
        ),
        f"path_length{at}": Score(
            path.value, on=f"{path.n} paths, {path.between}", property="latent", error=path.error,
            how=f"squared feature distance over the squared step {path.e:g} (Karras et al. 2019, in these features, not"
            " LPIPS)",
        ),
        f"evenness{at}": Score(
            even.value, unit="× mean", on=f"{even.paths} paths of {even.steps} steps", property="latent",
            how="largest over mean step of features along a path; 1 is even", better="lower",
        ),
    }  # fmt: skip
    if scored is not None:
        best, floor = reference.ceiling, reference.noise.hole_rate
        ceiling = None if best is None else best.hole_rate
        rate = scored.neighbourhoods.hole_rate
        card[f"hole_rate{reference.conditions}"] = Score(
            rate, unit="of draws", on=f"{reference.n} samples", property="latent", better="lower",
            how="share of samples that have no real image near them", ceiling=ceiling, floor=floor,
            norm=normalised(rate, floor, ceiling),
        )  # fmt: skip
    return card


def disentanglement_scores(model: GenerativeModel, train: Dataset, device: torch.device | str) -> Card:
    """Whether each number of the code stands for one factor, where the factors of the data are known."""
    factors = getattr(train, "factors", None)
    if factors is None:
        why = f"the factors behind {train.name} are not known; train on mini-dsprites to measure disentanglement"
        return {"mig": missing("disentangled", why)}
    if factors.shape[1] < 2:
        return {"mig": missing("disentangled", f"{train.name} has one factor, and a code is compared with several")}
    if isinstance(model, (Encodes, EstimatesCodes)):
        result = encoded_disentanglement(model, train, device=device)
    elif isinstance(model, HasPrior) and isinstance(model, Decodes):
        reader = _factor_reader(train, device)
        if reader is None:
            why = f"no reader tells the factors of pictures like those of {train.name}"
            return {"mig": missing("disentangled", why)}
        result = read_disentanglement(model, reader=reader, device=device)
    else:
        return {"mig": missing("disentangled", f"{model.spec.name} has no codes that factors could be compared with")}
    scores = result.scores
    left_out = f"; without {', '.join(result.left_out)}, which never changed" if result.left_out else ""
    match = "" if result.match is None else f"; the sprites read and drawn again match at {result.match:.2f} of 1"
    on = f"{scores.n} codes and their factors by {result.how}{left_out}{match}"
    note = " Seeds matter more than methods (Locatello et al. 2019): train five before you conclude."
    rows = {
        "mig": (scores.mig, "mutual information gap (Chen et al. 2018)." + note),
        "dci_disentanglement": (
            scores.dci.disentanglement, "DCI: each number for one factor (Eastwood and Williams 2018)"
        ),
        "dci_completeness": (scores.dci.completeness, "DCI: each factor in one number"),
        "dci_informativeness": (scores.dci.informativeness, f"DCI: accuracy; chance is {scores.dci.chance:.2f}"),
        "sap": (scores.sap, "separated attribute predictability (Kumar et al. 2018)"),
        "factor_vae": (
            scores.factor_vae.value, f"majority vote (Kim and Mnih 2018); chance is {scores.factor_vae.chance:.2f}"
        ),
    }  # fmt: skip
    return {
        name: Score(
            value, on=on, how=how, property="disentangled", better="higher", ceiling=1.0, floor=0.0,
            norm=normalised(value, 0.0, 1.0),
        )
        for name, (value, how) in rows.items()
    }  # fmt: skip


def _factor_reader(train: Dataset, device: torch.device | str) -> FactorReader | AttributeReader | None:
    """The net that reads the factors of such images, if there is one."""
    if getattr(train, "factor_names", None) == SPRITES:
        return factor_reader(device)
    return attribute_reader(KEYS[train.name], device) if train.name in KEYS else None


def spaced_images(dataset: Dataset, n: int, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
    """`n` drawn images (n,C,H,W) of a set in [-1,1], and their classes."""
    parts = list(batches(dataset, min(n, len(dataset)), 256, device))
    y = [part[1] for part in parts if part[1] is not None]
    return torch.cat([part[0] for part in parts]), torch.cat(y) if y else None


def model_scores(
    model: GenerativeModel,
    properties: Sequence[str],
    train: Dataset,
    heldout: Dataset,
    reference: ReferenceSet | None,
    scored: ScoredImages | None,
    device: torch.device | str,
    run: Run | None = None,
    kind: str | None = None,
    learnt: bool = True,
    effort: Effort = FULL,
) -> Card:
    """Scores of the model itself: its cost, its latent space, its likelihood, and counts of modes that are known.

    `learnt` says whether the model was trained on `train`, so that overfitting can be told, and `effort` how many
    images are drawn for the latent space.
    """
    card: Card = known_mode_scores(model, heldout) if {"quality", "coverage"} & set(properties) else {}
    if "quality" in properties:
        card |= pair_scores(model, train, heldout, device) | pixel_pair_scores(model, heldout)
    if "sampling" in properties:
        card |= sampling_scores(model, train, run)
    if "latent" in properties:
        card |= latent_scores(model, reference, scored, heldout, device, effort)
    if "disentangled" in properties:
        card |= disentanglement_scores(model, train, device) | code_scores(model, heldout, device)
    if "likelihood" in properties:
        card |= likelihood_scores(model, train if learnt else None, heldout, device, kind)
    return select(card, properties)
