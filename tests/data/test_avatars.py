"""Cartoon faces: a label says what is to be seen, training never sees the held-out combinations, captions are true."""

from __future__ import annotations

import sys
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from limner.core.condition import Attributes
from limner.core.errors import LimnerError
from limner.data import load
from limner.data.sources import avatars
from limner.data.sources._captions import CAPTIONS, caption
from limner.data.sources.avatars import VALUES, described, faces, held_out, sampled

pytest.importorskip("python_avatars", reason="python-avatars draws faces: pip install 'limner[avatars]'")
pytest.importorskip("resvg_py", reason="resvg-py draws faces: pip install 'limner[avatars]'")

NAMES, SIZES = list(VALUES), [len(v) for v in VALUES.values()]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """An empty cache of this file's own; it is filled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMNER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def half(x):
    """Images (N,64,64,3) at 32×32."""
    return np.stack([np.asarray(Image.fromarray(i).resize((32, 32), Image.Resampling.BOX), np.int64) for i in x])


@pytest.mark.parametrize("name", NAMES)
def test_another_value_of_one_attribute_is_another_picture(name):
    chance, f = np.random.RandomState(0), NAMES.index(name)
    rest = np.stack([chance.randint(0, k, 30) for k in SIZES], 1)
    pictures = []
    for value in range(SIZES[f]):
        rest[:, f] = value
        pictures.append(half(faces(rest)))
    for a, b in combinations(range(SIZES[f]), 2):
        change = np.abs(pictures[a] - pictures[b]).max((1, 2, 3))
        assert change.min() >= 24, (VALUES[name][a], VALUES[name][b], described(rest[change.argmin()].tolist()))


def test_a_face_is_its_whole_drawing():
    """Two drawings, one over the other, are what the package draws at once; but for rounding of 8 bits."""
    import python_avatars
    import resvg_py

    for row in sampled(8).tolist():
        svg = avatars._svg(python_avatars, described(row), ("Body", "Face", "Top"))
        whole = avatars._drawn(svg, 64, resvg_py, avatars._BACKGROUND)[..., :3].astype(int)
        assert np.abs(faces(np.array([row]))[0] - whole).max() <= 3


def test_nothing_but_the_attributes_changes():
    x = faces(sampled(500))
    assert (x == (0x8C, 0xCB, 0xE6)).all((0, 3)).any(), "what no hair covers is the background in every picture"
    assert len(np.unique(x.reshape(500, -1), axis=0)) == 500, "different faces are different pictures"


def test_labels_of_a_set():
    whole = load("avatars", n=300, split="all")
    assert (len(whole), whole.shape) == (300, (3, 64, 64))
    assert isinstance(whole.condition, Attributes)
    assert dict(whole.condition.values) == VALUES
    assert whole.labels.shape == (300, sum(SIZES)) == (300, 39)
    table = torch.from_numpy(sampled(300))
    assert torch.equal(whole.condition.features(whole.labels), table)
    assert torch.equal(whole.factors, table)
    assert (whole.factor_sizes, whole.factor_names) == (tuple(SIZES), tuple(NAMES))
    assert torch.equal(whole.pixels.permute(0, 2, 3, 1), torch.from_numpy(faces(table.numpy())))
    y = whole.condition.read("hair=afro glasses=round", 3)
    assert whole.condition.features(y)[:, [0, 4]].tolist() == [[9, 1]] * 3


def test_training_never_sees_what_is_held_out():
    parts = {split: load("avatars", n=1200, split=split) for split in ("train", "test")}
    columns = [NAMES.index(name) for name in ("hair_colour", "glasses", "facial_hair")]
    triples = {split: {tuple(r) for r in part.factors[:, columns].tolist()} for split, part in parts.items()}
    assert len(triples["test"]) == 12
    assert len(triples["train"]) == 60
    assert not triples["train"] & triples["test"]
    assert len(parts["train"]) + len(parts["test"]) == 1200
    pairs = {(i, j, t[i], t[j]) for t in triples["train"] for i, j in combinations(range(3), 2)}
    assert len(pairs) == 6 * 3 + 6 * 4 + 3 * 4, "every pair of values is trained on"


def test_values_are_as_frequent_among_held_out_combinations():
    every = np.stack(np.unravel_index(np.arange(avatars.FACES), SIZES), 1)
    held = held_out(every)
    for f, k in enumerate(SIZES):
        assert (np.bincount(every[held, f], minlength=k) * k == held.sum()).all(), NAMES[f]


def test_the_same_faces_each_time_and_never_drawn_again(monkeypatch):
    first = load("avatars", n=40, split="all")
    monkeypatch.setattr(avatars, "_draw", lambda *_: pytest.fail("drawn again"))
    again, more = load("avatars", n=40, split="all"), load("avatars", n=60, split="all")
    assert again.fingerprint == first.fingerprint != more.fingerprint
    assert torch.equal(more.pixels[:40], first.pixels), "fewer faces are the first of more"
    small = load("avatars", n=10, split="all", size=32)
    assert small.shape == (3, 32, 32), "reduced from the drawings at 64"
    assert load("avatars", n=10, split="all", size=32, channels=1).shape == (1, 32, 32)


def test_some_attributes_as_labels():
    some = load("avatars", n=50, attributes=["glasses", "hair_colour"], split="all")
    assert list(some.condition.values) == ["hair_colour", "glasses"]
    assert some.labels.shape == (50, 9)
    assert len(some.factor_names) == 7, "what is known of a picture does not change"
    without = load("avatars", n=200, only=["glasses=none"])
    assert (without.factors[:, 4] == 0).all()
    assert "glasses" not in without.condition.values


def test_captions_say_what_is_drawn():
    data = load("avatars", n=30)
    assert len(data.texts) == len(data)
    assert all(len(set(texts)) == CAPTIONS >= 6 for texts in data.texts)
    for row, texts in zip(data.factors.tolist(), data.texts, strict=True):
        assert texts == [caption(described(row), k) for k in range(CAPTIONS)]
    for k in range(CAPTIONS):
        every = [caption(described(row), k) for row in np.ndindex(2, 3, 2, *SIZES[3:])]
        assert len(set(every)) == len(every), "different faces have different captions"
    assert "glasses" not in caption({"hair": "bun", "eyes": "wink"}), "nothing is said of what is not asked for"
    assert caption({"hair": "bun"}, 5) == "an avatar that has a bun"


@pytest.mark.parametrize(
    ("face", "phrasing"), [({"hair": "green"}, 0), ({"hat": "top"}, 0), ({"eyes": "open"}, 99), ({}, 0)]
)
def test_captions_of_nothing_are_refused(face, phrasing):
    with pytest.raises(ValueError, match=r"no phrasing 99|no value 'green'|names no attribute"):
        caption(face, phrasing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attributes": ["glases"]}, "unknown attribute of avatars 'glases'; did you mean 'glasses'?"),
        ({"attributes": []}, "names none; write a list such as"),
        ({"n": 0}, "there are 86,400 different faces"),
        ({"size": 512}, "choose a size of at most 256"),
        ({"n": 20, "only": ["glasses=rond"]}, "unknown value of glasses 'rond'; did you mean 'round'"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(LimnerError) as error:
        load("avatars", **options)
    assert message in str(error.value)


@pytest.mark.parametrize("module", ["python_avatars", "resvg_py"])
def test_without_the_extra(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LimnerError, match=r"pip install 'limner\[avatars\]'"):
        load("avatars", n=20)
