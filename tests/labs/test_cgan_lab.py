"""The lab of conditional GANs runs through, agrees with its numbers, and its control has shuffled labels only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from limner import labs
from limner.core.run import Run
from limner.data import load
from limner.labs import cgan

DATA = {"name": "digits", "size": 28, "limit": 300}


def test_the_lab_runs_through_and_its_numbers_agree(tmp_path: Path) -> None:
    result = labs.run("cgan", out=tmp_path / "lab", images=128, data=DATA, seed=1)
    assert [c["name"] for c in result["checks"] if not c["ok"]] == []
    assert len(result["checks"]) == 13
    labels, shuffled = (Run(path) for path in result["run"])
    assert shuffled.recipe["model"] == labels.recipe["model"]
    page = (tmp_path / "lab" / "index.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in page
    for said in ("Rows share their noise", "When the label tells D nothing", "limner lab cgan"):
        assert said in page
    found = result["results"]["obedience"]
    assert found["true labels"]["chance"] == pytest.approx(0.1)

    # the control has the same images, each class as often, and other labels
    own = load("digits", size=28, limit=300)
    other = load(shuffled.recipe["data"]["path"], size=28, channels=1, split="all")
    assert sorted(x.numpy().tobytes() for x in own.pixels) == sorted(x.numpy().tobytes() for x in other.pixels)
    assert torch.equal(own.labels.bincount(), other.labels.bincount())
    label_of = {x.numpy().tobytes(): int(y) for x, y in zip(own.pixels, own.labels, strict=True)}
    same = sum(label_of[x.numpy().tobytes()] == int(y) for x, y in zip(other.pixels, other.labels, strict=True))
    assert same / 300 < 0.25


class Obeys:
    """A bar in the place of the class; at a height that the noise decides, or not."""

    def __init__(self, noisy: bool, obeys: bool) -> None:
        self.noisy, self.obeys = noisy, obeys

    def sample(self, n: int, *, y: Tensor, seed: int, columns: int | None = None) -> Tensor:
        chance = torch.Generator().manual_seed(seed)
        noise = torch.randint(20, (n // (columns or 1),), generator=chance).repeat_interleave(columns or 1)
        x = torch.full((n, 1, 28, 28), -1.0)
        for i, k in enumerate(y[torch.arange(n) % len(y)].tolist()):
            place = k if self.obeys else int(noise[i]) % 10
            top = int(noise[i]) if self.noisy else 0
            x[i, 0, top : top + 6, 2 * place : 2 * place + 3] = 1
        return x


def test_the_three_measures_tell_three_models_apart() -> None:
    good = Obeys(True, True)
    y = torch.arange(400) % 10
    real = cgan_bench(good.sample(400, y=y, seed=5), y)
    reader = cgan.SmallReader.trained(real.train_set.x, y[:, None], {"class": real.train_set.classes}, epochs=6)
    honest, collapsed, deaf = (
        cgan._obedience(real, model, reader)[0] for model in (good, Obeys(False, True), Obeys(True, False))
    )
    assert honest.accuracy > 0.95
    assert honest.diversity == pytest.approx(1, abs=0.1)
    assert honest.effect == pytest.approx(1, abs=0.2)
    assert collapsed.accuracy > 0.95
    assert collapsed.diversity == 0
    assert deaf.effect == 0
    assert deaf.accuracy == pytest.approx(0.1, abs=0.05)


def cgan_bench(x: Tensor, y: Tensor):
    from types import SimpleNamespace

    from limner.labs._bench import LabelledImages

    images = LabelledImages(x, y, [str(k) for k in range(10)])
    return SimpleNamespace(train_set=images, test_set=images, seed=0)
