"""The pinned digit classifier: what it knows, what it accepts, and that it is the one that was pinned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from limner import data
from limner.core.batch import to_float
from limner.core.errors import LimnerError
from limner.metrics.extractors import features
from limner.metrics.extractors.features import lenet64
from limner.metrics.frechet import frechet


@pytest.fixture(scope="module")
def digits() -> data.Pixels:
    return data.load("mnist-5k", split="all", limit=1000)


def test_it_knows_digits(digits: data.Pixels) -> None:
    """Most of these were among its 60,000 training images; the held-out accuracy is in the header."""
    logits = lenet64().classify(digits.pixels)
    assert logits.shape == (1000, 10)
    assert (logits.argmax(1) == digits.labels).float().mean() >= 0.995
    assert lenet64().about["accuracy_test"] >= 0.993
    assert lenet64().about["test_images"] == 10_000


def test_features_are_z_scores(digits: data.Pixels) -> None:
    z = lenet64().features(digits.pixels)
    assert z.shape == (1000, 64)
    assert z.dtype == torch.float32
    assert z.mean(0).abs().max() < 0.15  # 1,000 images: a standard error of 0.03
    assert (z.std(0) - 1).abs().max() < 0.15


def test_both_is_each(digits: data.Pixels) -> None:
    x = digits.pixels[:50]
    z, logits = lenet64().both(x)
    assert torch.equal(z, lenet64().features(x))
    assert torch.equal(logits, lenet64().classify(x))


def test_batch_and_order_do_not_matter(digits: data.Pixels) -> None:
    x = digits.pixels[:100]
    z = lenet64().features(x)
    for batch in (1, 7, 100):
        torch.testing.assert_close(lenet64().features(x, batch=batch), z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lenet64().features(x.flip(0)).flip(0), z, rtol=1e-4, atol=1e-4)


def test_large_images_are_computed_in_smaller_batches(digits: data.Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    x = digits.pixels[:20]
    z, logits = lenet64().both(x)
    monkeypatch.setattr(features, "_VALUES", 3 * 28 * 28)
    for few, whole in zip(lenet64().both(x), (z, logits), strict=True):
        torch.testing.assert_close(few, whole, rtol=1e-4, atol=1e-4)


def test_memory_is_bounded_by_the_batch(digits: data.Pixels) -> None:
    shapes = []
    hook = lenet64()._net.register_forward_hook(lambda m, i, o: shapes.append(tuple(i[0].shape)))
    lenet64().features(digits.pixels[:60].repeat(1, 3, 2, 2), batch=25)
    hook.remove()
    assert shapes == [(25, 1, 28, 28), (25, 1, 28, 28), (10, 1, 28, 28)]


def test_bytes_and_floats_are_the_same_images(digits: data.Pixels) -> None:
    x = digits.pixels[:20]
    assert torch.equal(lenet64().features(x), lenet64().features(to_float(x)))
    assert torch.equal(lenet64().features(x), lenet64().features(to_float(x).double()))


def test_colour_and_other_sizes(digits: data.Pixels) -> None:
    x = to_float(digits.pixels[:200])
    z = lenet64().features(x)
    grey = x.repeat(1, 3, 1, 1)
    torch.testing.assert_close(lenet64().features(grey), z, rtol=1e-4, atol=1e-3)
    large = x.repeat_interleave(2, 2).repeat_interleave(2, 3)  # 56×56: antialiasing sees it nearly as it was
    assert (lenet64().classify(large).argmax(1) == digits.labels[:200]).float().mean() >= 0.98
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), value=-1)  # 32×32
    assert (lenet64().classify(padded).argmax(1) == digits.labels[:200]).float().mean() >= 0.98


def test_resizing_is_antialiased() -> None:
    """Fine stripes become the grey they are on average; without antialiasing they would be black or white."""
    stripes = torch.ones(1, 1, 28 * 4, 28 * 4)
    stripes[..., ::2] = -1
    torch.testing.assert_close(
        lenet64().features(stripes), lenet64().features(torch.zeros(1, 1, 28, 28)), rtol=0.05, atol=0.05
    )


def test_the_distance_sees_what_matters(digits: data.Pixels) -> None:
    x = to_float(digits.pixels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    a, b = lenet64().features(x[order[:500]]), lenet64().features(x[order[500:]])
    same = frechet(a, b)
    noisy = (x[order[500:]] + 0.5 * torch.randn(500, 1, 28, 28, generator=torch.Generator().manual_seed(1))).clamp(
        -1, 1
    )
    lost = x[order[500:]][digits.labels[order[500:]] != 3]
    flipped = x[order[500:]].flip(3)
    for worse in (noisy, lost, flipped):
        assert frechet(a, lenet64().features(worse)) > 1.5 * same


def test_training_mode_and_autocast_change_nothing(digits: data.Pixels) -> None:
    x = digits.pixels[:10]
    z = lenet64().features(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lenet64().features(x), z)
    assert not z.requires_grad


def test_it_is_read_once() -> None:
    assert lenet64() is lenet64("cpu") is lenet64(torch.device("cpu"))


def test_no_images_give_no_features() -> None:
    assert lenet64().features(torch.zeros(0, 1, 28, 28)).shape == (0, 64)
    assert lenet64().classify(torch.zeros(0, 3, 5, 5)).shape == (0, 10)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(4, 2, 28, 28), "grey or colour images"),
        (torch.zeros(28, 28), "grey or colour images"),
        (torch.zeros(4, 1, 28, 28, dtype=torch.int64), "it got a int64 tensor"),
        (torch.full((4, 1, 28, 28), 255.0), r"must lie in \[-1,1\], these reach from 255 to 255"),
        (torch.full((4, 1, 28, 28), -1.5), r"these reach from -1.5 to -1.5"),
        (torch.full((4, 1, 28, 28), float("nan")), r"these reach from nan"),
    ],
)
def test_what_is_no_image_is_refused(x: torch.Tensor, message: str) -> None:
    with pytest.raises(LimnerError, match=message):
        lenet64().features(x)
    with pytest.raises(LimnerError, match="batch=0"):
        lenet64().features(torch.zeros(1, 1, 28, 28), batch=0)


def test_the_file_is_small_and_pinned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = features._WEIGHTS / "lenet64-v1.safetensors"
    content = file.read_bytes()
    assert len(content) < 1_000_000
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert "benchmarks/extractor.py" in json.loads(header["__metadata__"]["about"])["recipe"]
    monkeypatch.setattr(features, "_WEIGHTS", tmp_path)
    features._loaded.cache_clear()
    with pytest.raises(LimnerError, match=r"cannot be read \(No such file or directory\); reinstall limner"):
        lenet64()
    changed = bytearray(content)
    changed[-1] ^= 1
    (tmp_path / file.name).write_bytes(changed)
    with pytest.raises(LimnerError, match="is not the file that limner was released with"):
        lenet64()
    (tmp_path / file.name).write_bytes(content)
    assert lenet64().key == "lenet64-v1"
    features._loaded.cache_clear()
