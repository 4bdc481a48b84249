"""The lab of InfoGAN: what it reads of codes, and its page."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from limner import labs
from limner.labs import infogan

DATA = {"name": "digits", "size": 28, "limit": 200}


class Reader:
    """Reads the class in the first pixel."""

    values = MappingProxyType({"class": [str(k) for k in range(10)]})

    def logits(self, x: Tensor) -> dict[str, Tensor]:
        return {"class": torch.eye(10)[x[:, 0, 0, 0].long()]}


class Strokes:
    """A stroke whose slant is c2 and whose thickness the noise decides; c3 changes nothing."""

    def __init__(self) -> None:
        self.code_values = {"c1": 10, "c2": 0, "c3": 0}

    def sample(self, n: int, *, seed: int, c1: int = 0, c2: float | None = None, c3: float | None = None) -> Tensor:
        chance = torch.Generator().manual_seed(seed)
        thick = torch.randint(2, 6, (n,), generator=chance)
        drawn = torch.rand(n, generator=chance) * 2 - 1
        x = torch.full((n, 1, 28, 28), -1.0)
        x[:, 0, 0, 0] = max(c1, 1)  # its values are the digits, except that 0 is drawn as 1
        for i in range(n):
            slant = float(drawn[i]) if c2 is None else c2
            for row in range(6, 22):
                left = round(14 + 0.4 * slant * (13.5 - row) - int(thick[i]) / 2)
                x[i, 0, row, left : left + int(thick[i])] = 1
        return x

    def estimate_codes(self, x: Tensor) -> Tensor:
        """(class + 3) mod 10 of images whose first pixel is their class, except that 8 and 9 are taken for 4."""
        k = x[:, 0, 0, 0].round()
        return ((k.where(k < 8, torch.tensor(4.0)) + 3) % 10)[:, None]


def test_a_code_that_slants_is_found_and_one_that_does_nothing_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infogan, "_SAMPLES", 60)
    found = infogan.code_correlations(Strokes(), seed=0)
    assert found["c2"]["slant"] > 0.95
    assert abs(found["c2"]["ink"]) < 0.1
    assert all(abs(r) < 1e-9 for r in found["c3"].values())


def test_values_are_matched_with_digits_and_the_bound_is_that_of_the_last_tenth() -> None:
    y = torch.arange(200) % 10
    x = torch.zeros(200, 1, 28, 28)
    x[:, 0, 0, 0] = y
    lines = [{"term/bound_c1": 2.0 if i >= 90 else 0.0} for i in range(100)]
    bench = SimpleNamespace(
        seed=0,
        test_set=SimpleNamespace(x=x, y=y, classes=[str(k) for k in range(10)]),
        runs={"seed-0": SimpleNamespace(metrics=lambda: lines)},
    )
    found = infogan._found(bench, "seed-0", Strokes(), Reader())
    assert found.generated == pytest.approx(0.9)
    assert found.accuracy == pytest.approx(0.8)
    assert found.bound == 2.0
    assert found.shuffled < 0.3
    assert dict(found.pairs)[(6 + 3) % 10] == 6


def test_the_lab_runs_through_and_its_numbers_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infogan, "_SAMPLES", 20)
    trained = infogan.SmallReader.trained
    monkeypatch.setattr(infogan.SmallReader, "trained", lambda x, y, values, seed: trained(x, y, values, epochs=1))
    small = {"model.G.widths": [4, 4], "model.G.hidden": 8, "model.D.widths": [4, 4], "model.D.hidden": 8}
    train = infogan.Bench.train
    monkeypatch.setattr(
        infogan.Bench, "train", lambda bench, label, name, changes: train(bench, label, name, small | changes)
    )
    result = labs.run("infogan", out=tmp_path / "lab", images=256, data=DATA, seeds=2, seed=3)
    assert [c["name"] for c in result["checks"] if not c["ok"]] == []
    assert len(result["checks"]) == 7
    assert [Path(path).name for path in result["run"]] == ["seed-3", "seed-4"]
    assert set(result["results"]["seeds"]) == {"seed-3", "seed-4"}
    page = (tmp_path / "lab" / "index.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in page
    assert page.count("data:image/png") == len(result["figures"]) == 4
    assert [c["holds"] for c in result["claims"]][1:] == [False, False], "two steps teach nothing"
