"""Facts of CycleGAN."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from limner.config.spec import Spec
from limner.core.batch import Unpaired, to_uint8
from limner.core.stream import Stream
from limner.data import load
from limner.data.pairs import DomainSet
from limner.models.cyclegan import CycleGAN, Pool


class Identity(nn.Module):
    """Leaves a picture as it is, but for a factor that can learn."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


class Shift(nn.Module):
    """Adds a number, or takes it off again."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.by


class Mean(nn.Module):
    """A critic of one logit for each picture."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x.mean((1, 2, 3))


def digits() -> DomainSet:
    return DomainSet(load("digits", size=16, limit=60), load("mnist-5k", size=16, limit=40), "both")


def by_hand(G: nn.Module, F: nn.Module, **options: Any) -> CycleGAN:
    return CycleGAN(G, F, Mean(), Mean(), shape=(1, 16, 16), **options)


def terms(model: CycleGAN) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    losses: dict[str, torch.Tensor] = {}
    logs = model.step(Stream(digits(), 4), lambda group, loss: losses.__setitem__(group, loss.detach()))
    return logs, losses


def test_identity_generators_have_no_identity_and_no_cycle_error():
    logs, _ = terms(by_hand(Identity(), Identity()))
    assert float(logs["term/identity"].detach()) == 0
    assert float(logs["term/cycle"].detach()) == 0


def test_inverse_generators_have_no_cycle_error_but_an_identity_error():
    logs, _ = terms(by_hand(Shift(0.25), Shift(-0.25)))
    assert abs(float(logs["term/cycle"].detach())) < 1e-6
    assert abs(float(logs["term/identity"].detach()) - 0.5) < 1e-6  # a quarter each way


def test_each_domain_has_a_pool_of_its_translations():
    model = by_hand(Shift(0.25), Shift(-0.5))
    terms(model)
    x, y = next(Stream(digits(), 4))
    assert model.pool_X.filled == model.pool_Y.filled == 4
    assert torch.equal(model.pool_X.held[:4], to_uint8(y - 0.5))
    assert torch.equal(model.pool_Y.held[:4], to_uint8(x + 0.25))


def test_g_translates_to_b_and_f_to_a():
    model, x = by_hand(Shift(0.25), Shift(-0.5)), torch.zeros(1, 1, 16, 16)
    assert float(model.translate(x).detach().mean()) == float(model.translate(x, "b").detach().mean()) == 0.25
    assert float(model.translate(x, "a").detach().mean()) == -0.5


def test_losses_are_those_of_the_paper():
    model = by_hand(Shift(0.25), Shift(0.5), pool=0)
    _, losses = terms(model)
    x, y = next(Stream(digits(), 4))
    with torch.no_grad():
        fake_y, fake_x = x + 0.25, y + 0.5
        gan = (model.D_Y(fake_y) - 1).square().mean() + (model.D_X(fake_x) - 1).square().mean()
        expected = gan + 10 * (0.75 + 0.75) + 5 * (0.25 + 0.5)
        torch.testing.assert_close(losses["G"], expected)
        real = (model.D_Y(y) - 1).square().mean() + (model.D_X(x) - 1).square().mean()
        fake = model.D_Y(fake_y).square().mean() + model.D_X(fake_x).square().mean()
        torch.testing.assert_close(losses["D"], (real + fake) / 2)


def test_no_gradient_of_the_critics_loss_reaches_a_generator():
    model = by_hand(Shift(0.1), Shift(0.2))
    losses = {}
    model.step(Stream(digits(), 4), lambda group, loss: losses.__setitem__(group, loss))
    own = torch.autograd.grad(losses["D"], [*model.groups()["G"].parameters()], allow_unused=True)
    assert own == (None, None)
    assert all(float(g.abs()) > 0 for g in torch.autograd.grad(losses["G"], [*model.groups()["G"].parameters()]))


class Chance:
    """Noise that a test decides."""

    def __init__(self, *draws: list[float]) -> None:
        self.draws = [torch.tensor(d) for d in draws]

    def rand(self, *size: int) -> torch.Tensor:
        return self.draws.pop(0)


def test_the_pool_fills_first_and_then_gives_held_images_half_of_the_time():
    pool, grey = Pool(2, (1, 1, 1)), torch.tensor([-1.0, -0.6, 0.2, 1.0]).view(4, 1, 1, 1)
    filled = pool(grey[:2], Chance([0.0, 0.0], [0.0, 0.0]))
    assert torch.equal(filled, grey[:2])  # while it fills, what is new is shown
    kept = pool(grey[2:3], Chance([0.0], [0.51]))
    assert torch.equal(kept, grey[2:3])  # 0.51: the new one is shown, and not kept
    swapped = pool(grey[3:], Chance([0.6], [0.49]))  # 0.49: place 1 gives its older one and keeps the new
    torch.testing.assert_close(swapped.flatten(), torch.tensor([-0.6]), atol=1 / 255, rtol=0)
    torch.testing.assert_close(pool.held.flatten() / 127.5 - 1, torch.tensor([-1.0, 1.0]), atol=1 / 255, rtol=0)


def test_a_pool_is_saved_with_its_images():
    pool, again = Pool(3, (1, 2, 2)), Pool(3, (1, 2, 2))
    stream = Stream(digits(), 2)
    pool(torch.rand(2, 1, 2, 2), stream)
    again.load_state_dict(pool.state_dict())
    assert again.filled == 2
    assert torch.equal(again.held, pool.held)


def test_domains_have_independent_orders():
    batch = next(Stream(digits(), 8, seed=1))
    assert isinstance(batch, Unpaired)
    same = DomainSet(load("digits", size=16), load("digits", size=16))
    x, y = next(Stream(same, 64, seed=0))
    assert not torch.equal(x, y)


def test_both_directions_from_one_recipe():
    tree = {
        "name": "cyclegan",
        "G": {"name": "resnet.Generator", "width": 4, "blocks": 1},
        "F": {"name": "unet.Generator", "width": 4, "norm": "instance", "dropout": 0.0},
        "D_X": {"name": "patchgan.Discriminator", "width": 4, "patch": 16, "norm": "instance"},
        "D_Y": {"name": "patchgan.Discriminator", "width": 4, "patch": 16, "norm": "instance"},
    }
    model = Spec.parse("model", tree).build(shape=(1, 16, 16), source=(1, 16, 16), pairing=None)
    x = torch.randn(2, 1, 37, 53)
    assert model.translate(x, "b").shape == model.translate(x, "a").shape == (2, 1, 37, 53)
    assert not torch.equal(model.translate(x, "b"), model.translate(x, "a"))
