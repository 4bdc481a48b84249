"""The optimal discriminator, where the densities are known: D* = p/(p + q), and what its loss measures.

Goodfellow et al. 2014, *Generative adversarial networks*, arXiv:1406.2661, proposition 1 and theorem 1. The data have
the density p, the generator the density q, both on a line. For fixed q the best D is p/(p + q), and its loss there is
log 4 − 2 JS(p ‖ q): not the divergence, and not its sign (erratum E11). Least squares has the same best D (Mao et al.
2017, arXiv:1611.04076, eq. 5) and the loss ½ ∫ pq/(p + q). Soft labels α for real and β for generated images make it
(αp + βq)/(p + q) (Salimans et al. 2016, arXiv:1606.03498, section 3.4; erratum E8).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated

import torch
from matplotlib.axes import Axes
from pydantic import Field
from torch import Tensor, nn

from limner.config.spec import Spec
from limner.core.adversarial import sample_gradient
from limner.core.optimisers import Adam
from limner.core.rng import seed_of
from limner.core.units import Count
from limner.core.update import Updates
from limner.labs import _figures as draw
from limner.labs._bench import Bench, check, check_close
from limner.losses.adversarial import OBJECTIVES, labelled, nonsaturating
from limner.report import Table

IMAGES = None  # it uses no images

MIDDLES, SPREAD = (-1.2, 1.2), 0.5  # of the two halves of p
SHIFTS = {"far": 6.0, "overlapping": 1.5, "near": 0.5, "equal": 0.0}  # q is p, shifted to the right
CLOSE = 0.03  # tolerance of the mean |D − D*|
NEAR = 0.02  # tolerance of losses
REAL, FAKE = 0.85, 0.15  # the centres of the lecture's [0.7, 1] and [0, 0.3]
_BATCH = 512
_D = {"name": "mlp.Discriminator", "widths": [64, 64]}

Loss = Callable[[Tensor, Tensor], Tensor]
"""The loss of D, a function of real and generated logits."""


def run(bench: Bench, *, iterations: Annotated[Count, Field(ge=10)] = 600) -> None:
    """Trains a D against each fixed q, and compares it with the formula.

    Args:
        bench: collects the results.
        iterations: training steps of each D.
    """
    train = partial(train_discriminator, iterations=iterations, seed=bench.seed)
    plain = {name: train(OBJECTIVES["nonsaturating"].d, shift) for name, shift in SHIFTS.items()}
    least_squares = {name: train(OBJECTIVES["lsgan"].d, shift) for name, shift in SHIFTS.items()}
    _agreement(bench, plain, least_squares)
    _loss(bench, plain, least_squares)
    _labels(bench, plain["overlapping"], train)


# ---- the line --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Densities:
    """Both densities on a fine grid, in float64.

    Attributes:
        x: the grid (N,).
        p: density of the data at x.
        q: density of the generator at x.
    """

    x: Tensor
    p: Tensor
    q: Tensor

    def mean(self, values: Tensor, density: Tensor) -> float:
        """The integral of values (N,) under a density (N,)."""
        return float(torch.trapezoid(values * density, self.x))

    def js(self) -> float:
        """JS(p ‖ q) in nats, by integration: between 0 and log 2."""
        middle = (self.p + self.q) / 2
        halves = [self.mean(torch.special.xlogy(d, d / middle), torch.ones_like(d)) for d in (self.p, self.q)]
        return sum(halves) / 2

    def optimal(self, real: float = 1.0, fake: float = 0.0) -> Tensor:
        """D* (N,) for labels `real` and `fake`: (αp + βq)/(p + q)."""
        return (real * self.p + fake * self.q) / (self.p + self.q)

    def least_squares(self) -> float:
        """The least-squares loss of D*: ½ ∫ pq/(p + q)."""
        return 0.5 * self.mean(self.optimal(), self.q)


def density(x: Tensor) -> Tensor:
    """The density p at x: an equal mixture of two normal distributions."""
    halves = [torch.exp(-(((x - m) / SPREAD) ** 2) / 2) for m in MIDDLES]
    return torch.stack(halves).mean(0) / (SPREAD * math.sqrt(2 * math.pi))


def densities(shift: float, points: int = 4001) -> Densities:
    """The densities for one shift, on a grid that holds all but 1e-15 of both."""
    x = torch.linspace(MIDDLES[0] - 8 * SPREAD, MIDDLES[1] + 8 * SPREAD + shift, points, dtype=torch.float64)
    return Densities(x, density(x) + 1e-300, density(x - shift) + 1e-300)


def sample(n: int, generator: torch.Generator) -> Tensor:
    """Samples of p (n,1,1,1), stratified: one for each n-th part of the noise, which lowers the variance of means."""
    u = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    half = (u * 2).long().clamp(max=1)
    middles = torch.tensor(MIDDLES)[half]
    within_half = (u * 2 - half).clamp(1e-6, 1 - 1e-6)
    return (middles + SPREAD * math.sqrt(2) * torch.erfinv(2 * within_half - 1)).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class TrainedDiscriminator:
    """A trained D and its final loss.

    Attributes:
        D: the net.
        loss: its loss on 65,536 new samples of each density.
        densities: the densities p and q of its training.
    """

    D: nn.Module
    loss: float
    densities: Densities

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Logits of the grid, (N,) float64."""
        return self.D(self.densities.x.float().view(-1, 1, 1, 1)).double()

    def distance(self, values: Tensor, optimal: Tensor) -> float:
        """Mean ``|D − D*|`` under (p + q)/2, of values on the grid."""
        return self.densities.mean((values - optimal).abs(), (self.densities.p + self.densities.q) / 2)


def train_discriminator(loss: Loss, shift: float, *, iterations: int, seed: int) -> TrainedDiscriminator:
    """Trains D by Adam, whose rate falls to zero, on fresh samples of p and of p moved by `shift`."""
    torch.manual_seed(seed_of(seed, 1))
    D = Spec.parse("net", _D).build(shape=(1, 1, 1))
    updates = Updates({"D": D}, {"D": Adam(lr=5e-3)})
    generator = torch.Generator().manual_seed(seed_of(seed, 2))
    for i in range(iterations):
        for group in updates.optimisers["D"].param_groups:
            group["lr"] = 5e-3 * (1 + math.cos(math.pi * i / iterations)) / 2
        updates("D", loss(D(sample(_BATCH, generator)), D(sample(_BATCH, generator) + shift)))
    with torch.no_grad():
        end = loss(D(sample(65_536, generator)), D(sample(65_536, generator) + shift))
    return TrainedDiscriminator(D, float(end), densities(shift))


# ---- the page --------------------------------------------------------------------------------------------------------


def _agreement(
    bench: Bench, plain: dict[str, TrainedDiscriminator], least_squares: dict[str, TrainedDiscriminator]
) -> None:
    figure, axes = draw.plots(4, height=2.9)
    distance, checks = {}, []
    for ax, (name, t) in zip(axes, plain.items(), strict=True):
        optimal, f = t.densities.optimal(), least_squares[name]
        distance[name] = (t.distance(t.logits().sigmoid(), optimal), f.distance(f.logits(), optimal))
        _panel(
            ax, t.densities, {"D, trained": t.logits().sigmoid(), "least squares": f.logits()}, "p/(p+q)", optimal, name
        )
        for loss, error in zip(("cross-entropy", "least squares"), distance[name], strict=True):
            checks.append(check(f"mean |D − D*|, {name}, {loss}", f"< {CLOSE}", f"{error:.4f}", error < CLOSE))
    draw.legend(axes[0])
    bench.results["apart"] = {n: {"cross-entropy": a, "least squares": b} for n, (a, b) in distance.items()}
    bench.section(
        "What D learns",
        f"The data are two normal distributions around {MIDDLES[0]:g} and {MIDDLES[1]:g} with standard deviation"
        f" {SPREAD:g}: p, shaded blue. The generator makes the same two, moved to the right: q, shaded red, and it"
        " is fixed. D is a small net that sees only samples. Proposition 1 says that it converges to"
        " p/(p + q), and so it does wherever there are samples. The least-squares D, whose output is not a probability,"
        " converges to the same function. Between and beyond the samples nothing determines it.\n\n"
        "Where p and q are far apart, D* is a step: it is 1 or 0 wherever there are samples, its slope there is"
        " zero, and a generator that follows that slope does not move. Where they are equal, D* is one half"
        " everywhere.",
        bench.figure(
            "optimal",
            figure,
            "D after training (lines) and the formula (dashes), where there are samples; p blue, q red, not to scale.",
            "Four panels, q far from p, overlapping, near and equal: the trained curves lie on the dashed formula.",
        ),
        checks=checks,
    )
    equal = plain["equal"]
    half = equal.distance(equal.logits().sigmoid(), torch.full_like(equal.densities.x, 0.5))
    bench.claim("If q = p, D ends at one half everywhere", f"mean |D − ½| = {half:.4f}", half < CLOSE)


def _panel(ax: Axes, densities: Densities, lines: dict[str, Tensor], formula: str, optimal: Tensor, title: str) -> None:
    """Draws both densities, and D where at least one of them is not negligible."""
    supported = (densities.p + densities.q) > 2e-3
    curves = {name: torch.where(supported, y, torch.nan).numpy() for name, y in lines.items()}
    dashed = (formula, torch.where(supported, optimal, torch.nan).numpy())
    top = 1.1 * float(densities.p.max())
    draw.densities(
        ax, densities.x.numpy(), [(d / top).numpy() for d in (densities.p, densities.q)], curves, dashed, title
    )
    ax.set_ylim(-0.06, 1.06)
    ax.set_xlim(float(densities.x[supported][0]), float(densities.x[supported][-1]))


def _loss(bench: Bench, plain: dict[str, TrainedDiscriminator], least_squares: dict[str, TrainedDiscriminator]) -> None:
    rows, checks = [], []
    for name, t in plain.items():
        js = t.densities.js()
        theory, ls_theory = math.log(4) - 2 * js, t.densities.least_squares()
        ls = least_squares[name].loss
        rows.append(
            (name, SHIFTS[name], f"{js:.4f}", f"{theory:.4f}", f"{t.loss:.4f}", f"{ls_theory:.4f}", f"{ls:.4f}")
        )
        checks.append(check_close(f"loss of D, {name}", theory, t.loss, NEAR, 4))
        checks.append(check_close(f"loss of least-squares D, {name}", ls_theory, ls, NEAR, 4))
    shifts = torch.linspace(0, 7, 71).tolist()
    divergences = [densities(s).js() for s in shifts]
    figure, (ax,) = draw.plots(1, height=3.0)
    curve = (shifts, [math.log(4) - 2 * js for js in divergences])
    draw.curves(
        ax, {"log 4 − 2 JS": curve, "JS": (shifts, divergences)}, xlabel="how far q is from p", title="loss of D"
    )
    ax.plot([SHIFTS[n] for n in plain], [t.loss for t in plain.values()], "o", color=draw.INK, markersize=5, zorder=3)
    ax.axhline(math.log(4), color=draw.SOFT, linewidth=0.8, linestyle=":")
    bench.results["losses"] = {
        n: {"js": t.densities.js(), "cross-entropy": t.loss, "least squares": least_squares[n].loss}
        for n, t in plain.items()
    }
    bench.section(
        "What its loss then measures",
        "With the best D the loss of D is log 4 − 2 JS(p ‖ q). So it contains the Jensen-Shannon divergence, but"
        " with another sign, a factor and a constant: as q approaches p the loss of D rises, from 0 to log 4 = 1.386."
        " And it is nearly 0 as soon as the two are well separated, whatever their distance: there it does not tell how"
        " far they are. JS here is an integral over the densities, which no net knows.\n\n"
        "The curve is not monotonic: shifted by 2.4, one half of q"
        " lies on the other half of p, and a generator that only descends stops there, with one mode generated and one"
        " missed.",
        bench.figure(
            "loss",
            figure,
            "Dots: the loss that the trained Ds reached, on new samples. The dotted line is log 4.",
            "The curve log 4 − 2 JS falls from 1.386 to 0 with the distance; four dots lie on it. JS itself rises.",
        ),
        table=Table(
            ("q", "shifted by", "JS", "log 4 − 2 JS", "loss of D", "½ ∫ pq/(p+q)", "loss, least squares"), rows
        ),
        checks=checks,
    )


@dataclass(frozen=True)
class LabelEffect:
    """The effect of a choice of labels.

    Attributes:
        best: mean ``|D − (αp + βq)/(p + q)|``.
        top: highest value of the formula.
        lost: mean size of the gradient for the tenth of G's samples that is farthest from the data.
    """

    best: float
    top: float
    lost: float


def _labels(bench: Bench, hard: TrainedDiscriminator, train: Callable[[Loss, float], TrainedDiscriminator]) -> None:
    labels = {
        "hard labels 1 and 0": (1.0, 0.0),
        f"one-sided, {REAL:g} and 0": (REAL, 0.0),
        f"two-sided, {REAL:g} and {FAKE:g}": (REAL, FAKE),
    }
    shift = SHIFTS["overlapping"]
    figure, axes = draw.plots(3, height=2.9)
    effects, checks = {}, []
    for ax, (name, (real, fake)) in zip(axes, labels.items(), strict=True):
        t = hard if (real, fake) == (1, 0) else train(partial(_smoothed, real, fake), shift)
        optimal, D_values = t.densities.optimal(real, fake), t.logits().sigmoid()
        error = t.distance(D_values, optimal)
        effects[name] = LabelEffect(error, float(optimal.max()), far_sample_gradient(t, shift, bench.seed))
        _panel(ax, t.densities, {"D, trained": D_values}, "(αp + βq)/(p+q)", optimal, name)
        if t is not hard:
            checks.append(check(f"mean |D − D*|, labels {name}", f"< {CLOSE}", f"{error:.4f}", error < CLOSE))
    draw.legend(axes[0])
    bench.results["labels"] = {name: asdict(p) for name, p in effects.items()}
    bench.section(
        "What soft labels do",
        "The lecture tells D that real images are real to a degree in [0.7, 1] and generated ones in [0, 0.3]; only"
        f" the means matter here, {REAL:g} and {FAKE:g}. Smoothing the real side scales D* down, and leaves it zero"
        f" where only G is. Smoothing the fake side adds βq/(p + q): where only G is, D* is {FAKE:g} and flat, so"
        " samples that are far from all data have no slope to follow, and stay. The table shows the size of the"
        " gradient of the non-saturating loss for the tenth of G's samples that is farthest to the right.",
        bench.figure(
            "labels",
            figure,
            "D with hard, one-sided and two-sided labels; p blue, q red.",
            "Three panels: D falls from 1 to 0, from 0.85 to 0, and from 0.85 to 0.15.",
        ),
        table=Table(
            ("labels", "mean |D − D*|", "highest D*", "gradient of far samples"),
            [(name, f"{p.best:.4f}", f"{p.top:.2f}", f"{p.lost:.3f}") for name, p in effects.items()],
        ),
        checks=checks,
    )
    plain, one, two = effects.values()
    bench.claim(
        "Smooth the real labels only: fake labels above 0 leave far samples where they are",
        f"gradient of far samples {plain.lost:.2f} with hard, {one.lost:.2f} with one-sided, {two.lost:.2f} with"
        " two-sided labels",
        two.lost < 0.5 * min(plain.lost, one.lost),
    )


def _smoothed(real: float, fake: float, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    return labelled(real_logits, real) + labelled(fake_logits, fake)


def far_sample_gradient(t: TrainedDiscriminator, shift: float, seed: int) -> float:
    """Mean size of the gradient of the non-saturating loss for the tenth of G's samples farthest to the right."""
    x = sample(4096, torch.Generator().manual_seed(seed_of(seed, 3))) + shift
    farthest = x.flatten().sort().values[-len(x) // 10 :].view(-1, 1, 1, 1)
    return float(sample_gradient(nonsaturating, t.D, farthest, farthest).abs().mean())
