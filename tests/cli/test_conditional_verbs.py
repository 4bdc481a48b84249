"""What a conditional model is asked for on the command line, and what the command line says of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import limner as library
from limner.cli import main
from limner.config.spec import Spec
from limner.core.condition import Attributes

FACES = Attributes({"hair": ["red", "grey"], "glasses": ["none", "round"]})


def limner(*words: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["limner", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional GAN of 8×8 digits after two steps."""
    nets = {"G.widths": [8], "D.widths": [8], "data": {"name": "digits", "limit": 40}}
    small = {"batch": 16, "images": 32, "samples": 4, "device": "cpu"}
    return library.train("cgan-mlp-mnist", out=tmp_path_factory.mktemp("cli") / "run", **small, **nets).path


@pytest.mark.parametrize("words", [["-y", "3"], ["-y3"], ["y=3"], ["--y", "3"]])
def test_a_class_is_asked_for_in_every_form(words, digits, tmp_path, monkeypatch, capsys) -> None:
    assert limner("sample", digits, tmp_path / "a", "-n", 2, *words, "--json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["y"] == "3"
    expected = library.load(digits).sample(2, y=3, seed=0)[0, 0]
    with Image.open(tmp_path / "a/00000.png") as image:
        shown = torch.from_numpy(np.asarray(image.convert("L")).copy()).float()
    assert (shown - (expected + 1) * 127.5).abs().max() <= 1


def test_attributes_are_asked_for_by_name_and_value(tmp_path, monkeypatch, capsys) -> None:
    G = {"name": "mlp.Decoder", "z": 4, "conditional": True}
    D = {"name": "mlp.Discriminator", "conditional": True}
    spec = Spec.parse("model", {"name": "cgan", "G": G, "D": D})
    model = spec.build(shape=(1, 8, 8), classes=FACES.size, condition=FACES.header())
    model.spec = spec
    monkeypatch.setattr("limner.apply.draw.load_model", lambda *_: model)
    out = tmp_path / "a.png"
    assert limner("sample", "run", out, "-n", 4, "-y", "hair=red glasses=round", monkeypatch=monkeypatch) == 0
    assert out.exists()
    for asked, message in (
        ("hair=redd", "hair has no value 'redd' (did you mean 'red'?); choose from: red, grey"),
        ("hare=red", "there is no attribute 'hare' (did you mean 'hair'?)"),
        ("red", "'red' names no attribute; write for example 'hair=grey glasses=round'"),
    ):
        assert limner("sample", "run", out, "-y", asked, monkeypatch=monkeypatch) == 2
        assert message in capsys.readouterr().err


def test_what_y_may_be_is_said_in_advance_and_in_errors(digits, tmp_path, monkeypatch, capsys) -> None:
    for words in (["explain", digits], ["sample", digits, "--help"]):
        assert limner(*words, monkeypatch=monkeypatch) == 0
        assert "a class: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in " ".join(capsys.readouterr().out.split())
    assert limner("sample", digits, tmp_path / "a.png", "-y", "eleven", monkeypatch=monkeypatch) == 2
    assert "there is no class 'eleven'; choose from: 0, 1" in capsys.readouterr().err


def test_a_wrong_class_names_the_nearest() -> None:
    from limner.core.condition import Classes
    from limner.core.errors import LimnerError

    with pytest.raises(LimnerError, match=r"no class 'catt' \(did you mean 'cat'\?\); choose from: cat, dog"):
        Classes(["cat", "dog"]).read("catt", 1)
