"""Properties of every recipe, tested on a smaller copy of it. New recipes are included automatically."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import pytest
import torch

import limner
from limner import api
from limner.bench.shrink import SIZE, shrunk
from limner.config import catalogue
from limner.config import recipe as recipes
from limner.config.spec import Spec
from limner.core.batch import Styled
from limner.core.capabilities import Conditional, Decodes, HasPrior, Reconstructs, Stylises, Translates
from limner.core.checkpoint import pack, read
from limner.core.ema import EMA
from limner.core.errors import LimnerError
from limner.core.inference import reconstruct, stylised, translated
from limner.core.model import GenerativeModel
from limner.core.prior import NormalPrior
from limner.core.progress import Silent
from limner.core.run import Run
from limner.core.stream import Stream
from limner.core.train import Interrupted
from limner.core.update import Updates
from limner.nets._layers import AlwaysOnDropout

RECIPES = limner.list_recipes()
TOYS = {"line", "ring", "grid", "swiss-roll", "checkerboard"}


def recipes_with_batch(kind: type) -> list[str]:
    return [r for r in RECIPES if catalogue.find("model", recipes.load(r).model.name).batch_type is kind]


STYLED = recipes_with_batch(Styled)


def recipes_with_method(method: str) -> list[str]:
    return [r for r in RECIPES if hasattr(catalogue.find("model", recipes.load(r).model.name), method)]


TRANSLATORS, STYLISERS = recipes_with_method("translate"), recipes_with_method("transfer_statistics")
ALONE = [r for r in STYLED if r not in TRANSLATORS]  # the image itself is optimised
NO_SAMPLES = [*TRANSLATORS, *STYLISERS]
SAMPLED = [r for r in RECIPES if r not in NO_SAMPLES + ALONE]
EXAMINED = set({recipes.load(r).model.name: r for r in RECIPES}.values())  # by the doctor: one of each model


@pytest.fixture(params=RECIPES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def prepared(name: str) -> tuple[GenerativeModel, Stream, Updates]:
    setup = api.prepare(shrunk(name))
    setup.model.train()
    return setup.model, Stream(setup.dataset, setup.options.batch), Updates(setup.model.groups(), setup.optimisers)


def test_builds_from_its_own_description(name: str) -> None:
    model, _, _ = prepared(name)
    again = Spec.from_json("model", model.spec.to_json()).build()
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_each_update_moves_its_own_group_and_no_other(name: str) -> None:
    model, stream, update = prepared(name)
    groups = model.groups()
    updated: list[str] = []

    def observed_update(group: str, loss: torch.Tensor) -> None:
        parameters = {g: [p.detach().clone() for p in m.parameters()] for g, m in groups.items()}
        update(group, loss)
        norm = update.logs[f"grad/{group}"]
        assert math.isfinite(norm)
        assert norm > 0
        for g, module in groups.items():
            moved = [bool((p != q).any()) for p, q in zip(module.parameters(), parameters[g], strict=True)]
            if g == group:
                assert any(moved)
            elif not {id(p) for p in module.parameters()} & {id(p) for p in groups[group].parameters()}:
                assert not any(moved)
        updated.append(group)

    stream.begin()
    model.step(stream, observed_update)
    assert set(updated) == set(groups)


def test_logs_are_finite_scalars_with_known_names(name: str) -> None:
    model, stream, update = prepared(name)
    logs = model.step(stream, update)
    assert any(k.startswith("loss/") for k in logs)
    for key, value in logs.items():
        assert key.split("/")[0] in ("loss", "logit", "term", "grad")
        assert value.shape == ()
        assert math.isfinite(value.detach())


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_have_the_shape_and_range_of_images(name: str) -> None:
    model, stream, _ = prepared(name)
    x = model.sample(5, seed=0)
    if shrunk(name).data.name in TOYS:
        assert x.shape[2:] == (1, 1)
    else:
        assert x.shape == (5, *stream.dataset.shape)
        assert x.shape[2:] == (SIZE, SIZE)
        assert float(x.abs().max()) <= 1
    assert torch.equal(x, model.sample(5, seed=0))
    assert not torch.equal(x, model.sample(5, seed=1))
    assert model.training, "sampling leaves the mode as it was"
    model.eval().sample(1, seed=0)
    assert not model.training


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_do_not_depend_on_the_batch_size(name: str) -> None:
    """This holds up to rounding and without live dropout. One batch is the decoded noise of its seed."""
    model, _, _ = prepared(name)
    assert isinstance(model, HasPrior)
    assert isinstance(model, Decodes)
    whole = model.sample(5, seed=0)
    if any(isinstance(m, AlwaysOnDropout) for m in model.modules()):
        assert model.sample(5, seed=0, batch=2).shape == whole.shape
        return
    torch.testing.assert_close(model.sample(5, seed=0, batch=2), whole, rtol=0, atol=1e-5)
    if isinstance(model.prior, NormalPrior):
        torch.testing.assert_close(model.sample(3, seed=0), whole[:3], rtol=0, atol=1e-5)
    if type(model).draw is not GenerativeModel.draw:
        return  # drawn by a sampler with options
    y = model.condition.default(5) if isinstance(model, Conditional) else None
    noise = model.eval().prior.sample(5, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model.decode(noise, y), whole), "a seed gives the same images as in old runs"


@pytest.mark.parametrize("name", TRANSLATORS)
def test_translations_have_the_size_of_their_sources(name: str) -> None:
    model, stream, _ = prepared(name)
    assert isinstance(model, Translates)
    model.eval()
    for x in (next(stream)[0], torch.zeros(2, model.source[0], 37, 53)):
        for to in model.domains:
            y = translated(model, x, to, seed=1)
            assert y.shape == (len(x), model.shape[0], *x.shape[2:])
            assert float(y.abs().max()) <= 1
            assert torch.equal(y, translated(model, x, to, seed=1))
    with pytest.raises(LimnerError, match="limner apply"):
        model.sample(4)


@pytest.mark.parametrize("name", STYLISERS)
def test_images_of_any_size_are_stylised(name: str) -> None:
    model, stream, _ = prepared(name)
    assert isinstance(model, Stylises)
    x, s = next(stream)
    model.eval()
    with torch.no_grad():
        assert stylised(model, x, [model.encode_features(s)]).shape == x.shape
        y = stylised(model, torch.zeros(1, 3, 37, 53), [model.encode_features(s[:1])], strength=0.5)
        assert y.shape == (1, 3, 37, 53)
        assert float(y.abs().max()) <= 1
    with pytest.raises(LimnerError, match="limner stylise"):
        model.sample(4)


@pytest.mark.parametrize("name", [r for r in RECIPES if "encoder" in recipes.load(r).model.kwargs])
def test_reconstructions_keep_the_shape(name: str) -> None:
    model, stream, _ = prepared(name)
    assert isinstance(model, Reconstructs)
    x, y = next(stream)
    model.eval()
    assert reconstruct(model, x, y if isinstance(model, Conditional) else None).shape == x.shape


class StopsAt(Silent):
    """Interrupts the training, as Ctrl-C does, after `images` images."""

    def __init__(self, images: int) -> None:
        self.images = images

    def step(self, images: int) -> None:
        if images == self.images:
            signal.raise_signal(signal.SIGINT)


def tensors(run: Run) -> dict[str, torch.Tensor]:
    saved = read(run.latest)
    return saved.model | pack(saved.trainer)[0]


def lines(run: Run) -> list[dict[str, object]]:
    """The metrics without times and speeds."""
    return [{k: v for k, v in m.items() if "second" not in k} for m in run.metrics()]


def test_twenty_steps_are_ten_saved_loaded_and_ten_more(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The average of the weights counts every image, however many batches a step takes; the doctor changes no bit."""
    averaged: list[int] = []
    moved = EMA.update
    monkeypatch.setattr(EMA, "update", lambda ema, n, seen: (averaged.append(n), moved(ema, n, seen)))
    tree = shrunk(name).to_dict()
    tree["train"]["ema_images"] = tree["train"].get("ema_images") or 24
    examined = {"doctor_images": tree["train"]["images"]} if name in EXAMINED else {"doctor": False}
    whole = limner.train({**tree, "train": {**tree["train"], **examined}}, out=tmp_path / "whole")
    assert [bool(check["signals"]) for check in whole.checks()] == [True] * (name in EXAMINED)
    assert [event for event in whole.events() if event["event"] == "finding" and event["state"] == "error"] == []
    assert sum(averaged) == whole.metrics()[-1]["images"]
    assert len(averaged) == whole.metrics()[-1]["step"]
    with pytest.raises(Interrupted):
        limner.train(tree, out=tmp_path / "half", progress=StopsAt(10 * (1 if name in ALONE else 8)))
    half = limner.resume(tmp_path / "half")
    a, b = tensors(whole), tensors(half)
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key
    assert lines(half) == lines(whole)
    if name not in NO_SAMPLES:
        assert torch.equal(limner.load(whole.path).sample(4, seed=3), limner.load(half.latest).sample(4, seed=3))
    assert (whole.path / "report.html").stat().st_size > 10_000
    with pytest.raises(LimnerError, match="finished at"):
        limner.resume(whole.path)


@pytest.mark.parametrize("name", [r for r in RECIPES if recipes.load(r).model.name in ("pix2pix", "cyclegan")])
def test_translators_train_for_half_the_time_at_a_falling_rate(name: str) -> None:
    """Isola et al. 2017 and Zhu et al. 2017: 100 epochs at lr, 100 towards 0."""
    assert [o["decay"] for o in recipes.load(name).to_dict()["optim"].values()] == [0.5, 0.5]


@pytest.mark.parametrize("name", ["pix2pix-facades", "cyclegan-emoji"])
def test_the_learning_rate_falls_to_zero(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a training: half of the steps at lr, then linear to 0, which is reached one step after the last."""
    rates: dict[str, list[float]] = {}

    class ObservedUpdates(Updates):
        def __call__(self, group: str, loss: object) -> None:
            super().__call__(group, loss)
            rates.setdefault(group, []).extend({g["lr"] for g in self.optimisers[group].param_groups})

    monkeypatch.setattr("limner.core.train.Updates", ObservedUpdates)
    tree = shrunk(name, images=40 * 2, batch=2, samples=1, sample_images=1_000_000).to_dict()
    limner.train(tree, out=tmp_path / "run")
    assert set(rates) == set(tree["optim"])
    for group, options in tree["optim"].items():
        assert rates[group] == pytest.approx([options["lr"] * min(1, (40 - k) / 20) for k in range(40)])


def test_explains_every_option(name: str) -> None:
    rows = limner.explain(name).options
    assert [r["name"] for r in rows if not r["text"]] == []
