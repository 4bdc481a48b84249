"""Stacked MNIST: classes, splits, seed and options."""

from __future__ import annotations

import pytest
import torch

from limner import data
from limner.core.errors import LimnerError


def test_each_channel_is_a_digit_of_the_class() -> None:
    stacked, digits = data.load("stacked-mnist", n=300), data.load("mnist-5k")
    assert stacked.shape == (3, 28, 28)
    assert len(stacked) == 300
    assert stacked.classes is not None
    assert len(stacked.classes) == 1000
    known = {d.numpy().tobytes(): int(y) for d, y in zip(digits.pixels[:, 0], digits.labels, strict=True)}
    for x, y in zip(stacked.pixels[:40], stacked.labels[:40], strict=True):
        a, b, c = (known[channel.contiguous().numpy().tobytes()] for channel in x)
        assert int(y) == 100 * a + 10 * b + c
        assert stacked.classes[int(y)] == f"{a}{b}{c}"


def test_held_out_images_are_made_of_held_out_digits() -> None:
    test, held_out = data.load("stacked-mnist", n=300, split="test"), data.load("mnist-5k", split="test")
    assert len(test) == 30
    known = {d.numpy().tobytes() for d in held_out.pixels[:, 0]}
    assert all(channel.contiguous().numpy().tobytes() in known for x in test.pixels for channel in x)


def test_the_thousand_modes_are_equally_likely() -> None:
    counts = torch.bincount(data.load("stacked-mnist", n=20_000).labels, minlength=1000).float()
    assert int((counts > 0).sum()) == 1000
    assert float((counts - 20).square().mean() / 20) == pytest.approx(1.0, abs=0.2)  # as a multinomial varies


def test_it_is_a_function_of_its_seed_and_takes_the_usual_options() -> None:
    a, b = data.load("stacked-mnist", n=50), data.load("stacked-mnist", n=50)
    assert a.fingerprint == b.fingerprint
    assert a.fingerprint != data.load("stacked-mnist", n=50, seed=1).fingerprint
    assert data.load("stacked-mnist", n=50, size=16).shape == (3, 16, 16)
    assert len(data.load("stacked-mnist", n=50, split="all")) == 55
    with pytest.raises(LimnerError, match="leaves no image"):
        data.load("stacked-mnist", n=0)
