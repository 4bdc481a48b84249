from __future__ import annotations

import pytest
import torch
from torch import nn

from limner.losses import penalties


def images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


W = images(1, seed=9)


def linear(x: torch.Tensor) -> torch.Tensor:
    """D(x) = <w,x>, whose gradient is w everywhere."""
    return (W * x).flatten(1).sum(1)


def quadratic(x: torch.Tensor) -> torch.Tensor:
    """D(x) = ½‖x‖², whose gradient is x."""
    return 0.5 * x.square().flatten(1).sum(1)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_linear_critic(n):
    norm = W.norm()
    real, fake = images(n), images(n, seed=1)
    assert torch.allclose(penalties.gradient_penalty(linear, real, fake), (norm - 1) ** 2)
    assert torch.allclose(penalties.r1(linear, real, fake), 0.5 * norm**2)
    assert torch.allclose(penalties.r2(linear, real, fake), 0.5 * norm**2)


def test_r1_looks_at_the_real_images_and_r2_at_the_generated():
    real, fake = images(4), images(4, seed=1)
    assert torch.allclose(penalties.r1(quadratic, real), 0.5 * real.flatten(1).square().sum(1).mean())
    assert torch.allclose(penalties.r2(quadratic, None, fake), 0.5 * fake.flatten(1).square().sum(1).mean())


def test_each_sample_has_one_eps_of_its_own():
    real, fake = images(3), images(3, seed=1)
    eps = torch.tensor([0.0, 1.0, 0.25], dtype=torch.float64)
    x_hat = torch.stack([fake[0], real[1], 0.25 * real[2] + 0.75 * fake[2]])
    expected = (x_hat.flatten(1).norm(dim=1) - 1).square().mean()
    assert torch.allclose(penalties.gradient_penalty(quadratic, real, fake, eps=eps), expected)


def test_eps_comes_from_the_generator():
    real, fake = images(3), images(3, seed=1)

    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return penalties.gradient_penalty(quadratic, real, fake, generator=generator)

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_the_gradient_reaches_the_critic_and_not_the_images():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(18, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0)).double()
    real, fake = images(3), images(3, seed=1).requires_grad_()
    for penalty in (penalties.gradient_penalty, penalties.r1, penalties.r2):
        critic.zero_grad()
        penalty(critic, real, fake).backward()
        assert critic[1].weight.grad.abs().max() > 0, penalty
    assert fake.grad is None


@pytest.mark.parametrize("name", ["gradient_penalty", "r1", "r2"])
def test_gradcheck_through_the_weights(name):
    real, fake = images(2), images(2, seed=1)
    eps = torch.tensor([0.3, 0.8], dtype=torch.float64)
    extra = {"eps": eps} if name == "gradient_penalty" else {}
    weight = images(18, seed=2).flatten(1).requires_grad_()

    def value(w: torch.Tensor) -> torch.Tensor:
        return getattr(penalties, name)(lambda x: (x.flatten(1) @ w).tanh().sum(1), real, fake, **extra)

    assert torch.autograd.gradcheck(value, weight)


def test_a_flat_critic_has_a_finite_gradient():
    weight = torch.zeros(18, dtype=torch.float64, requires_grad=True)
    loss = penalties.gradient_penalty(lambda x: x.flatten(1) @ weight, images(2), images(2, seed=1))
    assert loss.item() == pytest.approx(1.0)
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def test_unequal_batches_are_an_error():
    with pytest.raises(ValueError, match="one shape"):
        penalties.gradient_penalty(linear, images(3), images(1))
