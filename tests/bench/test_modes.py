"""The mode bench: its table, its page, that it goes on where it stopped, and its refusals."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from limner import bench
from limner.bench import modes
from limner.bench._trainings import Mean
from limner.core.errors import LimnerError

SMALL = {
    "images": 2048,
    "train.batch": 64,
    "data.n": 256,
    "train.device": "cpu",
    "train.threads": 1,
    "train.samples": 8,
    "train.sample_images": 1024,
}


def test_recipes_by_testbeds_by_seeds_and_then_on(tmp_path: Path) -> None:
    wanted = {"recipes": "toy-gan", "testbeds": "ring,grid", "out": tmp_path / "bench"} | SMALL
    first = bench.run("modes", seeds=1, **wanted)
    assert [(r["testbed"], r["recipe"], r["seeds"]) for r in first["rows"]] == [
        ("ring", "toy-gan", 1),
        ("grid", "toy-gan", 1),
    ]
    began = (tmp_path / "bench" / "runs" / "ring-toy-gan-0" / "env.json").stat().st_mtime_ns
    both = bench.run("modes", seeds=2, **wanted)
    assert [r["seeds"] for r in both["rows"]] == [2, 2]
    assert both["trainings"][:2] == first["trainings"], "what is done is counted again, not trained again"
    assert (tmp_path / "bench" / "runs" / "ring-toy-gan-0" / "env.json").stat().st_mtime_ns == began
    for t in both["trainings"]:
        assert 0 <= t["modes"]["found"] <= t["modes"]["known"] == {"ring": 8, "grid": 25}[t["testbed"]]
        assert t["modes"]["n"] == 2500
    saved = json.loads((tmp_path / "bench" / "results.json").read_text())
    assert saved["rows"] == json.loads(json.dumps(both["rows"]))
    page = (tmp_path / "bench" / "index.html").read_text()
    assert "PacGAN2" in page
    assert "published" in page
    assert "toy-gan" in modes.text(both["trainings"])
    assert page.count("data:image/png") == 2, "a figure for each testbed"
    assert saved["published"]["grid"][-1] == {
        "name": "PacGAN4",
        "modes": "24.8 ± .2",
        "high_quality_percent": "93.6 ± .6",
        "reverse_kl": ".04 ± .01",
    }
    for other, reason in (
        ({"train.ema_images": 0}, "other settings .train."),
        ({"optim.G.lr": 0.5}, "other settings .optim."),
        ({"data.n": 300}, "other settings .data."),
        ({"images": 512}, "more images"),
    ):
        with pytest.raises(LimnerError, match=f"ring-toy-gan-0 was trained (with|on) {reason}"):
            bench.run("modes", seeds=1, **wanted | other)


def test_means_carry_their_error_and_interval() -> None:
    mean = Mean.of([7, 8, 8, 7])
    assert mean.mean == 7.5
    assert mean.error == pytest.approx((1 / 3) ** 0.5 / 2)
    assert mean.high is not None
    assert mean.high - mean.mean == pytest.approx(3.182 * mean.error, rel=2e-4)  # Student's t of 3 degrees of freedom
    assert Mean.of([3]).text(1) == "3.0"
    many = Mean.of([0, 1] * 20)
    assert many.high is not None
    assert many.error is not None
    assert (many.high - many.mean) / many.error == pytest.approx(2.023, abs=0.003)  # t of 39 degrees of freedom


def test_the_intervals_hold_the_truth_in_19_of_20_cases() -> None:
    chance = random.Random(0)
    for n in (3, 10, 12, 25):
        found = [Mean.of(chance.gauss(5, 2) for _ in range(n)) for _ in range(2000)]
        held = sum(m.low < 5 < m.high for m in found if m.low is not None and m.high is not None)
        assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_stacked_digits_are_counted_by_class(tmp_path: Path) -> None:
    small = {"images": 128, "model.G.width": 8, "model.D.width": 8, "train.precision": "fp32", "train.batch": 32}
    quick = {"data.n": 512, "train.device": "cpu", "train.threads": 1, "samples": 60}
    found = bench.run("modes", recipes="stacked-gan", testbeds="stacked", seeds=1, out=tmp_path, **small, **quick)
    (row,), (t,) = found["rows"], found["trainings"]
    assert (t["modes"]["known"], t["modes"]["n"]) == (1000, 60)
    assert t["modes"]["floor"] == pytest.approx(999 / 120)
    assert 1 <= row["modes"]["mean"] <= 60
    assert row["high_quality"] is None
    assert (row["reached"], row["solved"]) == (0, 0)
    page = (tmp_path / "index.html").read_text()
    assert "PacDCGAN2" in page
    assert "3 sigma" not in page


def test_patterns_leave_out_the_gan_that_can_only_shift() -> None:
    assert "toy-shift" not in modes._recipes("ring", None)
    assert "toy-shift" not in modes._recipes("grid", "toy-s*,toy-gan")
    assert modes._recipes("ring", "toy-gan, toy-g*") == ["toy-gan"]
    assert modes._recipes("ring", "toy-shift") == ["toy-shift"]


def test_an_unfinished_training_is_resumed(tmp_path: Path) -> None:
    from limner import api

    place = tmp_path / "runs" / "ring-toy-gan-0"
    settings = {"data": {"name": "ring", "n": 100_000}, "train.seed": 0} | SMALL
    api.train("toy-gan", out=place, **settings | {"images": 1024})
    found = bench.run("modes", recipes="toy-gan", testbeds="ring", seeds=1, out=tmp_path, **SMALL)
    assert found["trainings"][0]["images"] == 2048


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"testbeds": "rings"}, "did you mean 'ring'"),
        ({"recipes": "toy-gaan"}, "unknown recipe 'toy-gaan'"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": "many"}, "seeds"),
        ({"samples": "0"}, "samples"),
        ({"testbeds": ""}, "none is named"),
        ({"recipes": " , "}, "none is named"),
        ({"recipes": "mine.yaml"}, "mine.yaml"),
        ({"recipes": "toy-gan", "train.seed": 3}, "leave train.seed out"),
        ({"recipes": "toy-gan", "seed": 3}, "seed"),
        ({"recipes": "toy-gan", "data": "swiss-roll"}, "data of testbed ring are fixed"),
        ({"recipes": "toy-gan", "data.sigma": 0.5}, "data of testbed ring are fixed"),
        ({"recipes": "toy-gan", "model.gp_weight": 1}, "gp_weight"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], reason: str, tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match=reason):
        bench.run("modes", out=tmp_path, **settings)
    assert not list(tmp_path.iterdir()), "nothing was written"
    with pytest.raises(LimnerError, match="did you mean 'modes'"):
        bench.run("mode")


def test_asking_for_help_loads_no_torch() -> None:
    code = "import sys, limner.bench; limner.bench.titles(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
