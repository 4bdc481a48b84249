"""The shaded head: what each factor does to the picture, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limner.core.condition import Attributes
from limner.data import load
from limner.data.sources import solids
from limner.data.sources.solids import SIZES, VALUES, render

NAMES = list(VALUES)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """All pictures by factor, (13,7,9,7,48,48), and a cache that has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMNER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield load("solids", split="all").pixels.numpy().reshape(*SIZES, 48, 48).astype(np.int64)


def test_the_set(table, monkeypatch):
    monkeypatch.setattr(solids, "render", lambda: pytest.fail("rendered again"))
    train, test = load("solids"), load("solids", split="test")
    assert train.shape == (1, 48, 48)
    assert (len(train), len(test)) == (5733 - 573, 573)
    assert isinstance(train.condition, Attributes)
    assert dict(train.condition.values) == VALUES
    assert torch.equal(train.condition.features(train.labels), train.factors)
    assert (train.factor_names, train.factor_sizes) == (tuple(NAMES), SIZES)
    for data in (train, test):
        for f, k in enumerate(SIZES):
            assert data.factors[:, f].bincount(minlength=k).min() > 20, "every value is in both splits"
    row = test.factors[5].tolist()
    assert np.array_equal(test.pixels[5, 0].numpy(), table[tuple(row)])
    assert train.condition.name(train.labels[:1]) == ["azimuth=-60 elevation=-30 light=-80 width=0.7"]


def test_every_step_of_a_factor_is_seen_in_every_picture(table):
    for f in range(4):
        change = np.abs(np.diff(table, axis=f))
        assert change.max((-1, -2)).min() > 20, NAMES[f]


def test_left_and_right_are_mirrored(table):
    """A head turned to the left and lit from the left is the mirror image of one turned and lit from the right."""
    assert np.abs(table - table[::-1, :, ::-1, :, :, ::-1]).max() <= 1  # rounding


def test_a_head_is_drawn_at_any_amounts(table):
    lights = [float(v) for v in VALUES["light"]]
    assert np.array_equal(solids.views(-20, 10, lights, 1.1), table[4, 4, :, 4])
    between = solids.views(5, 0, [0.0], 1.0).astype(int)[0]
    steps = [np.abs(between - table[k, 3, 4, 3]).sum() for k in (6, 7)]
    assert max(steps) < np.abs(table[7, 3, 4, 3] - table[6, 3, 4, 3]).sum()


def test_light_changes_the_shade_and_not_the_shape(table):
    seen = table > 0
    assert (seen == seen[:, :, :1]).all()
    front = table[6, 3, :, 3].astype(float)  # by light
    balance = [(x[:, 24:].sum() - x[:, :24].sum()) / x.sum() for x in front]
    assert (np.diff(balance) > 0).all(), "the light goes from the left to the right"
    assert balance[4] == pytest.approx(0, abs=1e-3)


def test_the_width_is_that_of_the_silhouette(table):
    across = (table[6, 3, 4] > 0).any(1).sum(1)  # columns, by width
    widths = np.array([float(w) for w in VALUES["width"]])
    head = 2 * (0.62 * widths + 0.09) * 48 / 2.1  # the head and its ears
    assert np.abs(across - head).max() <= 2.5
    tall = (table[6, 3, 4] > 0).any(2).sum(1)
    assert len(set(tall.tolist())) == 1, "a wide head is not taller"


def test_surfaces():
    """Every ray meets the part that is nearest to the camera, so all normals look towards it."""
    normals, albedo = solids._seen(solids._turn(0.0, 0.0), 1.0, 96)
    on = albedo > 0
    assert np.linalg.norm(normals[on], axis=1) == pytest.approx(1)
    assert (normals[on] @ [0, 0, 1] >= -1e-9).all(), "what is seen looks towards the camera"
    assert set(np.unique(albedo)) == {0.0, solids._DARK, 1.0}


def test_rendering_is_a_function_of_the_factors(table, monkeypatch):
    monkeypatch.setattr(solids, "VALUES", VALUES | {"azimuth": ["-60", "0"], "width": ["1"]})
    monkeypatch.setattr(solids, "SIZES", (2, 7, 9, 1))
    some = render().reshape(2, 7, 9, 48, 48)
    assert np.array_equal(some, table[[0, 6], :, :, 3])
