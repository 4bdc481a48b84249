"""StyleGAN: what each layer's style decides, truncation, noise apart from style, and whether w is better than z.

Karras, Laine and Aila 2019, *A style-based generator architecture for generative adversarial networks*,
arXiv:1812.04948: a net maps noise z to w, each layer takes its style from w, and noise enters on its own. The net here
is that of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958), small and on cartoon faces, of which a reader of attributes
says what is to be seen. So the statements of the lecture become numbers: which layers decide which attribute, what
truncation costs, what noise changes, and whether ways in w are shorter and planes in w tell more than in z.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from limner.config import recipe
from limner.core.batch import Dataset, to_float
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel, parameters
from limner.core.paths import BUILTIN
from limner.core.units import Count
from limner.evaluation.reference_set import ReferenceSet
from limner.evaluation.smoothness import PathLength, path_lengths
from limner.labs import _figures as draw
from limner.labs import _gan_sections as gan_sections
from limner.labs._bench import Bench, check
from limner.latent.judges import scores
from limner.latent.mix import attribution, groups, mixed
from limner.latent.spaces import LayerStyles, Noise, Space, Style
from limner.metrics.extractors.attributes import AttributeReader, attribute_reader
from limner.metrics.neighbours import wilson
from limner.metrics.probe import linear_probe
from limner.metrics.separability import Separability, separability
from limner.report import Table

IMAGES = 120_000
DATA: dict[str, Any] = {"name": "avatars", "size": 32}

RECIPE = "stylegan2-avatars"
SMALL = {
    "model.G.width": 16,
    "model.G.widest": 64,
    "model.D.width": 16,
    "model.D.widest": 64,
    "model.G.noise_inputs": True,
    "model.mixing": 0.5,
}
"""How the trainings depart from the recipe: half as many channels, so that they take minutes, with noise and mixing."""

LAYERS, FEATURES, MAPPING = 18, 512, 8 * (512 * 512 + 512)  # of the papers' nets, at 1024×1024
G_2020, D_2020 = 30_370_060, 29_012_513  # parameters, as the authors' program prints them
G_2019 = "26.2 million"  # section 2 of the paper
_PAPER = {"z": FEATURES, "w": FEATURES, "widest": 512, "mapping": 8, "noise_inputs": True}

COLOURS = ("hair_colour", "skin")
PSI = (0.3, 0.5, 0.7, 0.85, 1.0, 1.2)
_SHOWN_PSI = (-1.0, -0.5, 0.0, 0.3, 0.5, 0.7, 1.0, 1.3)
_ROWS, _COLUMNS = 3, 6  # samples A and B of the mixing matrix
_TYPICAL = 0.7  # ψ of the pictures of the mixing matrix
_PAIRS = 500  # of A and B, on which attributes are counted
_SCORED = 1000  # samples for each ψ
_STYLES, _NOISES = 50, 32  # for the effect of noise
_PATHS = 1000
_DRAWS = 4000  # of z and w, which planes tell apart
_SPACES: tuple[type[Space], ...] = (Noise, Style)

_MATRIX = (
    "A row has a sample A, a column a sample B. A picture of a block has the styles of A, except that the layers of"
    " one group have those of B: coarse ones in the first block, then middle and fine ones (ψ = {psi:g}, so that"
    " samples are typical). What a block takes from B is what these layers decide."
)
_DECIDES = (
    "Counted on {n} pairs A and B, as avatars-v1 reads their pictures. Of the pairs that differ in an attribute, the"
    " share whose mix is read as B. Left, the layers *from* a number on are those of B: at 0 all of them, and every"
    " attribute is B's. The layer where a line falls decides the attribute. Right and in the table, one layer or group"
    " alone is B's. Its middle is the mean layer at which an attribute changes from B to A."
)
_TRUNCATED = (
    "Each w is moved towards the mean of all, w̄ + ψ (w − w̄). At 0 all pictures are one, with a negative ψ they are"
    " opposites. The numbers are of {n} samples for each ψ beside held-out faces, in the features of avatars-v1."
    " Quality: the share of samples within the neighbourhood of a real face (precision, density). Variety: the share of"
    " real faces that have a sample near them (recall, coverage)."
)
_NOISE = (
    "Each layer adds a map of noise with a strength that it learns. Here w stays in a row and the noise changes. Black"
    " in the last column is no change, white the largest standard deviation of any pixel over {m} noises, {top:.2f} on"
    " [-1,1]. Photographs have much that is random, such as the places of hairs. These drawings have nothing of the"
    " kind, and a generator that is judged well learns to leave noise alone."
)
_SPACE = (
    "Path length: how far pictures move in the features of avatars-v1 on a small step of a way between two draws, over"
    " the step squared; arcs in z, straight lines in w, {paths} ways between the same samples. A shorter way has fewer"
    " detours through what neither end shows. Planes: for each value of an attribute a linear support vector machine"
    " tells who has it, and the separability exp Σ H(Y|X) is 1 if the planes know it all; {nothing} if they know"
    " nothing. Accuracy: of a linear classifier of each attribute. Both learn from a half of {draws} draws, and are"
    " judged on the other. Brackets are 95 % intervals."
)


@dataclass(frozen=True)
class Told:
    """How well a linear classifier tells an attribute from points, with a 95 % interval.

    Attributes:
        accuracy: share of the points that it did not learn from.
        low: lower end.
        high: upper end.
    """

    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Quality:
    """A latent space, measured.

    Attributes:
        path: feature path length.
        planes: separability; None where no attribute varies.
        told: accuracy by attribute, for those that vary.
    """

    path: PathLength
    planes: Separability | None
    told: dict[str, Told]

    @property
    def path_interval(self) -> tuple[float, float]:
        """95 % interval of the path length."""
        return self.path.value - 1.96 * self.path.error, self.path.value + 1.96 * self.path.error

    @property
    def accuracy(self) -> float:
        """Mean over attributes; 0 if none varies."""
        return sum(t.accuracy for t in self.told.values()) / max(len(self.told), 1)


def run(bench: Bench, *, seeds: Annotated[Count, Field(ge=1)] = 1) -> None:
    """Trains, then mixes styles, truncates them, changes the noise, and measures w beside z.

    Args:
        bench: collects the results.
        seeds: number of trainings, which differ in their seed. Raise it to see how much depends on the seed.
    """
    _nets(bench)
    models = {
        f"seed-{seed}": gan_sections.train(bench, f"seed-{seed}", RECIPE, SMALL | {"train.seed": seed})
        for seed in range(bench.seed, bench.seed + seeds)
    }
    label, model = next(iter(models.items()))
    reader = attribute_reader("avatars-v1")
    gan_sections.samples_over_time(bench, bench.runs[label])
    train, heldout = bench.dataset("train"), bench.dataset("test")
    _samples(bench, model, heldout)
    _mixing(bench, model, reader)
    _truncation(bench, model, train, heldout)
    _noise(bench, model, reader)
    _spaces(bench, models, reader)
    gan_sections.curves(bench, bench.runs[label])


# ---- the nets of the papers ------------------------------------------------------------------------------------------


def _nets(bench: Bench) -> None:
    """Counts the papers' nets at 1024×1024, without numbers in them."""
    found: dict[str, Any] = {}
    for name, source, width in (("2020", RECIPE, 32), ("2019", "stylegan-avatars", 16)):
        changes = {f"model.G.{k}": v for k, v in (_PAPER | {"width": width}).items()}
        changes |= {"model.D.widest": 512, "model.D.width": width}
        with torch.device("meta"):
            found[name] = recipe.load(f"{BUILTIN}{source}", changes).model.build(shape=(3, 1024, 1024))
    sizes = {name: parameters(model) for name, model in found.items()}
    of_G, of_D = ({name: size[net]["trainable"] for name, size in sizes.items()} for net in "GD")
    mapping = sum(p.numel() for p in found["2020"].G.mapping.parameters())
    rows = [
        ("StyleGAN, 2019", "AdaIN: maps are normalised, then scaled", f"{of_G['2019']:,}", f"{of_D['2019']:,}"),
        ("StyleGAN2, 2020", "weights are scaled, then normalised", f"{of_G['2020']:,}", f"{of_D['2020']:,}"),
    ]
    bench.section(
        "A generator of styles",
        "Noise z of 512 numbers is not the input of the layers. A mapping net of eight layers makes w of it, the first"
        " layer convolves a learnt constant, and every layer is told by w how strong each of its channels shall be: its"
        " style. Numbers are of the papers' nets for 1024×1024. Those trained below are StyleGAN2's with at most 64"
        f" channels, 128 numbers of z and w, four mapping layers and 8 styles, for {DATA['size']}×{DATA['size']}.",
        table=Table(("net", "how a style acts", "parameters of G", "parameters of D"), rows),
        checks=[
            check("styles of a picture of 1024×1024", LAYERS, found["2020"].G.L),
            check("the same of StyleGAN", LAYERS, found["2019"].G.L),
            check("parameters of the mapping net: 8 · (512² + 512)", MAPPING, mapping),
            check("parameters of StyleGAN2's G", G_2020, of_G["2020"]),
            check("parameters of StyleGAN2's D", D_2020, of_D["2020"]),
            check("parameters of StyleGAN's G", G_2019, f"{of_G['2019'] / 1e6:.1f} million"),
        ],
    )


def _samples(bench: Bench, model: GenerativeModel, heldout: Dataset) -> None:
    grids = {
        "generated, not selected": draw.image_grid(model.sample(64, seed=bench.seed), 8),
        f"typical, ψ = {_TYPICAL:g}": draw.image_grid(model.at(psi=_TYPICAL).sample(64, seed=bench.seed), 8),
        "real": draw.image_grid(to_float(heldout.fetch(list(range(min(64, len(heldout)))))), 8),
    }
    bench.section(
        "Generated and real",
        f"After {bench.images:,} pictures. limner lab stylegan images={5 * bench.images} has better ones.",
        bench.figure(
            "samples",
            draw.side_by_side(grids),
            "Samples, the same truncated, and held-out faces.",
            "Three grids of cartoon faces: generated, generated and typical, real.",
        ),
    )


# ---- mixing ----------------------------------------------------------------------------------------------------------


def middle(shares: list[float]) -> float:
    """The mean layer at which an attribute changes from B to A.

    >>> middle([1.0, 1.0, 0.0, 0.0])
    1.0

    Args:
        shares: (L+1,) the share read as B where layers from 0, 1, … L on are those of B: from 1 to 0.
    """
    return sum(shares[1:-1])


def _mixing(bench: Bench, model: GenerativeModel, reader: AttributeReader) -> None:
    space = LayerStyles(model)
    typical = LayerStyles(model.at(psi=_TYPICAL))
    parts = groups(space.layers)
    drawn = typical.draw(_ROWS + _COLUMNS, bench.seed, None)
    a, b = drawn.split([_ROWS, _COLUMNS])
    of_a, of_b = typical.images(a), typical.images(b)
    rows = {"B": torch.cat([torch.ones_like(of_b[:1]), of_b])}
    for group, layers in parts.items():
        for i, style in enumerate(a):
            both = typical.images(mixed(style[None].expand_as(b), b, layers))
            rows[f"A {i + 1}, {group}\nof B"] = torch.cat([of_a[i : i + 1], both])
    bench.section(
        "Styles, mixed",
        _MATRIX.format(psi=_TYPICAL),
        bench.figure(
            "mixing",
            draw.image_rows(rows, headings=["A", *(f"B {i + 1}" for i in range(_COLUMNS))]),
            "Above B, left A. Blocks: coarse layers "
            + ", ".join(f"({group} {layers[0]}–{layers[-1]})" for group, layers in parts.items())
            + " are those of B.",
            "A matrix of faces, each with some styles of the face above it and the others of the face on its left",
        ),
        checks=_exact(space, drawn),
    )
    first, second = space.draw(2 * _PAIRS, bench.seed + 1, None).chunk(2)
    L = space.layers
    onward = {str(k): list(range(k, L)) for k in range(1, L)}
    alone = {str(k): [k] for k in range(L)}
    table = {
        kind: attribution(space, first, second, which, reader)
        for kind, which in (("groups", parts), ("from", onward), ("alone", alone))
    }
    attributes = [name for name in reader.values if table["groups"]["coarse"][name] is not None]
    cumulative = {
        name: [1.0, *(float(table["from"][str(k)][name] or 0) for k in range(1, L)), 0.0] for name in attributes
    }
    middles = {name: middle(shares) for name, shares in cumulative.items()}
    bench.results["mixing"] = table | {"middle": middles}
    figure, (left, right) = draw.plots(2)
    axis = [float(k) for k in range(L + 1)]
    draw.curves(
        left, {_said(n): (axis, c) for n, c in cumulative.items()}, xlabel="first layer of B", title="read as B"
    )
    singles = {_said(n): (axis[:-1], [float(table["alone"][str(k)][n] or 0) for k in range(L)]) for n in attributes}
    draw.curves(right, singles, xlabel="the layer that is B's", title="read as B", marker="o")
    if (legend := right.get_legend()) is not None:
        legend.remove()  # that of the left chart is for both
    bench.section(
        "Which layers decide what",
        _DECIDES.format(n=_PAIRS),
        bench.figure(
            "layers",
            figure,
            "Left, layers from a number on are those of B. Right, one layer is.",
            "Two charts with a line for each attribute over the layers: left from one to zero, right humps",
        ),
        table=Table(
            ("layers of B", *map(_said, attributes)),
            [
                *(
                    (f"{group}, {part[0]}–{part[-1]}", *(f"{table['groups'][group][n]:.2f}" for n in attributes))
                    for group, part in parts.items()
                ),
                ("middle", *(f"{middles[n]:.1f}" for n in attributes)),
            ],
        ),
    )
    colours, shapes = ([m for n, m in middles.items() if (n in COLOURS) == is_colour] for is_colour in (True, False))
    if colours and shapes:
        means = [sum(v) / len(v) for v in (colours, shapes)]
        bench.claim(
            "Coarse layers decide shapes, fine layers colours",
            f"colours of hair and skin change at layer {means[0]:.1f} on average, shapes at layer {means[1]:.1f}",
            means[0] > means[1] + 0.5,
        )


def _said(attribute: str) -> str:
    return attribute.replace("_", " ")


def _exact(space: LayerStyles, ws: Tensor) -> list[Any]:
    """What must hold of any weights."""
    model: Any = space.model
    every = list(range(space.layers))
    images = space.images(ws)
    one, other = ws[:1], ws[1:2]
    swapped = space.images(mixed(one, other, every))
    still = model.at(psi=0.0, noise_maps="fixed").sample(8, seed=0)
    cut = mixed(one, other, every[space.layers // 2 :])
    return [
        check("mixes with all layers of B that are not B", 0, int(not swapped.equal(space.images(other)))),
        check("styles before the cut that mixing changes", 0, int((cut != one)[:, : space.layers // 2].sum())),
        check("different pictures at ψ = 0, with one noise", 1, len({x.numpy().tobytes() for x in still})),
        check("shape of a picture", tuple(space.shape), tuple(images.shape[1:])),
    ]


# ---- truncation ------------------------------------------------------------------------------------------------------


def _truncation(bench: Bench, model: GenerativeModel, train: Dataset, heldout: Dataset) -> None:
    shown = {f"ψ = {psi:g}": model.at(psi=psi, noise_maps="fixed").sample(4, seed=bench.seed) for psi in _SHOWN_PSI}
    rows = {f"z {i + 1}": torch.cat([x[i : i + 1] for x in shown.values()]) for i in range(4)}
    figures = [
        bench.figure(
            "psi",
            draw.image_rows(rows, headings=list(shown)),
            "A row is one z, a column one ψ.",
            "Rows of faces that become alike where ψ is 0, with opposites on the left",
        )
    ]
    found = _scored(bench, model, train, heldout)
    table = None
    if found:
        figure, (left, right) = draw.plots(2, height=2.9)
        axis = list(PSI)
        for ax, title, keys in (
            (left, "quality of samples", {"precision": "precision", "clipped density": "clipped_density"}),
            (right, "variety of samples", {"recall": "recall", "clipped coverage": "clipped_coverage"}),
        ):
            series = {name: (axis, [found[psi][key] for psi in axis]) for name, key in keys.items()}
            draw.curves(ax, series, xlabel="ψ", title=title, marker="o")
        figures.append(
            bench.figure("quality", figure, "Quality and variety over ψ.", "Two charts over ψ: one falls, one rises.")
        )
        shares = ("precision", "density", "clipped_density", "recall", "coverage", "clipped_coverage")
        table = Table(
            ("ψ", *map(_said, shares), "Fréchet distance"),
            [(f"{psi:g}", *(f"{s[k]:.3f}" for k in shares), f"{s['fd']:.1f}") for psi, s in found.items()],
        )
        low, full = found[_TYPICAL], found[1.0]
        bench.claim(
            "Truncation gives better samples for less variety",
            f"ψ = {_TYPICAL:g} against 1: precision {low['precision']:.3f} and {full['precision']:.3f}, density"
            f" {low['density']:.2f} and {full['density']:.2f}; recall {low['recall']:.3f} and {full['recall']:.3f},"
            f" coverage {low['coverage']:.3f} and {full['coverage']:.3f}",
            low["precision"] > full["precision"]
            and low["density"] > full["density"]
            and low["recall"] < full["recall"]
            and low["coverage"] < full["coverage"],
        )
    bench.section("Truncation", _TRUNCATED.format(n=_SCORED), *figures, table=table)


def _scored(bench: Bench, model: GenerativeModel, train: Dataset, heldout: Dataset) -> dict[float, dict[str, float]]:
    """Scores of samples by ψ; none where there are too few real faces."""
    bench.progress.say(f"lab {bench.lab}: scores by ψ")
    try:
        reference = ReferenceSet(train, heldout, n=_SCORED)
    except LimnerError:
        return {}
    found = {psi: reference(model.at(psi=psi).sample(_SCORED, seed=bench.seed)).scores for psi in PSI}
    bench.results["psi"] = {f"{psi:g}": scores_ for psi, scores_ in found.items()}
    return found


# ---- noise -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _noise(bench: Bench, trained: GenerativeModel, reader: AttributeReader) -> None:
    """Noise on and off, map by map."""
    model: Any = trained
    maps = model.G.noise
    ends = torch.tensor([0, *(h * w for h, w in maps.sizes)]).cumsum(0).tolist()
    z = model.prior.sample(_STYLES, torch.Generator().manual_seed(bench.seed))
    ws = model.styles(z)
    chance = torch.Generator().manual_seed(bench.seed + 1)
    noises = torch.randn(_NOISES, maps.total, generator=chance)

    def pictures(part: slice) -> Tensor:
        """(noises, styles, C,H,W) with noise in some of the maps alone."""
        kept = torch.zeros_like(noises)
        kept[:, part] = noises[:, part]
        return torch.stack([model.synthesise(ws, one[None]) for one in kept])

    every, coarse = slice(None), slice(0, ends[len(maps.sizes) // 2])
    of_all = pictures(every)
    none = model.synthesise(ws, torch.zeros(1, maps.total))
    over_w = float(none.var(0).mean().sqrt())
    effects = {
        f"{h}×{w}, layer {k}": float(pictures(slice(ends[k], ends[k + 1])).var(0).mean().sqrt())
        for k, (h, w) in enumerate(maps.sizes)
    }
    spread = of_all.std(0).mean(1, keepdim=True)  # (styles,1,H,W)
    in_all = float(of_all.var(0).mean().sqrt())
    read = [reader.read(of_all[k]) for k in range(min(8, _NOISES))]
    same = float(torch.stack([(r == read[0]).double().mean() for r in read[1:]]).mean())
    bench.results["noise"] = {"styles": over_w, "noise": in_all, "maps": effects, "read_the_same": same}
    top = max(float(spread[:4].max()), 1e-6)
    columns = {
        "no noise": none[:4],
        "noise 1": of_all[0, :4],
        "noise 2": of_all[1, :4],
        "coarse": pictures(coarse)[0, :4],
        "fine": pictures(slice(coarse.stop, None))[0, :4],
        "change": (2 * spread[:4] / top - 1).expand_as(none[:4]),
    }
    rows = {f"w {i + 1}": torch.cat([x[i : i + 1] for x in columns.values()]) for i in range(4)}
    figure = bench.figure(
        "noise",
        draw.image_rows(rows, headings=list(columns)),
        "Without noise; two noises; one in the coarser or the finer half of the maps; how pixels change over noises.",
        "Four faces with and without noise, and maps of what noise changes",
    )
    bench.section(
        "Noise on and off",
        _NOISE.format(m=_NOISES, top=top),
        figure,
        table=Table(
            ("what changes", "standard deviation of a pixel, on [-1,1]"),
            [
                ("w, without noise", f"{over_w:.3f}"),
                ("noise in all maps, at one w", f"{in_all:.4f}"),
                *((f"noise of {name} alone", f"{value:.4f}") for name, value in effects.items()),
            ],
        ),
    )
    bench.claim(
        "Noise changes details, and style all that one would name",
        f"standard deviation of a pixel {in_all:.3f} over noise and {over_w:.3f} over w; {same:.1%} of the attributes"
        " are read the same with another noise",
        in_all < over_w / 3 and same > 0.9,
    )


# ---- w beside z ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def measured(model: GenerativeModel, reader: AttributeReader, seed: int = 0) -> dict[str, Quality]:
    """Path length, separability and what linear classifiers tell, by space: z and w of the same samples."""
    found = {}
    spaces = [kind(model) for kind in _SPACES]
    t = torch.rand(_PATHS, generator=torch.Generator().manual_seed(seed))
    table: dict[str, Tensor] = {}
    for space in spaces:
        a, b = (space.draw(_PATHS, seed + k, None) for k in (1, 2))
        lengths = [
            path_lengths(space.images, reader.features, *part, between=space.between)
            for part in zip(a.split(250), b.split(250), t.split(250), strict=True)
        ]
        path = PathLength.of(torch.cat(lengths), 1e-4, space.between.__name__)
        points = space.draw(_DRAWS, seed, None)
        table = table or scores(reader, space.images(points))  # of the same samples in both spaces
        try:
            planes = separability(points, table, seed=seed)
        except LimnerError:  # a generator that has learnt nothing shows one value of each attribute
            planes = None
        found[space.name] = Quality(path, planes, told(points, table))
    return found


def told(points: Tensor, table: dict[str, Tensor]) -> dict[str, Told]:
    """How well linear classifiers tell each attribute from points (N,D) that they did not learn from.

    Args:
        points: the points.
        table: by attribute the log probabilities (N,K) that a reader gives to their pictures.
    """
    half, result = len(points) // 2, {}
    for name, log_p in table.items():
        y = log_p.argmax(1)
        if len(y[:half].unique()) > 1:
            accuracy = linear_probe(points[:half], y[:half], points[half:], y[half:])
            n = len(points) - half
            result[name] = Told(accuracy, *wilson(round(accuracy * n), n))
    return result


def _spaces(bench: Bench, models: dict[str, GenerativeModel], reader: AttributeReader) -> None:
    bench.progress.say(f"lab {bench.lab}: w beside z")
    found = {label: measured(model, reader, bench.seed) for label, model in models.items()}
    bench.results["spaces"] = {
        label: {name: asdict(quality) for name, quality in each.items()} for label, each in found.items()
    }
    attributes = list(dict.fromkeys(n for each in found.values() for q in each.values() for n in q.told))
    rows = [
        (
            label.replace("-", " "),
            name,
            _ranged(quality.path.value, *quality.path_interval, ".3g"),
            _planes(quality.planes),
            *(_ranged(t.accuracy, t.low, t.high, ".2f") if (t := quality.told.get(n)) else "–" for n in attributes),
        )
        for label, each in found.items()
        for name, quality in each.items()
    ]
    nothing = [q.planes.nothing for each in found.values() for q in each.values() if q.planes]
    bench.section(
        "Is w a better space than z?",
        _SPACE.format(paths=_PATHS, draws=_DRAWS, nothing=f"{max(nothing):.3g}" if nothing else "more"),
        table=Table(("training", "space", "path length", "separability", *map(_said, attributes)), rows),
    )
    pairs = [(each["z"], each["w"]) for each in found.values()]
    bench.claim(
        "Ways in w are shorter than in z",
        "; ".join(f"{w.path.value:.3g} ± {1.96 * w.path.error:.2g} and {z.path.value:.3g} ± {1.96 * z.path.error:.2g}"
                  for z, w in pairs),
        all(w.path_interval[1] < z.path_interval[0] for z, w in pairs),
    )  # fmt: skip
    planes = [(z.planes, w.planes) for z, w in pairs if z.planes is not None and w.planes is not None]
    bench.claim(
        "Planes separate attributes better in w than in z",
        "; ".join(f"{_planes(w)} and {_planes(z)}" for z, w in planes) or "nothing varies",
        bool(planes) and all(w.high < z.low for z, w in planes),
    )
    means = [(z.accuracy, w.accuracy) for z, w in pairs if z.told]
    apart = [
        (sum(w.told[n].low > z.told[n].high for n in w.told), sum(w.told[n].high < z.told[n].low for n in w.told))
        for z, w in pairs
    ]
    bench.claim(
        "Linear classifiers tell attributes better from w than from z",
        "; ".join(f"{w:.3f} and {z:.3f} on average" for z, w in means)
        + f"; beyond the intervals w is ahead in {sum(k for k, _ in apart)} attributes,"
        f" z in {sum(k for _, k in apart)}",
        bool(means) and all(w > z for z, w in means) and all(more > less for more, less in apart),
    )


def _ranged(value: float, low: float, high: float, spec: str) -> str:
    return f"{value:{spec}} ({low:{spec}}–{high:{spec}})"


def _planes(found: Separability | None) -> str:
    return "–" if found is None else _ranged(found.value, found.low, found.high, ".3g")
