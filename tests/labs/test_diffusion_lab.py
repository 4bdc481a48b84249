"""The lab of diffusion: its formulas are those of autograd and of brute force, and its page comes about."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from limner import labs
from limner.labs import _noise, diffusion
from limner.labs._mixture import UDL, Mixture, denoise_images
from limner.samplers import steps

X = torch.linspace(-3, 3, 25, dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 4.0])
def test_the_density_is_the_slope_of_the_distribution_function(sigma: float) -> None:
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(UDL.cdf(x, sigma).sum(), x)
    torch.testing.assert_close(slope, UDL.density(X, sigma), rtol=1e-9, atol=1e-12)
    u = UDL.cdf(X, sigma)
    torch.testing.assert_close(UDL.cdf(UDL.quantile(u, sigma), sigma), u, rtol=0, atol=1e-12)


def test_the_best_denoiser_is_tweedies_formula() -> None:
    """D = x + σ² ∇ log p(x): Efron 2011, eq. 1.3."""
    for sigma in (0.05, 0.5, 5.0):
        x = X.clone().requires_grad_()
        (score,) = torch.autograd.grad(UDL.density(x, sigma).log().sum(), x)
        torch.testing.assert_close(UDL.denoise(X, sigma), X + sigma**2 * score, rtol=1e-7, atol=1e-9)


def test_the_best_denoiser_of_a_set_is_a_weighted_mean() -> None:
    g = torch.Generator().manual_seed(0)
    data, x = torch.randn(7, 1, 2, 3, generator=g, dtype=torch.float64), torch.randn(2, 1, 2, 3, dtype=torch.float64)
    for sigma in (0.4, 3.0):
        for noisy, found in zip(x, denoise_images(data, x, sigma), strict=True):
            weights = [math.exp(-float((noisy - one).square().sum()) / (2 * sigma**2)) for one in data]
            expected = sum(w * one for w, one in zip(weights, data, strict=True)) / sum(weights)
            torch.testing.assert_close(found, torch.as_tensor(expected))


def test_a_normal_distribution_is_shrunk_along_straight_lines() -> None:
    """N(0, 1): D = x/(1 + σ²), and the flow from σ to 0 divides by √(1 + σ²)."""
    normal = Mixture((1.0,), (0.0,), (1.0,))
    torch.testing.assert_close(normal.denoise(X, 2.0), X / 5)
    torch.testing.assert_close(_noise.exact(normal, X, 2.0), X / math.sqrt(5), atol=1e-9, rtol=0)


def test_ddim_is_eulers_method_and_heun_is_of_second_order() -> None:
    alphas = [*_noise.products(_noise.linear_betas())[::-50], 1.0]
    sigmas = [math.sqrt((1 - a) / a) for a in alphas]
    by_euler = steps.euler(UDL.denoise, X / math.sqrt(alphas[0]), sigmas)
    torch.testing.assert_close(_noise.ddim(UDL, X, alphas), by_euler, atol=1e-11, rtol=0)


def test_schedules_have_the_numbers_of_their_papers() -> None:
    linear, cosine = _noise.products(_noise.linear_betas()), _noise.cosine_alphas()
    assert math.sqrt(linear[-1]) == pytest.approx(0.00635, abs=1e-5)
    assert linear == sorted(linear, reverse=True)
    assert cosine[499] == pytest.approx(
        math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    )
    scaled = _noise.products(_noise.linear_betas(250))
    assert math.sqrt(scaled[-1]) < 0.02 < math.sqrt(_noise.products(_noise.linear_betas(250, scaled=False))[-1])


def test_indices_of_the_notebooks_blur_the_samples() -> None:
    found = [
        _noise.distance(UDL, _noise.book_samples(20_000, 0, shift=shift, noisy_end=noisy))
        for shift, noisy in ((0, False), (1, False), (1, True))
    ]
    assert found[0] + 0.005 < found[1]
    assert found[1] + 0.005 < found[2]


def test_the_distance_of_moved_samples_is_how_far_they_were_moved() -> None:
    x = UDL.quantile((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)
    assert _noise.distance(UDL, x) < 0.002
    assert _noise.distance(UDL, x + 0.3) == pytest.approx(0.3, abs=0.002)


def test_errors_by_level_are_of_the_noise_that_is_left() -> None:
    class Same:
        """A denoiser that gives back what it gets."""

        shape, sigma_data, sigma_min, sigma_max = (1, 4, 4), 1.0, 0.0, 80.0

        def denoise(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
            return x

    x = torch.randn(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(60, dtype=torch.int64)
    for found in diffusion.level_errors(Same(), x, x[:50], (y, y[:50]), 0):
        assert found.heldout == pytest.approx(found.sigma**2, rel=0.2)
    assert found.memory == pytest.approx(float((x[:50] - x.mean(0)).square().mean()), rel=0.05)


def test_variety_is_the_mean_distance_within_classes() -> None:
    x = torch.tensor([[0.0], [2.0], [5.0], [9.0], [1.0]]).view(-1, 1, 1, 1)
    assert diffusion.variety(x, torch.tensor([0, 0, 1, 1, 2])) == pytest.approx((2 + 4) / 2)


def test_the_lab_leaves_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = {"model.F.width": 8, "model.F.mults": [1, 1], "model.F.attention": 1, "model.F.conditional": True}
    monkeypatch.setattr(diffusion, "NET", net | {"model.sampling": {"steps": 2}})
    monkeypatch.setattr(diffusion, "EVALUATIONS", (1, 3, 5, 7))
    monkeypatch.setattr(diffusion, "_FINE", 5)
    monkeypatch.setattr(diffusion, "_GUIDED", 1)
    monkeypatch.setattr(_noise, "_POINTS", 4000)
    monkeypatch.setattr(diffusion, "LEVELS", (0.2, 1.0, 40.0))
    monkeypatch.setattr(_noise, "ORDER_STEPS", (16, 32, 64, 128))
    data = {"name": "digits", "size": 28, "limit": 400}
    result = labs.run("diffusion", out=tmp_path / "lab", images=64, data=data, seed=1)
    assert [c["name"] for c in result["checks"] if not c["ok"]] == []
    assert len(result["checks"]) == 17
    page = Path(result["page"]).read_text(encoding="utf-8")
    assert page.count("data:image/png") == len(result["figures"]) == 11
    assert str(tmp_path) not in page
    written = json.loads((tmp_path / "lab" / "results.json").read_text(encoding="utf-8"))["results"]
    assert len(written["steps"]) == 16
    assert [g["scale"] for g in written["guidance"]] == list(diffusion.SCALES)
