"""A name of limner that a file or folder has too: what lies on disk is never passed over silently."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import limner
from limner import api, data
from limner.apply.images import ImageSource
from limner.apply.paint import photograph
from limner.config import recipe
from limner.config.advice import is_data
from limner.core.batch import Images
from limner.core.errors import LimnerError

NAMES = ["digits", "photos", "emoji", "maps", "points", "pairs", "folder"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: folders with the names of data sets, with white pictures, and a photograph's name."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        Path(name).mkdir()
        for i in range(4):
            Image.new("L", (16, 16), 255).save(f"{name}/{i}.png")
    return tmp_path


def loaded(source: Any, overrides: dict[str, Any], **more: Any) -> dict[str, Any]:
    return recipe.load(source, overrides, **more).data.to_dict()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_a_folder_too_is_refused_and_both_are_named(name: str) -> None:
    mapping = recipe.load("vae-mnist").to_dict() | {"data": name}
    for call in (lambda: loaded("vae-mnist", {"data": name}), lambda: data.load(name), lambda: loaded(mapping, {})):
        with pytest.raises(LimnerError, match=re.escape(f"./{name} for the folder, or builtin:{name} for")):
            call()


def test_each_of_the_ways_means_what_it_says() -> None:
    white = {"name": "folder", "path": "./digits"}
    assert loaded("vae-mnist", {"data": "./digits"}) == white
    assert loaded("vae-mnist", {"data": Path("digits")}) == white
    assert loaded("vae-mnist", {"data": "digits/"}) == white | {"path": "digits/"}
    assert loaded("vae-mnist", {"data": "builtin:digits"}) == {"name": "digits"}
    assert loaded("vae-mnist", {"data.name": "digits"}) == {"name": "digits"}
    assert loaded("vae-mnist", {"data": {"name": "digits"}}) == {"name": "digits"}
    assert len(data.load("builtin:digits")) > 1000
    assert int(data.load(Path("digits")).fetch([0]).min()) == 255
    with pytest.raises(LimnerError, match="unknown data set 'digit'; did you mean 'digits'"):
        data.load("builtin:digit")


def test_pairs_and_domains_ask_too() -> None:
    for key in ("a", "b", "data.a"):
        with pytest.raises(LimnerError, match="builtin:digits"):
            loaded("cyclegan-emoji", {"a": "mnist-5k", "b": "mnist-5k", key: "digits"})
    sides = loaded("cyclegan-emoji", {"a": "builtin:digits", "b": "./digits"})
    assert (sides["a"], sides["b"]) == ("builtin:digits", "./digits")
    both = recipe.load("cyclegan-emoji", {"a": "builtin:digits", "b": "./digits", "size": 16}).data.build()
    assert both.name == "digits and digits"
    assert (int(both.b.fetch([0]).min()), int(both.a.fetch([0]).min())) == (255, 0)
    with pytest.raises(LimnerError, match="builtin:digits"):
        loaded("upscale", {"data": "digits"})
    named = recipe.load("upscale", {"data": "builtin:digits", "size": 16}).data
    assert named.kwargs["path"] == "builtin:digits"
    assert len(named.build()) > 1000
    assert recipe.load("upscale", {"data": "./digits", "size": 16}).data.kwargs["path"] == "./digits"
    with pytest.raises(LimnerError, match="builtin:digits"):
        loaded("upscale", {"data": {"name": "pairs", "path": "digits", "task": "upscale"}})


def test_a_run_keeps_what_it_trained_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("empty").mkdir()
    monkeypatch.chdir("empty")
    settings = {"images": 64, "batch": 32, "data.limit": 64, "out": here / "run"}
    run = limner.train("ae-mnist", data="digits", **settings)
    pairs = recipe.load("upscale", {"data": "digits"}).to_dict()
    monkeypatch.chdir(here)
    assert limner.resume(run.path, images=96).recipe["data"]["name"] == "digits"
    assert loaded(pairs, {}, settled=True)["path"] == "digits"
    assert len(recipe.load(pairs, {"size": 16}, settled=True).data.build()) > 1000, "the set, as then"
    with pytest.raises(LimnerError, match="builtin:digits"):
        loaded(pairs, {"data.path": "digits"}, settled=True)


def test_a_photograph_that_lies_here_too() -> None:
    Path("china").mkdir()
    styled = {"name": "styled", "path": "china", "style": ["flower"], "size": 32}
    with pytest.raises(LimnerError, match=r"\./china for the folder, or builtin:china"):
        loaded("stylise", {"data": styled})
    with pytest.raises(LimnerError, match="builtin:china"):
        limner.stylise("china", "flower", run="run")
    chosen = recipe.load("stylise", {"data": styled | {"path": "builtin:china"}}).data.build()
    assert chosen.shape[0] == 3
    Path("flower").write_bytes(b"no picture")
    chosen = recipe.load("stylise", {"data": styled | {"path": "builtin:china", "style": "builtin:flower"}})
    assert chosen.data.build().styles[0].shape[1] == 3


def test_pictures_to_use_a_model_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    white = ImageSource("./digits", (1, 16, 16))
    assert float(next(white.batches())[1].min()) == 1
    with pytest.raises(LimnerError, match=r"\./digits for the folder, or builtin:digits"):
        ImageSource("digits", (1, 16, 16))
    assert len(ImageSource("builtin:digits", (1, 16, 16)).names) > 50
    Path("china").mkdir()
    for call in (photograph, lambda name: limner.stylise(name, "flower")):
        with pytest.raises(LimnerError, match=r"\./china for the folder, or builtin:china"):
            call("china")
    assert photograph("builtin:china") == "china"
    assert photograph(Path("china")) is None
    with pytest.raises(LimnerError, match="china is a folder; name one picture"):
        limner.stylise(Path("china"), "flower")


def test_a_recipe_that_lies_here_too() -> None:
    assert recipe.find("vae-mnist").parent.name == "recipes"
    Path("vae-mnist.yaml").write_text("name: mine\n", "utf-8")
    with pytest.raises(LimnerError, match=r"\./vae-mnist\.yaml for the file, or builtin:vae-mnist for the recipe"):
        recipe.find("vae-mnist")
    for way in ("./vae-mnist.yaml", "vae-mnist.yaml", Path("vae-mnist.yaml")):
        assert recipe.find(way) == Path("vae-mnist.yaml")
    assert recipe.find("builtin:vae-mnist").parent.name == "recipes"
    assert recipe.load("builtin:vae-mnist").name == "vae-mnist"
    assert limner.explain("vae-mnist").kind == "recipe"
    Path("mine.yml").write_text("name: mine\n", "utf-8")
    with pytest.raises(LimnerError, match=r"write mine\.yml for the file"):
        recipe.find("mine")
    with pytest.raises(LimnerError, match="unknown recipe"):
        recipe.find("builtin:mine")


def test_a_folder_with_the_name_of_a_recipe() -> None:
    Path("dcgan-64").mkdir()
    with pytest.raises(LimnerError, match="builtin:dcgan-64 for the recipe"):
        is_data("dcgan-64")
    assert is_data("./dcgan-64")
    assert is_data(Path("dcgan-64"))
    Path("dcgan-64/recipe.yaml").write_text("name: dcgan-64\n", "utf-8")
    assert not is_data("dcgan-64"), "a run that has the name of its recipe is no data"


def test_paths_that_can_be_none() -> None:
    for text in ("", " ", "a\0b", "x" * 5000, "~nobody-of-this-name/x"):
        with pytest.raises(LimnerError) as error:
            api.dry_run("ae-mnist", data=text)
        assert "\n" not in str(error.value)


def test_real_images_to_compare_with() -> None:
    with pytest.raises(LimnerError, match=r"\./digits for the folder, or builtin:digits"):
        limner.evaluate("./photos", data="digits")
    assert recipe.data_of("./digits", Images).kwargs == {"path": "./digits"}
    assert recipe.data_of("builtin:digits", Images).name == "digits"
