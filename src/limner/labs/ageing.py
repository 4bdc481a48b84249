"""A face at another age: CAAE and Age-cGAN, and how much of a face's identity they keep.

The lectures have two systems. The conditional adversarial autoencoder (Zhang, Song and Qi 2017) encodes a face and
decodes it with another age. Age-cGAN (Antipov, Baccouche and Dugelay 2017) searches for the noise with which a
conditional GAN draws the face, by pixels or by what a net that recognises faces sees of it.

The faces are cartoons. They have no age but what goes with it: the colour of the hair, a beard and glasses. These
are the cue, which shall change; hair style, skin, mouth and eyes are the identity, which shall stay.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from limner.apply.relabel import Distance, nearest_codes, of_features, pixels
from limner.config import recipe
from limner.core.batch import evenly_spaced, to_float
from limner.core.capabilities import Conditional, Generates
from limner.core.condition import Classes
from limner.core.grid import make_grid
from limner.core.model import GenerativeModel
from limner.core.paths import BUILTIN
from limner.labs import _figures as draw
from limner.labs import _gan_sections as gan_sections
from limner.labs._bench import Bench, check, decode, encode
from limner.labs._layers import layers, table
from limner.metrics.extractors.attributes import AttributeReader, attribute_reader
from limner.metrics.extractors.readers import SmallReader, reading
from limner.metrics.identity import Identity, difference, identity_kept
from limner.metrics.kernel import MMD, mmd
from limner.report import Table

IMAGES = 80_000
CUE, IDENTITY = ("hair_colour", "facial_hair", "glasses"), ("hair", "skin", "mouth", "eyes")
DATA: dict[str, Any] = {"name": "avatars", "size": 24, "attributes": list(CUE)}
CAAE: dict[str, Any] = {
    "model.encoder.width": 24,
    "model.decoder.width": 24,
    "train.batch": 16,
    "train.ema_images": 1000,
    "optim.EG.lr": 2e-3,
    "optim.EG.decay": 0.5,
    "optim.D_z.lr": 5e-4,
    "optim.D_img.lr": 5e-4,
}
AGE_CGAN: dict[str, Any] = {
    "model.G.width": 32,
    "model.D.width": 32,
    "model.encoder.widths": [32, 64],
    "train.batch": 32,
    "train.ema_images": 2000,
    "optim.G.lr": 5e-4,
    "optim.D.lr": 5e-4,
}
"""How the trainings depart from the recipes, so that they take minutes."""

PUBLISHED = {"encoder alone": "53.2%", "pixels": "59.8%", "identity-preserving": "82.9%"}
"""Identity kept by reconstructions, Antipov et al. 2017, table 1, by OpenFace."""
_UNFAIR = "the judge's own features"
_FACES, _SHOWN = 60, 6  # searched for, and shown
_MEASURED = 500  # held-out faces of CAAE
_LEARNT = 4000  # training faces of the net that knows whose face it is
_STEPS = 100  # of L-BFGS
_SCALE = 4  # times that pixels are enlarged


@dataclass(frozen=True)
class Faces:
    """Held-out faces.

    Attributes:
        x: (N,C,H,W) in [-1,1].
        y: (N,size) their labels: the cue.
    """

    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, dataset: Any, n: int) -> Faces:
        """At most n evenly spaced faces of a data set."""
        ids = evenly_spaced(len(dataset), n)
        return cls(to_float(dataset.fetch(ids)), dataset.labels[ids])

    def first(self, n: int) -> Faces:
        """The first n."""
        return Faces(self.x[:n], self.y[:n])


@dataclass(frozen=True)
class Aged:
    """What a reader reads in faces after a change.

    Attributes:
        identity: how much of hair style, skin, mouth and eyes is read as before.
        cue: share of hair colour, beard and glasses that is read as was asked for.
    """

    identity: Identity
    cue: float


def run(bench: Bench) -> None:
    """Trains both systems, and CAAE without D_z, then measures and draws."""
    _nets(bench)
    caae = bench.train("caae", "caae-avatars", CAAE)
    free = bench.train("caae-without-D_z", "caae-avatars", CAAE | {"model.adv_z": 0})
    gan = gan_sections.train(bench, "age-cgan", "age-cgan-avatars", AGE_CGAN)
    judge, held_out = attribute_reader("avatars-v1"), bench.dataset("test")
    faces = Faces.of(held_out, _MEASURED)
    row = _row(caae)
    _progression(bench, caae, faces.first(_SHOWN), row)
    _kept(bench, judge, caae, faces, row)
    _codes(bench, {"D_z on": caae, "D_z off": free}, faces, row)
    _sheet(bench, gan, row)
    gan_sections.samples_over_time(bench, bench.runs["age-cgan"])
    _searches(bench, judge, gan, Faces.of(held_out, _FACES), row[-1:])
    gan_sections.curves(bench, bench.runs["age-cgan"])


def _row(model: GenerativeModel) -> Tensor:
    """The labels (K,size) of an age progression, the youngest first: those of the recipe."""
    assert isinstance(model, Conditional)
    words = recipe.load(f"{BUILTIN}caae-avatars").model.kwargs["progression"]
    return model.condition.read(words, len(words))


def _headings(model: GenerativeModel, row: Tensor) -> list[str]:
    """What the labels of a row say, in words that fit above a picture: ``grey hair, no glasses``."""
    assert isinstance(model, Conditional)
    known = {
        name.removesuffix("_colour").replace("_", " "): list(values) for name, values in model.condition.values.items()
    }

    def said(name: str, value: str) -> str:
        return f"no {name}" if value == "none" else value if name in value or "beard" in value else f"{value} {name}"

    return [
        ", ".join(said(name, values[k]) for (name, values), k in zip(known.items(), label, strict=True))
        for label in model.condition.features(row).tolist()
    ]


# ---- CAAE ----


def _nets(bench: Bench) -> None:
    """CAAE's nets at the paper's size of 128 pixels, with its ten age groups."""
    groups = 10
    changes = {"encoder.width": 64, "decoder.width": 64, "progression": None}
    spec = recipe.load(f"{BUILTIN}caae-avatars", changes).model
    facts = {"shape": (3, 128, 128), "classes": groups, "condition": Classes(groups).header()}
    with torch.device("meta"):  # shapes alone, without numbers
        model: GenerativeModel = spec.build(**facts)
        x, y = torch.zeros(2, 3, 128, 128), torch.zeros(2, dtype=torch.int64)
    nets = model.groups()
    z = encode(model, x)
    e = layers(nets["EG"], lambda: encode(model, x))
    g = layers(nets["EG"], lambda: decode(model, z, y))
    d_z, d_img = layers(nets["D_z"], lambda: nets["D_z"](z)), layers(nets["D_img"], lambda: nets["D_img"](x, y))
    maps, judged = ([f for f in net if f.kind == "Conv2d"] for net in (e, d_img))
    bench.section(
        "CAAE: who, and how old",
        "E makes 50 numbers of a face, and its tanh keeps them between −1 and 1. G makes a face of them and of an age."
        " Because G is told the age in any case, the code need not hold it: it says who it is. D_z compares codes with"
        " draws from the cube, so that codes fill it evenly, and D_img compares pictures of an age with real ones of"
        " that age. The counts are of the paper's size, 128 pixels and ten age groups.",
        table=table(e),
        checks=[
            check("channels of E's maps", [64, 128, 256, 512, 1024], [f.shape[0] for f in maps]),
            check("E's last map", (1024, 4, 4), maps[-1].shape),
            check("numbers of the code", 50, z.shape[1]),
            check("inputs of G: the code, and the age five times", 50 + 5 * groups, g[0].weights // (1024 * 4 * 4)),
            check("units of D_z", [64, 32, 16, 1], [f.shape[0] for f in d_z if f.kind == "Linear"]),
            check("channels of D_img's maps", [16, 32, 64, 128], [f.shape[0] for f in judged]),
            check("maps before D_img's second layer: 16 and the age", 16 + groups, judged[1].weights // (32 * 25)),
        ],
    )


def _progression(bench: Bench, model: GenerativeModel, faces: Faces, row: Tensor) -> None:
    z = encode(model, faces.x)
    columns = [faces.x, decode(model, z, faces.y), *(decode(model, z, y.expand(len(z), -1)) for y in row)]
    x = torch.stack(columns, 1).flatten(0, 1)
    sheet = make_grid(draw.magnified(x, _SCALE), len(columns), headings=["face", "again", *_headings(model, row)])
    bench.section(
        "The same face, older and older",
        "First a face that training never had, then what the decoder makes of its code with its own label, then with"
        " each label of the row. The code is the same in all of them. These are cartoons, and what shall change is"
        " what a cartoonist would change: a beard, grey hair, glasses.",
        bench.figure(
            "progression",
            sheet,
            "A row for each held-out face: itself, its reconstruction, and with each label.",
            "Rows of faces that get a beard, grey hair and glasses from left to right",
        ),
    )


def aged(judge: AttributeReader, model: GenerativeModel, before: Tensor, after: Tensor, asked: Tensor) -> Aged:
    """What a judge reads in faces (N,C,H,W) after a change, of which labels (N,size) were asked for."""
    assert isinstance(model, Conditional)
    values = model.condition.values
    was, now = judge.logits(before), judge.logits(after)
    hits = reading(now, judge.values, values) == model.condition.features(asked)
    return Aged(identity_kept(was, now, IDENTITY), float(hits.double().mean()))


def _kept(bench: Bench, judge: AttributeReader, model: GenerativeModel, faces: Faces, row: Tensor) -> None:
    z = encode(model, faces.x)
    named = dict(zip(_headings(model, row), row, strict=True))
    found = {
        "its own label (reconstruction)": aged(judge, model, faces.x, decode(model, z, faces.y), faces.y),
        **{
            name: aged(judge, model, faces.x, decode(model, z, y.expand(len(z), -1)), y.expand(len(z), -1))
            for name, y in named.items()
        },
    }
    steps = [found[name] for name in named]
    identity, cue = (sum(values) / len(steps) for values in ([a.identity.value for a in steps], [a.cue for a in steps]))
    bench.results["caae"] = {"identity": identity, "cue": cue, "steps": {n: _plain(a) for n, a in found.items()}}
    bench.section(
        "Who stays, and what changes",
        f"avatars-v1, which learnt attributes from real faces, reads {len(faces.x)} held-out faces before and after."
        " Identity: the share of hair style, skin, mouth and eyes that it reads as before. Beside it the floor, the"
        " same for faces beside results of other faces. Cue: the share of hair colour, beard and glasses that it reads"
        f" as was asked for. The means over the row are {identity:.1%} and {cue:.1%}.",
        table=Table(
            ("asked for", "identity", "floor", *IDENTITY, "cue"),
            [
                (
                    name,
                    f"{a.identity.value:.1%}",
                    f"{a.identity.floor:.1%}",
                    *(f"{a.identity.per_attribute[part]:.1%}" for part in IDENTITY),
                    f"{a.cue:.1%}",
                )
                for name, a in found.items()
            ],
        ),
    )
    bench.claim(
        "CAAE shows a face at another age and keeps who it is",
        f"identity {identity:.1%}, cue {cue:.1%}, means over the row",
        identity >= 0.9 and cue >= 0.9,
    )


def _plain(a: Aged) -> dict[str, Any]:
    kept = {key: value for key, value in asdict(a.identity).items() if key != "shares"}
    return {"identity": kept, "cue": a.cue}


def _codes(bench: Bench, models: dict[str, GenerativeModel], faces: Faces, row: Tensor) -> None:
    found: dict[str, MMD] = {}
    figure, axes = draw.plots(len(models), height=2.6, shared=True)
    rows: dict[str, Tensor] = {}
    for ax, (name, model) in zip(axes, models.items(), strict=True):
        assert isinstance(model, Generates)
        z = encode(model, faces.x)
        prior, other = (model.prior.sample(len(z), torch.Generator().manual_seed(bench.seed + k)) for k in (1, 2))
        found[name] = mmd(z.numpy(), prior.numpy())
        found["two draws from the cube"] = mmd(other.numpy(), prior.numpy())
        edges = torch.linspace(-1, 1, 101).double().numpy()
        draw.histogram(ax, z.flatten().double().numpy(), (edges, 0.5 + 0 * edges), name)
        rows[name] = model.sample(8, y=row[:1].expand(8, -1), seed=bench.seed)
    bench.results["mmd"] = {name: asdict(value) for name, value in found.items()}
    on, off = (found[name] for name in models)
    bench.section(
        "What D_z is for",
        "Two trainings that differ in the weight of D_z alone: as in the recipe, and 0, as in the weights that the"
        " authors published. Left out, nothing asks codes to fill the cube, so a point of it need not be the code of"
        " any face. MMD² measures the distance of the codes of held-out faces from as many draws from the cube (mean of"
        " five Gaussian kernels around the median distance); it is near 0, and may be below, for two sets of one"
        " distribution.",
        bench.figure(
            "codes",
            figure,
            "All numbers of the codes of held-out faces; the line is the uniform distribution that they should have.",
            "Two histograms of the numbers of codes between −1 and 1, each with a level line",
        ),
        bench.figure(
            "samples",
            draw.image_rows(rows, _SCALE),
            "Faces of draws from the cube, the same draws in both rows, with the youngest label.",
            "Two rows of generated faces",
        ),
        table=Table(
            ("codes", "MMD² to the uniform prior", "standard error"),
            [(name, f"{value.value:.4f}", f"{value.error:.4f}") for name, value in found.items()],
        ),
    )
    bench.claim(
        "D_z makes codes fill the prior",
        f"MMD² {on.value:.4f} ± {on.error:.4f} with D_z, {off.value:.4f} ± {off.error:.4f} without",
        on.value + 2 * on.error < off.value - 2 * off.error,
    )


# ---- Age-cGAN ----


def _sheet(bench: Bench, model: GenerativeModel, row: Tensor) -> None:
    rows, columns = 6, len(row)
    x = model.sample(rows * columns, y=row, columns=columns, seed=bench.seed)
    sheet = make_grid(draw.magnified(x, _SCALE), columns, headings=_headings(model, row))
    bench.section(
        "Age-cGAN: a conditional GAN first",
        "Generator and discriminator are told the label, and the noise says who it is: in a row it stays. A third net,"
        " E, learns to tell the noise of generated faces, of which it is known; the paper gives it 100,000 of them. For"
        " a real face it has to guess.",
        bench.figure(
            "sheet",
            sheet,
            "A noise vector for each row, a label for each column.",
            "A grid of generated faces with labels above the columns",
        ),
    )


def searched(
    model: GenerativeModel, faces: Faces, distances: dict[str, Distance], seed: int, steps: int = _STEPS
) -> dict[str, Tensor]:
    """The noise (N,z) of faces: by the encoder alone, and by a search from there with each of some distances."""
    assert isinstance(model, Generates)
    with torch.no_grad():
        found = {"encoder alone": encode(model, faces.x, faces.y).clone()}
    return found | {
        name: nearest_codes(model, faces.x, faces.y, distance, steps=steps, seed=seed).z
        for name, distance in distances.items()
    }


def _searches(bench: Bench, judge: AttributeReader, model: GenerativeModel, faces: Faces, old: Tensor) -> None:
    knows = _recogniser(bench)
    distances = {
        "pixels": pixels,
        "identity-preserving": of_features(knows.recognise),
        _UNFAIR: of_features(judge.recognise),
    }
    codes = searched(model, faces, distances, bench.seed, _STEPS)
    older = old.expand(len(faces.x), -1)
    again = {name: decode(model, z, faces.y) for name, z in codes.items()}
    later = {name: decode(model, z, older) for name, z in codes.items()}
    found = {
        name: (aged(judge, model, faces.x, again[name], faces.y), aged(judge, model, faces.x, later[name], older))
        for name in codes
    }
    bench.results["age_cgan"] = {name: {"again": _plain(a), "older": _plain(b)} for name, (a, b) in found.items()}
    shown = evenly_spaced(len(faces.x), 2 * _SHOWN)
    pictures = {
        "face": faces.x,
        **{name: again[name] for name in PUBLISHED},
        "older, by encoder": later["encoder alone"],
    }
    pictures["older, identity-\npreserving"] = later["identity-preserving"]
    bench.section(
        "Whose noise is it? Three ways to find z*",
        "E guesses a noise vector from the face. From there L-BFGS goes on, so that G's picture has the pixels of the"
        " face, or so that a net which knows whose face it is sees the same in both: the paper's identity-preserving"
        " optimisation. The weights of G stay as they are. With z* found, G draws it with another label.",
        bench.figure(
            "searches",
            draw.image_rows({name: x[shown] for name, x in pictures.items()}, 3),
            "Held-out faces, their reconstructions with their own label in three ways, and two of them made older.",
            "Rows of faces: real ones, reconstructions, and older ones",
        ),
    )
    _identity(bench, found, len(faces.x))


def _recogniser(bench: Bench) -> SmallReader:
    """A net that knows whose face it is, other than the judge: it learns the attributes of the identity."""
    dataset: Any = bench.dataset("train")
    ids = evenly_spaced(len(dataset), _LEARNT)
    columns = [list(dataset.factor_names).index(name) for name in IDENTITY]
    values = {name: attribute_reader("avatars-v1").values[name] for name in IDENTITY}
    return SmallReader.trained(dataset.fetch(ids), dataset.factors[ids][:, columns], values, seed=bench.seed)


def _identity(bench: Bench, found: dict[str, tuple[Aged, Aged]], n: int) -> None:
    rows = [
        (
            name,
            f"{a.identity.value:.1%}",
            f"{a.identity.low:.1%} to {a.identity.high:.1%}",
            f"{a.identity.floor:.1%}",
            PUBLISHED.get(name, "–"),
            f"{b.identity.value:.1%}",
            f"{b.cue:.1%}",
        )
        for name, (a, b) in found.items()
    ]
    bench.section(
        "Identity kept",
        f"Share of hair style, skin, mouth and eyes that avatars-v1 reads in the reconstructions of {n} held-out faces"
        " as in the faces. It is another net than the one whose features the search makes equal, for a net is easily"
        f" pleased by pictures that were made for it: the last row shows what a search by {_UNFAIR} seems to reach."
        " The paper's numbers are of photographs of film stars and of a net"
        " that compares two faces, so they show an order and not what to reach. The last columns are of the same noise"
        " with the label of old age.",
        table=Table(
            ("z* by", "identity", "95 % interval", "floor", "paper", "identity when older", "cue when older"), rows
        ),
    )
    names = list(PUBLISHED)
    pairs = [(names[k + 1], names[k]) for k in range(len(names) - 1)] + [(names[-1], names[0])]
    gaps = {(a, b): difference(found[a][0].identity, found[b][0].identity, bench.seed) for a, b in pairs}
    bench.results["gaps"] = {f"{a} - {b}": list(gap) for (a, b), gap in gaps.items()}
    bench.section(
        "Is one better than the other?",
        "Both methods have the same faces, so the difference of each face counts, and draws with repetition of faces"
        " say how sure the mean is (paired bootstrap, 2,000 draws).",
        table=Table(
            ("identity kept", "by so much more than", "difference", "95 % interval"),
            [(a, b, f"{gap:+.1%}", f"{low:+.1%} to {high:+.1%}") for (a, b), (gap, low, high) in gaps.items()],
        ),
    )
    for a, b in pairs[:2]:
        gap, low, high = gaps[a, b]
        name = {"pixels": "A search by pixels", "identity-preserving": "Identity-preserving optimisation"}[a]
        bench.claim(
            f"{name} keeps more of the identity than {'a search by pixels' if b == 'pixels' else 'the encoder alone'}",
            f"{gap:+.1%} of the attributes, 95 % interval {low:+.1%} to {high:+.1%}",
            low > 0,
        )
