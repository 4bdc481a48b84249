"""Sets of images that arrive in parts: any parts and any order give the score of the whole."""

from __future__ import annotations

import pytest
import torch

from limner import data
from limner.core.errors import LimnerError
from limner.metrics.extractors.features import lenet64
from limner.metrics.kernel import kid
from limner.metrics.neighbours import neighbourhoods
from limner.metrics.sets import TwoSets, checked, name

SCORES = ("precision", "recall", "density", "coverage", "clipped_density", "clipped_coverage")


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return data.load("mnist-5k", split="all", limit=400).pixels


def streamed(score, real: torch.Tensor, fake: torch.Tensor, batch: int) -> TwoSets:
    metric = TwoSets(score, lenet64())
    for i in range(0, max(len(real), len(fake)), batch):  # in turn
        for kind, x in ((True, real), (False, fake)):
            if i < len(x):
                metric.update(x[i : i + batch], real=kind)
    return metric


@pytest.mark.parametrize("batch", [1, 37, 400])
def test_streamed_is_whole(digits, batch):
    real, fake = digits[:150], digits[150:250].flip(2)
    whole = kid(real=lenet64().features(real), fake=lenet64().features(fake))
    result = streamed(kid, real, fake, batch).compute()
    assert result.value == pytest.approx(whole.value, rel=1e-5)  # features are float32, and depend on batches so far
    assert result.error == pytest.approx(whole.error, rel=1e-5)


def test_order_does_not_matter(digits):
    real, fake = digits[:200], digits[200:]
    one, other = (
        streamed(neighbourhoods, *sets, batch=64).compute() for sets in ((real, fake), (real.flip(0), fake.flip(0)))
    )
    for score in SCORES:
        assert getattr(one, score) == pytest.approx(getattr(other, score), abs=0.006), score  # an image on an edge


def test_pure_scores_know_neither_order_nor_layout(digits):
    x, y = (lenet64().features(part) for part in (digits[:200], digits[200:]))
    shuffled = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    one, other = neighbourhoods(real=x, fake=y), neighbourhoods(real=x[shuffled].double().numpy(), fake=y.flip(0))
    for score in SCORES:
        assert getattr(one, score) == pytest.approx(getattr(other, score), abs=1e-12), score
    assert (one.contributions == other.contributions[::-1]).all()
    assert kid(real=x, fake=y).value == pytest.approx(kid(real=x[shuffled], fake=y.flip(0)).value, abs=1e-12)


def test_reset_and_names(digits):
    metric = streamed(kid, digits[:50], digits[50:150], 50)
    assert metric.key == "kid@lenet64-v1[n=100]" == name("kid", "lenet64-v1", 100)
    first = metric.compute()
    metric.reset(keep_real=True)
    assert metric.key == "kid@lenet64-v1[n=0]"
    metric.update(digits[50:150], real=False)
    assert metric.compute().value == pytest.approx(first.value, rel=1e-5)
    metric.reset()
    with pytest.raises(LimnerError, match="at least 2 real images, there are 0"):
        metric.compute()
    assert TwoSets(kid, lenet64(), called="kernel").key == "kernel@lenet64-v1[n=0]"


def test_only_numbers_pass():
    assert checked(real=torch.ones(2, 3, dtype=torch.bfloat16))[0].dtype == "float64"
    assert checked(1, real=[[1, 2]], fake=[[3, 4]])[1].tolist() == [[3, 4]]
    for broken in (torch.ones(2, 3, dtype=torch.bool), [["a"]], torch.ones(2, 3, dtype=torch.complex64)):
        with pytest.raises(LimnerError, match="features of real images must be numbers"):
            checked(real=broken)
    with pytest.raises(LimnerError, match="use one extractor"):
        checked(train=torch.ones(2, 3), fake=torch.ones(2, 4))
