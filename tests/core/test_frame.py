"""Frames of models of points: densities, paths from noise to data, and lines of noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from limner.core.frame import bent_lines, density, frame, is_drawn, paths
from limner.core.model import GenerativeModel
from limner.core.prior import NormalPrior
from limner.core.rng import Noise


class Gaussian(GenerativeModel):
    """N(mean, std²) on points of d numbers, with everything in closed form."""

    sigma_data, sigma_min, sigma_max = 1.0, 0.002, 80.0

    likelihood_kind = "exact"

    def __init__(self, d: int, mean: float = 0.5, std: float = 0.25) -> None:
        super().__init__()
        self.shape, self.mean, self.std = (d, 1, 1), mean, std
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        z = (x.flatten(1) - self.mean) / self.std
        return -(0.5 * z.square() + math.log(self.std) + 0.5 * math.log(2 * math.pi)).sum(1)


class Flow(Gaussian):
    """It decodes noise."""

    def __init__(self, d: int) -> None:
        super().__init__(d)
        self.prior = NormalPrior((d,))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return (x.flatten(1) - self.mean) / self.std

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (self.mean + self.std * z)[:, :, None, None]


class Diffusion(Gaussian):
    """It denoises."""

    def draw(self, n: int, y: Tensor | None, noise: Noise, **options: Any) -> Tensor:
        return self.mean + self.std * noise(0, *self.shape)

    def denoise(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        share = (self.std**2 / (self.std**2 + sigma.square())).view(-1, 1, 1, 1)
        return self.mean + share * (x - self.mean)


def data(d: int) -> Tensor:
    return 0.5 + 0.25 * torch.randn(64, d, 1, 1, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("d", [1, 2])
def test_the_gap_is_zero_for_the_true_density_and_the_divergence_for_another(d: int) -> None:
    true, shifted = Gaussian(d), Gaussian(d, std=0.5)
    x = data(d)
    same = density(true, x, true.log_prob)
    assert float(same["gap"]) == 0
    assert torch.equal(same["truth"], same["log_density"])
    assert float(same["nats"]) == pytest.approx(-float(true.log_prob(x).mean()))
    other = density(shifted, x, true.log_prob)
    assert float(other["gap"]) == pytest.approx(float((true.log_prob(x) - shifted.log_prob(x)).mean()), abs=1e-6)
    assert "gap" not in density(true, x, lambda x: None)


def test_a_density_that_costs_many_evaluations_has_a_coarser_grid() -> None:
    model = Gaussian(2)
    exact = density(model, data(2), model.log_prob)
    model.likelihood_kind = "ODE"
    solved = density(model, data(2), model.log_prob)
    assert len(solved["places"]) == len(solved["log_density"]) == 32**2 < len(exact["places"]) == 96**2
    assert torch.equal(solved["places"].amax(0), exact["places"].amax(0))


@pytest.mark.parametrize("d", [1, 2])
def test_paths_lead_from_normal_noise_to_the_data(d: int) -> None:
    model = Diffusion(d)
    tensors = paths(model, data(d), seed=0)
    path, times = tensors["path"], tensors["times"]
    assert path.shape == (len(times), 256, d)
    assert times[0] == pytest.approx(80 / 81)
    assert times[-1] == 0
    assert float(path[0].std()) == pytest.approx(1, abs=0.1)
    assert float(path[-1].mean()) == pytest.approx(0.5, abs=0.05)
    assert float(path[-1].std()) == pytest.approx(0.25, abs=0.03)
    order = path[0, :, 0].argsort()
    assert torch.equal(path[-1, :, 0].argsort(), order), "paths of an exact flow on a line do not cross"
    assert torch.equal(paths(model, data(d), seed=0)["path"], path)


def test_the_field_points_towards_the_data_with_the_speed_of_the_paths() -> None:
    model = Diffusion(2)
    tensors = paths(model, data(2), seed=0)
    places, times = tensors["field_places"], tensors["field_times"]
    for t, field in zip(times.tolist(), tensors["field"], strict=True):
        # dx/dt = ε - x_0 has the expectation (x - D) / t, with D from x / (1 - t) at σ = t / (1 - t)
        clean = model.denoise(places[:, :, None, None] / (1 - t), torch.full((len(places),), t / (1 - t))).flatten(1)
        torch.testing.assert_close(field, (clean - places) / t, rtol=1e-4, atol=1e-4)


def test_circles_of_noise_become_circles_of_a_linear_flow() -> None:
    x = data(2)
    tensors = bent_lines(Flow(2), x)
    radii = (tensors["lines"] - 0.5).norm(dim=2) / 0.25
    for radius, line in zip((0.5, 1.0, 1.5, 2.0, 2.5), radii[:5], strict=True):
        torch.testing.assert_close(line, torch.full_like(line, radius), rtol=0, atol=1e-5)
    assert (radii[5:].diff(dim=1) > 0).all(), "spokes lead outwards"
    offset = x.flatten(1) - 0.5
    torch.testing.assert_close(tensors["hue"], torch.atan2(offset[:, 1], offset[:, 0]))
    curve = bent_lines(Flow(1), data(1))["lines"]
    torch.testing.assert_close(curve[0, [0, -1], 0], torch.tensor([0.5 - 0.75, 0.5 + 0.75]))


@pytest.mark.parametrize(
    ("model", "has", "has_not"),
    [(Flow(2), {"log_density", "lines", "hue"}, {"path"}), (Diffusion(2), {"log_density", "path", "field"}, {"lines"})],
)
def test_a_frame_has_what_its_model_can_do(model: Gaussian, has: set[str], has_not: set[str]) -> None:
    tensors = frame(model.eval(), data(2), 0, model.log_prob)
    assert tensors.keys() >= has | {"fake", "real", "places", "truth", "gap"}
    assert not tensors.keys() & has_not
    assert all(v.dtype == torch.float32 and not v.requires_grad for v in tensors.values())
    assert is_drawn(model)
