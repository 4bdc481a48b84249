"""Photographs of installed packages."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest

from limner.core.errors import LimnerError
from limner.data import load
from limner.data.sources import photographs


def test_crops_are_parts_of_the_photographs_and_one_photograph_is_held_out():
    train, test = load("photos", crop=64, size=64), load("photos", crop=64, size=64, split="test")
    assert train.shape == (3, 64, 64)
    assert {train.classes[k] for k in train.labels.tolist()} == set(photographs.PHOTOGRAPHS) - {photographs.HELD_OUT}
    assert {test.classes[k] for k in test.labels.tolist()} == {photographs.HELD_OUT}
    china = np.asarray(photographs.opened("china")).transpose(2, 0, 1)
    assert np.array_equal(train.fetch([0])[0].numpy(), china[:, :64, :64])
    assert np.array_equal(train.fetch([1])[0].numpy(), china[:, :64, 16:80])


def test_style_transfer_takes_names_and_prefers_files_of_that_name(tmp_path, monkeypatch):
    data = load("styled", path="china", style="brick", size=40)
    assert data.shape == (3, 27, 40)
    assert data.styles[0].shape == (1, 3, 40, 40)
    photographs.opened("flower").convert("L").save(tmp_path / "china.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "china.png").rename(tmp_path / "china")
    grey = next(iter(load("styled", path="china", style="flower", size=40).fetch([0])))
    assert (grey[0] == grey[1]).all()


def test_without_scikit_image_there_are_two_photographs_and_a_note_on_what_to_install(monkeypatch):
    find_spec: Any = importlib.util.find_spec
    monkeypatch.setattr(photographs, "find_spec", lambda name: None if name == "skimage" else find_spec(name))
    assert photographs.names() == ["china", "flower"]
    assert any("pip install 'limner[photos]'" in note for note in load("photos", size=32).notes)
    assert len(load("photos", size=32, split="test")) > 0
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(
        LimnerError, match=r"brick is part of scikit-image; install it with: pip install 'limner\[photos\]'"
    ):
        photographs.opened("brick")
    with pytest.raises(LimnerError, match="there is no photograph 'moon'; choose from: china"):
        photographs.opened("moon")
