"""Readers of attributes: the small one that learns from labelled images, and values that have another order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.errors import LimnerError
from limner.metrics.extractors import readers
from limner.metrics.extractors.readers import (
    ReadsAttributes,
    Recognises,
    SmallReader,
    cross_entropies,
    pinned_reader,
    reading,
)

VALUES = {"side": ["left", "right"], "shade": ["dark", "middle", "bright"]}


def pictures(n: int, size: int = 16) -> tuple[Tensor, Tensor]:
    """A bar on one side, of one of three shades, on noise."""
    chance = torch.Generator().manual_seed(n)
    y = torch.stack([torch.randint(k, (n,), generator=chance) for k in (2, 3)], 1)
    x = 0.2 * torch.rand(n, 1, size, size, generator=chance) - 1
    for image, (side, shade) in zip(x, y.tolist(), strict=True):
        image[0, :, (2 if side == 0 else size - 5) :][:, :3] += (shade + 1) / 2
    return x.clamp(-1, 1), y


def test_a_small_reader_learns_every_attribute_and_ignores_unknown_values() -> None:
    x, y = pictures(400)
    hidden = y.clone()
    hidden[::2, 0], hidden[1::2, 1] = -1, -1
    state = torch.random.get_rng_state()
    reader = SmallReader.trained(x, hidden, VALUES, epochs=8)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert isinstance(reader, ReadsAttributes)
    new, truth = pictures(200)
    read = reading(reader.logits(new), reader.values, VALUES)
    assert (read == truth).double().mean(0).min() > 0.9
    assert {k: tuple(v.shape) for k, v in reader.logits(new[:3]).items()} == {"side": (3, 2), "shade": (3, 3)}


def test_gradients_of_what_a_small_reader_sees_reach_the_picture() -> None:
    x, y = pictures(200)
    reader = SmallReader.trained(x, y, VALUES, epochs=8)
    assert isinstance(reader, Recognises)

    def seen(image: Tensor) -> Tensor:
        return (reader.recognise(image) - reader.recognise(x[1:2])).square().sum()

    image = x[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(seen(image), image)
    step = 1e-2 * gradient / gradient.norm()
    with torch.inference_mode():
        change = (seen(x[:1] + step) - seen(x[:1] - step)) / 2
    torch.testing.assert_close(change, (gradient * step).sum(), rtol=0.05, atol=0)
    assert not any(p.requires_grad for p in reader._net.parameters())
    assert reader.recognise(x[:2]).shape == (2, 128)


def test_one_seed_is_one_reader_and_colour_of_another_size_is_read() -> None:
    x, y = pictures(200)
    colour = F.interpolate(x, (16, 20)).repeat(1, 3, 1, 1)
    one, two, other = (SmallReader.trained(colour, y, VALUES, epochs=8, seed=seed) for seed in (0, 0, 1))
    logits = [torch.cat(list(reader.logits(colour).values()), 1) for reader in (one, two, other)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    assert (reading(one.logits(colour), VALUES, VALUES) == y).double().mean() > 0.9


def test_a_pinned_reader_judges_what_it_knows_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = SmallReader.taught([], 0, 1, VALUES, {})
    monkeypatch.setitem(readers.READERS, "bars", lambda device: pinned)
    assert pinned_reader("bars", {"shade": ["bright", "dark"]}) is pinned
    assert pinned_reader("bars", {"shade": ["bright", "black"]}) is None
    assert pinned_reader("bars", {"side": ["left"], "hair": ["red"]}) is None
    assert pinned_reader("other", {"side": ["left"]}) is None


def test_names_of_values_decide_and_not_their_order() -> None:
    read = reading({"hair": torch.eye(3)}, {"hair": ["red", "blond", "grey"]}, {"hair": ["grey", "red"]})
    assert read.tolist() == [[1], [-1], [0]], "blond is no value of the condition"


def test_the_loss_is_the_mean_over_known_values() -> None:
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([[0, 2], [1, -1], [-1, -1], [1, 0], [0, -1], [-1, 1]])
    one = F.cross_entropy(logits[[0, 1, 3, 4], :2], y[[0, 1, 3, 4], 0])
    two = F.cross_entropy(logits[[0, 3, 5], 2:], y[[0, 3, 5], 1])
    torch.testing.assert_close(cross_entropies(logits, y, [2, 3]), one + two)
    assert cross_entropies(logits, torch.full((6, 2), -1), [2, 3]) == 0


def test_what_is_refused() -> None:
    x, y = pictures(4)
    with pytest.raises(LimnerError, match=r"need labels \(4, 2\), got \(4, 1\)"):
        SmallReader.trained(x, y[:, :1], VALUES)
    with pytest.raises(LimnerError, match="at least 2 images"):
        SmallReader.trained(x[:1], y[:1], VALUES)
