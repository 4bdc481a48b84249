from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest
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
    assert torch.allclose(penalties.gradient_penalty_one_sided(linear, real, fake), (norm - 1) ** 2)
    assert torch.allclose(penalties.dragan(linear, real, fake), (norm - 1) ** 2)
    assert torch.allclose(penalties.r1(linear, real, fake), 0.5 * norm**2)
    assert torch.allclose(penalties.r2(linear, real, fake), 0.5 * norm**2)


def test_r1_uses_the_real_images_and_r2_the_generated():
    real, fake = images(4), images(4, seed=1)
    assert torch.allclose(penalties.r1(quadratic, real), 0.5 * real.flatten(1).square().sum(1).mean())
    assert torch.allclose(penalties.r2(quadratic, None, fake), 0.5 * fake.flatten(1).square().sum(1).mean())


def test_a_penalty_through_a_transform_is_taken_at_the_images_before_it():
    """D(x) = ½‖T(x)‖² with T(x) = a x flipped + b, whose gradient is a (a x + b flipped back)."""
    a, b, x = 0.3, images(1, seed=5), images(4)
    critic = penalties.Through(lambda x: a * x.flip(3) + b, quadratic)
    gradient = a * (a * x + b.flip(3))
    assert torch.allclose(penalties.r1(critic, x), 0.5 * gradient.flatten(1).square().sum(1).mean())
    assert not torch.allclose(penalties.r1(quadratic, a * x.flip(3) + b), penalties.r1(critic, x))
    assert torch.equal(critic(x), quadratic(a * x.flip(3) + b))


def test_each_sample_has_its_own_eps():
    real, fake = images(3), images(3, seed=1)
    eps = torch.tensor([0.0, 1.0, 0.25], dtype=torch.float64)
    x_hat = torch.stack([fake[0], real[1], 0.25 * real[2] + 0.75 * fake[2]])
    expected = (x_hat.flatten(1).norm(dim=1) - 1).square().mean()
    assert torch.allclose(penalties.gradient_penalty(quadratic, real, fake, eps=eps), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "penalty", [penalties.gradient_penalty, penalties.gradient_penalty_one_sided, penalties.dragan]
)
def test_the_critic_takes_points_of_the_images_dtype(penalty, dtype):
    recorded = []

    def critic(x: torch.Tensor) -> torch.Tensor:
        recorded.append(x.dtype)
        return linear(x)

    penalty(critic, images(3).to(dtype), images(3, seed=1).to(dtype))
    assert recorded == [dtype]


def test_eps_comes_from_the_generator():
    real, fake = images(3), images(3, seed=1)

    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return penalties.gradient_penalty(quadratic, real, fake, generator=generator)

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_the_gradient_reaches_the_critic_and_not_the_images():
    torch.manual_seed(0)  # where the slope is below 1, the one-sided penalty has no gradient
    critic = nn.Sequential(nn.Flatten(), nn.Linear(18, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0)).double()
    critic[3].weight.data *= 20  # steep enough for the one-sided penalty to speak
    real, fake = images(3), images(3, seed=1).requires_grad_()
    for penalty in penalties.PENALTIES.values():
        critic.zero_grad()
        penalty(critic, real, fake).backward()
        assert critic[1].weight.grad.abs().max() > 0, penalty
    assert fake.grad is None


class WrittenOut(nn.Module):
    """D(x) = w/2 ‖x‖², which says itself that its gradient is w x, and in what precision it computes."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.w, self.dtype = nn.Parameter(torch.tensor(3.0, dtype=torch.float64)), dtype

    def input_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        grad = (self.w * x).to(self.dtype)
        return 0.5 * self.w * x.flatten(1).square().sum(1), grad


@pytest.mark.parametrize("name", penalties.PENALTIES)
def test_a_gradient_by_rules_does_not_reach_the_images(name):
    real, fake = images(3).requires_grad_(), images(3, seed=1).requires_grad_()
    critic = WrittenOut()
    getattr(penalties, name)(critic, real, fake).backward()
    assert critic.w.grad.abs() > 0
    assert real.grad is None
    assert fake.grad is None


def test_gradients_in_bfloat16_are_squared_and_summed_in_float32():
    real = images(3)
    value = penalties.r1(WrittenOut(torch.bfloat16), real)
    assert value.dtype == torch.float32
    slopes = (3.0 * real).bfloat16().float()
    torch.testing.assert_close(value, 0.5 * slopes.flatten(1).square().sum(1).mean())


def test_the_one_sided_penalty_lets_gentle_slopes_pass():
    real, fake = images(3), images(3, seed=1)

    def gentle(x: torch.Tensor) -> torch.Tensor:
        return linear(x) / (2 * W.norm())

    assert penalties.gradient_penalty_one_sided(gentle, real, fake).item() == 0
    assert penalties.gradient_penalty(gentle, real, fake).item() == pytest.approx(0.25)


def test_dragan_uses_the_gradient_near_real_images_only():
    real, noise = images(3), 0.1 * images(3, seed=2)
    expected = ((real + noise).flatten(1).norm(dim=1) - 1).square().mean()
    assert torch.allclose(penalties.dragan(quadratic, real, noise=noise), expected)
    torch.manual_seed(0)
    here = penalties.dragan(quadratic, real)
    assert not torch.equal(here, penalties.dragan(quadratic, real)), "its noise is drawn anew"
    assert here.item() == pytest.approx((real.flatten(1).norm(dim=1) - 1).square().mean().item(), rel=0.5)


def test_the_noise_of_dragan_is_half_a_deviation_times_two_uniform_numbers():
    """δ = ½ std(x) ε u: one ε for each image, one u for each pixel, std over the whole batch."""
    real = 3 * torch.randn(400, 1, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    recorded = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        recorded.append(x.detach())
        return x.flatten(1).sum(1)

    penalties.dragan(watched, real, generator=torch.Generator().manual_seed(1))
    moved = (recorded[0] - real).flatten(1) / (0.5 * real.std())  # ε u
    assert moved.min() > -1e-12
    eps = moved.max(1).values  # the largest of 1600 numbers u is 1, but for a thousandth
    assert kstest(eps.numpy(), "uniform").pvalue > 0.01
    u = moved / eps[:, None]
    assert kstest(u[::20].flatten().numpy(), "uniform").pvalue > 0.01
    assert abs(torch.corrcoef(u[:2])[0, 1]) < 0.1, "each image has noise of its own"


def test_a_critic_of_packs_has_one_gradient_for_each_pack():
    real, fake = images(6), images(6, seed=1)

    def packs(x: torch.Tensor) -> torch.Tensor:
        return linear(x).view(-1, 2).sum(1)

    norm = W.norm() * 2**0.5
    assert torch.allclose(penalties.gradient_penalty(packs, real, fake), (norm - 1) ** 2)
    assert torch.allclose(penalties.r1(packs, real), 0.5 * norm**2)


@pytest.mark.parametrize("name", penalties.PENALTIES)
def test_gradcheck_through_the_weights(name):
    real, fake = images(2), images(2, seed=1)
    eps = torch.tensor([0.3, 0.8], dtype=torch.float64)
    extra = {"eps": eps} if name.startswith("gradient_penalty") else {"noise": 0.1 * real} if name == "dragan" else {}
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
