"""The learnt noise of dequantisation."""

from __future__ import annotations

from math import log, pi

import pytest
import torch

from limner.nets.dequantiser import Coupling


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_an_untrained_one_spreads_the_noise_evenly() -> None:
    x, eps = draws(200, 1, 8, 8).clamp(-1, 1), draws(200, 1, 8, 8, seed=1)
    u, log_q = Coupling(shape=(1, 8, 8))(eps, x)
    assert torch.equal(log_q, torch.zeros(200)), "a density of 1 everywhere"
    sorted_u = u.flatten().sort().values
    distance = (sorted_u - torch.linspace(0, 1, len(sorted_u))).abs().max()
    assert distance < 1.63 / len(sorted_u) ** 0.5, "Kolmogorov and Smirnov at 1 %"


@pytest.mark.parametrize("couplings", [0, 1, 4])
def test_log_q_is_the_change_of_density_by_autograds_jacobian(couplings: int) -> None:
    net = Coupling(couplings, width=4, shape=(2, 2, 3)).double()
    g = torch.Generator().manual_seed(2)
    for p in net.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=g, dtype=p.dtype)
    x, eps = draws(3, 2, 2, 3).double(), draws(3, 2, 2, 3, seed=1).double()
    _, log_q = net(eps, x)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda e, i=i: net(e, x[i : i + 1])[0].flatten(), eps[i : i + 1])
        change = torch.linalg.slogdet(jacobian.flatten(1)).logabsdet
        log_n = -0.5 * (eps[i].square() + log(2 * pi)).sum()
        assert abs(float(log_n - change - log_q[i])) < 1e-9


def test_noise_stays_within_the_level_for_any_draw() -> None:
    net = Coupling(shape=(1, 4, 4))
    for p in net.parameters():
        p.data += 0.5 * draws(*p.shape)
    u, log_q = net(10 * draws(50, 1, 4, 4), draws(50, 1, 4, 4, seed=1))
    assert u.min() >= 0
    assert u.max() < 1
    assert log_q.isfinite().all()


def test_points_and_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="points have no grey levels"):
        Coupling(shape=(2, 1, 1))
    with pytest.raises(ValueError, match="couplings must be"):
        Coupling(-1, shape=(1, 4, 4))
