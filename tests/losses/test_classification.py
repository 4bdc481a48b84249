"""Facts of the cross-entropy of labels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from limner.losses.classification import cross_entropy


def test_logits_go_in_without_a_softmax():
    """The gradient at the logits is (softmax − one-hot) / B; sure and right costs nothing, sure and wrong a lot."""
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 3, 1, 1, 2])
    (grad,) = torch.autograd.grad(cross_entropy(logits, y, [4]), logits)
    torch.testing.assert_close(grad, (logits.softmax(1) - F.one_hot(y, 4)) / 5)
    sure = 50 * F.one_hot(y, 4).double()
    assert cross_entropy(sure, y, [4]) < 1e-12  # after a softmax it could not fall below log(1 + 3/e) = 0.74
    assert cross_entropy(sure, (y + 1) % 4, [4]).item() == pytest.approx(50)


def test_one_hot_vectors_are_class_indices():
    logits, others = torch.randn(2, 5, 4, dtype=torch.float64)
    y = torch.tensor([0, 3, 1, 1, 2])
    one_hot = F.one_hot(y, 4).double()
    torch.testing.assert_close(cross_entropy(logits, one_hot, [4]), cross_entropy(logits, y, [4]))
    torch.testing.assert_close(
        cross_entropy(logits, one_hot, [4], others=others), cross_entropy(logits, y, [4], others=others)
    )


def test_attributes_have_a_softmax_each_and_unknown_ones_add_nothing():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[1.0, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.float64)  # (2 values, 3 values)
    loss = cross_entropy(logits, y, [2, 3])
    first = F.cross_entropy(logits[:2, :2], torch.tensor([0, 1]), reduction="sum")
    second = F.cross_entropy(logits[:1, 2:], torch.tensor([2]), reduction="sum")
    torch.testing.assert_close(loss, (first + second) / 3)
    (grad,) = torch.autograd.grad(loss, logits)
    assert (grad[2] == 0).all()
    assert (grad[1, 2:] == 0).all()
    assert (grad[1, :2] != 0).all()


def test_further_outcomes_share_the_softmax():
    plus, minus = torch.randn(2, 5, 4, dtype=torch.float64)
    y = torch.tensor([0, 3, 1, 1, 2])
    nats = -torch.cat([plus, minus], 1).log_softmax(1)[torch.arange(5), y]
    torch.testing.assert_close(cross_entropy(plus, y, [4], others=minus), nats.mean())
    torch.testing.assert_close(  # the normaliser cancels
        cross_entropy(plus, y, [4], others=minus) - cross_entropy(minus, y, [4], others=plus),
        (minus - plus)[torch.arange(5), y].mean(),
    )


def test_half_precision_is_computed_in_float32():
    assert cross_entropy(torch.zeros(2, 3, dtype=torch.bfloat16), torch.tensor([0, 1]), [3]).dtype == torch.float32
