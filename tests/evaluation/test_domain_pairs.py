"""Pairs of two domains agree where they show the same, and with a shuffled side as chance says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from limner.core.batch import to_float, to_uint8
from limner.core.condition import Classes
from limner.core.model import GenerativeModel
from limner.core.prior import Prior
from limner.data.datasets import Pixels
from limner.data.pairs import DomainSet
from limner.data.sources.digit_domains import edges, negatives
from limner.evaluation.domain_pairs import pair_scores, pixel_pair_scores


def bars(y: Tensor, inverted: bool) -> Tensor:
    """A bar in one of four places, white on black or black on white, (N,1,8,8) uint8."""
    x = torch.full((len(y), 1, 8, 8), -1.0)
    for image, place in zip(x, y.tolist(), strict=True):
        image[0, :, 2 * place : 2 * place + 2] = 1
    return to_uint8(-x if inverted else x)


def domains(n: int, labelled: bool = True) -> DomainSet:
    parts = []
    for inverted in (False, True):
        y = torch.randint(4, (n,), generator=torch.Generator().manual_seed(n + inverted))
        parts.append(Pixels("bars", bars(y, inverted), labels=y if labelled else None, classes=list("abcd")))
    return DomainSet(*parts, name="bars")


class Pairs(GenerativeModel):
    """Both domains show the place that the first number of the noise says; `right` decides whether b follows a."""

    def __init__(self, right: float) -> None:
        super().__init__()
        self.right, self.prior, self.weight = right, Prior("normal", 2), torch.nn.Parameter(torch.zeros(1))

    def decode_pair(self, z: Tensor) -> tuple[Tensor, Tensor]:
        place = (torch.special.ndtr(z[:, 0]) * 4).long().clamp(max=3)
        wrong = torch.special.ndtr(z[:, 1]) > self.right
        return to_float(bars(place, False)), to_float(bars((place + wrong) % 4, True))


@pytest.mark.parametrize("right", [1.0, 0.7])
def test_agreement_is_the_share_of_pairs_that_correspond(right: float) -> None:
    (name, score), *_ = pair_scores(Pairs(right), domains(200), domains(60), pairs=400).items()
    assert name == "pair_agreement@small-v1[n=400]"
    assert score.value == pytest.approx(right, abs=0.06)
    assert score.low <= score.value <= score.high
    assert score.floor == pytest.approx(0.25, abs=0.02), "with one side shuffled"
    assert score.ceiling == pytest.approx(1, abs=0.03)


def test_the_ceiling_has_the_errors_of_both_judges() -> None:
    tests = domains(100)
    for part, every in ((tests.a, 10), (tests.b, 5)):  # wrong labels are errors of a judge
        part.labels[::every] = (part.labels[::every] + 1) % 4
    score = pair_scores(Pairs(1.0), domains(200), tests, pairs=100)["pair_agreement@small-v1[n=100]"]
    assert score.ceiling == pytest.approx(0.9 * 0.8, abs=0.02)


def test_unknown_or_different_labels_and_other_models_have_a_reason() -> None:
    assert "no labels in common" in pair_scores(Pairs(1.0), domains(20, False), domains(20))["pair_agreement"].why
    other = domains(20)
    other.a.condition = Classes(4)
    assert pair_scores(Pairs(1.0), domains(20), other)["pair_agreement"].value is None
    assert pair_scores(GenerativeModel(), domains(20), domains(20)) == {}


class Changed(Pairs):
    """Makes of each bar what a change makes of it."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__(1.0)
        self.change = change

    def decode_pair(self, z: Tensor) -> tuple[Tensor, Tensor]:
        a, _ = super().decode_pair(z)
        return a, to_float(self.change(to_uint8(a)))


@pytest.mark.parametrize(("name", "change", "other"), [("edges", edges, negatives), ("negatives", negatives, edges)])
def test_pixels_agree_where_the_second_image_is_the_change_of_the_first(
    name: str, change: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]
) -> None:
    heldout = domains(20)
    heldout.name = f"digits-{name}"
    right, wrong = (pixel_pair_scores(Changed(made), heldout) for made in (change, other))
    assert list(right) == ["pair_pixels", "pair_iou", "pair_correlation"]
    for key, score in right.items():
        assert score.value == pytest.approx(1)
        assert max(score.floor, wrong[key].value) < 0.8
    bright = to_float(change(bars(torch.arange(4), False)))[:, 0, 0] > 0  # (4,8): which columns, for each place
    both, either = (bright[:, None] & bright).sum(2), (bright[:, None] | bright).sum(2)
    assert right["pair_iou"].floor == pytest.approx(float((both / either).mean()), abs=0.03)
    same = (bright[:, None] == bright).double().mean()
    assert right["pair_pixels"].floor == pytest.approx(float(same), abs=0.03)
    assert pixel_pair_scores(Changed(change), domains(20)) == {}, "nobody knows what the second domain is"
