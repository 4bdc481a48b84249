"""The lab of CoGAN runs through, agrees with its numbers, and tells pairs from images that have nothing in common."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from limner import labs
from limner.core.batch import to_float
from limner.core.prior import Prior
from limner.core.run import Run
from limner.data import load
from limner.labs import cogan as lab


def test_the_lab_runs_through_and_its_numbers_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "_PAIRS", 60)
    monkeypatch.setattr(lab, "_TENTH", 20)
    monkeypatch.setattr(lab, "DATA", lab.DATA | {"of": "mnist", "limit": 200})
    result = labs.run("cogan", out=tmp_path / "lab", images=64, seed=1)
    assert [c["name"] for c in result["checks"] if not c["ok"]] == []
    assert len(result["checks"]) == 16
    shared, unshared = (Run(path) for path in result["run"])
    assert shared.recipe["data"] == unshared.recipe["data"]
    assert shared.recipe["data"] == {"name": "digits-edges", "of": "mnist-5k", "limit": 200}, (
        "the setting's, not DATA's"
    )
    assert shared.recipe["train"]["seed"] == unshared.recipe["train"]["seed"] == 1
    assert [unshared.recipe["model"][net]["own"] for net in ("G1", "G2", "D1", "D2")] == [4, 4, 4, 4]
    page = (tmp_path / "lab" / "index.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in page
    assert "limner lab cogan images=64" in page
    found = result["results"]["pairs"]
    assert list(found) == ["shared", "shared, shuffled", "real pairs, held out", "unshared", "unshared, shuffled"]
    real = found["real pairs, held out"]
    assert real["pixels"] == real["iou"] == pytest.approx(1)


class Knows(torch.nn.Module):
    """Decodes noise to held-out digits and their edges, or to the edges of other digits."""

    def __init__(self, known: bool) -> None:
        super().__init__()
        self.digits = load("mnist-5k", split="test", limit=40).pixels
        self.prior, self.known = Prior("normal", 3), known

    def decode_pair(self, z: Tensor) -> tuple[Tensor, Tensor]:
        a = self.digits[z[:, 0].abs().mul(1000).long() % 40]
        b = a if self.known else self.digits[z[:, 1].abs().mul(1000).long() % 40]
        return to_float(a), to_float(lab.edges(b))


def test_pairs_that_correspond_are_told_from_pairs_that_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "DrawsPairs", object)
    known, other = (lab.compared(*lab.pairs_of(Knows(k), 100, 0)) for k in (True, False))  # type: ignore[arg-type]
    assert known.pixels == known.iou == pytest.approx(1)
    assert known.shuffled is not None
    assert other.shuffled is not None
    assert other.correlation == pytest.approx(known.shuffled.correlation, abs=0.06)
    assert other.correlation < 0.5
    a, b = lab.pairs_of(Knows(False), 100, 0)  # type: ignore[arg-type]
    assert float(lab.each(a, b).mean()) == pytest.approx(other.correlation, abs=1e-6)


def test_claims_ask_for_more_than_the_floors() -> None:
    def holds(shared: lab.Pairs, unshared: lab.Pairs) -> list[bool]:
        claims: list[bool] = []
        bench = SimpleNamespace(claim=lambda text, measured, holds: claims.append(holds))
        shuffled = lab.Pairs(0.8, 0.15, 0.2, 0.1)
        lab._claims(bench, {"shared": shared, "shared, shuffled": shuffled, "unshared": unshared})  # type: ignore[arg-type]
        return claims

    nothing = lab.Pairs(0.8, 0.15, 0.2, 0.1)
    assert holds(nothing, nothing) == [False, False, False]
    assert holds(lab.Pairs(0.95, 0.6, 0.8, 0.95), nothing) == [True, True, True]
    assert holds(lab.Pairs(0.95, 0.6, 0.8, 0.95), lab.Pairs(0.96, 0.6, 0.8, 0.96)) == [False, False, False]
