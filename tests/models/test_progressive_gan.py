"""Facts of progressive growing: the schedule of levels, what both nets see at each, and that it is all saved."""

from __future__ import annotations

import copy
from math import ceil
from typing import Any

import pytest
import torch
from torch import Tensor

import limner
from limner import data
from limner.config import recipe as recipes
from limner.core.batch import Images
from limner.core.capabilities import Decodes, HasCritic, HasPrior
from limner.core.checkpoint import pack
from limner.core.ema import EMA
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel, load_weights
from limner.core.optimisers import Adam
from limner.core.stream import Stream
from limner.core.update import Updates
from limner.losses.penalties import gradient_penalty
from limner.nets.progressive import at_level, downsample, upsample

SMALL = {"model.G.width": 4, "model.D.width": 4, "model.G.z": 8}


def built(size: int = 16, **more: object) -> GenerativeModel:
    torch.manual_seed(0)
    spec = recipes.load("progressive-mnist", SMALL | more).model.resolve(shape=(1, size, size), classes=10)
    model: GenerativeModel = spec.build()
    model.spec = spec
    return model


def test_the_schedule_stays_then_fades_then_stays() -> None:
    model = built(32, stable_images=100, fade_images=50)
    assert model.levels == 3
    levels = {n: model.level_at(n) for n in (0, 99, 100, 110, 149, 150, 249, 250, 275, 300, 425, 450, 10**9)}
    assert levels == {0: 0, 99: 0, 100: 0, 110: 0.2, 149: 0.98} | {
        150: 1,
        249: 1,
        250: 1,
        275: 1.5,
        300: 2,
        425: 2.5,
        450: 3,
        10**9: 3,
    }
    at_once = built(32, stable_images=100, fade_images=0)
    assert [at_once.level_at(n) for n in (0, 99, 100, 200, 300, 400)] == [0, 0, 1, 2, 3, 3]


class Watched:
    """A stream that keeps the images it gave."""

    def __init__(self, size: int, position: int) -> None:
        self.stream = Stream(data.load("mnist-5k", size=size, limit=64), 8, position=position)
        self.batch, self.x = 8, torch.empty(0)

    @property
    def position(self) -> int:
        return self.stream.position

    def __next__(self) -> Images:
        images = next(self.stream)
        self.x = images.x
        return images

    def randn(self, *size: int) -> Tensor:
        return self.stream.randn(*size)

    def rand(self, *size: int) -> Tensor:
        return self.stream.rand(*size)


@pytest.mark.parametrize(("images", "level"), [(0, 0.0), (100, 0.0), (125, 0.5), (150, 1.0), (275, 1.5), (300, 2.0)])
def test_the_losses_of_both_nets_at_each_level(images: int, level: float) -> None:
    """WGAN-GP with the drift term on images of the level's size; the gradient reaches one group at a time."""
    weights = {"gp_weight": 7.0, "drift": 0.2}
    model, recorded = built(stable_images=100, fade_images=50, **weights).double(), Watched(16, images)
    inputs: dict[str, list[Tensor]] = {"G": [], "D": []}
    model.G.register_forward_hook(lambda net, args, kwargs, out: inputs["G"].append(out), with_kwargs=True)
    model.D.register_forward_hook(lambda net, args, kwargs, out: inputs["D"].append(args[0]), with_kwargs=True)
    losses: dict[str, Tensor] = {}
    logs = model.step(_Doubles(recorded), losses.__setitem__)
    side = 4 << ceil(level)
    assert {tuple(x.shape) for x in inputs["D"]} == {(8, 1, side, side)}
    fake, other = inputs["G"]
    real = at_level(recorded.x.double(), level, model.levels)
    assert torch.equal(inputs["D"][0], real)
    again = Stream(data.load("mnist-5k", size=16, limit=64), 8, position=images)
    again.randn(8, 8)
    eps = again.rand(8)

    def D(x: Tensor) -> Tensor:
        return model.D(x, level=level)

    gp = gradient_penalty(D, real, fake, eps=eps.double())
    expected = D(fake).mean() - D(real).mean() + 7 * gp + 0.2 * D(real).square().mean()
    assert torch.allclose(losses["D"], expected, rtol=1e-5)
    assert torch.allclose(losses["G"].double(), -D(other).mean(), rtol=1e-5)
    assert torch.allclose(logs["term/gp"], gp, rtol=1e-5)
    of_G, of_D = [*model.G.parameters()], [*model.D.parameters()]
    assert not any(g is not None for g in torch.autograd.grad(losses["D"], of_G, allow_unused=True, retain_graph=True))
    assert any(g is not None for g in torch.autograd.grad(losses["D"], of_D, allow_unused=True))
    assert any(g is not None for g in torch.autograd.grad(losses["G"], of_G, allow_unused=True))
    assert model.images == images + 8


class _Doubles(Watched):
    """The same stream in double precision."""

    def __init__(self, seen: Watched) -> None:
        self.__dict__ = seen.__dict__
        self.seen = seen

    def __next__(self) -> Images:
        images = self.seen.__next__()
        return images._replace(x=images.x.double())

    def randn(self, *size: int) -> Tensor:
        return self.stream.randn(*size).double()

    def rand(self, *size: int) -> Tensor:
        return self.stream.rand(*size).double()


def test_n_critic_steps_draw_fresh_reals() -> None:
    groups: list[str] = []
    stream = Stream(data.load("mnist-5k", size=16, limit=64), 8)
    built(n_critic=3).step(stream, lambda group, loss: groups.append(group))
    assert groups == ["D", "D", "D", "G"]
    assert stream.position == 24


@pytest.mark.parametrize(("images", "visible"), [(0, 4), (140, 8), (290, 16), (300, 16)])
def test_images_for_callers_have_full_size(images: int, visible: int) -> None:
    model = built(stable_images=100, fade_images=50)
    model.images = images
    x = model.sample(3, seed=0).clone()  # out of inference mode
    assert x.shape == (3, 1, 16, 16)
    assert x.abs().max() <= 1
    small = downsample(x, {4: 2, 8: 1, 16: 0}[visible])
    assert small.shape[-1] == visible
    assert torch.allclose(upsample(small, {4: 2, 8: 1, 16: 0}[visible]), x), "pixels are repeated"
    assert model.critic(x).shape == (3,)
    assert torch.allclose(model.critic(x), model.D(small, level=model.level)), (
        "the critic takes images of the data's size"
    )
    gradient_of_samples = model.sample_gradient(x, x)
    assert gradient_of_samples.shape == x.shape
    at = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.critic(at).sum(), at)
    assert torch.allclose(gradient_of_samples, gradient), "G's loss raises the critic"


def test_its_capabilities() -> None:
    model = built()
    assert isinstance(model, HasCritic)
    assert isinstance(model, Decodes)
    assert isinstance(model, HasPrior)


def test_the_number_of_images_is_part_of_the_state() -> None:
    model, other = built(stable_images=100, fade_images=50), built(stable_images=100, fade_images=50)
    model.images = 275
    state = model.state_dict()
    assert state["_extra_state"].dtype == torch.int64
    other.load_state_dict(state)
    assert other.images == 275
    assert other.level == 1.5
    z = torch.randn(2, 8)
    assert torch.equal(other.decode(z), model.decode(z))


class Training:
    """What the loop keeps: model, optimisers, average, position."""

    def __init__(self) -> None:
        self.model = built(stable_images=8, fade_images=56)
        self.update = Updates(self.model.groups(), {g: Adam(betas=(0.0, 0.99)) for g in "GD"})
        self.ema = EMA(self.model, half_life=50)
        self.stream = Stream(data.load("mnist-5k", size=16, limit=64), 8)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.stream.begin()
            self.model.step(self.stream, self.update)
            self.ema.update(8)

    def state(self) -> dict[str, Any]:
        averaged = self.ema.averaged_model().state_dict()
        return copy.deepcopy({"model": self.model.state_dict(), "ema": averaged, "update": self.update.state()})

    def load(self, state: dict[str, Any], position: int) -> None:
        load_weights(self.model, state["model"])
        load_weights(self.ema.model, state["ema"])
        self.update.load_state(state["update"])
        self.stream.position = position


def test_growing_resumes_bit_for_bit() -> None:
    """20 steps are 10, save, load and 10 more, stopped in the middle of a fade; the averaged G grows along."""
    whole, half, other = Training(), Training(), Training()
    whole.run(20)
    half.run(10)
    assert 1 < half.ema.averaged_model().level == half.model.level < 2
    other.load(half.state(), half.stream.position)
    other.run(10)
    assert whole.model.level == 2
    first, second = pack(whole.state())[0], pack(other.state())[0]
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key], second[key]), key
    averaged = [training.ema.averaged_model() for training in (whole, other)]
    assert averaged[0].images == averaged[1].images == 160
    assert torch.equal(averaged[0].sample(4, seed=3), averaged[1].sample(4, seed=3))


def test_refusals() -> None:
    with pytest.raises(LimnerError, match=r"images of 28×28 do not come from doubling 4 pixels; use start=7"):
        built(28, **{"model.G.start": 4, "model.D.start": 4})
    with pytest.raises(LimnerError, match="G doubles 1 times and D 2 times; give both the same start"):
        built(16, **{"model.G.start": 8})
    with pytest.raises(LimnerError, match="is no GrowingGenerator"):
        recipes.load("dcgan-mnist", {"model.name": "progressive_gan"}).model.build(shape=(1, 16, 16), classes=10)
    with pytest.raises(LimnerError, match="stable_images must be positive"):
        built(stable_images=0)
    with pytest.raises(LimnerError, match=r"train\.batch=1.*has only one"):
        limner.dry_run("progressive-mnist", **SMALL | {"train.batch": 1, "data.size": 16})
