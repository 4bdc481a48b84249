"""What an examination measures of models whose answers are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import limner.data
from limner.core.adversarial import sample_gradient
from limner.core.condition import Classes
from limner.core.model import GenerativeModel
from limner.data import Pixels
from limner.doctor.ground import Ground
from limner.doctor.signals import critic, deep, samples, signals_of, weights
from limner.losses.adversarial import OBJECTIVES

NAMES = ["dark", "bright"]


def images(n: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of 16×16 with two classes, of which the first is dark and the second bright; sorted by class."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) * 2 // n
    smooth = torch.rand(n, 1, 4, 4, generator=g).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return (smooth * 120 + 120 * y[:, None, None, None]).byte(), y


@pytest.fixture(scope="module")
def ground() -> Ground:
    x, y = images()
    held, held_y = images(seed=1)
    return Ground(Pixels("two", x, labels=y, classes=NAMES), Pixels("two", held, labels=held_y, classes=NAMES))


class Painter(GenerativeModel):
    """Draws what it is given, by label, and has a critic that measures the brightness."""

    def __init__(self, obeys: bool = True, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.net = nn.ConvTranspose2d(1, 1, 3, 2)
        self.condition, self.obeys = Classes(NAMES), obeys
        self.norm = norm or nn.Identity()

    def groups(self) -> dict[str, nn.Module]:
        return {"net": self.net}

    def draw(self, n: int, y: Tensor | None, noise: Any, **options: Any) -> Tensor:
        assert y is not None
        x, _ = images(4000, seed=7)
        own = y if self.obeys else noise(0, 1)[:, 0] > 0
        rows = (torch.rand(n, generator=torch.Generator().manual_seed(5)) * 2000).long() + 2000 * own.long()
        drawn: Tensor = self.norm(x[rows].float() / 127.5 - 1)
        return drawn

    def critic(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.weight * x.mean((1, 2, 3)) * 2

    def sample_gradient(self, fake: Tensor, real: Tensor, y: Tensor | None = None) -> Tensor:
        return sample_gradient(OBJECTIVES["wasserstein"], self.critic, fake, real)


def test_labels_are_obeyed_or_not(ground: Ground) -> None:
    good, bad = samples.measure(Painter(), ground).signals, samples.measure(Painter(obeys=False), ground).signals
    assert good["condition/obeyed"] > 0.9
    assert abs(bad["condition/obeyed"]) < 0.3
    assert good["condition/spread"] == pytest.approx(1, abs=0.15)
    assert good["samples/spread"] == pytest.approx(1, abs=0.15)
    assert good["samples/told"] == pytest.approx(0.5, abs=0.15)
    assert good["samples/finite"] == 1


def test_real_images_are_in_random_order(ground: Ground) -> None:
    _, y = ground.real.batch(64, torch.device("cpu"))
    assert y is not None
    assert 16 < int(y.sum()) < 48  # the set is sorted by class


def test_the_critic_is_asked_for_order_slope_and_signal(ground: Ground) -> None:
    model = Painter()
    found = critic.measure(model, ground).signals
    x, y = ground.real.batch(128, torch.device("cpu"))
    fake = model.sample(128, y=y, seed=1_000_033)
    real_logits, fake_logits = model.critic(x), model.critic(fake)
    order = sum(float((r > fake_logits).float().mean()) for r in real_logits) / 128
    assert found["critic/order"] == pytest.approx(order, abs=0.01)
    assert found["critic/slope"] == pytest.approx(2 / 16)  # each of 256 pixels counts 2/256
    assert found["critic/signal"] == pytest.approx(2 / 16)  # the Wasserstein loss passes all of it on
    assert found["critic/real"] == pytest.approx(float((real_logits > 0).float().mean()))
    assert found["critic/gap"] < 0.5
    assert all(p.grad is None for p in model.parameters())


def test_uneven_kernels_and_singular_values(ground: Ground) -> None:
    model = Painter()
    with torch.no_grad():
        model.net.weight.copy_(torch.arange(9.0).view(1, 1, 3, 3))
    found = weights.measure(model, ground).signals
    assert found["nets/uneven"] == 1
    assert found["weights/net"] == pytest.approx(float(torch.arange(9.0).norm()), rel=1e-5)
    matrix = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    largest = float(torch.linalg.svdvals(matrix)[0])
    assert 0.8 * largest < weights._singular_value(matrix) <= largest * 1.0001
    model.net = nn.ConvTranspose2d(1, 1, 4, 2)
    assert weights.measure(model, ground).signals["nets/uneven"] == 0


def test_a_deep_look_tells_copies_and_statistics_that_do_not_fit(ground: Ground) -> None:
    assert ground.held_features is not None
    copies, fresh = (deep.of_features(x[:300], ground) for x in (ground.features, ground.held_features))
    assert copies.signals["deep/ct"] < -5 < fresh.signals["deep/ct"]
    assert copies.signals["deep/near"] == 1
    norm = nn.BatchNorm2d(1, affine=False)
    far = deep.measure(Painter(norm=norm), ground, 200).signals["deep/batch_norm"]
    assert norm.running_mean is not None
    assert "deep/batch_norm" not in deep.measure(Painter(), ground, 200).signals
    assert far > 1  # statistics of 0 and 1 change nothing, and those of the batch do


def test_all_signals_of_a_model_are_found_by_what_it_can_do() -> None:
    found = [s.measure for s in signals_of(Painter())]
    assert found[:3] == [samples.measure, critic.measure, weights.measure]


def test_kernel_distance_is_that_of_the_scores(ground: Ground) -> None:
    from limner.metrics.kernel import kid

    x = ground.held_features
    assert x is not None
    assert ground.kid(x[:100]) == pytest.approx(kid(real=ground.features, fake=x[:100]).value, abs=1e-9)


def test_images_of_a_sorted_folder_have_all_classes() -> None:
    ground = Ground(limner.data.load("mnist-5k", limit=200), None)
    assert sum(ground.kinds.shares) == pytest.approx(1)
    assert ground.held_features is None
