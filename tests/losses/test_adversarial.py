from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from limner.losses import divergence
from limner.losses.adversarial import OBJECTIVES, nonsaturating, saturating


def logits(seed: int, n: int = 9) -> torch.Tensor:
    return 3 * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_d_is_the_plain_sum_of_two_cross_entropies():
    real, fake = logits(0), logits(1, n=5)
    expected = F.binary_cross_entropy_with_logits(real, torch.ones(9).double())
    expected = expected + F.binary_cross_entropy_with_logits(fake, torch.zeros(5).double())
    assert torch.allclose(nonsaturating.d(real, fake), expected)
    assert saturating.d is nonsaturating.d


def test_g_is_log_d_or_log_one_minus_d():
    fake = logits(2)
    D = torch.sigmoid(fake)
    assert torch.allclose(nonsaturating.g(fake), -D.log().mean())
    assert torch.allclose(saturating.g(fake), (1 - D).log().mean())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients(name):
    real, fake = logits(0).requires_grad_(), logits(1).requires_grad_()
    assert torch.autograd.gradcheck(OBJECTIVES[name].d, (real, fake))
    assert torch.autograd.gradcheck(OBJECTIVES[name].g, (fake,))
    assert torch.autograd.gradgradcheck(OBJECTIVES[name].g, (fake,))


def test_only_the_saturating_gradient_vanishes_when_d_rejects_everything():
    rejected = torch.full((4,), -30.0, dtype=torch.float64, requires_grad=True)
    slope = {
        name: torch.autograd.grad(objective.g(rejected), rejected)[0].abs().sum().item()
        for name, objective in OBJECTIVES.items()
    }
    assert slope["nonsaturating"] == pytest.approx(1.0)
    assert 0 < slope["saturating"] < 1e-12


def test_nothing_overflows():
    far = torch.tensor([-1e4, 1e4])
    for objective in OBJECTIVES.values():
        assert objective.d(far, far).isfinite()
        assert objective.g(far).isfinite()


def test_d_loss_at_the_best_d_is_log_4_less_twice_the_js():
    p, q = logits(3).softmax(0), logits(4).softmax(0)
    best = p.log() - q.log()  # the logit of p / (p + q)
    # expectations over the nine outcomes in place of means over a batch
    loss = sum(
        weight * nonsaturating.d(best[i : i + 1], best[j : j + 1])
        for i, j, weight in [(i, j, p[i] * q[j]) for i in range(9) for j in range(9)]
    )
    assert torch.allclose(loss, math.log(4) - 2 * divergence.js(p, q))
    assert nonsaturating.d(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(math.log(4))
