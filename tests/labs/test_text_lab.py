"""The lab of text to image runs through, tells obedience from good pictures, and says what is not installed."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from limner import labs
from limner.core.errors import LimnerError
from limner.core.run import Run
from limner.data import load
from limner.data.texts import minilm
from limner.metrics.conditions import Agreement
from limner.metrics.extractors.attributes import attribute_reader

lab = importlib.import_module("limner.labs.text")
SMALL = {"name": "avatars", "n": 1000, "size": 16, "condition": "text", "captions": 1}


def words(texts: list[str]) -> Tensor:
    """Vectors of texts: the sum of a random one for each word."""
    rows = []
    for text in texts:
        seeds = [sum(ord(c) * 31**k for k, c in enumerate(word)) % 2**31 for word in text.split()]
        rows.append(sum(torch.randn(384, generator=torch.Generator().manual_seed(seed)) for seed in seeds))
    return F.normalize(torch.stack(rows), dim=1)


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("python_avatars", "resvg_py"):
        pytest.importorskip(module, reason="faces are drawn by: pip install 'limner[avatars]'")
    monkeypatch.setattr("limner.data.texts.vectors.encode", words)


def test_the_lab_runs_through_and_its_trainings_differ_in_wrong_captions_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "DATA", SMALL)
    monkeypatch.setattr(lab, "TRAINING", lab.TRAINING | {"model.G.width": 4, "model.D.width": 4})
    monkeypatch.setattr(lab, "_MEASURED", 120)
    result = labs.run("text", out=tmp_path / "lab", images=128, seed=1)
    assert [c["name"] for c in result["checks"] if not c["ok"]] == []
    assert len(result["checks"]) == 9
    one, other = (Run(path).recipe for path in result["run"])
    assert other["model"].pop("wrong") == 0
    assert one["model"].pop("wrong", 0.5) == 0.5
    assert one["model"] == other["model"]
    assert [one[key] for key in ("data", "optim")] == [other[key] for key in ("data", "optim")]
    assert other["train"].items() <= one["train"].items()
    page = Path(result["page"]).read_text(encoding="utf-8")
    assert page.count("data:image/png") == len(result["figures"]) == 5
    assert "limner lab text images=128 seed=1 " in page
    found = result["results"]["agreement"]
    assert list(found) == ["with wrong captions", "without", "real"]
    assert found["real"]["held out"][":skin"]["value"] > 0.9 > found["without"]["held out"][":skin"]["value"]


class Painter:
    """Gives the real pictures of vectors of captions, in their order or the other way round."""

    def __init__(self, dataset: Any, obeys: bool) -> None:
        self.dataset, self.obeys = dataset, obeys

    def sample(self, n: int, *, y: Tensor, seed: int) -> Tensor:
        ids = [int((self.dataset.labels == v).all(1).nonzero()[0]) for v in (y if self.obeys else y.flip(0))]
        return self.dataset.fetch(ids).float() / 127.5 - 1


def test_good_pictures_of_other_captions_are_found_out() -> None:
    dataset = load(**SMALL | {"size": 32, "split": "test"})
    judge = attribute_reader("avatars-v1")
    right, wrong, real = (
        lab.measured(judge, dataset, model, 0) for model in (Painter(dataset, True), Painter(dataset, False), None)
    )
    assert right == real
    assert real.precision > 0.9
    assert wrong.precision < 0.1
    assert real.agreement[""].value > 0.97
    for part, agreement in wrong.agreement.items():
        assert agreement.value == pytest.approx(agreement.chance, abs=0.12), part
    texts, vectors, pictures = lab.pictured(dataset, 5)
    torch.testing.assert_close(pictures, Painter(dataset, True).sample(5, y=vectors, seed=0))
    torch.testing.assert_close(vectors, words(texts))


def test_wrong_captions_have_to_win_and_captions_have_to_beat_shuffled_ones() -> None:
    def holds(seen: float, held_out: float, precision: float) -> list[bool]:
        claims: list[bool] = []
        bench: Any = SimpleNamespace(claim=lambda text, measured, holds: claims.append(holds))
        kinds = {"trained on": seen, "held out": held_out}
        right = {
            kind: lab.Found({"": Agreement(value, value, value, 500, 0.3)}, precision) for kind, value in kinds.items()
        }
        without = {kind: lab.Found({"": Agreement(0.7, 0.7, 0.7, 500, 0.3)}, 0.5) for kind in kinds}
        lab._claims(bench, {"with wrong captions": right, "without": without})
        return claims

    assert holds(0.9, 0.8, 0.6) == [True, True, True]
    assert holds(0.5, 0.7, 0.4) == [False, False, False]


def test_without_the_text_encoder_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limner.data.texts.vectors.encode", lambda texts: minilm.encode(texts))
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    monkeypatch.setattr(lab, "DATA", SMALL | {"n": 20})
    minilm._loaded.cache_clear()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LimnerError, match=r"pip install 'limner\[text\]'"):
        labs.run("text")
    assert list(tmp_path.iterdir()) == []
