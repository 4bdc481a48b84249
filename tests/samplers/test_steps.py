"""Samplers on an exact denoiser: orders, ends, and what they must not do."""

from __future__ import annotations

from itertools import pairwise
from math import log2, sqrt

import pytest
import torch
from torch import Tensor

from limner.samplers import grids, steps

from .mixture import mixture, randn  # noqa: TID252 - tests are no package that could be imported by name

SMOOTH = mixture(s=0.5)
SAMPLERS = [steps.euler, steps.heun, steps.dpm2m]


def grid(n: int) -> list[float]:
    return grids.karras(n + 1, 0.02, 20.0)[:-1]


@pytest.mark.parametrize(("sampler", "order"), [(steps.euler, 0.95), (steps.heun, 1.95), (steps.dpm2m, 1.95)])
def test_order_of_convergence(sampler: steps.Sampler, order: float) -> None:
    x = 20 * randn(64, 16)
    truth = steps.heun(SMOOTH.denoise, x, grid(1500))
    errors = [(sampler(SMOOTH.denoise, x, grid(n)) - truth).norm(dim=1).mean().item() for n in (16, 32, 64, 128, 256)]
    assert min(log2(a / b) for a, b in pairwise(errors)) > order


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_of_a_gaussian_are_exact_in_the_limit(sampler: steps.Sampler) -> None:
    """dx/dσ of N(0, s²) is xσ/(s² + σ²), so x ends as x·√(s² + σ_min²)/√(s² + σ_max²)."""
    s, x = 0.5, 80 * randn(5, 3)
    out = sampler(lambda x, sigma: s**2 / (s**2 + sigma**2) * x, x, grids.karras(1000)[:-1])
    assert torch.allclose(out, x * sqrt((s**2 + 0.002**2) / (s**2 + 80**2)), rtol=0.02)


def test_ancestral_samples_have_the_moments_of_the_data() -> None:
    s, n = 0.5, 200
    g = torch.Generator().manual_seed(0)
    out = steps.ancestral(
        lambda x, sigma: 0.3 + s**2 / (s**2 + sigma**2) * (x - 0.3),
        80 * torch.randn(20_000, 1, generator=g, dtype=torch.float64),
        grids.karras(n),
        lambda i: torch.randn(20_000, 1, generator=g, dtype=torch.float64),
    )
    assert out.mean().item() == pytest.approx(0.3, abs=0.02)
    assert out.std().item() == pytest.approx(s, rel=0.05)  # too small by O(1/n)


def test_churn_leaves_the_marginals_as_they_are() -> None:
    s, n = 0.5, 100
    g = torch.Generator().manual_seed(0)
    noise = lambda i: torch.randn(20_000, 1, generator=g, dtype=torch.float64)  # noqa: E731
    start = 80 * noise(0)
    out = steps.heun(lambda x, sigma: s**2 / (s**2 + sigma**2) * x, start, grids.karras(n), noise, churn=30.0)
    assert out.std().item() == pytest.approx(s, rel=0.03)
    calm = steps.heun(lambda x, sigma: s**2 / (s**2 + sigma**2) * x, start, grids.karras(n))
    assert abs(torch.corrcoef(torch.stack([out[:, 0], calm[:, 0]]))[0, 1]) < 0.9


def test_churn_is_bounded_by_the_paper() -> None:
    """γ = min(S/n, √2 − 1): a huge S doubles the variance of each level and no more."""
    seen: list[float] = []

    def D(x: Tensor, sigma: float) -> Tensor:
        seen.append(sigma)
        return x

    steps.heun(D, torch.ones(1, 1), [4.0, 0.0], lambda i: torch.ones(1, 1), churn=1e9)
    assert seen == [pytest.approx(4 * sqrt(2))]


def test_no_noise_is_drawn_where_none_is_added() -> None:
    def noise(i: int) -> Tensor:
        raise AssertionError("a draw costs time and shifts the seeds of others")

    x, levels = 20 * randn(4, 16), grids.karras(6)
    quiet = steps.ancestral(SMOOTH.denoise, x, levels, noise, eta=0.0)
    assert torch.allclose(quiet, steps.euler(SMOOTH.denoise, x, levels), rtol=1e-12)
    steps.heun(SMOOTH.denoise, x, levels, noise)


def test_noise_has_the_number_of_its_step() -> None:
    drawn: list[int] = []

    def noise(i: int) -> Tensor:
        drawn.append(i)
        return torch.zeros(2, 16, dtype=torch.float64)

    steps.ancestral(SMOOTH.denoise, randn(2, 16), grids.karras(5), noise)
    assert drawn == [1, 2, 3, 4]  # 0 is the start's; the step to 0 adds none
    drawn.clear()
    steps.heun(SMOOTH.denoise, randn(2, 16), grids.karras(5), noise, churn=1.0)
    assert drawn == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("sampler", "calls"), [(steps.euler, 7), (steps.dpm2m, 7), (steps.heun, 13)])
def test_evaluations_and_one_step(sampler: steps.Sampler, calls: int) -> None:
    seen: list[float] = []

    def D(x: Tensor, sigma: float) -> Tensor:
        seen.append(sigma)
        return SMOOTH.denoise(x, sigma)

    x = 80 * randn(3, 16)
    sampler(D, x, grids.karras(7))
    assert len(seen) == calls
    assert min(seen) > 0
    assert torch.equal(sampler(D, x, [80.0, 0.0]), SMOOTH.denoise(x, 80.0))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_clipped_stays_clipped(sampler: steps.Sampler) -> None:
    """The last step gives D itself: a denoiser in [-1,1] gives pictures in [-1,1], without an ε that contradicts it."""
    out = sampler(lambda x, sigma: (3 * x).clamp(-1, 1), 80 * randn(8, 3, dtype=torch.float32), grids.karras(9))
    assert out.abs().max() <= 1


@pytest.mark.parametrize("sampler", [*SAMPLERS, lambda D, x, s: steps.ancestral(D, x, s, lambda i: torch.ones_like(x))])
def test_levels_of_the_cosine_schedule_stay_finite(sampler: steps.Sampler) -> None:
    levels = [20_291.0, 300.0, 20.0, 1.0, 0.01, 0.0]
    assert sampler(SMOOTH.denoise, levels[0] * randn(4, 16), levels).isfinite().all()


@pytest.mark.parametrize("name", ["euler", "heun", "churn", "ancestral", "dpm2m"])
def test_nothing_waits_for_the_device(name: str) -> None:
    """Tensors on `meta` have no values: reading one, as a branch or a Python number does, is an error."""
    x, D = torch.empty(2, 3, 4, 4, device="meta"), lambda x, sigma: x / (1 + sigma)
    noise = lambda i: torch.empty_like(x)  # noqa: E731
    levels = grids.karras(4)
    out = {
        "euler": lambda: steps.euler(D, x, levels),
        "heun": lambda: steps.heun(D, x, levels),
        "churn": lambda: steps.heun(D, x, levels, noise, churn=2.0),
        "ancestral": lambda: steps.ancestral(D, x, levels, noise),
        "dpm2m": lambda: steps.dpm2m(D, x, levels),
    }[name]()
    assert out.shape == x.shape
    assert out.dtype == x.dtype


def test_inversion_error_falls_with_the_steps() -> None:
    """Encoding is the way up, without the 0; |x − decode(encode(x))| falls with order 1 for Euler and 2 for Heun."""
    x = SMOOTH.sample(32)
    error = {}
    for sampler in (steps.euler, steps.heun):
        for n in (20, 50, 200):
            down = grids.karras(n, 0.002, 20.0)
            z = sampler(SMOOTH.denoise, x, down[-2::-1])
            error[sampler, n] = (sampler(SMOOTH.denoise, z, down) - x).norm(dim=1).mean().item()
    assert error[steps.euler, 200] < error[steps.euler, 50] / 3 < error[steps.euler, 20] / 6
    assert error[steps.heun, 50] < error[steps.heun, 20] / 4
    assert error[steps.heun, 50] < error[steps.euler, 50] / 10


def test_codes_of_heun_are_spread_as_the_prior_and_those_of_euler_less() -> None:
    x, up = SMOOTH.sample(2000), grids.karras(50, 0.002, 80.0)[-2::-1]
    spread = [(sampler(SMOOTH.denoise, x, up) / 80).std().item() for sampler in (steps.euler, steps.heun)]
    assert spread[1] == pytest.approx(1, abs=0.02)
    assert spread[0] < spread[1] - 0.02
