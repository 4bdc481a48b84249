"""R-precision: chance for a judge that knows nothing, 1 for one that knows all, and wrong captions that are wrong."""

from __future__ import annotations

import pytest
import torch

from limner.core.errors import LimnerError
from limner.metrics.retrieval import by_attributes, by_vectors, candidates, r_precision

VALUES = {"hair": ["red", "grey"], "glasses": ["none", "round", "square"]}


def test_the_pool_has_the_own_caption_first_and_no_other_that_is_right():
    groups = torch.arange(300) // 3
    pool = candidates(groups, 100)
    assert pool.shape == (300, 100)
    assert torch.equal(pool[:, 0], torch.arange(300))
    assert bool((groups[pool[:, 1:]] != groups[:, None]).all())
    assert all(len(set(row)) == 100 for row in pool.tolist()), "drawn without repetition"
    assert not torch.equal(pool, candidates(groups, 100, seed=1))
    with pytest.raises(LimnerError, match="2 of 3 captions do not describe picture 0, and 99 are needed"):
        candidates(torch.arange(3))


def test_a_judge_that_knows_nothing_finds_one_in_a_hundred():
    torch.manual_seed(0)
    assert float(r_precision(torch.rand(20_000, 100)).double().mean()) == pytest.approx(0.01, abs=0.003)
    assert not bool(r_precision(torch.zeros(5, 100)).any()), "a tie is no find"


def test_attributes_are_compared_by_their_log_probability():
    logits = {"glasses": torch.tensor([[2.0, 0.0, -1.0]]), "hair": torch.tensor([[0.0, 3.0]])}
    known = {"glasses": ["square", "none", "round"], "hair": ["red", "grey"]}  # in an order of its own
    told = torch.tensor([[1, 2], [1, 0], [-1, 1], [0, -1]])
    found = by_attributes(logits, known, VALUES, told, torch.tensor([[0, 1, 2, 3]]))
    glasses, hair = logits["glasses"].log_softmax(1)[0], logits["hair"].log_softmax(1)[0]
    expected = torch.stack([hair[1] + glasses[0], hair[1] + glasses[1], glasses[2], hair[0]])
    torch.testing.assert_close(found[0], expected)


def test_a_linear_map_finds_captions_that_are_linear_in_the_features_and_no_others():
    torch.manual_seed(0)
    W, real = torch.randn(8, 5), torch.randn(500, 8)
    features = torch.randn(400, 8)
    pool = candidates(torch.arange(400))
    linear = {"real": real, "real_vectors": real @ W + 3}
    found = r_precision(by_vectors(features, features @ W + 3, pool, **linear))
    assert float(found.double().mean()) > 0.95
    other = r_precision(by_vectors(features, torch.randn(400, 5), pool, **linear))
    assert float(other.double().mean()) < 0.04
