"""Dequantisation fills the width of each level, and bits count levels."""

from __future__ import annotations

import math

import torch

from limner.evaluation.draws import dequantised
from limner.evaluation.likelihood import bits
from limner.losses import dequantise


def test_each_level_is_filled_and_touches_the_next() -> None:
    x = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    low, high = (dequantise.uniform(x, torch.full_like(x, u)) for u in (0.0, 1.0))
    torch.testing.assert_close(low[1:], high[:-1])
    torch.testing.assert_close(high - low, torch.full_like(x, 2 / 255))
    assert float(low[0]) == -1 - 1 / 255
    back = (127.5 * (dequantise.uniform(x, torch.rand(256, dtype=torch.float64)) + 1)).round()
    assert torch.equal(back, torch.arange(256, dtype=torch.float64))


def test_it_is_the_noise_that_likelihoods_are_measured_with() -> None:
    x = torch.tensor([-1.0, 0.2, 1.0]).view(1, 1, 1, 3)
    u = torch.rand(x.shape, generator=torch.Generator().manual_seed(5))
    assert torch.equal(dequantise.uniform(x, u), dequantised(x, "density", 5))


def test_bits_are_those_of_the_scorecard() -> None:
    nats = torch.tensor([123.0, -456.0], dtype=torch.float64)
    expected = [bits(float(v), 784, "density") for v in nats]
    torch.testing.assert_close(dequantise.bits_per_dim(nats, 784), torch.tensor(expected, dtype=torch.float64))
    assert float(dequantise.bits_per_dim(torch.tensor([-math.log(2 + 2 / 255)]), 1)) == 8


def test_low_precision_is_cast_before_the_noise_is_added() -> None:
    x = torch.full((1, 1, 2, 2), 255 / 127.5 - 1, dtype=torch.bfloat16)
    assert dequantise.uniform(x, torch.tensor([0.25])).dtype == torch.float32
