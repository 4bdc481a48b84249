"""AC-GAN and classes that overlap: a classifier that rewards images which no other class could have made.

Odena, Olah and Shlens 2017, arXiv:1610.09585, let D tell the class, and G gains from images whose class is easy to
tell. Two classes share a digit here: A = {0, 1} and B = {0, 2}, half of each class zeros, and every zero is in both
(Gong et al. 2019, arXiv:1907.02690, section 4.2, have such classes). No classifier can tell the class of a zero, so
AC-GAN's G pays for each zero that it draws. How many are left where all nets are perfect is computed (`_rest`), and how
many five trained GANs draw is counted by a reader of digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from limner.core.batch import to_float
from limner.core.model import GenerativeModel
from limner.labs import _figures as draw
from limner.labs._bench import Bench, LabelledImages, check_close, spaced_indices
from limner.labs._mixture import Mixture
from limner.labs._rest import Game, at_rest
from limner.latent.neighbours import nearest
from limner.metrics.extractors.readers import SmallReader, reading
from limner.metrics.neighbours import wilson
from limner.report import Table

IMAGES = 80_000
DATA: dict[str, Any] = {"name": "overlapping-digits", "of": "mnist-5k", "twice": True}

SHARED, OWN = 0, (1, 2)  # digits of A and B
TRUTH = 0.5  # share of the shared digit in each class
BIASED, KEPT = 0.4, (0.45, 0.55)  # below the first is a bias, within the others there is none
STRAYS = 0.25  # share of samples of other digits from which a share says nothing
_NETS: dict[str, Any] = {
    "model.G.z": 100,
    "model.G.width": 16,
    "model.D.width": 16,
    "model.D.norm": "none",
    "model.D.spectral": True,
    **{f"optim.{group}.lr": 4e-4 for group in "GD"},
    **{f"optim.{group}.betas": [0.0, 0.9] for group in "GD"},
}
_SAMPLES = 1000  # of each class
_SHOWN = 16  # of each class, in a sheet
_WEIGHTS = torch.linspace(0, 3, 31).tolist()  # λ of the curves
_TILT = 0.1  # by how much a class begins with more zeros of its kind
_LINE = Mixture((1.0,), (0.0,), (1.0,)), Mixture((1.0,), (3.0,), (2.0,)), Mixture((1.0,), (6.0,), (3.0,))
_LAST = 10  # the last tenth of the log


@dataclass(frozen=True)
class Kind:
    """A model that is trained.

    Attributes:
        recipe: its recipe, in which λ = 1.
        game: its game at rest.
        changes: what differs from the recipe.
    """

    recipe: str
    game: Game
    changes: dict[str, Any]

    def weight(self, of_acgan: float) -> float:
        """λ, which is set for AC-GAN alone."""
        return of_acgan if self.recipe == "acgan-mnist" else 1.0


KINDS = {
    "AC-GAN, C of real images": Kind("acgan-mnist", "real", {"model.classify_fakes": False}),
    "AC-GAN, C of both": Kind("acgan-mnist", "both", {}),
    "TAC-GAN": Kind("tac-mnist", "twin", {}),
    "ADC-GAN": Kind("adc-mnist", "2K", {}),
    "projection": Kind("projection-mnist", "conditional", {}),
}

_GAMES = (
    "What G wants of an image has two parts. D rewards what is as frequent as in the data: if zeros are rare, D takes"
    " each for real, and G gains by drawing more. The classifier C rewards what it can tell the class of. Its best"
    " answer for a zero is ½ for A and ½ for B, so a zero costs λ log 2 = {cost:.3f} nats with λ = {weight:g}; a one or"
    " a two costs nothing. The two sides balance where all images of a class cost the same. For zeros of a share s that"
    " is (1 + 2s) 2^λ = 1 + 2(1 − s), so s = (3 − 2^λ) / (2 + 2·2^λ): ½ without a classifier, one sixth for λ = 1, and"
    " no zero at all from λ = log₂ 3 = 1.58. Better nets do not help: that *is* AC-GAN's game.\n\n"
    "The paper's C learns from generated images too, and that opens a way out. If G draws zeros of one kind for A and"
    " of another kind for B, slanted and upright ones, say, then C learns this sign, though it means nothing in the"
    " data. A sign makes zeros cheaper, so more of them are left. With two kinds of zeros, each in the data of both"
    " classes, the game rests with all zeros of A of one kind and all of B of the other.\n\n"
    "The corrections take the cost away. TAC-GAN's twin classifier learns the same of generated images, and G pays the"
    " difference: for a zero ½ against ½, which is nothing. ADC-GAN's C asks in one question whether an image is real"
    " and of its class, and a projection D is told the class and never asks. All three rest where q = p."
)
_LINE_TEXT = (
    "The same computation on a line, with three classes that are normal distributions of mean 0, 3 and 6 and standard"
    " deviation 1, 2 and 3, perfect nets and λ = 1. AC-GAN's classes (C of real images) do not overlap any more: each"
    " keeps to where it is the likeliest, is denser there than the data, and gives up the rest. TAC-GAN's lie on the"
    " data."
)
_HIDDEN = (
    "If a share s of what G draws are zeros without a sign, then C's cross-entropy on generated images is s log 2 at"
    " least. What is below that C reads from something beside the digit: a sign. If C learns from generated images, G"
    " and C agree on signs; if it learns from real ones alone, G finds zeros that C takes for one class by mistake. On"
    " real images its cross-entropy is ½ log 2 = {real:.3f} at least, because every zero is in both classes; what is"
    " above that is the price of signs on real zeros, and of errors on ones and twos."
)


@dataclass(frozen=True)
class Shares:
    """Which digits a model draws for a class, as shares of its samples.

    Attributes:
        shared: of the shared digit.
        low: lower end of its 95 % interval.
        high: upper end of this interval.
        own: of the digit that only this class has.
        foreign: of the digit that only the other class has.
        none: of what is read as another digit.
    """

    shared: float
    low: float
    high: float
    own: float
    foreign: float
    none: float


@dataclass(frozen=True)
class Drawn:
    """What was measured of one model.

    Attributes:
        classes: shares in A and in B.
        share: mean share of the shared digit.
        strays: mean share of samples of a digit that their class does not have.
        clean: mean share of the shared digit among samples of digits that their class has.
        distance: mean distance from a held-out image to the nearest sample, per pixel on [-1,1].
        class_real: cross-entropy of D's classifier on real images in the last tenth of the training; None without one.
        class_fake: the same on generated images.
    """

    classes: tuple[Shares, Shares]
    share: float
    strays: float
    clean: float
    distance: float
    class_real: float | None
    class_fake: float | None


def run(
    bench: Bench,
    *,
    class_weight: Annotated[float, Field(gt=0)] = 5.0,
    of: Literal["mnist-5k", "mnist"] = "mnist-5k",
) -> None:
    """Computes where the games rest, trains five GANs on the same images, and counts their zeros.

    Args:
        bench: collects the results.
        class_weight: λ of AC-GAN, the weight of the classifier's terms. Raise it for more bias, lower it for less.
        of: the set that the digits are from: "mnist-5k", or "mnist" for more of them.
    """
    train, test = (_digits(bench, split, of) for split in ("train", "test"))
    reader = SmallReader.trained(train.x, train.y[:, None], {"digit": train.classes}, seed=bench.seed)
    right = float((_read(reader, test.x) == test.y).double().mean())
    held_out = _data(bench)
    _games(bench, class_weight)
    _line(bench)
    found, sheets = {}, {}
    for name, kind in KINDS.items():
        weight = {} if kind.game == "conditional" else {"model.class_weight": kind.weight(class_weight)}
        label = name.lower().replace(",", "").replace(" ", "-")
        model = bench.train(
            label,
            kind.recipe,
            {"train.log_images": max(64, bench.images // 100)} | _NETS | weight | kind.changes,
        )
        found[name] = _measured(bench, label, model, reader, held_out)
        sheets[name] = [model.sample(_SHOWN, y=torch.full((_SHOWN,), k), seed=bench.seed) for k in range(2)]
    _shares(bench, found, right, class_weight)
    _sheets(bench, sheets)
    _signs(bench, found)
    _claims(bench, found)


def _digits(bench: Bench, split: str, of: str) -> LabelledImages:
    """All ten digits, at most 5,000 images of them."""
    digits = bench.dataset(split, {"name": of})
    assert digits.labels is not None
    assert digits.classes is not None
    ids = spaced_indices(len(digits), 5000)
    return LabelledImages(to_float(digits.fetch(ids.tolist())), digits.labels[ids], digits.classes)


def _read(reader: SmallReader, x: Tensor) -> Tensor:
    return reading(reader.logits(x), reader.values, reader.values)[:, 0]


# ---- the data and the games ------------------------------------------------------------------------------------------


def _data(bench: Bench) -> Tensor:
    """Shows the data; returns held-out images (N,1,28,28), each once."""
    train, test = bench.dataset("train"), bench.dataset("test")
    assert train.labels is not None
    assert train.classes is not None
    digit, y = train.factors[:, 0], train.labels  # type: ignore[attr-defined]
    rows, checks = {}, []
    for k, (name, own) in enumerate(zip(train.classes, OWN, strict=True)):
        for d in (SHARED, own):
            ids = ((y == k) & (digit == d)).nonzero().flatten()[:_SHOWN].tolist()
            rows[f"{name}: {d}"] = to_float(train.fetch(ids))
        share = float((digit[y == k] == SHARED).double().mean())
        checks.append(check_close(f"share of {SHARED} in the data of {name}", TRUTH, share, 0.05, 3))
    bench.section(
        "Two classes that share a digit",
        f"Class A has the digits {SHARED} and {OWN[0]}, B has {SHARED} and {OWN[1]}: {len(train)} images, a quarter"
        " of them each. Every zero is there twice, once in A and once in B. So no classifier, however large, can"
        " tell the class of a zero, and none can learn by heart to which a zero belongs.",
        bench.figure(
            "data",
            draw.image_rows(rows),
            "Images of both classes: the zeros are the same.",
            "Four rows of digits: zeros and ones of class A, zeros and twos of class B.",
        ),
        checks=checks,
    )
    x = to_float(test.fetch(spaced_indices(len(test), 1000).tolist()))
    return x.unique(dim=0)


def rest_share(weight: float) -> float:
    """The share of the shared digit where AC-GAN's game with a C of real images rests, in closed form.

    >>> round(rest_share(1.0), 4), rest_share(2.0)
    (0.1667, 0.0)
    """
    return max(0.0, (3 - 2**weight) / (2 + 2 * 2**weight))


def shared_at_rest(game: Game, weights: Sequence[float]) -> list[float]:
    """The mean share of the shared digit where a game rests, for each λ, by iteration, with zeros of two kinds."""
    zero = TRUTH / 4  # of each kind and class
    p = torch.tensor([[zero, zero, TRUTH / 2, 0.0], [zero, zero, 0.0, TRUTH / 2]])
    few = torch.tensor([[_TILT - 1, -_TILT - 1, 0.0, 0.0], [-_TILT - 1, _TILT - 1, 0.0, 0.0]])
    q = at_rest(p, game, torch.tensor(weights).double()[:, None, None], start=few)
    shares: list[float] = q[..., :2].sum((-2, -1)).tolist()
    return shares


def _games(bench: Bench, weight: float) -> None:
    lines = {
        "AC-GAN, C of real images": [rest_share(w) for w in _WEIGHTS],
        "AC-GAN, C of both, two kinds of zeros": shared_at_rest("both", _WEIGHTS),
        "TAC-GAN, ADC-GAN, projection": [TRUTH] * len(_WEIGHTS),
    }
    at_one = {k.game: shared_at_rest(k.game, [1.0])[0] for k in KINDS.values()}
    bench.results["at rest, λ = 1"] = at_one
    bench.results["at rest"] = {k.game: shared_at_rest(k.game, [k.weight(weight)])[0] for k in KINDS.values()}
    figure, (ax,) = draw.plots(1, height=3.0)
    draw.curves(ax, {n: (_WEIGHTS, s) for n, s in lines.items()}, xlabel="λ", title="share of zeros at rest")
    ax.set_ylim(0, 0.55)
    bench.section(
        "What a classifier rewards",
        _GAMES.format(cost=weight * math.log(2), weight=weight),
        bench.figure(
            "rest",
            figure,
            "The share of zeros where each game rests, by the weight of the classifier, if all nets are perfect.",
            "Three curves: a level line at one half, and two that fall to zero as the weight of the classifier grows.",
        ),
        checks=[
            check_close("share of zeros, C of real images, λ = 1: 1/6", 1 / 6, at_one["real"], 1e-4, 4),
            *(
                check_close(f"share of zeros, {name}, λ = 1", TRUTH, at_one[kind.game], 1e-4, 4)
                for name, kind in KINDS.items()
                if kind.recipe != "acgan-mnist"
            ),
        ],
    )


def line(game: Game, weight: float = 1.0, points: int = 300) -> tuple[Tensor, Tensor, Tensor]:
    """Three overlapping classes on a line: x (N,), the densities (3,N) of the data, and those where a game rests."""
    x = torch.linspace(-5, 17, points, dtype=torch.float64)
    p = torch.stack([c.density(x) for c in _LINE])
    p = p / p.sum(1, keepdim=True) / len(p)
    width = float(x[1] - x[0]) / len(p)
    return x, p / width, at_rest(p, game, weight, start=-p.log()) / width


def _line(bench: Bench) -> None:
    games = {"AC-GAN": "real", "TAC-GAN": "twin"}
    figure, axes = draw.plots(2, height=2.8, shared=True)
    moved = {}
    for ax, (name, game) in zip(axes, games.items(), strict=True):
        x, p, q = line(game)  # type: ignore[arg-type]
        moved[name] = float((p - q).abs().sum() * (x[1] - x[0]) / 2 / len(p))
        classes = {f"class {k + 1}": density.numpy() for k, density in enumerate(q)}
        filled = [density.numpy() for density in p]
        draw.class_densities(ax, x.numpy(), filled, classes, name)
    draw.legend(axes[0])
    bench.results["moved on the line"] = moved
    bench.section(
        "The same on a line",
        _LINE_TEXT,
        bench.figure(
            "line",
            figure,
            "Shaded, the densities of three classes of the data; lines, those that G draws where the game rests.",
            "Two panels. Left, three lines that keep away from each other; right, lines on the edges of the shades.",
        ),
        table=Table(
            ("game", "share of each class that is moved"), [(name, f"{share:.1%}") for name, share in moved.items()]
        ),
    )


# ---- the trainings ---------------------------------------------------------------------------------------------------


def shares(read: Sequence[int] | Tensor, own: int, foreign: int) -> Shares:
    """Shares of what was read (N,) in the samples of a class.

    >>> shares([0, 0, 1, 2], 1, 2).shared
    0.5
    """
    digits = torch.as_tensor(read)
    n, hits = len(digits), int((digits == SHARED).sum())
    of_own, of_foreign = (int((digits == d).sum()) for d in (own, foreign))
    return Shares(
        hits / n, *wilson(hits, n), of_own / n, of_foreign / n, (n - hits - of_own - of_foreign) / n
    )  # fmt: skip


def _measured(bench: Bench, label: str, model: GenerativeModel, reader: SmallReader, held_out: Tensor) -> Drawn:
    samples = [model.sample(_SAMPLES, y=torch.full((_SAMPLES,), k), seed=bench.seed) for k in range(2)]
    a, b = (shares(_read(reader, x), own, foreign) for x, own, foreign in zip(samples, OWN, reversed(OWN), strict=True))
    distances, _ = nearest(torch.cat(samples), held_out, 1)
    lines = bench.runs[label].metrics()
    last = lines[-max(1, len(lines) // _LAST) :]
    real, fake = (
        sum(line[f"term/class_{kind}"] for line in last) / len(last) if f"term/class_{kind}" in last[0] else None
        for kind in ("real", "fake")
    )
    distance = float(distances.mean()) / math.sqrt(held_out[0].numel())
    strays = (a.foreign + a.none + b.foreign + b.none) / 2
    clean = sum(c.shared / max(c.shared + c.own, 1e-9) for c in (a, b)) / 2
    return Drawn((a, b), (a.shared + b.shared) / 2, strays, clean, distance, real, fake)


def _shares(bench: Bench, found: dict[str, Drawn], right: float, weight: float) -> None:
    bench.results["shares"] = {name: asdict(drawn) for name, drawn in found.items()}
    rest = bench.results["at rest"]
    rows = []
    for name, drawn in found.items():
        cells = [f"{s.shared:.3f} ({s.low:.3f}–{s.high:.3f})" for s in drawn.classes]
        means = [f"{value:.3f}" for value in (drawn.share, drawn.clean, rest[KINDS[name].game])]
        rows.append((name, *cells, *means, f"{drawn.strays:.1%}", round(drawn.distance, 3)))
    figure, (ax,) = draw.plots(1, height=2.6)
    draw.bars(ax, {name.replace(", ", ",\n"): d.share for name, d in found.items()}, "share of zeros", TRUTH)
    bench.section(
        "How many zeros are left",
        f"Five GANs on the same images, with the same G, the same seed and the same D but for its last layer,"
        f" {bench.images:,} images each. λ is {weight:g} for AC-GAN, and 1 for TAC-GAN and ADC-GAN, whose place of rest"
        " does not depend on it. A reader that learnt all ten digits from real images"
        f" ({right:.1%} of held-out ones are right) counts zeros among {_SAMPLES:,} samples of each class; in brackets"
        " are 95 % intervals of this count, not of other trainings. Strays are samples that are read as a digit which"
        " their class does not have; many of them are a bad one or two, so the mean is also given without strays."
        " Distance: from a held-out image of either class to the nearest sample, as root"
        " mean squared difference of pixels on [-1,1]; it is large if samples are no digits or all alike. At rest is"
        " the share where the game rests with perfect nets. Trained ones need not be there: a D that knows generated"
        " images by more than how frequent their digit is weighs more than the classifier, and G cannot change a zero"
        " into another digit without drawing what is neither.",
        bench.figure(
            "shares",
            figure,
            "Share of zeros in the samples of both classes; the line is the share in the data.",
            "A bar for each model and a line at one half.",
        ),
        table=Table(
            ("model", "zeros in A", "zeros in B", "mean", "without strays", "at rest", "strays", "distance"), rows
        ),
    )


def _sheets(bench: Bench, sheets: dict[str, list[Tensor]]) -> None:
    rows = {f"{name}\n{label}": x for name, pair in sheets.items() for label, x in zip("AB", pair, strict=True)}
    bench.section(
        "What each draws",
        "The same noise for all models and both classes. In the rows of a model without bias half of the images would"
        " be zeros.",
        bench.figure(
            "sheet",
            draw.image_rows(rows),
            "Samples of both classes of each model.",
            "Ten rows of digits, two for each model: one for class A and one for class B.",
        ),
    )


def _signs(bench: Bench, found: dict[str, Drawn]) -> None:
    rows = [
        (name, *(f"{v:.3f}" for v in (drawn.class_real, drawn.class_fake, drawn.share * math.log(2))))
        for name, drawn in found.items()
        if KINDS[name].recipe == "acgan-mnist" and drawn.class_real is not None
    ]
    bench.section(
        "Signs",
        _HIDDEN.format(real=math.log(2) / 2),
        table=Table(("model", "C on real images", "C on generated ones", "without a sign at least"), rows),
    )


def _claims(bench: Bench, found: dict[str, Drawn]) -> None:
    for name, drawn in found.items():
        a, b = (s.shared for s in drawn.classes)
        measured = (
            f"{drawn.share:.3f} of its samples are zeros, {a:.3f} in A and {b:.3f} in B; {TRUTH:g} in the data;"
            f" {drawn.strays:.1%} strays, and {drawn.clean:.3f} without them"
        )
        digits = drawn.strays < STRAYS  # else it draws something else than its classes have, and its share says nothing
        if KINDS[name].recipe == "acgan-mnist":
            bench.claim(
                f"{name}: draws less than {BIASED:g} of what classes share", measured, digits and drawn.share < BIASED
            )
        else:
            low, high = KEPT
            bench.claim(f"{name}: keeps the share", measured, digits and low <= drawn.share <= high)
