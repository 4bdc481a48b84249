"""The lectures' sets of digits: classes that overlap, and two domains without pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limner.core.batch import Unpaired, examples
from limner.core.errors import LimnerError
from limner.core.stream import Stream
from limner.data import load
from limner.data.sources.digit_domains import edges, negatives


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_overlapping_classes_share_a_digit_that_is_half_of_each(split: str):
    dataset = load("overlapping-digits", split=split)
    assert dataset.classes == ["A", "B"]
    digits, labels = dataset.factors[:, 0], dataset.labels
    counts = {(int(y), int(d)): int(((labels == y) & (digits == d)).sum()) for y in (0, 1) for d in digits.unique()}
    n = len(dataset) // 4
    assert counts == {(0, 0): n, (0, 1): n, (0, 2): 0, (1, 0): n, (1, 1): 0, (1, 2): n}
    assert n == {"train": 225, "test": 25, "all": 250}[split]
    assert (dataset.factor_names, dataset.factor_sizes) == (("digit",), (10,))


def test_no_zero_is_in_both_classes_and_digits_are_those_of_the_set():
    dataset, mnist = load("overlapping-digits", split="all"), load("mnist-5k", split="all")
    whole = {x.numpy().tobytes(): int(y) for x, y in zip(mnist.pixels, mnist.labels)}
    zeros = [{x.numpy().tobytes() for x in dataset.pixels[dataset.labels == y]} for y in (0, 1)]
    assert not zeros[0] & zeros[1]
    assert [whole[x.numpy().tobytes()] for x in dataset.pixels] == dataset.factors[:, 0].tolist()
    held_out = {x.numpy().tobytes() for x in load("overlapping-digits", split="test").pixels}
    assert held_out <= {x.numpy().tobytes() for x in load("mnist-5k", split="test").pixels}
    with pytest.raises(LimnerError, match="of: 'fashion' is not possible; choose from: mnist-5k, mnist"):
        load("overlapping-digits", of="fashion")


def test_with_twice_every_zero_is_in_both_classes_and_nothing_else_is():
    dataset = load("overlapping-digits", twice=True)
    a, b = ({x.numpy().tobytes() for x in dataset.pixels[dataset.labels == y]} for y in (0, 1))
    zeros = {x.numpy().tobytes() for x in dataset.pixels[dataset.factors[:, 0] == 0]}
    assert a & b == zeros
    n = len(dataset) // 4
    assert [len(part) for part in (a, b, zeros)] == [2 * n, 2 * n, n]
    assert dataset.factors[:, 0].bincount().tolist() == [2 * n, n, n]


def test_an_edge_is_the_dilation_minus_the_image():
    x = torch.randint(0, 256, (2, 1, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    dilated = np.max([padded[..., i : i + 6, j : j + 7] for i in range(3) for j in range(3)], axis=0)
    np.testing.assert_array_equal(edges(x).numpy(), dilated - x.numpy())
    assert not edges(torch.full((1, 1, 4, 4), 9, dtype=torch.uint8)).any()
    assert torch.equal(negatives(negatives(x)), x)


@pytest.mark.parametrize(("name", "change"), [("digits-edges", edges), ("digits-negatives", negatives)])
def test_domains_are_made_of_disjoint_halves_and_held_out_digits_are_known_pairs(name: str, change):
    train, mnist = load(name, size=32), load("mnist-5k", size=32)
    assert not train.known
    assert train.batch_type is Unpaired
    assert (len(train.a), len(train.b)) == (2250, 2250)
    both = [*train.a.pixels, *train.b.pixels]
    assert len(both) == len(mnist)
    assert torch.equal(train.a.pixels, mnist.pixels[0::2])
    assert torch.equal(train.b.pixels, change(mnist.pixels[1::2]))  # at the size that samples have
    batch = next(Stream(train, 16, seed=0))
    assert isinstance(batch, Unpaired)
    test = load(name, size=32, split="test")
    assert test.known
    assert torch.equal(test.b.pixels, change(test.a.pixels))
    a, b = examples(test, 3)
    assert a.shape == b.shape == (3, 1, 32, 32)
    assert load(name, limit=10).fingerprint != load(name, limit=12).fingerprint
