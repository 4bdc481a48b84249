"""The Dirac-GAN: a GAN with two parameters, whose dynamics can be drawn and computed.

Mescheder, Geiger and Nowozin 2018, *Which training methods for GANs do actually converge?*, arXiv:1801.04406, sections
2 and 3. The data are one point, 0; the generator makes one point, θ; the discriminator is D(x) = ψx. The only
equilibrium is θ = ψ = 0. With h the step and losses of `losses.adversarial`, one step of both players has near it the
matrix (ψ' of ½ is the slope of log D at a logit of 0)

    simultaneous   |  1     h/2   |      alternating   | 1  h/2 |  |  1     0   |
                   | −h/2  1 − hγ |                    | 0   1  |  | −h/2 1 − hγ |

where γ is the weight of R1 (or half the variance of instance noise: to first order they are equal). Distances shrink or
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
from limner.labs._bench import Bench, check_close
from limner.losses.adversarial import OBJECTIVES, Objective
from limner.losses.penalties import PENALTIES, PenaltyName
from limner.report import Check, Table

IMAGES = SEED = None  # it uses neither images nor random numbers

STEP = 0.2  # h
GAMMA = 0.5  # weight of R1
NOISE = 1.0  # standard deviation of the instance noise: half its square is GAMMA
SLOPE = 0.25  # weight of the gradient penalty; see `_claims` for a larger one
CLIP = 1.0  # bound of ψ in WGAN
START = (1.0, 1.0)
_NEAR = 1e-4  # so close to the equilibrium that the game is linear to eight digits
_POINTS = 64  # equally likely points that stand for a normal distribution

Point = tuple[float, float]
"""(θ, ψ)."""


@dataclass(frozen=True)
class Game:
    """How the two parameters are trained.

    Attributes:
        order: whether both take a step at once, or D first and then G, as in the published algorithms.
        adversarial: the pair of losses.
        penalties: weight of each penalty on D.
        noise: standard deviation of the noise that is added to real and generated inputs of D.
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
        bench: collects the results.
        steps: steps of gradient descent in each game.
    """
    paths = {name: trajectory(game, START, steps) for name, game in GAMES.items()}
    bench.results["radius"] = {name: [math.hypot(*at) for at in path] for name, path in paths.items()}
    _plane(bench, paths)
    _distances(bench, paths)
    _rates(bench)
    _claims(bench, paths)


# ---- the game --------------------------------------------------------------------------------------------------------


def losses(game: Game, theta: Tensor, psi: Tensor) -> tuple[Tensor, Tensor]:
    """Losses of D and G at (θ, ψ): the library's, for the real point 0 and the generated point θ."""
    noise = game.noise * _normal_quantiles() if game.noise else torch.zeros(1, dtype=theta.dtype)
    real, fake = noise[:, None], (theta + noise)[:, None]  # (B,1)

    def critic(x: Tensor) -> Tensor:
        return psi * x.squeeze(1)

    objective = OBJECTIVES[game.adversarial]
    penalty = [weight * PENALTIES[p](critic, real, fake.detach()) for p, weight in game.penalties]
    loss_D = torch.stack([objective.d(critic(real), critic(fake)), *penalty]).sum()
    return loss_D, objective.g(critic(fake), critic(real))


@cache
def _normal_quantiles() -> Tensor:
    """Quantiles (B,) of N(0,1), scaled to variance 1; they replace random draws."""
    x = torch.tensor([NormalDist().inv_cdf((i + 0.5) / _POINTS) for i in range(_POINTS)], dtype=torch.float64)
    return x / x.square().mean().sqrt()


def field(game: Game, point: Point) -> Point:
    """The directions of descent of both players: (−∂L_G/∂θ, −∂L_D/∂ψ)."""
    theta, psi = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in point)
    loss_D, loss_G = losses(game, theta, psi)
    (psi_rate,) = torch.autograd.grad(loss_D, psi, retain_graph=True)
    (theta_rate,) = torch.autograd.grad(loss_G, theta)
    return -float(theta_rate), -float(psi_rate)


def step(game: Game, point: Point) -> Point:
    """One step of gradient descent for each player."""
    theta, psi = point
    theta_rate, psi_rate = field(game, point)
    psi = min(max(psi + STEP * psi_rate, -game.clip), game.clip)
    if game.order == "alternating":
        theta_rate, _ = field(game, (theta, psi))
    return theta + STEP * theta_rate, psi


def trajectory(game: Game, start: Point, steps: int) -> list[Point]:
    """The start and the points after each of `steps` steps."""
    path = [start]
    for _ in range(steps):
        path.append(step(game, path[-1]))
    return path


def rate(path: Sequence[Point]) -> float:
    """The factor by which distances change each step near the equilibrium, measured along a path round it.

    Two successive points span a triangle with the equilibrium. A linear map changes all areas by its determinant, and
    the eigenvalues of a rotation, conjugates of each other, have the root of it as their modulus. So the
    eccentricity of the ellipse does not affect this measure.
    """
    areas = [a[0] * b[1] - a[1] * b[0] for a, b in pairwise(path)]
    return math.sqrt((areas[-1] / areas[0]) ** (1 / (len(areas) - 1)))


def modulus(order: str, gamma: float = 0.0) -> float:
    """Modulus of the complex eigenvalues of one step at the equilibrium, from the matrices above."""
    return math.sqrt(1 - STEP * gamma + (STEP**2 / 4 if order == "simultaneous" else 0))


# ---- the page --------------------------------------------------------------------------------------------------------


def _plane(bench: Bench, paths: dict[str, list[Point]]) -> None:
    figure, axes = draw.plots(4, rows=2, height=2.25, shared=True)
    extent = 2.4
    ticks = np.linspace(-extent, extent, 13)
    for ax, (name, path) in zip(axes, paths.items()):
        arrows = [field(GAMES[name], (float(t), float(p))) for p in ticks for t in ticks]
        draw.vector_field(ax, ticks, np.array(arrows).reshape(len(ticks), len(ticks), 2), path, name, extent)
    for ax in axes[4:]:
        ax.set_xlabel("θ")
    for ax in axes[::4]:
        ax.set_ylabel("ψ")
    bench.section(
        "Eight games with two parameters",
        "The data are the point 0, the generator makes the point θ, the discriminator is the line D(x) = ψx. If θ is to"
        " the right of 0, D tilts to the left, and the generator follows it to the left, beyond 0: then D tilts to the"
        " right. Each arrow is the direction in which both players descend; the line is their path in steps of"
        f" {STEP:g} from the dot. All but the first take turns, D before G. The losses are those that limner trains"
        " with; the first five are the paper's minimax game, except the third.\n\n"
        "The arrows of the first two panels go round the equilibrium and never towards it, so the order of the steps"
        " decides. The non-saturating loss draws inwards far from the equilibrium and ever less near it."
        " Instance noise and R1 tilt the arrows inwards everywhere. The Wasserstein loss goes round at"
        " constant speed. Clipping ψ cuts the circle and does not make it converge, and neither does the gradient"
        " penalty, which pulls ψ to 1 or −1.",
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
    draw.curves(left, away, xlabel="steps", title="distance of games that do not converge")
    draw.curves(right, {n: radius[n] for n in arriving}, xlabel="steps", title="of those that converge, logarithmic")
    left.set_ylim(bottom=0)
    right.set_yscale("log")
    bench.section(
        "Which games converge",
        "The same paths as distances √(θ² + ψ²) to the equilibrium. On the right a straight line downwards is linear"
        " convergence: each step removes the same share of the distance. Instance noise and R1 of the same strength"
        " coincide; the non-saturating loss bends away from any such line.",
        bench.figure(
            "distance",
            figure,
            "Distance to the equilibrium over steps: which games stay away, and how fast the others converge.",
            "Left, five curves that rise or stay level. Right, two straight lines downwards and one that flattens.",
        ),
    )


def measure_rates() -> list[tuple[str, float, float]]:
    """For each game its name, the modulus in theory, and the rate measured from a start near the equilibrium."""
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
    rates = measure_rates()
    radii = [math.hypot(*at) for at in trajectory(GAMES["simultaneous"], (_NEAR, 0.0), 60)]
    growth = (radii[-1] / radii[0]) ** (1 / 60)
    bench.results["rates"] = {name: {"theory": t, "measured": m} for name, t, m in rates}
    checks: list[Check] = [check_close(f"factor per step, {name}", t, m, 1e-6) for name, t, m in rates]
    theory = modulus("simultaneous")
    checks.insert(1, check_close("growth of the radius per simultaneous step", theory, growth, 1e-6))
    rows = [
        (name, f"{m:.6f}", "never" if m > 1 - 1e-6 else f"{math.log(10) / -math.log(m):.0f}") for name, _, m in rates
    ]
    bench.section(
        "The rates",
        "Near the equilibrium a step is a matrix, and its eigenvalues decide: distances change by their modulus. With"
        f" h = {STEP:g} and γ = {GAMMA:g} theory says √(1 − hγ + h²/4) for simultaneous and √(1 − hγ) for alternating"
        " steps; γ = 0 is the game without a penalty. Smaller steps make the outward spiral slower, but never reverse"
        f" it. Instance noise of variance σ² acts as R1 with γ = σ²/2: that is why {NOISE:g} and {GAMMA:g} have the"
        " same rate.",
        table=Table(("game", "factor per step", "steps for a tenth of the distance"), rows),
        checks=checks,
    )


def _claims(bench: Bench, paths: dict[str, list[Point]]) -> None:
    radius = {name: [math.hypot(*at) for at in path] for name, path in paths.items()}
    start, n = math.hypot(*START), len(radius["R1"]) - 1

    def second_half_range(name: str) -> tuple[float, float]:
        halfway = radius[name][n // 2 :]
        return min(halfway), max(halfway)

    end = radius["simultaneous"][-1]
    bench.claim(
        "Simultaneous gradient descent leaves the equilibrium",
        f"distance {start:.2f} at the start, {end:.2f} after {n} steps",
        end > start,
    )
    for name, claim in (
        ("alternating", "Alternating descent circles it and does not converge"),
        ("Wasserstein", "A Wasserstein critic without a constraint circles it for ever"),
        ("WGAN, clipped", "Clipping the critic does not make it converge"),
        ("WGAN-GP", "The gradient penalty does not make it converge either: it oscillates in a band"),
    ):
        low, high = second_half_range(name)
        bench.claim(claim, f"distance {low:.2f} to {high:.2f} in the second half", high > 0.1 and high < 2 * start)
    for name in ("instance noise", "R1"):
        r = radius[name]
        bench.claim(f"With {name} it converges", f"distance {r[-1]:.1e} after {n} steps", r[-1] < 0.05 * start)
    halfway, last = radius["non-saturating"][n // 2], radius["non-saturating"][-1]
    bench.claim(
        "The non-saturating loss converges ever more slowly",
        f"distance {start:.2f}, {halfway:.2f} after {n // 2} and {last:.2f} after {n} steps",
        start / halfway > halfway / last > 1,
    )
    theta_psi = trajectory(Game(adversarial="wasserstein", penalties=(("gradient_penalty", 1.0),)), START, n)[-1]
    bench.claim(
        "On a line a heavier two-sided penalty makes ψ = 0 a barrier: D cannot change its sign before θ is 2λ away",
        f"with λ = 1 it stops at θ = {theta_psi[0]:.2f}, ψ = {theta_psi[1]:.2f}, which is no equilibrium of the game",
        abs(theta_psi[0] - 2) < 0.01 and abs(theta_psi[1]) < 0.01,
    )
