"""A picture in use is prepared as a picture in training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import limner.data
from limner.apply.images import ImageSource
from limner.core.batch import to_uint8


@pytest.mark.parametrize("shape", [(3, 16, 96), (1, 96, 16), (3, 32, 32), (4, 20, 60)])
def test_files_are_read_as_for_training(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """JPEG at the same scale, alpha over white at the same moment: wide shapes differed by up to 61 levels."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (700, 900, 3)).astype(np.uint8))
    for name in ("a.jpg", "b.jpg"):
        noise.save(tmp_path / name, quality=90)
    soft = noise.copy()
    soft.putalpha(Image.linear_gradient("L").resize(soft.size))
    soft.save(tmp_path / "c.png")
    noise.quantize(9).save(tmp_path / "d.gif")
    trained = limner.data.load(str(tmp_path), size=shape[1:], channels=shape[0], split="all")
    expected = trained.fetch(range(len(trained)))
    source = ImageSource(tmp_path, shape)
    ((names, x),) = source.batches()
    assert names == ["a.jpg", "b.jpg", "c.png", "d.gif"]
    assert torch.equal(to_uint8(x), expected)
    c, h, w = shape
    said = [f"resized and cropped to {h}×{w}, as for training (4 pictures)"]
    assert source.told() == said + ["transparency is laid over white, as for training (1 picture)"] * (c != 4)


def test_scores_are_written_as_utf_8_once(
    tmp_path: Path, save_autoencoder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from limner.apply import tasks
    from limner.core.errors import LimnerError
    from limner.models.autoencoder import Autoencoder

    def score(self: object, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3))

    monkeypatch.setattr(Autoencoder, "score_samples", score, raising=False)
    (tmp_path / "in").mkdir()
    for name in ("日本.png", "a,b.png"):
        Image.new("L", (9, 9), len(name)).save(tmp_path / "in" / name)
    model = save_autoencoder(tmp_path / "m.safetensors", (1, 8, 8))
    result = tasks.apply(model, tmp_path / "in", tmp_path / "out.v1/", task="anomaly", device="cpu")
    lines = (tmp_path / "out.v1" / "scores.csv").read_bytes().decode("utf-8").splitlines()
    assert (result["n"], lines[0], len(lines)) == (2, "picture,score", 3)
    assert lines[1].startswith("日本.png,")
    with pytest.raises(LimnerError, match="exists already"):
        tasks.apply(model, tmp_path / "in", tmp_path / "out.v1/", task="anomaly", device="cpu")
