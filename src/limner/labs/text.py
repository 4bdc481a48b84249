"""Text to image: faces from captions, and what pictures with a wrong caption teach D (Reed et al. 2016, GAN-CLS).

The lecture's D is told a caption and shown three kinds of pairs: a real picture with its caption, a real picture with a
wrong one, and a generated picture. The second kind is what the paper adds to a conditional GAN, so two trainings differ
in it alone. The faces are cartoons whose captions say what there is to see, so that a reader of attributes can judge
whether a picture shows it, also for combinations that no training picture has.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from limner.config import recipe
from limner.core.batch import Dataset, evenly_spaced, to_float
from limner.core.condition import Vectors
from limner.core.grid import make_grid
from limner.core.model import GenerativeModel
from limner.core.paths import BUILTIN
from limner.labs import _figures as draw
from limner.labs import _gan_sections as gan_sections
from limner.labs._bench import Bench, check, check_close
from limner.labs._layers import layers, table
from limner.losses.adversarial import labelled
from limner.metrics.conditions import Agreement, accuracies
from limner.metrics.extractors.attributes import AttributeReader, attribute_reader
from limner.metrics.extractors.readers import reading
from limner.metrics.retrieval import POOL, by_attributes, candidates, r_precision
from limner.report import Table

IMAGES = 66_000
DATA: dict[str, Any] = {
    "name": "avatars",
    "n": 43_200,
    "size": 24,
    "only": ["hair=short", "hair=long", "hair=afro", "hair=mohawk", "eyes=open"],
    "condition": "text",
    "captions": 1,
}
TRAINING: dict[str, Any] = {
    "model.G.width": 32,
    "model.D.width": 32,
    "model.interpolation": 0,
    "train.batch": 32,
    "train.ema_images": 2000,
    "model.G.text_gain": 20,
    "model.D.text_gain": 20,
    "optim.G.lr": 5e-4,
    "optim.D.lr": 5e-4,
}
"""How the trainings depart from the recipe, so that they take minutes."""

NOISE, TEXT, REDUCED = 100, 384, 128
_MEASURED = 500  # captions of each kind
_COLUMNS, _ROWS = 6, 4  # of the sheet
_BETWEEN = 9  # pictures from one caption to another
_SCALE = 4  # times that pixels are enlarged
_SEEN, _HELD_OUT = "trained on", "held out"


@dataclass(frozen=True)
class Found:
    """How well pictures show what their captions say.

    Attributes:
        agreement: share of what captions say that is read in their pictures, for each attribute; ``""`` is the mean and
            ``_joint`` all at once. Each knows the share with shuffled captions.
        precision: share of the pictures whose own caption is found among 100 (R-precision).
    """

    agreement: dict[str, Agreement]
    precision: float


def run(bench: Bench) -> None:
    """Trains with and without wrong captions, then measures and draws."""
    _nets(bench)
    _pairs(bench)
    right = gan_sections.train(bench, "wrong-captions", "gan-cls-avatars", TRAINING)
    without = bench.train("no-wrong-captions", "gan-cls-avatars", TRAINING | {"model.wrong": 0})
    sets = {_SEEN: bench.dataset("train"), _HELD_OUT: bench.dataset("test")}
    _faces(bench, right, sets)
    gan_sections.samples_over_time(bench, bench.runs["wrong-captions"])
    _between(bench, right, sets[_HELD_OUT])
    reader = attribute_reader("avatars-v1")
    models = {"with wrong captions": right, "without": without}
    found = {
        name: {kind: measured(reader, dataset, model, bench.seed) for kind, dataset in sets.items()}
        for name, model in models.items()
    }
    real = {kind: measured(reader, dataset, None, bench.seed) for kind, dataset in sets.items()}
    _obedience(bench, found, real)
    _retrieval(bench, found, real)
    _claims(bench, found)
    gan_sections.curves(bench, bench.runs["wrong-captions"])


# ---- the numbers of the lecture --------------------------------------------------------------------------------------


def _nets(bench: Bench) -> None:
    """The layers of the paper's nets, at its size of 64 pixels."""
    texts = Vectors("none", ["a face"], torch.zeros(1, TEXT))
    facts = {"shape": (3, 64, 64), "classes": TEXT, "condition": texts.header()}
    with torch.device("meta"):  # shapes alone, without numbers
        model: GenerativeModel = recipe.load(f"{BUILTIN}gan-cls-avatars-64").model.build(**facts)
        z, y, image = torch.zeros(1, NOISE), torch.zeros(1, TEXT), torch.zeros(1, 3, 64, 64)
    nets = model.groups()
    g, d = layers(nets["G"], lambda: nets["G"](z, y)), layers(nets["D"], lambda: nets["D"](image, y))
    first = next(layer for layer in g if layer.weights and layer.kind != "Embedding")
    mixed = [layer for layer in d if layer.kind == "Conv2d"][-2]
    bench.section(
        "The generator",
        f"A text encoder makes {TEXT} numbers of a caption; the paper's own makes 1,024. A linear layer reduces them to"
        f" {REDUCED}, and with {NOISE} numbers of noise these are the input of DCGAN's generator. The table is of the"
        " nets of gan-cls-avatars-64, which have the paper's size. The trainings below have the same nets with fewer"
        f" channels and {DATA['size']} pixels a side, so that they take minutes.",
        table=table(g),
        checks=[
            check("inputs of G: noise and reduced caption", NOISE + REDUCED, first.weights // (1024 * 4 * 4)),
            check("channels of G's maps", [1024, 512, 256, 128], [x.shape[0] for x in g if x.kind == "BatchNorm2d"]),
            check("picture", (3, 64, 64), g[-1].shape),
        ],
    )
    bench.section(
        "The discriminator",
        "D looks at the picture first. Only its last map, of 4×4 places, is joined by the reduced caption, the same at"
        " every place, and a convolution of 1×1 mixes them: so D compares what it saw with what was said.",
        table=table(d),
        checks=[
            check("channels of D's maps", [64, 128, 256, 512], [x.shape[0] for x in d if x.kind == "Conv2d"][:4]),
            check("places where the caption joins D", (4, 4), mixed.shape[1:]),
            check("weights of the 1×1 convolution: (512 + 128)·512", (512 + REDUCED) * 512, mixed.weights),
        ],
    )


def _pairs(bench: Bench) -> None:
    """The three kinds of pairs and their weights."""
    wrong = recipe.load(f"{BUILTIN}gan-cls-avatars").model.get("wrong")
    weights = [1, wrong, 1 - wrong]
    zero = torch.zeros(1)  # the logit of a D that knows nothing
    blind = sum(weight * float(labelled(zero, real)) for weight, real in zip(weights, (1, 0, 0), strict=True))
    rows = [
        ("real", "its own", "real", "1"),
        ("real", "of a picture that looks otherwise", "not real", "½"),
        ("generated", "the one that G was told", "not real", "½"),
    ]
    bench.section(
        "Three kinds of pairs",
        "A conditional GAN has the first and the last kind. It can tell real from generated pictures without reading"
        " the caption, and only when G draws well is there anything to learn from captions. The second kind asks for"
        " the caption from the first step on. A wrong caption is one of a picture with another attribute, so that it is"
        " never right by chance.",
        table=Table(("picture", "caption", "what D shall say", "weight"), rows),
        checks=[
            check("weights of the three kinds", [1, 0.5, 0.5], weights),
            check_close("D's loss where it knows nothing: log 4", 1.386294, blind, 1e-6),
        ],
    )


# ---- pictures --------------------------------------------------------------------------------------------------------


def pictured(dataset: Any, n: int) -> tuple[list[str], Tensor, Tensor]:
    """Captions of a data set, evenly spaced, with their vectors (N,384) and their real pictures (N,C,H,W) in [-1,1]."""
    known = dataset.condition
    chosen = evenly_spaced(len(known.texts), n)
    vectors = known.vectors[chosen]
    ids = [int((dataset.labels == v).all(1).nonzero()[0]) for v in vectors]
    return [known.texts[k] for k in chosen], vectors, to_float(dataset.fetch(ids))


def _faces(bench: Bench, model: GenerativeModel, sets: dict[str, Dataset]) -> None:
    figures = []
    for kind, dataset in sets.items():
        texts, y, real = pictured(dataset, _COLUMNS)
        x = model.sample(_ROWS * len(texts), y=y, columns=len(texts), seed=bench.seed)
        sheet = make_grid(draw.magnified(torch.cat([real, x]), _SCALE), len(texts), headings=texts)
        figures.append(
            bench.figure(
                f"faces-{kind.replace(' ', '-')}",
                sheet,
                f"Captions of combinations {kind}. First row: the picture that the caption was written for, which G has"
                " not seen. Below: generated, one noise vector for each row.",
                "Captions above columns of faces: a real one on top, generated ones below",
            )
        )
    bench.section(
        "Captions and their faces",
        "The noise of a row is the same in all its columns, so within a row only the caption changes. Captions say"
        " everything there is to see here, so the noise has little left to decide. The second sheet has combinations"
        " of hair colour, glasses and beard that no training picture has, although each of their parts occurs.",
        *figures,
    )


def _between(bench: Bench, model: GenerativeModel, dataset: Dataset) -> None:
    texts, y, _ = pictured(dataset, 4)
    rows, said = [], []
    for first, last in ((0, 1), (2, 3)):
        row = model.sample(_BETWEEN, y=y[first : first + 1], to=y[last : last + 1], columns=_BETWEEN, seed=bench.seed)
        rows.append(row)
        said.append(f"{texts[first]} → {texts[last]}")
    picture = draw.image_grid(torch.cat(rows), _BETWEEN, _SCALE)
    bench.section(
        "Between two captions",
        "Vectors on the line from one caption to another, in even steps, and the same noise. No sentence has the"
        " vectors in the middle. With model.interpolation=1 (GAN-INT) G is trained on such vectors too: D judges their"
        " pictures, although no real picture belongs to them. The trainings of this page are without it, for speed.",
        bench.figure(
            "between",
            picture,
            "; ".join(f"row {i}: {text}" for i, text in enumerate(said, 1)),
            "Rows of faces that change from what one caption says to what another says",
        ),
    )


# ---- measures --------------------------------------------------------------------------------------------------------


def measured(reader: AttributeReader, dataset: Any, model: GenerativeModel | None, seed: int) -> Found:
    """How well pictures of a set's captions show what they say: those of a model, or the real ones without a model."""
    ids = evenly_spaced(len(dataset), _MEASURED)
    x = dataset.fetch(ids) if model is None else model.sample(len(ids), y=dataset.labels[ids], seed=seed)
    condition, labels = dataset.described
    told, values = condition.features(labels[ids]), condition.values
    logits = reader.logits(x)
    agreement = accuracies(reading(logits, reader.values, values), told, list(values))
    similarity = by_attributes(logits, reader.values, values, told, candidates(dataset.groups[ids], seed=seed))
    return Found(agreement, float(r_precision(similarity).double().mean()))


def _obedience(bench: Bench, found: dict[str, dict[str, Found]], real: dict[str, Found]) -> None:
    names = {"": "mean", "_joint": "all at once"}
    parts = list(next(iter(real.values())).agreement)
    rows: list[tuple[object, ...]] = []
    for part in sorted(parts, key=lambda p: not p.startswith(":")):
        title = names.get(part, part[1:].replace("_", " "))
        each = [found[name][kind].agreement[part] for name in found for kind in real]
        ceiling = [real[kind].agreement[part].value for kind in real]
        rows.append(
            (title, *(f"{a.value:.1%}" for a in each), f"{each[0].chance:.1%}", *(f"{value:.1%}" for value in ceiling))
        )
    header = [f"{name}, {kind}" for name in found for kind in real]
    bench.section(
        "Is it what the caption says?",
        "avatars-v1, a net that learnt attributes from real faces, reads the pictures of at most"
        f" {_MEASURED} captions of each kind. The control is the agreement after captions were shuffled among the"
        " pictures, the mean over all orders. The ceiling is what it reads in the real pictures of the same captions.",
        table=Table(
            ("attribute", *header, "control, shuffled captions", *(f"real pictures, {kind}" for kind in real)), rows
        ),
    )
    bench.results["agreement"] = {
        name: {kind: {part: asdict(a) for part, a in f.agreement.items()} for kind, f in kinds.items()}
        for name, kinds in ({**found, "real": real}).items()
    }


def _retrieval(bench: Bench, found: dict[str, dict[str, Found]], real: dict[str, Found]) -> None:
    everything = {**found, "real pictures": real}
    bench.results["r_precision"] = {
        name: {k: f.precision for k, f in kinds.items()} for name, kinds in everything.items()
    }
    rows = [(name, *(f"{f.precision:.1%}" for f in kinds.values())) for name, kinds in everything.items()]
    bench.section(
        f"Which of {POOL} captions is it?",
        f"R-precision: a picture is compared with its own caption and {POOL - 1} that do not describe it, and counts"
        " where its own fits best. The judge is avatars-v1: the log-probability that it gives to what a caption says."
        " One of a hundred would be right by chance. Another judge or other captions give other numbers, so published"
        " ones cannot stand beside these.",
        table=Table(("pictures", *(f"captions {kind}" for kind in real)), rows),
        checks=[check("R-precision by chance", "0.01", f"{1 / POOL:.2f}")],
    )


def _claims(bench: Bench, found: dict[str, dict[str, Found]]) -> None:
    right, without = found.values()
    bench.claim(
        "A GAN can be told by a sentence what to draw",
        f"{right[_SEEN].agreement[''].value:.1%} of what captions say is read in their pictures; with shuffled captions"
        f" {right[_SEEN].agreement[''].chance:.1%}",
        right[_SEEN].agreement[""].value > 2 * right[_SEEN].agreement[""].chance,
    )
    bench.claim(
        "It draws combinations that it never saw",
        f"{right[_HELD_OUT].agreement[''].value:.1%} of what captions of held-out combinations say; with shuffled"
        f" captions {right[_HELD_OUT].agreement[''].chance:.1%}",
        right[_HELD_OUT].agreement[""].value > 0.75,
    )
    bench.claim(
        "Real pictures with a wrong caption teach D to read captions",
        f"R-precision of captions trained on {right[_SEEN].precision:.1%} with them, {without[_SEEN].precision:.1%}"
        " without, after as many pictures",
        right[_SEEN].precision > without[_SEEN].precision,
    )
