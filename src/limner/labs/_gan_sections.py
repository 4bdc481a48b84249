"""Sections of both GAN labs: samples over time from the same noise, losses, outputs of D, and quality of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from limner import api
from limner.core.checkpoint import folders
from limner.core.model import GenerativeModel
from limner.core.run import Run
from limner.labs import _figures as draw
from limner.labs import _realism as realism
from limner.labs._bench import Bench
from limner.latent.neighbours import nearest
from limner.report import Table

PARTS = 10  # parts of a training; the lecture has as many epochs
_SAMPLES = 500  # samples scored after each part


def train(
    bench: Bench, label: str, recipe: str, changes: Mapping[str, Any] | None = None, *, images: int | None = None
) -> GenerativeModel:
    """Trains with a log line for every step; each tenth has two grids of samples and a checkpoint."""
    interval = max(64, (images or bench.images) // PARTS)
    logging = {
        "train.log_images": 1,
        "train.sample_images": max(64, interval // 2),
        "train.checkpoint_images": interval,
        "train.keep": PARTS + 1,
    }
    return bench.train(label, recipe, logging | dict(changes or {}), images=images)


@dataclass(frozen=True)
class Part:
    """A tenth of a training.

    Attributes:
        images: images seen at its end.
        mean_D: mean loss of D.
        mean_G: mean loss of G.
        last_D: loss of D at the last batch.
        last_G: loss of G at the last batch.
        distance: distance from a held-out image to the nearest sample at its end (see `quality`).
        agreement: agreement of the samples' neighbours at its end.
        classes: effective number of generated classes at its end.
    """

    images: int
    mean_D: float
    mean_G: float
    last_D: float
    last_G: float
    distance: float
    agreement: float
    classes: float


def parts(bench: Bench, run: Run) -> list[Part]:
    """Losses and quality of each tenth."""
    lines = run.metrics()
    result = []
    for before, after in pairwise([0, *(int(folder.name) for folder in folders(run.checkpoints))]):
        interval = [line for line in lines if before < line["images"] <= after]
        mean_D, mean_G = (sum(line[f"loss/{g}"] for line in interval) / len(interval) for g in "DG")
        x = api.load(run.checkpoints / f"{after:08d}").sample(_SAMPLES, seed=bench.seed)
        result.append(Part(after, mean_D, mean_G, interval[-1]["loss/D"], interval[-1]["loss/G"], *quality(bench, x)))
    return result


def quality(bench: Bench, x: Tensor) -> tuple[float, float, float]:
    """Quality of images x (N,C,H,W) in three numbers that do not depend on D.

    Returns:
        The mean distance from a held-out image to the nearest of x, as root mean squared difference of pixels on
        [-1,1]: it asks for clear images and for all kinds of them. The agreement of neighbours (see `_realism`). The
        effective number of classes of the nearest images, e to their entropy: 1 if there is only one class.
    """
    distances, _ = nearest(x, bench.test_set.x, 1)
    labels = realism.neighbour_labels(bench.train_set, x)
    share = torch.bincount(labels[:, 0], minlength=len(bench.train_set.classes)).double() / len(x)
    entropy = -float(torch.special.xlogy(share, share).sum())
    return float(distances.mean()) / math.sqrt(x[0].numel()), realism.majority_share(labels), math.exp(entropy)


def samples_over_time(bench: Bench, run: Run, title: str = "Early, in the middle, late", text: str = "") -> None:
    """Adds grids of samples from the same noise: before, early, in the middle and at the end."""
    grids = run.samples()
    indices = dict.fromkeys((0, min(2, len(grids) - 1), len(grids) // 2, len(grids) - 1))
    named = {f"{grids[i][0]:,} images": draw.open_grid(grids[i][1]) for i in indices}
    bench.section(
        title,
        "The noise vectors are the same 64 each time: only the generator changes. The report of the run has every"
        f" grid on a slider.\n\n{text}",
        bench.figure(
            f"strip-{run.name}",
            draw.side_by_side(named),
            "Samples from fixed noise as training goes on, by images seen.",
            "Four grids of samples from the same noise vectors, at four moments of the training.",
        ),
    )


def curves(bench: Bench, run: Run) -> None:
    """Adds curves of both losses, and of the probabilities that D gives to real and generated images."""
    lines = run.metrics()
    images = [line["images"] for line in lines]
    window = max(1, len(lines) // 150)
    figure, (left, right) = draw.plots(2)
    losses = {g: (images, smooth([line[f"loss/{g}"] for line in lines], window)) for g in "DG"}
    draw.curves(left, losses, xlabel="images seen", title="loss")
    probabilities = {
        name: (images, smooth([sigmoid(line[f"logit/{kind}"]) for line in lines], window))
        for name, kind in (("D(x), real", "real"), ("D(G(z)), generated", "fake"))
    }
    draw.curves(right, probabilities, xlabel="images seen", title="output of D, as a probability")
    right.set_ylim(0, 1)
    right.axhline(0.5, color=draw.SOFT, linewidth=0.8, linestyle=":")
    for ax in (left, right):
        draw.in_thousands(ax)
    bench.section(
        "Losses, and outputs of D",
        "D's loss is the plain sum of its two terms: log 4 = 1.386 where it cannot tell real from generated. Both"
        f" curves are means over {window} steps. D(x) and D(G(z)) are the sigmoid of D's mean logit over a batch; at"
        " the equilibrium of the theory, both are one half.",
        bench.figure(
            "curves",
            figure,
            "Left, both losses. Right, the probability of being real that D gives to real and to generated images.",
            "Two charts over images seen: losses of D and G; D's output for real images above that for generated ones.",
        ),
    )


def smooth(values: list[float], window: int) -> list[float]:
    """The mean of the last `window` values at each position.

    >>> smooth([1.0, 3.0, 5.0], 2)
    [1.0, 2.0, 4.0]
    """
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        means.append(total / min(i + 1, window))
    return means


def sigmoid(logit: float) -> float:
    """The probability of a logit."""
    return 0.5 * (1 + math.tanh(logit / 2))


def losses_and_quality(bench: Bench, parts: list[Part], prefix: str = "") -> None:
    """Adds losses beside a measure of quality, to show that they do not measure it."""
    bench.results["parts"] = [asdict(part) for part in parts]
    images = [part.images for part in parts]
    figure, (left, right) = draw.plots(2, height=2.9)
    losses = {g: (images, [getattr(part, f"mean_{g}") for part in parts]) for g in "DG"}
    draw.curves(left, losses, xlabel="images seen", title="mean loss over each tenth", marker="o")
    distance = {"samples": (images, [part.distance for part in parts])}
    draw.curves(right, distance, xlabel="images seen", title="from a held-out image to the nearest sample", marker="o")
    real, *_ = quality(bench, bench.train_set.evenly_spaced(_SAMPLES).x)
    right.axhline(real, color=draw.COLOURS[1], linewidth=1)
    for ax in (left, right):
        draw.in_thousands(ax)
    bench.section(
        "Losses do not measure quality",
        f"{prefix}Each loss is measured against an opponent that changes, so a falling loss is not progress and a"
        " rising one is not failure. Beside them are numbers that do not depend on an opponent. Distance: from a"
        f" held-out image to the nearest of {_SAMPLES} samples, as root mean squared difference of pixels on [-1,1];"
        " it falls if samples become clear and if every kind of image occurs. Agreement: of the ten training images"
        " nearest to a sample, the share that have the commonest class among them, high for clear digits. Classes:"
        " their effective number, the exponential of the entropy; a generator of a single class has a 1 there.",
        bench.figure(
            "quality",
            figure,
            f"Left, losses. Right, the distance; the line is that of as many training images, {real:.3f}.",
            "Two charts: losses of D and G on the left, a distance that measures quality on the right.",
        ),
        table=Table(
            ("images seen", "mean loss D", "mean loss G", "distance", "agreement", "classes"),
            [(p.images, p.mean_D, p.mean_G, p.distance, f"{p.agreement:.1%}", round(p.classes, 1)) for p in parts],
        ),
    )
    r = correlation([p.mean_G for p in parts], [p.distance for p in parts])
    bench.claim(
        "Losses do not measure quality",
        f"correlation of G's loss with the distance over the tenths of the training {r:+.2f}; +1 would be a"
        " measure of quality",
        r < 0.5,
    )


def correlation(a: list[float], b: list[float]) -> float:
    """Pearson's correlation of a and b; 0 if one of them does not vary.

    >>> correlation([1.0, 2.0, 4.0], [3.0, 5.0, 9.0])
    1.0
    """
    x, y = (torch.tensor(v, dtype=torch.float64) - sum(v) / len(v) for v in (a, b))
    scale = float(x.norm() * y.norm())
    return round(float(x @ y) / scale, 12) if scale > 0 else 0.0
