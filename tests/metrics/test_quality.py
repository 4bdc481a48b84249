"""Sharpness: as scipy's Laplacian, lowered by blur and raised by noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, laplace

from limner import data
from limner.core.batch import to_float
from limner.core.errors import LimnerError
from limner.metrics.quality import checkerboard, grain, pattern, sharpness


@pytest.fixture(scope="module")
def digits() -> data.Pixels:
    return data.load("mnist-5k", split="all", limit=3000)


def test_sharpness_as_scipys_laplacian(digits):
    x = to_float(digits.pixels[:20])
    expected = [laplace(image[0].double().numpy())[1:-1, 1:-1].var() for image in x]
    assert sharpness(x) == pytest.approx(np.mean(expected), rel=1e-5)
    assert sharpness(digits.pixels[:20]) == sharpness(x)
    assert sharpness(x.repeat(1, 3, 1, 1)) == pytest.approx(sharpness(x), rel=1e-6)


def test_sharpness_of_a_checkerboard():
    """The Laplacian of ±a is ∓8a everywhere."""
    board = 0.25 * (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8))
    assert sharpness(board.expand(2, 3, 8, 8)) == pytest.approx(4.0, rel=1e-6)


def test_blur_lowers_sharpness_and_noise_raises_it(digits):
    real = to_float(digits.pixels[:500])

    def ratio(x: torch.Tensor) -> float:
        return sharpness(x) / sharpness(real)

    blurred = torch.from_numpy(gaussian_filter(real.numpy(), (0, 0, 1, 1)))
    noisy = (real + 0.2 * torch.randn(real.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    assert ratio(real.flip(3)) == pytest.approx(1, rel=1e-6)
    assert ratio(blurred) < 0.3
    assert ratio(noisy) > 1.2
    assert ratio(real / 2) == pytest.approx(0.25, rel=1e-5)


def test_what_is_refused(digits):
    x = digits.pixels[:8]
    with pytest.raises(LimnerError, match=r"must lie in \[-1,1\], these reach from 0 to 255"):
        sharpness(x.float())
    with pytest.raises(LimnerError, match="reach from nan"):
        sharpness(torch.full((1, 1, 4, 4), math.nan))
    with pytest.raises(LimnerError, match=r"images are \(B,C,H,W\)"):
        sharpness(x[0])


def test_grain_is_one_minus_the_correlation_of_neighbours() -> None:
    noise = torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert grain(noise) == pytest.approx(1, abs=0.03)
    ramp = torch.linspace(-1, 1, 32).expand(4, 3, 32, 32)
    assert grain(ramp) == pytest.approx(0, abs=0.05)
    z = noise[0, 0] - noise[0, 0].mean()
    pairs = [(z[:, 1:], z[:, :-1]), (z[1:], z[:-1])]
    across, own = sum(float((a * b).sum()) for a, b in pairs), sum(float(a.norm() * b.norm()) for a, b in pairs)
    assert grain(noise[:1]) == pytest.approx(1 - across / own, abs=1e-5)
    assert grain(noise[:1].repeat(5, 1, 1, 1)) == pytest.approx(grain(noise[:1]), abs=1e-6)
    with pytest.raises(LimnerError, match="2×2"):
        grain(torch.zeros(1, 1, 1, 8))


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (33, 64)])
def test_a_pattern_of_two_pixels_is_a_peak_and_noise_is_none(size: tuple[int, int]) -> None:
    noise = torch.rand(64, 3, *size, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2
    assert checkerboard(noise) == pytest.approx(1, abs=0.15)
    rows, columns = (torch.arange(n) % 2 * 0.2 - 0.1 for n in size)
    for wave in (rows[:, None] + 0 * columns, 0 * rows[:, None] + columns, 10 * rows[:, None] * columns):
        assert checkerboard(noise + wave) > 2
    flat = pattern(torch.zeros(2, 3, *size) + 0.001 * rows[:, None])
    assert flat.beside(0.0) > 100  # whatever is there makes a peak
    assert flat.beside(pattern(noise).usual) < 0.1
    wave = 0.4 * torch.sin(torch.arange(size[1]) * 3.14159 / 4).expand(64, 3, *size)
    assert checkerboard(noise + wave) < 1.5
    with pytest.raises(LimnerError, match="8×8"):
        checkerboard(noise[..., :7])
