"""Three latent spaces side by side: those of an autoencoder, a VAE and a GAN, on the same pictures with as many steps.

Walks and arithmetic are how one looks into a latent space. An autoencoder gives every picture a code and says nothing
of what lies between codes; a VAE is trained so that all of its prior decodes to pictures; a GAN has no codes, only the
prior. Autoencoder and VAE here are the same nets with the same reconstruction loss, so they differ in the prior alone.
Arithmetic a − b + c is that of Radford, Metz and Chintala 2016 (arXiv:1511.06434, section 6.3.2): of single examples
and of means of three. A reader of attributes judges what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from limner.core.batch import Dataset, to_float
from limner.core.capabilities import Encodes
from limner.core.errors import LimnerError
from limner.core.interpolation import lerp, slerp
from limner.core.model import GenerativeModel
from limner.evaluation.reference_set import ReferenceSet
from limner.evaluation.smoothness import evenness, posterior_prior_gap
from limner.labs import _figures as draw
from limner.labs._bench import Bench, check, check_close
from limner.latent.spaces import Code, Noise, Space
from limner.latent.walk import through
from limner.metrics.extractors.attributes import AttributeReader, attribute_reader
from limner.report import Table

IMAGES = 60_000
DATA: dict[str, Any] = {"name": "avatars", "size": 32}

Z = 32
BATCH = 32
_SHAPED = {"train.batch": BATCH, "model.z": Z}
_ENCODER = {"name": "conv.Encoder", "widths": [32, 64, 128]}
_DECODER = {"name": "conv.Decoder", "widths": [128, 64, 32], "out": "linear"}
_GAN_RATE = 5e-4
TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "autoencoder": (
        "ae-mnist",
        {
            **_SHAPED,
            "model.encoder": _ENCODER,
            "model.decoder": _DECODER,
            "model.reconstruction": "bce",
            "model.reduction": "sum",
        },
    ),
    "VAE": ("conv-vae-mnist", {**_SHAPED, "model.encoder": _ENCODER | {"heads": 2}, "model.decoder": _DECODER}),
    "GAN": (
        "dcgan-32",
        {
            "train.batch": BATCH,
            "model.G.z": Z,
            "model.G.width": 32,
            "model.D.width": 32,
            "optim.G.lr": _GAN_RATE,
            "optim.D.lr": _GAN_RATE,
        },
    ),
}
"""A recipe of each, and how the trainings depart from it: one size of code, of decoder and of batch for all."""

WANTED, BESIDE = "glasses", "hair_colour"  # what arithmetic shall give, and what it shall leave
_VALUE, _WITHOUT = "round", "none"
EXAMPLES = (1, 3, 10)
_STEPS = 11  # pictures of a walk that is shown
_WAYS = 600  # ways between two pictures
_PLACES = (0.0, 0.125, 0.25, 0.375, 0.5)  # on a way, which is alike from both ends
_EVEN = 16  # steps of a way whose evenness is measured
_TRIALS = 300

_SAME = (
    "All three saw {images:,} pictures in batches of {batch}. The autoencoder and the VAE are the same nets, with a"
    " code of {z} numbers and the same reconstruction loss. The VAE's codes are uncertain, and a term pulls them to"
    " N(0, I). The generator of the GAN has the layers of the decoders. First two rows: held-out faces, reconstructed;"
    " a GAN has no codes of pictures. Below: random codes, decoded. An autoencoder has no prior either; it gets a"
    " Gaussian with the mean and the variance of each number of its codes."
)
_WALK = (
    "From one face to another. For autoencoder and VAE the ends are the codes of the same held-out faces, for the GAN"
    " two draws of noise. The autoencoder's walk is a straight line. Draws of N(0, I) of many numbers have all nearly"
    " the same norm, and a line between them passes through the middle, where hardly any lie. So the others walk on"
    " arcs."
)
_HOLES = (
    "{ways} ways between two faces. Clipped density: how many of the pictures have a real face near them, in the"
    " features of avatars-v1, beside the same of real faces. Where it sags on the way, the walk has left what the model"
    " knows. Blurred pictures have less to begin with, so the last column divides by the density at the ends. FD is the"
    " Fréchet distance to held-out faces. The largest step is that of features, on ways of {even} steps: 1 is even."
)
_SUMS = (
    "a has {wanted}, b has none and hair of the same colour, and c has none and hair of another colour. a − b should"
    " be {wanted} alone, and a − b + c the face c with {wanted}. Examples are chosen among {pool} points by what"
    " avatars-v1 reads: codes of held-out faces, and draws of the GAN. Columns 1 to 3 are of one example of each, the"
    " last of the means of these three."
)
_COUNTED = (
    "{trials} sums with other examples each time. Reached: the share in which avatars-v1 reads {wanted}. Hair: the"
    " share that has the colour of c. Others kept: of all attributes but the glasses, the share that is read as in the"
    " picture of c, or of the mean of the c. In brackets the same after a random step as long as a − b. Means lie"
    " nearer to the middle, where pictures are typical."
)


@dataclass(frozen=True)
class Ways:
    """What pictures on ways between two faces are like.

    Attributes:
        density: clipped density at each of the places of a way, from an end to the middle.
        fd: Fréchet distance at the ends, in the middle, and of draws of the prior.
        drawn: clipped density of draws of the prior.
        sharpness: of draws, over that of real faces.
        evenness: largest over mean step, mean over ways.
        gap: kernel distance between codes of faces and the prior; None without codes.
    """

    density: list[float]
    fd: tuple[float, float, float]
    drawn: float
    sharpness: float
    evenness: float
    gap: float | None

    @property
    def sag(self) -> float:
        """The density in the middle over that at the ends."""
        return self.density[-1] / max(self.density[0], 1e-9)


@dataclass(frozen=True)
class Sums:
    """What came of sums a − b + c.

    Attributes:
        reached: share that has what a has.
        hair: share with the hair of c.
        kept: share of all other attributes that are those of c.
        random_reached: share that has what a has after a random step of the same length.
        random_kept: share that such a step keeps.
    """

    reached: float
    hair: float
    kept: float
    random_reached: float
    random_kept: float


def run(bench: Bench) -> None:
    """Trains the three, then walks and adds."""
    spaces: dict[str, Space] = {}
    for name, (recipe, changes) in TRAININGS.items():
        model = bench.train(name, recipe, changes)
        spaces[name] = Code(model) if isinstance(model, Encodes) else Noise(model)
    reader, heldout = attribute_reader("avatars-v1"), bench.dataset("test")
    order = torch.randperm(len(heldout), generator=torch.Generator().manual_seed(bench.seed))
    x = to_float(heldout.fetch(order.tolist()))
    _models(bench, spaces, x)
    _walks(bench, spaces, x)
    found = _holes(bench, spaces, x, heldout)
    sums = _arithmetic(bench, spaces, x, reader)
    _claims(bench, found, sums)


# ---- the three models ------------------------------------------------------------------------------------------------


def places_of(space: Space, x: Tensor, seed: int) -> Tensor:
    """The codes (N,…) of faces x (N,C,H,W), or as many draws where nothing encodes."""
    codes = space.points(x, None)
    return space.draw(len(x), seed, None) if codes is None else codes


def _models(bench: Bench, spaces: dict[str, Space], x: Tensor) -> None:
    grids = {}
    for name, space in spaces.items():
        codes = space.points(x[:12], None)
        first = torch.ones_like(x[:12]) if codes is None else space.images(codes)
        drawn = space.images(Noise(space.model).draw(36, bench.seed, None))
        grids[name] = draw.image_grid(torch.cat([first, drawn]), 6)
    sizes = {name: _decoder_size(space.model) for name, space in spaces.items()}
    steps = {name: bench.runs[name].metrics()[-1]["images"] // BATCH for name in spaces}
    a, b = torch.randn(2, 10_000, Z, generator=torch.Generator().manual_seed(bench.seed))
    half = torch.full((10_000,), 0.5)
    norms = [float(between(a, b, half).norm(dim=1).mean()) for between in (lerp, slerp)]
    bench.section(
        "Three models of the same faces",
        _SAME.format(images=bench.images, batch=BATCH, z=Z),
        bench.figure(
            "models",
            draw.side_by_side({"real": draw.image_grid(torch.cat([x[:12], x[12:48]]), 6), **grids}),
            "Two rows of held-out faces as each reconstructs them, and six rows of random codes, decoded.",
            "Grids of faces: real ones; reconstructions above samples of an autoencoder, a VAE and a GAN",
        ),
        checks=[
            check("parameters of the VAE's decoder, as of the autoencoder's", sizes["autoencoder"], sizes["VAE"]),
            check("parameters of G: the same less 3 biases of the output", sizes["autoencoder"] - 3, sizes["GAN"]),
            check("steps of the VAE, as of the autoencoder", steps["autoencoder"], steps["VAE"]),
            check("steps of the GAN, as of the autoencoder", steps["autoencoder"], steps["GAN"]),
            check_close(
                f"norm half-way between two draws of {Z} numbers, on a line: √{Z // 2}", 4.0, norms[0], 0.05, 2
            ),
            check_close(f"the same on an arc: √{Z}", 5.66, norms[1], 0.06, 2),
        ],
    )


def _decoder_size(model: GenerativeModel) -> int:
    nets: Any = model
    net = nets.decoder if hasattr(nets, "decoder") else nets.G
    return sum(p.numel() for p in net.parameters())


# ---- walks -----------------------------------------------------------------------------------------------------------


def _walks(bench: Bench, spaces: dict[str, Space], x: Tensor) -> None:
    rows: dict[str, Tensor] = {}
    for name, space in spaces.items():
        stops = places_of(space, x[:4], bench.seed + 1)
        for i in range(2):
            way = through(space, stops[2 * i : 2 * i + 2], _STEPS)
            rows[f"{name}" + (" " if i else "")] = space.images(way)
    bench.section(
        "Walks",
        _WALK,
        bench.figure(
            "walks",
            draw.image_rows(rows, headings=[f"{i / (_STEPS - 1):.1f}" for i in range(_STEPS)]),
            "Two walks in each of the three spaces. Above, how far on the way.",
            "Rows of faces that turn into others: through ghosts of two faces, through blurred faces, through faces",
        ),
    )


@torch.no_grad()
def ways_of(space: Space, x: Tensor, heldout: Dataset, reference: ReferenceSet, seed: int) -> Ways:
    """What lies between faces x (N,C,H,W) in a space, on ways from each of one half to one of the other."""
    points = places_of(space, x, seed)
    a, b = points[: len(x) // 2], points[len(x) // 2 : 2 * (len(x) // 2)]
    places = [reference(space.images(space.between(a, b, torch.full((len(a),), t)))).scores for t in _PLACES]
    drawn = reference(space.images(Noise(space.model).draw(len(a), seed + 1, None))).scores
    few = min(len(a), 64)
    t = torch.linspace(0, 1, _EVEN + 1).repeat(few)
    first, last = (p[:few].repeat_interleave(_EVEN + 1, 0) for p in (a, b))
    features = reference.extractor.features(space.images(space.between(first, last, t))).view(few, _EVEN + 1, -1)
    model, gap = space.model, None
    if isinstance(model, Encodes):
        gap = posterior_prior_gap(model, heldout, n=_WAYS, seed=seed).value
    return Ways(
        [s["clipped_density"] for s in places],
        (places[0]["fd"], places[-1]["fd"], drawn["fd"]),
        drawn["clipped_density"],
        drawn["sharpness"],
        float(evenness(features).mean()),
        gap,
    )


def _holes(bench: Bench, spaces: dict[str, Space], x: Tensor, heldout: Dataset) -> dict[str, Ways]:
    bench.progress.say(f"lab {bench.lab}: what lies between faces")
    try:
        reference = ReferenceSet(bench.dataset("train"), heldout, n=_WAYS)
    except LimnerError:  # too few faces for the features of the reader
        return {}
    some = x[: 2 * _WAYS]
    found = {name: ways_of(space, some, heldout, reference, bench.seed) for name, space in spaces.items()}
    bench.results["ways"] = {name: asdict(w) | {"sag": w.sag} for name, w in found.items()}
    figure, (left, right) = draw.plots(2, height=2.9)
    axis = [*_PLACES, *(1 - t for t in reversed(_PLACES[:-1]))]
    both = {name: [*w.density, *reversed(w.density[:-1])] for name, w in found.items()}
    draw.curves(
        left, {n: (axis, d) for n, d in both.items()}, xlabel="way", title="clipped density of pictures", marker="o"
    )
    relative = {n: (axis, [v / max(d[0], 1e-9) for v in d]) for n, d in both.items()}
    draw.curves(right, relative, xlabel="way", title="the same over that at the ends", marker="o")
    names = (
        "model", "density at the ends", "in the middle", "middle over ends", "FD at the ends", "FD in the middle",
        "density of draws", "FD of draws", "largest step", "codes to prior, MMD²",
    )  # fmt: skip
    rows = [
        (
            name, f"{w.density[0]:.3f}", f"{w.density[-1]:.3f}", f"{w.sag:.2f}", f"{w.fd[0]:.1f}", f"{w.fd[1]:.1f}",
            f"{w.drawn:.3f}", f"{w.fd[2]:.1f}", f"{w.evenness:.2f}", "–" if w.gap is None else f"{w.gap:.3f}",
        )
        for name, w in found.items()
    ]  # fmt: skip
    bench.section(
        "Holes",
        _HOLES.format(ways=len(some) // 2, even=_EVEN),
        bench.figure(
            "density",
            figure,
            "Left, the density of pictures on the way. Right, over that at the ends; both directions are alike.",
            "Two charts with a line for each model, which sags in the middle",
        ),
        table=Table(names, rows),
    )
    return found


# ---- arithmetic ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pool:
    """Points and what is read in their pictures.

    Attributes:
        points: (N,…).
        read: (N,) indices of values, by attribute.
        values: names of the values.
    """

    points: Tensor
    read: Mapping[str, Tensor]
    values: Mapping[str, list[str]]

    @classmethod
    def of(cls, space: Space, points: Tensor, reader: AttributeReader) -> Pool:
        """The points with what a reader reads."""
        return cls(points, _read(reader, space.images(points)), reader.values)

    def having(self, glasses: str, hair: int) -> Tensor:
        """Indices of the points with these glasses and this colour of hair."""
        k = self.values[WANTED].index(glasses)
        return ((self.read[WANTED] == k) & (self.read[BESIDE] == hair)).nonzero()[:, 0]

    def examples(self, k: int, chance: torch.Generator) -> list[Tensor] | None:
        """Points (k,…) of a, b and c; None if there are too few of any colours of hair."""
        for i in torch.randperm(len(self.values[BESIDE]) ** 2, generator=chance).tolist():
            own, other = divmod(i, len(self.values[BESIDE]))
            if own == other:
                continue
            kinds = [self.having(_VALUE, own), self.having(_WITHOUT, own), self.having(_WITHOUT, other)]
            if min(map(len, kinds)) >= k:
                return [self.points[ids[torch.randperm(len(ids), generator=chance)[:k]]] for ids in kinds]
        return None


def _read(reader: AttributeReader, x: Tensor) -> dict[str, Tensor]:
    return {name: logits.argmax(1).cpu() for name, logits in reader.logits(x).items()}


def summed(space: Space, pool: Pool, reader: AttributeReader, k: int, seed: int) -> Sums | None:
    """What comes of sums of means of k examples; None if there are too few."""
    chance = torch.Generator().manual_seed(seed)
    sums, bases, moved = [], [], []
    for _ in range(_TRIALS):
        examples = pool.examples(k, chance)
        if examples is None:
            return None
        a, b, c = (e.mean(0) for e in examples)
        u = torch.randn(c.shape, generator=chance)
        sums.append(a - b + c)
        bases.append(c)
        moved.append(c + (a - b).norm() * u / u.norm())
    of_sum, of_c, of_random = (_read(reader, space.images(torch.stack(p))) for p in (sums, bases, moved))
    wanted = pool.values[WANTED].index(_VALUE)
    others = [name for name in of_c if name != WANTED]

    def kept(found: dict[str, Tensor], names: list[str]) -> float:
        return float(torch.stack([(found[n] == of_c[n]).double() for n in names]).mean())

    reached, at_random = (float((found[WANTED] == wanted).double().mean()) for found in (of_sum, of_random))
    return Sums(reached, kept(of_sum, [BESIDE]), kept(of_sum, others), at_random, kept(of_random, others))


def _arithmetic(
    bench: Bench, spaces: dict[str, Space], x: Tensor, reader: AttributeReader
) -> dict[str, dict[int, Sums]]:
    bench.progress.say(f"lab {bench.lab}: arithmetic")
    grids, found = {}, dict[str, dict[int, Sums]]()
    for name, space in spaces.items():
        pool = Pool.of(space, places_of(space, x, bench.seed + 2), reader)
        each = {k: summed(space, pool, reader, k, bench.seed) for k in EXAMPLES}
        found[name] = {k: s for k, s in each.items() if s is not None}
        examples = pool.examples(3, torch.Generator().manual_seed(bench.seed))
        if examples is not None:
            grids[name] = _sheet(space, examples)
    bench.results["arithmetic"] = {name: {k: asdict(s) for k, s in each.items()} for name, each in found.items()}
    wanted = f"{_VALUE} {WANTED}"
    if grids:
        bench.section(
            "Arithmetic: a − b + c",
            _SUMS.format(wanted=wanted, pool=f"{len(x):,}"),
            bench.figure(
                "arithmetic",
                draw.side_by_side(grids),
                "Rows a, b, c, and a − b + c; three single examples, then their means.",
                "Three sheets of faces; in the last row of each the faces of the third have got glasses, or not",
            ),
        )
    rows = [
        (
            name, k, f"{s.reached:.2f} ({s.random_reached:.2f})", f"{s.hair:.2f}",
            f"{s.kept:.2f} ({s.random_kept:.2f})",
        )
        for name, each in found.items() for k, s in each.items()
    ]  # fmt: skip
    names = ("model", "examples of each", f"reached: {wanted}", "hair of c", "others kept")
    bench.section("One example, three, ten", _COUNTED.format(trials=_TRIALS, wanted=wanted), table=Table(names, rows))
    return found


def _sheet(space: Space, examples: list[Tensor]) -> Any:
    a, b, c = (torch.cat([e, e.mean(0, keepdim=True)]) for e in examples)
    rows = {"a": a, "b": b, "c": c, "a − b + c": a - b + c}
    headings = [*map(str, range(1, len(a))), "mean"]
    return draw.image_rows({name: space.images(p) for name, p in rows.items()}, scale=3, headings=headings)


# ---- claims ----------------------------------------------------------------------------------------------------------


def _claims(bench: Bench, found: dict[str, Ways], sums: dict[str, dict[int, Sums]]) -> None:
    if found:
        ae, vae, gan = (found[name] for name in TRAININGS)
        bench.claim(
            "Between codes of an autoencoder there are holes, and a VAE and a GAN have none",
            "density in the middle over that at the ends: "
            + ", ".join(f"{name} {w.sag:.2f}" for name, w in found.items()),
            ae.sag < 0.8 and min(vae.sag, gan.sag) > ae.sag + 0.1,
        )
        bench.claim(
            "Random codes of an autoencoder are no faces; those of a VAE are",
            f"Fréchet distance {ae.fd[2]:.1f} and {vae.fd[2]:.1f}, density {ae.drawn:.3f} and {vae.drawn:.3f}",
            vae.fd[2] < ae.fd[2] and vae.drawn > ae.drawn,
        )
        bench.claim(
            "A VAE's samples are blurred, a GAN's are sharp",
            f"sharpness over that of real faces {vae.sharpness:.2f} and {gan.sharpness:.2f}",
            vae.sharpness < 0.7 and abs(gan.sharpness - 1) < abs(vae.sharpness - 1),
        )
    pairs = {name: (each[1], each[3]) for name, each in sums.items() if 1 in each and 3 in each}
    bench.claim(
        "Arithmetic of single examples is unstable, of means of three it works",
        "; ".join(
            f"{name}: reached {one.reached:.2f} and {three.reached:.2f},"
            f" others kept {one.kept:.2f} and {three.kept:.2f}"
            for name, (one, three) in pairs.items()
        )
        or "too few examples",
        bool(pairs) and all(three.reached + three.kept > one.reached + one.kept for one, three in pairs.values()),
    )
