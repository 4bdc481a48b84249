"""What a user asks for becomes labels, labels become what nets take, and a model keeps the names of its classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import limner
from limner.core.condition import Classes, from_header
from limner.core.errors import LimnerError

SETTINGS = {"data.limit": 64, "data.size": 16, "images": 64, "batch": 8, "samples": 4, "device": "cpu", "threads": 1}


def test_labels_are_read_by_name_index_or_one_by_one() -> None:
    animals = Classes(["cat", "dog", "owl"])
    assert animals.read("owl", 2).tolist() == animals.read(2, 2).tolist() == animals.read("2", 2).tolist() == [2, 2]
    assert animals.read(torch.tensor([0, 2]), 2).tolist() == animals.read([0, 2], 2).tolist() == [0, 2]
    assert animals.default(5).tolist() == [0, 1, 2, 0, 1]
    assert torch.equal(animals.encode(torch.tensor([1, 0])), torch.eye(3)[[1, 0]])
    assert Classes(["10", "7"]).read("7", 1).tolist() == [1], "a name comes before an index"


@pytest.mark.parametrize("asked", [3, -1, "cow", [0], [0, 1, 2], torch.tensor([0.5, 1.0])])
def test_what_means_nothing_is_refused(asked: object) -> None:
    with pytest.raises(LimnerError, match=r"there is no class 'cow'; choose from: cat, dog|integers from 0 to 1"):
        Classes(["cat", "dog"]).read(asked, 2)


def test_a_condition_survives_its_header() -> None:
    assert from_header(Classes(["a", "b"]).header()) == Classes(["a", "b"])
    with pytest.raises(ValueError, match="describes no condition"):
        from_header({"kind": "colours"})


def test_a_model_alone_knows_its_classes(tmp_path: Path) -> None:
    run = limner.train("cvae-mnist", out=tmp_path / "run", **SETTINGS)
    model = limner.load(run.latest / "model.safetensors")
    assert model.condition == Classes([str(d) for d in range(10)])
    assert torch.equal(model.sample(3, y="7", seed=0), model.sample(3, y=7, seed=0))
    with pytest.raises(LimnerError, match="there is no class 'seven'"):
        model.sample(1, y="seven")
    with pytest.raises(LimnerError, match=r"has no sampling option 'steps' .it has truncation.; leave steps out"):
        limner.sample(run.path, 2, steps=5)
    assert limner.sample(run.path, 2, truncation=0.5).shape == (2, 1, 16, 16)


@pytest.mark.parametrize(
    ("names", "asked", "index"),
    [
        (["1", "2", "3"], 2, 1),  # the class named 2, in Python as on the command line
        (["1", "2", "3"], "2", 1),
        (["0", "1", "10", "2"], 2, 3),  # a run of before, with its classes in the order of their text
        (["0", "1", "10", "2"], 10, 2),
        (["2", "7"], "7", 1),
        (["007", "8"], 7, 0),
        (["-1", "0", "1"], -1, 0),
        (["cat", "7"], 7, 1),
        (["cat", "7"], 0, 0),
    ],
)
def test_a_number_is_the_name_of_a_class_before_it_is_an_index(names, asked, index):
    assert Classes(names).read(asked, 2).tolist() == [index] * 2
    assert Classes(names).read([asked], 1).tolist() == [index]


@pytest.mark.parametrize("asked", [0, "0", 4, [0, 1]])
def test_where_all_names_are_numbers_no_number_is_an_index(asked):
    with pytest.raises(LimnerError, match=r"there is no class '?[04]'?; choose from: 1, 2, 3"):
        Classes(["1", "2", "3"]).read(asked, 2)


def test_names_may_be_listed():
    assert Classes(["cat", "dog"]).read(["dog", "cat"], 2).tolist() == [1, 0]
