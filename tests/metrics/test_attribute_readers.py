"""The pinned readers: accuracy on combinations that training never showed, and that they take any images."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from limner.core.batch import to_float
from limner.core.errors import LimnerError
from limner.data import load
from limner.data.sources.solids import VALUES, views
from limner.metrics.extractors import attributes, features
from limner.metrics.extractors.attributes import attribute_reader
from limner.metrics.extractors.features import Extractor
from limner.metrics.extractors.readers import READERS, ReadsAttributes, ReadsQuantities, Recognises, reading


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """500 faces or so with held-out combinations."""
    for module in ("python_avatars", "resvg_py"):
        pytest.importorskip(module, reason="faces are drawn by: pip install 'limner[avatars]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMNER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield load("avatars", n=3000, split="test")


def test_reads_every_attribute_of_combinations_it_never_saw(faces):
    reader = READERS["avatars"]("cpu")
    assert isinstance(reader, ReadsAttributes)
    assert isinstance(reader, Extractor)
    assert reader.values == {name: list(known) for name, known in faces.condition.values.items()}
    for x in (faces.pixels, F.interpolate(to_float(faces.pixels), 32, mode="area")):
        right = (reader.read(x) == faces.factors).double().mean(0)
        # of all 9,952 it reads more than 99 %, which its header says; here a standard error is 0.4 %
        assert (right >= 0.98).all(), dict(zip(reader.values, right.tolist(), strict=True))
    assert torch.equal(reading(reader.logits(x), reader.values, faces.condition.values), reader.read(x))


def test_reads_every_factor_of_heads_it_never_saw():
    heads, reader = load("solids", split="test"), READERS["solids"]("cpu")
    assert isinstance(reader, ReadsQuantities)
    assert reader.quantities == dict.fromkeys(VALUES)
    # widths a tenth apart are the hardest: at 60° to the side the outlines differ by a fifth of a pixel, and the filter
    # by which a picture was made smaller tells
    for x, width in ((heads.pixels, 0.99), (load("solids", split="test", size=32).pixels, 0.96)):
        right = (reader.read(x) == heads.factors).double().mean(0)
        assert (right >= torch.tensor([0.99, 0.99, 0.99, width])).all(), dict(zip(reader.values, right.tolist()))


def test_reads_heads_at_amounts_between_those_of_the_set():
    chance = np.random.RandomState(5)
    ends = [(float(v[0]), float(v[-1])) for v in VALUES.values()]
    amounts = np.array([[chance.uniform(*e) for e in ends] for _ in range(40)])
    x = torch.from_numpy(np.stack([views(a, e, [light], w) for a, e, light, w in amounts]))
    for k, (name, logits) in enumerate(attribute_reader("solids-v1").logits(x).items()):
        values = torch.tensor([float(v) for v in VALUES[name]])
        read = logits.softmax(1) @ values
        error = (read - torch.from_numpy(amounts[:, k]).float()).abs().mean() / (values[-1] - values[0])
        assert error < 0.05, (name, float(error))  # at most a third of a step


def test_soft_images_are_read_too(faces):
    x = F.avg_pool2d(F.pad(to_float(faces.pixels), (1, 1, 1, 1), mode="replicate"), 3, 1) * 0.9 - 0.05
    right = (attribute_reader("avatars-v1").read(x) == faces.factors).double().mean(0)
    assert (right >= 0.97).all(), right


def test_what_is_shipped_is_small_and_pinned():
    for key, sha256 in attributes._SHA256.items():
        file = features._WEIGHTS / f"{key}.safetensors"
        assert file.stat().st_size < 1_000_000
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256
        reader = attribute_reader(key)
        assert sum(p.numel() for p in reader._net.parameters()) == reader.about["parameters"]
        assert reader.about["accuracy_test"].keys() == reader.values.keys()
        least = [share for name, share in reader.about["accuracy_test"].items() if name not in reader.quantities]
        assert min(least, default=1.0) >= 0.99
        assert max(reader.about.get("error_between", {"none": 0.0}).values()) <= 0.04


@pytest.mark.parametrize("key", list(attributes._SHA256))
def test_any_size_batch_and_grey_images(key):
    reader = attribute_reader(key)
    x = torch.randint(0, 256, (9, reader.channels, 48, 40), dtype=torch.uint8)
    z = reader.features(x)
    assert z.shape == (9, reader.dims)
    torch.testing.assert_close(reader.features(to_float(x), batch=4), z)
    assert {name: tuple(l.shape) for name, l in reader.logits(x).items()} == {
        name: (9, len(known)) for name, known in reader.values.items()
    }
    grey = x[:, :1]
    torch.testing.assert_close(reader.features(grey), reader.features(grey.expand(-1, reader.channels, -1, -1)))
    assert reader.read(x[:0]).shape == (0, len(reader.values))


@pytest.mark.parametrize("key", list(attributes._SHA256))
def test_gradients_reach_the_images_through_the_same_features(key, monkeypatch):
    monkeypatch.setattr(attributes, "_loaded", cache(attributes._loaded.__wrapped__))
    with torch.inference_mode():  # as in evaluation
        reader = attribute_reader(key)
    assert isinstance(reader, Recognises)
    x = (torch.rand(2, reader.channels, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1).requires_grad_()
    z = reader.recognise(x)
    assert torch.equal(z.detach(), reader.features(x.detach()))
    (gradient,) = torch.autograd.grad(z.square().sum(), x)
    step = 1e-2 * gradient / gradient.norm()
    with torch.no_grad():
        change = (reader.features(x + step).square().sum() - reader.features(x - step).square().sum()) / 2
    torch.testing.assert_close(change, (gradient * step).sum(), rtol=0.05, atol=0)


def test_images_it_does_not_read():
    with pytest.raises(LimnerError, match=r"reads grey or colour images .* shape \(1, 2, 32, 32\)"):
        attribute_reader("avatars-v1").features(torch.zeros(1, 2, 32, 32))
    with pytest.raises(LimnerError, match=r"must lie in \[-1,1\]"):
        attribute_reader("avatars-v1").features(torch.full((1, 3, 32, 32), 2.0))
    with pytest.raises(LimnerError, match="unknown reader of attributes 'avatar-v1'; did you mean 'avatars-v1'"):
        attribute_reader("avatar-v1")
