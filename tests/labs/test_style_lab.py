"""The lab of neural style transfer: its numbers are those of pencil and paper, and its page comes about."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from limner import labs
from limner.core.errors import LimnerError
from limner.labs import style as lab

Matrix = tuple[tuple[float, ...], ...]


def gram(f: Matrix) -> list[list[Fraction]]:
    """F Fᵀ in fractions, an entry at a time."""
    return [[sum((Fraction(a) * Fraction(b) for a, b in zip(x, y, strict=True)), Fraction()) for y in f] for x in f]


def test_the_numbers_by_hand_are_those_of_fractions() -> None:
    g, a = gram(lab.MAPS), gram(lab.STYLE_MAPS)
    assert [list(row) for row in lab.GRAM] == g
    assert [list(row) for row in lab.STYLE_GRAM] == a
    n, m = 2, 4
    apart = sum((g[i][j] - a[i][j]) ** 2 for i, j in product(range(n), repeat=2))
    assert apart == 55
    by_hand = {
        "gatys": apart / (4 * n**2 * m**2),
        "places": apart / m**2 / n**2,
        "all": apart / (n * m) ** 2 / n**2,
    }
    assert {k: float(v) for k, v in by_hand.items()} == lab.BY_HAND


def test_the_library_agrees_and_its_gradient_is_equation_6() -> None:
    f, a = (torch.tensor(x, dtype=torch.float64).view(1, 2, 2, 2) for x in (lab.MAPS, lab.STYLE_MAPS))
    for convention in lab.CONVENTIONS:
        assert lab.energy(f, a, convention) == pytest.approx(lab.BY_HAND[convention], abs=1e-12)
    torch.testing.assert_close(*lab.gradient(f, a), rtol=0, atol=1e-12)


def test_folding_a_batch_multiplies_maps_of_different_pictures() -> None:
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    mixed = lab.folded(x) * x.numel()
    torch.testing.assert_close(mixed[:3, 3:], x[0].flatten(1) @ x[1].flatten(1).T)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a net that ends at conv3_1, drawn at random (He et al. 2015)."""
    g, drawn = torch.Generator().manual_seed(0), {}
    for n, a, b in (("1_1", 3, 64), ("1_2", 64, 64), ("2_1", 64, 128), ("2_2", 128, 128), ("3_1", 128, 256)):
        drawn[f"conv{n}.weight"] = torch.randn(b, a, 3, 3, generator=g) * (2 / (9 * a)) ** 0.5
        drawn[f"conv{n}.bias"] = torch.zeros(b)
    path = tmp_path_factory.mktemp("lab") / "vgg.safetensors"
    save_file(drawn, path)
    return str(path)


def test_the_lab_reconstructs_and_paints(weights: str, tmp_path: Path) -> None:
    done = labs.run("style", out=tmp_path / "lab", weights=weights, size=48, iterations=12)
    assert all(c["ok"] for c in done["checks"])
    page = Path(done["page"]).read_text()
    for title in (
        "The Gram matrix by hand",
        "the information of a layer",
        "From noise to a painting",
        "The ratio of content and style",
    ):
        assert title in page
    assert weights not in page  # the page may be shown to others; paths of this machine stay here
    found = json.loads((tmp_path / "lab" / "results.json").read_text())["results"]
    assert list(found["content"]["psnr"]) == ["relu1_1", "relu2_1", "relu3_1"]
    assert found["content"]["psnr"]["relu1_1"] > found["content"]["psnr"]["relu3_1"]
    style = found["balance"]["style"]
    assert style[0] > style[1] > style[-1]
    assert found["on_pictures"]["relative_distance"]["the painting, moved"] < 0.5
    assert len(done["run"]) == 3 + 3 + 2 + 3


def test_what_the_lab_needs_is_said_before_anything_is_written(weights: str, tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match=r"nowhere\.safetensors"):
        labs.run("style", out=tmp_path / "a", weights=str(tmp_path / "nowhere.safetensors"))
    with pytest.raises(LimnerError, match="there is no picture"):
        labs.run("style", out=tmp_path / "b", weights=weights, content="nobody.png")
    folder = tmp_path / "many"
    folder.mkdir()
    from PIL import Image

    for k in range(3):
        Image.fromarray(load_sample_image("china.jpg")).resize((64, 48)).save(folder / f"{k}.png")
    with pytest.raises(LimnerError):
        labs.run("style", out=tmp_path / "c", weights=weights, content=str(folder))
    assert not any((tmp_path / n).exists() for n in "abc")
