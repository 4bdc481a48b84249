from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from limner.core.adversarial import sample_gradient
from limner.losses.adversarial import AT_EQUILIBRIUM, OBJECTIVES, labelled, nonsaturating, saturating


def logits(seed: int, n: int = 9) -> torch.Tensor:
    return 3 * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture(d, best, p, q):
    """E d over nine outcomes, reals from p and fakes from q, for a D that is a table of logits."""
    return sum(p[i] * q[j] * d(best[i : i + 1], best[j : j + 1]) for i in range(9) for j in range(9))


def test_d_is_the_plain_sum_of_two_cross_entropies():
    real, fake = logits(0), logits(1, n=5)
    expected = F.binary_cross_entropy_with_logits(real, torch.ones(9).double())
    expected = expected + F.binary_cross_entropy_with_logits(fake, torch.zeros(5).double())
    assert torch.allclose(nonsaturating.d(real, fake), expected)
    assert saturating.d is nonsaturating.d


def test_g_is_log_d_or_log_one_minus_d():
    fake = logits(2)
    D = torch.sigmoid(fake)
    assert torch.allclose(nonsaturating.g(fake, None), -D.log().mean())
    assert torch.allclose(saturating.g(fake, None), (1 - D).log().mean())


def test_the_other_objectives_by_hand():
    real, fake = torch.tensor([2.0, -0.5]).double(), torch.tensor([0.5, -3.0]).double()

    def softplus(*values: float) -> float:
        return sum(math.log1p(math.exp(v)) for v in values) / len(values)

    by_hand = {
        "lsgan": ((1.0 + 2.25) / 4 + (0.25 + 9.0) / 4, (0.25 + 16.0) / 4),
        "hinge": ((0.0 + 1.5) / 2 + (1.5 + 0.0) / 2, 1.25),
        "wasserstein": (-1.25 - 0.75, 1.25),
        "relativistic": (
            softplus(0.5 - 2.0, -3.0 + 0.5),
            softplus(2.0 - 0.5, -0.5 + 3.0),
        ),
        "relativistic_average": (  # the means are 0.75 and -1.25
            softplus(-1.25 - 2.0, -1.25 + 0.5) + softplus(0.5 - 0.75, -3.0 - 0.75),
            softplus(0.75 - 0.5, 0.75 + 3.0) + softplus(2.0 + 1.25, -0.5 + 1.25),
        ),
    }
    for name, (d, g) in by_hand.items():
        assert OBJECTIVES[name].d(real, fake).item() == pytest.approx(d), name
        assert OBJECTIVES[name].g(fake, real).item() == pytest.approx(g), name


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients(name):
    game = OBJECTIVES[name]
    real, fake = logits(0).requires_grad_(), logits(1).requires_grad_()
    assert torch.autograd.gradcheck(game.d, (real, fake))
    assert torch.autograd.gradcheck(game.g, (fake, real))
    assert torch.autograd.gradgradcheck(game.g, (fake, real))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_d_separates_reals_from_fakes_and_g_raises_the_fakes(name):
    game = OBJECTIVES[name]
    real, fake = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    real.requires_grad_(), fake.requires_grad_()
    up, down = torch.autograd.grad(game.d(real, fake), (real, fake))
    (lift,) = torch.autograd.grad(game.g(fake, real), fake)
    assert (up < 0).all()
    assert (down >= 0).all()
    assert (down > 0).all() or name == "lsgan"  # its fakes are already where it wants them
    assert (lift < 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_d_loss_at_equilibrium_is_the_documented_minimum(name):
    d = OBJECTIVES[name].d
    flat = torch.full((6,), 0.5 if name == "lsgan" else 0.0, dtype=torch.float64)
    least = d(flat, flat).item()
    assert least == pytest.approx(AT_EQUILIBRIUM[name])
    p = torch.full((9,), 1 / 9).double()
    for seed in range(5):
        table = logits(seed)
        assert mixture(d, table, p, p) >= least - 1e-12


@pytest.mark.parametrize("name", ["relativistic", "relativistic_average", "wasserstein"])
def test_these_objectives_ignore_a_constant_added_to_d(name):
    game, real, fake = OBJECTIVES[name], logits(0), logits(1)
    assert torch.allclose(game.d(real + 7, fake + 7), game.d(real, fake))
    if game.relativistic:
        assert torch.allclose(game.g(fake + 7, real + 7), game.g(fake, real))


def test_exactly_the_relativistic_objectives_use_the_reals():
    for name, game in OBJECTIVES.items():
        differs = not torch.equal(game.g(logits(1), logits(0)), game.g(logits(1), logits(3)))
        assert game.relativistic == differs, name
        if game.relativistic:
            with pytest.raises(ValueError, match="real"):
                game.g(logits(1), None)


def test_the_saturating_gradient_vanishes_when_d_rejects_everything():
    slope = {}
    for name, game in OBJECTIVES.items():
        rejected = torch.full((4,), -30.0, dtype=torch.float64, requires_grad=True)
        slope[name] = torch.autograd.grad(game.g(rejected, -rejected.detach()), rejected)[0].abs().sum().item()
    assert slope["nonsaturating"] == pytest.approx(1.0)
    assert slope["wasserstein"] == pytest.approx(1.0)
    assert 0 < slope["saturating"] < 1e-12
    assert min(v for k, v in slope.items() if k != "saturating") >= 1.0 - 1e-9


def test_nothing_overflows():
    far = torch.tensor([-1e4, 1e4])
    for objective in OBJECTIVES.values():
        assert objective.d(far, far.flip(0)).isfinite()
        assert objective.g(far, far.flip(0)).isfinite()


def test_d_loss_at_the_best_d_is_log_4_less_twice_the_js():
    p, q = logits(3).softmax(0), logits(4).softmax(0)
    best, m = p.log() - q.log(), (p + q) / 2  # the logit of p / (p + q)

    def kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * (a / b).log()).sum()

    assert torch.allclose(mixture(nonsaturating.d, best, p, q), math.log(4) - (kl(p, m) + kl(q, m)))


def test_the_best_least_squares_d_is_p_over_p_plus_q():
    p, q = logits(3).softmax(0), logits(4).softmax(0)
    best = (p / (p + q)).requires_grad_()
    (slope,) = torch.autograd.grad(mixture(OBJECTIVES["lsgan"].d, best, p, q), best)
    assert slope.abs().max() < 1e-12


def test_hard_labels_are_the_plain_loss_and_soft_ones_bound_the_best_d():
    real, fake = logits(0), logits(1)
    assert torch.allclose(labelled(real, 1.0) + labelled(fake, 0.0), nonsaturating.d(real, fake))
    t, p, q = 0.9, 0.3, 0.2
    f = torch.tensor([math.log(t * p / (p + q - t * p))], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(p * labelled(f, t) + q * labelled(f, 0.0), f)
    assert abs(slope.item()) < 1e-12  # sigmoid(f) = t p / (p + q): one-sided smoothing


def test_one_label_for_each_image():
    f, t = logits(5), torch.rand(9, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    assert torch.allclose(labelled(f, t), F.binary_cross_entropy_with_logits(f, t))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_sample_gradient_is_by_the_chain_rule(name):
    game, w = OBJECTIVES[name], torch.tensor([[2.0], [-1.0]], dtype=torch.float64)

    def critic(x):
        return (x @ w).squeeze(1)

    fake, real = logits(1, 8).view(4, 2), logits(2, 8).view(4, 2)
    result = sample_gradient(game, critic, fake, real)
    f = critic(fake).requires_grad_()
    (care,) = torch.autograd.grad(game.g(f, critic(real)) * 4, f)
    assert torch.allclose(result, -care[:, None] * w.T)
    step = fake + 1e-3 * result
    assert critic(step).sum() > critic(fake).sum() or name == "lsgan"
