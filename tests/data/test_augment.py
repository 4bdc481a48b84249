"""Augmentations are functions of the key of a sample."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from limner.core.rng import keys
from limner.data import augment

ALL = [augment.flip, partial(augment.shift, pixels=3), augment.binarise]


def some_keys(n: int, epoch: int = 0) -> torch.Tensor:
    return keys(7, torch.full((n,), epoch), torch.arange(n))


@pytest.mark.parametrize("change", ALL)
def test_the_batch_around_an_image_does_not_matter(change):
    x, k = torch.rand(16, 3, 9, 7) * 2 - 1, some_keys(16)
    whole = change(x, k)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(change(x[order], k[order]), whole[order])
    assert torch.equal(torch.cat([change(x[i : i + 1], k[i : i + 1]) for i in range(16)]), whole)


@pytest.mark.parametrize("change", ALL)
def test_another_epoch_is_another_draw_and_the_input_is_left_alone(change):
    x = torch.rand(64, 1, 8, 8) * 2 - 1
    before = x.clone()
    assert not torch.equal(change(x, some_keys(64, 0)), change(x, some_keys(64, 1)))
    assert torch.equal(x, before)


def test_half_of_the_images_are_flipped():
    x = torch.arange(4.0).expand(4000, 1, 1, 4)
    flipped = augment.flip(x, some_keys(4000))[:, 0, 0, 0] == 3
    assert abs(flipped.float().mean().item() - 0.5) < 4 * 0.5 / 4000**0.5


def test_every_move_is_equally_likely_and_repeats_the_edge():
    n, radius = 9000, 1
    x = torch.arange(25.0).view(1, 1, 5, 5).expand(n, 1, 5, 5)
    moved = augment.shift(x, some_keys(n), radius)
    centre = moved[:, 0, 2, 2].long()  # each value occurs once, so it identifies the move
    dy, dx = 2 - centre // 5, 2 - centre % 5
    counts = torch.zeros(3, 3).index_put((dy + radius, dx + radius), torch.ones(n), accumulate=True)
    assert (counts - n / 9).abs().max() < 5 * (n / 9) ** 0.5
    right = moved[(dy == 0) & (dx == 1)][0, 0]
    assert torch.equal(right, x[0, 0][:, [0, 0, 1, 2, 3]])
    down = moved[(dy == 1) & (dx == 0)][0, 0]
    assert torch.equal(down, x[0, 0][[0, 0, 1, 2, 3]])


def test_a_draw_of_almost_one_does_not_move_too_far(monkeypatch):
    almost = 1 - 2.0**-24  # times 3 it rounds to 3 in float32
    monkeypatch.setattr(augment, "uniform", lambda keys, stream_id, n: torch.full((len(keys), n), almost))
    x = torch.arange(3.0).view(1, 1, 1, 3)
    assert augment.shift(x, some_keys(1), 1)[0, 0, 0].tolist() == [0, 0, 1]


def test_intensity_is_the_probability_of_white():
    p = torch.tensor([0.0, 0.25, 0.75, 1.0])
    x = (2 * p - 1).view(1, 1, 1, 4).expand(8000, 1, 1, 4)
    drawn = augment.binarise(x, some_keys(8000))
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    share = (drawn > 0).float().mean((0, 1, 2))
    assert torch.allclose(share, p, atol=5 * 0.5 / 8000**0.5)
    assert share[0] == 0
    assert share[3] == 1


def test_augmentations_do_not_share_a_draw():
    k = some_keys(4000)
    mirrored = augment.flip(torch.tensor([0.0, 1.0]).expand(4000, 1, 1, 2), k)[:, 0, 0, 0]
    moved = augment.shift(torch.arange(3.0).expand(4000, 1, 1, 3), k, 1)[:, 0, 0, 1]
    assert abs(torch.corrcoef(torch.stack([mirrored, moved]))[0, 1].item()) < 5 / 4000**0.5
