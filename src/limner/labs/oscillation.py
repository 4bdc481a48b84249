"""The Dirac-GAN: two numbers that play the game of all GANs, so that its dynamics can be drawn and computed.

Mescheder, Geiger and Nowozin 2018, *Which training methods for GANs do actually converge?*, arXiv:1801.04406, sections
2 and 3. The data are one point, 0; the generator makes one point, θ; the discriminator is D(x) = ψx. The only
equilibrium is θ = ψ = 0. With h the step and losses of `losses.adversarial`, one step of both players has near it the
matrix (ψ' of ½ is the slope of log D at a logit of 0)

    simultaneous   |  1     h/2   |      alternating   | 1  h/2 |  |  1     0   |
                   | −h/2  1 − hγ |                    | 0   1  |  | −h/2 1 − hγ |

where γ is the weight of R1 (or half the variance of instance noise: to first order they are one). Distances shrink or
grow each step by the modulus of its eigenvalues: √(1 − hγ + h²/4) and √(1 − hγ) while they are complex.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from statistics import NormalDist
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from limner.core.units import Count
from limner.labs import _figures as draw
from limner.labs._bench import Bench, check
from limner.losses.adversarial import OBJECTIVES, Objective
from limner.losses.penalties import PENALTIES, PenaltyName
from limner.report import Check, Table

IMAGES = SEED = None  # it sees no images and draws no numbers

STEP = 0.2  # h
GAMMA = 0.5  # weight of R1
NOISE = 1.0  # standard deviation of the instance noise: half its square is GAMMA
SLOPE = 0.25  # weight of the gradient penalty; see `_statements` for a larger one
CLIP = 1.0  # bound of ψ in WGAN
START = (1.0, 1.0)
_NEAR = 1e-4  # so close to the equilibrium that the game is linear to eight digits
_POINTS = 64  # equally likely points that stand for a normal distribution

Point = tuple[float, float]
"""(θ, ψ)."""


@dataclass(frozen=True)
class Game:
    """How the two numbers are trained.

    Attributes:
        order: both at once, or D first and then G, as algorithms are written.
        adversarial: the two losses.
        penalties: weight of each penalty on D.
        noise: standard deviation of noise on what D sees, real and generated.
        clip: bound of ψ after each step.
    """

    order: Literal["simultaneous", "alternating"] = "alternating"
    adversarial: Objective = "saturating"
    penalties: tuple[tuple[PenaltyName, float], ...] = ()
    noise: float = 0.0
    clip: float = math.inf


GAMES = {
    "simultaneous": Game("simultaneous"),
    "alternating": Game(),
    "non-saturating": Game(adversarial="nonsaturating"),
    "instance noise": Game(noise=NOISE),
    "R1": Game(penalties=(("r1", GAMMA),)),
    "Wasserstein": Game(adversarial="wasserstein"),
    "WGAN, clipped": Game(adversarial="wasserstein", clip=CLIP),
    "WGAN-GP": Game(adversarial="wasserstein", penalties=(("gradient_penalty", SLOPE),)),
}


def run(bench: Bench, *, steps: Annotated[Count, Field(ge=60)] = 500) -> None:
    """Plays the eight games and measures their rates.

    Args:
        bench: where.
        steps: of each game.
    """
    paths = {name: trajectory(game, START, steps) for name, game in GAMES.items()}
    bench.results["radius"] = {name: [math.hypot(*at) for at in path] for name, path in paths.items()}
    _plane(bench, paths)
    _distances(bench, paths)
    _rates(bench)
    _statements(bench, paths)


# ---- the game --------------------------------------------------------------------------------------------------------


def losses(game: Game, theta: Tensor, psi: Tensor) -> tuple[Tensor, Tensor]:
    """What D and G minimise at (θ, ψ): the library's losses of one real point, 0, and one generated, θ."""
    noise = game.noise * _normal() if game.noise else torch.zeros(1, dtype=theta.dtype)
    real, fake = noise[:, None], (theta + noise)[:, None]  # (B,1)

    def critic(x: Tensor) -> Tensor:
        return psi * x.squeeze(1)

    objective = OBJECTIVES[game.adversarial]
    penalty = [weight * PENALTIES[p](critic, real, fake.detach()) for p, weight in game.penalties]
    loss_D = torch.stack([objective.d(critic(real), critic(fake)), *penalty]).sum()
    return loss_D, objective.g(critic(fake), critic(real))


@cache
def _normal() -> Tensor:
    """Quantiles of N(0,1) that stand for it, (B,), with its variance."""
    x = torch.tensor([NormalDist().inv_cdf((i + 0.5) / _POINTS) for i in range(_POINTS)], dtype=torch.float64)
    return x / x.square().mean().sqrt()


def field(game: Game, at: Point) -> Point:
    """Where both players want to go: (−∂L_G/∂θ, −∂L_D/∂ψ)."""
    theta, psi = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in at)
    loss_D, loss_G = losses(game, theta, psi)
    (up,) = torch.autograd.grad(loss_D, psi, retain_graph=True)
    (across,) = torch.autograd.grad(loss_G, theta)
    return -float(across), -float(up)


def step(game: Game, at: Point) -> Point:
    """One step of gradient descent for each player."""
    theta, psi = at
    across, up = field(game, at)
    psi = min(max(psi + STEP * up, -game.clip), game.clip)
    if game.order == "alternating":
        across, _ = field(game, (theta, psi))
    return theta + STEP * across, psi


def trajectory(game: Game, start: Point, steps: int) -> list[Point]:
    """The start and the points after each of `steps` steps."""
    path = [start]
    for _ in range(steps):
        path.append(step(game, path[-1]))
    return path


def rate(path: Sequence[Point]) -> float:
    """The factor by which distances change each step near the equilibrium, over all of a path that goes round it.

    Two successive points span a triangle with the equilibrium. A linear map changes all areas by its determinant, and
    the eigenvalues of a rotation, conjugates of each other, have the root of it as their modulus. So no ellipse,
    however flat, disturbs this measure.
    """
    areas = [a[0] * b[1] - a[1] * b[0] for a, b in pairwise(path)]
    return math.sqrt((areas[-1] / areas[0]) ** (1 / (len(areas) - 1)))


def modulus(order: str, gamma: float = 0.0) -> float:
    """Of the complex eigenvalues of one step at the equilibrium, from the matrices above."""
    return math.sqrt(1 - STEP * gamma + (STEP**2 / 4 if order == "simultaneous" else 0))


# ---- the page --------------------------------------------------------------------------------------------------------


def _plane(bench: Bench, paths: dict[str, list[Point]]) -> None:
    figure, axes = draw.plots(4, rows=2, height=2.25, shared=True)
    reach = 2.4
    ticks = np.linspace(-reach, reach, 13)
    for ax, (name, path) in zip(axes, paths.items()):
        arrows = [field(GAMES[name], (float(t), float(p))) for p in ticks for t in ticks]
        draw.flow(ax, ticks, np.array(arrows).reshape(len(ticks), len(ticks), 2), path, name, reach)
    for ax in axes[4:]:
        ax.set_xlabel("θ")
    for ax in axes[::4]:
        ax.set_ylabel("ψ")
    bench.section(
        "Eight games of two numbers",
        "The data are the point 0, the generator makes the point θ, the discriminator is the line D(x) = ψx. If θ is to"
        " the right of 0, D tilts to the left, and the generator follows it to the left, beyond 0: then D tilts to the"
        " right. Each arrow is where both players want to go; the line is the way that they go in steps of"
        f" {STEP:g} from the dot. All but the first take turns, D before G. The losses are those that limner trains"
        " with; the first five are the paper's minimax game but for the third.\n\n"
        "The arrows of the first two panels go round the equilibrium and nowhere towards it, so the way the steps are"
        " taken decides. The non-saturating loss draws inwards far from the equilibrium and ever less near it."
        " Instance noise and R1 tilt the arrows inwards everywhere. The Wasserstein loss goes round at"
        " constant speed; clipping ψ cuts the circle and gives no rest, nor does the gradient penalty, which pulls ψ"
        " to 1 or −1.",
        bench.figure(
            "plane",
            figure,
            "The way from the dot, over the directions in which both players descend; the cross is the equilibrium.",
            "Eight panels: an outward spiral, a circle, a slow and two fast inward spirals, and three that go on.",
        ),
    )


def _distances(bench: Bench, paths: dict[str, list[Point]]) -> None:
    radius = {n: (range(len(path)), [math.hypot(*at) for at in path]) for n, path in paths.items()}
    figure, (left, right) = draw.plots(2, height=3.4)
    arriving = ("R1", "instance noise", "non-saturating")
    away = {n: line for n, line in radius.items() if n not in arriving}
    draw.curves(left, away, xlabel="steps", title="distance of those that do not arrive")
    draw.curves(right, {n: radius[n] for n in arriving}, xlabel="steps", title="of those that do, logarithmic")
    left.set_ylim(bottom=0)
    right.set_yscale("log")
    bench.section(
        "Who arrives",
        "The same ways as distances √(θ² + ψ²) to the equilibrium. On the right a straight line downwards is linear"
        " convergence: each step takes the same share of what is left. Instance noise and R1 of the same strength lie"
        " on each other; the non-saturating loss bends away from any such line.",
        bench.figure(
            "distance",
            figure,
            "Distance to the equilibrium over steps: who stays away, and who arrives how fast.",
            "Left, five curves that rise or stay level. Right, two straight lines downwards and one that flattens.",
        ),
    )


def measured() -> list[tuple[str, float, float]]:
    """What is measured, the modulus by theory, and the rate found from a start near the equilibrium."""
    cases: list[tuple[str, Game, float]] = [
        ("simultaneous", Game("simultaneous"), 0.0),
        ("alternating", Game(), 0.0),
        ("simultaneous, non-saturating", Game("simultaneous", "nonsaturating"), 0.0),
        ("R1, simultaneous", Game("simultaneous", penalties=(("r1", GAMMA),)), GAMMA),
        ("R1, alternating", Game(penalties=(("r1", GAMMA),)), GAMMA),
        ("instance noise, alternating", Game(noise=NOISE), NOISE**2 / 2),
    ]
    return [(name, modulus(g.order, gamma), rate(trajectory(g, (_NEAR, 0.0), 60))) for name, g, gamma in cases]


def _rates(bench: Bench) -> None:
    found = measured()
    radii = [math.hypot(*at) for at in trajectory(GAMES["simultaneous"], (_NEAR, 0.0), 60)]
    growth = (radii[-1] / radii[0]) ** (1 / 60)
    bench.results["rates"] = {name: {"theory": t, "measured": m} for name, t, m in found}
    checks: list[Check] = [
        check(f"factor per step, {name}", f"{t:.6f}", f"{m:.6f}", abs(t - m) < 1e-6) for name, t, m in found
    ]
    plain = modulus("simultaneous")
    checks.insert(
        1,
        check(
            "growth of the radius per simultaneous step", f"{plain:.6f}", f"{growth:.6f}", abs(growth - plain) < 1e-6
        ),
    )
    rows = [
        (name, f"{m:.6f}", "never" if m > 1 - 1e-6 else f"{math.log(10) / -math.log(m):.0f}") for name, _, m in found
    ]
    bench.section(
        "The rates",
        "Near the equilibrium a step is a matrix, and its eigenvalues say everything: distances change by their"
        f" modulus. With h = {STEP:g} and γ = {GAMMA:g} theory says √(1 − hγ + h²/4) for simultaneous and √(1 − hγ) for"
        " alternating steps; γ = 0 is the game without a cure. Smaller steps make the outward spiral slower, and never"
        f" turn it. Instance noise of variance σ² acts as R1 with γ = σ²/2: that is why {NOISE:g} and {GAMMA:g} are one"
        " rate.",
        table=Table(("game", "factor per step", "steps for a tenth of the distance"), rows),
        checks=checks,
    )


def _statements(bench: Bench, paths: dict[str, list[Point]]) -> None:
    radius = {name: [math.hypot(*at) for at in path] for name, path in paths.items()}
    start, n = math.hypot(*START), len(radius["R1"]) - 1

    def late(name: str) -> tuple[float, float]:
        half = radius[name][n // 2 :]
        return min(half), max(half)

    out = radius["simultaneous"][-1]
    bench.claim(
        "Simultaneous gradient descent leaves the equilibrium",
        f"distance {start:.2f} at the start, {out:.2f} after {n} steps",
        out > start,
    )
    for name, what in (
        ("alternating", "Alternating descent goes round it and does not arrive"),
        ("Wasserstein", "A Wasserstein critic without a constraint circles for ever"),
        ("WGAN, clipped", "Clipping the critic does not make it arrive"),
        ("WGAN-GP", "Nor does the gradient penalty: it goes to and fro in a band"),
    ):
        low, high = late(name)
        bench.claim(what, f"distance {low:.2f} to {high:.2f} in the second half", high > 0.1 and high < 2 * start)
    for name in ("instance noise", "R1"):
        r = radius[name]
        bench.claim(f"With {name} it arrives", f"distance {r[-1]:.1e} after {n} steps", r[-1] < 0.05 * start)
    half, last = radius["non-saturating"][n // 2], radius["non-saturating"][-1]
    bench.claim(
        "The non-saturating loss arrives ever more slowly",
        f"distance {start:.2f}, {half:.2f} after {n // 2} and {last:.2f} after {n} steps",
        start / half > half / last > 1,
    )
    stuck = trajectory(Game(adversarial="wasserstein", penalties=(("gradient_penalty", 1.0),)), START, n)[-1]
    bench.claim(
        "On a line a heavier two-sided penalty makes a wall of ψ = 0: D cannot turn round before θ is 2λ away",
        f"with λ = 1 it stops at θ = {stuck[0]:.2f}, ψ = {stuck[1]:.2f}, which is no equilibrium of the game",
        abs(stuck[0] - 2) < 0.01 and abs(stuck[1]) < 0.01,
    )
