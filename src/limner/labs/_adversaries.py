"""What both GAN labs draw: samples over time from the same noise, both losses, what D believes, and how good it is."""

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
from limner.labs import _judge as judge
from limner.labs._bench import Bench
from limner.latent.neighbours import nearest
from limner.report import Table

PARTS = 10  # of a training: epochs, for the lecture
_LOOK = 500  # samples judged at each part


def train(
    bench: Bench, label: str, recipe: str, changes: Mapping[str, Any] | None = None, *, images: int | None = None
) -> GenerativeModel:
    """Trains with a log line for every step, a sheet twice and a checkpoint once in each tenth."""
    part = max(64, (images or bench.images) // PARTS)
    often = {
        "train.log_images": 1,
        "train.sample_images": max(64, part // 2),
        "train.checkpoint_images": part,
        "train.keep": PARTS + 1,
    }
    return bench.train(label, recipe, often | dict(changes or {}), images=images)


@dataclass(frozen=True)
class Part:
    """A tenth of a training.

    Attributes:
        images: seen at its end.
        mean_D: mean loss of D over it.
        mean_G: mean loss of G over it.
        last_D: loss of D at its last batch.
        last_G: loss of G at its last batch.
        distance: from a held-out image to the nearest sample, at its end (see `quality`).
        agreement: of the samples' neighbours, at its end.
        classes: effective number of classes drawn, at its end.
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
    """Losses and quality, tenth by tenth."""
    lines = run.metrics()
    found = []
    for before, after in pairwise([0, *(int(folder.name) for folder in folders(run.checkpoints))]):
        own = [line for line in lines if before < line["images"] <= after]
        mean_D, mean_G = (sum(line[f"loss/{g}"] for line in own) / len(own) for g in "DG")
        x = api.load(run.checkpoints / f"{after:08d}").sample(_LOOK, seed=bench.seed)
        found.append(Part(after, mean_D, mean_G, own[-1]["loss/D"], own[-1]["loss/G"], *quality(bench, x)))
    return found


def quality(bench: Bench, x: Tensor) -> tuple[float, float, float]:
    """How good images x (N,C,H,W) are, in three numbers that need no opponent.

    Returns:
        The mean distance from a held-out image to the nearest of x, as root mean squared difference of pixels on
        [-1,1]: it asks for clear images and for all kinds of them. The agreement of neighbours (see `_judge`). And e to
        the entropy of the classes of the nearest images: their number if all come equally often, 1 if there is but one.
    """
    apart, _ = nearest(x, bench.test_set.x, 1)
    labels = judge.neighbour_labels(bench.train_set, x)
    share = torch.bincount(labels[:, 0], minlength=len(bench.train_set.classes)).double() / len(x)
    entropy = -float(torch.special.xlogy(share, share).sum())
    return float(apart.mean()) / math.sqrt(x[0].numel()), judge.agreed(labels), math.exp(entropy)


def strip(bench: Bench, run: Run, title: str = "Early, in the middle, late", text: str = "") -> None:
    """The sheets of the same noise: before, early, in the middle, at the end."""
    sheets = run.samples()
    picked = dict.fromkeys((0, min(2, len(sheets) - 1), len(sheets) // 2, len(sheets) - 1))
    named = {f"{sheets[i][0]:,} images": draw.opened(sheets[i][1]) for i in picked}
    bench.section(
        title,
        "The same 64 noise vectors each time: what changes is the generator alone. The report of the run has every"
        f" sheet on a slider.\n\n{text}",
        bench.figure(
            f"strip-{run.name}",
            draw.beside(named),
            "Samples from fixed noise as training goes on, by images seen.",
            "Four grids of samples from the same noise vectors, at four moments of the training.",
        ),
    )


def curves(bench: Bench, run: Run) -> None:
    """Both losses, and what D believes of real and made images."""
    lines = run.metrics()
    seen = [line["images"] for line in lines]
    window = max(1, len(lines) // 150)
    figure, (left, right) = draw.plots(2)
    losses = {
        name: (seen, smooth([line[f"loss/{g}"] for line in lines], window)) for name, g in (("D", "D"), ("G", "G"))
    }
    draw.curves(left, losses, xlabel="images seen", title="loss")
    believed = {
        name: (seen, smooth([sigmoid(line[f"logit/{kind}"]) for line in lines], window))
        for name, kind in (("D(x), real", "real"), ("D(G(z)), made", "fake"))
    }
    draw.curves(right, believed, xlabel="images seen", title="what D believes")
    right.set_ylim(0, 1)
    right.axhline(0.5, color=draw.SOFT, linewidth=0.8, linestyle=":")
    for ax in (left, right):
        draw.thousands(ax)
    bench.section(
        "Losses, and what D believes",
        "D's loss is the plain sum of its two terms: log 4 = 1.386 where it can tell nothing. Both curves are means"
        f" over {window} steps. D(x) and D(G(z)) are the sigmoid of D's mean logit over a batch; at the balance that"
        " the theory speaks of, both are one half.",
        bench.figure(
            "curves",
            figure,
            "Left, both losses. Right, the probability of being real that D gives to real and to made images.",
            "Two charts over images seen: losses of D and G; D's belief in real images above that in made ones.",
        ),
    )


def smooth(values: list[float], window: int) -> list[float]:
    """Means over `window` values up to each.

    >>> smooth([1.0, 3.0, 5.0], 2)
    [1.0, 2.0, 4.0]
    """
    out, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        out.append(total / min(i + 1, window))
    return out


def sigmoid(logit: float) -> float:
    """Probability of a logit."""
    return 0.5 * (1 + math.tanh(logit / 2))


def not_quality(bench: Bench, found: list[Part], which: str = "") -> None:
    """Losses beside a measure of quality: one does not tell the other."""
    bench.results["parts"] = [asdict(part) for part in found]
    seen = [part.images for part in found]
    figure, (left, right) = draw.plots(2, height=2.9)
    losses = {g: (seen, [getattr(part, f"mean_{g}") for part in found]) for g in "DG"}
    draw.curves(left, losses, xlabel="images seen", title="mean loss over each tenth", marker="o")
    distance = {"samples": (seen, [part.distance for part in found])}
    draw.curves(right, distance, xlabel="images seen", title="from a held-out image to the nearest sample", marker="o")
    real, *_ = quality(bench, bench.train_set.spread(_LOOK).x)
    right.axhline(real, color=draw.COLOURS[1], linewidth=1)
    for ax in (left, right):
        draw.thousands(ax)
    bench.section(
        "Losses do not say how good it is",
        f"{which}Each loss is measured against an opponent that moves, so a falling loss is no progress and a rising"
        " one no failure. Beside them, numbers that need no opponent. Distance: from a held-out image to the"
        f" nearest of {_LOOK} samples, as root mean squared difference of pixels on [-1,1]; it falls if samples"
        " become clear and if there are all kinds of them. Agreement: of the ten training images nearest to a"
        " sample, the share that have the commonest class among them, high for clear digits. Classes: how many are"
        " drawn, weighed by how evenly; a generator that draws one thing only has a 1 there.",
        bench.figure(
            "quality",
            figure,
            f"Left, losses. Right, the distance; the line is that of as many training images, {real:.3f}.",
            "Two charts: losses of D and G on the left, a distance that measures quality on the right.",
        ),
        table=Table(
            ("images seen", "mean loss D", "mean loss G", "distance", "agreement", "classes"),
            [(p.images, p.mean_D, p.mean_G, p.distance, f"{p.agreement:.1%}", round(p.classes, 1)) for p in found],
        ),
    )
    r = correlation([p.mean_G for p in found], [p.distance for p in found])
    bench.claim(
        "Losses do not measure quality",
        f"correlation of G's loss with the distance over the tenths of the training {r:+.2f}; +1 were a measure of"
        " quality",
        r < 0.5,
    )


def correlation(a: list[float], b: list[float]) -> float:
    """Pearson's correlation; 0 where one of the two does not vary.

    >>> correlation([1.0, 2.0, 4.0], [3.0, 5.0, 9.0])
    1.0
    """
    x, y = (torch.tensor(v, dtype=torch.float64) - sum(v) / len(v) for v in (a, b))
    scale = float(x.norm() * y.norm())
    return round(float(x @ y) / scale, 12) if scale > 0 else 0.0
