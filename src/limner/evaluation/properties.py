"""One property after the other: what goes on the scorecard of a model, and why something is missing from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from limner.config import recipe
from limner.core.batch import Dataset
from limner.core.capabilities import Conditional, Decodes, Encodes, Generates, HasBound, HasPrior, Reconstructs
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.run import Run
from limner.evaluation import smoothness
from limner.evaluation.capabilities import bits_score, modes, of_bounds, reconstruction
from limner.evaluation.cost import cost, training_cost
from limner.evaluation.factors import encoded_disentanglement, read_disentanglement
from limner.evaluation.likelihood import batches, bounds, likelihood
from limner.evaluation.reference_set import MEASURES, ReferenceSet, ScoredImages
from limner.metrics.copies import copying, nearest
from limner.metrics.diversity import birthday, duplicate_threshold, ndb
from limner.metrics.extractors.features import Classifier
from limner.metrics.frechet import frechet_infinity
from limner.metrics.quality import gan_test, synthetic_training
from limner.metrics.scorecard import Card, Score, interval, missing

_BETWEEN = 5000  # mid-points
_REFERENCE_SECONDS = 3.0  # for the speed of the DCGAN that others are set beside
_LIKELIHOOD = 2000  # images whose likelihood is bounded


def of_images(
    judge: ReferenceSet, seeds: Iterable[int], draw: Callable[[int, int], Tensor]
) -> tuple[Card, ScoredImages]:
    """Quality and coverage of whatever draws images.

    Args:
        judge: knows the real images.
        seeds: one set of images for each.
        draw: `draw(n, seed) -> (n,C,H,W)` in [-1,1], or uint8.

    Returns:
        The scores, and the first seed's images in the extractor's eyes.
    """
    seeds = list(seeds)
    first: ScoredImages | None = None
    found: dict[str, list[float]] = {}
    for seed in seeds:
        seen = judge(draw(judge.n, seed))
        first = first or seen
        for name, value in seen.scores.items():
            found.setdefault(name, []).append(value)
    if first is None:
        raise LimnerError("a score needs at least one seed")
    on = f"{judge.n} samples against {len(judge.real)} held-out images of {judge.real.name}"
    on += f", {len(seeds)} seeds" if len(seeds) > 1 else ""
    card = {}
    for name, values in found.items():
        mean, error, low, high = interval(values)
        what = MEASURES[name]
        how = what.how + (f"; about {judge.floor:.3g} for a perfect sampler" if name == "fd" else "")
        card[f"{name}{judge.conditions}"] = Score(
            mean, what.unit, on, how, what.property, error, low, high, what.better,
            judge.ceiling.scores[name], judge.worst.scores[name], judge.norm(name, mean),
        )  # fmt: skip
    return card, first


def of_sampling(model: GenerativeModel, train: Dataset, run: Run | None = None) -> Card:
    """What drawing images costs, and what the training did."""
    found = cost(model)
    where = ", ".join(str(found.where[k]) for k in ("device_name", "device") if found.where.get(k))
    on = f"{where}, {_threads(found.where.get('threads'))}, from noise to 8-bit image"
    reference = _dcgan_speed(train, model.device)
    place = None if reference is None else min(max(math.log10(found.throughput / reference) / 3 + 1, 0.0), 1.0)
    beside = "" if reference is None else f"; a DCGAN of these images draws {reference:,.0f} here, a thousandth is 0 %"
    speeds = ", ".join(f"{speed:,.0f} at {batch}" for batch, speed in found.throughputs.items())
    groups = ", ".join(f"{name} {n:,}" for name, n in found.groups.items())
    memory = found.peak_bytes
    card = {
        "throughput": Score(
            found.throughput, "images/s", on, f"at the best batch: {speeds}{beside}", "sampling", better="higher",
            ceiling=reference, floor=None if reference is None else reference / 1000, norm=place,
        ),
        "latency_ms": Score(
            found.latency_p50_ms, "ms", on,
            f"time of one image, median of {found.repeats}; 95 % take at most {found.latency_p95_ms:.3g} ms",
            "sampling", better="lower",
        ),
        "evaluations": Score(found.evaluations, "per image", "", "calls of nets to draw one image", "sampling"),
        "parameters": Score(
            found.parameters, "", f"{found.weight_bytes / 2**20:.1f} MiB of weights", groups, "sampling", better="lower"
        ),
    }  # fmt: skip
    if memory is not None:
        card["peak_memory"] = Score(
            memory / 2**20, "MiB", on, f"most memory held by the {found.peak_of} so far", "sampling", better="lower"
        )
    if run is not None:
        spent = training_cost(run)
        threads = f", {_threads(spent.threads)}" if spent.threads else ""
        card["training_seconds"] = Score(
            spent.seconds, "s", f"{spent.device}{threads}",
            f"time of training on {spent.images:,} images; energy: {spent.energy}", "sampling", better="lower",
        )  # fmt: skip
    return card


def _threads(n: int | None) -> str:
    return "1 thread" if n == 1 else f"{n} threads"


def _dcgan_speed(train: Dataset, device: torch.device) -> float | None:
    """Images a second of a fresh DCGAN of the same images on the same device; None where it cannot draw them."""
    try:
        model: GenerativeModel = recipe.load("dcgan-mnist").model.build(shape=tuple(train.shape))
    except (LimnerError, ValueError):
        return None
    return cost(model.eval().to(device), limit=_REFERENCE_SECONDS).throughput


def of_first(judge: ReferenceSet, seen: ScoredImages, model: GenerativeModel | None, chosen: Sequence[str]) -> Card:
    """Scores that one set of samples is enough for: extrapolation, bins, duplicates, obedience to classes."""
    at, on = judge.conditions, f"{judge.n} samples, one seed"
    card: Card = {}
    if "quality" in chosen:
        beyond = frechet_infinity(seen.features, *judge.moments)
        how = "Fréchet distance extrapolated to infinitely many samples (Chong and Forsyth 2020)"
        card[f"fd_infinity{at}"] = Score(beyond.value, "", on, how, "quality", better="lower")
    if "coverage" in chosen:
        card |= _bins(judge, seen) | _birthday(judge, seen)
    if isinstance(model, Conditional) and {"quality", "coverage"} & set(chosen):
        card |= _obedience(judge, seen, model)
    return {name: score for name, score in card.items() if score.property in chosen}


def _bins(judge: ReferenceSet, seen: ScoredImages) -> Card:
    try:
        found = ndb(judge.trained_on.features, fake=seen.features)
    except LimnerError as error:
        return {f"ndb{judge.conditions}": missing("coverage", f"ndb: {error}")}
    on = f"{judge.n} samples in 100 bins of {len(judge.trained_on)} training images"
    how = "share of bins whose counts differ (Richardson and Weiss 2018); 0.05 for a perfect sampler"
    js = f"Jensen-Shannon divergence of the bins; about {found.js_floor:.2g} for a perfect sampler"
    return {
        f"ndb{judge.conditions}": Score(found.share, "", on, how, "coverage", better="lower"),
        f"js{judge.conditions}": Score(found.js, "nats", on, js, "coverage", better="lower"),
    }


def _birthday(judge: ReferenceSet, seen: ScoredImages) -> Card:
    threshold = duplicate_threshold(judge.real.features, _told(judge))
    found = birthday(seen.features, threshold)
    how = (
        f"{found.verdict} (Arora and Zhang 2017); the same means nearer in features than all but 0.1 % of real images"
        " of a class, so look at them"
    )
    value, unit = (found.at_least, "images at least") if found.support is None else (found.support, "images")
    return {f"support{judge.conditions}": Score(value, unit, f"{found.n} samples", how, "coverage", better="higher")}


def _told(judge: ReferenceSet) -> Tensor | None:
    """Classes of the held-out images, where each has two images at least."""
    labels = judge.real.labels
    return labels if labels is not None and int(labels.unique(return_counts=True)[1].min()) > 1 else None


def _obedience(judge: ReferenceSet, seen: ScoredImages, model: Conditional) -> Card:
    """Whether the class that is asked for is drawn, and whether a classifier can learn from what is."""
    wanted, classes = model.condition.default(judge.n), model.condition.size
    card: Card = {}
    if seen.logits is not None and seen.logits.shape[1] == classes:
        test = gan_test(seen.logits, wanted)
        assert isinstance(judge.extractor, Classifier)
        how = "share of samples that the classifier takes for the class that was asked for (Shmelkov et al. 2018)"
        ceiling = judge.extractor.about.get("accuracy_test")
        card[f"gan_test{judge.conditions}"] = Score(
            test.value, "", f"{judge.n} samples, every class in turn", how, "quality", None, test.low, test.high,
            better="higher", ceiling=ceiling, floor=1 / classes,
            norm=None if ceiling is None else _between(test.value, 1 / classes, ceiling),
        )  # fmt: skip
    if judge.real.labels is not None:
        held = judge.real.labels
        cas = synthetic_training(fake=seen.images, fake_labels=wanted, real=judge.real.images, real_labels=held)
        trained = judge.trained_on
        assert trained.labels is not None
        same = torch.linspace(0, len(trained) - 1, judge.n).long()
        ceiling = synthetic_training(
            fake=trained.images[same], fake_labels=trained.labels[same], real=judge.real.images, real_labels=held
        ).value
        how = "accuracy on real images of a small net trained on samples alone (Ravuri and Vinyals 2019)"
        card[f"cas[n={judge.n}]"] = Score(
            cas.value, "", f"{len(held)} held-out images of {judge.real.name}", how, "coverage", None,
            cas.low, cas.high, better="higher", ceiling=ceiling, floor=1 / classes,
            norm=_between(cas.value, 1 / classes, ceiling),
        )  # fmt: skip
    return card


def _between(value: float, floor: float, ceiling: float) -> float | None:
    return None if ceiling == floor else min(max((value - floor) / (ceiling - floor), 0.0), 1.0)


def of_copies(judge: ReferenceSet, seen: ScoredImages) -> Card:
    """The copying guard: samples against the images trained on, beside images that were not."""
    found = copying(train=judge.trained_on.features, test=judge.real.features, fake=seen.features)
    on = f"{judge.n} samples, {len(judge.trained_on)} training and {len(judge.real)} held-out images"
    at = judge.conditions
    return {
        f"copying{at}": Score(found.verdict, "", on, found.why, "copying"),
        f"c_t{at}": Score(
            found.c_t.value, "standard errors", on,
            "C_T (Meehan et al. 2020): below -3 samples lie nearer to training images than new images do", "copying",
        ),
        f"authpct{at}": Score(
            found.authpct, "%", on,
            f"AuthPct (Alaa et al. 2022); held-out images have {found.authpct_test:.1f} %, and only the difference"
            " tells", "copying", ceiling=found.authpct_test,
        ),
        f"duplicates{at}": Score(
            found.duplicates.share, "of samples", on,
            f"as near to a training image as the nearest 0.1 % of those to each other; of held-out images"
            f" {found.duplicates_test:.2g}", "copying", better="lower",
        ),
    }  # fmt: skip


def gallery(judge: ReferenceSet, seen: ScoredImages, columns: int, k: int = 3) -> tuple[Tensor, int]:
    """The samples nearest to training images in a row, each with its k nearest below: images ((1+k)·columns,C,H,W)."""
    train = judge.trained_on
    found = nearest(train=train.features, fake=seen.features, k=k)
    distances, who = torch.as_tensor(found.distances), torch.as_tensor(found.indices)
    chosen = distances[:, 0].argsort()[:columns]
    rows = [seen.images[chosen], *(train.images[who[chosen, j]] for j in range(k))]
    return torch.cat(rows), len(chosen)


def of_latent(
    model: GenerativeModel,
    judge: ReferenceSet | None,
    seen: ScoredImages | None,
    heldout: Dataset,
    device: torch.device | str,
) -> Card:
    """Whether the latent space is well behaved: even, without holes, and the codes where the prior is."""
    card: Card = {}
    if not (isinstance(model, HasPrior) and isinstance(model, Decodes)):
        return {
            "latent": missing("latent", f"{model.spec.name} decodes no draws of a prior, so it has no latent space")
        }
    if judge is not None:
        card |= _smooth(model, judge, seen, device)
    if isinstance(model, Encodes):
        gap = smoothness.posterior_prior_gap(model, heldout, device=device)
        card["posterior_prior_gap"] = Score(
            gap.value, "", f"{gap.n} codes of held-out images and {gap.n} draws of the prior",
            f"unbiased squared MMD, Gaussian kernel; {gap.noise:.1g} is the standard deviation for equal distributions",
            "latent", better="lower",
        )  # fmt: skip
    card |= reconstruction(model, heldout, device)
    if isinstance(model, Reconstructs):
        x, y = images_of(heldout, 256, device)
        trip = smoothness.round_trip(model, x, y)
        card["round_trip"] = Score(
            trip.x_mean, "of [-1,1]", f"{len(x)} held-out images",
            f"mean |x - decode(encode(x))|; at most {trip.x_max:.3g}", "latent", better="lower",
        )  # fmt: skip
    return card


def _smooth(model: Generates, judge: ReferenceSet, seen: ScoredImages | None, device: torch.device | str) -> Card:
    at, n = f"@{judge.extractor.key}", min(judge.n, _BETWEEN)
    between = smoothness.interpolation_fd(model, judge.extractor, real=judge.moments, n=n, device=device)
    path = smoothness.path_length(model, judge.extractor, device=device)
    even = smoothness.step_evenness(model, judge.extractor, device=device)
    card = {
        f"interpolation{at}[n={n}]": Score(
            between.ratio, "× samples", f"{n} mid-points, {n} samples",
            f"Fréchet distance of images half-way between two draws ({between.midpoints:.3g}) over that of samples"
            f" ({between.samples:.3g}); 1 is as good. The norm is that of the mid-points' own distance",
            "latent", better="lower", norm=judge.norm("fd", between.midpoints),
        ),
        f"path_length{at}": Score(
            path.value, "", f"{path.n} paths, {path.between}",
            f"squared feature distance over the squared step {path.e:g} (Karras et al. 2019, in these features, not"
            " LPIPS)", "latent", path.error,
        ),
        f"evenness{at}": Score(
            even.value, "× mean", f"{even.paths} paths of {even.steps} steps",
            "largest over mean step of features along a path; 1 is even", "latent", better="lower",
        ),
    }  # fmt: skip
    if seen is not None:
        card[f"hole_rate{judge.conditions}"] = Score(
            seen.near.hole_rate, "of draws", f"{judge.n} samples",
            "share of samples with no real image near: draws of the prior that lead nowhere", "latent", better="lower",
            ceiling=judge.ceiling.near.hole_rate, floor=judge.worst.near.hole_rate,
            norm=_between(seen.near.hole_rate, judge.worst.near.hole_rate, judge.ceiling.near.hole_rate),
        )  # fmt: skip
    return card


def of_disentanglement(model: GenerativeModel, train: Dataset, device: torch.device | str) -> Card:
    """Whether one number of the code does one thing; only data with known factors can tell."""
    if getattr(train, "factors", None) is None:
        why = f"the factors behind {train.name} are not known; train on mini-dsprites to measure disentanglement"
        return {"mig": missing("disentangled", why)}
    if isinstance(model, Encodes):
        found = encoded_disentanglement(model, train, device=device)
    elif isinstance(model, HasPrior) and isinstance(model, Decodes):
        found = read_disentanglement(model, device=device)
    else:
        return {"mig": missing("disentangled", f"{model.spec.name} has no codes that factors could be compared with")}
    scores = found.scores
    left_out = f"; nothing is said of {', '.join(found.left_out)}, which never changed" if found.left_out else ""
    match = "" if found.match is None else f"; the sprites read and drawn again match at {found.match:.2f} of 1"
    on = f"{scores.n} codes and their factors by {found.how}{left_out}{match}"
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
            value, "", on, how, "disentangled", better="higher", ceiling=1.0, floor=0.0, norm=min(max(value, 0.0), 1.0)
        )
        for name, (value, how) in rows.items()
    }


def of_likelihood(
    model: GenerativeModel, train: Dataset, heldout: Dataset, device: torch.device | str, kind: str | None = None
) -> Card:
    """Likelihood of images never trained on, how long it takes, and how much better the training images fare."""
    if kind == "AIS":
        return _annealed(model, heldout, device)
    if isinstance(model, HasBound):
        began = time.perf_counter()
        found = bounds(model, heldout, k=50, limit=_LIKELIHOOD, device=device)
        took = 1000 * (time.perf_counter() - began) / found.n
        trained = bounds(model, train, k=50, limit=found.n, device=device)
        card = of_bounds(found, model.measure, heldout)
        n, gap, error, kind = (
            found.n,
            trained.iwae - found.iwae,
            math.hypot(trained.iwae_error, found.iwae_error),
            "IWAE-50",
        )
    else:
        try:
            exact = likelihood(model, heldout, train=train, limit=_LIKELIHOOD, device=device)
        except LimnerError as reason:
            return {"bits_per_dim": missing("likelihood", f"{reason}; or ask for likelihood=AIS")}
        n, took, kind = exact.n, exact.ms_per_image, exact.kind
        gap, error = exact.train_gap or 0.0, exact.train_gap_error or 0.0
        on = f"{n} held-out images of {heldout.name}"
        card = {"bits_per_dim": bits_score(exact.bits, exact.bits_error, kind, exact.measure, on)}
    on = f"{n} held-out images of {heldout.name}"
    card["likelihood_ms"] = Score(took, "ms per image", on, f"time for {kind}", "likelihood", better="lower")
    card["train_gap"] = Score(
        gap, "nats per image", f"{on}, and as many training images",
        "by how much a training image is likelier than a new one", "likelihood", error, better="lower",
    )  # fmt: skip
    return card


def _annealed(model: GenerativeModel, heldout: Dataset, device: torch.device | str) -> Card:
    """The likelihood of a decoder with noise on its pixels, by annealed importance sampling."""
    found = likelihood(model, heldout, kind="AIS", device=device)
    on = f"{found.n} held-out images of {heldout.name}"
    how = (
        f"AIS (Wu et al. 2017) with noise of {found.sigma:.3g} on pixels in [-1,1], fitted; between AIS from both sides"
        f" lie {found.ais_gap:.3g} nats, and that much the number may be off"
    )
    score = bits_score(found.bits, found.bits_error, "AIS", found.measure, on)
    ms = Score(found.ms_per_image, "ms per image", on, "time for AIS", "likelihood", better="lower")
    return {"bits_per_dim": replace(score, how=how), "likelihood_ms": ms}


def images_of(dataset: Dataset, n: int, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
    """`n` images (n,C,H,W) in [-1,1], spread evenly over a set, and their classes."""
    parts = list(batches(dataset, min(n, len(dataset)), 256, device))
    y = [part[1] for part in parts if part[1] is not None]
    return torch.cat([part[0] for part in parts]), torch.cat(y) if y else None


def of_model(
    model: GenerativeModel,
    chosen: Sequence[str],
    train: Dataset,
    heldout: Dataset,
    judge: ReferenceSet | None,
    seen: ScoredImages | None,
    device: torch.device | str,
    run: Run | None = None,
    kind: str | None = None,
) -> Card:
    """The properties that are asked of the model itself: what it costs, its latent space, its likelihood."""
    card: Card = modes(model, heldout) if {"quality", "coverage"} & set(chosen) else {}
    if "sampling" in chosen:
        card |= of_sampling(model, train, run)
    if "latent" in chosen:
        card |= of_latent(model, judge, seen, heldout, device)
    if "disentangled" in chosen:
        card |= of_disentanglement(model, train, device)
    if "likelihood" in chosen:
        card |= of_likelihood(model, train, heldout, device, kind)
    return {name: score for name, score in card.items() if score.property in chosen}
