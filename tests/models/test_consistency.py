"""Facts of consistency tuning, and of trainings that begin with the weights of another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import limner
from limner.bench.shrink import shrunk
from limner.config.spec import Spec
from limner.core.batch import Images
from limner.core.errors import LimnerError
from limner.models.consistency import Consistency
from limner.nets import protocols
from limner.nets.denoiser import MLP

SHAPE = (2, 1, 1)


class Data:
    """A batch of points at one place."""

    batch = position = 64

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __next__(self) -> Images:
        return Images(self.x)

    def randn(self, *size: int) -> Tensor:
        return torch.randn(*size)

    def scalar(self, schedule: object) -> Tensor:
        return torch.tensor(schedule(self.position))  # type: ignore[operator]


class Perfect(protocols.Denoiser):
    """The net whose f is always 0, the only image of the data."""

    def __init__(self) -> None:
        super().__init__(shape=SHAPE)
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """−c_skip x / (c_out c_in) of x = c_in · noisy."""
        sigma = (4 * c).exp().view(-1, 1, 1, 1)
        return -self.weight * x * 0.5 / sigma


def test_f_is_the_identity_without_noise() -> None:
    model = Consistency(MLP(shape=SHAPE), shape=SHAPE)
    torch.nn.init.normal_(model.F.last.weight)
    x = torch.randn(5, *SHAPE)
    torch.testing.assert_close(model.f(x, torch.zeros(5)), x)


def test_a_consistent_net_has_no_loss_and_any_other_has() -> None:
    data, update = Data(torch.zeros(64, *SHAPE)), lambda group, loss: None
    assert float(Consistency(Perfect(), shape=SHAPE).step(data, update)["loss/F"].detach()) < 1e-4  # type: ignore[arg-type]
    net = MLP(shape=SHAPE)
    torch.nn.init.normal_(net.last.weight)
    assert float(Consistency(net, shape=SHAPE).step(data, update)["loss/F"].detach()) > 1e-2  # type: ignore[arg-type]


def test_r_comes_closer_to_t_from_stage_to_stage() -> None:
    model = Consistency(MLP(shape=SHAPE), stage_images=100, shape=SHAPE)
    assert [model._gap(images) for images in (0, 99, 100, 250)] == [0.5, 0.5, 0.25, 0.125]


def test_one_step_is_the_image_of_the_noise_and_more_steps_add_new_noise() -> None:
    model = Consistency(MLP(shape=SHAPE), shape=SHAPE).eval()
    model.spec = Spec("model", "consistency", {})
    torch.nn.init.normal_(model.F.last.weight)
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(model.sample(6, seed=0), model.decode(model.prior.sample(6, generator)).detach())
    assert not torch.allclose(model.sample(6, seed=0, steps=2), model.sample(6, seed=0))
    with pytest.raises(LimnerError, match="steps must be a whole number from 1 to 100"):
        model.sample(1, steps=0)


def test_a_training_begins_with_the_weights_of_another(tmp_path: Path) -> None:
    edm = limner.train(shrunk("edm-mnist").to_dict(), out=tmp_path / "edm", progress=None)
    tree = shrunk("consistency-mnist", init=str(edm.path), images=8).to_dict()
    tree["optim"]["F"]["lr"] = 1e-30  # the first step changes nothing that can be seen
    tuned = limner.load(limner.train(tree, out=tmp_path / "tuned").path)
    for name, value in limner.load(edm.path).state_dict().items():
        torch.testing.assert_close(tuned.state_dict()[name], value)
    with pytest.raises(
        LimnerError, match=r"train.init=.*its edm has .* where F\..* is needed; give a run of the same nets"
    ):
        limner.train(tree | {"model": tree["model"] | {"F": tree["model"]["F"] | {"width": 16}}}, out=tmp_path / "wide")
    with pytest.raises(LimnerError, match="there is no"):
        limner.train(tree, out=tmp_path / "none", init="nowhere")
    assert not (tmp_path / "wide").exists()
