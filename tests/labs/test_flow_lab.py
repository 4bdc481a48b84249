"""The lab of flows: the change of variables is autograd's, layers add up to their net, and its page comes about."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from limner import labs
from limner.labs import flow as lab


def test_the_slope_of_the_bent_line_is_autograds_and_positive() -> None:
    z = torch.linspace(-4, 4, 41, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(lab.bent(z).sum(), z)
    torch.testing.assert_close(lab.slope(z.detach()), slope)
    assert float(slope.min()) >= 1


def test_the_density_of_the_ring_integrates_to_one_and_its_entropy_is_that_of_eight_humps() -> None:
    line = torch.linspace(-1.8, 1.8, 361, dtype=torch.float64)
    points = torch.cartesian_prod(line, line)
    log_p = lab.ring_log_density(points)
    mass = log_p.exp() * 0.01**2
    assert float(mass.sum()) == pytest.approx(1, abs=1e-6)
    entropy = -float((mass * log_p).sum())
    assert entropy == pytest.approx(math.log(8) + math.log(2 * math.pi * math.e * lab.SIGMA**2), abs=2e-3)


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.factor * x, torch.full((len(x),), x[0].numel() * math.log(self.factor))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Scale(2.0), Scale(5.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, a = self.first(x)
        x, b = self.second(x)
        return x, a + b


def test_layers_are_the_innermost_ones_and_leave_no_hooks() -> None:
    net = nn.ModuleDict({"chain": Twice()})
    net.forward = lambda x: net["chain"](x)  # type: ignore[method-assign, assignment]
    found = lab.layers(net, torch.ones(3, 2))
    assert [name for name, _, _ in found] == ["Scale", "Scale"]
    assert [float(d[0]) for _, _, d in found] == pytest.approx([2 * math.log(2), 2 * math.log(5)])
    assert float(found[1][1][0, 0]) == 10
    assert not any(m._forward_hooks for m in net.modules())


def test_bits_of_the_uniform_density_are_eight() -> None:
    class Uniform:
        def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return torch.full((len(x),), -x[0].numel() * math.log(2 + 2 / 255))

    x = 2 * torch.rand(5, 1, 4, 4) - 1
    torch.testing.assert_close(lab.bits(Uniform(), x, 0), torch.full((5,), 8.0))


def test_the_lab_leaves_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "NET", {"model.F.width": 4, "model.F.levels": 2})
    monkeypatch.setattr(lab, "POINTS", 40)
    monkeypatch.setattr(lab, "TOYS", {"RealNVP": "realnvp-toy"})
    monkeypatch.setattr(lab, "_SCORED", 40)
    data = {"name": "digits", "size": 28, "limit": 400}
    result = labs.run("flow", out=tmp_path / "lab", images=64, data=data, seed=1)
    missed = [c["name"] for c in result["checks"] if not c["ok"]]
    assert missed in (
        [],
        ["RealNVP: integral of its density over the plane drawn"],
    )  # ten steps, some mass lies outside
    assert len(result["checks"]) == 9
    page = Path(result["page"]).read_text(encoding="utf-8")
    assert page.count("data:image/png") == len(result["figures"]) == 7
    assert str(tmp_path) not in page
    written = json.loads((tmp_path / "lab" / "results.json").read_text(encoding="utf-8"))["results"]
    assert sum(layer["mean"] for layer in written["layers"]) != 0
    assert written["likelihoods"]["noise"] > 0
