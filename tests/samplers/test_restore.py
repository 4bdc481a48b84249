"""Tasks without training, on distributions whose posterior is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from limner.core.errors import LimnerError
from limner.samplers import grids, steps
from limner.samplers.restore import colourising, denoise, edit, informed, inpaint, inpainting, restore, upscaling

from .mixture import mixture, randn  # noqa: TID252 - tests are no package that could be imported by name

MIX = mixture(d=48, s=0.1)  # images of 3×4×4
IMAGES = MIX.sample(6).view(6, 3, 4, 4)
MASK = torch.zeros(1, 1, 4, 4)
MASK[..., 1:3, 2:] = 1
LEVELS = grids.karras(30, 0.01, 20.0)


def noises(shape: tuple[int, ...], seed: int = 0) -> Callable[[int], Tensor]:
    return lambda k: randn(*shape, seed=1000 * seed + k)


NOISE = noises(IMAGES.shape)


def nearest(x: Tensor) -> Tensor:
    """The component (B,) that images belong to."""
    return MIX.log_terms(x, 0.0).argmax(1)


@pytest.mark.parametrize("resample", [1, 3])
def test_inpaint_keeps_what_is_known_and_fills_holes_with_what_belongs_there(resample: int) -> None:
    broken = torch.where(MASK > 0, torch.nan, IMAGES)  # holes are never looked at
    out = inpaint(MIX.denoise, broken, MASK, LEVELS, NOISE, resample)
    assert torch.equal(torch.where(MASK > 0, 0.0, out), torch.where(MASK > 0, 0.0, IMAGES))
    assert torch.equal(nearest(out), nearest(IMAGES))
    assert ((out - IMAGES) * MASK).abs().max() < 6 * 0.1 * 2**0.5


def test_inpaint_asks_for_each_number_once_and_for_none_at_the_end() -> None:
    asked: list[int] = []

    def noise(k: int) -> Tensor:
        asked.append(k)
        return NOISE(k)

    calls = 0

    def D(x: Tensor, sigma: float) -> Tensor:
        nonlocal calls
        calls += 1
        return MIX.denoise(x, sigma)

    inpaint(D, IMAGES, MASK, [4.0, 2.0, 1.0, 0.0], noise, resample=2)
    assert calls == 5
    assert asked == list(range(1 + 2 * (2 + 1 + 2)))  # the start; in two steps: drawn and known, back, drawn and known


def test_resampling_makes_a_hole_fit_its_surroundings() -> None:
    """One of three pixels is known, and its neighbours have its sign; with one pass they often have not."""
    means = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    pair = type(MIX)(means, 0.3)
    x = means[torch.arange(400) % 2].double().view(400, 1, 1, 3)
    mask = torch.tensor([0.0, 1.0, 1.0]).view(1, 1, 1, 3)
    wrong = [
        (inpaint(pair.denoise, x, mask, grids.flow(10), noises(x.shape), u) - x).abs().gt(1).double().mean()
        for u in (1, 10)
    ]
    assert wrong[1] < wrong[0] / 2


@pytest.mark.parametrize("task", ["inpainting", "upscaling", "colourising"])
def test_restore_agrees_with_what_is_known(task: str) -> None:
    A, A_plus = {"inpainting": inpainting(MASK), "upscaling": upscaling(2), "colourising": colourising(3)}[task]
    y = A(IMAGES)
    assert torch.allclose(A(A_plus(y)), y, rtol=1e-12)  # A A⁺ A = A
    for sigma_data in (None, 0.7):
        x = restore(MIX.denoise, y, A, A_plus, LEVELS, NOISE, sigma_data=sigma_data)
        assert torch.allclose(A(x), y, atol=1e-12)
    assert torch.equal(nearest(x), nearest(IMAGES))


def test_the_gradient_finds_the_component_that_a_projection_misses() -> None:
    """Of 16 pixels 4 are known, which is enough to tell the 6 components apart; 20 steps."""
    images = MIX.sample(60, seed=3).view(60, 3, 4, 4)
    mask = torch.ones(1, 1, 4, 4)
    mask[..., 3:] = 0
    A, A_plus = inpainting(mask)
    noise, levels = noises(images.shape), grids.flow(20, 20.0)
    right = [
        (nearest(restore(MIX.denoise, A(images), A, A_plus, levels, noise, sigma_data=sd)) == nearest(images))
        for sd in (None, 0.7)
    ]
    assert right[0].double().mean() < 0.6
    assert right[1].double().mean() > 0.9


def test_an_informed_denoiser_is_exact_for_a_gaussian() -> None:
    """x0 ~ N(0, σ_d²): E[x0 | x, y] is y where it is known, and the denoiser elsewhere."""
    s, x = 0.5, 3 * randn(4, 3, 2, 2)
    y = randn(4, 1, 2, 2, seed=1)
    A, A_plus = colourising(3)

    def D(x: Tensor, sigma: float) -> Tensor:
        return s**2 / (s**2 + sigma**2) * x

    x0 = informed(D, y, A, A_plus, s)(x, 2.0)
    assert torch.allclose(A(x0), y, rtol=1e-12)
    assert torch.allclose(x0 - A_plus(A(x0)), D(x, 2.0) - A_plus(A(D(x, 2.0))), rtol=1e-12)


def test_an_informed_denoiser_works_under_inference_mode() -> None:
    A, A_plus = upscaling(2)
    with torch.inference_mode():
        x0 = informed(MIX.denoise, A(IMAGES.clone()), A, A_plus, 0.7)(IMAGES + NOISE(0), 1.0)
    assert torch.equal(x0, informed(MIX.denoise, A(IMAGES), A, A_plus, 0.7)(IMAGES + NOISE(0), 1.0))


def test_a_restored_gaussian_is_drawn_from_the_posterior() -> None:
    """Two correlated numbers, their mean known: what is left has the deviation of their difference."""
    L = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64) * 0.5
    C = L @ L.T

    def D(x: Tensor, sigma: float) -> Tensor:
        return (x.flatten(1) @ torch.linalg.inv(C + sigma**2 * torch.eye(2)).T @ C.T).view_as(x)

    x = (randn(4000, 2) @ L.T).view(-1, 2, 1, 1)
    A, A_plus = colourising(2)
    out = restore(D, A(x), A, A_plus, grids.karras(200, 0.005, 20.0), noises(x.shape), eta=1.0)
    half = ((out[:, 0] - out[:, 1]) / 2).flatten()
    truth = ((C[0, 0] + C[1, 1] - 2 * C[0, 1]) / 4).sqrt().item()
    assert half.std().item() == pytest.approx(truth, rel=0.08)
    assert abs(torch.corrcoef(torch.stack([half, A(out).flatten()]))[0, 1]) < 0.05


def test_edit_with_strength_0_is_the_identity_and_with_1_a_sample() -> None:
    calls = 0

    def D(x: Tensor, sigma: float) -> Tensor:
        nonlocal calls
        calls += 1
        return MIX.denoise(x, sigma)

    assert torch.equal(edit(D, IMAGES, LEVELS, 0.0, NOISE), IMAGES)
    assert calls == 0
    full = edit(D, IMAGES, LEVELS, 1.0, NOISE)
    assert calls == len(LEVELS) - 1
    assert torch.equal(full, steps.dpm2m(MIX.denoise, IMAGES + LEVELS[0] * NOISE(0), LEVELS))
    calls = 0
    edit(D, IMAGES, LEVELS, 0.5, NOISE)
    assert calls == (len(LEVELS) - 1) // 2


def test_edit_keeps_less_as_the_strength_grows() -> None:
    kept = [
        (nearest(edit(MIX.denoise, IMAGES, LEVELS, strength, NOISE)) == nearest(IMAGES)).double().mean().item()
        for strength in (0.2, 1.0)
    ]
    assert kept[0] == 1
    assert kept[1] < 0.7


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_a_strength_outside_of_0_to_1_is_refused(strength: float) -> None:
    with pytest.raises(LimnerError, match="must be from 0"):
        edit(MIX.denoise, IMAGES, LEVELS, strength, NOISE)


def test_denoised_images_are_samples_of_the_posterior() -> None:
    """x ~ N(0, s²), y = x + σε: p(x|y) is N(yk, s²(1 − k)) with k = s²/(s² + σ²)."""
    s, sigma = 0.5, 0.4
    k = s**2 / (s**2 + sigma**2)

    def D(x: Tensor, level: float) -> Tensor:
        return s**2 / (s**2 + level**2) * x

    y = torch.full((20_000, 1, 1, 1), 0.7, dtype=torch.float64)
    out = denoise(D, y, sigma, grids.karras(400), noises(y.shape))
    assert out.mean().item() == pytest.approx(0.7 * k, abs=0.01)
    assert out.std().item() == pytest.approx(s * (1 - k) ** 0.5, rel=0.05)
    assert torch.equal(denoise(D, y, sigma, [0.0], noises(y.shape)), D(y, sigma))  # one step is the posterior's mean


def test_blocks_must_be_whole() -> None:
    with pytest.raises(ValueError, match="no whole blocks of 3x3"):
        upscaling(3)[0](IMAGES)


def test_nothing_waits_for_the_device() -> None:
    x, levels = torch.empty(2, 3, 4, 4, device="meta"), grids.karras(3)
    D = lambda x, sigma: x / (1 + sigma)  # noqa: E731
    noise = lambda k: torch.empty_like(x)  # noqa: E731
    for A, A_plus in (inpainting(MASK.to("meta")), upscaling(2), colourising(3)):
        assert restore(D, A(x), A, A_plus, levels, noise).shape == x.shape
    assert inpaint(D, x, MASK.to("meta"), levels, noise, 2).shape == x.shape
    assert edit(D, x, levels, 0.7, noise).shape == x.shape
    assert denoise(D, x, 0.3, levels, noise).shape == x.shape
