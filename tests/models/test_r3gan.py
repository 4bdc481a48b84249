"""Facts of R3GAN: the pairing game, both penalties, the cosine of gamma."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from limner import data
from limner.config import recipe as recipes
from limner.config.spec import Spec
from limner.core.batch import Images
from limner.core.capabilities import Decodes, HasCritic, HasPrior
from limner.core.errors import LimnerError
from limner.core.stream import Stream
from limner.losses import adversarial
from limner.models.r3gan import R3GAN

GAMMA = 0.7


class Affine(nn.Module):
    """G: z times a weight, plus a bias: 4×4 images."""

    z = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 16, generator=torch.Generator().manual_seed(1)).double())
        self.bias = nn.Parameter(torch.zeros(16).double())

    def forward(self, z: Tensor) -> Tensor:
        return (z.double() @ self.weight + self.bias).view(-1, 1, 4, 4)


class Critic(nn.Module):
    """D(x) = <w,x> + a/2 ||x||² + b: its gradient is w + a x."""

    def __init__(self, slope: float = 0.0, curve: float = 0.0, shift: float = 0.0) -> None:
        super().__init__()
        w = torch.randn(16, generator=torch.Generator().manual_seed(2)).double()
        self.w = nn.Parameter(slope * w)
        self.a, self.b = nn.Parameter(torch.tensor(curve).double()), nn.Parameter(torch.tensor(shift).double())

    def forward(self, x: Tensor) -> Tensor:
        x = x.double().flatten(1)
        return x @ self.w + 0.5 * self.a * x.square().sum(1) + self.b


class Recorded:
    """A stream that remembers what it gave."""

    def __init__(self, n: int = 8) -> None:
        self.generator = torch.Generator().manual_seed(3)
        self.n, self.batch, self.position = n, n, 0
        self.x: list[Tensor] = []
        self.z: list[Tensor] = []

    def __next__(self) -> Images:
        self.x.append(torch.randn(self.n, 1, 4, 4, generator=self.generator, dtype=torch.float64))
        self.position += self.n
        return Images(self.x[-1])

    def randn(self, *size: int) -> Tensor:
        self.z.append(torch.randn(*size, generator=self.generator))
        return self.z[-1]

    def scalar(self, schedule: Callable[[int], float]) -> Tensor:
        return torch.tensor(schedule(self.position), dtype=torch.float64)


def played(critic: Critic, **more: float) -> tuple[dict[str, Tensor], dict[str, Tensor], Recorded, R3GAN]:
    """One step without descent: what each group was to descend on, the log, the data, the model."""
    model, stream = R3GAN(Affine(), critic, gamma=GAMMA, **more), Recorded()
    losses: dict[str, Tensor] = {}
    logs = model.step(stream, losses.__setitem__)
    return losses, logs, stream, model


def test_a_constant_critic_has_a_loss_of_log_2_for_both_nets() -> None:
    losses, logs, _, _ = played(Critic())
    assert logs["loss/D"].item() == pytest.approx(math.log(2))
    assert logs["loss/G"].item() == pytest.approx(math.log(2))
    assert losses["D"].item() == pytest.approx(math.log(2)), "its gradient is 0 everywhere"


def test_a_constant_added_to_the_critic_changes_nothing() -> None:
    plain, _, _, _ = played(Critic(0.3, 0.2))
    shifted, _, _, model = played(Critic(0.3, 0.2, shift=5.0))
    for group in ("D", "G"):
        assert torch.allclose(plain[group], shifted[group])
    (gradient,) = torch.autograd.grad(shifted["D"], model.D.b)
    assert abs(gradient) < 1e-12


def test_the_losses_of_both_nets() -> None:
    """Pair by pair: softplus(D(G(z)) − D(x)), and γ/2 ‖w + a x‖² on reals and on samples."""
    losses, logs, stream, model = played(Critic(0.3, 0.2))
    (x,), (z, other) = stream.x, stream.z
    w, a = model.D.w, model.D.a
    fake = model.G(z)
    r1 = 0.5 * (w + a * x.flatten(1)).square().sum(1).mean()
    r2 = 0.5 * (w + a * fake.flatten(1)).square().sum(1).mean()
    pairs = torch.stack([torch.log1p(torch.exp(model.D(f[None]) - model.D(r[None]))) for f, r in zip(fake, x)])
    assert torch.allclose(losses["D"].double(), pairs.mean() + GAMMA * (r1 + r2))
    assert torch.allclose(logs["term/r1"], r1)
    assert torch.allclose(logs["term/r2"], r2)
    assert not torch.allclose(r1, r2)
    assert torch.allclose(losses["G"].double(), torch.log1p(torch.exp(model.D(x) - model.D(model.G(other)))).mean())


def test_each_loss_reaches_its_own_net_and_no_other() -> None:
    losses, _, _, model = played(Critic(0.3, 0.2))
    of_G, of_D = [*model.G.parameters()], [*model.D.parameters()]
    assert torch.autograd.grad(losses["D"], of_G, allow_unused=True, retain_graph=True) == (None, None)
    assert all(g is not None for g in torch.autograd.grad(losses["D"], of_D))
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(losses["G"], of_G))


def test_gamma_falls_along_half_a_cosine_and_then_is_constant() -> None:
    model = R3GAN(Affine(), Critic(), gamma=1.0, gamma_final=0.1, burn_in=1000)
    assert model.gamma(0) == 1.0
    assert model.gamma(500) == pytest.approx(0.55)
    assert model.gamma(250) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert model.gamma(1000) == model.gamma(10**9) == pytest.approx(0.1)
    constant = R3GAN(Affine(), Critic(), gamma=2.0)
    assert constant.gamma(0) == constant.gamma(10**6) == 2.0


def test_gamma_follows_the_position_of_the_stream() -> None:
    critic = Critic(0.3)
    model = R3GAN(Affine(), critic, gamma=1.0, gamma_final=0.1, burn_in=1000)
    stream, losses = Recorded(), {}
    stream.position = 1000
    logs = model.step(stream, losses.__setitem__)
    assert torch.allclose(losses["D"], logs["loss/D"] + 0.1 * critic.w.square().sum())


def test_the_sample_gradient_is_gs_gradient() -> None:
    model = R3GAN(Affine(), Critic(0.3, 0.2))
    fake, real = model.G(torch.randn(5, 3)).detach().requires_grad_(), torch.randn(5, 1, 4, 4)
    loss = adversarial.relativistic.g(model.D(fake), model.D(real))
    (gradient,) = torch.autograd.grad(5 * loss, fake)
    assert torch.allclose(model.sample_gradient(fake, real), -gradient, atol=1e-6), "logits leave D in single precision"
    assert isinstance(model, HasCritic)


def test_critics_that_mix_images_and_invalid_gammas_are_refused() -> None:
    with pytest.raises(ValueError, match="batch norm"):
        R3GAN(Affine(), nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)))
    with pytest.raises(ValueError, match="positive"):
        R3GAN(Affine(), Critic(), gamma=0.0)
    with pytest.raises(ValueError, match="belong together"):
        R3GAN(Affine(), Critic(), gamma_final=0.1)
    with pytest.raises(LimnerError, match=r"too small for r3gan nets"):
        recipes.load("r3gan-mnist").model.build(shape=(1, 6, 6), classes=0)


def test_points_are_not_clamped() -> None:
    model = R3GAN(Affine(), Critic())
    z = torch.full((2, 3), 10.0)
    assert float(model.decode(z).detach().abs().max()) == 1, "images are cut off"
    model.G.forward = lambda z: z[:, :2, None, None]
    assert torch.equal(model.decode(z), z[:, :2, None, None])


def test_the_recipe_moves_both_nets_and_draws_within_the_range() -> None:
    torch.manual_seed(0)
    spec = recipes.load("r3gan-mnist", {"model.G.width": 8, "model.D.width": 8}).model
    model = spec.build(shape=(1, 8, 8), classes=10)
    model.spec = Spec.parse("model", spec.to_dict())
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.G.basis *= 5  # images far beyond the range
    x = model.sample(4, seed=0)
    assert x.shape == (4, 1, 8, 8)
    assert x.abs().max() == 1
    assert isinstance(model, HasPrior)
    assert isinstance(model, Decodes)
    recorded: list[str] = []
    model.step(Stream(data.load("digits"), 4), lambda group, loss: recorded.append(group))
    assert recorded == ["D", "G"]
    assert before.keys() == model.state_dict().keys()
