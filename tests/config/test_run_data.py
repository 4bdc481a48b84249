"""A run finds its data from every folder, and where they have moved; other data are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import limner
from limner.cli import main
from limner.config import run_data
from limner.config.spec import Spec
from limner.core.errors import LimnerError
from limner.core.run import Run
from limner.data.files.reading import LATEST
from limner.evaluation.subjects import load_subjects

QUICK = {"batch": 8, "images": 16, "size": 8, "log_images": 16, "checkpoint_images": 16, "samples": 2, "device": "cpu"}


def photos(folder: Path, n: int = 24) -> Path:
    """A folder with pictures of noise in two classes."""
    rng = np.random.default_rng(0)
    for k in range(n):
        file = folder / "ab"[k % 2] / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(file)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with photos/ and a run that was trained on them by a relative path."""
    project = tmp_path_factory.mktemp("project")
    photos(project / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        limner.train("cvae-mnist", data="photos/", out="runs/one", **QUICK)
    return project


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in another place; the working folder is elsewhere."""
    shutil.copytree(trained, tmp_path / "copy")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "copy"


def events(run: Path) -> str:
    return (run / "events.jsonl").read_text(encoding="utf-8")


def test_a_run_is_resumed_from_another_folder(project: Path) -> None:
    assert "data: {name: folder, path: photos/" in " ".join(
        (project / "runs/one/recipe.yaml").read_text("utf-8").split()
    ).replace("data: name: folder path:", "data: {name: folder, path:")
    run = limner.resume(project / "runs/one", images=32)
    assert int(run.latest.name) == 32
    assert "the data have changed" not in events(run.path)
    assert "path: photos/" in (run.path / "recipe.yaml").read_text("utf-8"), "the recipe stays as it was written"
    (subject,) = load_subjects([run.path], None, "latest", 8, "cpu", len)
    assert len(subject.train) == 23


def test_a_run_is_explained_by_its_classes_and_settings(project: Path) -> None:
    explained = limner.explain(str(project / "runs/one"))
    assert explained.text.splitlines()[0] == "classes by number: 0 a, 1 b"
    assert "found 24 images in 2 class folders (a 12, b 12)" in explained.text
    values = {row["name"]: row.get("value") for row in explained.options}
    assert (values["train.batch"], values["data.path"], values["data.reading"]) == (8, "photos/", LATEST)


def test_a_folder_of_that_name_here_is_not_taken_for_the_data_of_the_run(project: Path) -> None:
    photos(Path("photos"), 40)
    run = limner.resume(project / "runs/one", images=32)
    assert "the data have changed" not in events(run.path)


def test_moved_data_are_named(project: Path) -> None:
    (project / "photos").rename(project / "moved")
    with pytest.raises(LimnerError, match=r"are not at 'photos/'; put them back, .* limner resume .*one data=PLACE"):
        limner.resume(project / "runs/one", images=32)
    with pytest.raises(LimnerError, match=r"limner evaluate .*one data=PLACE"):
        load_subjects([project / "runs/one"], None, "latest", 8, "cpu", len)
    (subject,) = load_subjects([project / "runs/one"], str(project / "moved"), "latest", 8, "cpu", len)
    assert subject.train.classes == ["a", "b"]
    run = limner.resume(project / "runs/one", images=32, data=project / "moved")
    assert int(run.latest.name) == 32
    again = limner.resume(run.path, images=40)
    assert int(again.latest.name) == 40
    assert "the data have changed" not in events(run.path)


def test_other_data_are_refused_and_nothing_is_lost(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other, run = photos(project / "other", 30), project / "runs/one"
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "lock"}
    monkeypatch.setattr("sys.argv", ["limner", "resume", str(run), f"data={other}", "images=32"])
    with pytest.raises(SystemExit) as exit_:
        main()
    said = capsys.readouterr().err
    assert exit_.value.code == 2
    assert f"{other} does not hold the data of one: it has " in said
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "lock"} == before


@pytest.mark.parametrize("setting", [{"size": 16}, {"data.flip": True}, {"z": 3}, {"model.z": 3}])
def test_no_other_setting_of_data_or_model_changes(project: Path, setting: dict[str, object]) -> None:
    with pytest.raises(LimnerError, match=f"{next(iter(setting))} cannot change in a run"):
        limner.resume(project / "runs/one", images=32, **setting)


def test_a_named_set_is_at_no_path(project: Path) -> None:
    run = Run(project / "runs/one")
    with pytest.raises(LimnerError, match="was trained on digits, which is not at one path; leave it out"):
        run_data.moved(run, Spec("data", "digits", {}), {"path": "x"})
    (run.path / "data/places.json").unlink()
    painted = Spec("data", "styled", {"path": "chelsea", "style": "starry"})
    assert run_data.located(run, painted, "resume") == painted, "these are pictures of limner"
    two = Spec("data", "domains", {"a": "x/", "b": "y/"})
    with pytest.raises(LimnerError, match=r"write data\.a=PLACE data\.b=PLACE"):
        run_data.moved(run, two, {"path": "x"})
    assert run_data.moved(run, two, {"a": "new/"}).kwargs == {"a": "new/", "b": "y/"}


def test_no_absolute_path_is_written(project: Path) -> None:
    for file in (project / "runs/one").rglob("*"):
        if file.is_file() and file.suffix in (".json", ".jsonl", ".md", ".html", ".yaml"):
            assert str(project.parent.parent) not in file.read_text("utf-8"), file.name


def test_a_path_over_the_root_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert run_data._seen_from(Path("/somewhere/run"), "photos") == ""
    assert run_data._seen_from(tmp_path / "runs/one", "photos") == "../../photos"
    assert run_data._seen_from(tmp_path / "runs/one", str(tmp_path / "photos")) == ""
    assert run_data._seen_from(tmp_path / "runs/one", "digits") == ""
