from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from limner.losses import divergence, sparsity


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kl_normal_equals_torch_distributions():
    mu, logvar = randn(7, 5), 2 * randn(7, 5, seed=1)
    expected = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(divergence.kl_normal(mu, logvar), expected, rtol=1e-12)


def test_kl_normal_gradients():
    inputs = [randn(3, 4, seed=s).requires_grad_() for s in range(2)]
    assert torch.autograd.gradcheck(divergence.kl_normal, inputs)


def test_the_kl_is_not_negative_unlike_the_form_without_its_half():
    sigma = torch.linspace(0.2, 2.0, 180_001, dtype=torch.float64)[:, None]
    mu = torch.zeros_like(sigma)
    without_half = (sigma**2 + mu**2 - sigma.log() - 1).sum(1)
    assert without_half.min().item() == pytest.approx((1 + math.log(2)) / 2 - 1, abs=1e-8)  # -0.153
    assert sigma[without_half.argmin()].item() == pytest.approx(math.sqrt(0.5), abs=1e-4)
    ours = divergence.kl_normal(mu, 2 * sigma.log())
    assert ours.min().item() == pytest.approx(0, abs=1e-12)
    assert sigma[ours.argmin()].item() == pytest.approx(1, abs=1e-4)


def test_kl_normal_keeps_small_values_in_float32():
    logvar = torch.full((1, 1), 1e-4)
    assert divergence.kl_normal(torch.zeros(1, 1), logvar).item() == pytest.approx(1e-8 / 4, rel=1e-2)


def test_kl_bernoulli_equals_torch_distributions():
    rho_hat = torch.sigmoid(randn(20))
    expected = kl_divergence(Bernoulli(torch.full_like(rho_hat, 0.05)), Bernoulli(rho_hat))
    assert torch.allclose(divergence.kl_bernoulli(0.05, rho_hat), expected, rtol=1e-12)


def test_kl_bernoulli_at_its_ends():
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert divergence.kl_bernoulli(0.5, ends).tolist() == [math.inf, math.inf]
    assert divergence.kl_bernoulli(0.0, ends).tolist() == [0.0, math.inf]


def test_sparsity_kl_is_zero_at_the_target_and_finite_for_dead_units():
    quiet = torch.zeros(20, 3, dtype=torch.float64)
    quiet[0] = 1.0  # each unit active in one image of twenty
    assert sparsity.kl(quiet, rho=0.05).item() == pytest.approx(0, abs=1e-12)
    dead, always = torch.zeros(20, 3), torch.ones(20, 3)
    assert sparsity.kl(dead).isfinite()
    assert sparsity.kl(always) > sparsity.kl(dead) > 0


def test_sparsity_counts_units_not_images():
    code = randn(4, 6)
    assert torch.allclose(sparsity.l1(code), code.abs().sum() / 4)
    act = torch.sigmoid(code)
    assert torch.allclose(sparsity.l1(torch.cat([code, code])), sparsity.l1(code))
    assert torch.allclose(sparsity.kl(torch.cat([act, act])), sparsity.kl(act))
    assert torch.allclose(sparsity.kl(torch.cat([act, act], 1)), 2 * sparsity.kl(act))
    assert torch.autograd.gradcheck(sparsity.kl, act.requires_grad_())
