"""What a user asks for becomes labels, labels become what nets take, and a model keeps the names of its classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import limner
from limner.core.condition import ENCODERS, Attributes, Classes, Vectors, from_header
from limner.core.errors import LimnerError

SETTINGS = {"data.limit": 64, "data.size": 16, "images": 64, "batch": 8, "samples": 4, "device": "cpu", "threads": 1}


def test_labels_are_read_by_name_index_or_one_by_one() -> None:
    animals = Classes(["cat", "dog", "owl"])
    assert animals.read("owl", 2).tolist() == animals.read(2, 2).tolist() == animals.read("2", 2).tolist() == [2, 2]
    assert animals.read(torch.tensor([0, 2]), 2).tolist() == animals.read([0, 2], 2).tolist() == [0, 2]
    assert animals.default(5).tolist() == [0, 1, 2, 0, 1]
    assert torch.equal(animals.encode(torch.tensor([1, 0])), torch.eye(3)[[1, 0]])
    assert Classes(["10", "7"]).read("7", 1).tolist() == [1], "a name comes before an index"


@pytest.mark.parametrize(
    "asked", [3, -1, "cow", [0], [0, 1, 2], torch.tensor([0.5, 1.0]), {"hair": "red"}, ["cat", 0.5]]
)
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


FACES = Attributes(
    {"hair": ["red", "grey"], "glasses": ["none", "round", "very large"]}, [[0, 0], [0, 1], [1, 2], [1, 2]]
)


def test_attributes_are_read_named_and_encoded():
    y = FACES.read("hair=grey, glasses=very large", 2)
    assert y.tolist() == [[0, 1, 0, 0, 1]] * 2
    assert torch.equal(FACES.encode(y), y)
    assert FACES.name(y) == ["hair=grey glasses=very large"] * 2
    assert FACES.features(y).tolist() == [[1, 2]] * 2
    assert torch.equal(FACES.read({"hair": "grey", "glasses": "very large"}, 2), y)
    assert torch.equal(FACES.read(FACES.features(y), 2), y)
    assert torch.equal(FACES.read(y, 2), y)
    assert FACES.features(torch.zeros(1, 5)).tolist() == [[-1, -1]], "zeros are not known"
    assert from_header(FACES.header()) == FACES


def test_what_is_left_open_is_as_in_the_data():
    assert FACES.name(FACES.default(5)) == [*FACES.name(FACES.default(4)), "hair=red glasses=none"]
    asked = FACES.read("hair=red", 4)
    assert FACES.name(asked) == ["hair=red glasses=none", "hair=red glasses=round"] * 2
    assert FACES.name(FACES.read("glasses=round", 2)) == ["hair=red glasses=round"] * 2
    never = FACES.read("hair=grey glasses=none", 1)
    assert FACES.name(never) == ["hair=grey glasses=none"], "a combination that does not occur is what was asked for"
    assert FACES.name(FACES.read(["hair=red", {"hair": "grey"}], 2))[1].startswith("hair=grey")


def test_without_rows_every_value_is_equally_likely():
    """And attributes do not go together: each pair of values is about as frequent as any other."""
    open_ = Attributes({"a": ["x", "y"], "b": ["p", "q", "r"], "c": ["1", "2", "3", "4", "5"]})
    for column, known in zip(open_.rows.unbind(1), open_.values.values(), strict=True):
        counts = column.bincount(minlength=len(known))
        assert counts.max() - counts.min() <= 1
    pairs = (3 * open_.rows[:, 0] + open_.rows[:, 1]).bincount(minlength=6) / len(open_.rows)
    assert pairs.sub(1 / 6).abs().max() < 0.05


def test_attributes_in_another_order_are_another_condition():
    values = dict(FACES.values)
    assert Attributes(values) == FACES
    assert Attributes(dict(reversed(values.items()))) != FACES, "vectors of the one mean nothing to the other"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({3: "red"}, "no attribute '3'; choose from: hair, glasses"),
        (["hair=red", 3], r"labels must be text such as"),
        (object(), r"labels must be text such as"),
        ("hare=red", r"no attribute 'hare' \(did you mean 'hair'\?\); choose from: hair, glasses"),
        ("hair=rde", r"hair has no value 'rde' \(did you mean 'red'\?\); choose from: red, grey"),
        ("red", r"'red' names no attribute; write for example 'hair=grey glasses=very large'"),
        ("", "an empty text names no attribute"),
        (3, "3 names no attribute"),
        ("hair=red hair=grey", "hair is asked for twice"),
        (["hair=red"], "1 labels for 2 images"),
        (torch.tensor([[0, 3], [0, 0]]), "no value of such an index"),
        (torch.zeros(2, 4), r"vectors \(2, 5\)"),
    ],
)
def test_attributes_that_do_not_exist_are_refused(asked, message):
    with pytest.raises(LimnerError, match=message):
        FACES.read(asked, 2)


def test_a_sheet_shares_noise_along_its_rows(tmp_path):
    run = limner.train("cvae-mnist", out=tmp_path / "run", **SETTINGS)
    model = limner.load(run.path)
    sheet = model.sample(20, seed=1, columns=10)
    rows = model.prior.sample(2, torch.Generator().manual_seed(1))
    expected = model.decode(rows[1].expand(10, -1), torch.arange(10))
    assert torch.allclose(sheet[10:], expected, atol=1e-5)
    threes = model.sample(2, seed=1, y=torch.tensor(3))
    assert torch.equal(threes, model.sample(2, seed=1, y=3)), "one label as a tensor is one for all images"
    two = model.sample(4, seed=1, y=["3", "7"], columns=2)
    assert torch.allclose(two[3], sheet[17], atol=1e-5)
    with pytest.raises(LimnerError, match="a row of 0 images is none"):
        model.sample(4, columns=0)
    between = model.sample(6, seed=1, y="3", to="7", columns=3)
    half = (torch.eye(10)[3] + torch.eye(10)[7])[None] / 2
    assert torch.allclose(between[[0, 2]], two[:2], atol=1e-5), "the ends are the labels themselves"
    assert torch.allclose(between[4:5], model.decode(rows[1:], half), atol=1e-5)
    grid = model.sample_grid(20, 1)
    assert grid.headings == [str(k) for k in range(10)]
    assert torch.allclose(grid.images, sheet, atol=1e-5)


# --- captions ----------------------------------------------------------------------------------------


def by_length(texts: Sequence[str]) -> torch.Tensor:
    """A text encoder of which every number can be told."""
    return torch.tensor([[float(len(text)), 1.0, 0.0] for text in texts])


@pytest.fixture
def captions(monkeypatch: pytest.MonkeyPatch) -> Vectors:
    monkeypatch.setitem(ENCODERS, "length", by_length)
    texts = ["a cat", "a black cat", "a very large dog"]
    return Vectors("length", texts, by_length(texts))


def test_captions_are_read_as_vectors(captions: Vectors) -> None:
    assert captions.read("a mouse", 2).tolist() == [[7, 1, 0]] * 2
    assert captions.read(["a cat", "no"], 2).tolist() == [[5, 1, 0], [2, 1, 0]]
    asked = torch.randn(2, 3)
    assert torch.equal(captions.read(asked, 2), asked)
    assert torch.equal(captions.encode(asked), asked)
    assert captions.default(4).tolist() == by_length(["a cat", "a black cat", "a very large dog", "a cat"]).tolist()
    assert captions.features(asked).shape == (2, 0)
    assert captions.values == {}


@pytest.mark.parametrize("asked", [3, "  ", ["one"], [1, 2], torch.zeros(2, 4), torch.zeros(2, 3, dtype=torch.int64)])
def test_what_is_no_caption_is_refused(captions: Vectors, asked: object) -> None:
    with pytest.raises(LimnerError, match=r"text such as 'a cat'|an empty text|1 texts for 2 images"):
        captions.read(asked, 2)


def test_a_vector_is_named_by_the_nearest_text_that_is_known(captions: Vectors) -> None:
    near = torch.tensor([[11.2, 1.0, 0.0]])
    assert captions.name(near) == ["a black cat"]
    captions.read("a black hen!", 1)
    assert captions.name(torch.tensor([[11.9, 1.0, 0.0]])) == ["a black hen!"], "also one that was only read"


def test_captions_survive_their_header(captions: Vectors) -> None:
    header = json.loads(json.dumps(captions.header()))
    again = from_header(header)
    assert again == captions
    assert torch.equal(again.default(3), captions.default(3))
    for wrong in ({"vectors": "%%"}, {"vectors": header["vectors"][:8]}, {"size": -3}, {"texts": []}, {"size": "x"}):
        with pytest.raises(ValueError, match=r"vectors|caption|int"):
            from_header({**header, **wrong})


def test_a_condition_keeps_few_captions() -> None:
    texts = [str(k) for k in range(1000)]
    kept = Vectors("length", texts, by_length(texts))
    assert len(kept.texts) == 64
    assert kept.read(kept.texts[5], 1).tolist() == by_length(kept.texts[5:6]).tolist(), "known without an encoder"


def test_an_unknown_encoder_is_named(captions: Vectors) -> None:
    other = Vectors("another", captions.texts, captions.vectors)
    assert other.read("a cat", 1).tolist() == [[5, 1, 0]]
    with pytest.raises(LimnerError, match=r"no text encoder 'another' in this version of limner; write one of 'a cat'"):
        other.read("a mouse", 1)
    assert other != captions
