"""Planes tell what is linear in a space, and nothing of what is not in it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from limner.core.errors import LimnerError
from limner.metrics.separability import conditional_entropy, separability


def log_p(has: Tensor, sure: float = 4.0) -> Tensor:
    """Log probabilities (N,2) of a reader that is about as sure of all."""
    logit = torch.where(has, sure, -sure) * (1 + 0.1 * torch.rand(len(has), generator=torch.Generator().manual_seed(1)))
    return torch.stack([-logit, logit], 1).log_softmax(1)


def test_conditional_entropy_is_that_of_the_table_and_counts_weights():
    x, y = torch.arange(8) < 4, torch.tensor([1, 1, 1, 0, 0, 0, 0, 0], dtype=torch.bool)
    h = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / 2  # one side is known, the other is 3 to 1
    found = conditional_entropy(x, y, torch.stack([torch.ones(8), (x | ~x) & (torch.arange(8) != 3)]).double())
    assert found.tolist() == pytest.approx([h, 0.0], abs=1e-12)


def test_what_a_plane_separates_has_score_1_and_what_is_not_there_knows_nothing():
    points = torch.randn(800, 2, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(800, generator=torch.Generator().manual_seed(5)) > 0
    linear = separability(points, {"a": log_p(points[:, 0] + points[:, 1] > 0)})
    absent = separability(points, {"a": log_p(noise)}, resamples=20)
    bent = separability(points, {"a": log_p(points[:, 0] * points[:, 1] > 0)}, resamples=20)
    assert 1 <= linear.low <= linear.value <= linear.high < 1.5
    for found in (absent, bent):  # two values, each a fair coin: exp(2 log 2)
        assert found.nothing == pytest.approx(4, abs=0.2)
        assert found.low <= found.value <= found.high
        assert found.value > 3.7
    assert linear.values == 2


def test_planes_are_judged_on_points_that_they_were_not_fitted_to():
    points = torch.randn(240, 80, generator=torch.Generator().manual_seed(0))
    found = separability(points, {"a": log_p(torch.rand(240, generator=torch.Generator().manual_seed(2)) > 0.5)})
    assert found.value > 0.7 * found.nothing


def test_the_points_that_the_reader_is_least_sure_of_do_not_count():
    points = torch.randn(1200, 3, generator=torch.Generator().manual_seed(0))
    wrong = torch.arange(1200) % 3 == 0
    has = (points[:, 0] > 0) ^ wrong
    table = torch.where(wrong[:, None], log_p(has, 0.2), log_p(has, 6.0))
    sure, all_alike = separability(points, {"a": table}), separability(points, {"a": log_p(has)})
    assert sure.high < 1.6
    assert all_alike.low > 2


def test_rare_values_are_left_out_and_nothing_is_an_error():
    points = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    rare = torch.arange(300) < 3
    found = separability(points, {"a": log_p(points[:, 0] > 0), "rare": log_p(rare)})
    assert found.values == 2
    with pytest.raises(LimnerError, match="give more"):
        separability(points, {"rare": log_p(rare)})
