"""`limner doctor` on a run whose examinations are written here: what it says, offers and refuses."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import limner
from limner.cli import main
from limner.cli.progress import Lines
from limner.config import catalogue
from limner.config import recipe as recipes
from limner.config.spec import arguments
from limner.core.run import Run
from limner.core.yaml_text import Text
from limner.doctor import remedies
from limner.doctor.block import command
from limner.doctor.checks import CHECKS
from limner.doctor.finding import Finding, Remedy

SMALL = {"data.n": 512, "train.images": 512, "train.batch": 64, "train.samples": 4, "train.device": "cpu"}
SIGNAL = "samples/spread"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("doctor") / "gan"
    return limner.train("toy-gan", out=out, **SMALL, **{"train.checkpoint_images": 256, "train.threads": 1}).path


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the run in the present folder."""
    shutil.copytree(trained, tmp_path / "gan")
    monkeypatch.chdir(tmp_path)
    return Run("gan")


def examined(run: Run, *spreads: float) -> None:
    """Writes examinations with these spreads, long after the start, and a sheet of each."""
    (run.path / "checks.jsonl").unlink(missing_ok=True)
    for i, spread in enumerate(spreads):
        images = 300_000 + 1000 * i
        run.log_check({"images": images, "step": images // 64, "signals": {SIGNAL: spread}})
        shutil.copy(next((run.path / "samples").glob("*.webp")), run.path / "samples" / f"{images:08d}.webp")


def verb(*words: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["limner", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_failure_is_told_with_its_beginning_and_what_helps(run: Run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    examined(run, 0.9, 0.2, 0.1, 0.125)
    assert verb("doctor", "gan", monkeypatch=monkeypatch) == 1
    lines = capsys.readouterr().out.splitlines()
    text = "\n".join(lines)
    assert "FAIL collapse: samples are near-copies" in text
    assert "0.12" in text
    assert "(threshold 0.3)" in " ".join(text.split())
    assert "since image 301,000: samples/00301000.webp" in text
    assert "good before: samples/00300000.webp, checkpoint 00000512" in text
    assert "looks like: low_variety, dropped_classes, vanishing" in text
    tries = [line.split("try", 1)[1].strip() for line in lines if line.startswith("     try")]
    assert len(tries) >= 3
    assert all(len(line) <= 80 for line in lines if "limner train" not in line)
    for words in map(shlex.split, tries):  # each is accepted as it is printed
        assert words[:3] == ["limner", "train", "gan/recipe.yaml"]
        pairs = [word.split("=", 1) for word in words[3:]]
        recipes.load(words[2], {k: Text(v) for k, v in pairs if k != "train.init"})
    assert next(f for f in run.read_json("doctor.json")["findings"] if f["check"] == "collapse")["since"] == 301_000


def test_what_was_bad_from_the_first_look_has_no_good_time(run: Run) -> None:
    examined(run, 0.1, 0.1, 0.1)
    finding = next(f for f in limner.diagnose("gan").findings if f.check == "collapse")
    assert (finding.state, finding.since, finding.last_good, finding.good_sheet) == ("fail", 300_000, None, "")
    assert all(remedy.start is None for remedy in finding.remedies)


def test_json_has_a_command_for_each_remedy(run: Run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    examined(run, 0.1, 0.1, 0.1)
    assert verb("doctor", "gan", "--json", monkeypatch=monkeypatch) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    finding = next(f for f in findings if f["check"] == "collapse")
    assert (finding["check"], finding["state"], finding["value"]) == ("collapse", "fail", 0.1)
    assert all(each["command"].startswith("limner train gan/recipe.yaml ") for each in finding["remedies"])


def test_two_bad_examinations_are_watched_and_good_ones_pass(run: Run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    examined(run, 0.9, 0.2, 0.1)
    assert verb("doctor", "gan", monkeypatch=monkeypatch) == 0
    assert "watch collapse" in capsys.readouterr().out
    examined(run, 0.9, 0.8)
    assert verb("doctor", "gan", monkeypatch=monkeypatch) == 0
    assert "FAIL" not in capsys.readouterr().out


def test_a_run_that_was_not_examined_is_examined_now(run: Run) -> None:
    (run.path / "checks.jsonl").unlink(missing_ok=True)
    diagnosis = limner.diagnose("gan")
    assert "this is one examination, of checkpoint 00000512" in diagnosis.notes[0]
    assert not diagnosis.failed
    assert not (run.path / "checks.jsonl").exists()


def test_a_run_without_a_checkpoint_says_what_is_missing(run: Run) -> None:
    shutil.rmtree(run.checkpoints)
    run.checkpoints.mkdir()
    diagnosis = limner.diagnose("gan")
    collapse = next(f for f in diagnosis.findings if f.check == "collapse")
    assert (collapse.state, collapse.sentence) == ("unknown", "needs a checkpoint")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["doctor", "nothing"], "is not a run folder"),
        (["doctor", "gan", "out=new"], "doctor has no setting 'out'; settings of a training need --try"),
        (["explain", "doctor.colapse"], "did you mean 'doctor.collapse'"),
        (["doctor", "damaged"], "doctor.json is damaged"),
    ],
)
def test_bad_input_is_one_line(run: Run, words: list[str], message: str, monkeypatch, capsys) -> None:
    shutil.copytree("gan", "damaged")
    Path("damaged/doctor.json").write_text('{"findings": 3}', encoding="utf-8")
    assert verb(*words, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_explain_gives_numbers_and_remedies(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert verb("explain", "doctor.collapse", monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    assert "mode collapse" in text
    assert "0.3  of the distance of two real images" in text
    assert "model.D.pack=2" in text
    assert "collapse" in limner.explain("doctor").text


# ---- trying ----------------------------------------------------------------------------------------------------------


def test_a_failing_run_is_trained_once_more_and_both_are_compared(run: Run, monkeypatch, capsys) -> None:
    examined(run, 0.9, 0.1, 0.1, 0.1)
    code = verb("doctor", "gan", "--try", "out=new", "train.images=128", monkeypatch=monkeypatch)
    said = capsys.readouterr()
    assert code == 0  # the new run is too short to be judged
    first = next(f for f in limner.diagnose("gan").findings if f.check == "collapse").remedies[0]
    new, old = Run("new").recipe, run.recipe
    after = recipes.of_run(old, first.settings).to_dict()
    assert new["model"] == after["model"]
    assert new["optim"] == after["optim"]
    assert (new["train"]["seed"], new["train"]["images"]) == (old["train"]["seed"], 128)
    lines = said.out.splitlines()
    assert lines[0].split() == ["gan", "new"]
    assert any(line.split()[:3] == ["collapse", "fail", "0.1"] for line in lines)
    assert first.text in said.err
    assert lines[-1] == "new"


def test_a_healthy_run_has_nothing_to_try(run: Run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    examined(run, 0.9, 0.9)
    assert verb("doctor", "gan", "--try", "out=new", monkeypatch=monkeypatch) == 0
    assert "there is nothing to try: no check fails" in capsys.readouterr().out
    assert not Path("new").exists()


def test_the_line_of_progress_names_what_fails(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Lines()
    progress.total = 640
    line = {"images": 64, "images_per_second": 9.0, "loss/D": 1.0}
    for check, state, shown in (("collapse", "fail", "FAIL collapse"), ("collapse", "pass", "")):
        progress.finding(check, state)
        progress.printed = -100.0
        progress.log(line)
        assert capsys.readouterr().err.rstrip().endswith(shown or "D 1")


# ---- remedies --------------------------------------------------------------------------------------------------------


def test_a_remedy_begins_at_the_good_checkpoint_where_the_nets_are_alike(run: Run) -> None:
    model = limner.load("gan")
    offered = {next(iter(r.settings)): r for r in remedies.remedies("collapse", run.recipe, model, 256)}
    slower, packed = offered["optim.G.lr"], offered["model.D.pack"]
    assert (slower.start, packed.start) == (256, None)
    assert slower.settings == {"optim.G.lr": 0.0005, "optim.D.lr": 0.0005, "train.images": 256}
    assert packed.settings == {"model.D.pack": 2}
    words = command("my runs/gan", slower)
    assert words.startswith("limner train 'my runs/gan/recipe.yaml' optim.G.lr=0.0005")
    assert words.endswith("'train.init=my runs/gan/checkpoints/00000256'")


def test_what_a_recipe_does_not_take_is_not_offered(run: Run) -> None:
    model, recipe = limner.load("gan"), run.recipe

    def offered(**changes: object) -> set[str]:
        changed = recipes.of_run(recipe, {k.replace("__", "."): v for k, v in changes.items()}).to_dict()
        return {key for r in remedies.remedies("collapse", changed, model, None) for key in r.settings}

    assert {"model.D.pack", "model.penalties", "model.name"} <= offered()
    assert "model.D.pack" not in offered(train__batch=63)  # a pack of two does not divide it
    assert "model.D.pack" not in offered(model__D__pack=2)  # it has it
    assert "model.name" not in offered(model__penalties={"r1": 1})  # the unrolled GAN has none
    assert remedies.remedies("posterior_collapse", recipe, model, None) == []


def test_the_list_of_remedies_is_whole() -> None:
    every = {change.words for check in remedies.checks() for change in remedies.of_check(check)}
    beds = remedies.beds()
    assert set(remedies.checks()) <= set(CHECKS)
    for check in remedies.checks():
        assert remedies.bed_of(check) in {"", *beds}
    for bed in beds.values():
        recipes.load(bed.recipe)
    for bed, change in remedies._measured():
        assert bed in beds
        assert change in every
    kinds = ("model", "optimiser", "train", "net")
    names = {name for kind in kinds for owner in catalogue.names(kind) for name in arguments(kind, owner)} | {
        "name",
        "*",
    }
    for change in (change for check in remedies.checks() for change in remedies.of_check(check)):
        assert {key.rpartition(".")[2] for key in (*change.set, *change.times)} <= names, change


def test_a_remedy_that_helped_often_comes_before_one_that_helped_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"beta1": (8, 8), "r1": (1, 1), "pack": (0, 1)}
    words = dict(zip(rows, (change.words for change in remedies.of_check("collapse")), strict=False))
    measured = {
        ("mnist", words[name]): {"helped": helped, "of": of, "metric": "m", "before": 2.0, "after": 1.0}
        for name, (helped, of) in reversed(rows.items())
    }
    monkeypatch.setattr(remedies, "_measured", lambda: measured)
    order = [change.words for change, _ in remedies.described("collapse")]
    assert order[:2] == [words["beta1"], words["r1"]]
    assert order[-1] == words["pack"]  # behind those that were not measured
    assert remedies.described("collapse")[0][1].effect == "m 2 → 1"


def test_a_rate_is_told_only_where_it_was_measured() -> None:
    assert Remedy({}, "").rate == "not measured"
    assert Remedy({}, "", "toy-gan", 9, 10).rate == "helped 9/10 seeds on toy-gan"
    assert "remedies" not in Finding("collapse", "pass", "").to_dict()
