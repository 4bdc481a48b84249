"""From a folder with a table to pictures of what was asked for, on the command line."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import limner
from limner.cli import main
from limner.core.run import Run

GLASSES, HAIR = ("none", "round", "square"), ("red", "grey")
QUICK = ["images=40", "batch=10", "samples=6", "device=cpu", "threads=1"]


def command(*words: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["limner", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "faces"
    root.mkdir()
    lines = ["file_name,text,glasses,hair,age"]
    for i in range(30):
        noise = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{i:02}.png")
        lines.append(f"{i:02}.png,a face {i},{GLASSES[i % 3]},{HAIR[i % 2] if i else ''},{20 + i}")
    (root / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def run(faces: Path) -> Path:
    out = faces.parent / "run"
    settings = {"data.bins": {"age": [30, 40]}, "images": 40, "batch": 10, "samples": 6, "device": "cpu", "threads": 1}
    return limner.train("cvae-mnist", data=str(faces), out=out, **settings).path


def test_a_model_knows_the_attributes_of_its_data_and_draws_them(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = limner.load(run)
    assert model.condition.values == {
        "glasses": list(GLASSES),
        "hair": ["grey", "red"],
        "age": ["below-30", "30-39", "40+"],
    }
    y = "glasses=round hair=red age=30-39"
    assert model.sample(3, y=y).shape == model.sample(3, y={"glasses": "round"}).shape == (3, 1, 8, 8)
    assert not np.array_equal(model.sample(1, y=y), model.sample(1, y="glasses=square hair=grey age=40+"))
    assert command("sample", run, tmp_path / "out.png", "y=glasses=round hair=red", "n=4", monkeypatch=monkeypatch) == 0
    assert (tmp_path / "out.png").is_file()


def test_report_card_and_explanation_show_the_attributes(run: Path) -> None:
    events = Run(run).events()
    assert events[0]["attributes"]["hair"] == ["grey", "red"]
    assert "classes" not in events[0]
    card, page = ((run / name).read_text(encoding="utf-8") for name in ("README.md", "report.html"))
    assert "- Attributes: `glasses` (`none`, `round`, `square`), `hair` (`grey`, `red`), `age`" in card
    assert "glasses (none, round, square), hair (grey, red), age (below-30, 30-39, 40+)" in page
    assert "attribute hair: grey, red" in limner.explain(str(run)).text


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ("glasses=rund", "glasses has no value 'rund' (did you mean 'round'?); choose from: none, round, square"),
        ("glases=round", "there is no attribute 'glases' (did you mean 'glasses'?); choose from: glasses, hair, age"),
        ("round", "'round' names no attribute; write for example 'glasses=square hair=red'"),
        ("3", "'3' names no attribute"),
        ("hair=red hair=grey", "hair is asked for twice"),
    ],
)
def test_what_does_not_exist_is_said_at_once(
    run: Path, tmp_path: Path, y: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("sample", run, tmp_path / "out.png", f"y={y}", monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_dry_run_and_a_check_list_them(
    faces: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("train", "cvae-mnist", f"data={faces}", *QUICK, "--dry-run", monkeypatch=monkeypatch) == 0
    assert (
        "images with 2 attributes from metadata.csv: glasses (none 10, round 10, square 10)" in capsys.readouterr().out
    )
    assert command("data", "check", faces, "--json", monkeypatch=monkeypatch) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["attributes"]["hair"] == {"grey": 15, "red": 14, "": 1}
    assert checked["captions"] == {"captions": 30, "different": 30, "images": 30}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.attributes=[hat]"], "attributes: metadata.csv has no column 'hat'; choose from: glasses, hair, age"),
        (["data.attributes=[age]"], "the column age of metadata.csv has 30 different numbers (data.bins={age: ["),
        (["data.bins={hair: [1]}"], "bins: the column hair has 'grey', which is no number"),
        (["data.only=[glasses=oval]"], "unknown value of glasses 'oval'"),
    ],
)
def test_data_that_cannot_be_had_end_with_one_line(
    faces: Path, settings: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "cvae-mnist", f"data={faces}", *QUICK, *settings, f"out={faces.parent}/refused")
    assert command(*words, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (faces.parent / "refused").exists()


@pytest.mark.parametrize(("old", "new"), [("hair", "colour"), ("square", "oval")])
def test_weights_that_were_told_other_labels_are_refused(
    run: Path,
    faces: Path,
    tmp_path: Path,
    old: str,
    new: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = Path(shutil.copytree(faces, tmp_path / "other"))
    table = (other / "metadata.csv").read_text(encoding="utf-8")
    (other / "metadata.csv").write_text(table.replace(old, new), encoding="utf-8")
    words = [
        "train",
        "cvae-mnist",
        f"data={other}",
        "data.bins={age: [30, 40]}",
        f"train.init={run}",
        *QUICK,
        f"out={tmp_path}/new",
    ]
    assert command(*words, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert (
        "it learnt glasses (none, round, square), hair (grey, red), age (below-30, 30-39, 40+), and the data have"
        in error
    )
    assert error.strip().endswith("give a run of the same labels")
    (other / "metadata.csv").unlink()
    assert command("train", "cvae-mnist", f"data={other}", *QUICK, f"out={tmp_path}/none", monkeypatch=monkeypatch) == 2
    assert (
        "needs data with class labels, attributes or captions; use class folders or a metadata.csv"
        in capsys.readouterr().err
    )


def test_a_run_keeps_its_attributes(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("resume", run, "data.attributes=[hair]", "images=80", monkeypatch=monkeypatch) == 2
    assert "data.attributes cannot change in a run; start a new one with limner train" in capsys.readouterr().err
