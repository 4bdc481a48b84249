"""Cards of small diffusion models from end to end: rows of steps, likelihoods, own pictures, comparisons, bad input."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import limner
from limner.apply import tasks
from limner.bench import compare
from limner.bench.shrink import shrunk
from limner.cli import main
from limner.config.spec import Spec
from limner.data.datasets import Pixels
from limner.evaluation import capabilities
from limner.evaluation.capabilities import capability_scores
from limner.evaluation.cost import Effort, count_evaluations
from limner.evaluation.reference_set import ReferenceSet

DATA = {"name": "mnist-5k", "size": 16, "limit": 100}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMNER_CACHE", str(tmp_path_factory.mktemp("cache")))
        for module in ("scoring", "capabilities"):
            patch.setattr(f"limner.evaluation.{module}.SLOW", Effort(70, 100, 2, 20, 2, 2, 80))
        patch.setattr("limner.evaluation.likelihood_scores._ELBO_IMAGES", 30)
        yield


def tree(name: str) -> dict[str, Any]:
    result = shrunk(name).to_dict()
    result["data"] = DATA
    result["model"]["sampling"]["steps"] = 6  # slow enough for fewer samples
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional rectified flow of 16 pixels."""
    return limner.train(tree("rectified-flow-mnist"), out=tmp_path_factory.mktemp("cards") / "flow").path


def test_a_training_of_a_slow_sampler_is_scored_on_fewer_samples(run: Path) -> None:
    names = limner.Run(run).read_json("scores.json")
    assert "fd@lenet64-v1[n=80]" in names
    assert names["psnr_db"]["on"].startswith("2 of 500 ")
    assert "bits_per_dim" not in names


def test_rows_of_steps_guidance_and_samplers(run: Path) -> None:
    cards = limner.evaluate(run, steps=[1, 3], sampler="heun", n=70, seeds=1, only="quality")
    counts = [card[f"evaluations[steps={n},sampler=heun]"]["value"] for n, card in zip((1, 3), cards.values())]
    assert counts == [1, 5], "two for each step but the last"
    (guided,) = limner.evaluate(run, steps=3, guidance=2, n=70, seeds=1, only="quality").values()
    assert guided["evaluations[steps=3,guidance=2]"]["value"] == 6
    assert guided["fd@lenet64-v1[n=70,steps=3,guidance=2]"]["options"] == {"steps": 3, "guidance": 2.0}
    saved = limner.Run(run).read_json("scores.json")
    for card in (*cards.values(), guided):
        assert card.items() <= saved.items()


def test_the_bound_of_held_out_images_and_of_own_pictures(run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(6):
        noise = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{i}.png")
    (card,) = limner.evaluate(run, only="likelihood").values()
    assert card["bits_per_dim"]["unit"] == "bits per dimension, ELBO"
    assert "32 evaluations of the net" in card["bits_per_dim"]["how"]
    assert card["train_gap"]["unit"] == "nats per image"
    (own,) = limner.evaluate(run, data=str(tmp_path / "photos"), only="likelihood").values()
    assert own["bits_per_dim"]["on"] == "6 held-out images of photos"
    assert own["bits_per_dim"]["value"] > 0
    assert "train_gap" not in own
    result = tasks.apply(run, tmp_path / "photos", tmp_path / "out/", task="anomaly", device="cpu")
    assert result["n"] == 6
    assert len((tmp_path / "out" / "scores.csv").read_text().splitlines()) == 7


def test_scores_do_not_depend_on_batch_size_and_threads(run: Path) -> None:
    model = limner.load(run)
    reference = ReferenceSet(limner.data.load(**DATA), limner.data.load(**DATA | {"split": "test"}), n=70)
    threads = torch.get_num_threads()
    try:
        scores = []
        for n, batch in ((1, 256), (2, 256), (1, 9)):
            torch.set_num_threads(n)
            scores.append(reference(model.sample(70, seed=0, batch=batch)).scores)
    finally:
        torch.set_num_threads(threads)
    for other in scores[1:]:
        assert other == pytest.approx(scores[0], rel=2e-3, abs=1e-3)


@pytest.mark.slow
def test_the_latent_space_of_a_flow_in_time_is_measured_with_few_images(run: Path) -> None:
    (card,) = limner.evaluate(run, n=70, seeds=1, only="latent", steps=5).values()
    assert "interpolation@lenet64-v1[n=70,steps=5]" in card
    assert card["psnr_db[steps=5]"]["on"].startswith("2 of 500 held-out images")


@pytest.mark.slow
def test_diffusion_recipes_are_compared(tmp_path: Path) -> None:
    files = []
    for name in ("rectified-flow-mnist", "edm-mnist"):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(json.dumps(tree(name)), encoding="utf-8")
    result = compare.run(*files, seeds=2, budget=16, n=70, out=tmp_path / "out", only="quality,sampling")
    assert {v["score"] for v in result["verdicts"]} == {"fd@lenet64-v1[n=70]", "clipped_density@lenet64-v1[n=70]"}
    assert [m["mean"] for m in result["scores"]["evaluations"]["recipes"].values()] == [6, 6], "their own steps"


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("steps=0", "steps must be a whole number from 1 to 10000, got 0"),
        ("steps=5,1000000", "steps must be a whole number from 1 to 10000, got 1000000"),
        ("sampler=huen", "unknown sampler 'huen'; did you mean 'heun'"),
        ("stpes=5", "rectified_flow has no sampling option 'stpes'; did you mean 'steps'"),
        ("truncation=0.7", "rectified_flow has no sampling option 'truncation'"),
        ("interval=5,0.2", "interval"),
    ],
)
@pytest.mark.parametrize("name", ["evaluate", "sample"])
def test_bad_options_are_one_line(
    word: str, why: str, name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = ["evaluate", str(run)] if name == "evaluate" else ["sample", str(run), str(tmp_path / "out.png")]
    monkeypatch.setattr(
        sys, "argv", ["limner", *words, word.replace("5,1000000", "1000000") if name == "sample" else word]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert re.search(why, lines[-1]), lines


def test_guidance_needs_classes(tmp_path: Path) -> None:
    plain = tree("rectified-flow-mnist")
    plain["model"]["F"]["conditional"] = False
    path = limner.train(plain, out=tmp_path / "plain").path
    with pytest.raises(limner.LimnerError, match="trained without classes"):
        limner.evaluate(path, guidance=2)


@pytest.mark.parametrize(
    ("model", "slowly"),
    [
        ({"name": "mean_flow", "F": {"name": "denoiser.UNet", "width": 8, "mults": [1, 1], "times": 2}}, True),
        (
            {
                "name": "autoencoder",
                "z": 2,
                "encoder": {"name": "mlp.Encoder", "widths": [4]},
                "decoder": {"name": "mlp.Decoder", "widths": [4]},
            },
            False,
        ),
    ],
)
def test_a_model_that_draws_in_one_step_and_encodes_in_many_reconstructs_fewer_images(
    model: dict[str, Any], slowly: bool
) -> None:
    """A mean flow encodes along the ODE; an autoencoder reconstructs all images."""
    spec = Spec.parse("model", model).resolve(shape=(1, 8, 8), classes=0)
    built = spec.build()
    built.spec = spec
    x = torch.randint(256, (520, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    heldout = Pixels("noise", x)
    if slowly:
        assert count_evaluations(built) == 1
    card = capability_scores(built.eval(), heldout)
    assert card["psnr_db"].on.startswith(f"{capabilities.SLOW.reconstructions} of 520 " if slowly else "520 ")
