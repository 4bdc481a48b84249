"""Facts of the GAN: parameter counts, directions of the gradients, the optimal discriminator, labels and penalties."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from limner import api, data
from limner.config import recipe as recipes
from limner.config.spec import Spec
from limner.core.capabilities import HasCritic, HasPrior
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.optimisers import Adam
from limner.core.prior import Prior
from limner.core.stream import Stream
from limner.core.update import Updates


def test_documented_parameter_counts() -> None:
    plan = api.dry_run("gan-mnist")
    assert plan["parameters"]["G"]["trainable"] == 227_344
    assert plan["parameters"]["D"]["trainable"] == 201_217
    plan = api.dry_run("dcgan-mnist")
    assert plan["parameters"]["G"] == {"total": 2_305_472, "trainable": 2_305_472, "buffers": 25_472}


def test_k_steps_draw_k_fresh_batches() -> None:
    model = recipes.load("gan-mnist", {"d_steps": 3}).model.build(shape=(1, 8, 8), classes=10)
    stream = Stream(data.load("digits"), 16)
    groups: list[str] = []
    model.step(stream, lambda group, loss: groups.append(group))
    assert groups == ["D", "D", "D", "G"]
    assert stream.position == 48


def test_the_prior_has_the_documented_distribution() -> None:
    model = recipes.load("gan-mnist", {"prior": "uniform"}).model.build(shape=(1, 8, 8), classes=10)
    z = model.prior.batch(4096, Stream(data.load("digits"), 16))
    assert -1 <= float(z.min()) < -0.99
    assert 0.99 < float(z.max()) <= 1
    assert abs(float(z.std()) - 1 / math.sqrt(3)) < 0.01


def test_the_discriminator_goes_to_one_half_on_equal_distributions() -> None:
    """With G's images drawn from the data themselves, D's optimum is 1/2 everywhere and its loss log 4."""
    model = recipes.load("gan-mnist").model.build(shape=(1, 8, 8), classes=10)
    stream = Stream(data.load("digits"), 256)

    class Real(torch.nn.Module):
        z = 1

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return next(stream).x + 0 * z.sum()

    model.G = Real()
    update = Updates({"D": model.D}, {"D": Adam(lr=1e-3, weight_decay=0.1)})
    losses = []
    for _ in range(150):
        stream.begin()
        logs = model.step(stream, lambda g, loss: update(g, loss) if g == "D" else None)
        losses.append(float(logs["loss/D"].detach()))
    assert abs(sum(losses[-30:]) / 30 - math.log(4)) < 0.02


def test_a_gan_learns_a_gaussian() -> None:
    """One mode of points in the plane, about (1, 0): mean and spread arrive, once R1 keeps D flat at the end."""
    torch.manual_seed(0)
    source = data.load("ring", modes=1, sigma=0.1)
    tree = {
        "name": "gan",
        "G": {"name": "mlp.Decoder", "z": 4, "widths": [32, 32], "out": "linear"},
        "D": {"name": "mlp.Discriminator", "widths": [64, 64]},
        "penalties": {"r1": 1.0},
    }
    model = Spec.parse("model", tree).build(shape=source.shape, classes=0)
    stream = Stream(source, 256)
    update = Updates(model.groups(), {g: Adam(lr=1e-3, betas=(0.0, 0.9)) for g in "GD"})
    for _ in range(600):
        stream.begin()
        model.step(stream, update)
    x = model.sample(1000, seed=0).flatten(1)
    torch.testing.assert_close(x.mean(0), torch.tensor([1.0, 0.0]), rtol=0, atol=0.07)
    torch.testing.assert_close(x.std(0), torch.tensor([0.1, 0.1]), rtol=0.25, atol=0)


def toy(**options: Any) -> GenerativeModel:
    tree = {
        "name": "gan",
        "G": {"name": "mlp.Decoder", "z": 4, "widths": [16]},
        "D": {"name": "mlp.Discriminator", "widths": [16]},
    }
    for key, value in options.items():
        position, _, last = key.rpartition("__")
        (tree[position] if position else tree)[last] = value  # type: ignore[index]
    spec = Spec.parse("model", tree)
    model: GenerativeModel = spec.build(shape=(1, 8, 8), classes=10)
    model.spec = spec
    return model


def losses_of(model: GenerativeModel, batch: int = 16, steps: int = 1) -> list[dict[str, float]]:
    """What each step logs, with nothing updated."""
    stream, result = Stream(data.load("digits"), batch), []
    for _ in range(steps):
        stream.begin()
        result.append({k: float(v.detach()) for k, v in model.step(stream, lambda g, loss: None).items()})
    return result


class Shifted(nn.Module):
    """A transform that adds ten and records its observations."""

    def __init__(self) -> None:
        super().__init__()
        self.observed: list[tuple[float, int]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 10

    def observe(self, sign: torch.Tensor, images: int) -> None:
        self.observed.append((float(sign), images))


class Doubled(Shifted):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x + 10


class Bowl(nn.Module):
    """D(x) = w/2 (‖x - 10‖² - c), whose gradient is w (x - 10): what was shifted by ten has a slope of its own size."""

    def __init__(self, c: float = 0.0) -> None:
        super().__init__()
        self.w, self.c = nn.Parameter(torch.tensor(0.1)), c
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.detach())
        return self.w / 2 * ((x - 10).flatten(1).square().sum(1) - self.c)


@pytest.mark.parametrize("adversarial", ["nonsaturating", "relativistic"])
def test_inputs_of_d_are_transformed_once(adversarial: str) -> None:
    """Reals, fakes, the images of G's loss, the reals that they are compared with, and the points of the penalty."""
    torch.manual_seed(0)
    model: Any = toy(adversarial=adversarial, penalties={"r1": 1.0, "r2": 1.0})
    model.D, model.transform = Bowl(), Shifted()
    stream, again = (Stream(data.load("digits"), 16) for _ in range(2))
    stream.begin(), again.begin()
    logs = model.step(stream, lambda group, loss: None)
    with torch.no_grad():
        x, fake, other = next(again).x, model.G(again.randn(16, 4)), model.G(again.randn(16, 4))
    visible = [x, fake, x, fake, other] + [x] * (adversarial == "relativistic")
    for result, expected in zip(model.D.seen, visible, strict=True):
        torch.testing.assert_close(result, expected + 10)
    for term, at in (("r1", x), ("r2", fake)):
        expected = 0.5 * (0.1 * at).flatten(1).square().sum(1).mean()
        assert float(logs[f"term/{term}"].detach()) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("rules", "slope"), [(2, 2 * 2 * 0.1), (1, 2 * 0.1)])
def test_a_penalty_is_taken_at_the_images_before_the_transform(rules: int, slope: float) -> None:
    """Images are doubled and shifted: D's slope is w·2x at those that it sees, and 2·w·2x at those before."""
    torch.manual_seed(0)
    model: Any = toy(penalties={"r1": 1.0, "r2": 1.0})
    model.D, model.transform, model.rules = Bowl(), Doubled(), rules
    stream, again = (Stream(data.load("digits"), 16) for _ in range(2))
    stream.begin(), again.begin()
    logs = model.step(stream, lambda group, loss: None)
    with torch.no_grad():
        x, fake = next(again).x, model.G(again.randn(16, 4))
    for term, at in (("r1", x), ("r2", fake)):
        expected = 0.5 * (slope * at).flatten(1).square().sum(1).mean()
        assert float(logs[f"term/{term}"].detach()) == pytest.approx(float(expected), rel=1e-4)


def test_the_transform_observes_the_sign_of_d_on_reals() -> None:
    torch.manual_seed(0)
    model: Any = toy()
    stream, again = (Stream(data.load("digits"), 16) for _ in range(2))
    x = next(again).x.flatten(1).square().sum(1)
    model.D, model.transform = Bowl(c=float(x.median())), Shifted()  # D is sure of about half of the reals
    model.step(stream, lambda group, loss: None)
    assert model.transform.observed == [(pytest.approx(float((x - x.median()).sign().mean())), 16)]
    assert abs(model.transform.observed[0][0]) < 0.2


def test_no_gradient_of_ds_loss_reaches_g() -> None:
    model, losses = toy(penalties={"r2": 1.0}), {}
    model.step(Stream(data.load("digits"), 16), losses.__setitem__)
    assert set(torch.autograd.grad(losses["D"], [*model.G.parameters()], allow_unused=True)) == {None}


def test_labels_of_reals_and_of_fakes_are_not_swapped() -> None:
    model: Any = toy(real_labels=[0.9, 0.9], fake_labels=[0.2, 0.2])
    real, fake = torch.randn(16), torch.randn(16)
    result = model.loss_D(real, fake, Stream(data.load("digits"), 16))
    cross_entropy = nn.functional.binary_cross_entropy_with_logits
    expected = cross_entropy(real, torch.full((16,), 0.9)) + cross_entropy(fake, torch.full((16,), 0.2))
    torch.testing.assert_close(result, expected)


def test_labels_are_drawn_from_their_intervals_and_exchanged() -> None:
    model: Any = toy(real_labels=[0.7, 0.9], fake_labels=[0.0, 0.3], flip=0.25)
    stream = Stream(data.load("digits"), 16)
    t = model._draw_labels(20_000, model.real_labels, model.fake_labels, stream)
    own = (t >= 0.7) & (t <= 0.9)
    assert bool((own | (t <= 0.3)).all())
    assert abs(float(own.float().mean()) - 0.75) < 0.01
    assert abs(float(t[own].mean()) - 0.8) < 0.005
    assert abs(float(t[~own].mean()) - 0.15) < 0.005


def test_one_sided_smoothing_penalises_a_certain_d() -> None:
    """With t = 0.9 the loss of D = 1/2 is still log 4, and a D that is sure of the reals pays for it."""
    model: Any = toy(real_labels=[0.9, 0.9])
    stream = Stream(data.load("digits"), 16)
    flat, sure = torch.zeros(64), torch.full((64,), 12.0)
    assert float(model.loss_D(flat, flat, stream)) == pytest.approx(math.log(4))
    assert float(model.loss_D(sure, -sure, stream)) == pytest.approx(1.2, abs=1e-3)


def test_lazy_penalties_are_applied_every_k_steps_with_k_times_the_weight() -> None:
    torch.manual_seed(0)
    often = toy(penalties={"r1": 2.0})
    seldom = toy(penalties={"r1": 2.0}, penalty_every=4)
    seldom.load_state_dict(often.state_dict())
    a, b = losses_of(often, steps=8), losses_of(seldom, steps=8)
    assert [m["term/r1"] > 0 for m in b] == [True, False, False, False] * 2
    assert b[0]["term/r1"] == pytest.approx(4 * a[0]["term/r1"])


def test_the_penalty_is_part_of_what_d_descends_on() -> None:
    torch.manual_seed(0)
    plain, bound = toy(), toy(penalties={"r1": 3.0})
    bound.load_state_dict(plain.state_dict())

    def seen(model: GenerativeModel) -> tuple[float, dict[str, torch.Tensor]]:
        stream, losses = Stream(data.load("digits"), 16), {}
        stream.begin()
        logs = model.step(stream, lambda g, loss: losses.__setitem__(g, float(loss.detach())))
        return losses["D"], logs

    (a, _), (b, logs) = seen(plain), seen(bound)
    assert b == pytest.approx(a + 3 * float(logs["term/r1"].detach()), rel=1e-5)


def test_a_relativistic_generator_uses_the_reals() -> None:
    torch.manual_seed(0)
    model = toy(adversarial="relativistic")
    logs = losses_of(model)[0]
    assert logs["loss/D"] == pytest.approx(math.log(2), abs=0.3)
    assert logs["loss/G"] == pytest.approx(math.log(2), abs=0.3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"adversarial": "hinge", "real_labels": [0.9, 0.9]}, "labels mean nothing to hinge"),
        ({"real_labels": [0.9, 0.7]}, "interval"),
        ({"flip": 0.7}, "share from 0 to 0.5"),
        ({"adversarial": "wasserstein"}, "bounded slope"),
        ({"penalties": {"r1": 0}}, "must be positive"),
        ({"d_steps": 0}, "at least 1"),
        ({"penalty_every": 0}, "at least 1"),
    ],
)
def test_invalid_combinations_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(LimnerError, match=reason):
        toy(**options)


def test_a_gradient_penalty_and_batch_norm_are_refused() -> None:
    with pytest.raises(LimnerError, match=r"D\.norm=layer"):
        api.prepare(recipes.load("dcgan-32", {"data": "digits", "size": 16, "penalties": {"gradient_penalty": 10}}))


@pytest.mark.parametrize("options", [{"D.pack": 3}, {"D.minibatch": "std", "train.batch": 1}])
def test_invalid_batches_are_refused_before_anything_is_written(options: dict[str, Any]) -> None:
    with pytest.raises(LimnerError, match=r"train\.batch"):
        api.prepare(recipes.load("gan-mnist", {"data": "digits", **options}))


def test_truncation_draws_from_the_middle_of_the_prior() -> None:
    model = toy()
    assert isinstance(model, HasPrior)
    generator = torch.Generator().manual_seed(0)
    z = model.prior.sample(20_000, generator, truncation=0.7)
    assert float(z.abs().max()) <= 0.7
    inner = torch.randn(400_000, generator=generator)
    inner = inner[inner.abs() <= 0.7]
    assert float(z.std()) == pytest.approx(float(inner.std()), rel=0.01)
    whole = model.prior.sample(20_000, generator, truncation=8.0)
    assert float(whole.std()) == pytest.approx(1.0, rel=0.01)
    a, b = model.sample(64, seed=0, truncation=0.1), model.sample(64, seed=0)
    assert float(a.std(0).mean()) < float(b.std(0).mean())
    with pytest.raises(LimnerError, match="truncation must be a number above 0, got 0"):
        model.sample(2, truncation=0)


@pytest.mark.parametrize(("truncation", "reach"), [(None, 1.0), (0.3, 0.3), (4.0, 1.0)])
def test_truncation_narrows_a_uniform_prior(truncation: float | None, reach: float) -> None:
    z = Prior("uniform", 8).sample(4000, torch.Generator().manual_seed(0), truncation=truncation)
    assert -reach <= float(z.min()) < -0.99 * reach
    assert 0.99 * reach < float(z.max()) <= reach


def test_dropout_in_g_at_sampling_is_a_function_of_the_seed() -> None:
    model = toy(G__dropout=0.5)
    a, state = model.sample(4, seed=3), torch.get_rng_state()
    assert torch.equal(a, model.sample(4, seed=3))
    assert torch.equal(state, torch.get_rng_state()), "sampling leaves the default generator as it was"
    model.eval()
    z = torch.zeros(1, 4)
    assert not torch.equal(model.G(z), model.G(z)), "dropout stays on"


def test_critic_and_sample_gradient_have_the_shapes_of_the_samples() -> None:
    model = toy(D__pack=2)
    assert isinstance(model, HasCritic)
    x = model.sample(5, seed=0).clone()
    assert model.critic(x).shape == (5,)
    step = x + 1e-2 * model.sample_gradient(x, x)
    assert float(model.critic(step).sum().detach()) > float(model.critic(x).sum().detach())
