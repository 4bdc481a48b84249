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
from limner.labs._bench import Bench, check
from limner.losses.adversarial import OBJECTIVES, labelled, nonsaturating
from limner.report import Table

IMAGES = None  # it sees none

MIDDLES, SPREAD = (-1.2, 1.2), 0.5  # of the two halves of p
SHIFTS = {"far": 6.0, "overlapping": 1.5, "near": 0.5, "equal": 0.0}  # q is p moved to the right by so much
CLOSE = 0.03  # largest mean |D − D*| that agrees
NEAR = 0.02  # largest difference of losses that agrees
REAL, FAKE = 0.85, 0.15  # the middles of the lecture's [0.7, 1] and [0, 0.3]
_BATCH = 512
_D = {"name": "mlp.Discriminator", "widths": [64, 64]}

Loss = Callable[[Tensor, Tensor], Tensor]
"""What D minimises, of real and generated logits."""


def run(bench: Bench, *, iterations: Annotated[Count, Field(ge=10)] = 600) -> None:
    """Trains a D against each fixed q, and compares it with the formula.

    Args:
        bench: where.
        iterations: steps of each D.
    """
    train = partial(trained, iterations=iterations, seed=bench.seed)
    plain = {name: train(OBJECTIVES["nonsaturating"].d, shift) for name, shift in SHIFTS.items()}
    squares = {name: train(OBJECTIVES["lsgan"].d, shift) for name, shift in SHIFTS.items()}
    _agreement(bench, plain, squares)
    _loss(bench, plain, squares)
    _labels(bench, plain["overlapping"], train)


# ---- the line --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
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

    def best(self, real: float = 1.0, fake: float = 0.0) -> Tensor:
        """D* (N,) for labels `real` and `fake`: (αp + βq)/(p + q)."""
        return (real * self.p + fake * self.q) / (self.p + self.q)

    def squares(self) -> float:
        """The least-squares loss of D*: ½ ∫ pq/(p + q)."""
        return 0.5 * self.mean(self.best(), self.q)


def density(x: Tensor) -> Tensor:
    """P at x: two equal normal halves."""
    halves = [torch.exp(-(((x - m) / SPREAD) ** 2) / 2) for m in MIDDLES]
    return torch.stack(halves).mean(0) / (SPREAD * math.sqrt(2 * math.pi))


def line(shift: float, points: int = 4001) -> Line:
    """The densities for one shift, on a grid that holds all but 1e-15 of both."""
    x = torch.linspace(MIDDLES[0] - 8 * SPREAD, MIDDLES[1] + 8 * SPREAD + shift, points, dtype=torch.float64)
    return Line(x, density(x) + 1e-300, density(x - shift) + 1e-300)


def drawn(n: int, generator: torch.Generator) -> Tensor:
    """Samples of p, (n,1,1,1): one from each n-th part of the noise, so that means over them are steady."""
    u = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    half = (u * 2).long().clamp(max=1)
    middles = torch.tensor(MIDDLES)[half]
    inside = (u * 2 - half).clamp(1e-6, 1 - 1e-6)
    return (middles + SPREAD * math.sqrt(2) * torch.erfinv(2 * inside - 1)).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Trained:
    """A trained D.

    Attributes:
        D: the net.
        loss: of what it minimised, on 65,536 fresh samples of each side.
        line: the densities that it was to tell apart.
    """

    D: nn.Module
    loss: float
    line: Line

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Of the grid, (N,) float64."""
        return self.D(self.line.x.float().view(-1, 1, 1, 1)).double()

    def apart(self, believed: Tensor, best: Tensor) -> float:
        """Mean ``|D − D*|`` under (p + q)/2, of values on the grid."""
        return self.line.mean((believed - best).abs(), (self.line.p + self.line.q) / 2)


def trained(loss: Loss, shift: float, *, iterations: int, seed: int) -> Trained:
    """Trains D by Adam, whose rate falls to zero, on fresh samples of p and of p moved by `shift`."""
    torch.manual_seed(seed_of(seed, 1))
    D = Spec.parse("net", _D).build(shape=(1, 1, 1))
    updates = Updates({"D": D}, {"D": Adam(lr=5e-3)})
    generator = torch.Generator().manual_seed(seed_of(seed, 2))
    for i in range(iterations):
        for group in updates.optimisers["D"].param_groups:
            group["lr"] = 5e-3 * (1 + math.cos(math.pi * i / iterations)) / 2
        updates("D", loss(D(drawn(_BATCH, generator)), D(drawn(_BATCH, generator) + shift)))
    with torch.no_grad():
        end = loss(D(drawn(65_536, generator)), D(drawn(65_536, generator) + shift))
    return Trained(D, float(end), line(shift))


# ---- the page --------------------------------------------------------------------------------------------------------


def _agreement(bench: Bench, plain: dict[str, Trained], squares: dict[str, Trained]) -> None:
    figure, axes = draw.plots(4, height=2.9)
    apart, checks = {}, []
    for ax, (name, t) in zip(axes, plain.items(), strict=True):
        best, f = t.line.best(), squares[name]
        apart[name] = (t.apart(t.logits().sigmoid(), best), f.apart(f.logits(), best))
        _panel(ax, t.line, {"D, trained": t.logits().sigmoid(), "least squares": f.logits()}, "p/(p+q)", best, name)
        for loss, off in zip(("cross-entropy", "least squares"), apart[name], strict=True):
            checks.append(check(f"mean |D − D*|, {name}, {loss}", f"< {CLOSE}", f"{off:.4f}", off < CLOSE))
    draw.key(axes[0])
    bench.results["apart"] = {n: {"cross-entropy": a, "least squares": b} for n, (a, b) in apart.items()}
    bench.section(
        "What D learns",
        f"The data are two normal distributions around {MIDDLES[0]:g} and {MIDDLES[1]:g} with standard deviation"
        f" {SPREAD:g}: p, shaded blue. The generator makes the same two, moved to the right: q, shaded red, and it"
        " stands still. D is a small net that sees nothing but samples. Proposition 1 says that it ends as p/(p + q),"
        " and so it does wherever there are samples. The least-squares D, whose output is no probability, ends there"
        " too. Between and beyond the samples nothing binds it.\n\n"
        "Where p and q are far apart, D* is a step: it is 1 or 0 wherever there are samples, its slope there is"
        " nothing, and a generator that follows that slope stands still. Where they are equal, D* is one half"
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
    half = equal.apart(equal.logits().sigmoid(), torch.full_like(equal.line.x, 0.5))
    bench.claim("If q = p, D ends at one half everywhere", f"mean |D − ½| = {half:.4f}", half < CLOSE)


def _panel(ax: Axes, at: Line, lines: dict[str, Tensor], formula: str, best: Tensor, title: str) -> None:
    """Densities, shaded, and D where at least one of them is not negligible."""
    seen = (at.p + at.q) > 2e-3
    shown = {name: torch.where(seen, y, torch.nan).numpy() for name, y in lines.items()}
    dashed = (formula, torch.where(seen, best, torch.nan).numpy())
    top = 1.1 * float(at.p.max())
    draw.over(ax, at.x.numpy(), [(d / top).numpy() for d in (at.p, at.q)], shown, dashed, title)
    ax.set_ylim(-0.06, 1.06)
    ax.set_xlim(float(at.x[seen][0]), float(at.x[seen][-1]))


def _loss(bench: Bench, plain: dict[str, Trained], squares: dict[str, Trained]) -> None:
    rows, checks = [], []
    for name, t in plain.items():
        js = t.line.js()
        theory, ls_theory = math.log(4) - 2 * js, t.line.squares()
        ls = squares[name].loss
        rows.append(
            (name, SHIFTS[name], f"{js:.4f}", f"{theory:.4f}", f"{t.loss:.4f}", f"{ls_theory:.4f}", f"{ls:.4f}")
        )
        checks.append(check(f"loss of D, {name}", f"{theory:.4f}", f"{t.loss:.4f}", abs(t.loss - theory) < NEAR))
        checks.append(
            check(f"loss of least-squares D, {name}", f"{ls_theory:.4f}", f"{ls:.4f}", abs(ls - ls_theory) < NEAR)
        )
    shifts = torch.linspace(0, 7, 71).tolist()
    divergences = [line(s).js() for s in shifts]
    figure, (ax,) = draw.plots(1, height=3.0)
    curve = (shifts, [math.log(4) - 2 * js for js in divergences])
    draw.curves(
        ax,
        {"log 4 − 2 JS": curve, "JS": (shifts, divergences)},
        xlabel="how far q is from p",
        title="loss of D",
    )
    ax.plot([SHIFTS[n] for n in plain], [t.loss for t in plain.values()], "o", color=draw.INK, markersize=5, zorder=3)
    ax.axhline(math.log(4), color=draw.SOFT, linewidth=0.8, linestyle=":")
    bench.results["losses"] = {
        n: {"js": t.line.js(), "cross-entropy": t.loss, "least squares": squares[n].loss} for n, t in plain.items()
    }
    bench.section(
        "What its loss then measures",
        "With the best D the loss of D is log 4 − 2 JS(p ‖ q). So the divergence of Jensen and Shannon is there, but"
        " with another sign, a factor and a constant: as q comes to p the loss of D rises, from 0 to log 4 = 1.386."
        " And it is nearly 0 as soon as the two are well apart, however far: from there it says nothing of the way to"
        " go. JS here is an integral over the densities; no net knows it.\n\n"
        "The way is not even: moved by 2.4, one half of q"
        " meets the other half of p, and a generator that only goes downhill rests between: one mode drawn, one"
        " missed.",
        bench.figure(
            "loss",
            figure,
            "Dots: the loss that the trained Ds reached, on fresh samples. The dotted line is log 4.",
            "The curve log 4 − 2 JS falls from 1.386 to 0 with the distance; four dots lie on it. JS itself rises.",
        ),
        table=Table(("q", "moved by", "JS", "log 4 − 2 JS", "loss of D", "½ ∫ pq/(p+q)", "loss, least squares"), rows),
        checks=checks,
    )


@dataclass(frozen=True)
class Pull:
    """What labels do.

    Attributes:
        best: mean ``|D − (αp + βq)/(p + q)|``.
        top: the highest D on real samples, of the formula.
        lost: mean size of the pull on those tenth of G's samples that are farthest from the data.
    """

    best: float
    top: float
    lost: float


def _labels(bench: Bench, hard: Trained, train: Callable[[Loss, float], Trained]) -> None:
    kinds = {
        "hard labels 1 and 0": (1.0, 0.0),
        f"one-sided, {REAL:g} and 0": (REAL, 0.0),
        f"two-sided, {REAL:g} and {FAKE:g}": (REAL, FAKE),
    }
    shift = SHIFTS["overlapping"]
    figure, axes = draw.plots(3, height=2.9)
    found, checks = {}, []
    for ax, (name, (real, fake)) in zip(axes, kinds.items(), strict=True):
        t = hard if (real, fake) == (1, 0) else train(partial(_smoothed, real, fake), shift)
        best, believed = t.line.best(real, fake), t.logits().sigmoid()
        off = t.apart(believed, best)
        found[name] = Pull(off, float(best.max()), lost_pull(t, shift, bench.seed))
        _panel(ax, t.line, {"D, trained": believed}, "(αp + βq)/(p+q)", best, name)
        if t is not hard:
            checks.append(check(f"mean |D − D*|, labels {name}", f"< {CLOSE}", f"{off:.4f}", off < CLOSE))
    draw.key(axes[0])
    bench.results["labels"] = {name: asdict(p) for name, p in found.items()}
    bench.section(
        "What soft labels do",
        f"The lecture tells D that real images are real to a degree in [0.7, 1] and generated ones in [0, 0.3]; only"
        f" the means matter here, {REAL:g} and {FAKE:g}. Smoothing the real side scales D* down, and leaves it zero"
        f" where only G is. Smoothing the fake side adds βq/(p + q): where only G is, D* is {FAKE:g} and flat, so"
        " samples that are far from all data have no slope to follow, and stay. The table shows the size of the pull"
        " of the non-saturating loss on that tenth of G's samples which is farthest to the right.",
        bench.figure(
            "labels",
            figure,
            "D with hard, one-sided and two-sided labels; p blue, q red.",
            "Three panels: D falls from 1 to 0, from 0.85 to 0, and from 0.85 to 0.15.",
        ),
        table=Table(
            ("labels", "mean |D − D*|", "highest D*", "pull on lost samples"),
            [(name, f"{p.best:.4f}", f"{p.top:.2f}", f"{p.lost:.3f}") for name, p in found.items()],
        ),
        checks=checks,
    )
    plain, one, two = found.values()
    bench.claim(
        "Smooth the real labels only: fake labels above 0 leave lost samples where they are",
        f"pull on lost samples {plain.lost:.2f} with hard, {one.lost:.2f} with one-sided, {two.lost:.2f} with"
        " two-sided labels",
        two.lost < 0.5 * min(plain.lost, one.lost),
    )


def _smoothed(real: float, fake: float, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """D's loss with soft labels."""
    return labelled(real_logits, real) + labelled(fake_logits, fake)


def lost_pull(t: Trained, shift: float, seed: int) -> float:
    """Mean size of what the non-saturating loss does to the tenth of G's samples that is farthest to the right."""
    x = drawn(4096, torch.Generator().manual_seed(seed_of(seed, 3))) + shift
    lost = x.flatten().sort().values[-len(x) // 10 :].view(-1, 1, 1, 1)
    return float(sample_gradient(nonsaturating, t.D, lost, lost).abs().mean())
