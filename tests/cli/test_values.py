"""Values out of range, letters that a pipe lacks, and the user's home folder."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import limner
from limner.apply.draw import draw
from limner.cli import main
from limner.core.errors import LimnerError
from limner.core.run import Run
from limner.data.sources.content_style import style_names


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["limner", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train ae-mnist optim.AE.lr=-1", "optim.AE.lr: input should be greater than or equal to 0, got -1"),
        ("train ae-mnist optim.AE.lr=inf", "optim.AE.lr: input should be a finite number"),
        ("train ae-mnist optim.AE.betas=0.5,1", "optim.AE.betas: input should be less than 1"),
        ("train ae-mnist optim.AE.clip=0", "optim.AE.clip: input should be greater than 0"),
        (
            "train ae-mnist optim.AE.scale={decoder: -1}",
            "optim.AE.scale.decoder: input should be greater than or equal",
        ),
        ("train ae-mnist time=0", "time must be above 0, got 0 seconds; write 90s, 20m or 1h30m"),
        ("train ae-mnist time=-5", "time must be above 0, got -5 seconds"),
        ("train ae-mnist seed=99999999999999999999", "seed must be at most 9223372036854775807, got 9999"),
        ("train ae-mnist images=0", "images must be at least 1, got 0"),
        ("train ae-mnist threads=100000", "threads must be at most 1024, got 100000"),
        ("train ae-mnist samples=1000000", "samples must be at most 10000"),
        ("train ae-mnist size=-5", "size: -5 is not a size"),
        ("stylise china flower size=-5", "size: input should be greater than or equal to 16; got -5"),
        ("stylise china flower strength=nan", "strength: input should be a finite number; got 'nan'"),
        ("stylise china flower strength=-1", "strength: input should be greater than or equal to 0"),
        ("stylise china flower style_size=4", "style_size: input should be greater than or equal to 16; got 4"),
        ("stylise china flower iterations=0", "iterations: input should be greater than or equal to 1"),
        ("stylise china flower scales=99", "scales: input should be less than or equal to 16"),
        ("stylise china flower out=", "out: there is no value after the '='"),
        ("lab oscillation steps=1", "steps: input should be greater than or equal to 60; got 1"),
        ("lab vae seed=-1", "seed: '-1' is not a count; write 5000, 10k or 1.2M"),
        ("compare vae-mnist gan-mnist seeds=0", "seeds: '0' is not possible; write a whole number from 1 up"),
    ],
)
def test_a_value_out_of_range_is_one_line(
    words: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    first, brace, rest = words.partition("{")
    parts = first.split()
    assert run(monkeypatch, *parts[:-1], parts[-1] + brace + rest) == 2
    err = capsys.readouterr().err
    assert err.startswith("limner: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_a_pipe_that_lacks_a_letter_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows gives a pipe cp1252, which has no č; the C locale has ASCII."""
    for encoding, shown in (("cp1252", r"Tyle\u010dek"), ("ascii", r"256\xd7256"), ("utf-8", "Tyleček")):
        pipe = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe, encoding=encoding, write_through=True))
        assert run(monkeypatch, "data", "list") == 0
        assert shown in pipe.getvalue().decode(encoding)


def test_home_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    for i in range(70):
        (tmp_path / "home/photos").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), 3 * i, np.uint8)).save(tmp_path / f"home/photos/{i}.png")
    trained = limner.train("ae-mnist", data="~/photos", out="~/run", images=64, batch=32)
    assert trained.path == tmp_path / "home/run"
    assert Run("~/run").name == "run"
    assert limner.sample("~/run", 1).shape == (1, 1, 16, 16)
    assert run(monkeypatch, "sample", "~/run", "~/out.v2/", "-n", "2") == 0
    assert run(monkeypatch, "sample", "~/run", "~/sheet.png", "-n", "2") == 0
    assert {p.name for p in (tmp_path / "home").iterdir()} == {"photos", "run", "out.v2", "sheet.png"}
    assert [p.name for p in tmp_path.iterdir()] == ["home"]
    with pytest.raises(LimnerError, match=r"or out\.v3/ for a folder"):
        draw("~/run", "~/out.v3")


def test_a_painting_whose_name_has_a_comma(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert style_names("sea, blue.jpg") == ["sea", " blue.jpg"]
    Path("sea, blue.jpg").touch()
    assert style_names("sea, blue.jpg") == ["sea, blue.jpg"]
    assert style_names("x" * 5000) == ["x" * 5000]
