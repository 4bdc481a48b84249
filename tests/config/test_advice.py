"""The advice which recipe to take: by the kind and number of images, and by what the machine can do in the time."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import limner
from limner.cli import main
from limner.config.advice import CANDIDATES, Facts, advise
from limner.core.errors import LimnerError
from limner.core.progress import Silent


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of noise: small grey classes, colour at 96x72, pairs in A/ and B/, two domains."""
    root, rng = tmp_path_factory.mktemp("advice"), np.random.default_rng(0)

    def write(name: str, shape: tuple[int, ...]) -> None:
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(path)

    for i in range(24):
        write(f"grey/{'xy'[i % 2]}/{i}", (16, 16))
        write(f"colour/{i}", (96, 72, 3))
        write(f"pairs/A/{i}", (32, 32, 3))
        write(f"pairs/B/{i}", (32, 32, 3))
        write(f"domains/trainA/a{i}", (32, 32, 3))
        write(f"domains/trainB/b{i}", (32, 32, 3))
        write(f"letters/{'abc'[i % 3]}/{i}", (16, 16))
    return root


class Machine:
    """Stands for `limner.dry_run`: a machine that sees so many images a second, and what it was asked."""

    def __init__(self, rates: Mapping[str, float], needs: int = 0) -> None:
        self.rates, self.needs, self.asked = rates, needs, list[tuple[str, dict[str, Any]]]()

    def __call__(self, recipe: str, **settings: Any) -> dict[str, Any]:
        self.asked.append((recipe, settings))
        images = 1_000_000
        seconds = images / self.rates[recipe.removeprefix("builtin:")]
        return {"images": images, "estimate": {"seconds": seconds, "bytes": self.needs, "device": "cpu"}}


def fast(**slow: float) -> Machine:
    return Machine({c.recipe: slow.get(c.recipe.replace("-", "_"), 1e6) for c in CANDIDATES})


@pytest.mark.parametrize(
    ("folder", "recipe"),
    [
        ("grey", "rectified-flow-small-mnist"),
        ("letters", "rectified-flow-small-mnist"),
        ("colour", "ada-64"),
        ("pairs", "pix2pix-openmoji"),
        ("domains", "cyclegan-emoji"),
    ],
)
def test_the_recipe_suits_what_the_data_are(folders: Path, folder: str, recipe: str) -> None:
    advice = advise(folders / folder, {}, fast())
    assert advice.recipe == recipe
    assert advice.settings["data"] == str(folders / folder)
    assert advice.reasons[0].startswith(f"{folder}: ")
    assert advice.command in advice.reasons[-1]
    named = [r.split(":")[0] for r in advice.reasons if "diffusion" in r]
    assert named == (["not rectified-flow-64"] if folder == "colour" else [])


def test_images_without_labels_get_a_net_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for classes, settings in ((0, {"model.F.conditional": False, "model.sampling.guidance": 1.0}), (3, {})):
        facts = Facts("tiny", "images", 500, (1, 16, 16), classes)
        monkeypatch.setattr("limner.config.advice.survey", lambda source, settings, facts=facts: facts)
        advice = advise("tiny", {}, fast())
        assert advice.recipe == "rectified-flow-small-mnist"
        assert {k: v for k, v in advice.settings.items() if k.startswith("model.")} == settings
        asked = [reason for reason in advice.reasons if reason.startswith("its samples are of all classes")]
        assert asked == ["its samples are of all classes; ask for one of them with y=…"] * bool(classes)
    untold = advise("tiny", {}, fast(rectified_flow_small_mnist=1, sngan_mnist=1000))
    assert untold.recipe == "sngan-mnist"
    assert any(reason.endswith("to ask for one, train a conditional recipe by name") for reason in untold.reasons)


def test_many_images_and_a_fast_machine_get_the_best_images(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = Facts("colour", "images", 50_000, (3, 96, 72), 0)
    monkeypatch.setattr("limner.config.advice.survey", lambda source, settings: many)
    assert advise("colour", {}, fast()).recipe == "r3gan-64"
    slower = advise("colour", {}, fast(r3gan_64=100))  # 2M images would take 5.6 hours
    assert slower.recipe == "dcgan-64"
    assert "not r3gan-64: it needs 2,000,000 images, which take 5 h 33 min here (cpu)" in slower.reasons


def test_a_slow_machine_gets_what_is_useful_in_the_time(folders: Path) -> None:
    machine = fast(ada_64=10, dcgan_64=10, conv_vae_mnist=1000)
    advice = advise(folders / "colour", {"time": "10m"}, machine)
    assert advice.recipe == "conv-vae-mnist"
    refused = [r.split(":")[0] for r in advice.reasons if r.startswith("not")]
    assert refused == ["not rectified-flow-64", "not ada-64"] + ["not dcgan-64"] * 2
    assert advice.settings["train.images"] == 570_000  # 95 % of ten minutes at 1,000 images a second
    assert advise(folders / "colour", {"time": "1h", "images": 5000}, machine).settings["images"] == 5000


def test_the_last_choice_says_if_the_time_is_short(folders: Path) -> None:
    advice = advise(folders / "pairs", {"time": "1m"}, fast(pix2pix_openmoji=20))
    assert advice.recipe == "pix2pix-openmoji"
    assert any(r.startswith("this is little: 10,000 images are better") for r in advice.reasons)


def test_what_does_not_fit_into_memory_is_not_advised(folders: Path) -> None:
    with pytest.raises(LimnerError, match=r"no recipe suits grey: .* needs about .* of memory"):
        advise(folders / "grey", {}, Machine({c.recipe: 1e6 for c in CANDIDATES}, needs=1 << 60))


def test_what_is_wrong_with_all_recipes_is_said_once(folders: Path) -> None:
    def refuse(recipe: str, **settings: Any) -> dict[str, Any]:
        raise LimnerError("train.batch=64 is larger than the 12 images")

    with pytest.raises(LimnerError, match=r"^no recipe suits colour: train\.batch=64 is larger than the 12 images$"):
        advise(folders / "colour", {}, refuse)


def test_sizes_keep_the_proportions_and_the_users_word(folders: Path) -> None:
    assert advise(folders / "colour", {}, fast()).settings["data.size"] == [88, 64]
    assert "data.size" not in advise(folders / "colour", {"size": 32}, fast()).settings


def test_a_folder_is_trained_with_the_recipe_that_is_said(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["images=128", "batch=8", "device=cpu", "threads=1", "samples=4", "time=100h"]  # on any machine
    monkeypatch.setattr(sys, "argv", ["limner", "train", str(folders / "grey"), "--dry-run", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "recipe rectified-flow-small-mnist: after five minutes" in printed
    assert "name: rectified-flow-small-mnist" in printed
    assert not list(tmp_path.iterdir())
    said: list[str] = []

    class Listener(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    options: dict[str, Any] = {"images": 64, "batch": 8, "device": "cpu", "threads": 1, "samples": 4, "time": "100h"}
    run = limner.train(folders / "grey", out="run", progress=Listener(), **options)
    assert run.recipe["name"] == "rectified-flow-small-mnist"
    assert run.recipe["data"]["size"] == [16, 16]
    assert said[0] == "grey: 22 images to train on in 2 classes, read as grey of 16x16"


def test_several_devices_need_a_named_recipe(folders: Path) -> None:
    with pytest.raises(LimnerError, match="advice is measured on one device"):
        limner.train(folders / "grey", device="cpu,cpu")


def test_a_prepared_store_is_advised_like_its_folder(folders: Path, tmp_path: Path) -> None:
    limner.data.prepare(folders / "grey", tmp_path / "grey.limner")
    advice = advise(tmp_path / "grey.limner", {}, fast())
    assert (advice.recipe, advice.settings["data.size"]) == ("rectified-flow-small-mnist", [16, 16])


def test_a_few_images_get_small_batches(folders: Path) -> None:
    assert advise(folders / "grey", {}, fast()).settings["train.batch"] == 8  # 22 images, where the recipe has 32
    assert "train.batch" not in advise(folders / "grey", {"batch": 4}, fast()).settings
