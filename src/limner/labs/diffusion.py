"""Diffusion: noise a little at a time, a net that guesses the image, and ways back in few or many steps.

The lectures name diffusion as the fourth family and leave its formulas to their sources: Ho, Jain and Abbeel 2020
(arXiv:2006.11239) and Prince 2023, *Understanding Deep Learning*, chapter 18. The lab has three parts: the forward
process and the way back where the best denoiser is a formula (`_noise`), what a small net learns at each noise level,
and how its samples depend on the sampler, on the number of steps and on guidance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from limner.core.capabilities import Denoises
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel, parameters
from limner.core.rng import Noise, seed_of
from limner.evaluation.reference_set import ReferenceSet
from limner.labs import _figures as draw
from limner.labs import _noise
from limner.labs._bench import Bench, check, check_close
from limner.labs._mixture import denoise_images
from limner.labs._realism import neighbour_labels
from limner.report import Table
from limner.samplers import grids
from limner.samplers.guidance import guided
from limner.samplers.steps import euler

IMAGES = 20_000

RECIPE = "rectified-flow-mnist"
NET = {"model.F.width": 16, "model.F.mults": [1, 2, 4], "model.F.conditional": True}
LEVELS = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # noise levels at which D is measured
SHOWN = (0.12, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 32.0)
EVALUATIONS = (5, 9, 19, 35)  # odd: Heun's method takes 2n − 1
SAMPLERS = {"euler": "Euler (DDIM)", "heun": "Heun", "dpm2m": "DPM-Solver++ 2M", "ancestral": "ancestral (DDPM)"}
SCALES = (0.0, 1.0, 2.0, 4.0, 8.0)
_GUIDED = 12  # steps of guided samples
_FINE = 80  # steps of Heun's method whose end stands for the exact one
_TEST = 200  # held-out images at each noise level


def run(bench: Bench) -> None:
    """Goes through the forward process and the way back on a line; then trains a small net, and measures and draws."""
    _noise.forward(bench)
    _noise.line(bench)
    model = bench.train("digits", RECIPE, NET)
    assert isinstance(model, Denoises)
    _levels(bench, model)
    _path(bench, model)
    _steps(bench, model)
    _guidance(bench, model)


def _samples(bench: Bench) -> int:
    """The number of images that are drawn to be measured: few after a short training."""
    return min(160, max(20, bench.images // 100))


# ---- what the net learns ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LevelErrors:
    """Mean squared errors per pixel of estimates of x0 at one noise level.

    Attributes:
        sigma: the level.
        trained: of the net on images that it was trained on.
        heldout: of the net on held-out images.
        memory: of the best denoiser of the training set, on held-out images.
    """

    sigma: float
    trained: float
    heldout: float
    memory: float


@torch.inference_mode()
def level_errors(
    model: Denoises, train: Tensor, test: Tensor, y: tuple[Tensor, Tensor], seed: int
) -> list[LevelErrors]:
    """Errors at each of `LEVELS` for the same images (N,C,H,W) and the same noise; y are their classes, or none."""
    found = []
    ours = train[: len(test)]
    for i, sigma in enumerate(LEVELS):
        eps = torch.randn(test.shape, generator=torch.Generator().manual_seed(seed_of(seed, i)))
        level = torch.full((len(test),), sigma)
        errors = [
            mean_square(model.denoise(x + sigma * eps, level, labels) - x)
            for x, labels in ((ours, y[0][: len(test)]), (test, y[1]))
        ]
        memory = mean_square(denoise_images(train, test + sigma * eps, sigma) - test)
        found.append(LevelErrors(sigma, errors[0], errors[1], memory))
    return found


def mean_square(x: Tensor) -> float:
    """The mean square of all entries."""
    return float(x.square().mean())


def within_classes(x: Tensor, y: Tensor) -> float:
    """The mean square of images x (N,C,H,W) about the mean image of their class y (N,), per pixel."""
    return sum(mean_square(x[y == c] - x[y == c].mean(0)) * float((y == c).float().mean()) for c in y.unique())


def _levels(bench: Bench, model: GenerativeModel) -> None:
    assert isinstance(model, Denoises)
    train, test = bench.train_set, bench.test_set.evenly_spaced(_TEST)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(bench.seed))
    found = level_errors(model, train.x[order], test.x, (train.y[order], test.y), bench.seed)
    variance, size = within_classes(train.x, train.y), parameters(model)["F"]["total"]
    bench.results["levels"] = [vars(f) for f in found] + [{"variance": variance}]
    figure, (left, right) = draw.plots(2, height=3.2)
    sigmas = [f.sigma for f in found]
    curves = {
        "trained on": (sigmas, [f.trained for f in found]),
        "held out": (sigmas, [f.heldout for f in found]),
        "held out, memory": (sigmas, [f.memory for f in found]),
    }
    draw.curves(left, curves, xlabel="noise σ", title="mean squared error of D per pixel", log=True, marker="o")
    left.set_yscale("log")
    left.axhline(variance, color=draw.SOFT, linewidth=0.8, linestyle=":")
    left.plot(sigmas, [s**2 for s in sigmas], color=draw.SOFT, linewidth=0.8, linestyle=":")
    left.set_ylim(1e-4, 2 * variance)
    weighted = {
        name: (s, [e * ((1 + t) / t) ** 2 for t, e in zip(s, errors, strict=True)])
        for name, (s, errors) in curves.items()
    }
    draw.curves(right, weighted, xlabel="noise σ", title="the same as a loss of the velocity", log=True, marker="o")
    right.set_ylim(0, 1.15 * max(weighted["held out"][1]))
    drawn_at = torch.logspace(-1.6, 1.9, 200)
    law = (-(drawn_at.log() ** 2) / 2).exp()
    right.fill_between(
        drawn_at.tolist(), (0.35 * right.get_ylim()[1] * law).tolist(), color=draw.COLOURS[3], alpha=0.18, linewidth=0
    )
    far, blank = train.x[order[:50]], 1000.0
    guess = denoise_images(train.x.double(), far.double() + blank * torch.randn(far.shape, dtype=torch.float64), blank)
    at_blank = mean_square(guess - train.x.mean(0)) / mean_square(train.x - train.x.mean(0))
    near = mean_square(denoise_images(train.x, far + 0.03 * torch.randn(far.shape), 0.03) - far)
    bench.section(
        "What a net learns at each noise level",
        f"A U-Net of {size:,} parameters is trained as a rectified flow (Liu et al. 2022, Lipman et al. 2022), which is"
        " diffusion with x_t on a straight line between image and noise; it is told the class. It is one net for all"
        " noise levels, and these are many tasks: at σ below 0.1 the noise is hardly visible and the best guess is the"
        " input; at σ = 1 strokes have to be guessed; at σ above 10 nothing can be seen, and the best guess is the mean"
        " of all images of the class, whose error is the variance within classes. So the left curves lie below σ² and"
        " below that variance (dotted). A loss that is one number over all levels says little; look at it level by"
        " level.\n\n“Memory” is the denoiser that is perfect for the training images: their mean, weighted by how"
        " likely each became the input. It would draw nothing but training images. On held-out images it is worse than"
        " the net at small σ, since it can only answer with what it has seen: a net that is less than perfect makes new"
        " images.",
        bench.figure(
            "levels",
            figure,
            "Left, the error of the guess. Right, the same as the error of the velocity, in which the net is"
            " trained; the shade shows how often training draws each σ.",
            "Two charts over the noise level. The error rises from near zero to the variance; weighted, it has its"
            " peaks at both ends.",
        ),
        bench.figure("guesses", _guesses(bench, model, train.x), *_GUESSES),
        checks=[
            check("best denoiser of the training set at σ = 1000: squared distance to their mean, over the variance",
                  "below 1e-4", f"{at_blank:.1g}", at_blank < 1e-4),
            check("at σ = 0.03 it is the training image itself: mean squared error", "below 1e-6", f"{near:.1g}",
                  near < 1e-6),
        ],
    )  # fmt: skip
    last = found[-1]
    bench.claim(
        "At large noise the loss is the variance within classes: the net can only answer with the mean of the class",
        f"error {last.heldout:.3f} at σ = {last.sigma:g}, variance {variance:.3f}",
        0.85 < last.heldout / variance < 1.15,
    )
    middle = [f for f in found if 0.1 < f.sigma < 1]
    bench.claim(
        "A net generalises where a perfect learner of the training set would repeat it",
        "error on held-out images, net and memory: "
        + "; ".join(f"{f.heldout:.4f} and {f.memory:.4f} at σ = {f.sigma:g}" for f in middle),
        all(f.heldout < f.memory for f in middle),
    )


_GUESSES = (
    "The same two held-out digits at eight noise levels: what the net sees, what it guesses, and what a perfect"
    " memory of the training images guesses. Greys of the first row are brought to one scale.",
    "Rows of digits that disappear in noise to the right, with clear guesses on the left that blur into the mean"
    " image.",
)


@torch.inference_mode()
def _guesses(bench: Bench, model: Denoises, data: Tensor) -> Any:
    examples = bench.test_set.first_of_each_class()
    rows: dict[str, Tensor] = {}
    for k, i in enumerate((2 % len(examples), len(examples) - 3)):
        x, y = examples.x[i : i + 1], examples.y[i : i + 1]
        eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed_of(bench.seed, 20 + k)))
        noisy = [x + sigma * eps for sigma in SHOWN]
        gap = " " * k  # the names of rows are keys
        rows[f"x̄{gap}"] = torch.cat([n / (1 + s) for n, s in zip(noisy, SHOWN, strict=True)]).clamp(-1, 1)
        rows[f"net{gap}"] = torch.cat(
            [model.denoise(n, torch.tensor([s]), y) for n, s in zip(noisy, SHOWN, strict=True)]
        )
        rows[f"memory{gap}"] = torch.cat([denoise_images(data, n, s) for n, s in zip(noisy, SHOWN, strict=True)])
    return draw.image_rows(rows, scale=3, headings=[f"σ = {s:g}" for s in SHOWN])


# ---- from noise to images --------------------------------------------------------------------------------------------


@torch.inference_mode()
def _path(bench: Bench, model: Denoises) -> None:
    sigmas = grids.flow(10, model.sigma_max)
    y = bench.train_set.y.unique()[torch.tensor([2, 5, -2]) % len(bench.train_set.y.unique())]
    x = sigmas[0] * Noise(bench.seed, len(y), device=torch.device("cpu"))(0, *model.shape)
    seen: list[tuple[Tensor, Tensor]] = []
    D = guided(model.denoise, y)

    def recorded(x: Tensor, sigma: float) -> Tensor:
        x0 = D(x, sigma)
        seen.append((x / (1 + sigma), x0))
        return x0

    images = euler(recorded, x, sigmas)
    rows: dict[str, Tensor] = {}
    for i in range(len(y)):
        rows[f"x_t{' ' * i}"] = torch.stack([*(state[i] for state, _ in seen), images[i]]).clamp(-1, 1)
        rows[f"D{' ' * i}"] = torch.stack([*(guess[i] for _, guess in seen), images[i]])
    bench.section(
        "From noise to a digit",
        "Ten steps of Euler's method from pure noise, with the classes given. Above, what the sampler has; below,"
        " what the net thinks it will become. The first guess is the mean of the class. Large forms are decided"
        " first, at large σ, and details last; a sampler only walks towards the guess and asks again.",
        bench.figure(
            "path",
            draw.image_rows(rows, scale=2, headings=[f"{s:.2g}" for s in sigmas]),
            "The state, and the guess at it, at the noise levels above the columns; the last column is the sample.",
            "Pairs of rows: noise that turns into a digit, and blurred means that become sharp.",
        ),
    )


@dataclass(frozen=True)
class Drawn:
    """Samples of one sampler with one number of evaluations.

    Attributes:
        sampler: its name.
        evaluations: passes of the net for an image.
        apart: root mean squared difference of pixels to the fine solution from the same noise; None if it adds noise.
        fd: Fréchet distance to held-out images; None if there are too few images for it.
        first: some of the samples.
    """

    sampler: str
    evaluations: int
    apart: float | None
    fd: float | None
    first: Tensor


def reference_set(bench: Bench, n: int) -> ReferenceSet | None:
    """The reference for Fréchet distances of n samples; None if there are too few images."""
    try:
        return ReferenceSet(bench.dataset("train"), bench.dataset("test"), n=n)
    except LimnerError:
        return None


def _steps(bench: Bench, model: GenerativeModel) -> None:
    n = _samples(bench)
    reference = reference_set(bench, n)
    fine = model.at(steps=_FINE, sampler="heun").sample(min(n, 64), seed=bench.seed)
    found: list[Drawn] = []
    for sampler in SAMPLERS:
        for evaluations in EVALUATIONS:
            steps = (evaluations + 1) // 2 if sampler == "heun" else evaluations
            bench.progress.say(f"lab {bench.lab}: {n} samples, {SAMPLERS[sampler]}, {evaluations} evaluations")
            x = model.at(steps=steps, sampler=sampler).sample(n, seed=bench.seed)
            apart = None if sampler == "ancestral" else math.sqrt(mean_square(x[: len(fine)] - fine))
            fd = None if reference is None else reference(x).scores["fd"]
            found.append(Drawn(sampler, evaluations, apart, fd, x[:1]))
    _steps_section(bench, model, found, reference, n)


def _steps_section(
    bench: Bench, model: GenerativeModel, found: list[Drawn], reference: ReferenceSet | None, n: int
) -> None:
    bench.results["steps"] = [
        {"sampler": d.sampler, "evaluations": d.evaluations, "apart": d.apart, "fd": d.fd} for d in found
    ]

    def curve(sampler: str, value: str) -> tuple[list[float], list[float]]:
        rows = [(d.evaluations, getattr(d, value)) for d in found if d.sampler == sampler]
        return [e for e, v in rows if v is not None], [v for _, v in rows if v is not None]

    has_fd = any(d.fd is not None for d in found)
    figure, axes = draw.plots(1 + has_fd, height=3.2)
    names = {k: v for k, v in SAMPLERS.items() if k != "ancestral"}
    draw.curves(axes[0], {name: curve(k, "apart") for k, name in names.items()}, xlabel="evaluations of the net",
                title="distance to the fine solution, same noise", ticks=EVALUATIONS, log=True, marker="o")  # fmt: skip
    axes[0].set_yscale("log")
    if has_fd:
        draw.curves(axes[1], {name: curve(k, "fd") for k, name in SAMPLERS.items()}, xlabel="evaluations of the net",
                    title=f"Fréchet distance of {n} samples", ticks=EVALUATIONS, log=True, marker="o")  # fmt: skip
        if reference is not None and reference.ceiling is not None:
            axes[1].axhline(reference.ceiling.scores["fd"], color=draw.SOFT, linewidth=0.8, linestyle=":")
    same = bool(torch.equal(model.sample(6, seed=bench.seed, batch=6)[:3], model.sample(3, seed=bench.seed, batch=3)))
    near = float((model.sample(6, seed=bench.seed)[:3] - model.sample(3, seed=bench.seed)).abs().max())
    cells = [[_cell(d) for d in found if d.sampler == k] for k in SAMPLERS]
    bench.section(
        "Steps against quality",
        "One net, one noise, several ways back. An evaluation of the net is what costs time: Heun's method takes two"
        f" for a step. The distance tells how far pixels are from where the equation leads (Heun with {_FINE} steps);"
        " ancestral sampling draws new noise in each step, so it leads elsewhere and is left out. A method of second"
        " order wins once its steps are small enough: with 5 or 9 evaluations Heun takes three or five, and is behind"
        " Euler. The Fréchet distance to held-out images is taken in the features of a classifier, where there are"
        " enough samples (from 65, so with images=6500 and more): real images of the training set have the dotted"
        " line, and with so few samples it cannot be zero.",
        bench.figure(
            "samplers",
            draw.image_rows(_strips(model, bench.seed), scale=2, headings=_headings()),
            f"Two digits from the same noise for each sampler with {', '.join(map(str, EVALUATIONS))} evaluations.",
            "Rows of digits: blurred or noisy with few evaluations, and alike with many.",
        ),
        bench.figure(
            "steps",
            figure,
            "The error of the sampler alone; and, beside it, quality, where the errors of the net count as well.",
            "Two charts over the number of evaluations; curves fall, second-order samplers faster.",
        ),
        table=Table(("sampler", *(f"{e} evaluations" for e in EVALUATIONS)),
                    [(SAMPLERS[k], *row) for k, row in zip(SAMPLERS, cells, strict=True)]),
        checks=[check("an image does not depend on how many are drawn: largest difference", "below 1e-4",
                      f"{near:.1g}", same or near < 1e-4)],
    )  # fmt: skip
    by_name = {(d.sampler, d.evaluations): d for d in found}
    fewest, few, several, most = EVALUATIONS
    first_order, second_order = by_name["euler", several].apart or 0.0, by_name["dpm2m", several].apart or 0.0
    bench.claim(
        "With the same number of evaluations a sampler of second order is nearer to the exact solution",
        f"{several} evaluations: DPM-Solver++ 2M {second_order:.3f}, Euler {first_order:.3f} of [-1,1]",
        second_order < first_order,
    )
    start, end, solver = by_name["ancestral", fewest].fd, by_name["ancestral", most].fd, by_name["dpm2m", few].fd
    if start is not None and end is not None and solver is not None:
        bench.claim(
            "Ancestral sampling, the way of the first papers, needs many steps",
            f"Fréchet distance {start:.1f} with {fewest} evaluations, {end:.1f} with {most}; DPM-Solver++ 2M"
            f" {solver:.1f} with {few}",
            end < start,
        )


def _cell(drawn: Drawn) -> str:
    parts = [
        f"FD {drawn.fd:.1f}" if drawn.fd is not None else "",
        f"{drawn.apart:.3f} apart" if drawn.apart is not None else "",
    ]
    return ", ".join(p for p in parts if p) or "–"


def _headings() -> list[str]:
    return [str(e) for e in EVALUATIONS for _ in range(2)]


def _strips(model: GenerativeModel, seed: int) -> Mapping[str, Tensor]:
    """For each sampler two images with each number of evaluations, from the same noise."""
    rows = {}
    for sampler, name in SAMPLERS.items():
        parts = []
        for e in EVALUATIONS:
            steps = (e + 1) // 2 if sampler == "heun" else e
            parts.append(model.at(steps=steps, sampler=sampler).sample(10, seed=seed)[[3, 8]])
        rows[name] = torch.cat(parts)
    return rows


# ---- guidance --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GuidedSamples:
    """Samples at one scale of guidance.

    Attributes:
        scale: g.
        obeyed: share of the samples whose nearest training images are mostly of the requested class.
        variety: mean distance between samples of a class over that between training images of a class.
        extreme: share of pixels at or beyond 0.99 of black or white.
    """

    scale: float
    obeyed: float
    variety: float
    extreme: float


def variety(x: Tensor, y: Tensor) -> float:
    """Mean distance between images (N,C,H,W) of the same class y (N,), over classes with two or more."""
    members = [x[y == c].flatten(1) for c in y.unique()]
    return sum(float(torch.pdist(m).mean()) for m in members if len(m) > 1) / max(sum(len(m) > 1 for m in members), 1)


def _guidance(bench: Bench, model: GenerativeModel) -> None:
    assert isinstance(model, Denoises)
    classes = bench.train_set.y.unique()[:10]
    n = max(2 * len(classes), _samples(bench) // len(classes) * len(classes))
    y = classes[torch.arange(n) % len(classes)]
    real = variety(*_some_of_each(bench.train_set.x, bench.train_set.y, n // len(classes)))
    found, rows = [], {}
    for scale in SCALES:
        bench.progress.say(f"lab {bench.lab}: {n} samples with guidance {scale:g}")
        x = model.at(steps=_GUIDED, guidance=scale).sample(n, y=y, seed=bench.seed)
        labels = neighbour_labels(bench.train_set, x).mode(1).values
        found.append(
            GuidedSamples(
                scale, float((labels == y).float().mean()), variety(x, y) / real, float((x.abs() > 0.99).float().mean())
            )
        )
        rows[f"g = {scale:g}"] = x[: len(classes)]
    bench.results["guidance"] = [vars(g) for g in found]
    scales = [g.scale for g in found]
    figure, (left, right) = draw.plots(2, height=2.8)
    draw.curves(
        left,
        {"obeyed": (scales, [g.obeyed for g in found])},
        xlabel="scale g",
        title="share of samples of the requested class",
        ticks=scales,
        marker="o",
    )
    left.set_ylim(0, 1.05)
    draw.curves(
        right,
        {"variety": (scales, [g.variety for g in found])},
        xlabel="scale g",
        title="variety within a class, real images = 1",
        ticks=scales,
        marker="o",
    )
    right.set_ylim(bottom=0)
    right.axhline(1, color=draw.SOFT, linewidth=0.8, linestyle=":")
    bench.section(
        "Guidance",
        "One net learned both: in a tenth of the training its class was hidden. Classifier-free guidance (Ho and"
        " Salimans 2022, arXiv:2207.12598) takes D_u + g (D_c − D_u), and beyond g = 1 it exaggerates what"
        " distinguishes the class. Some papers call w = g − 1 the scale. With g = 0 the class is ignored; with g ="
        " 1 the samples are those of the conditional net; more makes them show their class more clearly, and"
        " resemble each other. Each row has the same noise.",
        bench.figure(
            "guided",
            draw.image_rows(rows, scale=2, headings=[bench.train_set.classes[int(c)] for c in classes]),
            "The requested class is above each column; the scale grows downwards.",
            "Rows of digits: of any class at g = 0, of the requested one below, bolder and more alike with large g.",
        ),
        bench.figure(
            "guidance",
            figure,
            "Left, how often the ten nearest training images are mostly of the requested class. Right, the distance"
            " between samples of a class.",
            "Left, a curve that rises from one tenth towards one. Right, one that falls.",
        ),
        table=Table(
            ("scale g", "of the requested class", "variety", "pixels black or white"),
            [(f"{g.scale:g}", f"{g.obeyed:.0%}", f"{g.variety:.2f}", f"{g.extreme:.0%}") for g in found],
        ),
        checks=_guidance_checks(bench, model),
    )
    none, plain, strong = found[0], found[1], found[3]
    bench.claim(
        "Guidance makes samples show their class and costs variety",
        f"of the requested class {none.obeyed:.0%} at g = 0, {plain.obeyed:.0%} at 1, {strong.obeyed:.0%} at"
        f" {strong.scale:g}; variety {plain.variety:.2f} at g = 1, {strong.variety:.2f} at {strong.scale:g}",
        strong.obeyed >= plain.obeyed > none.obeyed and strong.variety < plain.variety,
    )


def _some_of_each(x: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """At most n images of each class, the first ones."""
    indices = torch.cat([(y == c).nonzero()[:n, 0] for c in y.unique()])
    return x[indices], y[indices]


@torch.inference_mode()
def _guidance_checks(bench: Bench, model: Denoises) -> list[Any]:
    y = bench.train_set.y[:4]
    null = len(bench.train_set.classes)
    x = torch.randn(4, *model.shape, generator=torch.Generator().manual_seed(bench.seed)) * 2
    level = torch.full((4,), 2.0)
    one, none = (guided(model.denoise, y, scale, null=null)(x, 2.0) for scale in (1.0, 0.0))
    return [
        check_close(
            "D with g = 1 less the conditional D", 0, float((one - model.denoise(x, level, y)).abs().max()), 1e-5
        ),
        check_close(
            "D with g = 0 less the D without a class", 0, float((none - model.denoise(x, level)).abs().max()), 1e-4
        ),
    ]
