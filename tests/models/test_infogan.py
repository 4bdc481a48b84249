"""Facts of InfoGAN: the bound and its gradients, the codes and their prior, what the codes come to mean."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import distributions as dist

from limner import data
from limner.config.spec import Spec
from limner.core.capabilities import Encodes, EstimatesCodes, Generates, HasCritic
from limner.core.codes import CodePrior
from limner.core.errors import LimnerError
from limner.core.optimisers import Adam
from limner.core.stream import Stream
from limner.core.update import Updates
from limner.evaluation.capabilities import code_scores
from limner.evaluation.draws import drawn_codes
from limner.evaluation.factors import encoded_disentanglement
from limner.metrics.matching import match
from limner.models.infogan import InfoGAN


def small(z: int = 10, shape: tuple[int, int, int] = (1, 8, 8), **options: Any) -> InfoGAN:
    tree = {
        "name": "infogan",
        "codes": [4, "uniform"],
        "q_hidden": 16,
        "G": {"name": "infogan.Generator", "z": z, "widths": [8], "hidden": 16},
        "D": {"name": "infogan.Discriminator", "widths": [8], "hidden": 16},
    }
    spec = Spec.parse("model", tree | options)
    model: InfoGAN = spec.build(shape=shape, classes=10)
    model.spec = spec
    return model


def observed(model: InfoGAN, batch: int = 16) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What each group descends on in one step, and the log."""
    losses: dict[str, torch.Tensor] = {}
    return losses, model.step(Stream(data.load("digits"), batch), losses.__setitem__)


def has_gradient(loss: torch.Tensor, module: torch.nn.Module) -> list[bool]:
    gradients = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True)
    return [g is not None and bool(g.abs().max() > 0) for g in gradients]


def test_the_bound_reaches_g_q_and_the_shared_layers_but_not_the_head_of_d() -> None:
    """A bound that is rebuilt from numbers (torch.Tensor([loss])) reaches nothing; one over all of D moves its head."""
    torch.manual_seed(0)
    model = small().train()
    z = model.prior.batch(16, Stream(data.load("digits"), 16))
    for bound in model.bounds(model.D.trunk(model.G(z)), z).values():
        assert all(has_gradient(bound, model.G))
        assert all(has_gradient(bound, model.D.trunk))
        assert any(has_gradient(bound, model.Q))
        assert not any(has_gradient(bound, model.D.head))
    assert all(has_gradient(model.weighted(model.bounds(model.D.trunk(model.G(z)), z)), model.Q))


def test_g_and_d_descend_on_their_losses_less_the_bounds() -> None:
    torch.manual_seed(0)
    model = small(information=3.0, continuous=0.5)
    seen: list[dict[str, torch.Tensor]] = []
    bounds = model.bounds
    model.bounds = lambda h, z: (seen.append(bounds(h, z)), seen[-1])[1]  # type: ignore[method-assign]
    losses, logs = observed(model)
    assert list(losses) == ["D", "G"]
    assert len(seen) == 2, "fresh noise and codes for D and for G"
    for group, bound in zip("DG", seen, strict=True):
        expected = logs[f"loss/{group}"] - 3.0 * bound["c1"] - 0.5 * bound["c2"]
        torch.testing.assert_close(losses[group], expected)
    assert not torch.equal(seen[0]["c1"], seen[1]["c1"])
    assert torch.equal(logs["term/bound_c1"], seen[1]["c1"])


class Given(torch.nn.Module):
    """Q with the output that a test chooses."""

    def __init__(self, q: torch.Tensor) -> None:
        super().__init__()
        self.q = q

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.q


def test_the_bound_is_that_of_barber_and_agakov_in_nats() -> None:
    """E log Q(c|x) + H(c) against torch.distributions; it is 0 for a Q without knowledge, and at most H(c)."""
    torch.manual_seed(0)
    model = small(sigma=0.7)
    z = model.prior.sample(64, torch.Generator().manual_seed(1)).double()
    one_hot, u = model.prior.split(z)
    h = torch.zeros(64, 1)

    def bounds(q: torch.Tensor) -> dict[str, float]:
        model.Q = Given(q)
        return {k: float(v) for k, v in model.bounds(h, z).items()}

    q = torch.randn(64, 5).double()
    mine = bounds(q)
    log_q = dist.Categorical(logits=q[:, :4]).log_prob(one_hot.argmax(1))
    assert mine["c1"] == pytest.approx(float(log_q.mean()) + math.log(4), abs=1e-12)
    log_q = dist.Normal(q[:, 4], 0.7).log_prob(u[:, 0])
    entropy = float(dist.Uniform(-1.0, 1.0).entropy())
    assert mine["c2"] == pytest.approx(float(log_q.mean()) + entropy, abs=1e-7)
    assert bounds(torch.zeros(64, 5).double())["c1"] == pytest.approx(0, abs=1e-12)
    known = bounds(torch.cat([1000 * one_hot, u], 1))
    assert known["c1"] == pytest.approx(math.log(4), abs=1e-12)
    for scale in (0.1, 1, 10):
        assert bounds(scale * torch.randn(64, 5).double())["c1"] <= math.log(4)
    fixed = small()
    fixed.Q = Given(torch.cat([one_hot, u], 1))
    assert float(fixed.bounds(h, z)["c2"]) == pytest.approx(math.log(2) - math.log(2 * math.pi) / 2, abs=1e-7)


def test_sigma_is_fixed_or_learnt() -> None:
    assert small().Q[-1].out_features == 4 + 1
    model = small(sigma=None)
    assert model.Q[-1].out_features == 4 + 2
    z = model.prior.sample(32, torch.Generator().manual_seed(1))
    q = torch.cat([torch.zeros(32, 4), 0.3 * torch.ones(32, 1), torch.linspace(-2, 1, 32)[:, None]], 1)
    model.Q = Given(q)
    log_q = dist.Normal(q[:, 4], (q[:, 5] / 2).exp()).log_prob(z[:, -1])
    torch.testing.assert_close(model.bounds(torch.zeros(32, 1), z)["c2"], log_q.mean() + math.log(2))


def test_q_does_not_see_real_images() -> None:
    """L_I is an expectation over generated images: a step asks Q twice, and never for the features of real ones."""
    torch.manual_seed(0)
    model = small().train()
    asked: list[torch.Tensor] = []
    model.Q.register_forward_hook(lambda module, inputs, output: asked.append(inputs[0]))
    observed(model)
    real = model.D.trunk(next(Stream(data.load("digits"), 16)).x)
    assert len(asked) == 2
    assert not any(torch.allclose(h, real, atol=1e-3) for h in asked)


def test_the_prior_draws_every_code_and_leaves_the_rest_alone() -> None:
    prior = CodePrior([5, "uniform", 2], z=12)
    z = prior.batch(4000, Stream(data.load("digits"), 16))
    assert prior.noise == 4
    five, u, two = prior.split(z)
    assert torch.equal(five.sum(1), torch.ones(4000))
    assert five.mean(0).sub(0.2).abs().max() < 0.03
    assert two.mean(0).sub(0.5).abs().max() < 0.03
    for part in (u, z[:, :4]):
        assert -1 <= part.min() < -0.99
        assert 0.99 < part.max() <= 1
    plain, three = (prior.sample(6, torch.Generator().manual_seed(3), **c) for c in ({}, {"c1": 3, "c2": -0.25}))
    assert three[:, 4:9].tolist() == [[0, 0, 0, 1, 0]] * 6
    assert three[:, 9].tolist() == [-0.25] * 6
    assert torch.equal(three[:, :4], plain[:, :4])
    assert torch.equal(three[:, 10:], plain[:, 10:])
    short = prior.sample(6, torch.Generator().manual_seed(3), truncation=0.3, c1=3)
    torch.testing.assert_close(short[:, :4], 0.3 * plain[:, :4])
    assert torch.equal(short[:, 9:], plain[:, 9:]), "codes are what they are without it"


@pytest.mark.parametrize("codes", [[1], ["uniform", 0], []])
def test_codes_that_are_none_are_refused(codes: list[Any]) -> None:
    with pytest.raises(LimnerError, match="codes are numbers of values, 2 or more"):
        small(codes=codes)


def test_a_generator_that_is_too_narrow_for_the_codes_is_refused() -> None:
    with pytest.raises(LimnerError, match=r"these codes need 5 numbers and G takes z=4; raise G\.z"):
        small(z=4)
    assert small(z=5).prior.noise == 0


def test_codes_and_noise_change_the_image() -> None:
    torch.manual_seed(0)
    model = small().eval()
    z = model.prior.sample(1, torch.Generator().manual_seed(0), c1=0)
    other = z.clone()
    other[:, 0] = -z[:, 0]
    for changed in (other, model.prior.fixed(z, {"c1": 1}), model.prior.fixed(z, {"c2": 0.9})):
        assert not torch.equal(model.decode(changed), model.decode(z))


def test_codes_are_sampling_options() -> None:
    torch.manual_seed(0)
    model = small()
    fixed = model.sample(3, seed=0, c1=2)
    assert torch.equal(fixed, model.at(c1=2).sample(3, seed=0))
    z = model.prior.sample(3, torch.Generator().manual_seed(0), c1=2)
    with torch.inference_mode():
        assert torch.equal(fixed, model.eval().decode(z))
    assert torch.equal(drawn_codes(model.at(c1=2), 3, torch.Generator().manual_seed(0)), z)
    with pytest.raises(LimnerError, match="c1 must be a whole number from 0 to 3, got 4"):
        model.sample(3, c1=4)
    with pytest.raises(LimnerError, match="c2 must be a number from -2 to 2, got up"):
        model.sample(3, c2="up")
    with pytest.raises(LimnerError, match=r"has no sampling option 'c3' \(it has truncation, c1, c2\)"):
        model.sample(3, c3=1)


def test_previews_vary_one_code_at_a_time() -> None:
    torch.manual_seed(0)
    model = small().eval()
    given: list[torch.Tensor] = []
    decode = model.decode
    model.decode = lambda z, y=None: (given.append(z), decode(z, y))[1]  # type: ignore[method-assign]
    grids = model.preview(None, 12, 0)
    samples = grids["samples"]
    assert (samples.columns, len(samples.images)) == (4, 12)
    assert samples.headings == ["c1=0", "c1=1", "c1=2", "c1=3"]
    assert grids["details"].columns == 10
    sheet, c1, c2 = (z.unflatten(0, (-1, columns)) for z, columns in zip(given, (4, 10, 10), strict=True))
    assert torch.equal(sheet[:, :, 5:9].argmax(2), torch.arange(4).expand(3, 4))
    torch.testing.assert_close(c2[0, :, 9], torch.linspace(-1, 1, 10))
    for grid, first, end in ((sheet, 5, 9), (c1, 5, 9), (c2, 9, 10)):
        rest = torch.cat([grid[:, :, :first], grid[:, :, end:]], 2)
        assert torch.equal(rest, rest[:, :1].expand_as(rest)), "a row shares all else"
        assert not torch.equal(rest[0], rest[1])


def test_capabilities() -> None:
    """It estimates codes and does not reconstruct: the noise beside the codes is lost."""
    model = small()
    assert isinstance(model, (Generates, HasCritic, EstimatesCodes))
    assert not isinstance(model, Encodes)
    assert model.code_values == {"c1": 4, "c2": 0}


def test_estimated_codes_are_scored_against_classes_and_factors() -> None:
    torch.manual_seed(0)
    digits = data.load("digits", split="test")
    model = small(codes=[10, "uniform"], z=12).eval()

    def recognise(x: torch.Tensor) -> torch.Tensor:
        """A Q that names half of the images by their class, in other words, and the rest at random."""
        ids = [
            int((digits.fetch(range(len(digits))).float() / 127.5 - 1 - one).abs().flatten(1).sum(1).argmin())
            for one in x
        ]
        y = digits.labels[torch.tensor(ids)]
        return torch.stack([((y + 3) % 10).float(), y.float()], 1)

    model.estimate_codes = recognise  # type: ignore[method-assign]
    card = code_scores(model, digits)
    assert card["c1_accuracy"].value == 1
    assert "3 = 0" in card["c1_accuracy"].how
    assert card["c1_accuracy"].floor < 0.25
    assert "c2_accuracy" not in card


def test_disentanglement_takes_one_number_for_each_code() -> None:
    torch.manual_seed(0)
    sprites = data.load("mini-dsprites", limit=400)
    model = small(shape=(1, 32, 32), codes=[3, "uniform"], z=8).eval()
    table = {}
    model.estimate_codes = lambda x: table.setdefault(len(table), torch.rand(len(x), 2))  # type: ignore[method-assign]
    scores = encoded_disentanglement(model, sprites, n=200)
    assert scores.scores.codes == 2
    assert scores.how == "encoder"


def test_the_matching_is_the_best_of_all_permutations() -> None:
    torch.manual_seed(0)
    values, labels = torch.randint(4, (60,)), torch.randint(4, (60,))
    best = max(float((torch.tensor(p)[values] == labels).float().mean()) for p in permutations(range(4)))
    result = match(values, labels, 4, 4)
    assert result.accuracy == pytest.approx(best)
    assert result.counts.sum() == 60
    assert 0.25 < result.floor < 0.45
    assert match((labels + 1) % 4, labels, 4, 4).accuracy == 1
    assert match(labels, labels, 6, 4).accuracy == 1
    assert match(labels * 0, labels, 4, 4).accuracy == pytest.approx(float(labels.bincount().max()) / 60)
    with pytest.raises(LimnerError, match="0 values"):
        match(values[:0], labels, 4, 4)


def test_the_bound_rises_in_training() -> None:
    """On small digits Q reads four values of c1 after 150 steps; with weight 0 it never learns to."""
    reached = {}
    for weight in (1.0, 0.0):
        torch.manual_seed(0)
        model = small(information=weight, continuous=weight)
        stream = Stream(data.load("digits"), 64)
        update = Updates(
            model.groups(), {"G": Adam(lr=2e-3, betas=(0.5, 0.999)), "D": Adam(lr=2e-3, betas=(0.5, 0.999))}
        )
        bounds = []
        for _ in range(150):
            stream.begin()
            bounds.append(float(model.step(stream, update)["term/bound_c1"].detach()))
        reached[weight] = sum(bounds[-20:]) / 20
    assert 1.2 < reached[1.0] <= math.log(4)
    assert reached[0.0] < 0.3


def test_d_with_spectral_norm_has_no_batch_norm_and_no_weight_above_one():
    D = {"name": "infogan.Discriminator", "widths": [4, 8], "hidden": 16, "norm": "none", "spectral": True}
    net = small(D=D).D.train()
    for _ in range(30):  # a power iteration each
        net(torch.randn(2, 1, 8, 8))
    layers = [m for m in net.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
    assert len(layers) == 4
    for layer in layers:
        assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1, abs=0.02)
    assert not net.mixes
    assert all(layer.bias is not None for layer in layers), "no batch norm shifts in the place of a bias"
