"""InfoGAN: codes that G has to keep readable, and nobody names (Chen et al. 2016, arXiv:1606.03657).

G gets a code c1 of ten values, two uniform codes c2 and c3, and noise. Q reads the codes from generated images, and the
bound of the mutual information, E log Q(c1|G) + H(c1), is a part of G's loss. It cannot exceed H(c1) = log 10. Whether
the ten values are the ten digits is another question: a held-out image gets the value that Q reads, and values and
digits are matched one to one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from limner.config import recipe
from limner.core.capabilities import EstimatesCodes
from limner.core.model import GenerativeModel
from limner.core.paths import BUILTIN
from limner.core.units import Count
from limner.labs import _figures as draw
from limner.labs import _gan_sections as gan_sections
from limner.labs._bench import Bench, check, check_close
from limner.labs._layers import layers
from limner.labs.four_families import attributes
from limner.losses import likelihood
from limner.metrics.extractors.readers import SmallReader, reading
from limner.metrics.matching import match
from limner.report import Table

IMAGES = 50_000

NOISE, VALUES, UNIFORM = 62, 10, 2
G_WEIGHTS = (75_776, 6_422_528, 131_072, 1_024)  # 74·1024, 1024·(7·7·128), 128·64·4·4, and 64·1·4·4
D_WEIGHTS = (1_024, 131_072, 6_422_528, 1_024)  # 1·64·4·4, 64·128·4·4, (128·7·7)·1024, and 1024·1
Q_WEIGHTS = (131_072, 1_536)  # 1024·128, and 128·(10 + 1 + 1)
_PAPER = {"model.G.widths": [128, 64], "model.G.hidden": 1024, "model.D.widths": [64, 128], "model.D.hidden": 1024}
_SHORT = {"model.D.norm": "none", "model.D.spectral": True, "optim.D.lr": 4e-4}  # with which the bound rises sooner
_MULTIPLY = ("Linear", "Conv2d", "ConvTranspose2d")
_ROWS = 8  # of the sheet
_STEPS = 10  # of a row along a uniform code
_SAMPLES = 1000  # whose slant, width and ink are measured
_NAMES = ("slant", "width", "ink")
_REACHED = 2.2  # of log 10 nats

_CODES = (
    "G draws an image of 62 numbers of noise and of three codes: c1 is one of ten values, and c2 and c3 are numbers"
    " from -1 to 1. Q looks at the image through D's layers and guesses the codes. What it knows of c1 is at least"
    " E log Q(c1|image) + H(c1) nats: 0 for a guess at random, H(c1) = log 10 if it is certain and right. G and D both"
    " gain from that bound. No label is used anywhere.\n\n"
    "For a uniform code Q is a normal distribution with standard deviation 1, as in the authors' code. Even if its mean"
    " is always right, the bound is log 2 − ½ log 2π < 0; so for c2 and c3 only its rise says something."
)
_DIGITS = (
    "Values of c1 are matched with digits one to one, so that as many images as possible agree. The control matches"
    " after the values were shuffled among the images; it is above 1/10 because a matching always finds something.\n\n"
    "There are two sides. *G's side*: {n:,} images are drawn, as many of each value, and a small net that learnt digits"
    " from labelled images ({ceiling:.1%} of held-out ones are right) reads them. *Q's side*: Q reads c1 from held-out"
    " images, which the training never saw; the paper's 5 % of error is of this kind. Q learnt from generated images"
    " only, so it can fail here though G has put digits and values together.\n\n"
    "A bound near log 10 makes neither of them high. It says that generated images tell c1, and any split of the images"
    " into ten parts of equal size that Q can see would do as well as digits. Which one a training finds depends on its"
    " seed."
)
_SLOW = (
    "Each row has one value of c1 and one noise vector, and a uniform code goes from -1 to 1. The table has the"
    " correlation of each code with three properties that are computed from the pixels of {n:,} samples: slant, width"
    " of the digit, and ink. Nobody told G which code is which, so a property may show in either of them, or in none."
)


@dataclass(frozen=True)
class Found:
    """What a training found.

    Attributes:
        bound: mean bound of c1 in the last tenth of the training, in nats.
        generated: share of samples whose c1 is matched to the class that a reader reads.
        accuracy: share of held-out images whose c1, as Q reads it, is matched to their class.
        shuffled: the same with shuffled values.
        pairs: (value, class) of each match.
        counts: (values, classes) numbers of held-out images.
    """

    bound: float
    generated: float
    accuracy: float
    shuffled: float
    pairs: tuple[tuple[int, int], ...]
    counts: list[list[int]]


def run(bench: Bench, *, seeds: Annotated[Count, Field(ge=1)] = 2) -> None:
    """Trains with one seed after another, then measures what the codes are.

    Args:
        bench: collects the results.
        seeds: number of trainings, which differ in their seed. Raise it to see how much depends on the seed.
    """
    _codes(bench)
    models: dict[str, GenerativeModel] = {}
    for k in range(seeds):
        label = f"seed-{bench.seed + k}"
        changes = _SHORT | {"train.seed": bench.seed + k, "train.log_images": max(128, bench.images // 100)}
        models[label] = bench.train(label, "infogan-mnist", changes)
    train, test = bench.train_set, bench.test_set
    reader = SmallReader.trained(train.x, train.y[:, None], {"class": train.classes}, seed=bench.seed)
    ceiling = float((_read(reader, test.x) == test.y).double().mean())
    found = {label: _found(bench, label, model, reader) for label, model in models.items()}
    bench.results["seeds"] = {label: asdict(f) for label, f in found.items()}
    best = max(found, key=lambda label: found[label].accuracy)
    _bounds(bench, found)
    _sheet(bench, models[best], best, found[best])
    _digits(bench, found, best, ceiling)
    _uniform(bench, models[best])
    gan_sections.curves(bench, bench.runs[best])
    bounds, right = [f.bound for f in found.values()], [f.accuracy for f in found.values()]
    bench.claim(
        f"c1 can be read from generated images: its bound reaches {_REACHED:g} of {math.log(VALUES):.2f} nats",
        f"{_listed(bounds)} nats",
        min(bounds) >= _REACHED,
    )
    bench.claim(
        "c1 is the digit, with 5 % of error (the paper, section 7.2)",
        f"{_listed(right)} of held-out images; {_listed([f.shuffled for f in found.values()])} with shuffled values;"
        f" {_listed([f.generated for f in found.values()])} of samples",
        max(right) >= 0.95,
    )


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.3f}" for v in values)


# ---- the codes and the nets ------------------------------------------------------------------------------------------


def _codes(bench: Bench) -> None:
    facts = bench.dataset("train").facts()
    model: GenerativeModel = recipe.load(f"{BUILTIN}infogan-mnist", _PAPER).model.build(**facts)
    groups = model.eval().groups()
    D, Q = groups["D"].children()
    image = model.sample(1, seed=bench.seed)
    measured = {
        "G": layers(groups["G"], lambda: model.sample(1, seed=bench.seed)),
        "D": layers(D, lambda: D(image)),
        "Q": layers(groups["D"], lambda: model.estimate_codes(image)),  # type: ignore[operator]
    }
    of_q = len(list(Q.modules())) - 1
    weights = {
        net: [layer.weights for layer in (found[-of_q:] if net == "Q" else found) if layer.kind in _MULTIPLY]
        for net, found in measured.items()
    }
    printed = {"G": G_WEIGHTS, "D": D_WEIGHTS, "Q": Q_WEIGHTS}
    values = {"c1": VALUES, "c2": 0, "c3": 0}
    c = torch.linspace(-1, 1, 5)[:, None]
    best = float(likelihood.gaussian(c, torch.zeros_like(c), c).mean()) + math.log(2)
    sure = torch.eye(VALUES)
    most = float(likelihood.categorical(100 * sure, sure).mean()) + math.log(VALUES)
    bench.section(
        "Codes that nobody named",
        _CODES,
        table=Table(
            ("weights of the paper's nets", *(f"layer {i + 1}" for i in range(4))),
            [(net, *(f"{n:,}" for n in row), *[""] * (4 - len(row))) for net, row in weights.items()],
        ),
        checks=[
            check("inputs of G: noise and codes", NOISE + VALUES + UNIFORM, weights["G"][0] // 1024),
            check("codes of the recipe", values, getattr(model, "code_values", None)),
            *(check(f"weights of {net}", printed[net], tuple(weights[net])) for net in printed),
            check_close("highest bound of c1: log 10", 2.302585, most, 1e-5),
            check_close("highest bound of a uniform code: log 2 − ½ log 2π", -0.225791, best, 1e-5),
        ],
    )


# ---- what the trainings found ----------------------------------------------------------------------------------------


def _read(reader: SmallReader, x: Tensor) -> Tensor:
    return reading(reader.logits(x), reader.values, reader.values)[:, 0]


@torch.inference_mode()
def _found(bench: Bench, label: str, model: GenerativeModel, reader: SmallReader) -> Found:
    assert isinstance(model, EstimatesCodes)
    test = bench.test_set
    c1 = torch.cat([model.estimate_codes(x)[:, 0] for x in test.x.split(250)])
    best = match(c1, test.y, VALUES, len(test.classes))
    values = torch.arange(VALUES).repeat_interleave(_SAMPLES // VALUES)
    x = torch.cat([model.sample(_SAMPLES // VALUES, seed=bench.seed + k, **_code("c1", k)) for k in range(VALUES)])
    drawn = match(values, _read(reader, x), VALUES, len(test.classes))
    lines = bench.runs[label].metrics()
    last = [line["term/bound_c1"] for line in lines[-max(1, len(lines) // 10) :]]
    bound = sum(last) / len(last)
    return Found(bound, drawn.accuracy, best.accuracy, best.floor, best.pairs, best.counts.tolist())


def _bounds(bench: Bench, found: dict[str, Found]) -> None:
    figure, (ax,) = draw.plots(1, height=3.0)
    curves = {}
    for label in found:
        lines = bench.runs[label].metrics()
        bounds = gan_sections.smooth([line["term/bound_c1"] for line in lines], max(1, len(lines) // 30))
        curves[label.replace("-", " ")] = ([line["images"] for line in lines], bounds)
    draw.curves(ax, curves, xlabel="images seen", title="bound of c1, nats")
    ax.axhline(math.log(VALUES), color=draw.SOFT, linewidth=0.8, linestyle=":")
    draw.in_thousands(ax)
    bench.section(
        "What an image tells of c1",
        "Trained are the nets of infogan-mnist, half as wide as the paper's, and D has spectral norm in place of batch"
        " norm: the bound then rises sooner.\n\nThe bound of the mutual information of c1 and the image, as training"
        " goes on. The dotted line is log 10 ="
        f" {math.log(VALUES):.3f}, all that there is to know.",
        bench.figure(
            "bounds",
            figure,
            "The bound of c1 over images seen, and the entropy of c1.",
            "A curve for each seed, below a dotted line.",
        ),
    )


def _sheet(bench: Bench, model: GenerativeModel, label: str, found: Found) -> None:
    columns = [model.sample(_ROWS, seed=bench.seed, c1=k) for k in range(VALUES)]
    rows = {f"z {i + 1}": torch.cat([column[i : i + 1] for column in columns]) for i in range(_ROWS)}
    named = dict(found.pairs)
    classes = bench.test_set.classes
    headings = [f"{k} = {classes[named[k]]}" if k in named else str(k) for k in range(VALUES)]
    bench.section(
        "A column for each value of c1",
        f"All else is shared in a row: noise, c2 and c3. Above each column stands the digit that its value is matched"
        f" to, of {label.replace('-', ' ')}, which has the most images right.",
        bench.figure(
            "sheet",
            draw.image_rows(rows, headings=headings),
            "Samples: a row for each draw of noise, c2 and c3, a column for each value of c1.",
            "A grid of samples with the values of c1 and their digits above the columns.",
        ),
    )


def _digits(bench: Bench, found: dict[str, Found], best: str, ceiling: float) -> None:
    classes = bench.test_set.classes
    rows = [
        (
            label.replace("-", " "),
            f"{f.bound:.3f}",
            *(f"{share:.1%}" for share in (f.generated, f.accuracy, f.shuffled)),
        )
        for label, f in found.items()
    ]
    names = ("training", "bound of c1, nats", "G's side: samples", "Q's side: held-out images", "shuffled values")
    bench.section("Is c1 the digit?", _DIGITS.format(n=_SAMPLES, ceiling=ceiling), table=Table(names, rows))
    named = dict(found[best].pairs)
    bench.section(
        "Which digits a value has",
        f"Held-out images by the value that Q of {best.replace('-', ' ')} reads. A value that is a digit has one large"
        " number in its row; where two digits share a value, another value has to share a digit.",
        table=Table(
            ("c1", *classes, "matched to"),
            [(k, *row, classes[named[k]] if k in named else "–") for k, row in enumerate(found[best].counts)],
        ),
    )


def _uniform(bench: Bench, model: GenerativeModel) -> None:
    rows: dict[str, Tensor] = {}
    ends = torch.linspace(-1, 1, _STEPS).tolist()
    for name in ("c2", "c3"):
        for k in (0, 3, 7):
            steps = [model.sample(1, seed=bench.seed + k, c1=k, **_code(name, v)) for v in ends]
            rows[f"{name}, c1 = {k}"] = torch.cat(steps)
    correlations = code_correlations(model, bench.seed)
    bench.results["uniform codes"] = correlations
    bench.section(
        "Along c2 and c3",
        _SLOW.format(n=_SAMPLES),
        bench.figure(
            "uniform",
            draw.image_rows(rows, headings=[f"{v:+.1f}" for v in ends]),
            "Rows along c2, then along c3, for three values of c1.",
            "Six rows of ten digits that change a little from left to right.",
        ),
        table=Table(
            ("correlation with", *_NAMES),
            [(name, *(f"{r:+.2f}" for r in row.values())) for name, row in correlations.items()],
        ),
    )
    strongest = {name: max(row, key=lambda what: abs(row[what])) for name, row in correlations.items()}
    strength = {name: correlations[name][what] for name, what in strongest.items()}
    bench.claim(
        "One of c2 and c3 is slant, the other is width (the paper, figure 2)",
        "; ".join(f"{name} goes most with {what}, r = {strength[name]:+.2f}" for name, what in strongest.items()),
        set(strongest.values()) == {"slant", "width"} and min(map(abs, strength.values())) > 0.5,
    )


def _code(name: str, value: float) -> dict[str, Any]:
    """The sampling option that sets a code."""
    return {name: value}


def code_correlations(model: GenerativeModel, seed: int) -> dict[str, dict[str, float]]:
    """Pearson's correlation of c2 and c3 with slant, width and ink of samples.

    Half of the samples of a code have -1, the others 1; noise and other codes are drawn, the same for both halves.
    """
    found = {}
    for name in ("c2", "c3"):
        halves = [attributes(model.sample(_SAMPLES // 2, seed=seed, **_code(name, v))) for v in (-1.0, 1.0)]
        code = [-1.0] * (_SAMPLES // 2) + [1.0] * (_SAMPLES // 2)
        columns = zip(_NAMES, torch.cat(halves).unbind(1), strict=True)
        found[name] = {what: gan_sections.correlation(code, values.tolist()) for what, values in columns}
    return found
