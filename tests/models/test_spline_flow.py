"""Spline flows, and what variational dequantisation makes of the likelihood of any flow."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import limner
from limner.core.batch import LEVEL, to_float
from limner.core.capabilities import HasBound, HasLogProb
from limner.core.flows import FlowModel
from limner.losses.likelihood import log_mean_exp
from limner.models.glow import Glow
from limner.models.real_nvp import RealNVP
from limner.models.spline_flow import SplineFlow
from limner.nets import dequantiser, glow, real_nvp, spline

SHAPE = (1, 2, 2)


def nets() -> dict[str, Any]:
    return {
        "glow": (Glow, glow.Flow(width=4, steps=1, levels=1, shape=SHAPE)),
        "real nvp": (RealNVP, real_nvp.Flow(width=4, blocks=0, levels=1, pixels="linear", shape=SHAPE)),
        "spline": (SplineFlow, spline.Coupling(steps=1, bins=4, widths=(8,), shape=SHAPE)),
    }


def moved(module: torch.nn.Module, by: float) -> torch.nn.Module:
    g = torch.Generator().manual_seed(0)
    for p in module.parameters():
        p.data += by * torch.randn(p.shape, generator=g)
    return module


@pytest.fixture(params=nets())
def model(request: pytest.FixtureRequest) -> FlowModel:
    torch.manual_seed(0)
    cls, net = nets()[request.param]
    noise = moved(dequantiser.Coupling(2, width=4, shape=SHAPE), 0.05)
    built: FlowModel = cls(net, noise, shape=SHAPE).eval()
    return built


def images(n: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return to_float(torch.randint(0, 256, (n, *SHAPE), generator=g, dtype=torch.uint8))


def noise(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_an_untrained_dequantiser_has_the_bound_of_even_noise(model: FlowModel) -> None:
    model.dequantiser = dequantiser.Coupling(shape=SHAPE)
    x, eps = images(5), noise(5, 3, *SHAPE).transpose(0, 1)  # (3,5,C,H,W)
    log_w = model.log_weights(x, 3, noise)
    for k in range(3):
        u = torch.special.ndtr(eps[k])
        expected = model.log_density(x + (u - 0.5) * LEVEL, None)[0] + math.prod(SHAPE) * math.log(LEVEL)
        torch.testing.assert_close(log_w[k], expected, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_bounds_approach_the_probability_of_the_levels() -> None:
    """A new spline flow is N(0, I), under which a level has the probability of an interval."""
    torch.manual_seed(0)
    flow = spline.Coupling(steps=1, shape=SHAPE)
    flow.std.fill_(2 * LEVEL)  # so narrow that the density changes within a level
    model = SplineFlow(flow, moved(dequantiser.Coupling(2, width=4, shape=SHAPE), 0.1), shape=SHAPE)
    x = to_float(torch.tensor([[126, 127, 128, 130]], dtype=torch.uint8)).view(1, *SHAPE)
    edges = [torch.special.ndtr((x.double() + half) / (2 * LEVEL)) for half in (LEVEL / 2, -LEVEL / 2)]
    exact = float((edges[0] - edges[1]).log().sum())
    log_w = model.log_weights(x, 20_000, noise)[:, 0]
    assert float(log_mean_exp(log_w, 0)) == pytest.approx(exact, abs=0.01)
    assert float(log_w.mean()) < exact - 0.005, "the mean is a bound, which is not tight for such a q"


def test_the_step_descends_on_flow_and_dequantiser_together(model: FlowModel) -> None:
    class Batches:
        batch, position = 4, 0

        def __next__(self) -> tuple[Tensor, None]:
            return images(4), None

        randn = staticmethod(noise)

    losses = []
    logs = model.step(Batches(), lambda group, loss: losses.append((group, loss)))  # type: ignore[arg-type]
    ((group, loss),) = losses
    assert group == "F"
    loss.backward()
    assert {id(p) for p in model.groups()["F"].parameters()} == {id(p) for p in model.parameters()}
    assert all(p.grad is not None for p in model.dequantiser.parameters())
    bound = model.log_weights(images(4), 1, lambda n, k, *s: noise(n, *s)[:, None])[0]
    bits = -bound.mean() / math.prod(SHAPE) / math.log(2)
    assert float(logs["term/bits_per_dim"].detach()) == pytest.approx(float(bits.detach()), abs=1e-4)


@torch.no_grad()
def test_the_likelihood_of_an_image_does_not_depend_on_its_batch(model: FlowModel) -> None:
    assert isinstance(model, HasLogProb | HasBound)
    assert (model.measure, model.likelihood_kind) == ("discrete", "ELBO")
    x = images(6)
    torch.testing.assert_close(model.log_prob(x)[2:4], model.log_prob(x[2:4]), rtol=1e-5, atol=1e-4)


def test_points_are_not_dequantised() -> None:
    with pytest.raises(ValueError, match="points have no grey levels"):
        dequantiser.Coupling(shape=(2, 1, 1))
    plain = SplineFlow(spline.Coupling(shape=(2, 1, 1)), shape=(2, 1, 1))
    assert (plain.measure, plain.likelihood_kind) == ("density", "exact")
    x = noise(5, 2, 1, 1)
    torch.testing.assert_close(plain.log_weights(x, 3, noise), plain.log_prob(x).expand(3, -1))


def test_a_run_with_a_dequantiser_is_loaded_with_it(tmp_path: Any) -> None:
    tree = {
        "model": {
            "name": "spline_flow",
            "F": {"name": "spline.Coupling", "steps": 1, "widths": [8]},
            "dequantiser": {"name": "dequantiser.Coupling", "couplings": 1, "width": 4},
        },
        "data": {"name": "digits", "limit": 64},
        "optim": {"F": {"lr": 1e-3}},
        "train": {"images": 64, "batch": 16, "device": "cpu", "threads": 1},
    }
    run = limner.train(tree, out=tmp_path / "run", samples=4)
    model = limner.load(run.latest)
    assert isinstance(model, SplineFlow)
    assert model.dequantiser is not None
    assert model.sample(3, seed=0).abs().max() <= 1
