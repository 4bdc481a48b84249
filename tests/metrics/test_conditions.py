"""Agreement with what was asked for, its exact control, and diversity within a label."""

from __future__ import annotations

import itertools

import pytest
import torch

from limner.core.errors import LimnerError
from limner.metrics.conditions import (
    accuracies,
    agreement,
    label_effect,
    mean_agreement,
    shuffled_labels,
    spaced_labels,
    unseen_labels,
    within_label,
)


def test_the_control_is_the_mean_over_all_orders_of_the_labels() -> None:
    read = torch.tensor([[0, 1], [0, 0], [1, 1], [1, 0], [0, 1]])
    asked = torch.tensor([[0, 1], [0, -1], [0, 1], [1, 1], [-1, 0]])
    for columns in (slice(0, 1), slice(0, 2)):
        r, a = read[:, columns], asked[:, columns]
        r, a = r[(a != -1).any(1)], a[(a != -1).any(1)]
        orders = [a[list(order)] for order in itertools.permutations(range(len(a)))]
        hits = torch.stack([((r == o) | (o == -1)).all(1).double().mean() for o in orders])
        assert agreement(read[:, columns], asked[:, columns]).chance == pytest.approx(float(hits.mean()))


def test_the_control_of_balanced_classes_is_one_in_k_and_of_a_frequent_value_more() -> None:
    classes = torch.arange(1000)[:, None] % 10
    assert agreement(classes, classes).value == 1
    assert agreement(classes, classes).chance == pytest.approx(0.1)
    shuffled = agreement(classes, shuffled_labels(classes))
    assert shuffled.low < 0.1 < shuffled.high
    rare = (torch.arange(1000) % 10 == 0).long()[:, None]
    assert agreement(rare, rare).chance == pytest.approx(0.9**2 + 0.1**2)


def test_unknown_values_agree_with_anything_and_count_nowhere() -> None:
    read, asked = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]]), torch.tensor([[0, 1], [1, -1], [-1, -1], [1, 1]])
    both = agreement(read, asked)
    assert (both.value, both.n) == (pytest.approx(1 / 3), 3)
    found = accuracies(read, asked, ["hair", "eyes"])
    assert {k: (v.value, v.n) for k, v in found.items()} == {
        "": (pytest.approx((2 / 3 + 1 / 2) / 2), 3),
        "_joint": (pytest.approx(1 / 3), 3),
        ":hair": (pytest.approx(2 / 3), 3),
        ":eyes": (pytest.approx(1 / 2), 2),
    }
    assert list(accuracies(read[:, :1], asked[:, :1], ["class"])) == [""]
    assert list(accuracies(read, asked * 0 + torch.tensor([0, -1]), ["hair", "eyes"])) == ["", "_joint", ":hair"]
    with pytest.raises(LimnerError, match="no image has a known label"):
        mean_agreement(read, asked * 0 - 1)


def test_the_interval_of_a_mean_over_attributes_holds_the_truth() -> None:
    chance, inside = torch.Generator().manual_seed(0), 0
    for _ in range(200):
        asked = torch.zeros(200, 3, dtype=torch.int64)
        read = (torch.rand(200, 3, generator=chance) > torch.tensor([0.9, 0.7, 0.5])).long()
        found = mean_agreement(read, asked)
        inside += found.low < 0.7 < found.high
    assert abs(inside / 200 - 0.95) < 3 * (0.95 * 0.05 / 200) ** 0.5


# ---- diversity -----------------------------------------------------------------------------------------------------


def features(n: int, spread: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clouds around four centres that are far from each other, (4n,8), and their labels."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(4 * n) % 4
    return 20 * labels[:, None] + spread * torch.randn(4 * n, 8, generator=chance), labels


def test_one_image_for_each_label_has_no_diversity() -> None:
    real, of_real = features(50, 1.0, 0)
    for spread, expected in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        fake, of_fake = features(40, spread, 1)
        found = within_label(fake=fake, fake_labels=of_fake, real=real, real_labels=of_real)
        assert found.ratio == pytest.approx(expected, abs=0.05)
        assert found.labels == 4
    fake, of_fake = features(40, 1.0, 1)
    fake[of_fake == 2] = fake[2].clone()
    found = within_label(fake=fake, fake_labels=of_fake, real=real, real_labels=of_real)
    assert found.least == 0
    assert of_fake[found.least_label] == 2
    assert found.ratio == pytest.approx(0.75, abs=0.05), "the other labels hide it, so the least one is named"


def test_diversity_of_label_vectors_and_where_there_is_none() -> None:
    real, of_real = features(5, 1.0, 0)
    fake, of_fake = features(5, 1.0, 1)
    vectors = torch.eye(4)
    by_vector = within_label(fake=fake, fake_labels=vectors[of_fake], real=real, real_labels=vectors[of_real])
    assert by_vector == within_label(fake=fake, fake_labels=of_fake, real=real, real_labels=of_real)
    assert within_label(fake=fake, fake_labels=of_fake + 4, real=real, real_labels=of_real) is None
    assert within_label(fake=fake, fake_labels=of_fake, real=real * 0, real_labels=of_real) is None


def test_a_label_that_is_ignored_has_no_effect() -> None:
    real, of_real = features(50, 1.0, 0)
    columns, noise = 20 * torch.arange(4.0)[:, None], torch.randn(6, 1, 8, generator=torch.Generator().manual_seed(2))
    used, ignored = (columns + noise).flatten(0, 1), (0 * columns + noise).flatten(0, 1)
    assert label_effect(used, 4, real, of_real).ratio == pytest.approx(1, abs=0.05)
    assert label_effect(ignored, 4, real, of_real).ratio == 0
    assert label_effect(used, 1, real, of_real) is None


def test_labels_in_order_and_those_that_were_never_trained_on() -> None:
    assert spaced_labels(torch.tensor([3, 1, 1, 2, 0, 9]), 3).tolist() == [0, 2, 9]
    pairs = torch.tensor([[0.0, 1], [1, 0], [1, 1]])
    assert unseen_labels(pairs, pairs[[0, 0, 2]]).tolist() == [False, True, False]
