"""The bench of augmentation: what it trains on, that it goes on where it stopped, honest verdicts, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import limner
from limner import bench, data
from limner.bench import augment
from limner.core.batch import to_float
from limner.core.errors import LimnerError
from limner.core.run import Run

SMALL: dict[str, Any] = {
    "data": {"name": "mnist-5k", "size": 16},
    "images": 256,
    "steps": 10,
    "generated": 4,
    "train.device": "cpu",
    "train.threads": 1,
    "train.samples": 10,
    "train.sample_images": 256,
    "train.batch": 64,
}


def test_numbers_by_seeds_and_then_on(tmp_path: Path) -> None:
    out = tmp_path / "bench"
    one = bench.run("augment", per_class="4", seeds=1, out=out, **SMALL)
    assert "write seeds=3" in one["verdicts"][0]
    ways = ["real", "moved", "generated 0.5", "moved, generated 0.5"]
    assert [row["way"] for row in one["rows"]] == ways
    began = (out / "runs" / "4-0" / "env.json").stat().st_mtime_ns
    written = (out / "cells" / "4-0.json").stat().st_mtime_ns
    two = bench.run("augment", per_class=4, seeds=2, out=out, **SMALL)
    assert (out / "runs" / "4-0" / "env.json").stat().st_mtime_ns == began, "what is done is not trained again"
    assert (out / "cells" / "4-0.json").stat().st_mtime_ns == written
    assert two["trainings"][0] == one["trainings"][0]
    accuracies = [t["accuracies"] for t in two["trainings"]]
    for row in two["rows"]:
        assert row["values"] == [a[row["way"]] for a in accuracies]
        for baseline, gain in row["gains"].items():
            assert gain["mean"] == pytest.approx(sum(a[row["way"]] - a[baseline] for a in accuracies) / 2)
    assert len(two["verdicts"]) == 2
    assert json.loads((out / "results.json").read_text())["rows"] == json.loads(json.dumps(two["rows"]))
    page = (out / "index.html").read_text()
    assert page.count("<img") == 2, "a chart, and a sheet of the first seed"
    for said in ("paired by seed", "trained on exactly the real images", *two["verdicts"]):
        assert said in page
    assert "moved, generated 0.5" in augment.text(two["trainings"])

    # the generator saw exactly the images of the classifier
    run = Run(out / two["trainings"][-1]["run"])
    assert run.recipe["data"]["split"] == "all"
    seen = data.load(run.recipe["data"]["path"], split="all", size=16, channels=1)
    train = data.load("mnist-5k", size=16)
    ids = augment.chosen(train.labels, 4, 1)
    assert sorted(x.numpy().tobytes() for x in seen.pixels) == sorted(x.numpy().tobytes() for x in train.pixels[ids])
    assert torch.equal(seen.labels, train.labels[ids]), "classes keep their order"

    for other, reason in (
        ({"steps": 11}, "other settings"),
        ({"images": 512}, "other settings"),  # the accuracies of finished cells are those of shorter trainings
        ({"model.z": 3}, "other settings .model."),
        ({"data": {"name": "mnist-5k", "size": 16, "limit": 2000}}, "other settings"),
    ):
        with pytest.raises(LimnerError, match=reason):
            bench.run("augment", per_class="4", seeds=1, out=out, **SMALL | other)
    (out / "cells" / "4-0.json").write_text("{")
    with pytest.raises(LimnerError, match="is damaged; delete it"):
        bench.run("augment", per_class="4", seeds=1, out=out, **SMALL)


def test_more_real_images_contain_fewer_and_classes_are_even() -> None:
    labels = torch.randint(5, (300,), generator=torch.Generator().manual_seed(0))
    few, many = augment.chosen(labels, 4, 7), augment.chosen(labels, 9, 7)
    assert set(few.tolist()) < set(many.tolist())
    assert labels[many].bincount().tolist() == [9] * 5
    assert set(few.tolist()) != set(augment.chosen(labels, 4, 8).tolist())


def test_ways_differ_in_nothing_but_the_generated_images() -> None:
    real = torch.linspace(-1, 0, 50).view(-1, 1, 1, 1).expand(-1, 1, 8, 8), torch.arange(50) % 5
    fake = torch.ones(20, 1, 8, 8), torch.arange(20) % 5
    plain = list(augment.mixed(real, fake, 0.0, 3, 0))
    with_fakes = list(augment.mixed(real, fake, 0.25, 3, 0))
    for (x, y), (x2, y2) in zip(plain, with_fakes, strict=True):
        assert torch.equal(x[16:], x2[16:])
        assert torch.equal(y[16:], y2[16:])
        assert bool((x2[:16] == 1).all())
        assert not bool((x == 1).any())
    again, other = list(augment.mixed(real, fake, 0.25, 3, 0)), list(augment.mixed(real, fake, 0.25, 3, 1))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(with_fakes, again, strict=True))
    assert not torch.equal(with_fakes[0][0], other[0][0])


class Centroids:
    """In place of the small net: the nearest class mean, which takes no time."""

    @classmethod
    def taught(cls, batches, steps: int, channels: int, values, about, *, seed: int) -> Centroids:
        x, y = (torch.cat(part) for part in zip(*batches, strict=True))
        found = cls()
        found.means = torch.stack([x[y[:, 0] == k].flatten(1).mean(0) for k in range(len(values["class"]))])
        return found

    def logits(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"class": -torch.cdist(to_float(x).flatten(1), self.means)}


class Twin:
    """In place of a run: real digits that the classifier lacks, with their labels or those of another digit."""

    def __init__(self, offset: int) -> None:
        self.offset, self.train = offset, data.load("mnist-5k", size=16)
        self.members = [(self.train.labels == k).nonzero().flatten() for k in range(10)]

    def sample(self, n: int, *, y: torch.Tensor, seed: int) -> torch.Tensor:
        chance = torch.Generator().manual_seed(seed)
        own = [self.members[(int(k) + self.offset) % 10] for k in y]
        return to_float(self.train.pixels[[int(ids[torch.randint(len(ids), (), generator=chance)]) for ids in own]])


@pytest.mark.parametrize(("offset", "said"), [(0, "generated images help"), (1, "generated images do harm")])
def test_a_perfect_generator_helps_and_wrong_labels_do_harm(
    offset: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augment, "SmallReader", Centroids)
    monkeypatch.setattr(augment, "_given", lambda *args: Twin(offset))
    wanted = {k: v for k, v in SMALL.items() if not k.startswith("train.")}
    found = augment.run(run="RUN", out=tmp_path, per_class="3", seeds=3, **wanted | {"steps": 40, "generated": 40})
    assert said in found["verdicts"][0].partition(" Compared")[0]
    assert "its gain is not that of a small set" in (tmp_path / "index.html").read_text()


def test_verdicts_and_what_is_refused(tmp_path: Path) -> None:
    for low, high, said in ((0.01, 0.05, "help:"), (-0.05, -0.01, "do harm:"), (-0.01, 0.05, "do not help as far")):
        assert f"generated images {said}" in augment.verdict(
            {"mean": (low + high) / 2, "low": low, "high": high}, "real"
        )
    for settings, reason in (
        ({"per_class": 500}, "class '.' of mnist-5k has 450 images; per_class=500 needs as many"),
        ({"per_class": "ten"}, "per_class: "),
        ({"shares": "0.5,1"}, "shares: '1' is not possible"),
        ({"shares": "0.005"}, "shares: '0.005' is not possible in batches of 64"),
        ({"shares": "nan"}, "shares: 'nan' is not possible"),
        ({"shift": -1}, "shift: -1 pixels"),
        ({"recipe": "gan-mnist"}, "gan-mnist takes no labels; choose a conditional recipe"),
        ({"recipe": "wgan-*"}, "stands for"),
        ({"data": "ring"}, "has no images with classes"),
        ({"train.seed": 3}, "train.seed is set by the bench"),
        ({"run": "runs/none"}, "train.device is a key of a recipe, and run=runs/none is trained already"),
    ):
        with pytest.raises(LimnerError, match=reason):
            bench.run("augment", out=tmp_path / "none", **SMALL | {"per_class": "4"} | settings)
    assert not (tmp_path / "none").exists(), "nothing is written before all is checked"
    assert "augment" in limner.bench.titles()
