"""Facts of the mode counts: exact cases, the floor of a perfect sampler, the ceiling of high quality."""

from __future__ import annotations

import math

import pytest
import torch

from limner import data
from limner.core.batch import to_float
from limner.metrics.modes import class_modes, point_modes, stacked_modes


def test_a_collapsed_and_an_even_set_of_classes() -> None:
    one = class_modes(torch.full((50,), 3), 8)
    assert (one.found, one.kl) == (1, pytest.approx(math.log(8)))
    even = class_modes(torch.arange(80) % 8, 8)
    assert (even.found, even.kl) == (8, pytest.approx(0.0, abs=1e-12))
    skew = class_modes(torch.tensor([0, 0, 0, 1]), 2, weights=torch.tensor([3.0, 1.0]))
    assert skew.kl == pytest.approx(0.0, abs=1e-7)
    assert class_modes(torch.empty(0, dtype=torch.int64), 4).kl is None
    with pytest.raises(ValueError, match="0 to 3"):
        class_modes(torch.tensor([4]), 4)


def test_the_floor_is_what_a_perfect_sampler_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    for known, n in ((8, 2500), (1000, 26_000)):
        result = [class_modes(torch.randint(known, (n,), generator=generator), known) for _ in range(20)]
        assert sum(m.kl for m in result if m.kl) / 20 == pytest.approx(
            result[0].floor, rel=0.25 if known == 8 else 0.05
        )


def test_perfect_points_reach_the_ceiling_and_no_more() -> None:
    ring = data.load("ring", n=40_000)
    counted = point_modes(ring.pixels, ring.centres, ring.sigma)
    assert counted.found == counted.known == 8
    assert counted.high_quality == pytest.approx(1 - math.exp(-4.5), abs=0.002)
    assert counted.kl == pytest.approx(0, abs=1e-3)
    assert counted.ceiling == pytest.approx(1 - math.exp(-4.5))
    line = data.load("line", n=40_000)
    counted = point_modes(line.pixels, line.centres, line.sigma)
    assert counted.ceiling == pytest.approx(math.erf(3 / math.sqrt(2)))
    assert counted.high_quality == pytest.approx(counted.ceiling, abs=0.002)


def test_a_mode_counts_once_a_good_sample_lies_at_it() -> None:
    centres = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    points = torch.tensor([[0.0, 0.0], [0.029, 0.0], [0.96, 0.0], [1.0, 0.05]])[:, :, None, None]
    counted = point_modes(points, centres, 0.01)
    assert counted.found == 1
    assert counted.high_quality == 0.5
    assert counted.kl == pytest.approx(math.log(2))
    assert point_modes(points, centres, 0.02).found == 2
    nothing = point_modes(torch.full((5, 2, 1, 1), 9.0), centres, 0.01)
    assert (nothing.found, nothing.high_quality, nothing.kl) == (0, 0.0, None)


def test_the_classifier_reads_stacked_digits() -> None:
    test = data.load("stacked-mnist", n=10_000, split="test")
    x = to_float(test.fetch(range(len(test))))
    from limner.metrics.modes import stacked_labels

    assert float((stacked_labels(x) == test.labels).double().mean()) > 0.97  # 0.99^3 of three digits
    assert stacked_modes(x[:1].expand(20, -1, -1, -1)).found == 1
    with pytest.raises(ValueError, match="3 channels"):
        stacked_modes(x[:, :1])
