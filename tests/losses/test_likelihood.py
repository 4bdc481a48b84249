from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from limner.losses import likelihood

LEVELS = (2 * torch.arange(256, dtype=torch.float64) - 255) / 255


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_bernoulli_equals_torch_distributions_on_black_and_white():
    logits, x = randn(5, 1, 4, 4), randn(5, 1, 4, 4, seed=1).sign()
    expected = Bernoulli(logits=logits).log_prob((x + 1) / 2).sum((1, 2, 3))
    assert torch.allclose(likelihood.bernoulli(logits, x), expected, rtol=1e-12)


def test_gaussian_equals_torch_distributions():
    mean, logvar, x = randn(5, 2, 3, 3), randn(5, 2, 3, 3, seed=1), randn(5, 2, 3, 3, seed=2)
    expected = Normal(mean, (logvar / 2).exp()).log_prob(x).sum((1, 2, 3))
    assert torch.allclose(likelihood.gaussian(mean, logvar, x), expected, rtol=1e-12)
    one = torch.zeros((), dtype=torch.float64)  # a single log variance for all pixels
    assert torch.allclose(likelihood.gaussian(mean, one, x), Normal(mean, 1.0).log_prob(x).sum((1, 2, 3)))


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.123, 1.0])
@pytest.mark.parametrize("log_scale", [-12.0, -7.0, -2.0, 0.0, 5.0])
def test_discretised_logistic_sums_to_one(mean, log_scale):
    x = LEVELS.view(256, 1)
    logp = likelihood.discretised_logistic(x.new_full((256, 1), mean), x.new_tensor(log_scale), x)
    assert logp.isfinite().all()
    assert logp.exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_discretised_logistic_equals_differences_of_the_cdf():
    mean, log_scale = torch.tensor(0.3, dtype=torch.float64), torch.tensor(-1.5, dtype=torch.float64)
    edges = torch.cat([torch.tensor([-math.inf]), (LEVELS[1:] + LEVELS[:-1]) / 2, torch.tensor([math.inf])])
    cdf = torch.sigmoid((edges - mean) / log_scale.exp())
    logp = likelihood.discretised_logistic(mean.expand(256, 1), log_scale, LEVELS.view(256, 1))
    assert torch.allclose(logp.exp(), cdf.diff(), atol=1e-15)


def test_discretised_logistic_gradients_stay_finite_far_from_the_mean():
    x = LEVELS[[0, 1, 128, 254, 255]].view(5, 1)
    mean, log_scale = (randn(5, 1, seed=s).requires_grad_() for s in (1, 2))
    assert torch.autograd.gradcheck(lambda m, s: likelihood.discretised_logistic(m, s, x), (mean, log_scale))
    sharp = torch.full((5, 1), -7.0, requires_grad=True)  # float32, 1000 scales away
    likelihood.discretised_logistic(torch.zeros(5, 1), sharp, x.float()).sum().backward()
    assert sharp.grad is not None
    assert sharp.grad.isfinite().all()


def test_a_uniform_guess_costs_eight_bits_per_byte():
    x = LEVELS.view(1, 1, 16, 16)
    wide = likelihood.gaussian(x, torch.tensor(0.0), x)  # at its mean: the density of N(0,1) at 0
    assert likelihood.bits_per_dim(wide, 256).item() == pytest.approx(0.5 * math.log2(2 * math.pi))
    uniform = torch.tensor([-256 * math.log(256)], dtype=torch.float64)
    assert likelihood.bits_per_dim(uniform, 256).item() == pytest.approx(8.0)


def test_log_mean_exp_is_stable_and_tightens():
    log_w = randn(50, 7) * 3 - 2000
    out = likelihood.log_mean_exp(log_w)
    assert torch.allclose(out, (log_w + 2000).exp().mean(0).log() - 2000)
    assert (out >= log_w.mean(0)).all()  # Jensen: the bound is at least the ELBO of the same draws
    assert torch.equal(likelihood.log_mean_exp(log_w[:1]), log_w[0])
    assert torch.allclose(likelihood.log_mean_exp(log_w.T, dim=1), out)


def test_iwae_bound_of_a_model_with_a_known_evidence():
    # z ~ N(0,1), x|z ~ N(z,1), so x ~ N(0,2); proposal q(z|x) = N(0,1), which is not the posterior
    x = torch.tensor([1.0, -0.5], dtype=torch.float64)
    z = randn(200_000, 2)
    log_w = Normal(z, 1.0).log_prob(x)
    assert torch.allclose(likelihood.log_mean_exp(log_w), Normal(0.0, math.sqrt(2)).log_prob(x), atol=0.01)
