"""Every verb on real input, and one clear line with exit code 2 on bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.cli import main

TINY = ["data=digits", "batch=16", "images=320", "samples=4", "sample_images=160", "device=cpu", "threads=1"]


def limner(*words: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["limner", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A denoising autoencoder of 8x8 digits, trained by the real command."""
    out = tmp_path_factory.mktemp("cli") / "run"
    done = subprocess.run(
        [sys.executable, "-m", "limner", "train", "denoising-ae-mnist", *TINY, f"out={out}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    assert done.stdout.strip().endswith("run"), "the run folder is the last line"
    assert "mnist" not in done.stdout
    return out


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for i, size in enumerate([(37, 53), (64, 64), (20, 90)]):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"p{i}.png")
    Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8)).save(folder / "sub" / "grey.jpg")
    (folder / "broken.png").write_bytes(b"\x89PNG nothing")
    return folder


def test_train_leaves_everything(run: Path) -> None:
    for name in ("recipe.yaml", "env.json", "metrics.jsonl", "events.jsonl", "scores.json", "README.md", "report.html"):
        assert (run / name).stat().st_size > 0, name
    assert Image.open(run / "data" / "reals.png").size == (18, 18)
    assert len(list((run / "samples").glob("*.webp"))) == 3
    assert len(list((run / "reconstructions").glob("*.webp"))) == 3
    scores = json.loads((run / "scores.json").read_text())
    assert scores["psnr_denoised_db"]["value"] != scores["psnr_noisy_db"]["value"]
    home = str(Path.home())
    for name in ("env.json", "README.md", "report.html", "events.jsonl"):
        assert home not in (run / name).read_text(), name


def test_sample_gives_a_sheet_or_single_images(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert limner("sample", run, tmp_path / "s.png", "-n", 9, monkeypatch=monkeypatch) == 0
    assert Image.open(tmp_path / "s.png").size == (28, 28)
    capsys.readouterr()
    assert limner("sample", run, tmp_path / "many", "-n", 3, "--json", monkeypatch=monkeypatch) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert [Image.open(p).size for p in written] == [(8, 8)] * 3
    sheet = np.asarray(Image.open(tmp_path / "s.png"))
    assert np.array_equal(sheet[:8, :8], np.asarray(Image.open(written[0]))), "the same seed, the same images"


def test_apply_maps_a_folder_and_skips_what_is_broken(
    run: Path, photos: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    assert limner("apply", run, photos, tmp_path / "out", "--json", monkeypatch=monkeypatch) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["task"], done["n"]) == ("denoise", 4)
    assert [s[0] for s in done["skipped"]] == ["broken.png"]
    names = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png"))
    assert names == ["p0.png", "p1.png", "p2.png", "sub/grey.png"]
    assert (
        limner("apply", run, photos / "p0.png", tmp_path / "one.jpg", "--task", "reconstruct", monkeypatch=monkeypatch)
        == 0
    )
    assert Image.open(tmp_path / "one.jpg").size == (8, 8)


def test_apply_scores_anomalies(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert limner("apply", run, "digits", tmp_path, "--task", "anomaly", monkeypatch=monkeypatch) == 0
    rows = (tmp_path / "scores.csv").read_text().split()
    values = [float(r.split(",")[1]) for r in rows[1:]]
    assert values == sorted(values)
    assert len(values) > 100


def test_resume_of_a_finished_run_says_how_to_go_on(run: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert limner("resume", run, monkeypatch=monkeypatch) == 2
    assert "images=640" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["recipes", "models", "nets", "data", "labs"])
def test_list_says_something_of_each(what: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert limner("list", what, "--json", monkeypatch=monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) >= 5
    assert all(found.values()), "every entry has a line"


@pytest.mark.parametrize("key", ["vae-mnist", "train.batch", "mlp.Encoder"])
def test_explain(key: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert limner("explain", key, monkeypatch=monkeypatch) == 0
    assert len(capsys.readouterr().out) > 60
    if "." not in key or key[0] == "m":
        assert limner("explain", "vae", "--schema", monkeypatch=monkeypatch) == 0
        assert json.loads(capsys.readouterr().out)["properties"]["beta"]["default"] == 1.0


def test_dry_run_is_a_plan(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert limner("train", "gan-mnist", "--dry-run", "--json", monkeypatch=monkeypatch) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"]["G"]["trainable"] == 227_344
    assert plan["parameters"]["D"]["trainable"] == 201_217
    assert plan["images"] == 600_000
    assert plan["estimate"]["seconds"] > 0
    assert plan["estimate"]["bytes"] > 4 * 4 * (227_344 + 201_217)
    assert plan["recipe"]["model"]["G"]["shape"] == [1, 28, 28]
    assert not list(tmp_path.iterdir()), "nothing is written"


def bad_inputs(tmp_path: Path, photos: Path, run: Path) -> dict[str, tuple[list[object], str]]:
    empty, texts, one = tmp_path / "empty", tmp_path / "texts", tmp_path / "one"
    for folder in (empty, texts, one):
        folder.mkdir()
    (texts / "a.txt").write_text("hello")
    (texts / "b.png").write_text("hello")
    Image.new("L", (8, 8)).save(one / "a.png")
    return {
        "unknown recipe": (["train", "vae-minst"], "did you mean 'vae-mnist'"),
        "unknown key": (["train", "vae-mnist", "bach=3"], "did you mean 'batch'"),
        "wrong type": (["train", "vae-mnist", "batch=few"], "valid integer"),
        "no value": (["train", "vae-mnist", "batch"], "write key=value"),
        "missing folder": (["train", "dcgan-32", f"data={tmp_path}/nowhere/"], "there is no folder"),
        "empty folder": (["train", "dcgan-32", f"data={empty}"], "image"),
        "texts": (["train", "dcgan-32", f"data={texts}"], "image"),
        "one image": (["train", "dcgan-32", f"data={one}"], "at least 2"),
        "large batch": (["train", "dcgan-32", f"data={photos}"], "use train.batch="),
        "no such device": (["train", "vae-mnist", "device=cuda:7"], "device=auto"),
        "odd device": (["train", "vae-mnist", "device=tpu"], "device"),
        "taken folder": (["train", "vae-mnist", f"out={run}"], "limner resume"),
        "not a run": (["resume", tmp_path], "is not a run folder"),
        "no model": (["sample", tmp_path / "nothing", tmp_path / "s.png"], "there is no"),
        "not a model": (["sample", photos / "p0.png", tmp_path / "s.png"], "not a safetensors file"),
        "no sample": (["sample", run, tmp_path / "s.png", "-n", 0], "write 1 to 100000"),
        "class of an unconditional model": (["sample", run, tmp_path / "s.png", "--y", 3], "not conditional"),
        "bad suffix": (["sample", run, tmp_path / "s.xyz"], ".png"),
        "no pictures": (["apply", run, texts, tmp_path / "out"], "no picture could be read"),
        "no source": (["apply", run, "nowhere/", tmp_path / "out"], "check the path"),
        "unknown task": (["apply", run, photos, tmp_path / "out", "--task", "denoize"], "did you mean 'denoise'"),
        "unknown list": (["list", "recipe"], "did you mean 'recipes'"),
        "unknown option": (["explain", "train.bacth"], "did you mean"),
        "unknown lab": (["lab", "autoencoder"], "lab"),
        "unknown verb": (["trian"], "trian"),
        "missing argument": (["train"], "recipe"),
        "unknown data": (["data", "get", "mnits"], "did you mean 'mnist'"),
        "model in resume": (["resume", run, "model.z=3"], "cannot change"),
    }


def test_bad_input_is_one_clear_line_and_exit_code_2(
    tmp_path: Path, photos: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(run.rglob("*"))
    for case, (words, expected) in bad_inputs(tmp_path, photos, run).items():
        assert limner(*words, monkeypatch=monkeypatch) == 2, case
        out, err = capsys.readouterr()
        assert expected in err, f"{case}: {err}"
        assert err.startswith("limner: "), f"{case}: {err}"
        assert err.count("\n") == 1, f"{case}: {err}"
        assert "Traceback" not in err + out, case
    assert sorted(run.rglob("*")) == before, "nothing is lost and nothing is added"
    assert not (tmp_path / "runs").exists(), "a refused training leaves no run folder"


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['limner', '--help']\n"
        "from limner.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=600)
    code = "import sys, limner; limner.list_recipes(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=600, env=os.environ)
