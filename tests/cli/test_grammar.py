"""One grammar for all verbs: every setting of every signature, in every parser, and help that is drawn from them."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from limner.api import train
from limner.cli import main
from limner.cli.grammar import Parser
from limner.cli.verbs import VERBS
from limner.config import recipe as recipes
from limner.config.signatures import read_texts
from limner.core.errors import LimnerError
from limner.labs import titles

NAMES = {"lab": ["style"], "bench": ["modes"], "list": ["recipes"]}
FORMS = [(name, NAMES.get(name, ["one", "two", "three"][: len(verb.names)])) for name, verb in VERBS.items()]
CASES = [pytest.param(name, words, id=name) for name, words in FORMS]
OBJECTS = ("progress", "on_frame", "on_image")
"""Arguments that only programs have."""


def parser(name: str, words: list[str]) -> Parser:
    return Parser(VERBS[name], words)


def recipe_keys(*words: str) -> dict[str, Any]:
    """What `limner train` passes on, texts by key."""
    names, given, _ = parser("train", []).parse(["vae-mnist", *words])
    assert names == ["vae-mnist"]
    return read_texts(train, given)


def in_recipe(*words: str) -> dict[str, Any]:
    """The keyword arguments of data and training that these words make."""
    loaded = recipes.load("vae-mnist", recipe_keys(*words))
    return {"data.name": loaded.data.name} | loaded.data.kwargs | loaded.train.kwargs


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["limner", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


# -- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["train.batch=32"], ["--train.batch=32"], ["--train.batch", "32"]])
def test_three_forms(words: list[str]) -> None:
    assert recipe_keys(*words) == {"train.batch": "32"}
    assert in_recipe(*words)["batch"] == 32


def test_values_of_recipe_keys_have_the_type_of_their_key() -> None:
    read = in_recipe("data=photos/a=b", "size=[48,64]", "time=null", "device=0,1", "flip=true")
    assert {k: read[k] for k in ("path", "size", "time", "device", "flip")} == {
        "path": "photos/a=b",
        "size": (48, 64),
        "time": None,
        "device": "0,1",
        "flip": True,
    }


@pytest.mark.parametrize("words", [["batch"], ["--batch"], ["=3"], ["--batch", "--size", "3"], ["--"], ["-", "x"]])
def test_anything_else_is_refused(words: list[str]) -> None:
    with pytest.raises(LimnerError, match="write key=value"):
        recipe_keys(*words)


def written(annotation: str) -> str:
    """A value that fits an annotation."""
    return "true" if annotation == "bool" else "7"


@pytest.mark.parametrize(("name", "words"), CASES)
def test_every_form_of_every_setting_is_the_same_call(name: str, words: list[str]) -> None:
    """In front of the names, between and behind them; and a flag alone."""
    whole = parser(name, words)
    for setting in whole.settings.values():
        text = written(setting.annotation)
        dashed = setting.name.replace("_", "-")
        ways = [[f"{setting.name}={text}"], [f"--{dashed}", text], [f"--{dashed}={text}"], [f"--{setting.name}", text]]
        if setting.annotation == "bool":
            ways.append([f"--{dashed}"])
        if len(setting.name) == 1:
            ways += [[f"-{setting.name}", text], [f"-{setting.name}{text}"]]
        calls = [whole.parse([*words[:at], *way, *words[at:]]) for way in ways for at in range(len(words) + 1)]
        assert all(call == calls[0] for call in calls), setting.name
        names, given, as_json = calls[0]
        assert names == words
        assert as_json is (setting.name == "json")
        assert [key.rstrip("_") for key in given] == ([] if as_json else [setting.name])


def test_the_short_form_of_config_is_free_where_a_verb_has_a_setting_c() -> None:
    assert parser("train", []).parse(["x", "-c", "mine.yaml"])[1] == {"config": "mine.yaml"}
    assert parser("latent edit", []).parse(["runs/mine", "out", "-c", "glasses=none"])[1] == {"c": "glasses=none"}


@pytest.mark.parametrize(("name", "words"), [c for c in FORMS if c[1] and c[0] not in ("evaluate", "compare")])
def test_a_name_may_be_given_by_its_key(name: str, words: list[str]) -> None:
    keys = [f"{key}={word}" for key, word in zip(VERBS[name].names, words)]
    assert parser(name, words).parse(list(reversed(keys)))[0] == words


@pytest.mark.parametrize(("name", "words"), CASES)
def test_the_settings_are_those_of_the_signatures(name: str, words: list[str]) -> None:
    """What is read from the text of a file is what Python says of the function."""
    verb, found = VERBS[name], parser(name, words)
    first = words[0] if words else ""
    for path in verb.sources.values():
        module, _, attribute = path.format(name=first).rpartition(".")
        parameters = inspect.signature(getattr(import_module(module), attribute)).parameters
        for p in parameters.values():
            if p.default is not p.empty and p.name not in (*OBJECTS, *verb.names):
                assert p.name in found.settings
        assert found.open or not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    own = inspect.signature(verb.function).parameters.values()
    assert {p.name.rstrip("_") for p in own if p.kind is p.KEYWORD_ONLY} <= found.settings.keys()


@pytest.mark.parametrize(("name", "words"), [c for c in FORMS if not parser(*c).open])
def test_an_unknown_setting_is_one_line_with_the_nearest_match(
    name: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["jsno=true"], ["--jsno"], ["--jsno", "true"]):
        assert run(monkeypatch, *name.split(), *words, *wrong) == 2
        out, err = capsys.readouterr()
        assert not out
        assert err == "limner: unknown setting 'jsno'; did you mean 'json'?\n"


@pytest.mark.parametrize("name", [n for n, v in VERBS.items() if "limner.labs" not in str(v.sources)])
def test_objects_of_programs_are_no_settings(name: str) -> None:
    with pytest.raises(LimnerError, match="unknown setting 'progress'"):
        parser(name, NAMES.get(name, [])).parse([*NAMES.get(name, []), "progress=1"])


def test_values_are_read_by_their_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that names a folder is text, a null is nothing, a list is a list."""
    from limner import painting
    from limner.apply import draw

    got: dict[str, Any] = {}

    def drawn(path: str, out: str, *, n: int = 64, seed: int = 0, y: int | None = None) -> Any:
        got.update(path=path, out=out, n=n, seed=seed, y=y)
        return draw.Drawn([], "vae", n, seed, y, {})

    monkeypatch.setattr(draw, "draw", drawn)
    assert run(monkeypatch, "sample", "2024", "out=2025", "-n", "16", "y=null", "--seed=3") == 0
    assert got == {"path": "2024", "out": "2025", "n": 16, "seed": 3, "y": None}

    def painted(content: str, styles: list[str], out: str, **settings: Any) -> None:
        got.update(settings, styles=styles, out=out)

    painted.__signature__ = inspect.signature(painting.stylise)  # type: ignore[attr-defined]
    painted.__annotations__ = inspect.get_annotations(inspect.unwrap(painting.stylise), eval_str=True)
    monkeypatch.setattr(painting, "stylise", painted)
    words = ["a.jpg", "--style-shares", "[2,1]", "b.jpg,c.jpg", "--keep-colours", "out=2026", "model.smoothness=1"]
    assert run(monkeypatch, "stylise", *words, "weights=2027") == 0
    assert got["style_shares"] == [2, 1]
    assert got["styles"] == ["b.jpg", "c.jpg"]
    assert got["keep_colours"] is True
    assert got["out"] == "2026"
    assert got["model.smoothness"] == "1", "its type is that of the model's argument, which the recipe decides"
    assert got["weights"] == "2027"


def test_a_wrong_value_names_its_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "sample", "run", "out.png", "n=many") == 2
    assert capsys.readouterr().err.startswith("limner: n: input should be a valid integer")
    assert run(monkeypatch, "data", "list", "--json=maybe") == 2
    assert capsys.readouterr().err.startswith("limner: json: input should be a valid boolean")


# -- help --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "words"), [*FORMS, *(("lab", [lab]) for lab in titles())])
def test_help_lists_every_setting_in_80_columns(
    name: str,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(monkeypatch, *name.split(), *words, "--help") == 0
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"limner {name} ")
    assert f"  limner {name}" in lines[4], "an example"
    whole = parser(name, words)
    for setting in whole.settings.values():
        assert setting.text, f"{setting.name} has no line in a docstring"
        assert any(line.split()[:1] in ([setting.name], [f"{setting.name},"]) for line in lines), setting.name
    for key in VERBS[name].names:
        assert whole.texts[key], key
        assert any(line.split()[:1] == [key.upper()] for line in lines), key
    assert "`" not in told


def test_the_overview_has_a_line_for_every_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, code, verbs in (
        ([], 2, VERBS),
        (["--help"], 0, VERBS),
        (["data"], 2, ["data list", "data get", "data prepare", "data check"]),
        (["data", "-h"], 0, ["data list", "data get", "data prepare", "data check"]),
    ):
        assert run(monkeypatch, *words) == code
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        rows = [line for line in lines if line.startswith("  ")]
        assert len(rows) == len(verbs)
        assert all(row.startswith(f"  {verb} ") for row, verb in zip(rows, verbs))


@pytest.mark.parametrize(
    ("words", "told"),
    [(["trian"], "unknown verb 'trian'; did you mean 'train'?"), (["data", "chek"], "did you mean 'data check'")],
)
def test_an_unknown_verb(words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert run(monkeypatch, *words) == 2
    out, err = capsys.readouterr()
    assert told in err
    assert err.count("\n") == 1
    assert not out


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version(flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import limner

    assert run(monkeypatch, flag) == 0
    assert capsys.readouterr().out == f"{limner.__version__}\n"


LIGHT = [
    ["--help"],
    ["--version"],
    ["nosuch"],
    ["data", "--help"],
    ["data", "list"],
    ["train", "nosuch"],
    ["lab", "nosuch"],
    ["list"],
    ["list", "models"],
    ["list", "data"],
    ["list", "labs"],
    ["explain", "nosuch-at-all", "--nosuch"],
    ["apply", "run", "in/", "out/", "--nosuch", "3"],
]


def test_help_and_first_mistakes_import_no_torch() -> None:
    """In one process: none of them may import it, so the last one tells of all."""
    calls = [*LIGHT, *([*name.split(), *words, "--help"] for name, words in FORMS)]
    code = f"""
import sys
from limner.cli import main
for words in {calls!r}:
    sys.argv = ["limner", *words]
    try:
        main()
    except SystemExit:
        pass
    assert not {{"torch", "numpy"}} & set(sys.modules), words
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, env=os.environ)
    assert done.returncode == 0, done.stderr[-500:]
