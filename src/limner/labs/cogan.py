"""CoGAN: pairs of two domains, learnt from images of each without a single pair (Liu and Tuzel 2016, arXiv:1606.07536).

Two GANs learn side by side, one of digits and one of the edges of other digits. Their generators share the layers that
decide what an image shows, their discriminators the layers that judge it, and nothing else ties them. The same two GANs
with nothing shared, trained on the same images with the same seed, are the floor: what they make of one noise is two
images that have nothing to do with each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from limner import api
from limner.core.batch import to_float, to_uint8
from limner.core.capabilities import DrawsPairs
from limner.core.checkpoint import folders
from limner.core.model import GenerativeModel, parameters
from limner.data.sources.digit_domains import edges
from limner.evaluation.domain_pairs import pair_scores
from limner.labs import _figures as draw
from limner.labs import _gan_sections as gan_sections
from limner.labs._bench import Bench, check, spaced_indices
from limner.labs._layers import Layer, layers, table
from limner.metrics.agreement import Agreement, agreement
from limner.metrics.scorecard import base
from limner.report import Check, Table

IMAGES = 100_000
DATA: dict[str, Any] = {"name": "digits-edges", "of": "mnist-5k"}

RECIPE = "cogan-digits"
G_SHARED = (313_600, 32_768, 8_192)  # 100·64·7·7, 64·32·4·4 and 32·16·4·4, without a bias before a batch norm
D_SHARED = (6_275, 306_500, 251)  # (10·5·5 + 1)·25, (25·7·7 + 1)·250 and 250 + 1
G_OWN, D_OWN = 401, 260  # 16·5·5 + 1, and (5·5 + 1)·10
NETS = ("G1", "G2", "D1", "D2")
LAYERS = 4  # of each net at 28×28
UNSHARED = {f"model.{net}.own": LAYERS for net in NETS}

_SHOWN, _WORST = 12, 10
_PAIRS, _TENTH = 1000, 200  # compared at the end, and after each tenth

_DOMAINS = (
    "Every second image of the set is in the first domain, and of the others only the edges are in the second. An edge"
    " image is the largest value of the 3×3 pixels around each pixel, minus the pixel's own. So no training image has a"
    " partner, and nothing in the losses asks for one."
)
_SHARED = (
    "A column is one noise. Above, what the first generator draws. In the middle, the edges of that digit, computed."
    " Below, what the second generator draws of the same noise: the better the two lower rows agree, the better the"
    " domains correspond. Nobody has told the model what an edge is."
)
_UNSHARED = (
    "The same nets, images, seed and number of steps, but no layer is shared (own=4 for each of the four nets). Each"
    " GAN learns its domain as before. What a noise means is for each of them to choose, and they choose without each"
    " other."
)
_TEXTS = {
    "generators": "Noise becomes an image from the abstract to the concrete: the first layers decide what is shown, the"
    " last one how it is drawn. So the first three are one and the same for both domains, with the batch norm and the"
    " PReLU between them, and each generator has only the last layer for itself.",
    "discriminators": "A discriminator goes the other way: its first layer looks at strokes or edges, its last ones"
    " judge what they show. So each has the first layer for itself, and the rest is shared. A much-used public version"
    " shares the first layers of D instead.",
}


@dataclass(frozen=True)
class Pairs:
    """How well pairs correspond; where known, beside pairs of the same images that were shuffled.

    Attributes:
        pixels: share of pixels that agree between the edges of the first image and the second image.
        iou: bright pixels of both over bright pixels of either.
        correlation: correlation over the pixels of a pair.
        same: share of pairs in which small nets read the same digit on both sides; None where it is not known.
    """

    pixels: float
    iou: float
    correlation: float
    same: float | None


def run(bench: Bench, *, of: Literal["mnist-5k", "mnist"] = "mnist-5k") -> None:
    """Trains with shared layers and with none, then measures and draws.

    Args:
        bench: collects the results.
        of: the set that the digits of `DATA` are from: "mnist-5k", or "mnist" for more of them.
    """
    shared = gan_sections.train(bench, "shared", RECIPE)
    unshared = gan_sections.train(bench, "unshared", RECIPE, UNSHARED)
    _nets(bench, shared, unshared)
    _data(bench)
    _pairs(bench, "pairs", "Pairs without pairs", _SHARED, shared)
    _pairs(bench, "unshared", "Two GANs with nothing in common", _UNSHARED, unshared)
    _over_time(bench)
    found = _measured(bench, {"shared": shared, "unshared": unshared})
    _worst(bench, shared)
    _claims(bench, found)


# ---- what is measured ------------------------------------------------------------------------------------------------


@torch.inference_mode()
def pairs_of(model: GenerativeModel, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (n,1,28,28) in [-1,1] of the first domain, and of the second of the same noise."""
    assert isinstance(model, DrawsPairs)
    z = model.prior.sample(n, torch.Generator().manual_seed(seed))
    first, second = zip(*(model.decode_pair(part) for part in z.split(250)), strict=True)
    return torch.cat(first), torch.cat(second)


def edges_of(x: Tensor) -> Tensor:
    """The edges of images (N,1,H,W) in [-1,1], in [-1,1] too."""
    return to_float(edges(to_uint8(x)))


def compared(a: Tensor, b: Tensor) -> Agreement:
    """The agreement of the edges of images a (N,1,H,W) in [-1,1] with images b, beside that of shuffled pairs."""
    return agreement(edges_of(a), b)


def each(a: Tensor, b: Tensor) -> Tensor:
    """The correlation of each pair, (N,)."""
    computed = edges_of(a)
    return torch.tensor([agreement(computed[i : i + 1], b[i : i + 1]).correlation for i in range(len(b))])


def _measured(bench: Bench, models: Mapping[str, GenerativeModel]) -> dict[str, Pairs]:
    train, heldout = bench.dataset("train"), bench.dataset("test")
    n = _PAIRS
    found: dict[str, Pairs] = {}
    for name, model in models.items():
        bench.progress.say(f"lab {bench.lab}: comparing pairs of {name}")
        result = compared(*pairs_of(model, n, bench.seed))
        same = next(s for k, s in pair_scores(model, train, heldout, pairs=n).items() if base(k) == "pair_agreement")
        floor = result.shuffled
        assert floor is not None
        found[name] = Pairs(result.pixels, result.iou, result.correlation, _number(same.value))
        found[f"{name}, shuffled"] = Pairs(floor.pixels, floor.iou, floor.correlation, same.floor)
        found["real pairs, held out"] = Pairs(*_real(heldout), same.ceiling)
    bench.results["pairs"] = {name: asdict(p) for name, p in found.items()}
    bench.section(
        "How well they correspond",
        f"{n:,} pairs of each. The first generator's digit is changed into edges as the data are, and compared with the"
        " second generator's image. Pixels: the share on the same side of the middle grey, the measure of the paper,"
        " which found .952. IoU: the bright pixels of both over the bright pixels of either. Same digit: two small"
        " nets, one for each domain, read both sides; the row of real pairs is what they would reach on pairs that"
        " correspond perfectly, because they err.\n\n"
        "Read the floors too. Most pixels of any edge image are black, so many agree by chance: in shuffled pairs"
        f" {found['shared, shuffled'].pixels:.0%} of them. IoU, correlation and digit say more.",
        table=Table(("pairs", "pixels", "IoU", "correlation", "same digit"), [_row(*item) for item in found.items()]),
        checks=[check("pixels of real pairs that agree", "1.000", f"{found['real pairs, held out'].pixels:.3f}")],
    )
    return found


def _number(value: float | str | None) -> float | None:
    return value if isinstance(value, float) else None


def _real(heldout: Any) -> tuple[float, float, float]:
    indices = list(range(min(len(heldout), _PAIRS)))
    a, b = (to_float(part.fetch(indices)) for part in (heldout.a, heldout.b))
    result = compared(a, b)
    return result.pixels, result.iou, result.correlation


def _row(name: str, p: Pairs) -> tuple[Any, ...]:
    return name, *(f"{v:.3f}" for v in (p.pixels, p.iou, p.correlation)), "–" if p.same is None else f"{p.same:.3f}"


# ---- the page --------------------------------------------------------------------------------------------------------


def _nets(bench: Bench, shared: Any, unshared: Any) -> None:
    """Adds the layers of a net of each kind; the nets of the other domain are alike."""
    z, x = torch.zeros(1, shared.prior.z), torch.zeros(1, 1, 28, 28)
    of_G = layers(shared.G1, lambda: shared.G1(z))
    of_D = layers(shared.D1, lambda: shared.D1(x))
    *first, last = (layer.parameters for layer in of_G if layer.weights)
    _net_section(
        bench, "generators", of_G, [*zip(G_SHARED, first, strict=True)], ("last", G_OWN, last), shared, unshared
    )
    begin, *rest = (layer.parameters for layer in of_D if layer.weights)
    _net_section(
        bench, "discriminators", of_D, [*zip(D_SHARED, rest, strict=True)], ("first", D_OWN, begin), shared, unshared
    )


def _net_section(
    bench: Bench,
    name: str,
    rows: list[Layer],
    numbers: list[tuple[int, int]],
    own: tuple[str, int, int],
    shared: Any,
    unshared: Any,
) -> None:
    place, expected, measured = own
    bench.section(
        f"The {name}",
        _TEXTS[name],
        table=table(rows),
        checks=[
            *(check(f"parameters of shared layer {i}", *pair) for i, pair in enumerate(numbers, 1)),
            check(f"parameters of the {place} layer, each net's own", expected, measured),
            *_together(name, shared, unshared),
        ],
    )


def _together(name: str, shared: Any, unshared: Any) -> list[Check]:
    """Parameters of both nets of a kind together: with shared layers, and with none."""
    group, numbers, own, between = (
        ("G", G_SHARED, G_OWN, 2 * (64 + 32 + 16) + 3) if name == "generators" else ("D", D_SHARED, D_OWN, 0)
    )  # between the layers of G: scale and shift of batch norm, and a slope of PReLU for each layer
    once = sum(numbers) + between
    first, second = (getattr(shared, f"{group}{i}") for i in (1, 2))
    of_shared, of_unshared = (parameters(model)[group]["trainable"] for model in (shared, unshared))
    same = "yes" if first.shared is second.shared else "no"
    return [
        check(f"shared layers of both {name} are the same objects", "yes", same),
        check(f"parameters of both {name}: shared once, and twice their own", once + 2 * own, of_shared),
        check(f"parameters of both {name} with nothing shared", 2 * (once + own), of_unshared),
    ]


def _data(bench: Bench) -> None:
    train: Any = bench.dataset("train")
    a, b = (part.fetch(list(range(len(part)))) for part in (train.a, train.b))
    known = {x.numpy().tobytes() for x in edges(a)}
    common = sum(x.numpy().tobytes() in known for x in b)
    shown = spaced_indices(min(len(a), len(b)), _SHOWN)
    rows = {"digits": to_float(a[shown]), "edges of\nothers": to_float(b[shown.flip(0)])}
    figure = bench.figure(
        "domains",
        draw.image_rows(rows),
        "Training images of both domains, which are no pairs.",
        "A row of digits above a row of edges of other digits",
    )
    bench.section(
        "Two domains",
        f"{len(a):,} digits and the edges of {len(b):,} others. {_DOMAINS}",
        figure,
        checks=[check("training images of the second domain that are edges of one of the first", 0, common)],
    )


def _pairs(bench: Bench, name: str, title: str, text: str, model: GenerativeModel) -> None:
    a, b = pairs_of(model, _SHOWN, bench.seed)
    figure = bench.figure(
        name,
        draw.image_rows({"digits": a, "their edges,\ncomputed": edges_of(a), "edges": b}),
        "The first samples, not selected. A column is one noise.",
        "A row of generated digits, a row of their edges, and a row of generated edges",
    )
    bench.section(title, text, figure)


def _worst(bench: Bench, model: GenerativeModel) -> None:
    a, b = pairs_of(model, _PAIRS, bench.seed)
    values = each(a, b)
    order = values.argsort()
    rows: dict[str, Tensor] = {}
    for name, chosen in (("worst", order[:_WORST]), ("best", order[-_WORST:])):
        rows |= {
            f"{name}: digit": a[chosen],
            "computed" + " " * len(rows): edges_of(a[chosen]),
            f"{name}: edges": b[chosen],
        }
    tenth, half = (float(values.quantile(q)) for q in (0.1, 0.5))
    bench.section(
        "The worst and the best",
        f"Of {len(a):,} pairs, those with the lowest and the highest correlation. One pair in ten is below"
        f" {tenth:.2f}, one in two below {half:.2f}.",
        bench.figure(
            "worst",
            draw.image_rows(rows),
            "The ten pairs that correspond least, and the ten that correspond best.",
            "Ten images in each row: digits, their computed edges and generated edges, of the worst and the best pairs",
        ),
    )  # fmt: skip


def _over_time(bench: Bench) -> None:
    """The agreement after each tenth of both trainings."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for name in ("shared", "unshared"):
        run = bench.runs[name]
        images = [int(folder.name) for folder in folders(run.checkpoints)]
        found = [compared(*pairs_of(api.load(run.checkpoints / f"{n:08d}"), _TENTH, bench.seed)) for n in images]
        axis = [float(n) for n in images]
        series[name] = (axis, [f.correlation for f in found])
        series[f"{name}, shuffled"] = (axis, [f.shuffled.correlation for f in found if f.shuffled])
    lines = {name: bench.runs[name].metrics() for name in ("shared", "unshared")}
    losses = {}
    for name, log in lines.items():
        window = max(1, len(log) // 100)
        losses[f"{name}: D"] = (
            [float(line["images"]) for line in log],
            gan_sections.smooth([line["loss/D"] for line in log], window),
        )
    figure, (left, right) = draw.plots(2)
    draw.curves(left, series, xlabel="images seen of each domain", title="correlation of pairs", marker="o")
    draw.curves(right, losses, xlabel="images seen of each domain", title="loss of D1 and D2 together")
    right.axhline(4 * math.log(2), color=draw.SOFT, linewidth=0.8, linestyle=":")
    for ax in (left, right):
        draw.in_thousands(ax)
    bench.results["over_time"] = {name: {"images": x, "correlation": y} for name, (x, y) in series.items()}
    bench.section(
        "As training goes on",
        "Left, the correlation of a generated edge image with the edges of the digit of the same noise, after each"
        " tenth of the training, beside that of shuffled pairs. Right, the loss of both discriminators: the dotted line"
        " is 4 log 2 = 2.77, where they cannot tell real from generated.",
        bench.figure(
            "over-time",
            figure,
            "Left, how well pairs correspond. Right, the losses of the discriminators.",
            "Two charts over images seen: the correlation of pairs, and the loss of the discriminators",
        ),
    )


def _claims(bench: Bench, found: dict[str, Pairs]) -> None:
    shared, shuffled, unshared = (found[name] for name in ("shared", "shared, shuffled", "unshared"))
    bench.claim(
        "Shared layers make pairs of what nobody has paired",
        f"correlation {shared.correlation:.3f}; {shuffled.correlation:.3f} when shuffled,"
        f" {unshared.correlation:.3f} with nothing shared",
        shared.correlation > max(shuffled.correlation, unshared.correlation) + 0.1,
    )
    if shared.same is not None and unshared.same is not None:
        bench.claim(
            "Both images of a pair show the same digit, nine times in ten",
            f"{shared.same:.1%}; {unshared.same:.1%} with nothing shared",
            shared.same >= 0.9 and shared.same > unshared.same,
        )
    bench.claim(
        "Nine pixels in ten agree, as in the paper (.952)",
        f"{shared.pixels:.3f}; {shuffled.pixels:.3f} when shuffled, {unshared.pixels:.3f} with nothing shared",
        shared.pixels >= 0.9 and shared.pixels > max(shuffled.pixels, unshared.pixels),
    )
