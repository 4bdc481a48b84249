"""Nets are of the kind that a constructor asks for; a bound critic keeps its gradient; a frozen net stays hidden."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn

from limner.config.spec import Spec
from limner.core.errors import LimnerError
from limner.losses.penalties import gradient_penalty
from limner.nets import _critic, dcgan, mlp, progressive
from limner.nets.frozen import Frozen
from limner.nets.protocols import Decoder, Encoder, Generator, mixes_images

SHAPE = (1, 16, 16)


@pytest.mark.parametrize(
    ("name", "nets", "message"),
    [
        ("gan", {"G": "dcgan.Discriminator", "D": "mlp.Discriminator"}, "dcgan.Discriminator is no Decoder, which"),
        ("wgan_gp", {"G": "dcgan.Generator", "D": "mlp.Encoder"}, "mlp.Encoder is no Critic, which D must be"),
        ("progressive_gan", {"G": "dcgan.Generator", "D": "progressive.Discriminator"}, ": progressive.Generator"),
        (
            "vae",
            {"encoder": "mlp.Decoder", "decoder": "mlp.Decoder"},
            "choose from: caae.Encoder, conv.Encoder, ",
        ),
    ],
)
def test_a_net_of_another_kind_is_one_clear_line(name: str, nets: dict[str, str], message: str) -> None:
    with pytest.raises(LimnerError) as caught:
        Spec.parse("model", {"name": name} | nets).build(shape=SHAPE, classes=0, source=SHAPE, z=4)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("net", ["G", "D"])
def test_a_net_that_takes_labels_is_refused_by_a_model_without_labels(net: str) -> None:
    nets: dict[str, dict[str, object]] = {"G": {"name": "dcgan.Generator"}, "D": {"name": "dcgan.Discriminator"}}
    nets[net]["conditional"] = True
    with pytest.raises(LimnerError, match=f"no labels that it could tell {net}; write {net}.conditional=false"):
        Spec.parse("model", {"name": "wgan_gp"} | nets).build(shape=SHAPE, classes=3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gan", {"penalties": {"gradient_penalty": 10}}),
        ("gan", {"penalties": {"gradient_penalty_one_sided": 10}}),
        ("gan", {"penalties": {"dragan": 10}}),
        ("wgan_gp", {}),
        ("r3gan", {}),
    ],
)
@pytest.mark.parametrize("mixing", [{"norm": "batch"}, {"norm": "none", "minibatch": "std"}])
def test_a_critic_that_mixes_images_is_refused_wherever_a_slope_per_image_is_asked(
    name: str, options: dict[str, object], mixing: dict[str, str]
) -> None:
    tree = {"name": name, "G": "dcgan.Generator", "D": {"name": "dcgan.Discriminator"} | mixing} | options
    with pytest.raises(LimnerError, match="mixes images"):
        Spec.parse("model", tree).build(shape=SHAPE, classes=0)
    alone = tree | {"D": {"name": "dcgan.Discriminator", "norm": "none"}}
    assert not mixes_images(Spec.parse("model", alone).build(shape=SHAPE, classes=0).D)


def test_a_bound_critic_differentiates_once_and_gives_the_same_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    critic = mlp.Discriminator(widths=(8,), conditional=True, shape=SHAPE, classes=3).double()
    real, fake = (torch.randn(4, *SHAPE, dtype=torch.float64) for _ in range(2))
    y = torch.tensor([0, 1, 2, 0])
    eps = torch.rand(4, dtype=torch.float64)
    bound = gradient_penalty(critic.bind(y), real, fake, eps=eps)
    twice = gradient_penalty(functools.partial(critic, y=y), real, fake, eps=eps)
    torch.testing.assert_close(bound, twice, rtol=1e-9, atol=0)
    torch.testing.assert_close(critic.bind(y)(real), critic(real, y))
    monkeypatch.setattr(_critic, "gradient_by_autograd", None)  # nobody needs it
    torch.testing.assert_close(gradient_penalty(critic.bind(y), real, fake, eps=eps), bound)


def test_a_growing_critic_is_bound_to_a_level() -> None:
    critic = progressive.Discriminator(width=4, minibatch="none", shape=(1, 16, 16))
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(critic.bind(level=1.0)(x), critic(x, level=1.0))
    logits, gradient = critic.bind(level=0.5).input_gradient(x)
    torch.testing.assert_close(logits, critic(x, level=0.5))
    assert gradient.shape == x.shape


def test_every_kind_is_stated_by_a_base_class() -> None:
    assert issubclass(mlp.Encoder, Encoder)
    assert issubclass(mlp.Decoder, Decoder)
    assert issubclass(dcgan.Generator, Generator)


def test_a_frozen_net_is_used_and_neither_trained_nor_saved() -> None:
    owner, net = nn.Module(), nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
    owner.own, owner.judge = nn.Linear(1, 1), Frozen(net)
    owner.train()
    assert list(owner.state_dict()) == ["own.weight", "own.bias"]
    x = torch.randn(4, 3, requires_grad=True)
    assert torch.equal(owner.judge(x), owner.judge(x)), "it stays in evaluation mode"
    owner.judge(x).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in net.parameters())
    assert copy.deepcopy(owner).judge.net is net, "an average of the owner's weights needs no second copy"
