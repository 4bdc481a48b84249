"""Linear probes, two-sample tests and AUROC against their definitions."""

from __future__ import annotations

import pytest
import torch

from limner.core.errors import LimnerError
from limner.metrics.anomaly import auroc
from limner.metrics.probe import distinguishable, linear_probe


def normal(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def test_auroc_is_one_zero_or_a_half_for_perfect_reversed_and_constant_scores() -> None:
    odd = torch.tensor([False] * 30 + [True] * 10)
    score = -odd.float()
    assert auroc(score, odd) == 1
    assert auroc(-score, odd) == 0
    assert auroc(torch.zeros(40), odd) == 0.5


def test_auroc_is_the_probability_that_an_anomaly_scores_lower() -> None:
    scores = torch.randint(0, 20, (200,), generator=torch.Generator().manual_seed(0)).float()  # with ties
    odd = normal(200) > 0.7
    low, high = scores[odd][:, None], scores[~odd][None]
    pairs = (low < high).double() + 0.5 * (low == high).double()
    assert auroc(scores, odd) == pytest.approx(float(pairs.mean()))


def test_auroc_of_random_scores_is_near_a_half() -> None:
    assert auroc(normal(20_000), normal(20_000, seed=1) > 0) == pytest.approx(0.5, abs=0.02)


def test_auroc_needs_both_classes_and_finite_scores() -> None:
    with pytest.raises(LimnerError, match="give some of both"):
        auroc(torch.zeros(3), torch.zeros(3, dtype=torch.bool))
    with pytest.raises(LimnerError, match="finite"):
        auroc(torch.tensor([0.0, float("nan")]), torch.tensor([True, False]))


def test_a_linear_probe_finds_linear_boundaries_only() -> None:
    x = normal(600, 2, 5)
    straight, crossed = (x[:, 0, 0] > 0).long(), (x[:, 0, 0] * x[:, 0, 1] > 0).long()
    assert linear_probe(x[:400], straight[:400], x[400:], straight[400:]) > 0.93
    assert linear_probe(x[:400], crossed[:400], x[400:], crossed[400:]) < 0.62


def test_a_linear_probe_does_not_depend_on_the_scale_of_the_codes() -> None:
    x = normal(300, 4)
    y = (x[:, 0] + 0.5 * x[:, 1] > 0).long()
    scales = torch.tensor([1e3, 1e-3, 7.0, 1.0])
    ours, theirs = (linear_probe(c[:200], y[:200], c[200:], y[200:]) for c in (x, x * scales + 5))
    assert ours == theirs


def test_sets_are_distinguishable_by_their_dependence_alone() -> None:
    x = normal(800, 4)
    same = distinguishable(x[:400], x[400:], trees=60)
    assert same == pytest.approx(0.5, abs=0.08)
    tied = x[:400].clone()
    tied[:, 1] = tied[:, 0]  # each dimension keeps its mean and variance; only their dependence differs
    assert distinguishable(tied, x[400:], trees=60) > 0.8


def test_a_larger_set_in_the_order_of_its_classes_is_drawn_from() -> None:
    """The same two classes in both; the first half of the larger set is one of them alone."""
    x, y = torch.randn(1600, 4, generator=torch.Generator().manual_seed(3)).split([1200, 400])
    x[:600] += 4
    y[::2] += 4
    assert distinguishable(x, y, trees=60) == pytest.approx(0.5, abs=0.08)


def test_sets_of_different_shapes_are_refused() -> None:
    with pytest.raises(LimnerError, match="one shape"):
        distinguishable(normal(4, 2), normal(4, 3))
