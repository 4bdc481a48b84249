"""The ODE's likelihood of distributions whose density is known."""

from __future__ import annotations

from math import log, pi

import pytest
import torch
from torch import Tensor, nn

from limner.samplers import grids
from limner.samplers.guidance import guided
from limner.samplers.likelihood import log_prob

from .mixture import mixture, randn  # noqa: TID252 - tests are no package that could be imported by name

MIX = mixture()
SD = 0.81  # of all its coordinates


def gaussian(s: float):
    """The denoiser and the log-density of N(0, s²) at noise level σ."""

    def D(x: Tensor, sigma: float) -> Tensor:
        return s**2 / (s**2 + sigma**2) * x

    def log_density(x: Tensor, sigma: float) -> Tensor:
        x, v = x.flatten(1), s**2 + sigma**2
        return -(x.square().sum(1) / v + x.shape[1] * log(2 * pi * v)) / 2

    return D, log_density


@pytest.mark.parametrize("s", [0.5, 0.3, 1.2])
def test_a_gaussian(s: float) -> None:
    D, log_density = gaussian(s)
    x = s * randn(6, 1, 2, 3)
    z, nats = log_prob(D, x, grids.karras(100), None, 0.5)
    assert torch.allclose(nats, log_density(x, 0.002), atol=6 * 2e-3)
    assert torch.allclose(z, x / s, rtol=5e-3)


def test_a_gaussian_of_the_deviation_sigma_data_is_exact_in_one_step() -> None:
    D, log_density = gaussian(0.5)
    x = 0.5 * randn(6, 5)
    z, nats = log_prob(D, x, [80.0, 0.002, 0.0], None, 0.5)
    assert torch.allclose(nats, log_density(x, 0.002), rtol=1e-9)
    assert torch.allclose(z, x / (0.5**2 + 0.002**2) ** 0.5, rtol=1e-9)


def test_a_mixture_and_the_error_by_steps() -> None:
    x = MIX.sample(48)
    truth = MIX.log_prob(x, 0.002)
    error = {}
    for n in (20, 50, 100):
        z, nats = log_prob(MIX.denoise, x, grids.karras(n), None, SD)
        error[n] = (nats - truth).abs().mean().item() / 16  # nats per dimension
    assert error[20] < 0.03
    assert error[50] < 0.003
    assert error[100] < 0.0012
    assert z.std().item() == pytest.approx(1, abs=0.05)


def test_few_steps_give_a_wrong_number_so_steps_are_named() -> None:
    x = MIX.sample(16)
    wrong = log_prob(MIX.denoise, x, grids.karras(4), None, SD)[1] - MIX.log_prob(x)
    assert wrong.abs().mean().item() / 16 > 0.1


@pytest.mark.parametrize("kind", ["signs", "normal"])
def test_probes_estimate_the_trace_without_bias(kind: str) -> None:
    x = MIX.sample(2)
    exact = log_prob(MIX.denoise, x, grids.karras(6), None, SD)[1]
    probes = randn(200, 2, 16, seed=5)
    estimate = log_prob(MIX.denoise, x, grids.karras(6), probes.sign() if kind == "signs" else probes, SD)[1]
    assert torch.allclose(estimate, exact, atol=1.5)
    few = log_prob(MIX.denoise, x, grids.karras(6), probes[:1], SD)[1]
    assert not torch.allclose(few, exact, atol=0.01)


class Net(nn.Module):
    """A conditional denoiser with everything that autograd keeps: weights, an embedding, a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.conv = nn.Embedding(3, 2), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        y = torch.full((len(x),), 2) if y is None else y
        h = x / (1 + sigma.view(-1, 1, 1, 1)) + self.embed(y)[:, :, None, None]
        return torch.tanh(self.conv(h) * h)


def test_it_works_under_inference_mode_and_no_grad() -> None:
    torch.manual_seed(0)
    net, levels = Net(), grids.karras(5)
    values = []
    for mode in (torch.enable_grad(), torch.no_grad(), torch.inference_mode()):
        with mode:
            x, y, v = randn(3, 2, 4, 4).float(), torch.tensor([0, 1, 1]), randn(2, 3, 2, 4, 4, seed=1).float()
            z, nats = log_prob(guided(net, y), x, levels, v, 0.5)
            assert not nats.requires_grad
            assert torch.is_grad_enabled() == isinstance(mode, torch.enable_grad)
            values.append((z.tolist(), nats.tolist()))
    assert values[0] == values[1] == values[2]
    assert all(p.grad is None for p in net.parameters())


def test_many_dimensions_need_probes() -> None:
    with pytest.raises(ValueError, match="give probes"):
        log_prob(MIX.denoise, randn(2, 17), grids.karras(3), None, 0.5)


def test_nothing_waits_for_the_device() -> None:
    x = torch.empty(2, 1, 4, 4, device="meta")
    z, nats = log_prob(
        lambda x, sigma: x / (1 + sigma), x, grids.karras(3), torch.empty(1, *x.shape, device="meta"), 0.5
    )
    assert z.shape == x.shape
    assert nats.shape == (2,)
