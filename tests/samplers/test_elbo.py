"""The variational bound of a denoiser that is known in closed form is tight, and a worse denoiser's is lower."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from limner.core.rng import Noise
from limner.samplers.elbo import elbo, grey_values

LOW, HIGH, SPREAD = 0.001, 80.0, 0.4


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """E[x0|x] for x0 ~ N(0, SPREAD² I)."""
    return x * (SPREAD**2 / (SPREAD**2 + sigma.view(-1, 1, 1, 1).square()))


def test_the_bound_of_the_exact_denoiser_of_a_gaussian_is_its_entropy() -> None:
    x = SPREAD * torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    nats = elbo(gaussian, x, LOW, HIGH, SPREAD, Noise(0, 400), measure="density")
    exact = torch.distributions.Normal(0.0, SPREAD).log_prob(x).flatten(1).sum(1).double()
    error = float((nats - exact).std()) / 20
    assert float((nats - exact).mean()) == pytest.approx(0, abs=3 * error)
    assert error < 0.03 * 64


def test_a_worse_denoiser_has_a_lower_bound() -> None:
    x = SPREAD * torch.randn(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    best = elbo(gaussian, x, LOW, HIGH, SPREAD, Noise(0, 100), measure="density").mean()
    for factor in (0.9, 1.1):
        worse = elbo(lambda x, s, f=factor: f * gaussian(x, s), x, LOW, HIGH, SPREAD, Noise(0, 100), measure="density")
        assert worse.mean() < best - 1


def test_knowing_nothing_costs_eight_bits_at_least_and_two_grey_values_one_bit() -> None:
    """Pixels that are black or white with equal chance, and the exact denoiser tanh(x/σ²): 1 bit for each."""
    x = torch.randint(0, 2, (200, 1, 8, 8), generator=torch.Generator().manual_seed(1)).float() * 2 - 1

    def coin(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.tanh(x / sigma.view(-1, 1, 1, 1).square())

    bits = -elbo(coin, x, LOW, HIGH, 1.0, Noise(3, 200), draws=64) / (64 * math.log(2))
    assert float(bits.mean()) == pytest.approx(1, abs=0.03)
    assert float(bits.std()) / math.sqrt(200) < 0.015
    grey = (2 * torch.randint(0, 256, (200, 1, 8, 8), generator=torch.Generator().manual_seed(2)) - 255) / 255
    nothing = -elbo(lambda x, s: torch.zeros_like(x), grey, LOW, HIGH, 0.58, Noise(4, 200)) / (64 * math.log(2))
    assert float(nothing.mean()) > 8


def test_the_estimate_of_an_image_does_not_depend_on_the_number_of_draws_beyond_its_noise() -> None:
    x = SPREAD * torch.randn(300, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    few, many = (elbo(gaussian, x, LOW, HIGH, SPREAD, Noise(0, 300), draws=d, measure="density") for d in (4, 64))
    assert float((few - many).mean()) == pytest.approx(0, abs=4 * float((few - many).std()) / math.sqrt(300))


def test_probabilities_of_grey_values_sum_to_one() -> None:
    levels = (2 * torch.arange(256) - 255) / 255
    for sigma in (0.002, 0.01, 0.3):
        seen = torch.full((256, 1, 1, 1), 0.1)
        total = grey_values(levels.view(-1, 1, 1, 1), seen, sigma).exp().sum()
        assert float(total) == pytest.approx(1, abs=1e-4)
