"""Sampling options: every type of a declaration is checked, in Python and on the command line in the same words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import AfterValidator, Field
from torch import Tensor, nn

import limner
from limner.bench.shrink import shrunk
from limner.cli import main
from limner.config import catalogue
from limner.config import recipe as recipes
from limner.config.explain import sampling_schema
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.rng import Noise
from limner.core.sampling_options import checked, declared, limits
from limner.core.units import Count


def rising(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] >= values[1]:
        raise ValueError(f"{values[0]:g} is not below {values[1]:g}; write the lower number first")
    return values


class Ramp(GenerativeModel):
    """Draws one grey value, to see which options arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def draw(
        self,
        n: int,
        y: Tensor | None,
        noise: Noise,
        *,
        steps: Annotated[int, Field(ge=1, le=1000)] = 20,
        sampler: Literal["euler", "heun", "dpm2m"] = "heun",
        scale: Annotated[float, Field(ge=0)] = 1.0,
        interval: Annotated[tuple[float, float], AfterValidator(rising)] | None = None,
        images: Count = 10,
        clip: bool = False,
        **options: Any,
    ) -> Tensor:
        return torch.full((n, 1, 2, 2), steps / 1000)


OPTIONS = declared(Ramp.draw)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ({"steps": 5}, 5),
        ({"steps": "5"}, 5),
        ({"steps": np.int64(1000)}, 1000),
        ({"sampler": "dpm2m"}, "dpm2m"),
        ({"scale": 0}, 0.0),
        ({"scale": "2.5"}, 2.5),
        ({"interval": [0.2, 5]}, (0.2, 5.0)),
        ({"images": "10k"}, 10_000),
        ({"clip": True}, True),
    ],
)
def test_a_value_gets_the_type_of_its_declaration(written: dict[str, Any], value: Any) -> None:
    got = checked("ramp", OPTIONS, written)
    assert got == dict.fromkeys(written, value)
    assert type(next(iter(got.values()))) is type(value)


REFUSED = {
    "steps=0": "steps must be a whole number from 1 to 1000, got 0",
    "steps=1000000": "steps must be a whole number from 1 to 1000, got 1000000",
    "steps=2.5": "steps must be a whole number from 1 to 1000, got 2.5",
    "steps=many": "steps must be a whole number from 1 to 1000, got many",
    "scale=-1": "scale must be a number of at least 0, got -1",
    "sampler=huen": "unknown sampler 'huen'; did you mean 'heun'?",
    "sampler=x": "unknown sampler 'x'; choose from: dpm2m, euler, heun",
    "interval=0.2": "interval must be two numbers such as 0.2,5, got [0.2]",
    "interval=5,0.2": "interval: 5 is not below 0.2; write the lower number first",
    "images=1.5": "images: '1.5' is not a whole number; write 5000, 10k or 1.2M",
    "clip=perhaps": "clip must be true or false, got perhaps",
    "stesp=5": "ramp has no sampling option 'stesp'; did you mean 'steps'?",
    "sead=5": "ramp has no sampling option 'sead'; did you mean 'seed'?",
    "truncation=1": "ramp has no sampling option 'truncation'"
    " (it has steps, sampler, scale, interval, images, clip); leave truncation out",
}
PYTHON: dict[str, Any] = {"steps=2.5": 2.5, "scale=-1": -1, "interval=0.2": [0.2], "interval=5,0.2": (5, 0.2)}
NUMBERS = {"steps=0": 0, "steps=1000000": 10**6, "images=1.5": "1.5"}


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a GAN, whose model the test replaces."""
    out = tmp_path_factory.mktemp("ramp") / "run"
    return limner.train(shrunk("gan-mnist", images=16).to_dict(), out=out).path


def draws_ramps(monkeypatch: pytest.MonkeyPatch) -> Ramp:
    """Makes every loaded model a `Ramp`."""
    model = Ramp()
    monkeypatch.setattr(model, "spec", type("Named", (), {"name": "ramp"}), raising=False)
    for place in ("limner.apply.draw.load_model", "limner.api.load_model"):
        monkeypatch.setattr(place, lambda *_: model)
    return model


@pytest.mark.parametrize("word", REFUSED)
def test_python_and_the_command_line_refuse_in_the_same_words(
    word: str, ramp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, (key, _, text) = draws_ramps(monkeypatch), word.partition("=")
    monkeypatch.setattr(sys, "argv", ["limner", "sample", str(ramp), str(tmp_path / "s.png"), word])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"limner: {REFUSED[word]}\n"
    assert not (tmp_path / "s.png").exists()
    value = (PYTHON | NUMBERS).get(word, text)
    for use in (model.sample, lambda n, **options: limner.sample(ramp, n, **options)):
        with pytest.raises(LimnerError) as refused:
            use(2, **{key: value})
        assert str(refused.value) == REFUSED[word]
    if key != "sead":  # `at` draws nothing, so it has no seed
        with pytest.raises(LimnerError) as refused:
            model.at(**{key: value})
        assert str(refused.value) == REFUSED[word]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, None])
def test_what_is_no_number_is_refused_and_none_is_the_default(value: object) -> None:
    if value is None:
        assert checked("ramp", OPTIONS, {"steps": None}) == {}
    else:
        with pytest.raises(LimnerError, match="scale must be a number of at least 0, got"):
            checked("ramp", OPTIONS, {"scale": value})


def test_a_file_and_the_document_say_what_was_chosen(
    ramp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draws_ramps(monkeypatch)
    words = ["steps=500", "interval=0.2,5", "scale=1.50", "seed=3", "n=2", "--json"]
    monkeypatch.setattr(sys, "argv", ["limner", "sample", str(ramp), str(tmp_path / "s.png"), *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "written": [str(tmp_path / "s.png")], "model": "ramp", "n": 2, "seed": 3, "y": None,
        "options": {
            "steps": 500, "sampler": "heun", "scale": 1.5, "interval": [0.2, 5.0], "images": 10, "clip": False
        },
    }  # fmt: skip
    with Image.open(tmp_path / "s.png") as image:
        assert image.getexif()[0x010E] == "limner sample: ramp, seed 3, steps 500, interval 0.2,5, scale 1.5"
        assert image.getpixel((0, 0)) == round((0.5 + 1) / 2 * 255)


def test_options_chosen_by_at_are_in_the_document(ramp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from limner.apply.draw import draw

    model = draws_ramps(monkeypatch).at(steps=7)
    monkeypatch.setattr("limner.apply.draw.load_model", lambda *_: model)
    assert draw(ramp, tmp_path / "s.png", n=1).options["steps"] == 7


RECIPES = {recipes.load(name).model.name: name for name in reversed(catalogue.names("recipe"))}


@pytest.mark.parametrize("name", RECIPES)
def test_a_class_declares_what_its_models_take(name: str) -> None:
    small = shrunk(RECIPES[name])
    model = small.model.build(**small.data.build().facts())
    declaration = type(model).sampling_declaration()
    known = {} if declaration is None else declared(declaration)
    codes = getattr(model, "code_values", {})  # of an InfoGAN, which has as many as its recipe says
    for key, option in model.sampling_options.items():  # without guidance, if it knows no classes
        assert key in codes or str(option.annotation) == str(known[key].annotation)
    rows = limner.explain(name).sampling
    assert [r["name"] for r in rows] == list(known)
    assert all(r["text"] and not r["required"] for r in rows)
    assert list(sampling_schema(name)["properties"]) == list(known)


def test_words_of_sampling_are_explained_by_every_way_to_ask(ramp: Path) -> None:
    (row,) = limner.explain("gan.truncation").options
    assert (row["type"], row["default"]) == ("float, above 0", None)
    assert limner.explain(str(ramp)).sampling == limner.explain("gan-mnist").sampling == [row]
    for key in ("truncation", "sampling.truncation"):
        assert next(r for r in limner.explain(key).options if "gan" in r["of"].split(", ")) | {"of": None} == {
            **row, "of": None
        }  # fmt: skip
    assert "truncation" in [r["name"] for r in limner.explain("sampling").sampling]
    with pytest.raises(LimnerError, match=r"unknown name 'sampling.trunction'; did you mean 'sampling.truncation'"):
        limner.explain("sampling.trunction")
    schema = sampling_schema("gan")["properties"]["truncation"]
    assert schema["anyOf"][0] == {"type": "number", "exclusiveMinimum": 0}
    assert limits(OPTIONS["steps"].annotation) == "from 1 to 1000"


def test_help_with_a_run_lists_its_options(ramp: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for words, found in ((["sample", "--help"], False), (["sample", str(ramp), "--help"], True)):
        monkeypatch.setattr(sys, "argv", ["limner", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr().out
        assert not ended.value.code
        assert (f"Sampling options of {ramp}:" in told and "  truncation  float, above 0" in told) is found
        assert max(map(len, told.replace(str(ramp), "").splitlines())) <= 80
