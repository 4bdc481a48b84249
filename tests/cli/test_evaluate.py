"""`limner evaluate` on real runs and on folders of pictures, and one clear line where it cannot."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import limner
from limner import data
from limner.cli import main
from limner.core.batch import to_uint8
from limner.metrics.scorecard import HEADLINES, PROPERTIES, base

SMALL = {
    "data": {"name": "mnist-5k", "limit": 800},
    "batch": 32,
    "images": 6400,
    "samples": 4,
    "device": "cpu",
    "threads": 1,
    "sample_images": 6400,
}


def verb(*words: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["limner", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMNER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional VAE, scored twice on the way."""
    out = tmp_path_factory.mktemp("evaluate") / "cvae"
    return limner.train("cvae-mnist", out=out, score_images=3200, **SMALL).path


def test_training_is_scored_on_the_way_and_the_best_is_kept(run: Path) -> None:
    lines = [line for line in limner.Run(run).metrics() if "score/fd" in line]
    assert [line["images"] for line in lines] == [3200, 6400]
    best = min(lines, key=lambda line: line["score/fd"])["images"]
    assert limner.Run(run).best.name == f"{best:08d}"
    assert limner.load(run / "checkpoints" / "best").sample(2, seed=0).shape == (2, 1, 28, 28)
    assert {base(name) for name in limner.Run(run).read_json("scores.json")} >= {"fd", "clipped_density", "elbo_nats"}


def test_scores_on_the_way_survive_an_interruption(run: Path, tmp_path: Path) -> None:
    """Half a training, resumed: the same scores at the same images, the same best."""
    half = limner.train("cvae-mnist", out=tmp_path / "half", score_images=3200, **SMALL | {"images": 3200})
    half = limner.resume(half.path, images=6400)
    rows = [
        [{k: v for k, v in line.items() if k == "images" or k.startswith("score/")} for line in r.metrics()]
        for r in (half, limner.Run(run))
    ]
    assert rows[0] == rows[1]
    assert half.best.name == limner.Run(run).best.name


def test_the_best_outlives_newer_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of four scores is the lowest; after a resume a better one takes its place, and its checkpoint goes."""
    scores = iter([3.0, 1.0, 2.0, 2.5, 1.5, 0.5, 0.5])
    monkeypatch.setattr(
        "limner.evaluation.scoring.during_training", lambda judge, heldout: lambda model: {"fd": next(scores)}
    )

    def kept(run: limner.Run) -> list[int]:
        return sorted(int(p.name) for p in run.checkpoints.iterdir() if p.name.isdigit())

    settings = SMALL | {"images": 3200, "checkpoint_images": 320, "keep": 1, "score_images": 800}
    made = limner.train("gan-mnist", out=tmp_path / "gan", **settings)
    assert (made.best.name, kept(made)) == ("00001600", [1600, 3200])
    best, latest = (limner.load(made.checkpoints / name).sample(4, seed=0) for name in ("best", "latest"))
    assert torch.equal(best, limner.load(made.checkpoints / "00001600").sample(4, seed=0))
    assert not torch.equal(best, latest)
    made = limner.resume(made.path, images=4000)
    # the newest planned one stays beside the last one, which lies between two: a training can be taken back to it
    assert (made.best.name, kept(made)) == ("00001600", [1600, 3840, 4000]), "1.5 is no better than 1.0 was"
    made = limner.resume(made.path, images=5600)
    assert (made.best.name, kept(made)) == ("00004800", [4800, 5440, 5600]), "of two alike the first is kept"


def test_a_card_has_all_properties_and_goes_everywhere(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb("evaluate", run, "n=300", "seeds=2", "--json", monkeypatch=monkeypatch) == 0
    (card,) = json.loads(capsys.readouterr().out).values()
    assert {score["property"] for score in card.values()} == set(PROPERTIES)
    for name, score in card.items():
        assert (score["value"] is None) == ("why" in score), name
    heads = {score["property"] for name, score in card.items() if base(name) == HEADLINES.get(score["property"])}
    assert heads == set(HEADLINES)
    quality = card["clipped_density@lenet64-v1[n=300]"]
    assert 0 <= quality["norm"] <= 1
    assert quality["floor"] < 0.2 < quality["ceiling"]
    assert quality["on"] == "300 samples against 500 held-out images of mnist-5k, 2 seeds"
    assert card["mig"]["value"] is None
    assert "not known" in card["mig"]["why"]
    assert json.loads((run / "scores.json").read_text()) == card
    page, model_card = (run / "report.html").read_text(), (run / "README.md").read_text()
    for title in PROPERTIES.values():
        assert title in page
    assert 'class="radar"' in page
    assert "n/a: the factors behind mnist-5k are not known" in page
    assert "Clipped density@lenet64-v1" in model_card.replace("\\", "")
    sheet = Image.open(run / "figures" / "neighbours.webp")
    assert sheet.size == (12 * 30 - 2, 4 * 30 - 2)


def test_a_second_card_changes_only_what_it_measures(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = limner.Run(run).read_json("scores.json")
    assert verb("evaluate", run, "only=copying", "n=100", monkeypatch=monkeypatch) == 0
    after = limner.Run(run).read_json("scores.json")
    kept = {k: v for k, v in before.items() if v["property"] != "copying"}
    assert {k: after[k] for k in kept} == kept
    assert "copying@lenet64-v1[n=100]" in after


def test_sampling_options_make_rows_beside_the_default(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limner.evaluate(run, n=100, seeds=1, only="quality")
    before = limner.Run(run).read_json("scores.json")
    words = ("truncation=0.3,2", "n=100", "seeds=1", "only=quality")
    assert verb("evaluate", run, *words, "--json", monkeypatch=monkeypatch) == 0
    cards = json.loads(capsys.readouterr().out)
    assert list(cards) == [f"{run} truncation=0.3", f"{run} truncation=2"]
    after = limner.Run(run).read_json("scores.json")
    assert {k: after[k] for k in before} == before
    for value in ("0.3", "2"):
        card = cards[f"{run} truncation={value}"]
        assert card.items() <= after.items()
        assert card[f"evaluations[truncation={value}]"]["value"] == 1
        score = card[f"fd@lenet64-v1[n=100,truncation={value}]"]
        assert score["options"] == {"truncation": float(value)}
        assert f"100 samples with truncation={value} against" in score["on"]
    assert len({after[f"fd@lenet64-v1[n=100{o}]"]["value"] for o in ("", ",truncation=0.3", ",truncation=2")}) == 3
    assert verb("evaluate", run, *words, monkeypatch=monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["evaluations", "fd", "clipped_density"]
    assert [line.split()[1] for line in lines[1:3]] == ["truncation=0.3", "truncation=2"]
    assert limner.Run(run).read_json("scores.json").keys() == after.keys()
    assert limner.evaluate(run, n=100, seeds=1, only="quality", truncation=[0.3, 2]) == cards
    page = (run / "report.html").read_text()
    assert "lenet64-v1, n = 100, truncation = 0.3" in page


def test_pictures_from_anywhere_are_judged_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real digits saved as PNGs and passed off as samples: real, and found out as copies."""
    real = data.load("mnist-5k", split="train", limit=150)
    for i, image in enumerate(real.pixels):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{i:03d}.png")
    assert verb("evaluate", tmp_path, "data=mnist-5k", "--json", monkeypatch=monkeypatch) == 0
    (card,) = json.loads(capsys.readouterr().out).values()
    assert card["duplicates@lenet64-v1[n=150]"]["value"] == 1
    assert card["copying@lenet64-v1[n=150]"]["value"] == "copies"
    assert card["clipped_density@lenet64-v1[n=150]"]["norm"] > 0.9
    assert "throughput" not in card
    assert verb("evaluate", tmp_path, "data=mnist-5k", "truncation=1", monkeypatch=monkeypatch) == 2
    assert "is a folder of pictures, which has no truncation; leave it out" in capsys.readouterr().err


def test_sets_of_unlike_sizes_are_compared_at_the_smaller_one(tmp_path: Path) -> None:
    real = data.load("mnist-5k", split="train", limit=170)
    for folder, part in (("a", real.pixels[:100]), ("b", real.pixels[100:])):
        (tmp_path / folder).mkdir()
        for i, image in enumerate(part):
            Image.fromarray(image[0].numpy()).save(tmp_path / folder / f"{i:03d}.png")
    a, b = limner.evaluate(tmp_path / "a", tmp_path / "b", data="mnist-5k", only="copying").values()
    assert a.keys() == b.keys()
    a, b = a["c_t@lenet64-v1[n=70]"], b["c_t@lenet64-v1[n=70]"]
    assert (a["drawn"], a["of"], b["drawn"], b["of"]) == (70, 100, 70, 70)
    assert a["on"].startswith("70 of 100 pictures of a (drawn with seed 0), ")
    assert b["on"].startswith("70 pictures of b, ")


def test_samples_saved_and_judged_are_the_samples_judged(run: Path, tmp_path: Path) -> None:
    """What a folder of a run's samples scores is what the run scores: PNGs lose nothing."""
    card = limner.evaluate(run, n=120, seeds=1, only="quality")[str(run)]
    x = to_uint8(limner.load(run).sample(120, seed=0))
    for i, image in enumerate(x):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{i:03d}.png")
    told = limner.evaluate(tmp_path, data={"name": "mnist-5k", "limit": 800}, n=120, only="quality")[str(tmp_path)]
    for name in ("fd@lenet64-v1[n=120]", "kid@lenet64-v1[n=120]", "precision@lenet64-v1[n=120]"):
        assert told[name]["value"] == pytest.approx(card[name]["value"], abs=1e-9)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["RUN", "only=beauty"], "unknown property 'beauty'"),
        (["RUN", "extractor=inceptoin"], "unknown extractor"),
        (["RUN", "seed=3"], "cvae has no sampling option 'seed'; did you mean 'seeds'"),
        (["RUN", "steps=5"], "cvae has no sampling option 'steps' .it has truncation.; leave steps out"),
        (["RUN", "truncation=0.5,0"], "truncation must be a number above 0, got 0"),
        (["RUN", "truncatoin=0.5"], "cvae has no sampling option 'truncatoin'; did you mean 'truncation'"),
        (["RUN", "likelihood=exact"], "unknown likelihood 'exact'; choose from: AIS, ODE"),
        (["RUN", "n=20"], "at least 65 images"),
        (["RUN", "which=best", "seeds=0"], "seeds: input should be greater than or equal to 1; got 0"),
        (["RUN", "n=many"], "n: .many. is not a count"),
        (["RUN", "--only", "beauty"], "unknown property .beauty."),
        (["nowhere"], "there is no nowhere"),
        (["FOLDER"], "is no run folder.*data=NAME"),
        (["RUN", "OTHER"], "different data.*data=NAME"),
    ],
)
def test_one_clear_line(
    words: list[str], why: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    other = tmp_path / "other"
    if "OTHER" in words:
        limner.train("vae-mnist", out=other, **SMALL | {"data": "digits", "images": 64})
    places = {"RUN": run, "OTHER": other, "FOLDER": tmp_path}
    capsys.readouterr()
    assert verb("evaluate", *(places.get(w, w) for w in words), monkeypatch=monkeypatch) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(why, line), line
