"""The mode bench: its table, its page, that it goes on where it stopped, and its refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from limner import bench
from limner.bench import modes
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


def test_means_carry_their_error_and_interval() -> None:
    mean = modes.Mean.of([7, 8, 8, 7])
    assert mean.mean == 7.5
    assert mean.error == pytest.approx((1 / 3) ** 0.5 / 2)
    assert mean.high is not None
    assert mean.high - mean.mean == pytest.approx(3.182 * mean.error)
    assert modes.Mean.of([3]).text(1) == "3.0"


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
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], reason: str, tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match=reason):
        bench.run("modes", out=tmp_path, **settings)
    with pytest.raises(LimnerError, match="did you mean 'modes'"):
        bench.run("mode")


def test_asking_for_help_loads_no_torch() -> None:
    code = "import sys, limner.bench; limner.bench.titles(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
