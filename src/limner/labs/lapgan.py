"""LAPGAN: a picture from coarse to fine, a GAN for each level (Denton et al. 2015, arXiv:1506.05751).

An image is a coarse one and what each finer level adds, and nothing is lost on the way. A GAN of its own learns each
level. Beside it one DCGAN learns the same images with as many floating-point operations, so that the price of an image
is the same and the Fréchet distances can be compared. Where the distance of LAPGAN comes from is asked by giving it
real coarse images instead of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from limner import api
from limner.config import recipe
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel, parameters
from limner.core.paths import BUILTIN
from limner.core.stream import Stream
from limner.core.update import Updates
from limner.evaluation.reference_set import ReferenceSet
from limner.labs import _figures as draw
from limner.labs import _gan_sections as gan_sections
from limner.labs._bench import Bench, check
from limner.labs._layers import layers
from limner.report import Check, Table

IMAGES = 80_000

RECIPE, BESIDE = "lapgan-fashion", "dcgan-32"
WIDTH = 48  # of DCGAN's nets: with it a training image costs about what one of LAPGAN's does
BATCH = 64  # of both
SIZES = (28, 14, 7)
G_DETAILS = (816, 6_416, 145)  # (2·5·5 + 1)·16, (16·5·5 + 1)·16 and 16·3·3 + 1
D_DETAILS = {28: (416, 6_416, 3_137), 14: (416, 6_416, 785)}  # the last: 16 maps of half the size, and 1
G_COARSE = (25_600, 65_536, 12_593)  # 100·256 and 256·256 before batch norm, and (256 + 1)·49
D_COARSE = (12_800, 65_792, 257)  # (49 + 1)·256, (256 + 1)·256 and 256 + 1

_SHOWN, _DRAWS, _ROWS = 12, 7, 5
_SAMPLES = 2000  # scored

_PYRAMID = (
    "down takes the mean of 2×2 pixels; up is bilinear. Of an image x the pyramid keeps x₂, of 7×7 pixels, and for each"
    " finer level what up cannot know, h = x - up(down x). Added up again they are x, and not nearly: every weight is a"
    " multiple of 1/16, so no bit is lost. Details are numbers around 0, small where the image is smooth. The table"
    " says how much of an image is in each part."
)
_LEVELS = (
    "A column is one sample, and the rows are the way that it takes. The coarsest GAN draws 7×7 pixels from noise."
    " Then, twice: enlarge, draw details h for what is there, add. Details are shown with grey for 0."
)
_DRAWN_TWICE = (
    "The first column is a held-out image, the second its low-pass image l. The others are l + h with details of the"
    " finest level, each from a noise plane of its own. What differs between them is the work of the noise."
)


@dataclass(frozen=True)
class Scored:
    """Images of one kind beside the held-out ones.

    Attributes:
        fd: Fréchet distance.
        density: clipped density: share of images as near to real ones as those are to each other.
        coverage: clipped coverage: share of the real images that they come near.
    """

    fd: float
    density: float
    coverage: float


def run(bench: Bench) -> None:
    """Trains LAPGAN and a DCGAN of as much computation, then measures and draws."""
    beside = {
        "data": bench.data | {"size": SIZES[0]},
        "model.G.width": WIDTH,
        "model.D.width": WIDTH,
        "train.batch": BATCH,
    }
    cost = flops(bench, RECIPE, {"train.batch": BATCH})
    cost_beside = flops(bench, BESIDE, beside)
    model: Any = gan_sections.train(bench, "lapgan", RECIPE, {"train.batch": BATCH})
    images = max(BATCH, round(bench.runs["lapgan"].metrics()[-1]["images"] * cost / cost_beside))
    dcgan = gan_sections.train(bench, "dcgan", BESIDE, beside, images=images)
    _pyramid(bench, model)
    _nets(bench, model)
    _levels(bench, model)
    _one_low_pass(bench, model)
    _accuracies(bench)
    found = _scores(bench, model, dcgan)
    _compared(bench, {"lapgan": model, "dcgan": dcgan}, {"lapgan": cost, "dcgan": cost_beside}, found)


# ---- what is measured ------------------------------------------------------------------------------------------------


def flops(bench: Bench, name: str, changes: Mapping[str, Any]) -> float:
    """Floating-point operations of a training image: those of a step's convolutions and products, over its batch.

    Both directions are counted, for discriminators and generators: two operations for each multiply-add.
    """
    settings = {"data": bench.data, "train.seed": bench.seed, "train.images": bench.images} | dict(changes)
    prepared = api.prepare(recipe.load(f"{BUILTIN}{name}", settings))
    model, batch = prepared.model, prepared.options.batch
    stream = Stream(prepared.dataset, batch, seed=bench.seed)
    updates = Updates(model.train().groups(), prepared.optimisers)
    with FlopCounterMode(display=False) as counter:
        stream.begin()
        model.step(stream, updates)
    return counter.get_total_flops() / batch


@torch.inference_mode()
def refined(model: Any, x: Tensor, level: int, seed: int) -> Tensor:
    """Images (N,C,H,W) in [-1,1] whose levels below `level` are drawn on top of the real level of images x.

    At level 0 these are x, and at the coarsest level all details are drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    images = model.parts(x)[level]
    result: Tensor = images[0] + images[1]
    for k in reversed(range(level)):
        noise = 2 * torch.rand(len(x), *model.G.noise[k], generator=generator) - 1
        result = model.generated(k, noise, model.low_pass(result), None)
    return result.clamp(-1, 1)


@torch.inference_mode()
def spread(model: Any, x: Tensor, k: int, seed: int, draws: int = 8) -> tuple[float, float, float]:
    """What is drawn as details of level k on the real low-pass images of x (N,C,H,W).

    Returns:
        Standard deviation of the real details, of the drawn ones, and of those between draws on one low-pass image.
    """
    generator = torch.Generator().manual_seed(seed)
    low, real = model.parts(x)[k]
    drawn = []
    for _ in range(draws):
        noise = 2 * torch.rand(len(x), *model.G.noise[k], generator=generator) - 1
        drawn.append(model.generated(k, noise, low, None) - low)
    h = torch.stack(drawn)
    return float(real.std()), float(h.std()), float(h.var(0).mean().sqrt())


def _reference(bench: Bench) -> ReferenceSet:
    return ReferenceSet(bench.dataset("train"), bench.dataset("test"), n=_SAMPLES)


def _score(reference: ReferenceSet, x: Tensor) -> Scored:
    scores = reference(x).scores
    return Scored(scores["fd"], scores["clipped_density"], scores["clipped_coverage"])


# ---- the page --------------------------------------------------------------------------------------------------------


def _shown(h: Tensor, size: int = SIZES[0]) -> Tensor:
    """Images (N,C,size,size) in [-1,1] whose pixels are squares of the pixels of h."""
    return torch.nn.functional.interpolate(h, size=(size, size)).float().clamp(-1, 1)


def _pyramid(bench: Bench, model: Any) -> None:
    grey = ((bench.test_set.x + 1) * 127.5).round()
    rows = {"x": bench.test_set.evenly_spaced(_SHOWN).x}
    parts = model.parts(rows["x"])
    for size, (low, h) in zip(SIZES[:-1], parts, strict=False):
        rows |= {f"l at {size} px": _shown(low), f"h at {size} px": _shown(h)}
    rows[f"x₂, {SIZES[-1]} px"] = _shown(parts[-1][0])
    figure = bench.figure(
        "pyramid",
        draw.image_rows(rows),
        "Held-out images and their Laplacian pyramid. Details are shown with grey for 0.",
        "Rows of images, their low-pass images and details at 28 and at 14 pixels, and coarse images of 7 pixels",
    )
    all_parts = model.parts(bench.test_set.x)
    whole = float(bench.test_set.x.var())
    shares = [(f"h at {size} px", size**2, f"{float(h.var()) / whole:.1%}") for size, (_, h) in zip(SIZES, all_parts)]
    shares[-1] = (f"x₂, {SIZES[-1]} px", SIZES[-1] ** 2, f"{float(all_parts[-1][0].var()) / whole:.1%}")
    back = float((rebuilt(model, all_parts) - bench.test_set.x).abs().max())
    numbers = sum(h[0].numel() for _, h in all_parts)
    bench.section(
        "A pyramid, and the way back",
        _PYRAMID,
        figure,
        table=Table(("part", "numbers", "variance, of that of the images' pixels"), shares),
        checks=[
            check(
                f"largest error of up(down x) + h over {len(grey):,} held-out images, in grey levels",
                0.0,
                float((rebuilt(model, model.parts(grey)) - grey).abs().max()),
            ),
            check("the same in [-1,1], where grey levels are rounded", "below 1e-6", f"{back:.1g}", back < 1e-6),
            check("numbers of a pyramid of 784 pixels: 784 + 196 + 49", 1029, numbers),
        ],
    )


def rebuilt(model: Any, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The images of a pyramid, from its coarsest images and details alone."""
    x = parts[-1][0]
    for _, h in reversed(parts[:-1]):
        x = model.low_pass(x) + h
    return x


def _nets(bench: Bench, model: Any) -> None:
    parts = model.parts(bench.test_set.x[:1])
    rows: list[tuple[Any, ...]] = []
    checks: list[Check] = []
    for k, size in enumerate(SIZES):
        low, coarse = parts[k][0], k == len(SIZES) - 1
        z = torch.zeros(1, *model.G.noise[k])
        g = layers(model.G.net[k], partial(model.generated, k, z, None if coarse else low, None))
        d = layers(model.D.net[k], partial(model.D.net[k], low))
        expected = {"G": G_COARSE if coarse else G_DETAILS, "D": D_COARSE if coarse else D_DETAILS[size]}
        for name, net in (("G", g), ("D", d)):
            weighted = [layer for layer in net if layer.weights]
            checks += [
                check(f"{name} at {size} px, layer {i}: parameters", n, layer.parameters)
                for i, (n, layer) in enumerate(zip(expected[name], weighted, strict=True), 1)
            ]
            noise = "×".join(map(str, model.G.noise[k][-2:])) if name == "G" else "–"
            total = parameters(model)[f"{name}{k}"]["trainable"]
            rows.append((f"{name} at {size} px", noise, total, sum(layer.macs for layer in net)))
    bench.section(
        "Three GANs",
        "Each level has a generator and a discriminator of its own, and they never meet: a level is trained on real"
        " low-pass images, so its step needs no other level, and three people could train them on three machines. The"
        " two finer generators are the same convolutions at two sizes, and cost four times as much at the larger one."
        " D is shown l + h and not h alone: an image is easier to judge than details without one.",
        table=Table(("net", "noise", "parameters", "multiply-adds of weights"), rows),
        checks=checks,
    )


def _levels(bench: Bench, model: Any) -> None:
    with torch.inference_mode():
        z = model.prior.sample(_SHOWN, torch.Generator().manual_seed(bench.seed))
        parts = model.G.images(z)
    rows = {f"{SIZES[-1]} px": _shown(parts[-1][0])}
    for size, (low, h) in reversed(list(zip(SIZES[:-1], parts, strict=False))):
        rows |= {f"l at {size} px": _shown(low), f"h at {size} px": _shown(h), f"l + h, {size} px": _shown(low + h)}
    figure = bench.figure(
        "levels",
        draw.image_rows(rows),
        "The first samples, level by level, not selected.",
        "Rows from coarse images of 7 pixels over low-pass images and details to images of 28 pixels",
    )
    bench.section("From coarse to fine", _LEVELS, figure)


def _one_low_pass(bench: Bench, model: Any) -> None:
    x = bench.test_set.evenly_spaced(_ROWS).x
    low = model.parts(x)[0][0]
    generator = torch.Generator().manual_seed(bench.seed)
    with torch.inference_mode():
        noise = 2 * torch.rand(_DRAWS, 1, *model.G.noise[0], generator=generator) - 1
        drawn = [model.generated(0, z.expand(len(x), -1, -1, -1), low, None) for z in noise]
    columns = torch.stack([x, low, *drawn], 1)  # (rows, columns, C, H, W)
    rows = {f"image {i}": _shown(row) for i, row in enumerate(columns, 1)}
    heads = ["x", "l", *(f"z {i + 1}" for i in range(_DRAWS))]
    figure = bench.figure(
        "one-low-pass",
        draw.image_rows(rows, headings=heads),
        "One low-pass image, several noise planes.",
        "Rows of images: a real one, its low-pass image, and seven images with drawn details",
    )
    scored = bench.test_set.evenly_spaced(200).x
    found = {f"{SIZES[k]} px": spread(model, scored, k, bench.seed) for k in range(len(SIZES) - 1)}
    bench.results["details"] = {name: dict(zip(("real", "drawn", "of_noise"), v)) for name, v in found.items()}
    bench.section(
        "One low-pass image, several details",
        f"{_DRAWN_TWICE} The table has standard deviations, on [-1,1], for {len(scored)} held-out images.",
        figure,
        table=Table(
            ("level", "real details", "drawn details", "of them between draws on one low-pass image"),
            [(name, *(f"{v:.3f}" for v in values)) for name, values in found.items()],
        ),
    )


def _accuracies(bench: Bench) -> None:
    lines = bench.runs["lapgan"].metrics()
    images = [float(line["images"]) for line in lines]
    window = max(1, len(lines) // 60)
    series = {
        f"{size} px": (images, gan_sections.smooth([line[f"term/accuracy_D{k}"] for line in lines], window))
        for k, size in enumerate(SIZES)
    }
    figure, (ax,) = draw.plots(1)
    draw.curves(ax, series, xlabel="images seen", title="share of a batch that D has right")
    draw.in_thousands(ax)
    ax.axhline(0.5, color=draw.SOFT, linewidth=0.8, linestyle=":")
    tenth = lines[-max(1, len(lines) // 10) :]
    last = {
        f"{size} px": sum(line[f"term/accuracy_D{k}"] for line in tenth) / len(tenth) for k, size in enumerate(SIZES)
    }
    bench.results["accuracy"] = last
    said = ", ".join(f"{value:.0%} at {name}" for name, value in last.items())
    bench.section(
        "What each D can tell",
        "The share of real and generated images of a batch that D has right, as the mean of both kinds, smoothed over"
        f" {window} of the logged steps. One half is guessing. Dropout is on while D is trained, so this"
        f" is a little low. In the last tenth of the training: {said}.",
        bench.figure(
            "accuracy",
            figure,
            "How often the discriminator of each level is right.",
            "Three curves over images seen between one half and one",
        ),
    )


def _scores(bench: Bench, model: Any, dcgan: GenerativeModel) -> dict[str, Scored]:
    """Distances of samples, and of images with real coarse levels; empty, and the page says why, if there are none."""
    bench.progress.say(f"lab {bench.lab}: scoring")
    try:
        reference = _reference(bench)
    except LimnerError as error:  # too few images for the features of the extractor
        bench.section("No distances", f"Samples are not scored: {error}.")
        return {}
    x = bench.train_set.evenly_spaced(min(_SAMPLES, len(bench.train_set))).x
    parts = model.parts(x)
    sets = {
        "dcgan": dcgan.sample(_SAMPLES, seed=bench.seed),
        "lapgan": model.sample(_SAMPLES, seed=bench.seed),
        "real at 7 px, details drawn": refined(model, x, 2, bench.seed),
        "real at 14 px, finest details drawn": refined(model, x, 1, bench.seed),
        "real at 14 px, no details": parts[0][0].clamp(-1, 1),
        "real images": x,
    }
    return {name: _score(reference, images) for name, images in sets.items()}


def _compared(
    bench: Bench, models: dict[str, GenerativeModel], cost: dict[str, float], found: dict[str, Scored]
) -> None:
    last = {name: (bench.runs[name].metrics() or [{}])[-1] for name in models}
    rows: list[tuple[Any, ...]] = []
    for name, model in models.items():
        images, score = last[name]["images"], found.get(name)
        weights = sum(group["trainable"] for group in parameters(model).values())
        work, seconds = images * cost[name], last[name]["seconds"]
        scores = ("–", "–", "–") if score is None else (f"{score.fd:.2f}", *_shares(score))
        rows.append((name, images, f"{cost[name] / 1e6:.1f}", f"{work / 1e12:.2f}", f"{seconds:.0f}", weights, *scores))
    ours, theirs = (last[name]["images"] * cost[name] for name in models)
    step = BATCH * cost["dcgan"]
    bench.results["cost"] = {
        name: {"images": last[name]["images"], "flops_per_image": cost[name], "seconds": last[name]["seconds"]}
        for name in models
    }
    bench.results["scores"] = {name: asdict(score) for name, score in found.items()}
    grids = {name: draw.image_grid(model.sample(64, seed=bench.seed), 8) for name, model in models.items()}
    figure = bench.figure(
        "beside",
        draw.side_by_side(grids),
        "The first 64 samples of both.",
        "Two grids of samples: of LAPGAN on the left, of DCGAN on the right",
    )
    bench.section(
        "One large GAN of as much computation",
        f"A DCGAN, with nets of width {WIDTH}, is trained on so many of the same images that its convolutions and"
        " products take as many floating-point operations as LAPGAN's: forwards and backwards, of discriminators and"
        " generators. Seconds are of the clock, with whatever else this machine did, and need not go with the"
        " operations: a few channels on a large map take longer than many on a small one.",
        figure,
        table=Table(
            ("model", "images", "Mflop an image", "Tflop", "seconds", "parameters", "FD", "density", "coverage"), rows
        ),
        checks=[
            check(
                "Tflop of DCGAN's training, to a step of it",
                f"{ours / 1e12:.4f} ± {step / 1e12:.4f}",
                f"{theirs / 1e12:.4f}",
                abs(ours - theirs) <= step,
            )
        ],
    )
    if not found:
        return
    bench.section(
        "Which level costs the distance",
        "Each level was trained on real low-pass images, and in drawing gets those that the level before has drawn. So"
        f" give it real ones: {_SAMPLES:,} training images are the start, at 7 or at 14 pixels, and only what is finer"
        " is drawn. The row without details is what enlarging alone gives. Fréchet distance to held-out images, lower"
        " is better; clipped density and clipped coverage, higher is better.",
        table=Table(
            ("images", "FD", "density", "coverage"),
            [(name, f"{s.fd:.2f}", *_shares(s)) for name, s in found.items()],
        ),
    )
    bench.claim(
        "From coarse to fine is better than one GAN of as much computation",
        f"Fréchet distance {found['lapgan'].fd:.1f}, and {found['dcgan'].fd:.1f} of a DCGAN",
        found["lapgan"].fd <= found["dcgan"].fd,
    )
    kept, blurred = found["real at 14 px, finest details drawn"], found["real at 14 px, no details"]
    bench.claim(
        "The finest level adds details that are missing",
        f"Fréchet distance {kept.fd:.1f} with details on real images of 14 pixels, {blurred.fd:.1f} without",
        kept.fd < blurred.fd,
    )


def _shares(score: Scored) -> tuple[str, str]:
    return f"{score.density:.3f}", f"{score.coverage:.3f}"
