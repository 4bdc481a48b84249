"""The gradient of the generator while its discriminator becomes good.

Arjovsky and Bottou 2017, *Towards principled methods for training generative adversarial networks* (arXiv:1701.04862),
figures 2 and 3. A GAN is trained, and its generator saved after 1, 10 and 25 epochs. Each of the three is frozen
while a new discriminator learns to tell its images from real ones, and the norm of the gradient that G would follow is
recorded. The lecture says that D is "trained further"; in the paper it starts anew. `mode=on` is the lecture's variant.

Three games are played on the same nets, with the same start of D and the same real images. With f the logit
of D and ∇f its gradient with respect to G's weights, G follows the mean over its images of

    saturating      −σ(f) ∇f          D(G(z)) times the third: zero, once D rejects everything
    non-saturating  −(1 − σ(f)) ∇f
    WGAN-GP         −∇f               of a D whose slope is kept near 1
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Annotated, Any, Literal

import torch
from matplotlib.figure import Figure as Plot
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from limner import api
from limner.config.spec import Spec
from limner.core.batch import Dataset
from limner.core.checkpoint import folders
from limner.core.model import GenerativeModel
from limner.core.optimisers import Adam
from limner.core.rng import seed_of
from limner.core.run import Run
from limner.core.stream import Stream
from limner.core.units import Count
from limner.core.update import Updates
from limner.labs import _figures as draw
from limner.labs._bench import Bench, check
from limner.losses.adversarial import OBJECTIVES, Objective
from limner.report import Table

IMAGES = 112_500  # 25 epochs of the 4,500 training images of mnist-5k
MOMENTS = (1, 10, 25)  # G is saved after these of 25 epochs

Mode = Annotated[Literal["scratch", "on"], BeforeValidator(lambda v: "on" if v is True else v)]  # YAML's on is true
Nets = Literal["mlp", "dcgan"]

GAMES = ("saturating", "nonsaturating", "wgan_gp")
NAMES = {"saturating": "saturating", "nonsaturating": "non-saturating", "wgan_gp": "WGAN-GP"}
D_STEPS = Adam(lr=2e-4, betas=(0.5, 0.999))  # the optimiser of every new D

_NETS: dict[str, dict[str, Any]] = {
    "mlp": {},  # the recipe's: G 100-256-784, D 784-256-1
    "dcgan": {
        "model.G": {"name": "dcgan.Generator", "z": 64, "width": 8},
        "model.D": {"name": "dcgan.Discriminator", "width": 8, "norm": "none"},
    },
}
_BATCH = 64
_FIRST = 20  # the first iterations are all recorded
_RECORDED = 200  # number of recorded iterations among the others
_MEASUREMENTS, _BATCHES = 8, 16  # at most so many measurements of the deviation, batches of each
_WEIGHTS_STREAM, _IMAGES_STREAM = 11, 12  # stream ids of the seed


def run(
    bench: Bench, *, iterations: Annotated[Count, Field(ge=20)] = 4000, mode: Mode = "scratch", nets: Nets = "mlp"
) -> None:
    """Trains a GAN, then for each of its saved generators a discriminator in each of the three games.

    Args:
        bench: collects the results.
        iterations: training steps of each discriminator.
        mode: whether it starts anew, as in the paper, or goes on from the one that the generator was trained against.
        nets: the lecture's first GAN, or small convolutional ones as in the paper.
    """
    low_beta = {f"optim.{group}.betas": [0.5, 0.999] for group in "GD"}  # with 0.9 G generates blots, see lab gan
    checkpointing = {"train.checkpoint_images": max(_BATCH, bench.images // MOMENTS[-1]), "train.keep": MOMENTS[-1] + 1}
    bench.train("gan", "gan-mnist", low_beta | checkpointing | _NETS[nets])
    checkpoints = _keep_checkpoints(bench.runs["gan"], bench.images)
    dataset = bench.dataset("train")
    models = {_epochs(seen / len(dataset)): api.load(path) for seen, path in checkpoints.items()}
    _generators(bench, models)
    played = [
        train_discriminator(bench, epochs, game, model, dataset, iterations, mode)
        for epochs, model in models.items()
        for game in GAMES
    ]
    bench.results["games"] = [asdict(p) for p in played]
    _identity(bench, next(iter(models.values())))
    _norms(bench, played, mode)
    _cause(bench, played)
    _deviation(bench, played)
    _claims(bench, played, iterations, mode)


# ---- the generators --------------------------------------------------------------------------------------------------


def _keep_checkpoints(run: Run, images: int) -> dict[int, Any]:
    """The checkpoints nearest to `MOMENTS`, by images seen; deletes the others."""
    saved = {int(folder.name): folder for folder in folders(run.checkpoints)}
    selected = [min((n for n in saved if n * MOMENTS[-1] >= m * images), default=max(saved)) for m in MOMENTS]
    for seen, folder in saved.items():
        if seen not in selected:
            shutil.rmtree(folder)
    return {seen: saved[seen] for seen in selected}


def _epochs(n: float) -> str:
    text = f"{n:.2g}"
    return f"{text} epoch" if text == "1" else f"{text} epochs"


def _generators(bench: Bench, models: dict[str, GenerativeModel]) -> None:
    first = next(iter(models.values()))
    d = sum(p.numel() for p in first.groups()["D"].parameters())
    g = sum(p.numel() for p in first.groups()["G"].parameters())
    bench.section(
        "The generators",
        f"A GAN of G with {g:,} and D with {d:,} parameters, trained with the non-saturating loss, Adam 2e-4 with betas"
        " 0.5 and 0.999 and batches of 64. Its generator was saved three times. D has no batch norm, which the"
        " gradient penalty excludes, so that all three games can use the same nets.",
        bench.figure(
            "generators",
            draw.side_by_side({name: draw.image_grid(m.sample(36, seed=bench.seed), 6) for name, m in models.items()}),
            "Samples of the three generators from the same 36 noise vectors.",
            "Three grids of samples: from the earliest to the latest generator they look more like digits.",
        ),
    )


# ---- the games -------------------------------------------------------------------------------------------------------


class FrozenGeneratorUpdate:
    """An `update` for a model whose G is frozen: it updates D, and only records the gradient of G.

    Args:
        model: a model with the groups G and D.
        optimiser: the optimiser of D.

    Attributes:
        record: whether to record G's gradient at this step.
        train_D: whether to update D.
        gradient: the last recorded gradient, of all of G's weights in one vector.
    """

    def __init__(self, model: GenerativeModel, optimiser: Adam) -> None:
        groups = model.groups()
        self.D, self.G = Updates({"D": groups["D"]}, {"D": optimiser}), [*groups["G"].parameters()]
        self.record, self.train_D = True, True
        self.gradient = torch.zeros(())

    def __call__(self, group: str, loss: Tensor | Callable[[], Tensor]) -> None:
        loss = loss if isinstance(loss, Tensor) else loss()
        if group == "D":
            if self.train_D:
                self.D(group, loss)
        elif self.record:
            self.gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, self.G)])


@dataclass
class DiscriminatorTraining:
    """The training of one discriminator against one generator.

    Attributes:
        epochs: how long the generator had been trained, in words.
        game: one of `GAMES`.
        iterations: recorded iterations of D.
        norms: norm of G's gradient over one batch at each of them.
        fakes: mean logit of generated images at each of them.
        looks: iterations at which the deviation of the gradient was measured.
        means: norm of the mean gradient over batches at each of these.
        spreads: standard deviation of the gradient from batch to batch at each of these.
        moved: largest change of a weight of G.
        weights: sums of D's weights, before and after.
    """

    epochs: str
    game: str
    iterations: list[int]
    norms: list[float]
    fakes: list[float]
    looks: list[int]
    means: list[float]
    spreads: list[float]
    moved: float = 0.0
    weights: tuple[float, float] = (0.0, 0.0)

    @property
    def start(self) -> float:
        """Median norm of the first 20 iterations."""
        return median(n for i, n in zip(self.iterations, self.norms) if i < _FIRST)

    @property
    def highest(self) -> float:
        """Largest median of five successive records."""
        return max(median(self.norms[i : i + 5]) for i in range(max(1, len(self.norms) - 4)))

    @property
    def end(self) -> float:
        """Median norm of the last tenth of the iterations."""
        last = self.iterations[-1]
        return median(n for i, n in zip(self.iterations, self.norms) if i > 0.9 * last)

    @property
    def lost(self) -> float:
        """Decades from the start to the end; negative if the norm grew."""
        return math.log10(self.start / self.end)

    @property
    def lost_from_highest(self) -> float:
        """Decades from the highest norm to the end."""
        return math.log10(self.highest / self.end)


def train_discriminator(
    bench: Bench, epochs: str, game: str, trained: GenerativeModel, dataset: Dataset, iterations: int, mode: str
) -> DiscriminatorTraining:
    """Trains D against a frozen G."""
    bench.progress.say(f"lab {bench.lab}: G of {epochs}, {NAMES[game]}")
    model = make_game(trained, game, mode, bench.seed)
    update = FrozenGeneratorUpdate(model, D_STEPS)
    stream = Stream(dataset, min(_BATCH, len(dataset)), seed_of(bench.seed, _IMAGES_STREAM))
    before, D = [p.detach().clone() for p in update.G], model.groups()["D"]
    result = DiscriminatorTraining(epochs, game, [], [], [], [], [], [], weights=(_sum_of_weights(D), 0.0))
    interval = max(1, iterations // _RECORDED)
    measurements = min(_MEASUREMENTS, max(2, iterations // 100))
    measured_at = {round(i * (iterations - 1) / (measurements - 1)) for i in range(measurements)}
    for i in range(iterations):
        if i in measured_at:
            mean, std = _gradient_statistics(model, stream, update)
            result.looks.append(i)
            result.means.append(mean)
            result.spreads.append(std)
        update.record = i < _FIRST or i % interval == 0 or i == iterations - 1
        stream.begin()
        logs = model.step(stream, update)
        if update.record:
            result.iterations.append(i)
            result.norms.append(float(update.gradient.norm()))
            result.fakes.append(float(logs["logit/fake"].detach()))
    result.moved = max(float((p.detach() - b).abs().max()) for p, b in zip(update.G, before))
    result.weights = (result.weights[0], _sum_of_weights(D))
    return result


def make_game(trained: GenerativeModel, game: str, mode: str, seed: int) -> GenerativeModel:
    """A model of the game with the nets of a trained GAN: its G, and a new D, or for ``mode=on`` its D."""
    spec = trained.spec.to_dict()
    nets = {"G": spec["G"], "D": spec["D"]}
    game_spec = {"name": "wgan_gp", "n_critic": 1} if game == "wgan_gp" else {"name": "gan", "adversarial": game}
    with torch.random.fork_rng([]):
        torch.manual_seed(seed_of(seed, _WEIGHTS_STREAM))
        model: GenerativeModel = Spec.parse("model", game_spec | nets).build()
    groups, trained_groups = model.groups(), trained.groups()
    for group in ("G",) if mode == "scratch" else ("G", "D"):
        groups[group].load_state_dict(trained_groups[group].state_dict())
    return model.train()


def _gradient_statistics(model: GenerativeModel, stream: Stream, update: FrozenGeneratorUpdate) -> tuple[float, float]:
    """Norm of the mean gradient over several batches, and the standard deviation between them, without updates of D."""
    update.record, update.train_D = True, False
    samples = []
    for _ in range(_BATCHES):
        stream.begin()
        model.step(stream, update)
        samples.append(update.gradient)
    update.train_D = True
    gradients = torch.stack(samples)  # (batches, weights)
    return float(gradients.mean(0).norm()), float(gradients.var(0).sum().sqrt())


def _sum_of_weights(net: nn.Module) -> float:
    return float(sum(p.detach().double().sum() for p in net.parameters()))


# ---- the page --------------------------------------------------------------------------------------------------------


def identity(trained: GenerativeModel, seed: int) -> float:
    """Relative difference between the sum of both cross-entropy gradients and the Wasserstein gradient."""
    model = make_game(trained, "saturating", "on", seed)
    groups = model.groups()
    z = torch.randn(_BATCH, trained.spec.to_dict()["G"]["z"], generator=torch.Generator().manual_seed(seed))
    weights, gradients = [*groups["G"].parameters()], {}
    fake = groups["D"](groups["G"](z))
    objectives: tuple[Objective, ...] = ("saturating", "nonsaturating", "wasserstein")
    for name in objectives:
        parts = torch.autograd.grad(OBJECTIVES[name].g(fake, None), weights, retain_graph=True)
        gradients[name] = torch.cat([g.flatten() for g in parts]).double()
    error = gradients["saturating"] + gradients["nonsaturating"] - gradients["wasserstein"]
    return float(error.norm() / gradients["wasserstein"].norm())


def _identity(bench: Bench, trained: GenerativeModel) -> None:
    played: list[dict[str, Any]] = bench.results["games"]
    pairs = [(a["weights"], b["weights"]) for a, b in zip(played[::3], played[1::3])]
    starts = [{p["weights"][0] for p in played[i : i + 3]} for i in range(0, len(played), 3)]
    error = identity(trained, bench.seed)
    bench.section(
        "What is compared",
        "The saturating and the non-saturating game have the same D: only G's loss differs, and G is frozen. Its"
        " gradients are σ(f)∇f and (1 − σ(f))∇f with the sign turned, so their sum is that of the Wasserstein loss."
        " The first vanishes as soon as D rejects the generated images, D(G(z)) = σ(f) → 0; whether the other two do"
        " depends on ∇f alone. WGAN-GP has a D of its own, whose slope its penalty keeps near 1.",
        checks=[
            check(
                "sum of the two gradients against Wasserstein's, error as a share", "below 1e-5", error, error < 1e-5
            ),
            check("largest change of a weight of G", 0.0, max(p["moved"] for p in played)),
            check("each game starts from the same D", True, all(len(s) == 1 for s in starts)),
            check("saturating and non-saturating end with the same D", True, all(a[1] == b[1] for a, b in pairs)),
        ],
    )


Series = dict[str, draw.Curve]


def _panels(
    played: Sequence[DiscriminatorTraining],
    series: Callable[[list[DiscriminatorTraining]], Series],
    ylabel: str,
    height: float,
) -> Plot:
    by_epochs = {e: [p for p in played if p.epochs == e] for e in dict.fromkeys(p.epochs for p in played)}
    figure, axes = draw.plots(len(by_epochs), height=height, shared=True)
    for ax, (epochs, trainings) in zip(axes, by_epochs.items()):
        draw.curves(ax, series(trainings), xlabel="iterations of D", title=f"G of {epochs}")
        key = ax.get_legend()
        if ax is not axes[0] and key is not None:
            key.remove()
    axes[0].set_ylabel(ylabel)
    return figure


def _norms(bench: Bench, played: Sequence[DiscriminatorTraining], mode: str) -> None:
    def series(trainings: list[DiscriminatorTraining]) -> Series:
        return {NAMES[p.game]: (p.iterations, [math.log10(n) for n in p.norms]) for p in trainings}

    rows = [
        (p.epochs, NAMES[p.game], f"{p.start:.3g}", f"{p.highest:.3g}", f"{p.end:.3g}", p.lost, p.lost_from_highest)
        for p in played
    ]
    bench.results["decades"] = [
        {"epochs": p.epochs, "game": p.game, "lost": p.lost, "from_highest": p.lost_from_highest} for p in played
    ]
    begun = "from scratch" if mode == "scratch" else "on, from the end of its own training"
    bench.section(
        "The gradient of G while D learns",
        f"G is frozen and D is trained {begun}. Start is the median norm of the first {_FIRST} iterations, end"
        " that of the last tenth, highest the largest median of five successive records. A decade is a factor of ten; a"
        " negative number means that the gradient has grown.",
        bench.figure(
            "norms",
            _panels(played, series, "log₁₀ of the norm of G's gradient", 3.3),
            "The norm of the gradient over one batch, on a logarithmic scale, for each generator and game.",
            "Three panels of three curves over iterations: the saturating one falls by decades, the others rise.",
        ),
        table=Table(("generator", "game", "start", "highest", "end", "decades lost", "from the highest"), rows),
    )


def _cause(bench: Bench, played: Sequence[DiscriminatorTraining]) -> None:
    def series(trainings: list[DiscriminatorTraining]) -> Series:
        p = next(p for p in trainings if p.game == "saturating")
        both = {
            "norm, as a share of the start": [math.log10(n / p.start) for n in p.norms],
            "σ of the mean logit": [-math.log10(1 + math.exp(-f)) for f in p.fakes],
        }
        return {name: (p.iterations, y) for name, y in both.items()}

    bench.section(
        "Why it vanishes",
        "The saturating gradient beside σ of D's mean logit on generated images (about e to that logit, once it is"
        " far below 0). They fall together: the loss log(1 − D(G(z))) is flat where D is sure, so G has"
        " the smallest gradient where it has most to learn.",
        bench.figure(
            "why",
            _panels(played, series, "log₁₀", 2.8),
            "The saturating gradient falls as D's output for generated images does.",
            "Three panels of two curves that fall together by several decades.",
        ),
    )


def _deviation(bench: Bench, played: Sequence[DiscriminatorTraining]) -> None:
    def series(trainings: list[DiscriminatorTraining]) -> Series:
        return {NAMES[p.game]: (p.looks, [math.log10(s) for s in p.spreads]) for p in trainings}

    rows = [
        (
            p.epochs,
            NAMES[p.game],
            f"{p.means[0]:.3g}",
            f"{p.means[-1]:.3g}",
            f"{p.spreads[0]:.3g}",
            f"{p.spreads[-1]:.3g}",
            p.spreads[0] / p.means[0],
            p.spreads[-1] / p.means[-1],
        )
        for p in played
    ]
    header = ("generator", "game", "mean, first", "last", "deviation, first", "last", "deviation / mean, first", "last")
    bench.section(
        "Variance of the gradient",
        f"{len(played[0].looks)} times, D is not updated while {_BATCHES} batches each give a gradient. Mean is the"
        " norm of their mean, deviation their standard deviation about it, over all weights. The paper's figure 3"
        " finds that −log D(G(z)) gives large gradients with a growing variance.",
        bench.figure(
            "spread",
            _panels(played, series, "log₁₀ of the standard deviation", 2.8),
            "The standard deviation of the gradient from batch to batch, on a logarithmic scale.",
            "Three panels of three curves over iterations.",
        ),
        table=Table(header, rows),
    )


def _claims(bench: Bench, played: Sequence[DiscriminatorTraining], iterations: int, mode: str) -> None:
    def of_game(game: str) -> list[DiscriminatorTraining]:
        return [p for p in played if p.game == game]

    def join_numbers(values: Sequence[float], spec: str) -> str:
        return ", ".join(format(v, spec).replace("-", "−") for v in values)

    generators = ", ".join(p.epochs for p in of_game("saturating"))
    decades = {game: [p.lost for p in of_game(game)] for game in GAMES}
    suffix = "" if mode == "scratch" else " (D trained on, not anew)"
    bench.claim(
        "While D becomes good, the gradient of the saturating loss vanishes: two decades or more",
        f"decades lost in {iterations:,} iterations{suffix}, G of {generators}:"
        f" {join_numbers(decades['saturating'], '.2f')}",
        min(decades["saturating"]) >= 2,
    )
    bench.claim(
        "The gradient of WGAN-GP does not: it loses less than one decade, on the same nets",
        f"decades lost: {join_numbers(decades['wgan_gp'], '.2f')}; from the highest:"
        f" {join_numbers([p.lost_from_highest for p in of_game('wgan_gp')], '.2f')}",
        max(decades["wgan_gp"]) < 1,
    )
    growth = [p.spreads[-1] / p.spreads[0] for p in of_game("nonsaturating")]
    shares = [[p.spreads[i] / p.means[i] for p in of_game("nonsaturating")] for i in (0, -1)]
    bench.claim(
        "The gradient of the non-saturating loss does not vanish, and its variance grows",
        f"decades lost: {join_numbers(decades['nonsaturating'], '.2f')}; its standard deviation grew by factors of"
        f" {join_numbers(growth, '.3g')}; relative to the mean it was {join_numbers(shares[0], '.2f')} and is"
        f" {join_numbers(shares[1], '.2f')}",
        max(decades["nonsaturating"]) < 1 and min(growth) > 1,
    )
