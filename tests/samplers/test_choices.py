"""What a user chooses when a diffusion model draws: words, previews, and the same picture however many are drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import limner
from limner.bench.shrink import shrunk
from limner.config.spec import Spec
from limner.core.errors import LimnerError
from limner.core.profile import profile
from limner.samplers.diffusion import DiffusionModel


def built(name: str, *, classes: int = 3, shape: tuple[int, int, int] = (1, 8, 8), **options: Any) -> DiffusionModel:
    """An untrained model with a small net."""
    net = {"name": "denoiser.UNet", "width": 8, "mults": [1], "conditional": classes > 0}
    if shape[1:] == (1, 1):
        net = {"name": "denoiser.MLP", "width": 8}
    if name == "mean_flow":
        net["times"] = 2
    spec = Spec.parse("model", {"name": name, "F": net, **options}).resolve(shape=shape, classes=classes)
    torch.manual_seed(0)
    model: DiffusionModel = spec.build()
    model.spec = spec
    return model.eval()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 to 10000, got 0"),
        ({"steps": 10**6}, "steps must be a whole number from 1 to 10000, got 1000000"),
        ({"sampler": "huen"}, "unknown sampler 'huen'; did you mean 'heun'"),
        ({"guidance": -1}, "guidance must be a number from 0 to 100, got -1"),
        ({"interval": (5, 0.2), "guidance": 2}, "write the lower noise level first"),
        ({"interval": (0.2, 5)}, "interval does nothing without guidance; write guidance=2 too"),
        ({"eta": 0.5}, "eta does nothing with sampler=dpm2m; write sampler=ancestral too, or leave eta out"),
        ({"churn": 5}, "churn does nothing with sampler=dpm2m; write sampler=heun too"),
        ({"grid": "karras", "shift": 3}, "shift does nothing with grid=karras; write grid=flow too"),
        ({"grid": "discrete"}, "unknown grid 'discrete'; choose from: flow, karras"),
        ({"stesp": 3}, "has no sampling option 'stesp'; did you mean 'steps'"),
    ],
)
def test_what_cannot_be_or_does_nothing_is_refused(options: dict[str, Any], reason: str) -> None:
    for use in (built("edm").at, lambda **words: built("edm").sample(1, **words)):
        with pytest.raises(LimnerError) as refused:
            use(**options)
        assert reason in str(refused.value)


def test_words_that_change_nothing_are_taken() -> None:
    model = built("edm")
    assert model.at(eta=1.0, churn=0, shift=1, interval=None).sampling == model.sampling
    assert model.at(sampler="ancestral").at(eta=0.5).sampling.eta == 0.5


def test_a_model_without_classes_has_no_guidance_but_takes_the_scale_that_is_none() -> None:
    model = built("ddpm", classes=0)
    assert "guidance" not in model.sampling_options
    assert model.at(guidance=1, rescale=0, steps=3).sampling.steps == 3
    for word, value in (("guidance", 2), ("interval", (0.2, 5)), ("rescale", 0.5)):
        with pytest.raises(LimnerError, match=f"ddpm was trained without classes, so .* leave {word} out"):
            model.sample(1, **{word: value})
    with pytest.raises(LimnerError, match="ddpm: guidance needs a net that knows classes"):
        built("ddpm", classes=0, sampling={"guidance": 2})


def test_a_recipe_sets_what_a_model_draws_with() -> None:
    model = built("edm", sampling={"steps": 7, "sampler": "heun"})
    assert model.sampling_options["steps"].default == 7
    assert profile(model)["sampling"] == {
        "steps": 7, "sampler": "heun", "guidance": 1.0, "eta": 1.0, "grid": "flow", "shift": 1.0
    }  # fmt: skip
    assert profile(model)["family"] == "diffusion"
    assert profile(built("mean_flow"))["family"] == profile(built("rectified_flow"))["family"] == "flow matching"
    with pytest.raises(LimnerError, match="steps must be a whole number from 1 to 10000, got 0"):
        built("edm", sampling={"steps": 0})
    with pytest.raises(LimnerError, match="sampling has no sampling option 'stesp'; did you mean 'steps'"):
        built("edm", sampling={"stesp": 3})


@pytest.mark.parametrize("sampler", ["dpm2m", "heun", "ancestral"])
def test_a_preview_shows_the_paths_of_its_first_samples(sampler: str) -> None:
    model = built("ddpm").at(steps=5, sampler=sampler)
    grids = model.preview(None, 6, seed=3)
    assert set(grids) == {"samples", "paths"}
    rows = grids["paths"].images.unflatten(0, (4, 2, -1))  # image, noisy or estimated, level
    assert grids["paths"].columns == rows.shape[2] == 6
    assert torch.equal(rows[:, 0, -1], grids["samples"].images[:4])
    levels = model.levels_of(4, seed=3)
    assert list(levels) == model.sigmas(model.sampling)[:-1]
    x, x0 = levels[next(iter(levels))][1:]
    assert torch.equal(rows[:, 1, 0], x0)
    assert torch.corrcoef(torch.stack([rows[:, 0, 0].flatten(), x.flatten()]))[0, 1] > 0.999


def test_points_and_samples_of_one_step_have_no_path() -> None:
    assert set(built("edm", classes=0, shape=(2, 1, 1)).preview(None, 3, 0)) == {"samples"}
    assert set(built("mean_flow").preview(None, 3, 0)) == {"samples"}
    assert set(built("mean_flow").at(sampler="euler", steps=2).preview(None, 3, 0)) == {"samples", "paths"}


def test_picture_i_of_the_command_line_is_the_same_at_any_number_and_batch(tmp_path: Path) -> None:
    run = limner.train(shrunk("ddpm-mnist", images=16).to_dict(), out=tmp_path / "run").path

    def drawn(folder: str, *words: str) -> tuple[list[np.ndarray], dict[str, Any]]:
        command = [sys.executable, "-m", "limner", "sample", str(run), f"{tmp_path / folder}/", *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        document = json.loads(done.stdout)
        return [np.asarray(Image.open(p)).astype(int) for p in document["written"]], document

    words = ("y=3", "steps=4", "sampler=ancestral", "guidance=1.5", "device=cpu")
    few, document = drawn("few", "n=3", *words)
    many, _ = drawn("many", "n=5", "batch=2", *words)
    assert max(abs(a - b).max() for a, b in zip(few, many)) <= 1  # rounding of kernels for another batch
    assert min(abs(a - b).max() for a, b in ((many[0], many[1]), (many[2], many[3]))) > 50
    chosen = {"steps": 4, "sampler": "ancestral", "guidance": 1.5, "interval": None}
    assert document["options"] | chosen == document["options"]
    said = Image.open(document["written"][2]).getexif()[0x010E]
    assert said == "limner sample: ddpm, seed 0, class 3, steps 4, sampler ancestral, guidance 1.5"
    assert (run / "paths" / "00000016.webp").is_file()
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "From noise to images" in report
    assert "diffusion" in (run / "README.md").read_text(encoding="utf-8")
