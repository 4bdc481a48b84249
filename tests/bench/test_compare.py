"""The comparison of recipes: equal conditions, honest tests, that it goes on where it stopped, and its refusals."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from limner.bench import compare
from limner.bench._verdicts import holm, verdicts, welch
from limner.bench.compare import Budget
from limner.core.errors import LimnerError
from limner.core.progress import Silent
from limner.core.run import Run
from limner.core.stream import EpochSampler
from limner.core.train import Interrupted

VAE = """
model: {{name: vae, z: 4, encoder: {{name: mlp.Encoder, widths: [32], heads: 2}}, decoder: {{name: mlp.Decoder, widths: [32], out: linear}}}}
data: {{name: mnist-5k, size: 16, limit: 300}}
optim: {{VAE: {{lr: {lr}}}}}
train: {{images: 400, batch: 32}}
"""  # noqa: E501
GAN = """
model: {name: gan, G: {name: mlp.Decoder, z: 4, widths: [16]}, D: {name: mlp.Discriminator, widths: [16]}}
data: {name: fashion-mnist}
optim: {G: {lr: 1.0e-3}, D: {lr: 1.0e-3}}
train: {images: 400, batch: 16}
"""
TINY: dict[str, Any] = {"n": 128, "train.threads": 1, "train.device": "cpu", "train.samples": 4}


@pytest.fixture
def vae(tmp_path: Path) -> str:
    return _written(tmp_path / "vae.yaml", VAE.format(lr=1e-2))


@pytest.fixture
def gan(tmp_path: Path) -> str:
    return _written(tmp_path / "gan.yaml", GAN)


def _written(file: Path, text: str) -> str:
    file.write_text(text)
    return str(file)


def _timeless(file: Path) -> Any:
    """``results.json`` but for how long things took."""
    found = json.loads(file.read_text())
    for row in [*found["recipes"], *found["trainings"]]:
        del row["seconds"]
    return found


def test_equal_data_order_and_budget_and_then_more_seeds(
    vae: str, gan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    share = EpochSampler.indices

    def spied(self: EpochSampler, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        epochs, ids = share(self, position)
        asked.extend(ids.tolist())
        return epochs, ids

    monkeypatch.setattr(EpochSampler, "indices", spied)
    out = tmp_path / "out"
    one = compare.run(vae, gan, seeds=1, budget=128, out=out, **TINY)
    assert one["verdicts"] == []
    assert "write seeds=3" in one["note"]
    assert "write seeds=3" in compare.text(one)
    began = (out / "runs" / "gan-0" / "env.json").stat().st_mtime_ns
    two = compare.run(vae, gan, seeds=2, budget=128, out=out, **TINY)
    assert (out / "runs" / "gan-0" / "env.json").stat().st_mtime_ns == began, "what is done is not trained again"
    assert two["trainings"][:2] == one["trainings"]

    orders = torch.tensor(asked).view(4, 128)
    assert torch.equal(orders[0], orders[1]), "batches of 32 and of 16 follow one order"
    assert torch.equal(orders[2], orders[3])
    assert not torch.equal(orders[0], orders[2]), "another seed, another order"
    assert [t["images"] for t in two["trainings"]] == [128] * 4
    for t in two["trainings"]:
        assert Run(out / t["run"]).recipe["data"] == {"name": "mnist-5k", "size": 16, "limit": 300}
    assert [len(v["values"]) for s in two["scores"].values() for v in s["recipes"].values()] == [2] * 26

    assert [(v["a"], v["b"]) for v in two["verdicts"]] == [("vae", "gan")] * 3
    assert {v["score"] for v in two["verdicts"]} == {
        f"{s}@lenet64-v1[n=128]" for s in ("clipped_density", "fd", "clipped_coverage")
    }
    saved = json.loads((out / "results.json").read_text())
    assert saved == json.loads(json.dumps({k: v for k, v in two.items() if k != "page"}))
    assert saved["conditions"]["heldout"] == 500
    page = (out / "index.html").read_text()
    assert page.count("<img") == 2, "a sheet of each recipe"
    for said in ("Welch", "128 images", "1 thread,", "real images", *(v["text"] for v in two["verdicts"])):
        assert said in page.replace("&lt;", "<")


def test_one_recipe_under_two_names_shows_no_difference(vae: str, tmp_path: Path) -> None:
    twin = _written(tmp_path / "twin.yaml", Path(vae).read_text())
    found = compare.run(vae, twin, seeds=2, budget=64, out=tmp_path / "out", only="quality", **TINY)
    assert {v["text"] for v in found["verdicts"]} == {"no significant difference (p = 1)"}
    assert {s["property"] for s in found["scores"].values()} == {"quality"}


def test_training_helps(vae: str, tmp_path: Path) -> None:
    idle = _written(tmp_path / "idle.yaml", VAE.format(lr=1e-12))
    found = compare.run(idle, vae, budget="4k", out=tmp_path / "out", **TINY)
    fd = next(v for v in found["verdicts"] if v["score"].startswith("fd"))
    assert fd["better"] == "vae"
    assert fd["difference"] > 0
    assert fd["p"] <= fd["holm"] < 0.05
    assert "FD, idle and vae: vae is better (p " in compare.text(found)


class _StopsAt(Silent):
    """Presses Ctrl-C in the second training."""

    def __init__(self) -> None:
        self.runs = 0

    def start(self, run: Run, position: int, total: int) -> None:
        self.runs += 1

    def step(self, position: int) -> None:
        if self.runs == 2 and position == 64:
            os.kill(os.getpid(), signal.SIGINT)


def test_what_was_cut_off_ends_the_same(vae: str, gan: str, tmp_path: Path) -> None:
    wanted: dict[str, Any] = {"seeds": 1, "budget": 128} | TINY
    compare.run(vae, gan, out=tmp_path / "whole", **wanted)
    with pytest.raises(Interrupted):
        compare.run(vae, gan, out=tmp_path / "cut", progress=_StopsAt(), **wanted)
    partial = json.loads((tmp_path / "cut" / "results.json").read_text())
    assert partial["note"].startswith("1 of 2 trainings")
    compare.run(vae, gan, out=tmp_path / "cut", **wanted)
    assert _timeless(tmp_path / "cut" / "results.json") == _timeless(tmp_path / "whole" / "results.json")


def test_time_is_shared_out_alike_and_only_the_rest_is_trained(vae: str, gan: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wanted: dict[str, Any] = {"seeds": 1, "only": "sampling", "out": out} | TINY
    first = compare.run(vae, gan, budget="0.4s", **wanted)
    for t in first["trainings"]:
        run = Run(out / t["run"])
        assert run.events()[-1]["budget"] == 0.4
        assert t["images"] == int(run.latest.name) > 0
        assert run.recipe["train"]["checkpoint_images"] == 40, "as often as the recipe's own 400 images ask for"
        assert {"throughput", "latency_ms", "evaluations"} == set(t["scores"])
    again = compare.run(vae, gan, budget="0.4s", **wanted)
    assert [t["images"] for t in again["trainings"]] == [t["images"] for t in first["trainings"]]
    longer = compare.run(vae, gan, budget="0.9s", **wanted)
    for t, before in zip(longer["trainings"], first["trainings"], strict=True):
        assert Run(out / t["run"]).recipe["train"]["time"] == pytest.approx(0.9 - before["seconds"], abs=0.01)
        assert t["images"] > before["images"]
    for budget in ("0.4s", 5000):
        with pytest.raises(LimnerError, match="a budget of 1 s; choose another out=DIR"):
            compare.run(vae, gan, budget=budget, **wanted)
    with pytest.raises(LimnerError, match="vae-0 was trained with other settings"):
        compare.run(vae, gan, budget="0.9s", **wanted | {"train.batch": 8})


def test_welch_is_student_with_its_own_variances() -> None:
    a, b = [1.0, 2.0, 3.0, 4.0], [10.0, 30.0, 20.0]
    va, vb = 5 / 3 / 4, 100 / 3  # of the means
    df = (va + vb) ** 2 / (va**2 / 3 + vb**2 / 2)
    t = (2.5 - 20) / math.sqrt(va + vb)
    p, low, high = welch(a, b)
    assert p == pytest.approx(2 * stats.t.sf(-t, df), rel=1e-12)
    reach = stats.t.ppf(0.975, df) * math.sqrt(va + vb)
    assert (low, high) == pytest.approx((-17.5 - reach, -17.5 + reach))
    assert welch([1, 1], [1, 1])[0] == 1
    assert welch([1, 1], [2, 2])[0] is None, "no spread, nothing to measure a difference by"
    still = welch([1, 1, 1], [2, 3, 4])[0]
    assert still == pytest.approx(2 * stats.t.sf(2 * math.sqrt(3), 2))


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, and no p may fall below one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_verdicts_name_the_better_one_and_count_all_tests() -> None:
    values = {
        "fd": {"a": [1.0, 1.1, 0.9], "b": [5.0, 5.1, 4.9], "c": [1.05, 0.95, 1.0]},
        "clipped_density": {"a": [0.8, 0.81, 0.79], "b": [0.1, 0.11, 0.09], "c": [0.8, 0.7, 0.9]},
    }
    found = verdicts(values, {"fd": "lower", "clipped_density": "higher"})
    assert [(v.score, v.a, v.b, v.better) for v in found] == [
        ("fd", "a", "b", "a"),
        ("fd", "a", "c", None),
        ("fd", "b", "c", "c"),
        ("clipped_density", "a", "b", "a"),
        ("clipped_density", "a", "c", None),
        ("clipped_density", "b", "c", "c"),
    ]
    p = [v.p for v in found if v.p is not None]
    assert [v.holm for v in found] == holm(p), "corrected over pairs and scores together"
    assert found[0].text == "a is better (p < .001)"
    assert found[1].text == "no significant difference (p = 1)"
    assert found[0].difference == pytest.approx(-4)
    (alone,) = verdicts({"fd": {"a": [1.0, 1.0], "b": [2.0, 2.0]}}, {"fd": "lower"})
    assert (alone.better, alone.text) == (None, "not tested: neither varies over seeds")


def test_equal_recipes_are_rarely_told_apart() -> None:
    noise = torch.randn(200, 3, 3, 3, generator=torch.Generator().manual_seed(0)).tolist()
    wrong = 0
    for trial in noise:  # three scores of three recipes with three seeds
        values = {s: dict(zip("abc", rows, strict=True)) for s, rows in zip("xyz", trial, strict=True)}
        wrong += any(v.better for v in verdicts(values, dict.fromkeys("xyz", "higher")))
    assert wrong / len(noise) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(noise)), "one comparison in 20 errs, at most"


def test_a_busy_machine_is_noticed() -> None:
    def trained(name: str, images: int) -> compare.Trained:
        return compare.Trained(name, 0, images, 10.0, 1, "", {}, {})

    even = [trained("a", 1000), trained("a", 1100), trained("b", 90), trained("b", 100)]
    assert compare._uneven_warning(even) == ""
    assert "b saw from 50 to 100 images" in compare._uneven_warning([*even, trained("b", 50)])


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("500k", Budget(500_000, None)),
        (5000, Budget(5000, None)),
        ("2M", Budget(2_000_000, None)),
        ("2m", Budget(None, 120.0)),
        ("1h30m", Budget(None, 5400.0)),
    ],
)
def test_budgets_are_images_or_time(text: int | str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    ("recipes", "settings", "reason"),
    [
        (("VAE",), {}, "name two"),
        (("VAE", "VAE"), {}, "name two"),
        ((), {}, "name two"),
        (("VAE", "gann-mnist"), {}, "did you mean 'gan-mnist'"),
        (("VAE", "mine.yaml"), {}, "mine.yaml"),
        (("VAE", "GAN"), {"budget": "soon"}, "budget: 'soon'"),
        (("VAE", "GAN"), {"budget": 0}, "budget: 0"),
        (("VAE", "GAN"), {"budget": "0s"}, "budget: '0s'"),
        (("VAE", "GAN"), {"budget": -3}, "budget: -3"),
        (("VAE", "GAN"), {"budget": True}, "budget: True"),
        (("VAE", "GAN"), {"budget": 1.5}, "budget: 1.5"),
        (("VAE", "GAN"), {"seeds": 0}, "seeds"),
        (("VAE", "GAN"), {"n": 3}, "at least 65 images"),
        (("VAE", "GAN"), {"n": "few"}, "n: "),
        (("VAE", "GAN"), {"only": "qualities"}, "did you mean 'quality'"),
        (("VAE", "GAN"), {"only": "latent"}, "limner evaluate"),
        (("VAE", "GAN"), {"extractor": "incepton"}, "extractor"),
        (("VAE", "GAN"), {"train.images": 5}, "budget=500k"),
        (("VAE", "GAN"), {"time": "3m"}, "budget=500k"),
        (("VAE", "GAN"), {"seed": 5}, "seeds=3"),
        (
            ("VAE", "GAN"),
            {"train.batch": 4000},
            "vae cannot be trained on mnist-5k of size 16: .*larger than the 300 images",
        ),
        (("VAE", "GAN"), {"model.gp_weight": 5}, "gp_weight"),
        (("VAE", "GAN"), {"model.adversarial": "hinge"}, "adversarial"),
        (("VAE", "GAN"), {"data": "mnist-6k"}, "did you mean 'mnist-5k'"),
        (("VAE", "GAN"), {"data": {"name": "mnist-5k", "split": "all"}}, "has no held-out images"),
        (("toy-gan", "toy-r1gan"), {}, "limner bench modes"),
    ],
)
def test_bad_settings_are_named(
    recipes: tuple[str, ...], settings: dict[str, Any], reason: str, vae: str, gan: str, tmp_path: Path
) -> None:
    files = {"VAE": vae, "GAN": gan}
    with pytest.raises(LimnerError, match=reason) as error:
        compare.run(*(files.get(r, r) for r in recipes), out=tmp_path / "out", **{"budget": 64} | settings)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists(), "nothing was written"


def test_two_files_of_one_name_are_refused(vae: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    twin = _written(tmp_path / "other" / "vae.yaml", Path(vae).read_text())
    with pytest.raises(LimnerError, match="two recipes have the name vae"):
        compare.run(vae, twin, budget=64, out=tmp_path / "out")
    evil = _written(tmp_path / "evil.yaml", f"name: ../../evil\n{Path(vae).read_text()}")
    with pytest.raises(LimnerError, match="without slashes"):
        compare.run(vae, evil, budget=64, out=tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(LimnerError, match="choose another out=DIR"):
        compare.run(vae, "gan-mnist", budget=64, out=tmp_path / "file", n=128)
