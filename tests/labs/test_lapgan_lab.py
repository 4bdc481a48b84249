"""The lab of LAPGAN runs through, its pyramid loses nothing, and its DCGAN costs as much."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from limner import labs
from limner.config.spec import Spec
from limner.core.run import Run
from limner.data import load
from limner.labs import lapgan as lab

DATA = {"name": "mnist-5k", "limit": 200}


def small() -> Any:
    torch.manual_seed(0)
    G = {"name": "lapgan.Generator", "levels": 2, "coarse_widths": [8], "width": 4, "kernels": [3, 3, 3]}
    D = {"name": "lapgan.Discriminator", "levels": 2, "coarse_widths": [8], "width": 4}
    return Spec.parse("model", {"name": "lapgan", "G": G, "D": D}).build(shape=(1, 28, 28)).eval()


def digits(n: int) -> torch.Tensor:
    return load("mnist-5k", limit=n).pixels.float()


class Judge:
    """A reference set whose Fréchet distance is the difference of mean pixels from those of real images."""

    def __init__(self, mean: float) -> None:
        self.mean = mean

    def __call__(self, x: torch.Tensor) -> SimpleNamespace:
        scores = {"fd": abs(float(x.mean()) - self.mean), "clipped_density": 0.1, "clipped_coverage": 0.2}
        return SimpleNamespace(scores=scores)


def test_the_lab_runs_through_and_its_numbers_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "_SAMPLES", 40)
    monkeypatch.setattr(lab, "_reference", lambda bench: Judge(float(bench.train_set.x.mean())))
    result = labs.run("lapgan", out=tmp_path / "lab", images=192, data=DATA, seed=1)
    assert [c["name"] for c in result["checks"] if not c["ok"]] == []
    assert len(result["checks"]) == 22
    lapgan, dcgan = (Run(path) for path in result["run"])
    assert lapgan.recipe["train"]["batch"] == dcgan.recipe["train"]["batch"] == lab.BATCH
    page = (tmp_path / "lab" / "index.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in page
    assert "limner lab lapgan images=192" in page
    cost = result["results"]["cost"]
    ours, theirs = (cost[name]["images"] * cost[name]["flops_per_image"] for name in ("lapgan", "dcgan"))
    assert abs(ours - theirs) <= lab.BATCH * cost["dcgan"]["flops_per_image"]
    assert cost["lapgan"]["images"] == 192
    scores = result["results"]["scores"]
    assert scores["real images"]["fd"] < 0.02
    assert scores["real at 14 px, no details"]["fd"] < 0.02 < scores["lapgan"]["fd"]
    pairs = [("lapgan", "dcgan"), ("real at 14 px, finest details drawn", "real at 14 px, no details")]
    better = [scores[one]["fd"] < scores[other]["fd"] for one, other in pairs]
    assert [claim["holds"] for claim in result["claims"]] == better


def test_a_pyramid_gives_its_grey_levels_back_exactly() -> None:
    model, x = small(), digits(20)
    assert torch.equal(lab.rebuilt(model, model.parts(x)), x)
    spoilt = model.parts(x)
    spoilt[1] = (spoilt[1][0], spoilt[1][1] + 1)
    assert not torch.equal(lab.rebuilt(model, spoilt), x)


def test_images_are_refined_below_the_level_that_is_real() -> None:
    model, x = small(), digits(6) / 127.5 - 1
    torch.testing.assert_close(lab.refined(model, x, 0, 0), x)
    for level in (1, 2):
        drawn = lab.refined(model, x, level, 0)
        assert drawn.shape == x.shape
        assert not torch.equal(drawn, x)
    with torch.no_grad():  # without details, what is left is the enlarged coarse image
        for net in model.G.net[:2]:
            net.net[-1].weight.zero_()
            net.net[-1].bias.zero_()
    torch.testing.assert_close(lab.refined(model, x, 1, 0), model.parts(x)[0][0])
    coarse = model.parts(x)[2][0]
    torch.testing.assert_close(lab.refined(model, x, 2, 0), model.low_pass(model.low_pass(coarse)))


def test_the_spread_of_details_is_that_of_the_noise() -> None:
    model, x = small(), digits(10) / 127.5 - 1
    real, drawn, of_noise = lab.spread(model, x, 0, 0)
    assert real == pytest.approx(float(model.parts(x)[0][1].std()))
    assert 0 < of_noise < drawn
    with torch.no_grad():
        model.G.net[0].net[0].weight[:, 0] = 0  # the weights of the noise plane
    assert lab.spread(model, x, 0, 0)[2] == pytest.approx(0, abs=1e-6)


def test_operations_are_those_of_the_convolutions_and_products() -> None:
    """A GAN of two linear layers: its step is three products forwards of each net and those of two backward passes."""
    bench: Any = SimpleNamespace(data=DATA, seed=0, images=64)
    G, D = ({"name": name, "widths": []} for name in ("mlp.Decoder", "mlp.Discriminator"))
    cost = lab.flops(bench, "gan-mnist", {"model.G": G | {"z": 5}, "model.D": D, "train.batch": 4})
    g, d = 2 * 5 * 784, 2 * 784  # of one image
    # D: G and D forwards, D on both halves, its weights' gradients; G: both forwards, gradients at D's input, of G
    assert cost == pytest.approx(g + 2 * d + 2 * d + g + d + d + g)
