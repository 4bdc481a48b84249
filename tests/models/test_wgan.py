"""Facts of the Wasserstein GANs and of the unrolled and the one-number GAN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from limner import data, report
from limner.config.spec import Spec
from limner.core.batch import Images
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.optimisers import Adam
from limner.core.stream import Stream
from limner.core.update import Updates

G = {"name": "mlp.Decoder", "z": 4, "widths": [32, 32], "out": "linear"}
D = {"name": "mlp.Discriminator", "widths": [32, 32]}


def build(name: str, shape: tuple[int, int, int] = (2, 1, 1), **options: Any) -> Any:
    tree = {"name": name} | ({} if name == "toy_gan" else {"G": G, "D": D}) | options
    spec = Spec.parse("model", tree)
    torch.manual_seed(0)
    model = spec.build(shape=shape, classes=0)
    model.spec = spec
    return model


def train(model: GenerativeModel, stream: Stream, steps: int, lr: float = 1e-3) -> list[dict[str, float]]:
    update, logs = Updates(model.groups(), {g: Adam(lr=lr, betas=(0.0, 0.9)) for g in model.groups()}), []
    for _ in range(steps):
        stream.begin()
        logs.append({k: float(v.detach()) for k, v in model.step(stream, update).items()})
    return logs


def test_clipping_holds_every_weight_of_the_critic() -> None:
    model = build("wgan", clip=0.05)
    train(model, Stream(data.load("ring", n=512), 64), 3, lr=0.1)
    largest = max(float(p.detach().abs().max()) for p in model.D.parameters())
    assert largest == pytest.approx(0.05)
    assert max(float(p.detach().abs().max()) for p in model.G.parameters()) > 0.05


def test_n_critic_steps_draw_fresh_reals() -> None:
    for name in ("wgan", "wgan_gp"):
        groups: list[str] = []
        stream = Stream(data.load("ring", n=512), 64)
        build(name, n_critic=4).step(stream, lambda group, loss, g=groups: g.append(group))
        assert groups == ["D", "D", "D", "D", "G"]
        assert stream.position == 256


class Quadratic(nn.Module):
    """D(x) = <w,x> + a/2 ‖x‖², whose gradient is w + a x."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.a = nn.Parameter(torch.tensor([0.7, -0.4])), nn.Parameter(torch.tensor(0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.w + self.a / 2 * x.flatten(1).square().sum(1)


@pytest.mark.parametrize("name", ["wgan", "wgan_gp"])
def test_the_losses_of_both_nets(name: str) -> None:
    """The box with other weights than the usual ones, for the same batch, noise and ε; D's loss leaves G alone."""
    model = build(name, n_critic=1, **({"gp_weight": 7.0, "drift": 0.3} if name == "wgan_gp" else {"clip": 5.0}))
    model.D, losses = Quadratic(), {}
    stream, again = (Stream(data.load("ring", n=512), 64) for _ in range(2))
    stream.begin(), again.begin()
    logs = model.step(stream, losses.__setitem__)
    x, fake = next(again).x, model.G(again.randn(64, 4)).detach()
    loss_D = model.D(fake).mean() - model.D(x).mean()
    torch.testing.assert_close(logs["loss/D"], loss_D)
    if name == "wgan_gp":
        eps = again.rand(64)[:, None]
        between = eps * x.flatten(1) + (1 - eps) * fake.flatten(1)
        gp = ((model.D.w + model.D.a * between).norm(dim=1) - 1).square().mean()
        loss_D = loss_D + 7 * gp + 0.3 * model.D(x).square().mean()
    torch.testing.assert_close(losses["D"], loss_D)
    torch.testing.assert_close(losses["G"], -model.D(model.G(again.randn(64, 4))).mean())
    of_G = [*model.G.parameters()]
    assert set(torch.autograd.grad(losses["D"], of_G, allow_unused=True)) == {None}
    assert any(float(g.abs().max()) > 0 for g in torch.autograd.grad(losses["G"], of_G))


@pytest.mark.parametrize("game", ["nonsaturating", "saturating"])
def test_the_toy_gan_by_hand(game: str) -> None:
    """D(θ + σz) in both losses; D's loss leaves θ alone."""
    model = build("toy_gan", shape=(1, 1, 1), adversarial=game, sigma=0.5, start=1.5)
    with torch.no_grad():
        model.D.weight.fill_(0.8)
        model.D.bias.fill_(-0.2)
    stream, again = (Stream(data.load("line", n=512), 64) for _ in range(2))
    stream.begin(), again.begin()
    losses: dict[str, torch.Tensor] = {}
    model.step(stream, losses.__setitem__)
    x, z, other = next(again).x.flatten(), again.randn(64, 1).flatten(), again.randn(64, 1).flatten()
    softplus = torch.nn.functional.softplus
    real, fake, fake_logits_G = (0.8 * v - 0.2 for v in (x, 1.5 + 0.5 * z, 1.5 + 0.5 * other))
    torch.testing.assert_close(losses["D"], softplus(-real).mean() + softplus(fake).mean())
    torch.testing.assert_close(
        losses["G"], softplus(-fake_logits_G).mean() if game == "nonsaturating" else -softplus(fake_logits_G).mean()
    )
    assert torch.autograd.grad(losses["D"], model.G.theta, allow_unused=True) == (None,)
    (slope,) = torch.autograd.grad(losses["G"], model.G.theta)
    care = torch.sigmoid(-fake_logits_G if game == "nonsaturating" else fake_logits_G)  # 1 - D, or D
    torch.testing.assert_close(slope, -0.8 * care.mean().view(1))


def test_the_penalised_critic_estimates_the_distance_a_little_too_high() -> None:
    """Points at 0 and at W = 3: a critic of slope s gives s W - lambda (s - 1)^2, best at s = 1 + W / (2 lambda)."""
    there, gp_weight = 3.0, 10.0
    model = build("wgan_gp", shape=(1, 1, 1), n_critic=1, gp_weight=gp_weight)

    class Away(torch.nn.Module):
        z = 1

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return there + 0.05 * z[:, :, None, None]

    model.G, model.prior.z = Away(), 1
    stream = Stream(data.load("line", modes=1, std=0.05, n=512), 128)
    update = Updates({"D": model.D}, {"D": Adam(lr=3e-3, betas=(0.0, 0.9))})
    recorded = []
    for _ in range(400):
        stream.begin()
        logs = model.step(stream, lambda g, loss: update(g, loss) if g == "D" else None)
        recorded.append((float(logs["loss/D"].detach()), float(logs["term/gp"].detach())))
    loss, gp = torch.tensor(recorded[-50:]).mean(0).tolist()
    slope = 1 + there / (2 * gp_weight)
    assert loss == pytest.approx(-slope * there, rel=0.05)
    assert gp == pytest.approx((slope - 1) ** 2, rel=0.3)


def test_zero_unrolled_steps_are_the_plain_gan_and_five_are_not() -> None:
    def slopes(name: str, **options: Any) -> torch.Tensor:
        model, result = build(name, **options), {}
        stream = Stream(data.load("ring", n=512), 64)
        stream.begin()

        def update(group: str, loss: torch.Tensor) -> None:
            if group == "G":
                result["G"] = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*model.G.parameters()])])

        model.step(stream, update)
        return result["G"]

    assert torch.equal(slopes("unrolled_gan", unroll=0), slopes("gan"))
    assert not torch.allclose(slopes("unrolled_gan", unroll=5), slopes("gan"))


def test_unrolled_steps_equal_real_steps_and_do_not_change_d() -> None:
    """K plain gradient steps on D done by hand give the logits of G's loss."""
    model = build("unrolled_gan", unroll=3, eta=0.2)
    stream = Stream(data.load("ring", n=512), 64)
    stream.begin()
    before = [p.detach().clone() for p in model.D.parameters()]
    logs = model.step(stream, lambda group, loss: None)
    assert all(torch.equal(p, q) for p, q in zip(before, model.D.parameters(), strict=True))

    again = Stream(data.load("ring", n=512), 64)
    again.begin()
    x = next(again).x
    again.randn(64, 4)  # the noise of D's own step
    descent = torch.optim.SGD(model.D.parameters(), lr=0.2)
    for _ in range(3):
        fake = model.G(again.randn(64, 4)).detach()
        descent.zero_grad()
        loss = torch.nn.functional.softplus(-model.D(x)).mean() + torch.nn.functional.softplus(model.D(fake)).mean()
        loss.backward()
        descent.step()
    fake_logits_G = torch.nn.functional.softplus(-model.D(model.G(again.randn(64, 4)))).mean().detach()
    assert float(logs["loss/G"].detach()) == pytest.approx(float(fake_logits_G), rel=1e-5)


class Doubles(Stream):
    """A stream in double precision."""

    def __next__(self) -> Images:
        return Images(super().__next__().x.double())

    def randn(self, *size: int) -> torch.Tensor:
        return super().randn(*size).double()


def test_g_descends_through_all_unrolled_steps() -> None:
    """Its gradient is the slope of the loss as G moves and every D ahead answers, by central differences."""
    smooth = {"activation": "tanh"}  # a D of ReLUs has slopes that jump, and G's loss ahead jumps with them
    model = build("unrolled_gan", unroll=3, eta=0.5, G=G | smooth, D=D | smooth).double()
    weights, source = [*model.G.parameters()], data.load("ring", n=512)
    way = [torch.randn(w.shape, generator=torch.Generator().manual_seed(i)).double() for i, w in enumerate(weights)]

    def loss(moved: float) -> torch.Tensor:
        losses: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            for w, v in zip(weights, way, strict=True):
                w += moved * v
        model.step(Doubles(source, 64), losses.__setitem__)
        return losses["G"]

    slope = sum((g * v).sum() for g, v in zip(torch.autograd.grad(loss(0.0), weights), way, strict=True))
    right, left = loss(1e-3).item(), loss(-2e-3).item()
    assert float(slope) == pytest.approx((right - left) / 2e-3, rel=1e-2)


def test_the_toy_gan_finds_the_mean_of_the_data() -> None:
    """x* = z + theta: theta ends at the mean of the data, and D ends flat."""
    model = build("toy_gan", shape=(1, 1, 1), sigma=0.1, start=1.5)
    stream = Stream(data.load("line", modes=1, std=0.1, n=4000), 500)
    update = Updates(model.groups(), {"G": Adam(lr=0.02, betas=(0.0, 0.9)), "D": Adam(lr=0.05, betas=(0.0, 0.9))})
    theta = []
    for _ in range(1500):
        stream.begin()
        model.step(stream, update)
        theta.append(float(model.G.theta))
    assert sum(theta[-300:]) / 300 == pytest.approx(0.0, abs=0.1)
    assert theta[0] == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("wgan", {"clip": 0}, "clip must be positive"),
        ("wgan", {"n_critic": 0}, "n_critic"),
        ("wgan", {"D": D | {"spectral": True}}, "both bound"),
        ("wgan_gp", {"gp_weight": 0}, "positive"),
        ("wgan_gp", {"D": D | {"norm": "batch"}}, "D.norm=layer"),
        ("unrolled_gan", {"unroll": -1}, "0 or more"),
        ("unrolled_gan", {"D": D | {"norm": "batch"}}, "D.norm=none"),
    ],
)
def test_invalid_combinations_are_refused(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(LimnerError, match=reason):
        build(name, **options)


def test_the_toy_takes_no_images() -> None:
    with pytest.raises(LimnerError, match="data=line"):
        build("toy_gan", shape=(1, 28, 28))
    assert report.about("toy_gan").startswith("A toy GAN of one parameter")
