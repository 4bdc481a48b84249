"""Facts of RealNVP and Glow as models: densities are normalised, bits count levels, the first batch sets F once."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import limner
from limner import api, data
from limner.config import recipe as recipes
from limner.core import dist
from limner.core.batch import Images
from limner.core.capabilities import Conditional, Generates, HasLogProb, Reconstructs, ScoresSamples
from limner.core.errors import LimnerError
from limner.core.flows import FlowModel
from limner.core.optimisers import Adam
from limner.core.stream import Stream
from limner.core.update import Updates
from limner.evaluation.likelihood import likelihood
from limner.losses import dequantise
from limner.models.glow import Glow
from limner.models.real_nvp import RealNVP
from limner.nets import glow, real_nvp

SMALL = {"F.width": 8, "F.steps": 2}


def digits(name: str = "glow-mnist", **options: Any) -> FlowModel:
    """A small model of a recipe for the 8×8 digits."""
    spec = recipes.load(name, {f"model.{k}": v for k, v in (SMALL | options).items()}).model
    model = spec.build(**data.load("digits").facts())
    model.spec = spec
    return model


def moved(model: FlowModel, by: float = 0.05) -> FlowModel:
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += by * torch.randn_like(p)
    return model.eval()


class Batches:
    """A stream of one batch, over and over."""

    batch, position = 64, 0

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        self.images = Images(x, y)

    def __next__(self) -> Images:
        return self.images

    def rand(self, *size: int) -> Tensor:
        return torch.rand(size, generator=torch.Generator().manual_seed(0), dtype=self.images.x.dtype)


def test_flows_have_what_callers_ask_for() -> None:
    model = digits()
    for capability in (HasLogProb, ScoresSamples, Generates, Reconstructs):
        assert isinstance(model, capability)
    assert not isinstance(model, Conditional)
    assert isinstance(digits("glow-class-mnist"), Conditional)


def test_a_density_of_points_integrates_to_one() -> None:
    torch.manual_seed(0)
    model = moved(RealNVP(real_nvp.PointFlow(couplings=6, widths=(16,), shape=(2, 1, 1)), shape=(2, 1, 1)), 0.15)
    axis = torch.linspace(-20, 20, 800)
    x = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).view(-1, 2, 1, 1)
    with torch.no_grad():
        mass = model.log_prob(x).double().exp().sum() * (axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=2e-3)


def test_a_new_glow_is_a_normal_density_with_the_moments_of_the_first_batch() -> None:
    """Its couplings begin as affine maps, so the whole flow is affine: `torch.distributions` has its density."""
    torch.manual_seed(0)
    shape = (1, 4, 4)
    model = Glow(glow.Flow(width=4, steps=2, levels=1, shape=shape), shape=shape).double()
    levels = torch.randint(100, 140, (400, *shape)).double()
    model.warm_up(Batches(levels / 127.5 - 1))
    zero, x = torch.zeros(1, *shape, dtype=torch.float64), levels[:5] / 127.5 - 1
    with torch.no_grad():
        offset = model.encode(zero)[0]
        columns = torch.eye(16, dtype=torch.float64).view(16, *shape)
        A = (model.encode(columns) - offset).T  # z = A x + offset
        covariance = torch.linalg.inv(A.T @ A)
        mean = -torch.linalg.solve(A, offset)
        expected = torch.distributions.MultivariateNormal(mean, covariance).log_prob(x.flatten(1))
        torch.testing.assert_close(model.log_prob(x), expected)
    per_channel = levels.view(400, 4, 4)
    assert float(mean.mean()) == pytest.approx(float(per_channel.mean()) / 127.5 - 1, abs=0.01)


@pytest.mark.parametrize("name", ["glow-mnist", "realnvp-mnist"])
def test_uniform_images_have_8_bits(name: str) -> None:
    """The offset of bits per dimension: a model that knows nothing of even noise is at 8, and none can be below."""
    torch.manual_seed(0)
    options = {"F.blocks": 0, "F.steps": 2, "F.levels": 1}
    known = {"glow-mnist": ("F.steps", "F.levels"), "realnvp-mnist": ("F.blocks", "F.levels")}[name]
    spec = recipes.load(name, {f"model.{k}": options[k] for k in known}).model
    model = spec.build(shape=(1, 16, 16), classes=0)
    batches = Batches(torch.randint(0, 256, (256, 1, 16, 16)) / 127.5 - 1)
    model.warm_up(batches)
    logs = {k: v.detach() for k, v in model.step(batches, lambda group, loss: None).items()}
    assert float(logs["term/bits_per_dim"]) == pytest.approx(8, abs=0.05)
    assert float(logs["term/bits_per_dim"]) == pytest.approx(float(logs["loss/F"] - math.log(2 / 255)) / math.log(2))


def test_bits_of_a_run_are_those_of_the_scorecard() -> None:
    model, dataset = moved(digits()), data.load("digits")
    measured = likelihood(model, dataset, limit=100)
    assert (measured.kind, measured.measure, measured.n) == ("exact", "density", 100)
    x = torch.stack([dataset.fetch([i])[0] for i in range(1600)]).float() / 127.5 - 1
    with torch.no_grad():
        log_p = model.log_prob(dequantise.uniform(x, torch.rand(x.shape)))
    assert measured.bits == pytest.approx(float(dequantise.bits_per_dim(log_p, 64).mean()), abs=0.3)


def test_training_raises_the_likelihood_of_points() -> None:
    torch.manual_seed(0)
    dataset = data.load("ring", n=2000, sigma=0.1)
    model = RealNVP(real_nvp.PointFlow(couplings=6, widths=(32,), shape=dataset.shape), shape=dataset.shape)
    stream = Stream(dataset, 200)
    model.warm_up(stream)
    update = Updates(model.groups(), {"F": Adam(lr=5e-3)})
    x = next(stream).x
    before = float(model.log_prob(x).detach().mean())
    for _ in range(150):
        stream.begin()
        logs = model.step(stream, update)
    assert "term/bits_per_dim" not in logs, "points have no levels"
    assert float(model.log_prob(x).detach().mean()) > before + 0.5
    torch.testing.assert_close(model.decode(model.encode(x)), x, atol=1e-4, rtol=0)


def test_images_are_decoded_from_their_codes() -> None:
    model = moved(digits())
    batch = next(Stream(data.load("digits"), 8))
    with torch.no_grad():
        z = model.encode(batch.x)
        assert z.shape == (8, 64)
        torch.testing.assert_close(model.decode(z), batch.x, atol=2e-4, rtol=0)
        assert float(model.decode(5 * torch.randn(20, 64)).abs().max()) <= 1


def test_the_temperature_is_the_factor_of_the_noise() -> None:
    model = moved(digits())
    z = model.prior.sample(4, torch.Generator().manual_seed(3))
    with torch.no_grad():
        cold = model.decode(0.5 * z)
    torch.testing.assert_close(model.sample(4, seed=3, temperature=0.5), cold, atol=1e-6, rtol=0)
    assert torch.equal(model.at(temperature=0.5).sample(4, seed=3), model.sample(4, seed=3, temperature=0.5))
    assert not torch.equal(model.sample(4, seed=3), cold)
    for bad in (0, -1.0, math.nan):
        with pytest.raises(LimnerError, match="temperature must be a number above 0"):
            model.sample(1, temperature=bad)
    with pytest.raises(LimnerError, match="no sampling option 'truncation'"):
        model.sample(1, truncation=0.5)


def test_a_conditional_glow_knows_its_classes() -> None:
    model = moved(digits("glow-class-mnist"), 0.2)
    batch = next(Stream(data.load("digits"), 6))
    with torch.no_grad():
        of_class = torch.stack([model.log_prob(batch.x, torch.full((6,), k)) for k in range(10)])
        expected = of_class.logsumexp(0) - math.log(10)
        torch.testing.assert_close(model.log_prob(batch.x), expected)
        torch.testing.assert_close(model.score_samples(batch.x), expected)
        given = of_class[batch.y, torch.arange(6)]
        torch.testing.assert_close(model.log_prob(batch.x, batch.y), given)
        torch.testing.assert_close(model.decode(model.encode(batch.x, batch.y), batch.y), batch.x, atol=1e-3, rtol=0)
    assert not torch.allclose(of_class[0], of_class[1])
    a, b = (model.sample(3, y=k, seed=0) for k in (2, 7))
    assert not torch.allclose(a, b)


def test_a_flow_is_conditional_on_attributes_as_on_classes() -> None:
    """Vectors that say the class of each image give the likelihood that the classes give."""
    model = moved(digits("glow-class-mnist"), 0.2)
    batch = next(Stream(data.load("digits"), 5))
    vectors = torch.nn.functional.one_hot(batch.y, 10).float()
    with torch.no_grad():
        torch.testing.assert_close(model.log_prob(batch.x, vectors), model.log_prob(batch.x, batch.y))
        noise = [torch.rand(5, 3, *batch.x.shape[1:], generator=torch.Generator().manual_seed(0)) for _ in range(2)]
        of_vectors, of_classes = (
            model.log_weights(batch.x, 3, lambda *_, u=u: u, y) for u, y in zip(noise, (vectors, batch.y), strict=True)
        )
    torch.testing.assert_close(of_vectors, of_classes)


def test_the_first_batch_is_not_used_up_and_all_ranks_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    averaged: list[Tensor] = []
    monkeypatch.setattr(dist, "average_", lambda tensors: averaged.extend(tensors))
    model = digits()
    stream = Stream(data.load("digits"), 32)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.warm_up(stream)
    norms = sum(k.endswith("initialised") for k in before)
    assert len(averaged) == norms == 5, "two scales of two steps, and the pixels"
    after = {k: v.clone() for k, v in model.state_dict().items()}
    assert all(after[k] for k in after if k.endswith("initialised"))
    model.warm_up(stream)
    assert len(averaged) == norms, "a second call sets nothing"
    assert all(torch.equal(v, after[k]) for k, v in model.state_dict().items())


def test_a_resumed_run_is_not_set_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[FlowModel] = []
    warm_up = FlowModel.warm_up
    monkeypatch.setattr(FlowModel, "warm_up", lambda model, data: (calls.append(model), warm_up(model, data))[1])
    quick = {"data": "digits", "images": 32, "batch": 16, "samples": 1} | {f"model.{k}": v for k, v in SMALL.items()}
    run = limner.train("glow-mnist", out=tmp_path / "run", **quick)
    assert len(calls) == 1
    limner.resume(run.path, images=64)
    assert len(calls) == 1
    loaded = limner.load(run.path)
    assert all(v for k, v in loaded.state_dict().items() if k.endswith("initialised"))


def test_images_between_the_levels_are_refused() -> None:
    model = digits()
    with pytest.raises(LimnerError, match="8 bits, and these have values between the 256 levels"):
        model.warm_up(Batches(torch.rand(16, 1, 8, 8)))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("glow-mnist", {"data.size": 30}, "30×30 cannot be halved 2 times; use sides that 4 divides, such as size=32"),
        ("glow-mnist", {"data": "ring"}, r"use glow\.Flow with images, and real_nvp\.PointFlow for points"),
        ("realnvp-toy", {"data": "digits"}, r"images of 8×8, not points; use real_nvp\.Flow or glow\.Flow"),
        ("realnvp-toy", {"data": "line"}, "at least 2 numbers"),
        ("glow-mnist", {"F": {"name": "mlp.Encoder", "z": 2}}, "mlp.Encoder is no Flow, which F must be"),
        ("glow-mnist", {"F.pixels": "log"}, "pixels: input should be 'linear', 'logit' or 'marginal'"),
    ],
)
def test_what_does_not_fit_is_one_line(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LimnerError, match=message) as caught:
        api.prepare(recipes.load(name, settings))
    assert "\n" not in str(caught.value)
