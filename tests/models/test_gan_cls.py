"""Facts of GAN-CLS and GAN-INT: the three kinds of pairs and their weights, and texts between texts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from limner.config.spec import Spec
from limner.core.batch import Images, Mismatched
from limner.core.condition import Classes, Vectors
from limner.core.errors import LimnerError

SIZE, Z, SHAPE, B = 5, 4, (1, 4, 4), 6
TEXTS = Vectors("none", ["a", "b"], torch.randn(2, SIZE))


class Batches:
    """Batches of random images and texts in float64, and the noise of a step, which `used` keeps."""

    def __init__(self, kind: type = Mismatched, classes: bool = False) -> None:
        self.batch, self.position, self.kind = B, 0, kind
        self.generator = torch.Generator().manual_seed(1)
        self.used: list[Tensor] = []
        self.x = torch.rand(B, *SHAPE, generator=self.generator, dtype=torch.float64) * 2 - 1
        self.t, self.wrong = torch.randn(2, B, SIZE, generator=self.generator, dtype=torch.float64)
        if classes:
            self.t, self.wrong = torch.arange(B) % SIZE, (torch.arange(B) + 1) % SIZE

    def __next__(self) -> Any:
        self.position += self.batch
        values = (self.x, self.t, self.wrong)
        return self.kind(*values[: len(self.kind._fields)])

    def randn(self, *size: int) -> Tensor:
        self.used.append(torch.randn(*size, generator=self.generator, dtype=torch.float64))
        return self.used[-1]


def build(name: str = "gan_cls", condition: Any = TEXTS, **options: Any) -> Any:
    d = {"name": "mlp.Discriminator", "widths": [8], "conditional": True}
    g = {"name": "mlp.Decoder", "z": Z, "widths": [8], "conditional": True}
    spec = Spec.parse("model", {"name": name, "G": g, "D": d, **options})
    torch.manual_seed(0)
    model = spec.build(shape=SHAPE, classes=condition.size, condition=condition.header())
    model.spec = spec
    return model.double()


def losses(model: Any, data: Any) -> dict[str, Tensor]:
    """What each update of a step descends; nothing is updated."""
    result: dict[str, Tensor] = {}

    def update(group: str, loss: Any) -> None:
        assert group not in result, "one step of each"
        result[group] = loss

    result_logs = model.step(data, update)
    assert result_logs["loss/D"] is result["D"]
    return result


def bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def test_d_weighs_right_generated_and_wrong_pairs_by_one_and_two_halves():
    model, data = build(), Batches()
    loss = losses(model, data)
    fake = model.G(data.used[0], data.t)
    right, generated, wrong = model.D(data.x, data.t), model.D(fake, data.t), model.D(data.x, data.wrong)
    torch.testing.assert_close(
        loss["D"].double(), bce(right, 1) + 0.5 * bce(generated, 0) + 0.5 * bce(wrong, 0), rtol=0, atol=1e-6
    )
    g = bce(generated, 1)
    torch.testing.assert_close(loss["G"].double(), g, rtol=0, atol=1e-6)


def test_wrong_texts_change_the_loss_of_d_and_not_that_of_g():
    model, data, other = build(), Batches(), Batches()
    other.wrong = other.t
    a, b = losses(model, data), losses(model, other)
    assert float((a["D"] - b["D"]).detach().abs()) > 1e-3
    assert torch.equal(a["G"], b["G"])


def test_without_wrong_texts_it_is_a_cgan():
    a = losses(build(wrong=0), Batches())
    b = losses(build("cgan"), Batches(Images))
    for group in "DG":
        torch.testing.assert_close(a[group], b[group], rtol=0, atol=1e-7)


def test_texts_between_texts_are_for_g_alone():
    plain, between = build(), build(interpolation=1)
    data, other = Batches(), Batches()
    a, b = losses(plain, data), losses(between, other)
    assert torch.equal(a["D"], b["D"]), "D never sees them: no image belongs to them"
    t = (other.t + other.wrong) / 2
    term = bce(between.D(between.G(other.used[1], t), t), 1)
    torch.testing.assert_close((b["G"] - a["G"]).double(), term, rtol=0, atol=1e-6)
    half = losses(build(interpolation=0.5), Batches())
    torch.testing.assert_close((half["G"] - a["G"]).double(), term / 2, rtol=0, atol=1e-6)


def test_the_gradient_of_wrong_pairs_reaches_d_and_not_g():
    model, data = build(), Batches()
    loss = losses(model, data)
    assert all(g is None for g in torch.autograd.grad(loss["D"], list(model.G.parameters()), allow_unused=True))


def test_between_two_classes_are_half_of_each():
    model, data, told = build(condition=Classes(SIZE), interpolation=1), Batches(classes=True), []
    model.G.register_forward_pre_hook(lambda module, given: told.append(given[1]))
    losses(model, data)
    assert told[1].shape == (B, SIZE)
    assert torch.equal(told[1], (F.one_hot(data.t, SIZE) + F.one_hot(data.wrong, SIZE)).double() / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wrong": 1.0}, "wrong is a share"),
        ({"wrong": -0.1}, "wrong is a share"),
        ({"interpolation": -1}, "interpolation is a weight"),
        ({"D": {"name": "mlp.Discriminator", "widths": [8]}}, r"D is not told the label; write D.conditional=text"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        build(**options)


# ---- from captions to pictures ---------------------------------------------------------------------------------------


def test_pictures_between_two_labels_share_their_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build().float()
    monkeypatch.setattr(model.condition, "_known", {"a": TEXTS.vectors[0], "b": TEXTS.vectors[1]})
    told: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(model, "decode", lambda z, y: (told.append((z, y)), model.G(z, y))[1])
    x = model.sample(10, y="a", to="b", columns=5, seed=0)
    ((z, y),) = told
    assert x.shape == (10, *SHAPE)
    for row in (slice(0, 5), slice(5, 10)):
        assert bool((z[row] == z[row][0]).all())
        t = torch.linspace(0, 1, 5)[:, None]
        torch.testing.assert_close(y[row], (1 - t) * TEXTS.vectors[0] + t * TEXTS.vectors[1])
    torch.testing.assert_close(x[[0, 5]], model.sample(2, y="a", seed=0))  # of another batch: rounding may differ
    with pytest.raises(LimnerError, match="the label that a row begins with"):
        model.sample(4, to="b", columns=2)
