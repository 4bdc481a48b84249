"""The labs without images: the Dirac-GAN moves as its eigenvalues say, and a trained D is the density ratio."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.linalg import eigvals

from limner import labs
from limner.core.errors import LimnerError
from limner.labs import optimal_d, oscillation
from limner.labs.oscillation import GAMES, Game, Point, field, modulus, rate, step, trajectory
from limner.losses.adversarial import OBJECTIVES

# ---- oscillation -----------------------------------------------------------------------------------------------------


def jacobian(game: Game, h: float = 1e-6) -> list[list[float]]:
    """Of one step at the equilibrium, by central differences."""
    sides = [(step(game, (h, 0.0)), step(game, (-h, 0.0))), (step(game, (0.0, h)), step(game, (0.0, -h)))]
    columns = [[(a - b) / (2 * h) for a, b in zip(up, down, strict=True)] for up, down in sides]
    return [[columns[j][i] for j in range(2)] for i in range(2)]


@pytest.mark.parametrize(
    ("game", "gamma"),
    [
        (Game("simultaneous"), 0.0),
        (Game("simultaneous", "nonsaturating"), 0.0),
        (Game("alternating"), 0.0),
        (Game("simultaneous", penalties=(("r1", 0.3),)), 0.3),
        (Game("alternating", penalties=(("r1", 0.7),)), 0.7),
        (Game("alternating", noise=0.8), 0.32),
    ],
)
def test_paths_shrink_and_grow_by_the_modulus_of_the_eigenvalues(game: Game, gamma: float) -> None:
    expected = modulus(game.order, gamma)
    assert abs(eigvals(jacobian(game))).tolist() == pytest.approx([expected] * 2, abs=1e-8)
    assert rate(trajectory(game, (1e-4, 0.0), 40)) == pytest.approx(expected, abs=1e-7)


def test_the_field_is_that_of_the_minimax_game_on_two_numbers() -> None:
    theta, psi = 0.7, -1.3
    believed = 1 / (1 + math.exp(-theta * psi))
    assert field(Game(), (theta, psi)) == pytest.approx((believed * psi, -believed * theta), abs=1e-12)
    assert field(Game(adversarial="nonsaturating"), (theta, psi))[0] == pytest.approx((1 - believed) * psi, abs=1e-12)
    gamma, (_, up) = 0.4, field(Game(), (theta, psi))
    assert field(Game(penalties=(("r1", gamma),)), (theta, psi))[1] == pytest.approx(up - gamma * psi, abs=1e-12)


def test_simultaneous_steps_leave_alternating_ones_circle_and_cures_arrive() -> None:
    ends = {name: [math.hypot(*at) for at in trajectory(game, (0.5, 0.0), 300)] for name, game in GAMES.items()}
    assert ends["simultaneous"][-1] > 0.9
    for name in ("alternating", "Wasserstein", "WGAN, clipped", "WGAN-GP"):
        assert 0.4 < min(ends[name][-100:]) < max(ends[name][-100:]) < 1.6, name
    for name in ("R1", "instance noise"):
        assert ends[name][-1] < 1e-4, name
    assert ends["R1"][-1] < 0.1 * ends["non-saturating"][-1] < 0.1 * ends["non-saturating"][150]


def test_the_clipped_critic_stays_within_its_bound() -> None:
    path = trajectory(Game(adversarial="wasserstein", clip=0.3), (1.0, 0.0), 60)
    assert max(abs(psi) for _, psi in path) == 0.3


def test_the_rate_does_not_depend_on_where_the_ellipse_is_entered() -> None:
    def turn(at: Point) -> Point:  # eigenvalues 0.9 e^{±i}, seen through a skew
        c, s = 0.9 * math.cos(1), 0.9 * math.sin(1)
        return (c * at[0] - 5 * s * at[1], s / 5 * at[0] + c * at[1])

    for start in ((1.0, 0.0), (0.0, 1.0), (3.0, -0.2)):
        path = [start]
        for _ in range(7):
            path.append(turn(path[-1]))
        assert rate(path) == pytest.approx(0.9, abs=1e-12)


# ---- the optimal D ---------------------------------------------------------------------------------------------------


def test_the_integrals_agree_with_what_is_known() -> None:
    assert optimal_d.densities(0.0).js() == pytest.approx(0, abs=1e-12)
    assert optimal_d.densities(0.0).least_squares() == pytest.approx(0.25, abs=1e-9)
    assert optimal_d.densities(20.0).js() == pytest.approx(math.log(2), abs=1e-9)
    for shift in (0.0, 0.5, 6.0):
        at = optimal_d.densities(shift)
        ones = torch.ones_like(at.x)
        assert (at.mean(ones, at.p), at.mean(ones, at.q)) == pytest.approx((1, 1), abs=1e-9)


@pytest.mark.parametrize("shift", [0.5, 1.5])
def test_the_loss_is_least_at_the_density_ratio_and_is_log_4_less_twice_the_js_there(shift: float) -> None:
    at = optimal_d.densities(shift)
    best = at.optimal()

    def loss(D: torch.Tensor) -> float:
        return at.mean(-D.log(), at.p) + at.mean(-(1 - D).log(), at.q)

    assert loss(best) == pytest.approx(math.log(4) - 2 * at.js(), abs=1e-9)
    for bend in (0.9, 1.1):
        assert loss(torch.special.expit(bend * torch.logit(best))) > loss(best)


def test_drawn_samples_have_the_density() -> None:
    x = optimal_d.sample(40_000, torch.Generator().manual_seed(0)).double().flatten()
    at = optimal_d.densities(0.0)
    for power in (1, 2, 4):
        assert float(x.pow(power).mean()) == pytest.approx(at.mean(at.x**power, at.p), abs=0.01)
    assert float((x > 0).double().mean()) == pytest.approx(0.5, abs=0.001)


def test_a_short_training_finds_d_and_its_loss() -> None:
    t = optimal_d.train_discriminator(OBJECTIVES["nonsaturating"].d, 1.5, iterations=150, seed=0)
    assert t.distance(t.logits().sigmoid(), t.densities.optimal()) < 0.02
    assert t.loss == pytest.approx(math.log(4) - 2 * t.densities.js(), abs=0.01)


# ---- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "own", "figures"),
    [
        ("oscillation", {"steps": 60}, {"plane", "distance"}),
        ("optimal-d", {"iterations": 60}, {"optimal", "loss", "labels"}),
    ],
)
def test_a_lab_without_images_leaves_a_page(name: str, own: dict[str, Any], figures: set[str], tmp_path: Path) -> None:
    result = labs.run(name, out=tmp_path / "lab", **own)
    assert set(result["figures"]) == figures
    assert result["run"] == []
    page = Path(result["page"]).read_text(encoding="utf-8")
    assert page.count("data:image/png") == len(figures)
    assert f"limner lab {name} " in page
    written = json.loads((tmp_path / "lab" / "results.json").read_text(encoding="utf-8"))
    assert written["checks"] == result["checks"]
    assert written["settings"].items() >= own.items()
    assert "images" not in written["settings"]
    if name == "oscillation":
        assert [c["name"] for c in result["checks"] if not c["ok"]] == []


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("oscillation", {"images": 64}),
        ("oscillation", {"seed": 1}),
        ("oscillation", {"steps": 5}),
        ("optimal-d", {"data": "digits"}),
        ("optimal-d", {"iterations": 0}),
    ],
)
def test_what_these_labs_do_not_take_is_refused(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match=next(iter(settings))):
        labs.run(name, out=tmp_path / "lab", **settings)
    assert not (tmp_path / "lab").exists()


def test_the_measured_rates_of_the_page_are_those_of_theory() -> None:
    for name, theory, found in oscillation.measure_rates():
        assert found == pytest.approx(theory, abs=1e-6), name
