"""Equality with the schedulers of `diffusers`, an independent implementation with another coordinate and other indices.

Each gets the same net and the same noise; clipping and thresholding are off, and limner gets the levels that the
scheduler really uses. In float32, as theirs are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from limner.samplers import steps

from .mixture import mixture, randn  # noqa: TID252 - tests are no package that could be imported by name

diffusers = pytest.importorskip("diffusers")

MIX = mixture()
T = 1000
ALPHAS = (1 - torch.linspace(1e-4, 0.02, T, dtype=torch.float64)).cumprod(0)
LEVELS = ((1 - ALPHAS) / ALPHAS).sqrt().tolist()
DISCRETE: dict[str, Any] = {"num_train_timesteps": T, "beta_schedule": "linear"}
START = randn(8, 16, dtype=torch.float32)


def error(ours: Tensor, theirs: Tensor) -> float:
    """Relative, of all numbers."""
    return ((ours - theirs).norm() / theirs.norm()).item()


def epsilon(x: Tensor, t: int) -> Tensor:
    """The ε-net that both sides use: x_t (B,d) and t = 0 … T−1."""
    sigma = LEVELS[t]
    x_bar = x * (1 + sigma**2) ** 0.5
    return (x_bar - MIX.denoise(x_bar, sigma)) / sigma


def D(x: Tensor, sigma: float) -> Tensor:
    t = min(range(T), key=lambda t: abs(LEVELS[t] - sigma))
    return x - sigma * epsilon(x / (1 + sigma**2) ** 0.5, t)


def their_steps(scheduler: Any, net: Callable[[Tensor, Any], Tensor], x: Tensor, **options: Any) -> Tensor:
    for t in scheduler.timesteps:
        x = scheduler.step(net(x, t), t, x, **options).prev_sample
    return x


def on_table(scheduler: Any) -> list[float]:
    return [LEVELS[int(t)] for t in scheduler.timesteps] + [0.0]


def start_at(levels: list[float]) -> Tensor:
    """x̄ of x_t = START at the highest level."""
    return START * (1 + levels[0] ** 2) ** 0.5


def noises(n: int, seed: int = 3) -> Callable[[int], Tensor]:
    """What a scheduler draws with this seed: one after another."""
    g = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(START.shape, generator=g) for _ in range(n)]
    return lambda i: drawn[i - 1]


@pytest.mark.parametrize(("spacing", "n"), [("leading", 20), ("leading", 13), ("trailing", 20)])
def test_ddim_is_euler(spacing: str, n: int) -> None:
    scheduler = diffusers.DDIMScheduler(**DISCRETE, clip_sample=False, timestep_spacing=spacing)
    scheduler.set_timesteps(n)
    theirs = their_steps(scheduler, lambda x, t: epsilon(x, int(t)), START)
    levels = on_table(scheduler)
    assert error(steps.euler(D, start_at(levels), levels), theirs) < 1e-5


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_with_eta_is_ancestral(eta: float) -> None:
    scheduler = diffusers.DDIMScheduler(**DISCRETE, clip_sample=False)
    scheduler.set_timesteps(20)
    g = torch.Generator().manual_seed(3)
    theirs = their_steps(scheduler, lambda x, t: epsilon(x, int(t)), START, eta=eta, generator=g)
    levels = on_table(scheduler)
    assert error(steps.ancestral(D, start_at(levels), levels, noises(20), eta=eta), theirs) < 1e-5


@pytest.mark.parametrize(("n", "bound"), [(20, 1e-5), (T, 1e-4)])
def test_ddpm_is_ancestral(n: int, bound: float) -> None:
    scheduler = diffusers.DDPMScheduler(**DISCRETE, clip_sample=False, variance_type="fixed_small")
    scheduler.set_timesteps(n)
    g = torch.Generator().manual_seed(3)
    theirs = their_steps(scheduler, lambda x, t: epsilon(x, int(t)), START, generator=g)
    levels = on_table(scheduler)
    assert error(steps.ancestral(D, start_at(levels), levels, noises(n)), theirs) < bound


def dpm(order: int, n: int) -> Any:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **DISCRETE,
        algorithm_type="dpmsolver++",
        solver_order=order,
        solver_type="midpoint",
        final_sigmas_type="zero",
        lower_order_final=True,
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(n)
    return scheduler


@pytest.mark.parametrize(("order", "sampler"), [(1, steps.euler), (2, steps.dpm2m)])
def test_dpm_solver(order: int, sampler: steps.Sampler) -> None:
    scheduler = dpm(order, 20)
    levels = scheduler.sigmas.tolist()
    theirs = their_steps(scheduler, lambda x, t: epsilon(x, int(t)), START)
    assert error(sampler(D, start_at(levels), levels), theirs) < 1e-5


def edm_net(scheduler: Any, F: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, Any], Tensor]:
    """F on the inputs that an EDM scheduler scales."""
    return lambda x, t: F(scheduler.scale_model_input(x, t), scheduler.sigmas[scheduler.step_index].item())


def preconditioned(F: Callable[[Tensor, float], Tensor], sd: float = 0.5) -> steps.Denoiser:
    """D of Karras et al. 2022, table 1."""

    def D(x: Tensor, sigma: float) -> Tensor:
        v = sigma**2 + sd**2
        return sd**2 / v * x + sigma * sd / v**0.5 * F(x / v**0.5, sigma)

    return D


def F(x: Tensor, sigma: float) -> Tensor:
    return torch.tanh(x.flip(1) + 0.3 * x.sum(1, keepdim=True) - sigma / (1 + sigma))


@pytest.mark.parametrize(
    ("name", "sampler"), [("EDMEulerScheduler", steps.euler), ("EDMDPMSolverMultistepScheduler", steps.dpm2m)]
)
def test_edm_schedulers(name: str, sampler: steps.Sampler) -> None:
    scheduler = getattr(diffusers, name)(sigma_data=0.5)
    scheduler.set_timesteps(18)
    x = 80 * START  # not their init_noise_sigma, √(80² + 1)
    theirs = their_steps(scheduler, edm_net(scheduler, F), x)
    assert error(sampler(preconditioned(F), x, scheduler.sigmas.tolist()), theirs) < 1e-5


def test_heun_discrete() -> None:
    scheduler = diffusers.HeunDiscreteScheduler(**DISCRETE, use_karras_sigmas=True)
    scheduler.set_timesteps(18)
    levels = [*scheduler.sigmas[::2].tolist(), 0.0][: 18 + 1]
    calls = 0

    def net(x: Tensor, t: Any) -> Tensor:
        nonlocal calls
        calls += 1
        sigma = scheduler.sigmas[scheduler.step_index or 0].item()
        return (x - MIX.denoise(x, sigma)) / sigma

    x = levels[0] * START
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)  # it finds the first step
        break
    theirs = their_steps(scheduler, net, x)
    assert calls == 2 * 18 - 1
    assert error(steps.heun(MIX.denoise, levels[0] * START, levels), theirs) < 1e-5


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_is_euler(shift: float) -> None:
    """u = ε − x0 at x_t = (1−t)x0 + tε, so x̄ = x_t/(1−t). At t = 1 theirs has infinite σ: compared after it."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(20)
    times = scheduler.sigmas.double().tolist()[1:]
    levels = [t / (1 - t) for t in times]

    def u(x: Tensor, t: Any) -> Tensor:
        x0 = MIX.denoise(x / (1 - t), t / (1 - t))
        return (x - (1 - t) * x0) / t - x0

    scheduler.set_begin_index(1)
    x = START.double()
    theirs = x
    for t, level in zip(scheduler.timesteps[1:], times, strict=False):
        theirs = scheduler.step(u(theirs, level), t, theirs).prev_sample
    ours = steps.euler(MIX.denoise, x / (1 - times[0]), levels)
    assert error(ours, theirs) < 1e-6


def test_edm_with_sigma_data_1_is_v_prediction() -> None:
    """F of EDM is −v: DDIM with their v-prediction, and Euler with EDM's table at σ_d = 1, draw the same."""
    scheduler = diffusers.DDIMScheduler(**DISCRETE, clip_sample=False, prediction_type="v_prediction")
    scheduler.set_timesteps(20)
    theirs = their_steps(scheduler, lambda x, t: -F(x, LEVELS[int(t)]), START)
    levels = on_table(scheduler)
    assert error(steps.euler(preconditioned(F, 1.0), start_at(levels), levels), theirs) < 1e-5
