"""Sharpness, pairs of images, and accuracies of conditional samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, laplace

from limner import data
from limner.core.batch import to_float
from limner.core.errors import LimnerError
from limner.metrics.extractors.features import lenet64
from limner.metrics.quality import gan_test, sharpness, synthetic_training


@pytest.fixture(scope="module")
def digits() -> data.Pixels:
    return data.load("mnist-5k", split="all", limit=3000)


# ---- sharpness -----------------------------------------------------------------------------------------------------


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


# ---- classes -------------------------------------------------------------------------------------------------------


def test_accuracy_on_what_was_asked_for(digits):
    logits = lenet64().classify(digits.pixels[:1000])
    labels = digits.labels[:1000].clone()
    assert gan_test(logits, labels).value >= 0.995
    wrong = torch.arange(1000) % 4 == 0
    labels[wrong] = (labels[wrong] + 1) % 10
    result = gan_test(logits, labels)
    assert result.value == pytest.approx(0.75, abs=0.005)
    assert result.low < 0.75 < result.high
    assert result.high - result.low == pytest.approx(2 * 1.96 * math.sqrt(0.75 * 0.25 / 1000), rel=0.02)
    assert result.n == 1000
    right = logits.argmax(1) == labels
    assert result.per_class[3] == pytest.approx(float(right[labels == 3].float().mean()))


def test_training_on_real_images_is_the_ceiling(digits):
    x, y = digits.pixels, digits.labels
    train, test = torch.arange(3000) % 3 != 0, torch.arange(3000) % 3 == 0
    result = synthetic_training(fake=x[train], fake_labels=y[train], real=x[test], real_labels=y[test])
    assert result.value > 0.9
    assert min(result.per_class) > 0.8
    state = torch.random.get_rng_state()
    again = synthetic_training(fake=x[train], fake_labels=y[train], real=x[test], real_labels=y[test])
    assert again == result
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_dropped_class_and_wrong_labels_lower_it(digits):
    x, y = digits.pixels, digits.labels
    train, test = torch.arange(3000) % 3 != 0, torch.arange(3000) % 3 == 0
    kept = train & (y != 7)
    result = synthetic_training(fake=x[kept], fake_labels=y[kept], real=x[test], real_labels=y[test])
    assert result.per_class[7] == 0
    assert result.per_class[0] > 0.8
    shuffled = y[train][torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    chance = synthetic_training(fake=x[train], fake_labels=shuffled, real=x[test], real_labels=y[test], epochs=1)
    assert chance.value < 0.25


def test_colour_images_of_another_size():
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    x = (torch.rand(200, 3, 16, 20, generator=rng) - 0.5) * 0.2
    x[:, 0] += (y * 0.8 - 0.4).view(-1, 1, 1)
    assert synthetic_training(fake=x[:100], fake_labels=y[:100], real=x[100:], real_labels=y[100:]).value == 1


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_what_is_refused(digits):
    x, y = digits.pixels[:8], digits.labels[:8]
    with pytest.raises(LimnerError, match=r"must lie in \[-1,1\], these reach from 0 to 255"):
        sharpness(x.float())
    with pytest.raises(LimnerError, match="reach from nan"):
        sharpness(torch.full((1, 1, 4, 4), math.nan))
    with pytest.raises(LimnerError, match=r"images are \(B,C,H,W\)"):
        sharpness(x[0])
    with pytest.raises(LimnerError, match="knows classes 0 to 1"):
        gan_test(torch.zeros(2, 2), torch.tensor([0, 2]))
    with pytest.raises(LimnerError, match="whole numbers"):
        gan_test(torch.zeros(2, 2), torch.tensor([0.0, 1.0]))
    with pytest.raises(LimnerError, match="not finite"):
        gan_test(torch.full((1, 2), math.nan), torch.tensor([0]))
    with pytest.raises(LimnerError, match="8 generated images and labels"):
        synthetic_training(fake=x, fake_labels=y[:4], real=x, real_labels=y)
    with pytest.raises(LimnerError, match="1 channels and real ones 3"):
        synthetic_training(fake=x, fake_labels=y, real=x.repeat(1, 3, 1, 1), real_labels=y)
