"""The adversarial line from the command line: toys, truncation, the bench, and combinations that are refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.cli import main

TOY = ["data.n=256", "train.batch=64", "train.images=1024", "train.samples=16", "train.device=cpu", "train.threads=1"]


def limner(*words: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["limner", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_points_that_somebody_drew_are_learnt_and_filmed(tmp_path: Path, monkeypatch, capsys) -> None:
    ink = np.full((64, 64), 255, np.uint8)
    ink[20:44, 30:34] = 0
    Image.fromarray(ink).save(tmp_path / "stroke.png")
    words = ["data=points", f"data.path={tmp_path / 'stroke.png'}", *TOY, f"out={tmp_path / 'run'}", "--json"]
    assert limner("train", "toy-r1gan", *words, monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1024
    with Image.open(tmp_path / "run" / "figures" / "animation.webp") as film:
        assert film.n_frames > 3


def test_truncation_is_asked_for_at_sampling(tmp_path: Path, monkeypatch, capsys) -> None:
    assert limner("train", "toy-gan", *TOY, f"out={tmp_path / 'run'}", monkeypatch=monkeypatch) == 0
    sheets = [tmp_path / f"{t}.png" for t in ("whole", "little")]
    assert limner("sample", tmp_path / "run", sheets[0], monkeypatch=monkeypatch) == 0
    assert limner("sample", tmp_path / "run", sheets[1], "--truncation", 0.1, monkeypatch=monkeypatch) == 0
    spread = [len(np.unique(np.argwhere(np.asarray(Image.open(s)) < 128)[:, 0])) for s in sheets]
    assert spread[1] < spread[0]
    assert limner("sample", tmp_path / "run", tmp_path / "none.png", "--truncation", 0, monkeypatch=monkeypatch) == 2
    assert "truncation must be a number above 0, got 0" in capsys.readouterr().err


def test_the_bench_prints_its_table(tmp_path: Path, monkeypatch, capsys) -> None:
    words = ["recipes=toy-gan", "testbeds=ring", "seeds=1", f"out={tmp_path}", *TOY]
    assert limner("bench", "modes", *words, monkeypatch=monkeypatch) == 0
    told = capsys.readouterr().out
    assert "toy-gan" in told
    assert told.strip().endswith("index.html")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["train", "pacgan-mnist", "train.batch=63"], "train.batch=63"),
        (["train", "wgan-gp-mnist", "model.D.norm=batch"], "D.norm=layer"),
        (["train", "dcgan-mnist", "model.adversarial=wasserstein"], "bounded slope"),
        (["train", "sngan-mnist", "model.flip=0.1"], "labels mean nothing to hinge"),
        (["train", "progressive-mnist", "data.size=31"], "31"),
        (["train", "diffaugment-mnist", "model.transform.policy=[warp]"], "policy"),
        (["train", "toy-shift", "data=mnist-5k"], "data=line"),
        (["train", "gan-mnist", "model.D.minibatch=discrimination", "train.batch=1"], "train.batch=1"),
        (["bench", "modes", "testbeds=rign"], "did you mean 'ring'"),
        (["bench", "mode"], "did you mean 'modes'"),
    ],
)
def test_what_has_no_meaning_is_refused_before_anything_is_written(
    words: list[str], reason: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert limner(*words, monkeypatch=monkeypatch) == 2
    told = capsys.readouterr().err.strip()
    assert reason in told
    assert "\n" not in told
    assert not (tmp_path / "runs").exists()
