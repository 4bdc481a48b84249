"""Facts of Age-cGAN: its three losses, who learns from whom, and that E finds the noise of generated pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from limner.apply.relabel import nearest_codes
from limner.config.spec import Spec
from limner.core.batch import Images
from limner.core.capabilities import Reconstructs
from limner.core.condition import Classes
from limner.core.errors import LimnerError

K, Z, SHAPE, B = 3, 2, (1, 4, 4), 6
NETS = ("G", "D", "encoder")


class Batches:
    """Batches of random images with classes, and the noise of a step, which `used` keeps."""

    def __init__(self, dtype: torch.dtype = torch.float64, batch: int = B) -> None:
        self.batch, self.position, self.dtype = batch, 0, dtype
        self.generator = torch.Generator().manual_seed(1)
        self.used: list[Tensor] = []

    def __next__(self) -> Images:
        self.position += self.batch
        self.x = torch.rand(self.batch, *SHAPE, generator=self.generator, dtype=self.dtype) * 2 - 1
        self.y = torch.arange(self.batch) % K
        return Images(self.x, self.y)

    def randn(self, *size: int) -> Tensor:
        self.used.append(torch.randn(*size, generator=self.generator, dtype=self.dtype))
        return self.used[-1]


def build(**options: Any) -> Any:
    nets: dict[str, Any] = {
        "G": {"name": "mlp.Decoder", "z": Z, "widths": [16], "conditional": True},
        "D": {"name": "mlp.Discriminator", "widths": [8], "conditional": True},
        "encoder": {"name": "mlp.Encoder", "z": Z, "widths": [32]},
    }
    spec = Spec.parse("model", {"name": "age_cgan", **nets, **options})
    torch.manual_seed(0)
    model = spec.build(shape=SHAPE, classes=K, condition=Classes(K).header())
    model.spec = spec
    return model


@pytest.mark.parametrize("conditional", [False, True])
def test_the_losses_are_those_of_the_paper_and_each_net_learns_from_its_own(conditional: bool) -> None:
    E = {"name": "mlp.Encoder", "z": Z, "widths": [32], "conditional": conditional}
    model, data = build(encoder=E).double(), Batches()
    found: list[tuple[str, Tensor]] = []
    model.step(data, lambda group, loss: found.append((group, loss)))
    x, (first, z) = data.x, data.used
    v = F.one_hot(data.y, K).double()

    def log_D(x: Tensor) -> Tensor:
        return torch.log(torch.sigmoid(model.D(x, v)))

    expected = {
        "D": -log_D(x).mean() - torch.log(1 - log_D(model.G(first, v)).exp()).mean(),
        "G": -log_D(model.G(z, v)).mean(),
        "E": (z - model.encoder(model.G(z, v), v)).pow(2).sum(1).mean() / Z,
    }
    assert [group for group, _ in found] == ["D", "G", "E"]
    for group, loss in found:
        assert loss.item() == pytest.approx(expected[group].item(), rel=2e-6), group
    reached = {g: {n for n in NETS if reaches(loss, getattr(model, n))} for g, loss in found}
    assert reached == {"D": {"D"}, "G": {"G", "D"}, "E": {"encoder"}}, "E moves neither G nor D"
    assert set(model.ema_groups) == {"G", "E"}, "weights of both are averaged, as they are used together"


def reaches(loss: Tensor, net: Any) -> bool:
    grads = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, allow_unused=True)
    return any(g is not None and bool(g.abs().sum() > 0) for g in grads)


def test_the_encoder_learns_the_noise_and_the_search_begins_there() -> None:
    model, data = build(), Batches(torch.float32, 64)
    adam = torch.optim.Adam(model.encoder.parameters(), 5e-3)

    def update(group: str, loss: Tensor) -> None:
        if group == "E":
            adam.zero_grad()
            loss.backward(inputs=list(model.encoder.parameters()))
            adam.step()

    errors = [model.step(data, update)["loss/E"].item() for _ in range(150)]
    assert sum(errors[-3:]) < 0.4 * sum(errors[:3])
    model.eval()
    assert isinstance(model, Reconstructs)
    z, y = torch.randn(8, Z, generator=torch.Generator().manual_seed(7)), torch.arange(8) % K
    x = model.decode(z, y).detach()
    start, found = nearest_codes(model, x, y, steps=0), nearest_codes(model, x, y)
    torch.testing.assert_close(start.z, model.encode(x, y).detach())
    assert found.after.mean() < 0.1 * start.after.mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": {"name": "mlp.Encoder", "z": 5}}, "encoder.z=2"),
        ({"encoder": {"name": "mlp.Encoder", "z": Z, "heads": 2}}, "encoder.heads=1"),
        ({"G": {"name": "mlp.Decoder", "z": Z}}, "G.conditional=true"),
        ({"D": {"name": "mlp.Discriminator"}}, "D.conditional=true"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, LimnerError), match=message):
        build(**options)
