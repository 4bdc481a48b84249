"""Four families on one set in equal time, by the six properties of a good generative model.

A lecture names six desired properties (S4, after Prince 2023, *Understanding Deep Learning*, chapter 14): efficient
sampling, high-quality samples, coverage, a well-behaved latent space, a disentangled latent space, and efficient
likelihoods. It leaves open which family has which. Here a VAE, a GAN, a flow and a diffusion model are trained on the
same digits for the same time on this machine, and each property has a number, measured in the same way for all.
"""

from __future__ import annotations

import math
import time as clock_
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from limner import api
from limner.config import recipe
from limner.core.capabilities import Encodes, Generates, HasBound, HasLogProb, Reconstructs
from limner.core.errors import LimnerError
from limner.core.forecast import forecast
from limner.core.model import GenerativeModel
from limner.core.paths import BUILTIN
from limner.core.units import Duration, clock
from limner.evaluation import cost, smoothness
from limner.evaluation.likelihood import bits, bounds
from limner.evaluation.reference_set import ReferenceSet
from limner.labs import _figures as draw
from limner.labs._bench import Bench, check
from limner.labs._realism import neighbour_labels
from limner.labs.flow import bits as flow_bits
from limner.latent import walk
from limner.metrics.disentangle import mig_each
from limner.report import Check, Table

IMAGES = 10_000_000  # no training gets there; `time` ends them all


@dataclass(frozen=True)
class Family:
    """A family and the recipe that stands for it.

    Attributes:
        name: its name.
        recipe: name of the recipe.
        changes: keys of the recipe and their values.
        fast: sampling options for measures that need many images.
    """

    name: str
    recipe: str
    changes: dict[str, Any]
    fast: dict[str, Any]


FAMILIES = (
    Family("VAE", "conv-vae-mnist", {"model.likelihood": "logistic", "model.decoder.out": "tanh"}, {}),
    Family("GAN", "dcgan-mnist", {}, {}),
    Family("flow", "realnvp-mnist", {}, {}),
    Family(
        "diffusion",
        "rectified-flow-mnist",
        {"model.F.width": 16, "model.F.mults": [1, 2, 4], "model.F.conditional": False},
        {"steps": 6},
    ),
)
PROPERTIES = {
    "sampling": "images a second",
    "quality": "quality: samples that could be real",
    "coverage": "coverage of the real images",
    "latent": "half-way images, FD over samples'",
    "disentangled": "mutual information gap",
    "bits": "bits per dimension",
}
_SAMPLES, _LIKELIHOODS, _CODES = 400, 100, 300
_MEASURING = 5.0  # seconds in which the speed of each training is measured
_TIMING = 4.0  # seconds for timing the sampling of each
_NO_TIME = 1e-3


def run(bench: Bench, *, time: Annotated[Duration, Field(gt=0)] = 90.0) -> None:
    """Trains the four families for equal times, and measures the six properties of each.

    Args:
        bench: collects the results.
        time: training time of each family, such as 90s or 5m. Raise it for better samples of all.
    """
    bench.options["time"] = f"{time:g}s"  # as it is written in the command
    models = {f.name: _trained(bench, f, time) for f in FAMILIES}
    found = {f.name: _measured(bench, f, models[f.name]) for f in FAMILIES}
    bench.results["families"] = {name: asdict(m) for name, m in found.items()}
    _samples_section(bench, models)
    _table(bench, found, time)
    _halfway(bench, models)
    _facts(bench, models, found)
    _claims(bench, found)


def _trained(bench: Bench, family: Family, seconds: float) -> GenerativeModel:
    """A family's model after so many seconds, from its speed; so schedules end when the time does."""
    settings = {"data": bench.data, "train.seed": bench.seed, "train.images": 1_000_000} | family.changes
    prepared = api.prepare(recipe.load(f"{BUILTIN}{family.recipe}", settings))
    limit = min(_MEASURING, max(seconds / 4, _NO_TIME))
    expected = forecast(prepared.options, prepared.model, prepared.dataset, prepared.optimisers, prepared.device, limit)
    images = round(prepared.options.images * seconds / max(expected.seconds, _NO_TIME))
    images = min(bench.images, max(images, 2 * prepared.options.batch))
    bench.progress.say(f"lab {bench.lab}: {family.name}, {images:,} images are about {clock(seconds)}")
    few = {"train.sample_images": max(images // 2, 1), "train.checkpoint_images": images}
    return bench.train(family.name, family.recipe, family.changes | few, images=images)


# ---- measures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """The six properties of a model; None where it cannot have one, or where there are too few images.

    Attributes:
        sampling: images a second at the best batch size.
        evaluations: calls of nets for an image.
        quality: clipped density (Salvy et al. 2025): share of samples that could be real.
        fd: Fréchet distance to held-out images.
        coverage: clipped coverage: share of the real images that samples come near.
        latent: Fréchet distance of images half-way between two draws over that of samples; 1 is as good.
        disentangled: mean mutual information gap of class, slant, width and ink.
        bits: bits per dimension of held-out images.
        kind: what `bits` is: exact, a bound, or none.
        ms: milliseconds for the likelihood of one image.
    """

    sampling: float
    evaluations: int
    quality: float | None
    fd: float | None
    coverage: float | None
    latent: float | None
    disentangled: float | None
    bits: float | None
    kind: str
    ms: float | None


def _measured(bench: Bench, family: Family, model: GenerativeModel) -> Measured:
    bench.progress.say(f"lab {bench.lab}: measuring the {family.name}")
    n = min(_SAMPLES, max(len(bench.train_set) // 4, 2))
    spent = cost.cost(model, batches=(1, 64), limit=_TIMING)
    reference = _reference(bench, n)
    scores = {} if reference is None else reference(model.sample(n, seed=bench.seed)).scores
    value, kind, ms = _likelihood(bench, model)
    fast = model.at(**family.fast)
    return Measured(
        spent.throughput, spent.evaluations, scores.get("clipped_density"), scores.get("fd"),
        scores.get("clipped_coverage"), None if reference is None else _latent(fast, reference, n),
        _disentangled(bench, fast), value, kind, ms,
    )  # fmt: skip


def _reference(bench: Bench, n: int) -> ReferenceSet | None:
    try:
        return ReferenceSet(bench.dataset("train"), bench.dataset("test"), n=n)
    except LimnerError:  # too few images for the features of the extractor
        return None


def _latent(model: GenerativeModel, reference: ReferenceSet, n: int) -> float | None:
    if not isinstance(model, Generates):
        return None
    return smoothness.interpolation_fd(model, reference.extractor, real=reference.moments, n=min(n, 200)).ratio


def _likelihood(bench: Bench, model: GenerativeModel) -> tuple[float | None, str, float | None]:
    """Bits per dimension of held-out images, how they were got, and milliseconds for an image."""
    x = bench.test_set.evenly_spaced(_LIKELIHOODS).x
    start = clock_.perf_counter()
    elbo: Callable[..., Tensor] | None = getattr(model, "elbo", None)
    if elbo is not None:
        generator = torch.Generator().manual_seed(bench.seed)
        with torch.inference_mode():
            nats = elbo(x, lambda *size: torch.randn(*size, generator=generator))
        value, kind = bits(float(nats.mean()), x[0].numel(), "discrete"), "bound (ELBO)"
    elif isinstance(model, HasLogProb):
        value, kind = float(flow_bits(model, x, bench.seed).mean()), "exact"
    elif isinstance(model, HasBound):
        bound = bounds(model, bench.dataset("test"), k=50, limit=_LIKELIHOODS, seed=bench.seed)
        value, kind = bits(bound.iwae, x[0].numel(), model.measure), "bound (IWAE-50)"
    else:
        return None, "none", None
    return value, kind, 1000 * (clock_.perf_counter() - start) / len(x)


def attributes(x: Tensor) -> Tensor:
    """Slant, width and ink (N,3) of white digits (N,1,H,W) in [-1,1] on black, from the moments of their grey values.

    Slant is the horizontal shift per pixel of height, width the standard deviation of the columns in pixels, ink the
    share of white: three of the attributes of Castro et al. 2019 (Morpho-MNIST, arXiv:1809.02134), taken from moments.
    """
    grey = ((x[:, 0] + 1) / 2).clamp(0, 1).double()  # (N,H,W)
    h, w = grey.shape[1:]
    mass = grey.sum((1, 2)).clamp(min=1e-9)
    rows, columns = torch.arange(h, dtype=torch.float64), torch.arange(w, dtype=torch.float64)
    dy = rows - (grey.sum(2) @ rows / mass)[:, None]  # (N,H)
    dx = columns - (grey.sum(1) @ columns / mass)[:, None]  # (N,W)
    var_y, var_x = ((grey.sum(2) * dy**2).sum(1) / mass, (grey.sum(1) * dx**2).sum(1) / mass)
    both = torch.einsum("nhw,nh,nw->n", grey, dy, dx) / mass
    return torch.stack([-both / var_y.clamp(min=1e-9), var_x.sqrt(), mass / (h * w)], 1)


def _disentangled(bench: Bench, model: GenerativeModel) -> float | None:
    """The mutual information gap between numbers of the code and what the decoded images show."""
    if not isinstance(model, Generates):
        return None
    with torch.inference_mode():
        z = model.prior.sample(_CODES, torch.Generator().manual_seed(bench.seed))
        x = torch.cat([model.decode(part) for part in z.split(100)])
    label = neighbour_labels(bench.train_set, x).mode(1).values
    thirds = [
        torch.bucketize(a, a.quantile(torch.tensor([1 / 3, 2 / 3], dtype=a.dtype)))
        for a in attributes(x).T.contiguous()
    ]
    factors = torch.stack([label, *thirds], 1)
    varied = [k for k in range(factors.shape[1]) if len(factors[:, k].unique()) > 1]
    if not varied:
        return None
    return float(mig_each(z.flatten(1), factors[:, varied], bins=5).mean())


# ---- the page --------------------------------------------------------------------------------------------------------


def _samples_section(bench: Bench, models: dict[str, GenerativeModel]) -> None:
    grids = {name: draw.image_grid(model.sample(64, seed=bench.seed), 8) for name, model in models.items()}
    bench.section(
        "Samples, side by side",
        "The first 64 samples of each, not selected. A VAE decodes noise to the mean of what it could have been, so"
        " it is soft. A GAN is judged by a discriminator that sees blur, so it is sharp. A flow has to explain"
        " every pixel of every image with one invertible map. A diffusion model asks its net twenty times for a"
        " sample.",
        bench.figure(
            "samples",
            draw.side_by_side(grids),
            "Samples after equal training times.",
            "Four grids of digits: soft ones, sharp ones, broken ones, and clear ones.",
        ),
    )


def _shown(value: float | None, spec: str) -> str:
    return "none" if value is None else format(value, spec)


def _table(bench: Bench, found: dict[str, Measured], seconds: float) -> None:
    spent = {name: (bench.runs[name].metrics() or [{}])[-1] for name in found}
    figure, axes = draw.plots(3, rows=2, height=2.0)
    for ax, (key, title) in zip(axes, PROPERTIES.items(), strict=True):
        draw.family_bars(ax, {name: getattr(m, key) for name, m in found.items()}, title, log=key == "sampling")
    rows: list[Sequence[object]] = [
        ("training, seconds", *(f"{spent[n].get('seconds', 0):.0f}" for n in found)),
        ("images seen", *(f"{spent[n].get('images', 0):,}" for n in found)),
        ("1 efficient sampling: images a second", *(f"{m.sampling:,.0f}" for m in found.values())),
        ("evaluations of nets for an image", *(f"{m.evaluations}" for m in found.values())),
        ("2 quality: clipped density, more is better", *(_shown(m.quality, ".2f") for m in found.values())),
        ("Fréchet distance, less is better", *(_shown(m.fd, ".1f") for m in found.values())),
        ("3 coverage: clipped coverage, more is better", *(_shown(m.coverage, ".2f") for m in found.values())),
        (
            "4 latent space: half-way images, 1 is as good as samples",
            *(_shown(m.latent, ".2f") for m in found.values()),
        ),
        (
            "5 disentangled: mutual information gap, more is better",
            *(_shown(m.disentangled, ".3f") for m in found.values()),
        ),
        ("6 likelihood: bits per dimension, less is better", *(_shown(m.bits, ".2f") for m in found.values())),
        ("what it is", *(m.kind for m in found.values())),
        ("milliseconds for an image", *(_shown(m.ms, ".1f") for m in found.values())),
    ]
    bench.section(
        "Six properties",
        f"Each family trained for {clock(seconds)} on the same images: its speed was measured first, and it got as"
        " many images as fit, so that its schedules end with the time. Quality and coverage compare 400 samples"
        " with held-out images in the features of a classifier. The latent space is well-behaved if images half-way"
        " between two draws are as good as samples. For disentanglement, digits are decoded from random codes;"
        " their class (by nearest images), slant, width and ink are read from the pixels, and the gap says how much"
        " more the best number of the code tells about each than the second best. A code of 784 numbers has hardly"
        " any such number. Likelihoods are bits for a pixel of 256 levels, exact or a bound as the table says; a"
        " GAN has none, which is an answer, not a gap in the table.",
        bench.figure(
            "properties",
            figure,
            "The six properties. In the first three more is better; half-way images should be at 1; more"
            " information, fewer bits.",
            "Six bar charts with a bar for each family; the GAN has no bar for the likelihood.",
        ),
        table=Table(("property", *found), rows),
    )


@torch.inference_mode()
def _halfway(bench: Bench, models: dict[str, GenerativeModel]) -> None:
    rows = {}
    for family in FAMILIES:
        model = models[family.name].at(**family.fast)
        if not isinstance(model, Generates):
            continue
        a, b = model.prior.sample(2, torch.Generator().manual_seed(bench.seed + 1))
        rows[family.name] = model.decode(walk.slerp(a, b, 11))
    bench.section(
        "Between two samples",
        "Along the arc between two random codes. If the latent space is well-behaved every image on the way is a"
        " digit, and small steps make small changes.",
        bench.figure(
            "walks",
            draw.image_rows(rows, scale=2),
            "Eleven images from one random code to another, for each family.",
            "Rows of digits that turn into one another, smoothly in the first row and through broken shapes in others.",
        ),
    )


def _facts(bench: Bench, models: dict[str, GenerativeModel], found: dict[str, Measured]) -> None:
    vae, gan, flow, diffusion = (models[f.name] for f in FAMILIES)
    x = bench.test_set.first_of_each_class().x
    checks: list[Check] = [
        check(f"evaluations for a sample, {name}", expected, found[name].evaluations)
        for name, expected in (("VAE", 1), ("GAN", 1), ("flow", 1), ("diffusion", 20))
    ]
    assert isinstance(vae, HasBound)
    assert isinstance(flow, Reconstructs)
    bound = bounds(vae, bench.dataset("test"), k=50, limit=_LIKELIHOODS, seed=bench.seed)
    with torch.inference_mode():
        back = float((flow.decode(flow.encode(x)) - x).abs().max())
    checks += [
        check("the VAE's bound with 50 draws is at least that with one, in nats", f"at least {bound.elbo:.1f}",
              f"{bound.iwae:.1f}", bound.iwae >= bound.elbo),
        check("the flow decodes its codes exactly: largest difference", "below 0.01", f"{back:.1g}", back < 0.01),
        check("the GAN has an encoder or a likelihood", "no",
              "yes" if isinstance(gan, Encodes | HasLogProb | HasBound) else "no"),
        check("flow and diffusion have a code for each pixel", "784 and 784",
              " and ".join(f"{_code_size(m)}" for m in (flow, diffusion))),
    ]  # fmt: skip
    bench.section("What follows from the families themselves", "No training can change these.", checks=checks)


def _code_size(model: GenerativeModel) -> int:
    assert isinstance(model, Generates)
    return math.prod(model.prior.sample(1, torch.Generator()).shape[1:])


def _best(found: dict[str, Measured], key: str, lowest: bool = False) -> str:
    known = {n: v for n, m in found.items() if (v := getattr(m, key)) is not None}
    return (min if lowest else max)(known, key=lambda n: known[n]) if known else "–"


def _claims(bench: Bench, found: dict[str, Measured]) -> None:
    with_density = [n for n, m in found.items() if m.bits is not None]
    bench.claim(
        "Flows, VAEs and diffusion models assign a probability to each data point; a GAN does not",
        f"bits per dimension: {', '.join(f'{n} {found[n].bits:.2f} ({found[n].kind})' for n in with_density)}",
        with_density == ["VAE", "flow", "diffusion"],
    )
    slow = found["diffusion"].sampling
    bench.claim(
        "Sampling is expensive in a diffusion model and cheap in the others",
        "images a second: " + ", ".join(f"{n} {m.sampling:,.0f}" for n, m in found.items()),
        all(m.sampling > 3 * slow for n, m in found.items() if n != "diffusion"),
    )
    best = {
        "sampling": _best(found, "sampling"), "quality": _best(found, "quality"), "coverage": _best(found, "coverage"),
        "latent space": _best(found, "latent", lowest=True), "disentanglement": _best(found, "disentangled"),
        "likelihood": _best(found, "bits", lowest=True),
    }  # fmt: skip
    bench.claim(
        "No family is the best in all six properties",
        "the best: " + ", ".join(f"{key} {name}" for key, name in best.items()),
        len(set(best.values()) - {"–"}) > 1,
    )
    if found["GAN"].quality is not None and found["VAE"].quality is not None:
        bench.claim(
            "Samples of a GAN are of higher quality than those of a VAE",
            f"clipped density {found['GAN'].quality:.2f} and {found['VAE'].quality:.2f}, Fréchet distance"
            f" {found['GAN'].fd:.1f} and {found['VAE'].fd:.1f}",
            found["GAN"].quality > found["VAE"].quality,
        )
