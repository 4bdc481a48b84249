"""Disentanglement: sliders of data whose factors are known, by three methods and several seeds.

A VAE (Kingma and Welling 2013), a β-VAE (Higgins et al. 2017) and an InfoGAN (Chen et al. 2016) learn without labels
from the heads of `solids` and the sprites of `mini-dsprites`, each from as many images and with several seeds. Whether
a number of a code is one of the factors is then measured: by MIG and DCI, and by readers that look at what a slider
changes. Locatello et al. (2019, *Challenging common assumptions in the unsupervised learning of disentangled
representations*, arXiv:1811.12359) did this with 12,000 trainings; this is their experiment at the size of a lesson.
As there, all combinations of the factors are trained on, and nothing is held out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from limner.core.batch import to_float
from limner.core.capabilities import Encodes, EstimatesCodes, HasBound
from limner.core.model import GenerativeModel
from limner.core.units import Count
from limner.evaluation.factors import codes_and_factors, factor_reader, half_turn
from limner.evaluation.likelihood import bounds
from limner.labs import _figures as draw
from limner.labs._bench import Bench, check, check_close, spaced_indices
from limner.latent.directions import ridge
from limner.latent.judges import Correlation, correlations
from limner.latent.spaces import Measured, Space, space_of
from limner.latent.traverse import REACH, Row, Slider, along, sliders, traversed
from limner.losses import likelihood
from limner.metrics.disentangle import dci, mig, mutual_information
from limner.metrics.extractors.attributes import attribute_reader
from limner.metrics.extractors.readers import ReadsQuantities
from limner.report import Check, Table

IMAGES = 50_000
DATA: dict[str, Any] = {"name": "solids", "size": 32, "split": "all"}
SETS: dict[str, dict[str, Any]] = {"solids": DATA, "mini-dsprites": {"name": "mini-dsprites", "split": "all"}}
"""The data by name."""
READERS: dict[str, Callable[[], ReadsQuantities]] = {
    "solids": partial(attribute_reader, "solids-v1"),
    "mini-dsprites": factor_reader,
}
"""What reads the factors of their pictures."""
_VAE = {"model.z": 10}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "VAE": ("conv-vae-mnist", _VAE),
    "β-VAE": ("conv-vae-mnist", _VAE | {"model.beta": 4.0}),
    "InfoGAN": ("infogan-sprites", {}),
}
"""The recipe of each method, and what is changed in it."""
CODES = {"solids": ["uniform"] * 4, "mini-dsprites": [3, *["uniform"] * 4]}
"""InfoGAN's codes: as many as there are factors, a categorical one for the shape."""

_RARE = ("train.sample_images", "train.checkpoint_images")  # once, at the end
_POINTS = 10_000  # images whose codes are compared with their factors
_LEARN, _TEST = 600, 300  # of them, for DCI
_DRAWS, _BASES = 500, 8  # points from which deviations are measured, and from which sliders start
_STEPS, _ROWS = 9, 6
_LIKELIHOODS = 1000  # images whose ELBO is measured
_BOUND, _IMPORTANCE = 64, 16  # images whose likelihood is measured before and after a turn, and draws for each
_RIDGE = 1e-2

_FACTORS = (
    "The pictures of both sets are computed from their factors, and have every combination of them once: so the"
    " factors are independent, and what a code should find is known.\n\n"
    "MIG (Chen et al. 2018) is the mean over factors of the gap between the two numbers of a code that tell most of a"
    " factor, as a share of all there is to know. DCI disentanglement (Eastwood and Williams 2018) is 1 if every"
    " number is of use for one factor alone. A code that is the factors themselves has 1 in both, and noise has"
    " almost 0."
)
_TRAINED = (
    "Each training sees {images:,} images, and only its seed differs from its neighbour. The codes of a VAE are"
    " the means of its posterior, those of an InfoGAN what Q estimates. {n:,} images, or all that there are, are"
    " compared with their factors; DCI is that of the best seed of each method. The ELBO is in nats per image;"
    " β-VAE gives some of it away for a tidier code.\n\n"
    "Compare the points of one colour with the distance between the colours. The share of the variance of MIG that"
    " the choice of the method explains is {shares}; it would be {chance:.0%} if the methods did not differ at all."
    " Locatello et al. found 37 % in 12,000 trainings, and nothing by which a good seed could be told without labels."
)
_SLIDERS = (
    "The training with the largest MIG. In a row one number of the code of a picture goes from −3 to 3 standard"
    " deviations, as measured over the codes of pictures (a code of InfoGAN through its range), and all else"
    " stays; the rows that change the picture most come first. The name of a slider is the factor that {reader},"
    " a net that learnt to read them, sees go most evenly with the slider, with the correlation r over {bases}"
    " rows of pictures. It is unnamed where |r| < 0.5, or where the factor moves by less than a tenth of its"
    " range.\n\n"
    "A reader has to name something. Where a picture is no longer one of the set, as it may be at the ends of a"
    " slider or after a short training, its names mean little: look at the rows before you believe them."
)
_NAMES = (
    "What each number is called with each seed, of the method with the largest mean MIG. Nothing in the training"
    " ties a name to a place: the number that turns the head with one seed may be the light with the next, or"
    " nothing.\n\n"
    "So what a slider does is not known until it is measured, and has to be measured for every training."
)
_TURNED = (
    "The code z of the VAE is turned: z′ = Qz with a random orthogonal matrix Q, behind the encoder and in front"
    " of the decoder. The prior N(0, I) is the same from all sides, so that the turned model has the same"
    " samples, and the same likelihood of every image (Locatello et al., theorem 1). No likelihood can prefer one"
    " of the two, though their sliders are not the same. MIG was {mig:.3f} before and is {mig_turned:.3f} after.\n\n"
    "What does prefer one is the form of the encoder. Its posterior is a Gaussian with independent numbers, and the"
    " turned one is not. With the best of independent numbers the turned model has an ELBO of {diagonal:.2f} nats,"
    " and the plain one of {elbo:.2f} (of {n} images). The better a VAE is trained, the more it loses: so it is this"
    " restriction of the encoder, and not the likelihood, that lines up its code with axes at all (Rolínek et al."
    " 2019, arXiv:1812.06775)."
)
_RIDGE_TEXT = (
    "If the factors of {n:,} images are known, a linear map from codes to factors is found by ridge regression,"
    " and each factor has a direction in the code. The table compares the best single number with that direction,"
    " on images that neither was chosen by: r with the factor (of an angle, the multiple correlation with its"
    " cosine and sine; of a shape, with its best-told value), and what the reader sees move when a slider goes"
    " from −3 to 3 standard deviations: the factor itself, and the other factor that moves most, as shares of"
    " their ranges. Below it, a random direction.\n\n"
    "A factor that is spread over several numbers of the code is not lost: a direction finds it, if labels say what"
    " to look for."
)


@dataclass(frozen=True, eq=False)
class Trained:
    """A training and what was measured of it.

    Attributes:
        method: name of the method.
        label: name of the run.
        model: the model.
        codes: (N,d) codes of images.
        factors: (N,K) their factors.
        elbo: nats per image; None for InfoGAN.
        rows: its sliders, those that change pictures most first.
    """

    method: str
    label: str
    model: Any
    codes: Tensor
    factors: Tensor
    elbo: float | None
    rows: list[Row]

    @cached_property
    def mig(self) -> float:
        """The mutual information gap."""
        return mig(self.codes, self.factors)

    @property
    def names(self) -> dict[str, str | None]:
        """The factor after which each slider is named; None for one without a name."""
        return {row.slider.name: row.named.attribute if row.named and row.named.is_name else None for row in self.rows}

    def document(self) -> dict[str, Any]:
        """What ``results.json`` says of it."""
        sliders = {row.slider.name: {"named": str(row.named), "change": row.change} for row in self.rows}
        return {
            "method": self.method,
            "mig": self.mig,
            "elbo": self.elbo,
            "sliders": sliders,
        }


def run(
    bench: Bench,
    *,
    of: Literal["both", "solids", "mini-dsprites"] = "both",
    seeds: Annotated[Count, Field(ge=2)] = 3,
    infogan: bool = True,
) -> None:
    """Trains every method with one seed after another on each set, then measures and draws the sliders.

    Args:
        bench: collects the results.
        of: the data: solids, mini-dsprites, or both.
        seeds: trainings of each method, which differ in their seed. Raise it to see how much depends on the seed.
        infogan: train InfoGANs too. They take as long as all VAEs together.
    """
    chosen = list(SETS) if of == "both" else [of]
    _factors(bench, chosen)
    methods = [method for method in METHODS if infogan or method != "InfoGAN"]
    found = {name: _trainings(bench, name, methods, seeds) for name in chosen}
    bench.results["trainings"] = {name: {t.label: t.document() for t in table} for name, table in found.items()}
    _scores(bench, found)
    for name, table in found.items():
        _sliders(bench, name, max(table, key=lambda t: t.mig))
    agreement = _names(bench, found)
    turned = {name: _turned(bench, name, _best_vae(table)) for name, table in found.items()}
    lines = {name: _with_labels(bench, name, _best_vae(table)) for name, table in found.items()}
    _claims(bench, found, agreement, turned, lines)


def _best_vae(table: Sequence[Trained]) -> Trained:
    """The training of a VAE or β-VAE with the largest MIG."""
    return max((t for t in table if isinstance(t.model, Encodes)), key=lambda t: t.mig)


# ---- factors and trainings -------------------------------------------------------------------------------------------


def _factors(bench: Bench, chosen: Sequence[str]) -> None:
    rows, checks = [], list[Check]()
    figures = []
    for name in chosen:
        data: Any = bench.dataset("all", SETS[name])
        sizes, names = tuple(data.factor_sizes), tuple(data.factor_names)
        table = data.factors.numpy()
        told = max(
            float(mutual_information(table[:, [a]], table[:, [b]])[0, 0]) for a, b in combinations(range(len(names)), 2)
        )
        noise = torch.randn(len(table), 10, generator=torch.Generator().manual_seed(bench.seed))
        distinct = half_turn(data.factors) if name == "mini-dsprites" else data.factors
        checks += [
            check(f"images of {name}: {'·'.join(map(str, sizes))}", math.prod(sizes), len(data)),
            check_close(f"what two factors of {name} tell of each other, nats", 0.0, told, 1e-9),
            check_close(f"MIG of the factors of {name} as a code", 1.0, mig(data.factors.double(), data.factors), 1e-9),
            check(f"MIG of ten numbers of noise, {name}: below .02", "< 0.02", f"{mig(noise, distinct):.3f}",
                  mig(noise, distinct) < 0.02),
        ]  # fmt: skip
        rows += [(name, factor, size) for factor, size in zip(names, sizes, strict=True)]
        figures.append(bench.figure(
            f"factors-{name}",
            draw.image_rows(_along_factors(data)),
            f"{name}: a row for each factor, which goes through its range while the others stay.",
            "Rows of pictures in which one thing changes at a time.",
        ))  # fmt: skip
    bench.section(
        "Factors that are known", _FACTORS, *figures, table=Table(("set", "factor", "values"), rows), checks=checks
    )


def _along_factors(data: Any) -> dict[str, Tensor]:
    """Seven pictures (7,C,H,W) for each factor, by its name; the other factors have their middle value."""
    sizes = torch.tensor(data.factor_sizes)
    places = torch.cat([sizes.flip(0).cumprod(0).flip(0)[1:], torch.ones(1, dtype=sizes.dtype)])
    rows = {}
    for k, name in enumerate(data.factor_names):
        factors = (sizes // 2).expand(7, -1).clone()
        factors[:, k] = torch.linspace(0, int(sizes[k]) - 1, 7).round().long()
        rows[name] = to_float(data.fetch((factors * places).sum(1).tolist()))
    return rows


def _trainings(bench: Bench, name: str, methods: Sequence[str], seeds: int) -> list[Trained]:
    """Some methods with all seeds on one set."""
    data, reader = bench.dataset("all", SETS[name]), READERS[name]()
    found = []
    for method in methods:
        recipe, changes = METHODS[method]
        codes = {"model.codes": CODES[name]} if method == "InfoGAN" else {}
        for k in range(seeds):
            label = f"{name}-{method.lower().replace('β', 'beta')}-{k + 1}"
            settings = {"data": SETS[name], "train.seed": bench.seed + k} | changes | codes
            model = bench.train(label, recipe, settings | dict.fromkeys(_RARE, bench.images))
            found.append(_measured(bench, method, label, model, data, reader))
    return found


def _measured(
    bench: Bench, method: str, label: str, model: GenerativeModel, data: Any, reader: ReadsQuantities
) -> Trained:
    assert isinstance(model, (Encodes, EstimatesCodes))
    codes, factors, _ = codes_and_factors(model, data, n=_POINTS, seed=bench.seed)
    elbo = bounds(model, data, k=1, limit=_LIKELIHOODS, seed=bench.seed).elbo if isinstance(model, HasBound) else None
    rows = _rows(model, data, bench.seed, reader)
    return Trained(method, label, model, codes, factors, elbo, rows)


def _points(model: Any, data: Any, seed: int) -> tuple[Space, Tensor, Measured]:
    """A space of a model, points from which its sliders start, and what its points are like.

    Points are codes of pictures where the model has an encoder, so that sliders start at pictures of the set, and draws
    of the prior elsewhere.
    """
    space = space_of(model, "code" if isinstance(model, Encodes) else "z")
    if space.name == "z":
        return space, space.draw(_BASES, seed, None), Measured.of(space.draw(_DRAWS, seed + 1, None))
    ids = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[: _DRAWS + _BASES].tolist()
    points = space.points(to_float(data.fetch(ids)), None)
    assert points is not None
    return space, points[:_BASES], Measured.of(points[_BASES:])


def _rows(model: Any, data: Any, seed: int, reader: ReadsQuantities) -> list[Row]:
    """The sliders of a model, those that change pictures most first."""
    space, bases, found = _points(model, data, seed)
    return traversed(space, sliders(space, found, _STEPS), bases, None, _ROWS, reader)


# ---- scores, sliders and names ---------------------------------------------------------------------------------------


def explained(groups: Sequence[Sequence[float]]) -> float:
    """The share of the variance of all values that the means of the groups explain (η²), from 0 to 1.

    >>> explained([[1.0, 2.0], [1.0, 2.0]]), explained([[1.0, 1.0], [2.0, 2.0]])
    (0.0, 1.0)
    """
    values = torch.tensor([v for group in groups for v in group], dtype=torch.float64)
    means = torch.tensor([sum(group) / len(group) for group in groups for _ in group], dtype=torch.float64)
    total = float((values - values.mean()).square().sum())
    return float((means - values.mean()).square().sum()) / total if total > 0 else 0.0


def _by_method(table: Sequence[Trained]) -> dict[str, list[Trained]]:
    return {method: [t for t in table if t.method == method] for method in dict.fromkeys(t.method for t in table)}


def _share(table: Sequence[Trained]) -> float:
    return explained([[t.mig for t in group] for group in _by_method(table).values()])


def _scores(bench: Bench, found: Mapping[str, Sequence[Trained]]) -> None:
    figure, axes = draw.plots(len(found), height=3.2)
    rows = []
    for ax, (name, table) in zip(axes, found.items(), strict=True):
        draw.strips(ax, {m: [t.mig for t in group] for m, group in _by_method(table).items()}, f"MIG on {name}")
        best = {max(group, key=lambda t: t.mig).label for group in _by_method(table).values()}
        for t in table:
            trees = ("–", "–")
            if t.label in best:
                bench.progress.say(f"lab {bench.lab}: DCI of {t.label}")
                scores = dci(t.codes, t.factors, train=_LEARN, test=_TEST, seed=bench.seed)
                trees = (f"{scores.disentanglement:.3f}", f"{scores.informativeness:.2f}")
                bench.results.setdefault("dci", {})[t.label] = [scores.disentanglement, scores.informativeness]
            elbo = "–" if t.elbo is None else f"{t.elbo:.1f}"
            named = [row.named for row in t.rows if row.named and row.named.is_name]
            rows.append((t.label, f"{t.mig:.3f}", *trees, elbo, len(named), len({n.attribute for n in named})))
    shares = {name: _share(table) for name, table in found.items()}
    bench.results["explained by the method"] = shares
    first = next(iter(found.values()))
    methods, total = len(_by_method(first)), len(first)
    text = _TRAINED.format(
        images=bench.images,
        n=_POINTS,
        shares=" and ".join(f"{share:.0%} on {name}" for name, share in shares.items()),
        chance=(methods - 1) / (total - 1),
    )
    told = ("MIG", "DCI: disentanglement", "DCI: informativeness", "ELBO, nats")
    names = ("training", *told, "named sliders", "factors among them")
    bench.section(
        "The seed and the method",
        text,
        bench.figure(
            "scores",
            figure,
            "A point for each seed, a colour for each method; the line is their mean.",
            "Points in three columns, which overlap.",
        ),
        table=Table(names, rows),
    )


def _sliders(bench: Bench, name: str, best: Trained) -> None:
    reader = READERS[name]()
    shown = {_called(row): row.images for row in best.rows if len(row.images) == _STEPS}
    labels = [row.slider.labels for row in best.rows if len(row.images) == _STEPS]
    headings = labels[0] if all(each == labels[0] for each in labels) else ()  # codes of InfoGAN have their own
    bench.section(
        f"Sliders of {name}",
        _SLIDERS.format(reader=reader.key, bases=_BASES),
        bench.figure(
            f"sliders-{name}",
            draw.image_rows(shown, headings=headings),
            f"{best.label}, MIG {best.mig:.3f}: a row for each slider, with what a reader sees change.",
            "Rows of pictures that change from left to right, with names.",
        ),
    )


def _called(row: Row) -> str:
    """The slider and its name, in two lines."""
    named = row.named
    if named is None or not named.is_name:
        return f"{row.slider.name}\nunnamed"
    value = "" if named.value is None else f"={named.value}"
    return f"{row.slider.name}\n{named.attribute}{value}, r = {named.r:+.2f}"


def _names(bench: Bench, found: Mapping[str, Sequence[Trained]]) -> dict[str, tuple[int, int]]:
    """Of each set, pairs of seeds in which a number has one name, and all pairs in which it has a name in both."""
    rows, agreement = [], {}
    for name, table in found.items():
        group = max(_by_method(table).values(), key=lambda g: sum(t.mig for t in g))
        agreement[name] = agreeing([t.names for group in _by_method(table).values() for t in group], len(group))
        places = sorted({place for t in group for place in t.names}, key=lambda place: (len(place), place))
        rows += [
            (name, group[0].method, place, *(t.names.get(place) or "–" for t in group)) for place in places
        ]  # fmt: skip
    bench.results["numbers with the same name"] = {name: list(pair) for name, pair in agreement.items()}
    seeds = len(next(iter(_by_method(next(iter(found.values()))).values())))
    bench.section(
        "A slider has no name until it is measured",
        _NAMES,
        table=Table(("set", "method", "number", *(f"seed {k + 1}" for k in range(seeds))), rows),
    )
    return agreement


def agreeing(names: Sequence[Mapping[str, str | None]], seeds: int) -> tuple[int, int]:
    """How often a number has the same name with two seeds of one method, and how often it has a name with both.

    >>> agreeing([{"z[0]": "x", "z[1]": "y"}, {"z[0]": "x", "z[1]": "x"}, {"z[0]": "y", "z[1]": None}], 3)
    (1, 4)

    Args:
        names: of each training the name of each number, the seeds of a method one after another.
        seeds: number of seeds.
    """
    same = both = 0
    for first in range(0, len(names), seeds):
        for a, b in combinations(names[first : first + seeds], 2):
            named = [(a[place], b.get(place)) for place in a if a[place] and b.get(place)]
            both += len(named)
            same += sum(x == y for x, y in named)
    return same, both


# ---- the turned code -------------------------------------------------------------------------------------------------


class Turned(nn.Module):
    """A VAE whose code is turned: z′ = Qz.

    Args:
        model: the VAE.
        Q: (z,z) orthogonal matrix.
    """

    def __init__(self, model: Any, Q: Tensor) -> None:
        super().__init__()
        self.model, self.Q, self.prior, self.title = model, Q, model.prior, model.title
        self.device = Q.device

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Posterior means (B,z)."""
        mu: Tensor = self.model.encode(x) @ self.Q.T
        return mu

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of turned codes (B,z)."""
        x: Tensor = self.model.decode(z @ self.Q)
        return x


def random_turn(size: int, seed: int) -> Tensor:
    """A random orthogonal matrix (size,size) in float64, uniformly distributed (Mezzadri 2007)."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    return q * r.diagonal().sign()


@torch.no_grad()
def likelihoods(model: Any, x: Tensor, Q: Tensor, k: int, seed: int) -> dict[str, float]:
    """Bounds in nats per image of a VAE and of the same model with a turned code, in float64 with the same noise.

    Args:
        model: the VAE.
        x: images (B,C,H,W).
        Q: (z,z) orthogonal matrix.
        k: draws for each image.
        seed: seed of the draws.

    Returns:
        ``plain`` and ``turned``: the importance-weighted bound with k draws; ``elbo``: the ELBO; ``diagonal``: that of
        the turned model if the numbers of its posterior have to be independent, with the best such variances: the
        inverses of the diagonal of the inverse covariance.
    """
    model = copy.deepcopy(model).double()
    x = x.double()
    mu, logvar = (part.double() for part in model.posterior(x))
    eps = torch.randn(k, *mu.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    z = mu + (0.5 * logvar).exp() * eps  # (k,B,z)
    standard = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)

    def log_px(codes: Tensor) -> Tensor:
        out = model.decoder(codes.flatten(0, 1))
        return model.log_likelihood(x.repeat(k, 1, 1, 1), out).view(k, len(x))

    log_q = torch.distributions.Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(2)
    plain = log_px(z) + standard.log_prob(z).sum(2) - log_q
    covariance = Q @ torch.diag_embed(logvar.exp()) @ Q.T
    turned_z = z @ Q.T
    log_q = torch.distributions.MultivariateNormal(mu @ Q.T, covariance).log_prob(turned_z)
    turned = log_px(turned_z @ Q) + standard.log_prob(turned_z).sum(2) - log_q
    variance = 1 / ((-logvar).exp() @ Q.T.square())
    independent = torch.distributions.Normal(mu @ Q.T, variance.sqrt())
    own = mu @ Q.T + variance.sqrt() * eps
    diagonal = log_px(own @ Q) + standard.log_prob(own).sum(2) - independent.log_prob(own).sum(2)
    return {
        "plain": float(likelihood.log_mean_exp(plain, 0).mean()),
        "turned": float(likelihood.log_mean_exp(turned, 0).mean()),
        "elbo": float(plain.mean()),
        "diagonal": float(diagonal.mean()),
    }


def _turned(bench: Bench, name: str, best: Trained) -> tuple[float, float]:
    """MIG of a VAE before and after its code is turned."""
    data = bench.dataset("all", SETS[name])
    x = to_float(data.fetch(spaced_indices(len(data), _BOUND).tolist()))
    Q = random_turn(best.model.prior.z, bench.seed)
    numbers = likelihoods(best.model, x, Q, _IMPORTANCE, bench.seed)
    turned = Turned(best.model, Q.float()).eval()
    codes, factors, _ = codes_and_factors(turned, data, n=_POINTS, seed=bench.seed)
    after = mig(codes, factors)
    bench.results.setdefault("turned", {})[name] = numbers = numbers | {"mig": best.mig, "mig_turned": after}
    rows = _rows(turned, data, bench.seed, READERS[name]())
    bench.section(
        f"A turn of the code of {name}",
        _TURNED.format(n=len(x), **numbers),
        bench.figure(
            f"turned-{name}",
            draw.image_rows({_called(row): row.images for row in rows}),
            f"Sliders of {best.label} after the turn: MIG {after:.3f}, and {best.mig:.3f} before.",
            "Rows of pictures in which several things change at once.",
        ),
        checks=[
            check_close(
                f"log p(x) of {name}, {_IMPORTANCE} draws, nats: plain and turned",
                numbers["plain"],
                numbers["turned"],
                1e-6,
                4,
            )
        ],
    )
    return best.mig, after


# ---- with labels -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A way to move one factor.

    Attributes:
        how: the number, or ridge.
        r: correlation with the factor on images that the direction was not chosen by.
        own: how far the factor moves, as a share of its range, from -3 to 3 deviations.
        other: how far the other factor moves that moves most.
        worst: its name.
    """

    how: str
    r: float
    own: float
    other: float
    worst: str


def targets(factors: Tensor, reader: ReadsQuantities) -> dict[str, Tensor]:
    """Columns (N,·) that a linear map is fitted to, by factor.

    A quantity is one column, its value; one that repeats has two, its cosine and its sine; another factor has one for
    each value, 1 where it has it.

    Args:
        factors: (N,K) indices of values, in the order of the reader's attributes.
        reader: knows which factors are quantities.
    """
    found = {}
    for name, column in zip(reader.values, factors.unbind(1), strict=True):
        if name not in reader.quantities:
            found[name] = torch.nn.functional.one_hot(column, len(reader.values[name])).double()
            continue
        values = torch.tensor([float(v) for v in reader.values[name]], dtype=torch.float64)[column]
        period = reader.quantities[name]
        angle = None if period is None else 2 * math.pi * values / period
        found[name] = values[:, None] if angle is None else torch.stack([angle.cos(), angle.sin()], 1)
    return found


def multiple_r(x: Tensor, y: Tensor) -> float:
    """The largest correlation of numbers x (N,) with a linear map of columns y (N,q), from 0 to 1."""
    x, y = x.double() - x.double().mean(), y - y.mean(0)
    fitted = y @ torch.linalg.lstsq(y, x[:, None], driver="gelsd").solution[:, 0]
    norms = float(x.norm() * fitted.norm())
    return float(x @ fitted) / norms if norms > 1e-12 else 0.0


def _with_labels(bench: Bench, name: str, best: Trained) -> dict[str, tuple[Line, Line]]:
    """For each factor the best single number, and the direction of ridge regression."""
    reader, data = READERS[name](), bench.dataset("all", SETS[name])
    space, bases, found = _points(best.model, data, bench.seed)
    codes, factors, _ = codes_and_factors(best.model, data, n=_POINTS, seed=bench.seed)
    n = len(codes) // 2  # they come in random order
    z, other_z = codes[:n], codes[n:]
    known, asked = targets(factors[:n], reader), targets(factors[n:], reader)

    def moved(label: str, vector: Tensor) -> tuple[Slider, Tensor, list[Correlation]]:
        slider = _slider(label, vector, found)
        points = slider.move(bases)
        x = space.images(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        return slider, x, correlations(reader, slider.t, x)

    lines, pictures, rows = dict[str, tuple[Line, Line]](), dict[str, Tensor](), list[tuple[object, ...]]()
    units = torch.eye(z.shape[1])
    for factor in known:
        j = max(range(z.shape[1]), key=lambda i: multiple_r(z[:, i], known[factor]))
        vectors = ridge(z, known[factor], _RIDGE)
        w = max(vectors, key=lambda v: multiple_r(z @ v, known[factor]))
        pair = []
        for how, vector in ((f"{space.name}[{j}]", units[j]), ("ridge", w)):
            _, x, seen = moved(how, vector)
            amounts = _moves(seen)
            worst = max((a for a in amounts if a != factor), key=lambda a: amounts[a])
            line = Line(how, multiple_r(other_z @ vector, asked[factor]), amounts[factor], amounts[worst], worst)
            pair.append(line)
            rows.append((factor, how, f"{line.r:.2f}", f"{line.own:.2f}", f"{line.other:.2f} ({worst})"))
            if how == "ridge":
                pictures[f"{factor}\nridge, r = {line.r:.2f}"] = x[0]
        lines[factor] = (pair[0], pair[1])
    chance = torch.randn(z.shape[1], generator=torch.Generator().manual_seed(bench.seed))
    amounts = _moves(moved("random", chance / chance.norm())[2])
    rows += [(factor, "a random direction", "–", f"{amounts[factor]:.2f}", "–") for factor in known]
    bench.results.setdefault("with labels", {})[name] = {
        factor: {line.how: vars(line) for line in pair} for factor, pair in lines.items()
    }
    names = ("factor", "direction", "r, other images", "moves the factor by", "and another by")
    bench.section(
        f"With labels: {name}",
        _RIDGE_TEXT.format(n=len(z)),
        bench.figure(
            f"ridge-{name}",
            draw.image_rows(pictures),
            f"Directions of ridge regression in the code of {best.label}, from −3 to 3 standard deviations.",
            "A row for each factor, in which mostly that factor changes.",
        ),
        table=Table(names, rows),
    )
    return lines


def _slider(label: str, vector: Tensor, found: Measured) -> Slider:
    sigma = float(found.sigma_along(vector[None])[0])
    return along(label, vector, found.mean, sigma, torch.linspace(-REACH, REACH, _STEPS), None)


def _moves(seen: Sequence[Correlation]) -> dict[str, float]:
    """How far each factor moves: the largest effect of its values."""
    amounts: dict[str, float] = {}
    for c in seen:
        amounts[c.attribute] = max(amounts.get(c.attribute, 0.0), abs(c.effect))
    return amounts


# ---- claims ----------------------------------------------------------------------------------------------------------


def _claims(
    bench: Bench,
    found: Mapping[str, Sequence[Trained]],
    agreement: Mapping[str, tuple[int, int]],
    turned: Mapping[str, tuple[float, float]],
    lines: Mapping[str, Mapping[str, tuple[Line, Line]]],
) -> None:
    within, between = [], []
    for table in found.values():
        groups = [[t.mig for t in group] for group in _by_method(table).values()]
        within.append(sum(max(g) - min(g) for g in groups) / len(groups))
        means = [sum(g) / len(g) for g in groups]
        between.append(max(means) - min(means))
    bench.claim(
        "The seed matters more than the method (Locatello et al. 2019)",
        "; ".join(
            f"{name}: MIG of one method differs by {w:.3f} between seeds, means of methods by {b:.3f}"
            for name, w, b in zip(found, within, between, strict=True)
        ),
        all(w >= b for w, b in zip(within, between, strict=True)),
    )
    same, both = (sum(pair[i] for pair in agreement.values()) for i in (0, 1))
    bench.claim(
        "An unsupervised slider has no name until it is measured",
        f"a number that has a name with two seeds of a method has the same name in {same} of {both} pairs",
        both == 0 or same / both < 0.5,
    )
    bench.claim(
        "A turned code has the same likelihood, and is not disentangled",
        "; ".join(
            f"{name}: MIG {before:.3f} before the turn, {after:.3f} after" for name, (before, after) in turned.items()
        ),
        all(after < before for before, after in turned.values()),
    )
    pairs = [pair for table in lines.values() for pair in table.values()]
    bench.claim(
        "Labels find a direction for every factor",
        f"r on other images is higher than that of the best single number for {sum(b.r > a.r for a, b in pairs)} of"
        f" {len(pairs)} factors; smallest {min(b.r for _, b in pairs):.2f}",
        all(b.r > a.r for a, b in pairs),
    )
