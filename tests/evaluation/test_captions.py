"""Scores of text to image: a model that obeys is found, one that ignores the caption is at chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from limner.core.batch import to_float
from limner.core.condition import ENCODERS, Vectors
from limner.core.labelling import Captions
from limner.core.model import GenerativeModel
from limner.core.rng import Noise
from limner.data.arrays import Arrays
from limner.data.datasets import Pixels, from_arrays
from limner.data.labels import _groups
from limner.data.options import Options
from limner.evaluation.conditional import condition_scores
from limner.evaluation.draws import asked_labels
from limner.evaluation.reference_set import ReferenceSet
from limner.metrics.scorecard import Card, base

ROWS, COLUMNS = 12, 12


def pictures(ids: Tensor) -> Tensor:
    """A white square on black (N,1,16,16) at one of 144 places."""
    x = torch.zeros(len(ids), 1, 16, 16, dtype=torch.uint8)
    for k, i in enumerate(ids.tolist()):
        x[k, :, i // COLUMNS : i // COLUMNS + 5, i % COLUMNS : i % COLUMNS + 5] = 255
    return x


def vectors_of(ids: Tensor) -> Tensor:
    return torch.cat([torch.nn.functional.one_hot(k, 12).float() for k in (ids // COLUMNS, ids % COLUMNS)], 1)


def dataset(split: str, attributes: bool) -> Pixels:
    """The even places to train on, the others held out; captions name row and column."""
    ids = torch.arange(ROWS * COLUMNS).repeat(4)
    ids = ids[(ids // COLUMNS + ids % COLUMNS) % 2 == (split == "test")]
    rows = np.stack([ids // COLUMNS, ids % COLUMNS], 1)
    texts = [[f"row {r}, column {c}"] for r, c in rows]
    names = {"row": [str(k) for k in range(12)], "column": [str(k) for k in range(12)]} if attributes else None
    noise = torch.randint(0, 40, (len(ids), 16, 16), generator=torch.Generator().manual_seed(0)).numpy()
    images = np.clip(pictures(ids)[:, 0].numpy().astype(int) - noise, 0, 255).astype(np.uint8)
    arrays = Arrays(images, rows if attributes else None, attributes=names, texts=texts)
    made = from_arrays("squares", arrays, Options(split="all"))
    made.groups = _groups(made)
    if made.condition is not None:
        made.described = (made.condition, made.labels)
    made.captions = Captions(vectors_of(ids), [[i] for i in range(len(ids))])
    made.labels, made.condition = made.captions.first, Vectors("squares", [t[0] for t in texts], vectors_of(ids))
    return made


class Draws(GenerativeModel):
    """Draws the square that the caption asks for, or any."""

    def __init__(self, obeys: bool, condition: Vectors) -> None:
        super().__init__()
        self.obeys, self.condition, self.weight = obeys, condition, torch.nn.Parameter(torch.zeros(1))

    def draw(self, n: int, y: Tensor | None, noise: Noise, **options: Any) -> Tensor:
        u = torch.special.ndtr(noise(0, 1))[:, 0]
        assert y is not None
        asked = y[:, :12].argmax(1) * COLUMNS + y[:, 12:].argmax(1)
        return to_float(pictures(asked if self.obeys else (u * 144).long()))


def card(obeys: bool, attributes: bool) -> Card:
    train, heldout = dataset("train", attributes), dataset("test", attributes)
    reference = ReferenceSet(train, heldout, n=288)
    model = Draws(obeys, train.condition)
    scored = reference(model.sample(288, y=asked_labels(model, heldout, 288), seed=0))
    return condition_scores(reference, scored, model, heldout, ("quality",))


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path))
    monkeypatch.setitem(ENCODERS, "squares", lambda texts: torch.zeros(len(texts), 24))


@pytest.mark.parametrize("attributes", [True, False])
def test_obeying_and_ignoring_are_told_apart(attributes: bool) -> None:
    good, bad = card(True, attributes), card(False, attributes)
    (name,) = [k for k in good if base(k) == "r_precision"]
    assert "pool=100" in name
    assert good[name].value > 0.8 * good[name].ceiling > 0.3
    assert bad[name].value < 0.06
    assert good[name].floor == 0.01
    if attributes:
        scores = {base(k): v for k, v in good.items()}
        assert scores["gan_test_held_out"].value > 0.8 * scores["gan_test_held_out"].ceiling
        assert scores["gan_test_joint_seen"].value > 0.5
        assert {base(k): v for k, v in bad.items()}["gan_test_joint"].value < 0.05
    else:
        (missing,) = [v for k, v in good.items() if base(k) == "gan_test"]
        assert "no attributes beside them" in missing.why
