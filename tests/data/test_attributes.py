"""Data sets whose images have several attributes, or captions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from limner.core.condition import Attributes
from limner.core.errors import LimnerError
from limner.data.arrays import Arrays
from limner.data.datasets import Pixels, from_arrays
from limner.data.options import Options

FACES = {"hair": ["red", "grey", "none"], "glasses": ["none", "round"]}
ROWS = [[0, 0], [0, 1], [1, 0], [1, 1], [2, 1], [-1, 1], [0, -1]]


def faces(**options: Any) -> Pixels:
    """Seven images of one grey each, so that a pixel tells which it is."""
    n = len(ROWS)
    images = np.arange(n, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    texts = [[f"picture {i}", "a face"] if i else [] for i in range(n)]
    arrays = Arrays(images, np.array(ROWS), attributes=FACES, texts=texts)
    return from_arrays("faces", arrays, Options(split="all", **options))


def taken(dataset: Pixels) -> list[int]:
    return dataset.fetch(range(len(dataset)))[:, 0, 0, 0].tolist()


def test_labels_are_one_hot_vectors_with_zeros_where_a_value_is_not_known():
    dataset = faces()
    assert isinstance(dataset.condition, Attributes)
    assert dataset.classes is None
    assert dataset.labels is not None
    assert dataset.labels.dtype == torch.float32
    assert dataset.labels[1].tolist() == [1, 0, 0, 0, 1]
    assert dataset.labels[5].tolist() == [0, 0, 0, 0, 1]
    assert dataset.condition.features(dataset.labels).tolist() == ROWS
    assert sorted(dataset.condition.rows.tolist()) == sorted(ROWS)
    assert dataset.facts()["classes"] == 5
    assert dataset.facts()["condition"]["values"] == FACES


def test_only_and_without_take_values_of_attributes():
    assert taken(faces(only=["glasses=round"])) == [1, 3, 4, 5]
    assert taken(faces(only=["hair=red", "hair=grey"])) == [0, 1, 2, 3, 6]
    assert taken(faces(only=["hair=red", "glasses=round"])) == [1]  # one of each attribute that is named
    # an image of which the value is not known is not known to be red
    assert taken(faces(without=["hair=red"])) == [2, 3, 4, 5]
    assert taken(faces(only=["hair=red", "hair=grey"], without=["hair=grey"])) == [0, 1, 6]


def test_values_that_are_left_out_are_no_values_any_more():
    kept = faces(without=["hair=red"])
    assert kept.condition is not None
    assert kept.condition.values == {"hair": ["grey", "none"], "glasses": ["none", "round"]}
    assert kept.labels is not None
    assert kept.condition.features(kept.labels).tolist() == [[0, 0], [0, 1], [1, 1], [-1, 1]]
    # an attribute with one value left tells nothing
    alone = faces(only=["glasses=round"])
    assert alone.condition is not None
    assert alone.condition.values == {"hair": FACES["hair"]}
    none = faces(only=["glasses=round", "hair=red"])
    assert none.condition is none.labels is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["glases=round"]}, "unknown attribute of faces 'glases'; did you mean 'glasses'"),
        ({"only": ["glasses=rund"]}, "unknown value of glasses 'rund'; did you mean 'round'"),
        ({"without": ["round"]}, r"'round' is not a value of one; write for example \[hair=red\]"),
        ({"without": ["glasses=none", "glasses=round"]}, "leave no value of glasses"),
        ({"only": ["hair=none"], "without": ["glasses=round"]}, "no image is left"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(LimnerError, match=message):
        faces(**options)


def test_captions_go_with_their_images_and_into_the_fingerprint():
    kept = faces(only=["glasses=round"])
    assert kept.texts is not None
    assert [t[0] for t in kept.texts] == ["picture 1", "picture 3", "picture 4", "picture 5"]
    with_, without = faces(), Pixels("a", torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    assert with_.texts is not None
    assert with_.texts[0] == []
    other = Pixels("a", without.fetch([0, 1]), texts=[["x"], []])
    assert without.fingerprint != other.fingerprint
    assert other.fingerprint != Pixels("a", without.fetch([0, 1]), texts=[["y"], []]).fingerprint
    assert other.fingerprint != Pixels("a", without.fetch([0, 1]), texts=[[], ["x"]]).fingerprint
