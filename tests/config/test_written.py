"""What a written value means is decided by the type of its key; text stays text."""

from __future__ import annotations

import functools
import inspect
import math
import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limner import api
from limner.cli import main, verbs
from limner.cli.grammar import Result
from limner.config import recipe as recipes
from limner.config.recipe import Recipe
from limner.config.written import read_as
from limner.core.errors import LimnerError
from limner.core.yaml_text import Text, dump_yaml, nested, read_yaml

TEXTS = [
    *("cats #2/", "run #1", "2024", "no", "01", "010", "0x10", "1e3", "1_000", ".5", "5.", "nan", "inf", "-inf", "~"),
    *(
        "null",
        "none",
        "None",
        "true",
        "off",
        "2025-01-02",
        "2025-02-30",
        "1:30",
        "12:30:45",
        "'a'",
        '"a"',
        "{a}",
        "[a]",
    ),
    *("[a", "{a: b", "a: b", "&x 1", "*x", "!!int 0x", "!!binary =", "%", "@a", "`a`", "- 1", "? a", "|", ">", "a,b"),
    *(
        "[]",
        "{}",
        "[,]",
        "[1, 2]",
        "1,2",
        "٣",
        "1e999",
        "-1",
        "+1",
        "-0",
        "9" * 400,
        "9" * 5000,
        " 7 ",
        "7\n",
        "é\u2028a\x85*.",
    ),
    *("a" * 300, "[" * 200 + "]" * 200, "../x", "C:\\x", "a=b", "-x", "--", "a\ud8ff", "..", ".", "1.5", "2e-4", "64"),
    *("10k", "1.2M", "1.5", "0.0001k", "20m", "1h30m", "90", "yes", "1", "0", "uniform", "static", "dynamic"),
]
WORDS = st.one_of(
    st.sampled_from(TEXTS),
    st.text(st.sampled_from("ab01.,-_ #~:'\"[]{}!&*%@/\\eEkMnofxé\t"), min_size=1, max_size=9),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(repr),
)
DECIMAL = re.compile(r"[-+]?[0-9](?:_?[0-9])*")


class Refused(Exception):
    """The value has to be refused."""


def integer(text: str) -> int:
    whole = text.strip().partition(".")
    if not DECIMAL.fullmatch(whole[0]) or whole[2].strip("0") or len(text) > 4000:
        raise Refused
    return int(whole[0])


def count(text: str) -> int:
    match = re.fullmatch(r"\s*([-+]?[0-9_]*\.?[0-9]+)\s*([kMG]?)\s*", text)
    if not match or not match[1].isascii():
        raise Refused
    n = Fraction(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[match[2]]
    if n.denominator != 1:
        raise Refused
    return int(n)


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise Refused from None
    if not text.isascii() or not 0 <= value < math.inf:
        raise Refused
    return value


def truth(text: str) -> bool:
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    known |= {"t": True, "y": True, "f": False, "n": False}
    if text.lower() not in known:
        raise Refused
    return known[text.lower()]


def choice(text: str) -> str:
    if text not in ("none", "static", "dynamic"):
        raise Refused
    return text


KEYS: dict[str, tuple[Any, Any]] = {
    "out": (str, lambda r, out: str(out)),
    "data.path": (str, lambda r, out: r.data.kwargs["path"]),
    "model.encoder.name": (None, None),
    "train.seed": (integer, lambda r, out: r.train.kwargs["seed"]),
    "train.threads": (
        lambda t: None if t in ("null", "none", "~") else integer(t),
        lambda r, _: r.train.get("threads"),
    ),
    "batch": (integer, lambda r, out: r.train.kwargs["batch"]),
    "images": (count, lambda r, out: r.train.kwargs["images"]),
    "optim.VAE.lr": (number, lambda r, out: r.optim["VAE"].kwargs["lr"]),
    "flip": (truth, lambda r, out: r.data.kwargs["flip"]),
    "data.binarise": (choice, lambda r, out: r.data.kwargs["binarise"]),
}


class Arrived(Exception):
    """Stands for the training."""


@pytest.fixture
def arrive(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `limner train` as far as the checked recipe: the exit code, the lines on stderr, the recipe and `out`."""
    got: list[tuple[Recipe, Any]] = []

    @functools.wraps(api.train)
    def train(source: Any, *, out: Any = None, config: Any = None, progress: Any = None, **overrides: Any) -> None:
        got.append((recipes.load(source, overrides, config), out))

    monkeypatch.setattr(api, "train", train)
    monkeypatch.setattr(verbs, "_run_result", lambda run: Result(None, ""))

    def call(*words: str) -> tuple[int, str, Recipe | None, Any]:
        got.clear()
        monkeypatch.setattr(sys, "argv", ["limner", "train", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err, *(got[0] if got else (None, None))

    return call


def test_what_arrives_is_what_was_written_or_one_line_says_why_not(arrive: Any) -> None:
    """300 values over keys of all types, through the command line."""
    seen = 0

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from([k for k, (oracle, _) in KEYS.items() if oracle]), WORDS)
    def check(key: str, text: str) -> None:
        nonlocal seen
        oracle, look = KEYS[key]
        code, err, recipe, out = arrive("vae-mnist", "data.name=folder", "data.path=x", f"{key}={text}")
        seen += 1
        if code:
            assert code == 2, err
            assert re.fullmatch(r"limner: [^\n]+\n", err)
        try:
            expected = oracle(text)
        except Refused:
            assert code == 2, (key, text)
            return
        if code == 0:
            value = look(recipe, out)
            assert (value, type(value)) == (expected, type(expected))
        else:
            assert len(text) > 300 or text[0] == "-" or not re.fullmatch(r"-?[0-9]+|[a-z]+/?", text), (key, text, err)

    check()
    assert seen >= 300


@pytest.mark.parametrize("text", [t for t in TEXTS if not nested(t)])
def test_text_stays_text_in_the_command_line_in_python_and_in_files(text: str, arrive: Any, tmp_path: Path) -> None:
    folder = tmp_path / "recipe.yaml"
    folder.write_text(
        dump_yaml(recipes.load("vae-mnist", {"data": {"name": "folder", "path": text}}).to_dict()), "utf-8"
    )
    for words in (["vae-mnist", "data.name=folder", f"data.path={text}"], [str(folder)]):
        code, err, recipe, _ = arrive(*words)
        assert (code, recipe and recipe.data.kwargs["path"]) == (0, text), err
    assert read_yaml(folder)["data"]["path"] == text


def test_class_names_are_as_written(arrive: Any, tmp_path: Path) -> None:
    for words, names in (
        (["only=[no]"], ["no"]),
        (["data.only=[01, 1e3, null, 2025-01-02, 'a,b']"], ["01", "1e3", "null", "2025-01-02", "a,b"]),
        (["only=no,01"], ["no", "01"]),
        (["only=yes"], ["yes"]),
    ):
        assert arrive("vae-mnist", *words)[2].data.kwargs["only"] == names
    file = tmp_path / "mine.yaml"
    file.write_text("data: {name: digits, only: [no, 01, 3, ~, '5']}\n", "utf-8")
    assert arrive("vae-mnist", "-c", str(file))[2].data.kwargs["only"] == ["no", "01", "3", "~", "5"]


def test_lists_mappings_and_nets(arrive: Any) -> None:
    recipe = arrive("gan-mnist", "penalties={r1: 1e-1}", "optim.D={lr: .5, betas: [0, .9]}", "size=48,64")[2]
    assert recipe.model.kwargs["penalties"] == {"r1": 0.1}
    assert recipe.optim["D"].kwargs == {"lr": 0.5, "betas": (0.0, 0.9)}
    assert recipe.data.kwargs["size"] == (48, 64)
    recipe = arrive("vae-mnist", "encoder={name: mlp.Encoder, widths: [010]}", "data={name: folder, path: 2024}")[2]
    assert recipe.model.kwargs["encoder"].kwargs == {"widths": (10,)}
    assert recipe.data.to_dict() == {"name": "folder", "path": "2024"}
    assert arrive("vae-mnist", "encoder.widths=[8,")[0] == 2


def test_the_order_of_overrides_does_not_matter(arrive: Any) -> None:
    words = ["only=[no]", "limit=7", "path=2024", "data.name=folder", "data=mnist-5k"]
    for given_words in (words, words[::-1]):
        _, err, recipe, _ = arrive("vae-mnist", *given_words)
        assert recipe is not None, err
        assert recipe.data.to_dict() == {"name": "folder", "only": ["no"], "limit": 7, "path": "2024"}


def test_python_takes_text_and_paths_and_says_what_else_is_wrong() -> None:
    assert recipes.load("vae-mnist", {"data": "x/2024"}).data.kwargs["path"] == "x/2024"
    assert recipes.load("vae-mnist", {"data": {"name": "folder", "path": Path("2024")}}).data.kwargs["path"] == "./2024"
    for wrong in (2024, 3.5, True, ["a"], None):
        with pytest.raises(LimnerError, match=r"^data: .* is neither text nor a mapping"):
            recipes.load("vae-mnist", {"data": wrong})


def test_a_value_is_read_by_its_type() -> None:
    assert read_as(Text("on"), Literal["auto", True, False]) is True
    assert read_as(Text("3"), Literal[1, 2, 3, 4] | None) == 3
    assert read_as(Text("null"), int | None) is None
    assert read_as(Text("null"), str | None) == "null"
    assert read_as(Text("010"), str | int) == "010"
    assert read_as("010", int) == "010", "a str of Python stays one"
    assert read_as(Text("[a, [b]]"), inspect.Parameter.empty) == "[a, [b]]"


def test_a_file_whose_name_has_a_comma_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_as(Text("a,b.png"), list[str | Path] | None) == ["a", "b.png"]
    Path("a,b.png").touch()
    assert read_as(Text("a,b.png"), list[str | Path] | None) == ["a,b.png"]


@pytest.mark.parametrize("word", ["data=", "out=", "--seed=", "model.z="])
def test_no_value_is_one_line(word: str, arrive: Any) -> None:
    code, err, *_ = arrive("vae-mnist", word)
    assert code == 2
    assert "there is no value" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {seed: !!int 0x}", "line 1 is not a recipe: tags such as !!int are not allowed"),
        ("train: {seed: !!binary =}", "tags such as !!int"),
        ("train:\n  seed: 1\n  seed: 2\n", "line 3 is not a recipe: the key seed is there twice"),
        ("a: " + "[" * 5000, "more than 12 levels"),
        ("a: " + "{b: " * 5000, "more than 12 levels"),
        ("a: &x 1\nb: *x", "line 2 is not a recipe: aliases are not allowed"),
        ("[a]: 1", "a key is no text"),
        ("{}: 1", "a key is no text"),
        ("a\0b", "is not a recipe"),
        ('a: "\\U00110000"', "is not a recipe"),
        ("a: 1\n---\nb: 2", "is not a recipe"),
        ("data: [a]", "data: expected keys and values"),
        ("train: 7", "train: expected keys and values"),
        ("train: ~", "train: expected keys and values"),
        ("name: {a: b}", "section 'model' is missing"),
    ],
)
def test_a_hostile_file_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(LimnerError) as error:
        recipes.load(file)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(b"name: \xff")
    with pytest.raises(LimnerError, match="no UTF-8 text"):
        recipes.load(file)
    with pytest.raises(LimnerError, match="cannot read"):
        recipes.load("vae-mnist", extra=tmp_path)


def test_a_recipe_says_what_yaml_1_2_says(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "data: {name: folder, path: 2025-02-30, flip: on}\ntrain: {seed: 010, images: 1_000}\nmodel: {z: 08}\n", "utf-8"
    )
    recipe = recipes.load("vae-mnist", extra=file)
    assert recipe.data.kwargs == {"path": "2025-02-30", "flip": True}
    assert (recipe.train.kwargs["seed"], recipe.train.kwargs["images"], recipe.model.kwargs["z"]) == (10, 1000, 8)
